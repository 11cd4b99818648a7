"""Corpora of every hostile kind are read within bounds or refused by name; those that are large, at a small size."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.hostile import corpora

_SHARE, _SPARE_MB = 0.02, 300.0
_SLOW = {"half-a-gigabyte-all.jsonl", "repeated-cell.parquet", "million-keys.jsonl", "unclosed-and-long.csv"}


@pytest.mark.parametrize(
    "hostile", [each for each in corpora.CORPORA if each.name not in _SLOW], ids=lambda hostile: hostile.name
)
def test_a_hostile_corpus_is_read_within_bounds_or_refused_in_a_sentence(
    hostile: corpora.Hostile, tmp_path: Path
) -> None:
    wrong, outcome = corpora.check(hostile, tmp_path, share=_SHARE, spare_mb=_SPARE_MB)
    assert not wrong, outcome
