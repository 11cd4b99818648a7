"""Statistics of features against naive counts, and parts merged in any way against one pass."""

from __future__ import annotations

import pickle
import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lfp.config import StatsConfig
from lfp.ml.features import examples as examples_module
from lfp.ml.features import neighbours as neighbours_module
from lfp.ml.features import statistics
from lfp.ml.features.active import Active
from lfp.ml.features.active import active as dense_active
from lfp.ml.features.examples import Examples
from lfp.ml.features.grouping import Places
from lfp.ml.features.statistics import FeatureStats, histogram_edges
from tests.lfp.ml.feature_texts import (
    CONFIG,
    N_FEATURES,
    active,
    active_contexts,
    best_of_each_context,
    neighbours,
    of_feature,
    places,
    random_texts,
    same,
    stats,
    text,
    tokens,
    window,
)


def test_moments_are_what_naive_counts_say() -> None:
    texts = random_texts(20)
    filled = stats([texts[:7], texts[7:]])
    for moments, name in ((filled.tuned, "values"), (filled.base, "base_values")):
        values = np.concatenate([getattr(text, name) for text in texts])
        assert moments.n_tokens == len(values)
        assert moments.n_active.tolist() == (values > 0).sum(axis=0).tolist()
        assert moments.density.tolist() == (values > 0).mean(axis=0).tolist()
        assert moments.sum.tolist() == values.sum(axis=0).tolist()
        assert moments.max.tolist() == values.max(axis=0).tolist()
        means = [column[column > 0].mean() for column in values.T.astype(float)]
        np.testing.assert_allclose(moments.mean_where_active, means, rtol=1e-12)
        for feature, column in enumerate(values.T):
            assert moments.counts[feature].tolist() == np.histogram(column[column > 0], histogram_edges(6))[0].tolist()


def test_a_feature_that_never_fires_has_zeros_not_errors() -> None:
    silent = text(0, (1, 2, 3), 0)
    silent.values[:] = 0
    filled = stats([[silent]])
    assert filled.tuned.mean_where_active.tolist() == filled.tuned.max.tolist() == [0.0] * N_FEATURES
    assert (
        len(filled.top.examples().features)
        == len(filled.sample.examples().features)
        == len(neighbours(filled).features)
        == 0
    )
    assert filled.silent.examples().features.tolist() == [0, 0, 1, 1, 2, 2]


def test_statistics_of_no_text_are_empty() -> None:
    filled = FeatureStats(N_FEATURES, CONFIG)
    assert filled.tuned.n_tokens == 0 and filled.tuned.density.tolist() == [0.0] * N_FEATURES
    assert (
        len(filled.top.examples().features)
        == len(filled.silent.examples().features)
        == len(neighbours(filled).features)
        == 0
    )


@pytest.mark.parametrize("n_ids", [1, 2, 50])
def test_top_examples_are_the_naive_top_k_of_different_contexts(n_ids: int) -> None:
    texts = random_texts(12, n_ids=n_ids, seed=n_ids)
    top = stats([texts]).top.examples()
    for feature in range(N_FEATURES):
        found, expected = of_feature(top, feature), best_of_each_context(texts, feature)[:4]
        assert found.activations.tolist() == [place[0] for place in expected]
        assert found.text_ids.tolist() == [place[1] for place in expected]
        assert found.positions.tolist() == [place[2] for place in expected]
        assert found.token_ids.tolist() == [place[3][-1] for place in expected]


def test_thresholds_let_through_all_that_can_still_be_among_the_best() -> None:
    """Last text first, one at a time: of equal activations the earlier text's must still win."""
    texts = random_texts(40, seed=12, n_ids=50)
    assert same(stats([[text] for text in reversed(texts)], settle=True), stats([texts]))


def test_windows_hold_the_features_values_and_end_where_the_text_does() -> None:
    texts = random_texts(9, seed=3)
    by_id = {text.text_id: text for text in texts}
    filled = stats([texts[4:], texts[:4]])
    examples = Examples.concatenate([filled.top.examples(), filled.sample.examples(), filled.silent.examples()])
    assert {0, 1} <= set(examples.positions.tolist()), "some at an edge"
    for row in range(len(examples.features)):
        values = by_id[int(examples.text_ids[row])].values[:, examples.features[row]].tolist()
        at = int(examples.positions[row])
        assert window(examples, row) == (max(0, at - 2), values[max(0, at - 2) : at + 3])
        assert values[at] == examples.activations[row]


def test_the_sample_holds_active_tokens_of_different_contexts() -> None:
    texts = random_texts(9, seed=4)
    sample = stats([texts]).sample.examples()
    for feature in range(N_FEATURES):
        found = of_feature(sample, feature)
        possible = {place[1:3]: place for place in active(texts, feature)}
        chosen = [possible[place] for place in zip(found.text_ids.tolist(), found.positions.tolist(), strict=True)]
        assert found.activations.tolist() == [place[0] for place in chosen]
        contexts = {place[3] for place in chosen}
        assert len(contexts) == len(chosen) == min(8, len(active_contexts(texts, feature)))


def test_every_active_context_is_sampled_with_the_same_chance() -> None:
    """2,000 features, each active on its own 64 contexts with the same values, 8 of which it draws."""
    n = 2000
    filled = FeatureStats(n, CONFIG)
    values = np.linspace(0.1, 3.0, 64, dtype=np.float32)
    entries = Active(n, np.arange(64 * n + 1), np.repeat(np.arange(n), 64).astype(np.int32), np.tile(values, n))
    ids = np.arange(64 * n)
    filled.update(Places(ids, np.zeros(64 * n, np.int64), ids), entries, entries)
    filled.flush()
    drawn = np.bincount(np.searchsorted(values, filled.sample.examples().activations), minlength=64)
    assert drawn.sum() == 8 * n
    assert ((drawn - 250.0) ** 2 / 250.0).sum() < 110, "chi-square with 63 degrees of freedom, p = 0.0002"


def test_silent_places_are_of_different_contexts_and_truly_silent() -> None:
    texts = random_texts(9, seed=6)
    silent = stats([texts[5:], texts[:5]], CONFIG.model_copy(update={"silent_examples": 30})).silent.examples()
    for feature in range(N_FEATURES):
        first: dict[tuple[int, ...], tuple[float, int, int, tuple[int, ...]]] = {}
        for place in places(texts, feature):
            first.setdefault(place[3], place)
        found, expected = of_feature(silent, feature), {place[1:3] for place in first.values() if place[0] == 0}
        assert 0 < len(expected) <= 256, "as many contexts as are kept"
        shown = set(zip(found.text_ids.tolist(), found.positions.tolist(), strict=True))
        assert len(shown) == len(found.features) == min(30, len(expected)) and shown <= expected
        assert not found.activations.any()


def test_silent_places_differ_between_features() -> None:
    texts = random_texts(40, seed=7, n_ids=50)
    for quiet in texts:
        quiet.values[:] = 0
    silent = stats([texts]).silent.examples()
    chosen = [set(of_feature(silent, feature).contexts.tolist()) for feature in range(N_FEATURES)]
    assert all(len(each) == 2 for each in chosen) and len(set.union(*chosen)) > 2


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
        part_texts = [text for text, number in zip(shuffled, part_of, strict=True) if number == part]
        size, settle = data.draw(st.integers(1, 3)), data.draw(st.booleans())
        parts.append(stats([part_texts[i : i + size] for i in range(0, len(part_texts), size)], settle=settle))
    while len(parts) > 1:
        other = parts.pop(data.draw(st.integers(0, len(parts) - 1)))
        parts[data.draw(st.integers(0, len(parts) - 1))].merge(other)
    assert same(parts[0], stats([texts]))


def test_parts_larger_than_what_is_kept_merge_to_one_pass() -> None:
    """Thresholds, sketches and the silent places are all full, and most candidates are turned away."""
    texts = random_texts(120, seed=9, n_ids=40)
    parts = [stats([[text] for text in texts[first::5]], settle=True) for first in (3, 0, 4, 2, 1)]
    for part in parts[1:]:
        parts[0].merge(part)
    assert same(parts[0], stats([texts]))


@pytest.mark.parametrize("slack", [0, 4, 10**9])
def test_many_parts_merge_to_one_pass_one_by_one_or_as_a_tree(slack: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether candidates wait until the end (0), are added once there are many, or at once."""
    for module in (statistics, examples_module, neighbours_module):
        monkeypatch.setattr(module, "_SLACK", slack)
    texts = random_texts(60, seed=5, n_ids=20)

    def parts() -> list[FeatureStats]:
        return [stats([texts[first::15]]) for first in range(15)]

    whole, tree, (total, *others) = stats([texts]), parts(), parts()
    for part in others:
        total.merge(part)
    while len(tree) > 1:
        for left, right in zip(tree[::2], tree[1::2], strict=False):
            left.merge(right)
        tree = tree[::2]
    assert same(total, whole) and same(tree[0], whole)


def test_a_small_part_of_many_features_is_small() -> None:
    """What is kept of a few tokens grows with their activations; full tables of 20,000 features have 100 MB."""
    n = 20_000
    entries = Active(n, np.arange(65), np.arange(64, dtype=np.int32) * 300, np.ones(64, np.float32))
    filled = FeatureStats(n, StatsConfig())
    filled.update(Places(np.zeros(64, np.int64), np.arange(64), np.arange(64)), entries, entries)
    filled.flush()
    assert len(pickle.dumps(filled)) < 3e6


def test_merging_adds_the_batches_that_wait_in_either_part() -> None:
    texts = random_texts(12, seed=13)
    parts = [FeatureStats(N_FEATURES, CONFIG) for _ in range(2)]
    for part, part_texts in zip(parts, (texts[5:], texts[:5]), strict=True):
        part.update(*tokens(part_texts))
    parts[0].merge(parts[1])
    assert same(parts[0], stats([texts]))


def test_the_order_of_waiting_is_no_part_of_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = random_texts(30, seed=11)
    whole = stats([texts])
    monkeypatch.setattr(statistics, "_WAITING_ENTRIES", 1)
    monkeypatch.setattr(statistics, "_WAITING_PER_FEATURE", 0)
    assert same(stats([[text] for text in texts]), whole)


def test_memory_does_not_grow_with_tokens() -> None:
    """Four times the tokens, once everything is full: the peak of what numpy holds grows by a tenth at most."""

    def peak(n_texts: int) -> int:
        rng = np.random.default_rng(0)
        filled = FeatureStats(64, StatsConfig(top_examples=4, sampled_activations=8, coactivation_contexts=16))
        filled._enough = 20_000
        tracemalloc.start()
        for number in range(n_texts):
            values = np.maximum(rng.normal(size=(64, 64)) - 1, 0).astype(np.float32)
            entries = dense_active(torch.from_numpy(values))
            ids = np.full(64, number), np.arange(64), rng.integers(5000, size=64)
            filled.update(Places(*ids), entries, entries)
        filled.flush()
        filled.top.examples(), filled.sample.examples(), neighbours(filled)
        size = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return size

    assert peak(400) < 1.1 * peak(100)
