"""Feedback that cannot be used: one sentence and an exit code, before any model is trained where possible."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.precompute.conftest import reviews, silent, tiny_config
from tests.precompute.test_cli import call

pytestmark = pytest.mark.usefixtures("own_modules")


def refused(folder: Path, config: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Exit code and last line of `precompute run` with that config, and a corpus of reviews beside it."""
    lines = [review.text for review in reviews(60)]
    (folder / "reviews.txt").write_text("\n".join(lines), encoding="utf-8")
    (folder / "run.toml").write_text(config, encoding="utf-8")
    code, _, err = call("run", str(folder / "run.toml"), "--out", str(folder / "out"), capsys=capsys)
    last = err.splitlines()[-1]
    assert last.startswith("error: ") and "Traceback" not in err
    assert not (folder / "out").exists()
    return code, last


CORPUS = '[corpus]\nsource = "reviews.txt"\n'


@pytest.mark.parametrize(
    ("lexicon", "says"),
    [
        ("word,value\ngut,1\nschlecht,-1\n", "none of its 2 words, such as 'gut', is in the corpus"),
        ("word,value\nfilm,1\nplot,1\ngood,1\n", "has the value 1.0"),
        ("word,value\nfilm,1\nFilm,2\n", "row 1 gives 'film' a second value"),
        ("word,value\nfilm,nice\n", "row 0, 'film', has the value 'nice'"),
        ("word,value\nfilm,\nplot,1\n", "row 0, 'film', has the value None"),
        ("term,value\nfilm,1\n", "no column 'word'"),
    ],
)
def test_a_lexicon(tmp_path: Path, capsys: pytest.CaptureFixture[str], lexicon: str, says: str) -> None:
    (tmp_path / "words.csv").write_text(lexicon, encoding="utf-8")
    code, last = refused(tmp_path, f'{CORPUS}[feedback]\nlexicon = "words.csv"\n', capsys)
    assert code == 1 and says in last and "words.csv" in last


@pytest.mark.parametrize(
    ("name", "body", "code", "says"),
    [
        ("a", "raise ValueError('no such text')", 1, "fails on 16 texts (ValueError: no such text)"),
        ("b", "return [float('nan')] * len(texts)", 1, "returned nan for text 0, '"),
        ("c", "return [0.0]", 1, "returned 1 values for 16 texts"),
        ("d", "return None", 1, "fails on 16 texts (TypeError"),
        ("e", "return [", 2, "cannot be imported (SyntaxError"),
    ],
)
def test_a_reward(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, body: str, code: int, says: str
) -> None:
    (tmp_path / f"input_reward_{name}.py").write_text(f"def score(texts):\n    {body}\n", encoding="utf-8")
    config = f'{CORPUS}[feedback]\nreward = "input_reward_{name}:score"\n'
    ended, last = refused(tmp_path, config, capsys)
    assert ended == code and says in last and f"input_reward_{name}:score" in last


def test_a_reward_of_no_module_is_a_wrong_config(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, last = refused(tmp_path, f'{CORPUS}[feedback]\nreward = "input_reward_absent:score"\n', capsys)
    assert code == 2 and "no module input_reward_absent" in last and str(tmp_path) in last


def test_a_classifier_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = f'{CORPUS}[feedback]\nreward = "classifier"\nclassifier = "{tmp_path}/absent"\n'
    code, last = refused(tmp_path, config, capsys)
    assert code == 1 and f"{tmp_path}/absent: no such folder" in last


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([("same", "same"), ("too", "too")], "no pair whose chosen and rejected texts differ (row 0 has 'same' twice)"),
        ([("a", "b"), ("a", None), ("", "b")], "row 1 has no text for rejected; row 2 has an empty text for chosen"),
        ([("good", "bad")], "1 pairs with different texts leave none to tune on beside 1 held out"),
    ],
)
def test_pairs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], rows: list[tuple[str, str | None]], says: str
) -> None:
    lines = [json.dumps({"chosen": chosen, "rejected": rejected}) for chosen, rejected in rows]
    (tmp_path / "pairs.jsonl").write_text("\n".join(lines), encoding="utf-8")
    code, last = refused(tmp_path, '[tune]\nmethod = "dpo"\npairs = "pairs.jsonl"\n', capsys)
    assert code == 1 and says in last and "pairs" in last


def test_a_reward_that_never_changes(corpus_folder: Path, tmp_path: Path) -> None:
    """Only tuning tells: its completions are the first texts that the reward must tell apart."""
    from lfp.errors import TrainingError
    from precompute.pipeline import run_pipeline

    (tmp_path / "input_reward_flat.py").write_text("def score(texts):\n    return [2.0] * len(texts)\n")
    sections = {
        "corpus": {"source": str(corpus_folder / "reviews.txt")},
        "pretrain": {"steps": 2},
        "tune": {"steps": 1},
    }
    config = tiny_config(**sections, feedback={"reward": "input_reward_flat:score"})
    with pytest.raises(TrainingError, match=r"the reward is 2\.0 for every completion of 1 steps"):
        run_pipeline(config, tmp_path / "out", config_dir=tmp_path, resume=False, progress=silent)
    assert not (tmp_path / "out").exists()
