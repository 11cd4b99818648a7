"""The reward a config names: the paper's (a lexicon's values summed) or any Python function, checked at every call."""

from __future__ import annotations

import importlib
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from lfp.config import LEXICON, VADER, FeedbackConfig
from lfp.errors import ConfigError, LfpError, TrainingError, first_line
from lfp.texts.lexicon import Reward, lexicon_of, lexicon_reward, vader_reward

_SHOWN = 80  # characters of a text in an error


def reward_of(config: FeedbackConfig, *, beside: Path | None) -> Reward:
    """Load the reward a config names, checked at every call (`lfp.ml.models.reward_model` loads classifiers).

    Raises ConfigError where the module or function cannot be imported.
    """
    spelled = config.reward
    if spelled == VADER:
        return vader_reward
    if spelled == LEXICON:
        return lexicon_reward(lexicon_of(config, beside=beside))
    module_name, _, function = spelled.partition(":")
    module = _import(module_name, [Path.cwd(), *([beside.resolve()] if beside else [])], spelled)
    found = getattr(module, function, None)
    if not callable(found):
        what = "nothing of that name" if found is None else f"a {type(found).__name__}, not a function"
        raise ConfigError(f'feedback.reward "{spelled}": {module.__file__} has {what}; name a function of it')
    return checked(found, name=spelled)


def checked(reward: Reward, *, name: str) -> Reward:
    """Check every answer of a reward: one finite number per text.

    The returned function raises TrainingError where `reward` raises, or returns anything else.
    """

    def rewards(texts: list[str]) -> list[float]:
        try:
            values = [float(value) for value in reward(list(texts))]
        except LfpError:
            raise
        except Exception as error:
            reason = f"{type(error).__name__}: {first_line(error)}"
            raise TrainingError(f"reward {name}: fails on {len(texts)} texts ({reason}); fix the function") from error
        if len(values) != len(texts):
            raise TrainingError(
                f"reward {name}: returned {len(values)} values for {len(texts)} texts; return one number for each text"
            )
        for row, (value, text) in enumerate(zip(values, texts, strict=True)):
            if not math.isfinite(value):
                shown = repr(text if len(text) <= _SHOWN else text[:_SHOWN] + "...")
                raise TrainingError(f"reward {name}: returned {value} for text {row}, {shown}; return finite numbers")
        return values

    return rewards


def _import(name: str, folders: Sequence[Path], spelled: str) -> ModuleType:
    """Import a module, looked for in these folders before anything installed.

    The folders stay at the end of Python's path, since the function may import its neighbours when it is called.
    Raises ConfigError, also where a module of the same name from elsewhere hides the user's file.
    """
    sys.path.extend(str(folder) for folder in folders if str(folder) not in sys.path)
    importlib.invalidate_caches()
    try:
        module = importlib.import_module(name)
    except Exception as error:
        if (
            isinstance(error, ModuleNotFoundError)
            and error.name is not None
            and f"{name}.".startswith(f"{error.name}.")
        ):
            looked = ", ".join(map(str, folders))
            raise ConfigError(
                f'feedback.reward "{spelled}": no module {error.name} (looked in {looked} and the installed packages);'
                " put its file in one of those"
            ) from error
        reason = f"{type(error).__name__}: {first_line(error)}"
        raise ConfigError(f'feedback.reward "{spelled}": its module cannot be imported ({reason}); fix it') from error
    relative = Path(*name.split("."))
    files = (place for at in folders for place in (at / relative.with_suffix(".py"), at / relative / "__init__.py"))
    file = next((place for place in files if place.is_file()), None)
    if file is not None and (module.__file__ is None or Path(module.__file__).resolve() != file.resolve()):
        raise ConfigError(
            f'feedback.reward "{spelled}": another module is already called {name} ({module.__file__ or "built in"});'
            f" rename {file}"
        )
    return module
