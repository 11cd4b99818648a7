"""Queries of features, texts, words and figures, against what the tables hold."""

import dataclasses
import math

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lfp.bundle import queries
from lfp.bundle.queries.common import Order
from lfp.bundle.queries.features import FeatureFilter
from lfp.bundle.queries.texts import TextFilter
from lfp.bundle.store.connection import Store
from lfp.errors import ConfigError, NotInBundleError
from lfp.testing.synthetic import LABELLER, MODEL_LABELLER
from tests.conftest import rewrite


def everything(store):
    return queries.features.features(store, FeatureFilter(), order=Order("id", descending=False)).to_pylist()


SEARCHES = st.one_of(
    st.sampled_from(["", "praise", "GREAT", " the", "7", "%", "_", "'", "great praise", "; DROP TABLE x", "“good”"]),
    st.text(max_size=8),
)
FILTERS = st.builds(
    FeatureFilter,
    layers=st.lists(st.integers(0, 3), max_size=3, unique=True).map(tuple),
    sign=st.sampled_from(["any", "positive", "negative"]),
    related=st.sampled_from(["any", "yes", "no"]),
    density_low=st.sampled_from([0.0, 0.01, 0.03]),
    density_high=st.sampled_from([0.02, 0.1, 1.0]),
    search=SEARCHES,
)
ORDERS = st.builds(Order, by=st.sampled_from(sorted(queries.features.FEATURE_SORTS)), descending=st.booleans())


def labels_of_readers(store):
    """Labels by people and models, by feature."""
    rows = store.rows("SELECT * FROM labels WHERE model IS NOT NULL OR starts_with(labeller, 'human:')")
    found = {}
    for row in rows:
        found.setdefault(row["feature_id"], []).append((row["description"] or "").lower())
    return found


def passes(row, wanted, labels):
    """The filter again, in Python."""
    needles = wanted.search.lower().split()
    tokens = "\n".join(token.strip(" ") for token in row["top_tokens"]).lower()
    texts = [(row["description"] or "").lower(), tokens, *labels.get(row["feature_id"], [])]
    return (
        (not wanted.layers or row["layer"] in wanted.layers)
        and {"any": True, "positive": row["weight"] > 0, "negative": row["weight"] < 0}[wanted.sign]
        and {"any": True, "yes": row["related"], "no": not row["related"]}[wanted.related]
        and wanted.density_low <= row["density"] <= wanted.density_high
        and all(str(row["feature_id"]) == needle or any(needle in text for text in texts) for needle in needles)
    )


@settings(max_examples=60)
@given(wanted=FILTERS)
def test_a_filter_is_what_it_says(store, wanted):
    labels = labels_of_readers(store)
    expected = [row["feature_id"] for row in everything(store) if passes(row, wanted, labels)]
    found = queries.features.features(store, wanted, order=Order("id", descending=False))["feature_id"].to_pylist()
    if wanted.search.isascii():  # lower() of DuckDB and Python differ in a few letters
        assert found == expected
    assert queries.features.count_features(store, wanted) == len(found)


KEYS = {
    "contribution": "mean_abs_contribution", "weight": "weight", "share": "share", "density": "density",
    "layer": "layer", "base_density": "base_density", "shift": "shift", "max_activation": "max_activation",
    "id": "feature_id",
}  # fmt: skip


@pytest.mark.parametrize("by", sorted(KEYS))
@pytest.mark.parametrize("descending", [False, True])
def test_sorted_by_a_column(store, by, descending):
    rows = queries.features.features(store, FeatureFilter(), order=Order(by, descending)).to_pylist()
    values = [row[KEYS[by]] for row in rows]
    assert values == sorted(values, reverse=descending)


def test_strength_is_the_weight_without_its_sign(store):
    rows = queries.features.features(store, FeatureFilter(), order=Order("strength")).to_pylist()
    sizes = [abs(row["weight"]) for row in rows]
    assert sizes == sorted(sizes, reverse=True)


@settings(max_examples=30)
@given(wanted=FILTERS, order=ORDERS, size=st.integers(1, 20))
def test_pages_make_up_the_whole(store, wanted, order, size):
    whole = queries.features.features(store, wanted, order=order)["feature_id"].to_pylist()
    pages = [
        queries.features.features(store, wanted, order=order, limit=size, offset=offset)["feature_id"].to_pylist()
        for offset in range(0, len(whole) + 1, size)
    ]
    assert [feature_id for page in pages for feature_id in page] == whole


@pytest.mark.parametrize("by", ["", "weight; DROP TABLE features", "f.layer", "no such"])
def test_only_listed_columns_sort(store, by):
    with pytest.raises(ConfigError, match=r"no column or list of that name here; (choose one of|did you mean)"):
        queries.features.features(store, FeatureFilter(), order=Order(by))
    with pytest.raises(ConfigError, match=r"no column or list of that name here; (choose one of|did you mean)"):
        queries.texts.texts(store, TextFilter(), order=Order(by))


def test_a_feature_is_its_row_and_its_weight(store, bundle):
    feature = queries.feature.feature(store, 17)
    row = pq.read_table(bundle / "features.parquet").slice(17, 1).to_pylist()[0]
    weights = pq.read_table(bundle / "weights.parquet").to_pylist()
    weight = next(w for w in weights if w["probe_id"] == 0 and w["feature_id"] == 17)
    assert {key: row[key] for key in ("layer", "index", "density", "top_tokens", "shift")} == {
        key: getattr(feature, key) for key in ("layer", "index", "density", "top_tokens", "shift")
    }
    assert (feature.weight, feature.rank, feature.beats_null) == (
        weight["weight"],
        weight["rank"],
        weight["beats_null"],
    )


@pytest.mark.parametrize("number", [-1, 60, 10**9])
def test_an_unknown_feature_is_one_sentence(store, number):
    with pytest.raises(NotInBundleError, match=f"no feature {number} in this bundle; it holds numbers 0 to 59"):
        queries.feature.feature(store, number)


def test_an_unknown_text_is_one_sentence(store, none):
    with pytest.raises(NotInBundleError, match="no text 40 in this bundle; it holds numbers 0 to 39"):
        queries.texts.text(store, 40)
    with pytest.raises(NotInBundleError, match="it holds none at all"):
        queries.texts.text(none, 0)


def test_the_strongest_feature_ranks_first(store, none):
    assert queries.feature.feature(store, queries.feature.strongest_feature(store)).rank == 1
    assert queries.feature.strongest_feature(none) is None


def test_the_headline_is_the_one_marked(store, none):
    assert queries.common.headline(store).target == "implicit_reward"
    assert queries.common.headline(none) is None


def test_labels_begin_with_the_one_that_detects_best(store):
    labels = queries.feature.labels(store, 0)
    assert [label.labeller for label in labels] == [MODEL_LABELLER, LABELLER]
    assert queries.common.main_labeller(store) == LABELLER


def test_another_labeller_stands_in_where_the_runs_own_is_silent(copied_bundle):
    only = lambda table: table.filter(pc.equal(table["labeller"], MODEL_LABELLER))  # noqa: E731
    rewrite(copied_bundle, "labels", only)
    with Store.open(copied_bundle) as opened:
        assert queries.common.main_labeller(opened) == MODEL_LABELLER


def test_examples_come_with_their_texts(store):
    rows = queries.excerpts.feature_excerpts(store, 5)
    buckets = {row["bucket"] for row in rows}
    for bucket in buckets:
        ranks = [row["rank"] for row in rows if row["bucket"] == bucket]
        assert ranks == list(range(len(ranks)))
    for row in rows:
        assert row["text"] == queries.texts.text(store, row["text_id"]).text
        assert row["window_values"][row["position"] - row["window_start"]] == row["activation"]
    assert 0 in buckets


def test_a_histogram_counts_what_is_active(store):
    for feature_id in (0, 30, 59):
        histogram, feature = queries.feature.histogram(store, feature_id), queries.feature.feature(store, feature_id)
        assert sum(histogram.counts) == feature.n_active
    assert queries.feature.histogram(store, 999) is None


@settings(max_examples=40)
@given(words=st.lists(st.sampled_from(["film", "THE", "good", "%", "'", "zzz", "_"]), max_size=3))
def test_texts_hold_every_word(store, words):
    wanted = TextFilter(words=" ".join(words))
    found = queries.texts.texts(store, wanted, order=Order("id", descending=False)).to_pylist()
    whole = queries.texts.texts(store, TextFilter(), order=Order("id", descending=False)).to_pylist()
    assert found == [row for row in whole if all(word.lower() in row["text"].lower() for word in words)]
    assert queries.texts.count_texts(store, wanted) == len(found)


def test_texts_of_a_split(store):
    found = queries.texts.texts(store, TextFilter(split="held_out"), order=Order("id")).to_pylist()
    assert found and all(row["split"] == "held_out" for row in found)


def test_texts_that_were_sampled(store):
    found = queries.texts.texts(store, TextFilter(is_sampled=True), order=Order("id")).to_pylist()
    assert {row["text_id"] for row in found} == {i for i in range(40) if queries.texts.text(store, i).has_activations}


def test_the_gap_is_between_percentile_ranks(store):
    rows = queries.texts.texts(store, TextFilter(), order=Order("gap")).to_pylist()

    def middle(values, value):
        return (sum(v < value for v in values) + sum(v <= value for v in values)) / 2 / len(values)

    predicted, feedback = [row["predicted"] for row in rows], [row["feedback"] for row in rows]
    for row in rows:
        expected = abs(middle(predicted, row["predicted"]) - middle(feedback, row["feedback"]))
        assert row["gap"] == pytest.approx(expected, abs=1e-9)
    gaps = [row["gap"] for row in rows]
    assert gaps == sorted(gaps, reverse=True)


def test_token_activations_are_those_kept(store, bundle):
    row = pq.read_table(bundle / "activations.parquet").slice(2, 1).to_pylist()[0]
    feature_id = row["feature_ids"][0]
    values = queries.texts.token_activations(store, row["text_id"], feature_id=feature_id)
    expected = {
        p: v for p, f, v in zip(row["positions"], row["feature_ids"], row["values"], strict=True) if f == feature_id
    }
    assert {at: value for at, value in enumerate(values) if value} == expected
    assert len(values) == len(queries.texts.text(store, row["text_id"]).token_starts)


def test_texts_without_activations_say_so(store):
    assert queries.texts.text(store, 0).has_activations
    last = queries.texts.text(store, 39)
    assert not last.has_activations and last.token_predicted
    assert queries.ledgers.ledger(store, 39) is None
    assert queries.texts.token_activations(store, 39, feature_id=0) == []


def test_figures_of_a_report_row(store, none):
    rows = queries.run.figures(store, "kendall_tau")
    assert {row.metric for row in rows} == {"tau", "tau_within_sign", "sign_ceiling"}
    assert all(math.isfinite(row.value) for row in rows)
    assert queries.run.figures(store, "no such row") == []
    assert isinstance(queries.run.figures(none, "reward"), list)


def test_words_with_a_reward_are_common_first(store):
    rows = queries.words.judged_words(store).to_pylist()
    counts = [row["n"] for row in rows]
    assert counts == sorted(counts, reverse=True)
    assert all(row["feedback"] is not None for row in rows)
    assert queries.words.judged_words(store, limit=3).num_rows == 3


def test_limits_are_positive_or_zero(store, none):
    assert all(value > 0 for value in dataclasses.astuple(queries.texts.score_limits(store)))
    assert dataclasses.astuple(queries.texts.score_limits(none)) == (0, 0, 0)


def test_an_empty_bundle_answers_everything(none):
    assert queries.features.feature_layers(none) == []
    assert queries.features.count_features(none, FeatureFilter()) == queries.texts.count_texts(none, TextFilter()) == 0
    assert queries.features.features(none, FeatureFilter(), order=Order("weight")).num_rows == 0
    assert queries.texts.texts(none, TextFilter(), order=Order("gap")).num_rows == 0
    assert queries.feature.labels(none, 0) == [] and queries.excerpts.feature_excerpts(none, 0) == []
    assert queries.common.main_labeller(none) is None


def test_hostile_words_come_back_as_they_are(hostile_bundle):
    from tests.conftest import HOSTILE

    with Store.open(hostile_bundle) as opened:
        assert [queries.texts.text(opened, i).text for i in range(len(HOSTILE))] == list(HOSTILE)
        found = queries.texts.texts(opened, TextFilter("<script>alert(1)</script>"), order=Order("id"))
        assert found.num_rows == HOSTILE.count(HOSTILE[0]) * 4
