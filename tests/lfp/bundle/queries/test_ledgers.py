"""Ledgers: a text's estimate split over features, tokens and pairs, against sums made naively, for every pooling."""

import shutil
from collections import defaultdict
from functools import cache

import pyarrow.parquet as pq
import pytest

from lfp.bundle import exactness, queries
from lfp.bundle.store.connection import Store
from lfp.probes.pooling import POOLINGS
from lfp.testing.synthetic import make_bundle
from tests.conftest import rewrite, with_column


@pytest.fixture(scope="module", params=POOLINGS)
def pooled(request, tmp_path_factory):
    """A bundle of each pooling in turn; its first 17 texts keep their activations."""
    path = tmp_path_factory.mktemp("pooled") / request.param
    return make_bundle(path, n_features=50, n_texts=20, pooling=request.param, extra_texts=["", "Hm"])


def kept_texts(path):
    return pq.read_table(path / "activations.parquet")["text_id"].to_pylist()


@cache
def read(file):
    return pq.read_table(file).to_pylist()


def naive_contributions(path, text_id, weight="weight"):
    """Contributions by feature and by token, from the tables alone."""
    headline = next(row for row in read(path / "probes.parquet") if row["is_headline"])
    rows = [row for row in read(path / "weights.parquet") if row["probe_id"] == headline["probe_id"]]
    weights = {row["feature_id"]: row[weight] for row in rows}
    text = read(path / "texts.parquet")[text_id]
    kept = next(row for row in read(path / "activations.parquet") if row["text_id"] == text_id)
    active = list(zip(kept["positions"], kept["feature_ids"], kept["values"], strict=True))
    n, start, pooling = len(text["token_ids"]), text["response_start"], headline["pooling"]
    start = start if start < n else 0
    features, tokens = defaultdict(float), [0.0] * n
    for position, feature, value in active:
        above = [row for row in active if row[1] == feature and (row[2], -row[0]) > (value, -position)]
        share = {
            "last": position == n - 1, "mean": 1 / n, "sum": 1, "response": (position >= start) / (n - start),
            "max": not above,
        }[pooling]  # fmt: skip
        features[feature] += weights[feature] * value * share
        tokens[position] += weights[feature] * value * share
    return dict(features), tokens


def test_a_ledger_adds_up(pooled):
    with Store.open(pooled) as opened:
        for text_id in kept_texts(pooled)[:6]:
            ledger, (expected, _) = (
                queries.ledgers.ledger(opened, text_id, limit=1000),
                naive_contributions(pooled, text_id),
            )
            assert {part.feature_id: part.contribution for part in ledger.shown} == pytest.approx(expected, abs=1e-9)


def test_contributions_of_tokens_sum_to_the_prediction(pooled):
    with Store.open(pooled) as opened:
        intercept = queries.common.headline(opened).intercept
        for text_id in kept_texts(pooled)[:6]:
            tokens, (_, expected) = (
                queries.texts.token_contributions(opened, text_id),
                naive_contributions(pooled, text_id),
            )
            assert tokens == pytest.approx(expected, abs=1e-9)
            predicted = queries.texts.text(opened, text_id).predicted
            assert sum(tokens) + intercept == pytest.approx(predicted, abs=1e-5)
        assert queries.texts.token_contributions(opened, 21) is None


def test_the_second_ledger_adds_up_with_the_miss_as_its_own_part(pooled):
    with Store.open(pooled) as opened:
        assert list(exactness.exactness_faults(opened, tolerance=1e-6)) == []
        for text_id in kept_texts(pooled)[:6]:
            ledger, text = queries.ledgers.raw_ledger(opened, text_id, limit=4), queries.texts.text(opened, text_id)
            assert ledger.error < 1e-5 and ledger.predicted == pytest.approx(text.predicted_raw)
            assert ledger.miss == pytest.approx(text.sae_miss)
            expected, _ = naive_contributions(pooled, text_id, "raw_weight")
            assert ledger.rest + sum(part.contribution for part in ledger.shown) == pytest.approx(
                sum(expected.values())
            )
            assert ledger.n_features == len(expected) and len(ledger.shown) == min(4, len(expected))
        assert queries.ledgers.raw_ledger(opened, 21) is None


def test_what_is_above_the_average_sums_to_what_the_prediction_is_above_it(pooled):
    with Store.open(pooled) as opened:
        ids = kept_texts(pooled)
        usual = defaultdict(float)
        for text_id in ids:
            for feature, part in naive_contributions(pooled, text_id)[0].items():
                usual[feature] += part / len(ids)
        mean = sum(queries.texts.text(opened, text_id).predicted for text_id in ids) / len(ids)
        for text_id in ids[:6]:
            found, (parts, _) = (
                queries.ledgers.average_ledger(opened, text_id, limit=1000),
                naive_contributions(pooled, text_id),
            )
            assert found.reference == pytest.approx(mean) and found.error < 1e-5
            expected = {feature: parts.get(feature, 0) - usual[feature] for feature in usual}
            assert {part.feature_id: part.difference for part in found.shown} == pytest.approx(expected, abs=1e-9)
            sizes = [abs(part.difference) for part in found.shown]
            assert sizes == sorted(sizes, reverse=True)
        short = queries.ledgers.average_ledger(opened, ids[3], limit=3)
        assert short.rest + sum(part.difference for part in short.shown) == pytest.approx(short.total)
        assert queries.ledgers.average_ledger(opened, 21) is None


def test_a_pair_is_split_over_features(pooled, tmp_path):
    path = tmp_path / "pairs"
    shutil.copytree(pooled, path)
    paired = lambda table: with_column(  # noqa: E731
        with_column(table, "pair_id", [i // 2 for i in range(table.num_rows)]),
        "role",
        ["chosen" if i % 2 else "rejected" for i in range(table.num_rows)],
    )
    rewrite(path, "texts", paired)
    with Store.open(path) as opened:
        found = queries.ledgers.pair_ledger(opened, 3, limit=1000)
        chosen, rejected = queries.texts.text(opened, 7), queries.texts.text(opened, 6)
        assert found.predicted == pytest.approx(chosen.predicted - rejected.predicted)
        assert found.reference == pytest.approx(rejected.predicted) and found.error < 1e-5
        here, there = naive_contributions(path, 7)[0], naive_contributions(path, 6)[0]
        assert {part.feature_id for part in found.shown} == here.keys() | there.keys()
        for part in found.shown:
            assert part.here == pytest.approx(here.get(part.feature_id, 0), abs=1e-9)
            assert part.there == pytest.approx(there.get(part.feature_id, 0), abs=1e-9)
            assert part.difference == pytest.approx(part.here - part.there)
        assert queries.ledgers.pair_ledger(opened, 10) is None and queries.ledgers.pair_ledger(opened, 999) is None
    with Store.open(pooled) as opened:
        assert queries.ledgers.pair_ledger(opened, 3) is None


def test_without_raw_weights_the_miss_still_stands_alone(copied_bundle):
    rewrite(copied_bundle, "weights", lambda table: with_column(table, "raw_weight", [None] * table.num_rows))
    rewrite(copied_bundle, "probes", lambda table: with_column(table, "raw_bias", [None] * table.num_rows))
    with Store.open(copied_bundle) as opened:
        ledger, text = queries.ledgers.raw_ledger(opened, 3), queries.texts.text(opened, 3)
        assert ledger.shown == () and ledger.miss == pytest.approx(text.sae_miss)
        assert ledger.rest + ledger.intercept + ledger.miss == pytest.approx(text.predicted_raw)
        assert list(exactness.exactness_faults(opened)) == []
    rewrite(copied_bundle, "probes", lambda table: with_column(table, "raw_intercept", [None] * table.num_rows))
    with Store.open(copied_bundle) as opened:
        assert queries.ledgers.raw_ledger(opened, 3) is None


def test_no_probe_no_ledgers(none):
    for ask in (
        queries.ledgers.raw_ledger,
        queries.ledgers.average_ledger,
        queries.ledgers.pair_ledger,
        queries.texts.token_contributions,
    ):
        assert ask(none, 0) is None
    assert list(exactness.exactness_faults(none)) == []


@pytest.mark.parametrize("pooling", ["mean", "sum"])
def test_a_ledger_is_shown_from_the_largest_part(tmp_path, pooling):
    path = make_bundle(tmp_path / "b", n_features=50, n_texts=20, pooling=pooling)
    with Store.open(path) as opened:
        for text_id in range(17):
            ledger = queries.ledgers.ledger(opened, text_id, limit=5)
            text = queries.texts.text(opened, text_id)
            shown = sum(part.contribution for part in ledger.shown)
            assert ledger.total == pytest.approx(shown + ledger.rest + ledger.intercept)
            assert ledger.error <= 1e-5 and ledger.predicted == text.predicted
            sizes = [abs(part.contribution) for part in ledger.shown]
            assert sizes == sorted(sizes, reverse=True)


@pytest.mark.parametrize("pooling", ["max", "last", "response"])
def test_other_poolings_pool_as_they_say(copied_bundle, pooling):
    rewrite(copied_bundle, "probes", lambda table: with_column(table, "pooling", [pooling] * table.num_rows))
    rewrite(copied_bundle, "texts", lambda table: with_column(table, "response_start", [4] * table.num_rows))
    with Store.open(copied_bundle) as opened:
        ledger = queries.ledgers.ledger(opened, 3, limit=1000)
        for part in ledger.shown:
            values = queries.texts.token_activations(opened, 3, feature_id=part.feature_id)
            pooled = {"max": max(values), "last": values[-1], "response": sum(values[4:]) / len(values[4:])}[pooling]
            assert part.pooled == pytest.approx(pooled, abs=1e-6)
