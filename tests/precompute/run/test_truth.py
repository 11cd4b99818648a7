"""The true feedback of a run: the reward and lexicon its config names, files and folders looked for beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lfp.errors import DataError, TrainingError
from lfp.texts.lexicon import vader_lexicon, vader_reward
from precompute.run import inputs
from precompute.run.work_folder import Run
from precompute.stages.models import corpus
from tests.lfp.ml.models.test_reward_model import load, save
from tests.precompute.conftest import silent, tiny_config

TEXTS = ["A good film.", "", "A bad one, a good one."]


def run_of(folder: Path, **feedback: Any) -> Run:
    return Run(tiny_config(feedback=feedback), folder / "work", folder, silent)


def test_the_default_is_vader(tmp_path: Path) -> None:
    assert inputs.reward(run_of(tmp_path))(TEXTS) == vader_reward(TEXTS)


def test_a_lexicon_beside_the_config_pays_and_states(tmp_path: Path, corpus_folder: Path) -> None:
    (tmp_path / "mine.tsv").write_text("word\tvalue\nfilm\t10\ngood\t-5\nplot\t3\n", encoding="utf-8")
    (tmp_path / "reviews.txt").write_bytes((corpus_folder / "reviews.txt").read_bytes())
    run = run_of(tmp_path, reward="lexicon", lexicon="mine.tsv")
    with run.writing("corpus", "key", {}) as output:
        corpus.run(run, output)
    assert inputs.reward(run)(TEXTS) == [1.0, 0.0, -1.0]
    assert inputs.lexicon(run) == {"film": 10.0, "good": -5.0, "plot": 3.0}


def test_a_lexicon_is_checked_against_the_corpus_again(tmp_path: Path, corpus_folder: Path) -> None:
    """A run that is gone on with after its lexicon was changed does not read its corpus anew."""
    run = Run(tiny_config(), tmp_path / "work", corpus_folder, silent)
    with run.writing("corpus", "key", {}) as output:
        corpus.run(run, output)
    assert inputs.lexicon(run) == vader_lexicon()
    (tmp_path / "mine.csv").write_text("word,value\ngut,1\nschlecht,-1\n", encoding="utf-8")
    other = Run(tiny_config(feedback={"lexicon": str(tmp_path / "mine.csv")}), run.work, corpus_folder, silent)
    with pytest.raises(DataError, match="none of its 2 words"):
        inputs.lexicon(other)


def test_a_classifier_beside_the_config_is_the_reward(tmp_path: Path) -> None:
    folder = save(tmp_path / "judge", labels=3)
    run = run_of(tmp_path, reward="classifier", classifier="judge", classifier_label="LABEL_1")
    assert inputs.reward(run)(TEXTS) == pytest.approx(load(folder, classifier_label="LABEL_1")(TEXTS), abs=1e-5)


def test_a_classifier_that_is_broken_is_named(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = save(tmp_path / "judge") / "model.safetensors"
    broken = {name: value.fill_(float("nan")) for name, value in load_file(weights).items()}
    save_file(broken, weights, metadata={"format": "pt"})
    run = run_of(tmp_path, reward="classifier", classifier="judge")
    with pytest.raises(TrainingError, match=r"reward judge: gives nan for text 0, 'A good film\.'"):
        inputs.reward(run)(TEXTS)
