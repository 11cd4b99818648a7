"""Rows about labels from a bundle's tables: every labeller by itself, held against the features that it labelled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from lfp.bundle.manifest import read_manifest, read_table
from lfp.evaluation.statistics.resampling import Draws
from lfp.labels.result_rows import LABEL_ROWS, label_results, label_rows, merge_labels
from lfp.labels.types import Label, Score

DRAWS = Draws(bootstraps=40, permutations=40, seed=0)


def rows_of(path: Path, labels: pa.Table, groups: Mapping[str, Sequence[int]]) -> list[dict[str, Any]]:
    def tables(name: str) -> pa.Table:
        return labels if name == "labels" else read_table(path, name)

    return label_results(tables, groups, DRAWS, main=read_manifest(path).labeller)


@pytest.fixture
def labels(bundle: Path) -> pa.Table:
    """The bundle's own, and some of a person who relates just what raises or lowers the estimate most."""
    heavy = {
        row["feature_id"]
        for row in read_table(bundle, "weights").to_pylist()
        if row["probe_id"] == 0 and row["rank"] <= 4
    }
    mine = [
        Label(i, "x", i in heavy, 0.9, None, (), "human-1", score=Score(detection=0.75 if i % 2 else 1.0, swapped=0.5))
        for i in range(30)
    ]
    return merge_labels(read_table(bundle, "labels"), label_rows(mine, "human:ann"))


def test_every_labeller_has_every_row(bundle: Path, labels: pa.Table) -> None:
    found = rows_of(bundle, labels, {"odd": [1, 3, 5], "none": []})
    assert {row.report_row for row in found} == set(LABEL_ROWS)
    agreement = [row for row in found if row.report_row == "label_agreement"]
    for labeller in set(labels["labeller"].to_pylist()):
        assert any(row.group == f"labeller={labeller},against=weight" for row in agreement)
    assert {row.probe_id for row in agreement} == {0}


def test_a_labeller_of_some_features_is_held_against_those(bundle: Path, labels: pa.Table) -> None:
    found = {(row.report_row, row.group, row.metric): row for row in rows_of(bundle, labels, {"odd": [1, 3, 5]})}
    table = read_table(bundle, "features").to_pylist()
    live = sum(row["n_active"] > 0 for row in table if row["feature_id"] < 30)
    assert found["label_agreement", "labeller=human:ann,against=top_decile", "kappa"].n == live
    scores = found["label_scores", "labeller=human:ann,features=all", "detection"]
    assert (scores.value, scores.n, scores.null_mean) == (0.875, 30, 0.5)
    assert found["label_scores", "labeller=human:ann,features=odd", "detection"].value == 0.75
    named = [group for row, group, _ in found if row == "activation_frequency" and "human:ann" in str(group)]
    assert "labeller=human:ann,related_high" in named and "labeller=human:ann,all_rest" in named
    assert ("activation_frequency", "related_high", "per_token") in found, "the run's own under a plain name"


def test_labels_that_do_not_say_are_left_out(bundle: Path) -> None:
    silent = label_rows([Label(1, None, None, None, None, (), "v", failure="x")], "openai:m")
    assert not any("openai:m" in str(row.get("group")) for row in rows_of(bundle, silent, {}))
