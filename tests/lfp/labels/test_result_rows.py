"""Rows of labels, and the result rows of every labeller."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from lfp.bundle.manifest import read_manifest, read_table
from lfp.bundle.schema import BY_NAME
from lfp.evaluation.statistics.resampling import Draws
from lfp.labels.comparison import compare_labellers
from lfp.labels.result_rows import LABEL_ROWS, label_results, label_rows, merge_labels
from lfp.labels.types import Label, Score

DRAWS = Draws(bootstraps=40, permutations=40, seed=0)


def label(feature: int, description: str | None, **changes: object) -> Label:
    return Label(feature, description, None if description is None else True, 0.5, "so", ("1:2",), "v", **changes)  # type: ignore[arg-type]


def written(table: object) -> set[tuple[int, str, str | None]]:
    rows = table.to_pylist()  # type: ignore[attr-defined]
    return {(row["feature_id"], row["labeller"], row["description"]) for row in rows}


def test_a_row_holds_all_of_a_label() -> None:
    score = Score(0.9, 0.8, 0.7, 1.0, 20, 0.5, 0.01)
    made = label(3, "“good”", model="m", agreement=0.5, score=score, prompt_sha256="ab", task="joy", cost_usd=0.1,
                 answered_at="2026-01-01T00:00:00+00:00")  # fmt: skip
    (row,) = label_rows([made], "openai:m").to_pylist()
    assert row | {"examples_used": None} == {
        "feature_id": 3, "labeller": "openai:m", "model": "m", "description": "“good”", "related": True,
        "confidence": 0.5, "reason": "so", "agreement": 0.5, "score_detection": pytest.approx(0.9),
        "score_fuzzing": pytest.approx(0.8), "score_ci_low": pytest.approx(0.7), "score_ci_high": 1.0, "score_n": 20,
        "score_swapped": 0.5, "score_p": 0.01, "score_q": 0.01, "status": "ok",
        "failure": None, "prompt_version": "v", "prompt_sha256": "ab",
        "task": "joy", "examples_used": None, "created_at": "2026-01-01T00:00:00+00:00", "cost_usd": 0.1,
    }  # fmt: skip
    assert row["examples_used"] == ["1:2"] and label_rows([], "x").schema == BY_NAME["labels"].schema


def test_new_labels_stand_in_for_their_own_labellers_and_leave_the_others() -> None:
    kept = merge_labels(label_rows([label(1, "a"), label(2, "b")], "one"), label_rows([label(1, "c")], "human:ann"))
    found = merge_labels(kept, label_rows([label(1, "d"), label(3, "e")], "one"))
    assert written(found) == {(1, "one", "d"), (2, "one", "b"), (3, "one", "e"), (1, "human:ann", "c")}
    assert found.num_rows == 4


def test_a_failure_never_takes_the_place_of_a_label() -> None:
    kept = label_rows([label(1, "a"), label(2, None, failure="description: no")], "one")
    found = merge_labels(kept, label_rows([label(1, None, failure="x"), label(2, None, failure="y")], "one"))
    assert written(found) == {(1, "one", "a"), (2, "one", None)}
    assert {row["failure"] for row in found.to_pylist()} == {None, "y"}


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
    given = [
        Label(i, "x", i in heavy, 0.9, None, (), "human-1", score=Score(detection=0.75 if i % 2 else 1.0, swapped=0.5))
        for i in range(30)
    ]
    return merge_labels(read_table(bundle, "labels"), label_rows(given, "human:ann"))


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


def test_labellers_are_compared_on_the_features_that_both_labelled() -> None:
    words = ["river", "music", "actor", "plot"]
    first = [Label(i, f"the word {words[i]}", i > 1, 1.0, None, (), "v", score=Score(0.9)) for i in range(4)]
    second = [Label(i, f"“{words[i]}” and such", True, 1.0, None, (), "v", score=Score(0.5)) for i in range(3)]
    table = merge_labels(label_rows(first, "human:ann"), label_rows(second, "offline-tokens"))
    found = {row.metric: row for row in compare_labellers(table, DRAWS)}
    assert {row.group for row in found.values()} == {"labeller=human:ann,against=offline-tokens"}
    assert {row.report_row for row in found.values()} == {"labellers"}
    assert found["shared_word"].value == 1.0 and (found["shared_word"].null_mean or 0.0) < 0.7
    assert found["detection_difference"].value == pytest.approx(0.4, abs=1e-6) and found["detection_difference"].n == 3
    assert found["accuracy"].value == pytest.approx(1 / 3)
