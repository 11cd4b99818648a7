"""Labels as rows of the table `labels`, beside those of other labellers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from lfp.labels.protocol import Label
from lfp.schema import as_table


def label_rows(labels: Sequence[Label], labeller: str) -> pa.Table:
    """The rows of these labels."""
    return as_table("labels", [_row(label, labeller) for label in labels])


def beside(kept: pa.Table, new: pa.Table) -> pa.Table:
    """The table with new rows in place of those that the same labeller gave the same features; all others stay.

    A label that failed does not take the place of one that did not.
    """
    had = dict(zip(_keys(kept), kept["status"].to_pylist(), strict=True))
    keeps = [
        status == "failed" and had.get(key) == "ok"
        for key, status in zip(_keys(new), new["status"].to_pylist(), strict=True)
    ]
    new = new.filter(pa.array([not one for one in keeps], pa.bool_()))
    replaced = set(_keys(new))
    return pa.concat_tables([kept.filter(pa.array([key not in replaced for key in _keys(kept)], pa.bool_())), new])


def _keys(labels: pa.Table) -> list[tuple[str, int]]:
    return list(zip(labels["labeller"].to_pylist(), labels["feature_id"].to_pylist(), strict=True))


def _row(label: Label, labeller: str) -> dict[str, Any]:
    return {
        "feature_id": label.feature_id,
        "labeller": labeller,
        "model": label.model,
        "description": label.description,
        "related": label.related,
        "confidence": label.confidence,
        "reason": label.reason,
        "agreement": label.agreement,
        "score_detection": label.score.detection,
        "score_fuzzing": label.score.fuzzing,
        "score_ci_low": label.score.ci_low,
        "score_ci_high": label.score.ci_high,
        "score_n": label.score.n,
        "score_swapped": label.score.swapped,
        "status": "ok" if label.is_ok else "failed",
        "failure": label.failure,
        "prompt_version": label.prompt_version,
        "prompt_sha256": label.prompt_sha256,
        "task": label.task,
        "examples_used": list(label.examples_used),
        "created_at": label.answered_at,
        "cost_usd": label.cost_usd,
    }
