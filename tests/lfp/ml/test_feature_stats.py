"""Statistics of features against naive counts, and parts merged in any way against one pass."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lfp.config import StatsConfig
from lfp.ml.feature_stats import (
    BestExamples,
    Examples,
    FeatureStats,
    Moments,
    TokenFeatures,
    context_hashes,
    histogram_edges,
    quantile_buckets,
    ranks,
)

N_FEATURES = 3
CONFIG = StatsConfig(top_examples=4, sampled_activations=8, histogram_bins=6, window=2)


@dataclass(frozen=True)
class Text:
    """A text's tokens, and its features on the tuned and on the base model [n, features]."""

    text_id: int
    token_ids: tuple[int, ...]
    values: np.ndarray
    base_values: np.ndarray


def text(text_id: int, token_ids: tuple[int, ...], seed: int) -> Text:
    """Features zero half of the time, of few different sizes, so that ties are common."""
    values, base = np.random.default_rng([seed, text_id]).integers(-5, 6, (2, len(token_ids), N_FEATURES)).clip(0) / 4
    return Text(text_id, token_ids, values, base)


def random_texts(n: int, *, seed: int = 0, n_ids: int = 2) -> list[Text]:
    rng = np.random.default_rng(seed)
    return [text(i, tuple(rng.integers(n_ids, size=rng.integers(1, 30)).tolist()), seed) for i in range(n)]


def tokens(texts: list[Text]) -> TokenFeatures:
    return TokenFeatures(
        values=torch.tensor(np.concatenate([one.values for one in texts]), dtype=torch.float32),
        base_values=torch.tensor(np.concatenate([one.base_values for one in texts]), dtype=torch.float32),
        text_ids=np.concatenate([np.full(len(one.token_ids), one.text_id) for one in texts]),
        positions=np.concatenate([np.arange(len(one.token_ids)) for one in texts]),
        token_ids=np.concatenate([np.array(one.token_ids) for one in texts]),
    )


def stats(batches: list[list[Text]], config: StatsConfig = CONFIG, *, sift: bool = False) -> FeatureStats:
    """`sift` settles what is best after every batch, so that the next one meets thresholds."""
    filled = FeatureStats(N_FEATURES, config)
    for batch in batches:
        filled.update(tokens(batch))
        if sift:
            filled.top.examples()
            filled.sample.examples()
    return filled


def active(texts: list[Text], feature: int) -> list[tuple[float, int, int, tuple[int, ...]]]:
    """(activation, text_id, position, last eight tokens) wherever the feature is active."""
    return [
        (one.values[t, feature], one.text_id, t, one.token_ids[max(0, t - 7) : t + 1])
        for one in texts
        for t in range(len(one.token_ids))
        if one.values[t, feature] > 0
    ]


def best_of_each_context(texts: list[Text], feature: int) -> list[tuple[float, int, int, tuple[int, ...]]]:
    """Largest activation first, then the earlier text and position; of examples alike to a reader the first."""
    found: dict[tuple[int, ...], tuple[float, int, int, tuple[int, ...]]] = {}
    for one in sorted(active(texts, feature), key=lambda one: (-one[0], one[1], one[2])):
        found.setdefault(one[3], one)
    return list(found.values())


def of_feature(examples: Examples, feature: int) -> Examples:
    return examples.take(np.flatnonzero(examples.features == feature))


def same_moments(a: Moments, b: Moments) -> bool:
    return a.n_tokens == b.n_tokens and all(
        np.array_equal(getattr(a, name), getattr(b, name))
        for name in ("n_active", "fixed_sum", "max", "counts", "edges")
    )


def same_examples(a: Examples, b: Examples) -> bool:
    return all(
        np.array_equal(getattr(a, one.name), getattr(b, one.name), equal_nan=one.name == "windows")
        for one in fields(Examples)
    )


def same(a: FeatureStats, b: FeatureStats) -> bool:
    return (
        same_moments(a.tuned, b.tuned)
        and same_moments(a.base, b.base)
        and same_examples(a.top.examples(), b.top.examples())
        and same_examples(a.sample.examples(), b.sample.examples())
    )


def test_moments_are_what_naive_counts_say() -> None:
    texts = random_texts(20)
    filled = stats([texts[:7], texts[7:]])
    for moments, name in ((filled.tuned, "values"), (filled.base, "base_values")):
        values = np.concatenate([getattr(one, name) for one in texts])
        assert moments.n_tokens == len(values)
        assert moments.n_active.tolist() == (values > 0).sum(axis=0).tolist()
        assert moments.density.tolist() == (values > 0).mean(axis=0).tolist()
        assert moments.sum.tolist() == values.sum(axis=0).tolist()
        assert moments.max.tolist() == values.max(axis=0).tolist()
        means = [column[column > 0].mean() for column in values.T]
        np.testing.assert_allclose(moments.mean_where_active, means, rtol=1e-12)
        for feature, column in enumerate(values.T):
            assert moments.counts[feature].tolist() == np.histogram(column[column > 0], histogram_edges(6))[0].tolist()


def test_a_feature_that_never_fires_has_zeros_not_errors() -> None:
    silent = text(0, (1, 2, 3), 0)
    silent.values[:] = 0
    filled = stats([[silent]])
    assert filled.tuned.mean_where_active.tolist() == filled.tuned.max.tolist() == [0.0] * N_FEATURES
    assert len(filled.top.examples().features) == len(filled.sample.examples().features) == 0
    assert len(quantile_buckets(filled.sample.examples(), intervals=4, per_interval=2)[0]) == 0


def test_histogram_edges_are_log_spaced_and_catch_what_lies_outside() -> None:
    edges = histogram_edges(8)
    np.testing.assert_allclose(np.diff(np.log(edges)), np.log(2.0**14) / 8)
    moments = Moments(1, 8)
    moments.update(4, np.zeros(4, np.int64), np.array([1e-9, edges[1], edges[3] * 1.01, 1e9]))
    assert moments.counts[0].tolist() == [1, 1, 0, 1, 0, 0, 0, 1]


@pytest.mark.parametrize("n_ids", [1, 2, 50])
def test_top_examples_are_the_naive_top_k_of_different_contexts(n_ids: int) -> None:
    texts = random_texts(12, n_ids=n_ids, seed=n_ids)
    top = stats([texts]).top.examples()
    for feature in range(N_FEATURES):
        found, expected = of_feature(top, feature), best_of_each_context(texts, feature)[:4]
        assert found.scores.tolist() == found.activations.tolist() == [one[0] for one in expected]
        assert found.text_ids.tolist() == [one[1] for one in expected]
        assert found.positions.tolist() == [one[2] for one in expected]
        assert found.token_ids.tolist() == [one[3][-1] for one in expected]


def test_thresholds_let_through_all_that_can_still_be_among_the_best() -> None:
    """Last text first, one at a time: of equal activations the earlier text's must still win."""
    texts = random_texts(40, seed=12, n_ids=50)
    assert same(stats([[one] for one in reversed(texts)], sift=True), stats([texts]))


def test_windows_hold_the_features_values_and_end_where_the_text_does() -> None:
    texts = random_texts(9, seed=3)
    by_id = {one.text_id: one for one in texts}
    filled = stats([texts[4:], texts[:4]])
    examples = Examples.concatenate([filled.top.examples(), filled.sample.examples()])
    assert {0, 1} <= set(examples.positions.tolist()), "some at an edge"
    for i in range(len(examples.features)):
        values = by_id[int(examples.text_ids[i])].values[:, examples.features[i]]
        around = range(examples.positions[i] - 2, examples.positions[i] + 3)
        expected = [values[t] if 0 <= t < len(values) else np.nan for t in around]
        np.testing.assert_array_equal(examples.windows[i], expected)
        assert examples.windows[i, 2] == examples.activations[i]


def test_the_sample_holds_active_tokens_of_different_contexts() -> None:
    texts = random_texts(9, seed=4)
    sample = stats([texts]).sample.examples()
    for feature in range(N_FEATURES):
        found = of_feature(sample, feature)
        possible = {one[1:3]: one for one in active(texts, feature)}
        chosen = [possible[place] for place in zip(found.text_ids.tolist(), found.positions.tolist(), strict=True)]
        assert found.activations.tolist() == [one[0] for one in chosen]
        contexts = {one[3] for one in chosen}
        assert len(contexts) == len(chosen) == min(8, len({one[3] for one in possible.values()}))


def test_every_active_context_is_sampled_with_the_same_chance() -> None:
    """2,000 features active on the same 64 tokens, 8 of which each feature draws."""
    n = 2000
    filled = FeatureStats(n, CONFIG)
    values = torch.linspace(0.1, 3.0, 64)[:, None].expand(64, n)
    ids = np.arange(64)
    filled.update(TokenFeatures(values, values, ids, np.zeros(64, np.int64), ids))
    drawn = np.bincount(filled.sample.examples().text_ids, minlength=64)
    assert drawn.sum() == 8 * n
    assert ((drawn - 250.0) ** 2 / 250.0).sum() < 110, "chi-square with 63 degrees of freedom, p = 0.0002"


@settings(deadline=None, max_examples=60)
@given(
    ids=st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=11).map(tuple), min_size=1, max_size=7),
    seed=st.integers(0, 10**6),
    data=st.data(),
)
def test_parts_merged_in_any_order_and_grouping_equal_one_pass(
    ids: list[tuple[int, ...]], seed: int, data: st.DataObject
) -> None:
    """To the last bit: the texts are shuffled, cut into parts, parts into batches, and parts merged two by two."""
    texts = [text(i, token_ids, seed) for i, token_ids in enumerate(ids)]
    shuffled = data.draw(st.permutations(texts))
    part_of = data.draw(st.lists(st.integers(0, 3), min_size=len(texts), max_size=len(texts)))
    parts = []
    for part in range(4):
        mine = [one for one, number in zip(shuffled, part_of, strict=True) if number == part]
        size, sift = data.draw(st.integers(1, 3)), data.draw(st.booleans())
        parts.append(stats([mine[i : i + size] for i in range(0, len(mine), size)], sift=sift))
    while len(parts) > 1:
        other = parts.pop(data.draw(st.integers(0, len(parts) - 1)))
        parts[data.draw(st.integers(0, len(parts) - 1))].merge(other)
    assert same(parts[0], stats([texts]))


@settings(deadline=None, max_examples=20)
@given(st.lists(st.integers(0, 2), min_size=1, max_size=12).map(tuple), st.integers(0, 3))
def test_a_contexts_hash_is_of_its_last_eight_tokens_alone(token_ids: tuple[int, ...], n_before: int) -> None:
    before = [text(i, (7,) * 5, 0) for i in range(n_before)]
    mine = text(9, token_ids, 0)
    hashes = context_hashes(tokens([*before, mine]))[5 * n_before :]
    assert np.array_equal(hashes, context_hashes(tokens([mine])))
    contexts = [token_ids[max(0, t - 7) : t + 1] for t in range(len(token_ids))]
    assert len(set(hashes.tolist())) == len(set(contexts))
    longer = context_hashes(tokens([text(9, (4, 5, *token_ids), 0)]))[2:]
    assert np.array_equal(longer[7:], hashes[7:]) and not (longer[:7] == hashes[:7]).any()


def test_more_candidates_than_are_kept_waiting_change_nothing() -> None:
    """The buffer is emptied several times on the way, and the thresholds rise."""
    rng = np.random.default_rng(5)
    n, k = 160_000, 5
    features, scores = rng.integers(3, size=n), rng.random(n).round(3)
    texts, contexts = np.arange(n), rng.integers(20_000, size=n).astype(np.uint64)
    zeros = np.zeros(n, np.int64)
    every = Examples(features, scores, scores, texts, zeros, zeros, contexts, np.zeros((n, 1), np.float32))
    best = BestExamples(3, k, 0)
    for rows in np.array_split(rng.permutation(n), 20):
        best.add(every.take(rows[scores[rows] >= best.thresholds[features[rows]]]))
    assert (best.thresholds > 0.9).all()
    for feature in range(3):
        expected: dict[int, int] = {}
        for row in sorted(np.flatnonzero(features == feature), key=lambda row: (-scores[row], row)):
            expected.setdefault(int(contexts[row]), int(row))
        assert of_feature(best.examples(), feature).text_ids.tolist() == list(expected.values())[:k]


def test_buckets_are_the_quantile_intervals_of_each_features_sample() -> None:
    rng = np.random.default_rng(6)
    config = CONFIG.model_copy(update={"sampled_activations": 64})
    texts = [text(i, tuple(rng.integers(500, size=20).tolist()), 6) for i in range(30)]
    for one in texts:
        one.values[:] = rng.exponential(size=one.values.shape)
    sample = stats([texts], config).sample.examples()
    buckets, rows = quantile_buckets(sample, intervals=4, per_interval=1000)
    assert sorted(rows.tolist()) == list(range(len(sample.features)))
    for feature in range(N_FEATURES):
        mine = sample.features[rows] == feature
        values = sample.activations[rows][mine]
        cuts = np.quantile(values, [0.25, 0.5, 0.75])
        assert buckets[mine].tolist() == (1 + np.searchsorted(cuts, values)).tolist()


def test_a_bucket_shows_a_random_few_of_its_examples() -> None:
    texts = random_texts(40, seed=7, n_ids=50)
    sample = stats([texts], CONFIG.model_copy(update={"sampled_activations": 40})).sample.examples()
    every, all_rows = quantile_buckets(sample, intervals=2, per_interval=1000)
    buckets, rows = quantile_buckets(sample, intervals=2, per_interval=3)
    assert len(set(rows.tolist())) == len(rows) == 3 * 2 * N_FEATURES
    bucket_of = dict(zip(all_rows.tolist(), every.tolist(), strict=True))
    assert [bucket_of[row] for row in rows.tolist()] == buckets.tolist()
    for feature in range(N_FEATURES):
        for bucket in (1, 2):
            mine = [row for row in all_rows if sample.features[row] == feature and bucket_of[int(row)] == bucket]
            drawn = sorted(mine, key=lambda row: -sample.scores[row])[:3]
            assert set(drawn) == {row for row, b in zip(rows, buckets, strict=True) if row in mine and b == bucket}


def test_fewer_examples_than_intervals_fill_what_they_can() -> None:
    one = text(0, (1, 2), 0)
    one.values[:] = [[1.0, 0.0, 0.0], [2.0, 0.5, 0.0]]
    sample = stats([[one]]).sample.examples()
    buckets, rows = quantile_buckets(sample, intervals=4, per_interval=5)
    found = {
        (int(sample.features[r]), float(sample.activations[r])): int(b) for b, r in zip(buckets, rows, strict=True)
    }
    assert found == {(0, 1.0): 1, (0, 2.0): 3, (1, 0.5): 1}


def test_ranks_count_from_the_largest_within_feature_and_bucket() -> None:
    sample = stats([random_texts(9, seed=8)]).sample.examples()
    buckets = np.arange(len(sample.features)) % 2
    found = ranks(sample, buckets)
    for feature in range(N_FEATURES):
        for bucket in (0, 1):
            mine = np.flatnonzero((sample.features == feature) & (buckets == bucket))
            key = {row: (-sample.activations[row], sample.text_ids[row], sample.positions[row]) for row in mine}
            assert found[mine].tolist() == [sorted(key.values()).index(key[row]) for row in mine]
