"""The reward a config names: found where it is, checked at every answer, and refused in one sentence."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lfp.config import FeedbackConfig
from lfp.errors import ConfigError, LfpError, ModelError, TrainingError
from lfp.texts.lexicon import vader_reward
from lfp.texts.rewards import checked, reward_of

pytestmark = pytest.mark.usefixtures("own_modules")
TEXTS = ["a", "bb", "ccc " * 50]


def module(folder: Path, name: str, code: str) -> Path:
    path = folder / f"{name}.py"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(code, encoding="utf-8")
    return path


def named(reward: str, beside: Path | None = None) -> Any:
    return reward_of(FeedbackConfig(reward=reward), beside=beside)


def test_vader_and_a_lexicon_are_named_by_a_word(tmp_path: Path) -> None:
    assert named("vader") is vader_reward
    (tmp_path / "words.csv").write_text("word,value\nplot,5\n", encoding="utf-8")
    reward = reward_of(FeedbackConfig(reward="lexicon", lexicon="words.csv"), beside=tmp_path)
    assert reward(["good plot", "good"]) == [1.0, 0.0]


@pytest.mark.parametrize("at", ["beside", "working"])
@pytest.mark.parametrize("name", ["my_length_reward", "my_rewards.length"])
def test_a_function_is_found_in_both_places(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str, name: str
) -> None:
    for place in ("beside", "working"):
        (tmp_path / place).mkdir()
    monkeypatch.chdir(tmp_path / "working")
    module(tmp_path / at, name.replace(".", "/"), "def score(texts):\n    return [len(text) for text in texts]\n")
    assert named(f"{name}:score", tmp_path / "beside")(["a", "bb"]) == [1.0, 2.0]


def test_an_installed_module_is_found_too(tmp_path: Path) -> None:
    assert named("lfp.texts.lexicon:vader_reward", tmp_path)(["good"]) == vader_reward(["good"])


def test_a_function_may_import_its_neighbour_when_it_is_called(tmp_path: Path) -> None:
    module(tmp_path, "neighbour_of_reward", "VALUE = 7\n")
    module(
        tmp_path,
        "late_reward",
        "def score(texts):\n    from neighbour_of_reward import VALUE\n    return [VALUE] * len(texts)\n",
    )
    assert named("late_reward:score", tmp_path)(["a"]) == [7.0]


@pytest.mark.parametrize(
    ("reward", "code", "says"),
    [
        ("absent_reward:score", None, r"no module absent_reward \(looked in .*\)"),
        ("broken_reward:score", "import no_such_thing\n", "cannot be imported .*No module named 'no_such_thing'"),
        ("broken_reward2:score", "def score(texts:\n", "cannot be imported .*SyntaxError"),
        (
            "broken_reward3:score",
            "raise RuntimeError('no key\\nhere')\n",
            r"cannot be imported \(RuntimeError: no key\)",
        ),
        ("other_reward:score", "def scores(texts): ...\n", "has nothing of that name"),
        ("number_reward:score", "score = 3.0\n", "has a float, not a function"),
        ("json:score", "def score(texts): ...\n", "another module is already called json"),
    ],
)
def test_a_function_that_cannot_be_had_is_a_wrong_config(
    tmp_path: Path, reward: str, code: str | None, says: str
) -> None:
    if code is not None:
        module(tmp_path, reward.partition(":")[0], code)
    with pytest.raises(ConfigError, match=rf'feedback\.reward "{reward}": .*{says}') as caught:
        named(reward, tmp_path)
    assert caught.value.exit_code == 2 and "\n" not in str(caught.value)


def raises(texts: list[str]) -> list[float]:
    raise ValueError("first line\nsecond line")


@pytest.mark.parametrize(
    ("reward", "says"),
    [
        (raises, r"fails on 3 texts \(ValueError: first line\); fix the function"),
        (lambda texts: None, "fails on 3 texts \\(TypeError: 'NoneType' object is not iterable"),
        (lambda texts: ["much"] * len(texts), r"fails on 3 texts \(ValueError: could not convert string to float"),
        (lambda texts: [1.0], "returned 1 values for 3 texts; return one number"),
        (lambda texts: [], "returned 0 values for 3 texts"),
        (lambda texts: [1.0] * 4, "returned 4 values for 3 texts"),
        (lambda texts: [0.0, math.nan, 0.0], "returned nan for text 1, 'bb'; return finite numbers"),
        (lambda texts: [0.0, 1.0, -math.inf], r"returned -inf for text 2, '(ccc ){20}\.\.\.'"),
    ],
)
def test_a_wrong_answer_is_refused_in_one_sentence(reward: Callable[[list[str]], Any], says: str) -> None:
    with pytest.raises(TrainingError, match=f"^reward length: {says}") as caught:
        checked(reward, name="length")(TEXTS)
    assert caught.value.exit_code == 1 and "\n" not in str(caught.value)


def test_right_answers_of_any_kind_become_floats() -> None:
    for answer in ([1, 2, 3], (1.0, 2.0, 3.0), np.array([1, 2, 3]), iter([1, True, np.float32(3)])):
        values = checked(lambda _, answer=answer: answer, name="length")(TEXTS)
        assert all(type(value) is float for value in values) and values[2] == 3.0


def test_a_reward_that_fails_is_called_once() -> None:
    calls: list[list[str]] = []

    def fails(texts: list[str]) -> list[float]:
        calls.append(texts)
        raise KeyError("bb")

    with pytest.raises(TrainingError):
        checked(fails, name="length")(TEXTS)
    assert calls == [TEXTS]


def test_a_reward_that_changes_its_list_changes_its_own() -> None:
    texts = list(TEXTS)
    checked(lambda given: [len(given.pop()) for _ in range(3)], name="length")(texts)
    assert texts == TEXTS


def test_an_error_of_the_library_passes_unchanged() -> None:
    def refuses(texts: list[str]) -> list[float]:
        raise ModelError("no such model; name one")

    with pytest.raises(LfpError, match=r"^no such model; name one$"):
        checked(refuses, name="length")(TEXTS)
