"""Feedback of a run: the reward and lexicon that its config names, with files and folders relative to it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from lfp.errors import ConfigError, DataError, TrainingError
from lfp.texts.corpus import CorpusText
from lfp.texts.lexicon import lexicon_of, vader_reward
from precompute.pipeline import run_stages
from precompute.run import inputs
from precompute.run.inputs import load_reward, read_statistics_texts
from precompute.run.work_folder import Run
from precompute.stages.models import corpus
from tests.lfp.ml.models.test_reward_model import load, save
from tests.precompute.conftest import STAGES, silent, tiny_config

TEXTS = ["A good film.", "", "A bad one, a good one."]


def run_of(folder: Path, **feedback: Any) -> Run:
    return Run(tiny_config(feedback=feedback), folder / "work", folder, silent)


def test_the_default_is_vader(tmp_path: Path) -> None:
    assert load_reward(run_of(tmp_path).config, None)(TEXTS) == vader_reward(TEXTS)


def test_a_lexicon_beside_the_config_pays_and_states(tmp_path: Path, corpus_folder: Path) -> None:
    (tmp_path / "values.tsv").write_text("word\tvalue\nfilm\t10\ngood\t-5\nplot\t3\n", encoding="utf-8")
    (tmp_path / "reviews.txt").write_bytes((corpus_folder / "reviews.txt").read_bytes())
    run = run_of(tmp_path, reward="lexicon", lexicon="values.tsv")
    with run.writing("corpus", "key") as output:
        corpus.run(run, output)
    assert load_reward(run.config, run.config_dir)(TEXTS) == [1.0, 0.0, -1.0]
    assert lexicon_of(run.config.feedback, beside=run.config_dir) == {"film": 10.0, "good": -5.0, "plot": 3.0}


@pytest.mark.parametrize(
    ("feedback", "error", "said"),
    [
        ({"lexicon": "values.csv"}, DataError, "none of its 2 words"),
        ({"reward": "no_such_module:score"}, ConfigError, "no module no_such_module"),
    ],
)
def test_feedback_that_cannot_be_used_is_found_before_any_model_is_made(
    feedback: dict[str, str], error: type[Exception], said: str, corpus_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "values.csv").write_text("word,value\ngut,1\nschlecht,-1\n", encoding="utf-8")
    (tmp_path / "reviews.txt").write_bytes((corpus_folder / "reviews.txt").read_bytes())
    run = run_of(tmp_path, **feedback)
    with pytest.raises(error, match=said):
        run_stages(run, STAGES)
    assert run.finished() == ["corpus"]


def test_a_classifier_beside_the_config_is_the_reward(tmp_path: Path) -> None:
    folder = save(tmp_path / "judge", labels=3)
    run = run_of(tmp_path, reward="classifier", classifier="judge", classifier_label="LABEL_1")
    assert load_reward(run.config, run.config_dir)(TEXTS) == pytest.approx(
        load(folder, classifier_label="LABEL_1")(TEXTS), abs=1e-5
    )


def test_a_classifier_that_is_broken_is_named(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = save(tmp_path / "judge") / "model.safetensors"
    broken = {name: value.fill_(float("nan")) for name, value in load_file(weights).items()}
    save_file(broken, weights, metadata={"format": "pt"})
    run = run_of(tmp_path, reward="classifier", classifier="judge")
    with pytest.raises(TrainingError, match=r"reward judge: returned nan for text 0, 'A good film\.'"):
        load_reward(run.config, run.config_dir)(TEXTS)


@pytest.mark.parametrize(
    ("n_paired", "limit", "expected"),
    [
        (0, 3, [0, 4, 8]),
        (0, None, range(12)),
        (12, 7, [0, 1, 4, 5, 8, 9]),
        (12, 1, [0, 1]),
        (6, 4, [0, 1, 6, 9]),  # three pairs and six texts, every third of them
        (12, 12, range(12)),
    ],
)
def test_statistics_cover_both_sides_of_a_pair_or_neither(
    n_paired: int, limit: int | None, expected: Sequence[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair_ids = [i // 2 if i < n_paired else None for i in range(12)]
    texts = [CorpusText(i, f"Text {i}.", "a", "train", pair_id=pair_id) for i, pair_id in enumerate(pair_ids)]
    monkeypatch.setattr(inputs, "read_texts", lambda run: texts)
    run = Run(tiny_config(stats={"n_texts": limit}), tmp_path, None, silent)
    assert [text.text_id for text in read_statistics_texts(run)] == list(expected)
