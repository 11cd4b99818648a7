"""Stage `findings`: drift agrees with weights and features, and every row follows from the tables."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lfp.bundle.queries.common import headline
from lfp.bundle.queries.drift import drifted_features
from lfp.bundle.queries.run import figures
from lfp.bundle.store.connection import Store


@pytest.fixture(scope="module")
def store(tiny_bundle: Path):
    with Store.open(tiny_bundle) as opened:
        yield opened


def rows_of(store: Store, report_row: str, **keys: object) -> list[dict]:
    found = figures(store, report_row)
    return [row for row in found if all(getattr(row, key) == value for key, value in keys.items())]


def test_drift_is_the_headlines_weights_on_the_change_of_features(store: Store) -> None:
    rows = store.rows(
        "SELECT d.*, f.density, f.mean_activation, f.base_density, f.base_mean_activation, w.weight AS stated "
        "FROM drift d JOIN features f USING (feature_id) JOIN weights w USING (feature_id, probe_id)"
    )
    probe = headline(store)
    assert probe is not None and len(rows) == store.rows("SELECT count(*) AS n FROM features")[0]["n"]
    for row in rows:
        assert row["probe_id"] == probe.probe_id and row["weight"] == row["stated"]
        tuned, base = row["density"] * row["mean_activation"], row["base_density"] * row["base_mean_activation"]
        assert row["contribution"] == pytest.approx(row["weight"] * tuned, rel=1e-5, abs=1e-9)
        assert row["drifted_contribution"] == pytest.approx(row["weight"] * (tuned - base), rel=1e-3, abs=1e-8)
        assert (row["weight_base"] is None) == (row["sign_flipped"] is None)
    by_rank = sorted(rows, key=lambda row: row["rank"])
    assert [row["rank"] for row in by_rank] == list(range(1, len(rows) + 1))
    assert (np.diff([abs(row["drifted_contribution"]) for row in by_rank]) <= 0).all()
    assert sum(row["share"] for row in rows) == pytest.approx(1.0, abs=1e-5)
    assert [row.feature_id for row in drifted_features(store, limit=3)] == [row["feature_id"] for row in by_rank[:3]]


def test_base_weights_are_those_of_the_base_model_through_the_same_dictionary(store: Store) -> None:
    stated = store.rows(
        "SELECT feature_id, w.weight FROM weights w JOIN probes p USING (probe_id) JOIN probes h "
        "ON h.is_headline AND h.target = p.target WHERE p.inputs = 'sae_of_base' ORDER BY feature_id"
    )
    found = store.rows("SELECT feature_id, weight_base FROM drift ORDER BY feature_id")
    assert [row["weight_base"] for row in found] == [row["weight"] for row in stated]


def test_statuses_are_counted_in_both_dictionaries_and_the_shares_sum_to_one(store: Store) -> None:
    for inputs in ("sae", "base_sae"):
        counts = rows_of(store, "drift", metric="count", inputs=inputs)
        shares = rows_of(store, "drift", metric="share", inputs=inputs)
        assert len(counts) == len(shares) == 5
        assert sum(row.value for row in counts) == counts[0].n
        assert sum(row.value for row in shares) == pytest.approx(1.0)
    carried = rows_of(store, "drift", metric="carried_share")
    assert sum(row.value for row in carried) == pytest.approx(1.0)
    by_status = {row["status"]: row["n"] for row in store.rows("SELECT status, count(*) AS n FROM drift GROUP BY 1")}
    assert {row.group: row.n for row in carried if row.n} == by_status


def test_figures_that_compare_have_an_interval_and_a_null(store: Store) -> None:
    for report_row in ("error_by_frequency", "pca_explained", "label_agreement"):
        rows = rows_of(store, report_row)
        assert rows
        for row in rows:
            assert None not in (row.ci_low, row.ci_high, row.null_mean, row.null_high, row.null_p), row
    for row in rows_of(store, "disagreements"):
        if row.metric == "words_flagged" or row.metric.endswith("_paid"):  # a count; lists of too few words for a null
            continue
        assert None not in (row.null_mean, row.null_high, row.null_p, row.n)


def test_queues_name_texts_and_words_that_are_in_the_bundle(store: Store) -> None:
    texts = {f"text:{row['text_id']}" for row in store.rows("SELECT text_id FROM activations")}
    words = {f"word:{row['word']}" for row in store.rows("SELECT word FROM vocabulary")}
    rows = rows_of(store, "disagreements")
    assert {row.group for row in rows if row.metric != "words_flagged"} <= texts | words
    for metric in ("gap_predicted_true", "gap_implicit_true"):
        kinds = [row.group.split(":")[0] for row in rows if row.metric == metric]
        assert kinds.count("text") == kinds.count("word") == 10


def test_every_autoencoder_is_in_the_sweep_row(store: Store) -> None:
    stated = store.rows("SELECT layer, model, width, fvu FROM saes")
    rows = rows_of(store, "sae_sweep", metric="fvu")
    assert sorted(row.value for row in rows) == sorted(row["fvu"] for row in stated)
    assert all(f"width={row['width']}," in " ".join(r.group for r in rows) for row in stated)


def test_texts_are_judged_by_their_implicit_reward(store: Store) -> None:
    rows = rows_of(store, "implicit_reward", group="texts")
    assert {"tau", "spearman", "r2_linear"} == {row.metric for row in rows}
    assert all(row.n == 60 and row.null_p is not None for row in rows)


def test_features_are_ranked_by_what_is_not_explained(store: Store) -> None:
    rows = store.rows("SELECT feature_id, unexplained_contribution AS part, unexplained_rank AS rank FROM drift")
    by_rank = sorted(rows, key=lambda row: row["rank"])
    assert [row["rank"] for row in by_rank] == list(range(1, len(rows) + 1))
    assert (np.diff([abs(row["part"]) for row in by_rank]) <= 0).all()
    figures = rows_of(store, "drift", metric="unexplained_contribution")
    assert {figure.group: figure.value for figure in figures} == {
        f"feature:{row['feature_id']}": pytest.approx(row["part"], rel=1e-5) for row in by_rank[:20]
    }
