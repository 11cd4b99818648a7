"""What surrounds a feature, against the tables read one by one."""

from __future__ import annotations

import pyarrow.parquet as pq
import pytest

from lfp.bundle import queries
from lfp.bundle.store.connection import Store
from lfp.probes.pooling import POOLINGS
from lfp.testing.synthetic import make_bundle
from tests.conftest import rewrite, with_column


def test_neighbours_are_the_tables_rows_with_their_names(store, bundle):
    kept = [row for row in pq.read_table(bundle / "neighbours.parquet").to_pylist() if row["feature_id"] == 7]
    found = queries.feature.neighbours(store, 7)
    keys = ("kind", "rank", "neighbour_id", "value")
    assert [tuple(getattr(neighbour, key) for key in keys) for neighbour in found] == [
        tuple(row[key] for key in keys) for row in sorted(kept, key=lambda row: (row["kind"], row["rank"]))
    ]
    for neighbour in found:
        assert neighbour.weight == queries.feature.feature(store, neighbour.neighbour_id).weight
        assert neighbour.description in [
            label.description for label in queries.feature.labels(store, neighbour.neighbour_id)
        ]


def test_drift_is_the_tables_row(store, bundle):
    row = pq.read_table(bundle / "drift.parquet").to_pylist()[7]
    found = queries.feature.feature_drift(store, 7)
    assert (found.status, found.rank, found.contribution_base) == (row["status"], row["rank"], row["contribution_base"])
    assert queries.feature.feature_drift(store, 999) is None


def test_ablations_name_the_feature_and_leave_controls_out(store, bundle):
    rows = pq.read_table(bundle / "ablations.parquet").to_pylist()
    for feature in range(60):
        groups = [row["group"] for row in queries.feature.feature_ablations(store, feature)]
        assert groups == [row["group"] for row in rows if feature in row["features"] and row["kind"] != "control"]


@pytest.mark.parametrize("pooling", POOLINGS)
def test_texts_are_those_where_it_adds_most(pooling, tmp_path):
    path = make_bundle(tmp_path / "b", n_features=30, n_texts=20, pooling=pooling)
    with Store.open(path) as opened:
        kept = pq.read_table(path / "activations.parquet")["text_id"].to_pylist()
        texts = {number: queries.texts.text(opened, number) for number in kept}
        average = sum(text.feedback for text in texts.values()) / len(texts)
        ledgers = {number: queries.ledgers.ledger(opened, number, limit=100).shown for number in kept}
        for feature in (0, 7, 29):
            parts = {
                number: part.contribution
                for number, shown in ledgers.items()
                for part in shown
                if part.feature_id == feature and part.contribution
            }
            ranked = sorted(parts, key=lambda number: (-abs(parts[number]), number))
            wrong = [number for number in ranked if parts[number] * (texts[number].feedback - average) < 0]
            found = queries.feature.feature_texts(opened, feature, limit=3)
            assert (found.n_texts, found.n_active, found.n_against) == (len(kept), len(parts), len(wrong))
            assert [part.text_id for part in found.largest] == ranked[:3]
            assert [part.text_id for part in found.against] == wrong[:3]
            assert [part.contribution for part in found.largest] == pytest.approx([parts[i] for i in ranked[:3]])
            if parts:
                assert found.mean == pytest.approx(sum(parts.values()) / len(parts))


def test_a_feature_that_no_probe_reads_moves_nothing(copied_bundle):
    rewrite(copied_bundle, "weights", lambda rows: rows.slice(0, 0))
    with Store.open(copied_bundle) as opened:
        assert queries.feature.feature_texts(opened, 3) is None


def test_texts_without_feedback_are_judged_by_nobody(copied_bundle):
    rewrite(copied_bundle, "texts", lambda rows: with_column(rows, "feedback", [None] * rows.num_rows))
    with Store.open(copied_bundle) as opened:
        found = queries.feature.feature_texts(opened, 3)
        assert found.n_active and found.largest and not found.n_judged and not found.against


def test_without_activations_there_are_no_texts(copied_bundle):
    rewrite(copied_bundle, "activations", lambda rows: rows.slice(0, 0))
    with Store.open(copied_bundle) as opened:
        found = queries.feature.feature_texts(opened, 3)
        assert (found.n_texts, found.n_active, found.largest) == (0, 0, ())
