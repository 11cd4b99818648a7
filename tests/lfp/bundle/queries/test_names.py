"""The name of a feature: the label that predicts best, or what it fires on where none does better than chance."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from lfp.bundle import queries
from lfp.bundle.schema import as_table
from lfp.bundle.store.connection import Store
from lfp.labels.result_rows import label_rows
from lfp.labels.types import Label, Score
from lfp.util.types import UNLABELLED
from tests.conftest import rewrite

RULE, MODEL, PERSON = "offline-tokens", "openai:m", "human:ann"


def row(labeller: str, says: str | None, *, low: float | None = None, q: float | None = None) -> dict[str, Any]:
    score = Score() if low is None else Score(low + 0.1, 0.6, low, low + 0.2, 20, 0.5)
    label = Label(3, says, None if says is None else True, None, None, (), "v", score=score)
    made: dict[str, Any] = label_rows([label], labeller).to_pylist()[0]
    return made | {"score_q": q}


@pytest.mark.parametrize(
    ("rows", "name", "labeller"),
    [
        ([row(RULE, "“a”", low=0.7), row(MODEL, "b", low=0.6)], "“a”", RULE),
        ([row(RULE, "“a”", low=0.6), row(MODEL, "b", low=0.7)], "b", MODEL),
        ([row(RULE, "“a”", low=0.6), row(PERSON, "c", low=0.6)], "c", PERSON),
        ([row(RULE, "“a”", low=0.7, q=0.2), row(MODEL, "b", low=0.6, q=0.04)], "b", MODEL),
        ([row(RULE, "“a”", low=0.6), row(PERSON, "c")], "“a”", RULE),
        ([row(RULE, "“a”", low=0.4), row(PERSON, "c")], "c", PERSON),
        ([row(RULE, f"{UNLABELLED}“a”", low=0.3), row(MODEL, "b", low=0.4)], f"{UNLABELLED}“a”", MODEL),
        ([row(RULE, "“a”", low=0.6), row(MODEL, None)], "“a”", RULE),
    ],
    ids=["rule", "model", "person at a tie", "discoveries", "unscored", "unscored alone", "none", "failed"],
)
def test_the_best_label_names_a_feature(
    copied_bundle: Path, rows: Sequence[dict[str, Any]], name: str, labeller: str
) -> None:
    with_labels(copied_bundle, rows)
    with Store.open(copied_bundle) as store:
        assert queries.feature.feature(store, 3).description == name
        assert queries.feature.named_features(store, [3]) == {3: name}
        labels = queries.feature.labels(store, 3)
        assert labels[0].labeller == labeller and len(labels) == len(rows)


@pytest.mark.parametrize("rows", [[], [row(MODEL, "b", low=0.4)], [row(RULE, "“a”", low=0.7, q=0.06)]])
def test_without_a_good_label_a_name_lists_what_fires_most(copied_bundle: Path, rows: Sequence[dict[str, Any]]) -> None:
    with_labels(copied_bundle, rows)
    with Store.open(copied_bundle) as store:
        feature = queries.feature.feature(store, 3)
        listed = ", ".join(f"“{item['token'].strip()}”" for item in feature.top_tokens[:3])
        assert feature.description == f"{UNLABELLED}{listed}"


def with_labels(bundle: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Replace the labels of feature 3."""

    def put(labels: pa.Table) -> pa.Table:
        kept = [each for each in labels.to_pylist() if each["feature_id"] != 3]
        return as_table("labels", sorted([*kept, *rows], key=lambda each: (each["feature_id"], each["labeller"])))

    rewrite(bundle, "labels", put)
