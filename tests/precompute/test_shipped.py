"""Texts and pairs that ship with the project, in presets and in the demos' bundles: enough of them, fit to publish."""

from __future__ import annotations

import gzip
import json
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.session.bundles import DEMOS
from lfp.bundle.manifest import read_table
from lfp.texts.lexicon import vader_reward
from lfp.texts.screening import find_objection, is_offensive
from precompute.presets import preset
from tests.conftest import ROOT

PRESETS = ROOT / "precompute" / "presets"


def rows_of(file: Path) -> list[dict[str, Any]]:
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def test_texts_of_the_demo_are_opinions_of_both_kinds_and_held_out_ones_begin_otherwise() -> None:
    facts = json.loads((PRESETS / "written" / "written.json").read_text(encoding="utf-8"))
    splits = {name: rows_of(PRESETS / "written" / f"{name}.jsonl.gz") for name in ("train", "held-out")}
    assert [len(rows) for rows in splits.values()] == [facts["train"], facts["held_out"]]
    texts = {name: [row["text"] for row in rows] for name, rows in splits.items()}
    assert not any(map(find_objection, texts["train"] + texts["held-out"]))
    assert len(set(texts["train"] + texts["held-out"])) == facts["train"] + facts["held_out"] >= 1300
    positive = np.mean(np.array(vader_reward(texts["train"])) > 0)
    assert 0.3 < positive < 0.75
    subjects = tomllib.loads((PRESETS / "written" / "openings.toml").read_text(encoding="utf-8"))["subjects"].values()
    drawn = [(name, pattern) for subject in subjects for name in subject["names"] for pattern in subject["patterns"]]
    openings = {pattern.replace("{}", name) for name, pattern in drawn}
    begun = {name: {opening for text in rows if (opening := _opening(text, openings))} for name, rows in texts.items()}
    assert begun["train"].isdisjoint(begun["held-out"]) and len(begun["train"]) >= 700


def _opening(text: str, openings: set[str]) -> str | None:
    """Return the longest opening that a text begins with."""
    return next((text[:end] for end in range(min(80, len(text)), 0, -1) if text[:end] in openings), None)


def test_pairs_of_the_second_demo_are_screened_and_counted_in_its_notes() -> None:
    facts = json.loads((PRESETS / "helpful" / "pairs.json").read_text(encoding="utf-8"))
    pairs = rows_of(PRESETS / "helpful" / "pairs.jsonl.gz")
    assert len(pairs) == facts["kept"] == facts["rows"] - sum(facts["left_out"].values())
    texts = [text for pair in pairs for text in pair.values()]
    assert not any(map(find_objection, texts)) and max(len(text.split()) for text in texts) <= facts["longest"]
    notes = tomllib.loads(preset("demo-helpful").read_text(encoding="utf-8"))["notes"]
    left_out = dict(facts["left_out"])
    n_long = left_out.pop("too long")
    for count in (facts["kept"], facts["rows"], n_long, sum(left_out.values()), *left_out.values()):
        assert f" {count:,} " in f" {notes}", count


@pytest.mark.parametrize("bundle", [pytest.param(path, id=path.name) for path in DEMOS])
def test_no_text_of_a_demo_offends_or_names_an_address(bundle: Path) -> None:
    if not bundle.is_dir():
        pytest.skip(f"no bundle at {bundle}; make demo writes it")
    texts = read_table(bundle, "texts")["text"].to_pylist()
    completions = read_table(bundle, "completions").to_pylist()
    written = [value for row in completions for value in row.values() if isinstance(value, str)]
    assert not list(filter(is_offensive, texts + written))
