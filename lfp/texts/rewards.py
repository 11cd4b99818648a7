"""The reward that a config names: the paper's by a lexicon, or any Python callable, checked at every call."""

from __future__ import annotations

import importlib
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from lfp.config import LEXICON, VADER, FeedbackConfig
from lfp.errors import ConfigError, LfpError, TrainingError
from lfp.texts.lexicon import Reward, lexicon_of, lexicon_reward, vader_reward

_SHOWN = 80  # characters of a text in an error


def reward_of(config: FeedbackConfig, *, beside: Path | None) -> Reward:
    """The reward that a config names, checked at every call; a classifier is `lfp.ml.models.reward_model`'s to load.

    Raises ConfigError where the module or function cannot be had.
    """
    if config.reward == VADER:
        return vader_reward
    if config.reward == LEXICON:
        return lexicon_reward(lexicon_of(config, beside=beside))
    return checked(_named(config.reward, beside), name=config.reward)


def checked(reward: Reward, *, name: str) -> Reward:
    """The reward with every answer checked: one finite number a text.

    What it returns raises TrainingError that names the text where `reward` raises, gives no number, or too few.
    """

    def rewards(texts: list[str]) -> list[float]:
        try:
            values = [float(value) for value in reward(list(texts))]
        except LfpError:
            raise
        except Exception as error:
            reason = _first_line(error)
            raise TrainingError(
                f"reward {name}: fails on {_failing(reward, texts)} ({reason}); mend the reward"
            ) from error
        if len(values) != len(texts):
            raise TrainingError(f"reward {name}: {_wrong_length(texts, len(values))}; return one number for each text")
        for row, value in enumerate(values):
            if not math.isfinite(value):
                raise TrainingError(f"reward {name}: gives {value} for {_text(row, texts)}; return finite numbers")
        return values

    return rewards


def _wrong_length(texts: Sequence[str], n_values: int) -> str:
    without = f", none for {_text(n_values, texts)}" if n_values < len(texts) else ""
    return f"gives {n_values} values for {len(texts)} texts{without}"


def _failing(reward: Reward, texts: Sequence[str]) -> str:
    """The first text on which the reward fails by itself, or that it fails on all of them together only."""
    for row, text in enumerate(texts):
        try:
            [float(value) for value in reward([text])]
        except Exception:  # noqa: BLE001 - a caller's function may raise anything
            return _text(row, texts)
    return (
        f"{len(texts)} texts together, though on none by itself; text 0 is {_shown(texts[0])}" if texts else "no text"
    )


def _text(row: int, texts: Sequence[str]) -> str:
    return f"text {row}, {_shown(texts[row])}"


def _shown(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else text[:_SHOWN] + "...")


def _named(spelled: str, beside: Path | None) -> Reward:
    """The function `module:function`. Raises ConfigError."""
    module_name, _, function = spelled.partition(":")
    module = _import(module_name, [Path.cwd(), *([beside.resolve()] if beside else [])], spelled)
    found = getattr(module, function, None)
    if not callable(found):
        what = "nothing of that name" if found is None else f"a {type(found).__name__}, not a function"
        raise ConfigError(f'feedback.reward "{spelled}": {module.__file__} has {what}; name a function of it')
    return found


def _import(name: str, folders: Sequence[Path], spelled: str) -> ModuleType:
    """The module, looked for in these folders before anything installed.

    The folders stay on Python's path, last, since the function may import its neighbours when it is called.
    """
    sys.path.extend(str(folder) for folder in folders if str(folder) not in sys.path)
    importlib.invalidate_caches()
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise _broken(spelled, error) from error
        looked = ", ".join(map(str, folders))
        raise ConfigError(
            f'feedback.reward "{spelled}": no module {error.name} (looked in {looked} and what is installed);'
            " put its file in one of those"
        ) from error
    except Exception as error:
        raise _broken(spelled, error) from error
    _check_origin(module, name, folders, spelled)
    return module


def _check_origin(module: ModuleType, name: str, folders: Sequence[Path], spelled: str) -> None:
    """Refuses a module of the same name from elsewhere, where a file of the user's is meant."""
    relative = Path(*name.split("."))
    for folder in folders:
        for file in (folder / relative.with_suffix(".py"), folder / relative / "__init__.py"):
            if file.is_file():
                if module.__file__ is None or Path(module.__file__).resolve() != file.resolve():
                    raise ConfigError(
                        f'feedback.reward "{spelled}": {name} is another module already'
                        f" ({module.__file__ or 'built in'}); give {file} another name"
                    )
                return


def _broken(spelled: str, error: Exception) -> ConfigError:
    reason = f"{type(error).__name__}: {_first_line(error)}"
    return ConfigError(f'feedback.reward "{spelled}": its module cannot be imported ({reason}); mend it')


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
