"""Stage `corpus` on preference pairs: an exact held-out share, and the same pairs put together again for tuning."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lfp.texts.preferences import PreferencePair, read_pairs
from precompute.run.work_folder import Run
from precompute.stages.models import corpus
from precompute.stages.models.tuning import read_training_pairs
from tests.precompute.conftest import silent, tiny_config

PAST = "\n\nHuman: Tell me of film {}.\n\nAssistant:"


def pairs_file(folder: Path, n: int) -> Path:
    path = folder / "pairs.jsonl"
    rows = [
        {"chosen": PAST.format(i) + f" It is good {i}.", "rejected": PAST.format(i) + f" It is bad {i}."}
        for i in range(n)
    ]
    tie = {"chosen": "same", "rejected": "same"}
    path.write_text("\n".join(json.dumps(row) for row in [*rows, tie]), encoding="utf-8")
    return path


def read(folder: Path, **keys: Any) -> Run:
    """The run after its corpus stage."""
    config = tiny_config(tune={"method": "dpo", "pairs": "pairs.jsonl"}, corpus={"n_texts": None, **keys})
    run = Run(config, folder / "work", folder, silent)
    with run.writing("corpus", "key") as output:
        corpus.run(run, output)
    return run


@pytest.mark.parametrize(("n", "share", "held_out"), [(40, 0.5, 20), (41, 0.5, 20), (40, 0.3, 12), (40, 0.01, 1)])
def test_the_share_held_out_is_exact(tmp_path: Path, n: int, share: float, held_out: int) -> None:
    pairs_file(tmp_path, n)
    rows = read(tmp_path, held_out_share=share).table("corpus", "corpus").to_pylist()
    splits = {row["pair_id"]: row["split"] for row in rows}
    assert sorted(splits) == list(range(n)) and list(splits.values()).count("held_out") == held_out
    assert [row["text_id"] for row in rows] == list(range(2 * n))
    assert [row["role"] for row in rows] == ["chosen", "rejected"] * n
    for row in rows:
        assert row["text"][: row["response_start"]].endswith("\n\nAssistant:")
        assert row["split"] == splits[row["pair_id"]] and row["source"] == "pairs.jsonl"


def test_the_tuning_sees_the_pairs_that_are_not_held_out(tmp_path: Path) -> None:
    path = pairs_file(tmp_path, 40)
    run = read(tmp_path, held_out_share=0.5)
    held_out = {row["text"] for row in run.table("corpus", "corpus").to_pylist() if row["split"] == "held_out"}
    pairs = read_training_pairs(run)
    assert len(pairs) == 20 and len(held_out) == 40
    assert set(pairs) < set(read_pairs(path).pairs)
    assert not any(pair.prompt + side in held_out for pair in pairs for side in (pair.chosen, pair.rejected))
    assert all(isinstance(pair, PreferencePair) and pair.chosen.startswith(" It is good") for pair in pairs)
    assert run.json("corpus", "facts") == {"ties_dropped": 1.0, "shared_dropped": 0.0, "texts": 80}


def test_a_limit_counts_pairs_drawn_by_the_seed(tmp_path: Path) -> None:
    pairs_file(tmp_path, 40)
    texts = [
        row["text"] for row in read(tmp_path, n_texts=10, held_out_share=0.5).table("corpus", "corpus").to_pylist()
    ]
    assert len(texts) == 20 and texts[0] != PAST.format(0) + " It is good 0."
