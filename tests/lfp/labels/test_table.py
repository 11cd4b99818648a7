"""Labels as rows: new ones take the place of their own labeller's, of nobody else's, and failures of nothing good."""

from __future__ import annotations

import pytest

from lfp.bundle.schema import BY_NAME
from lfp.labels.result_rows import label_rows, merge_labels
from lfp.labels.types import Label, Score


def label(feature: int, description: str | None, **changes: object) -> Label:
    return Label(feature, description, None if description is None else True, 0.5, "so", ("1:2",), "v", **changes)  # type: ignore[arg-type]


def told(table: object) -> set[tuple[int, str, str | None]]:
    rows = table.to_pylist()  # type: ignore[attr-defined]
    return {(row["feature_id"], row["labeller"], row["description"]) for row in rows}


def test_a_row_holds_all_of_a_label() -> None:
    score = Score(0.9, 0.8, 0.7, 1.0, 20, 0.5)
    made = label(3, "“good”", model="m", agreement=0.5, score=score, prompt_sha256="ab", task="joy", cost_usd=0.1,
                 answered_at="2026-01-01T00:00:00+00:00")  # fmt: skip
    (row,) = label_rows([made], "openai:m").to_pylist()
    assert row | {"examples_used": None} == {
        "feature_id": 3, "labeller": "openai:m", "model": "m", "description": "“good”", "related": True,
        "confidence": 0.5, "reason": "so", "agreement": 0.5, "score_detection": pytest.approx(0.9),
        "score_fuzzing": pytest.approx(0.8), "score_ci_low": pytest.approx(0.7), "score_ci_high": 1.0, "score_n": 20,
        "score_swapped": 0.5, "status": "ok", "failure": None, "prompt_version": "v", "prompt_sha256": "ab",
        "task": "joy", "examples_used": None, "created_at": "2026-01-01T00:00:00+00:00", "cost_usd": 0.1,
    }  # fmt: skip
    assert row["examples_used"] == ["1:2"] and label_rows([], "x").schema == BY_NAME["labels"].schema


def test_new_labels_stand_in_for_their_own_labellers_and_leave_the_others() -> None:
    kept = merge_labels(label_rows([label(1, "a"), label(2, "b")], "one"), label_rows([label(1, "c")], "human:ann"))
    found = merge_labels(kept, label_rows([label(1, "d"), label(3, "e")], "one"))
    assert told(found) == {(1, "one", "d"), (2, "one", "b"), (3, "one", "e"), (1, "human:ann", "c")}
    assert found.num_rows == 4


def test_a_failure_never_takes_the_place_of_a_label() -> None:
    kept = label_rows([label(1, "a"), label(2, None, failure="description: no")], "one")
    found = merge_labels(kept, label_rows([label(1, None, failure="x"), label(2, None, failure="y")], "one"))
    assert told(found) == {(1, "one", "a"), (2, "one", None)}
    assert {row["failure"] for row in found.to_pylist()} == {None, "y"}
