"""Features matched: against loops over all pairs, scipy's assignment, and what chance must not reach."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from lfp.evaluation import feature_matching

SEEDS = st.integers(0, 10_000)
TOKENS = st.dictionaries(st.sampled_from("abcdefgh"), st.floats(0, 1), max_size=5)


def random_rows(seed, n, d=8):
    return np.random.default_rng(seed).standard_normal((n, d)).astype(np.float32)


def naive(values):
    """Pairs that are each other's largest, found by looking at all."""
    n, m = values.shape
    pairs = []
    for i in range(n):
        for j in range(m):
            best_of_i = max(range(m), key=lambda k: values[i, k])
            best_of_j = max(range(n), key=lambda k: values[k, j])
            if best_of_i == j and best_of_j == i and values[i, j] > feature_matching.NO_MATCH:
                pairs.append((i, j))
    return pairs


def pairs_of(found):
    return list(zip(found.left.tolist(), found.right.tolist(), strict=True))


@given(seed=SEEDS, n=st.integers(0, 9), m=st.integers(0, 9), block=st.integers(1, 4))
def test_mutual_nearest_is_what_a_loop_over_all_pairs_finds(seed, n, m, block):
    values = np.random.default_rng(seed).integers(-1, 4, (n, m)).astype(np.float32)  # with ties
    kept, feature_matching.BLOCK = feature_matching.BLOCK, block
    try:
        found = feature_matching.mutual_nearest(lambda at: values[at], n, m)
    finally:
        feature_matching.BLOCK = kept
    assert pairs_of(found) == naive(values)
    assert found.similarity.tolist() == [values[pair] for pair in pairs_of(found)]


@given(seed=SEEDS)
def test_shuffled_features_find_themselves_as_scipys_assignment_does(seed):
    random = np.random.default_rng(seed)
    rows, order = random_rows(seed, 20, 16), random.permutation(20)
    noisy = rows[order] + 0.05 * random_rows(seed + 1, 20, 16)
    layers = np.zeros(20, np.int64)
    similar = feature_matching.cosines(rows, noisy, left_places=layers, right_places=layers)
    found = feature_matching.mutual_nearest(similar, 20, 20)
    _, assigned = linear_sum_assignment(-similar(slice(0, 20)))
    assert pairs_of(found) == list(enumerate(assigned.tolist()))
    assert order[found.right].tolist() == list(range(20))


@given(seed=SEEDS, n=st.integers(1, 12), m=st.integers(1, 12))
def test_mutual_pairs_are_one_to_one_and_within_a_layer(seed, n, m):
    random = np.random.default_rng(seed)
    layers, others = random.integers(0, 3, n), random.integers(0, 3, m)
    similar = feature_matching.cosines(
        random_rows(seed, n), random_rows(seed + 1, m), left_places=layers, right_places=others
    )
    found = feature_matching.mutual_nearest(similar, n, m)
    assert len(set(found.left.tolist())) == len(set(found.right.tolist())) == len(found.left)
    assert (layers[found.left] == others[found.right]).all()


@given(seed=SEEDS)
def test_cosines_do_not_see_lengths_and_a_row_of_zeros_has_none(seed):
    rows, layers = random_rows(seed, 5), np.zeros(5, np.int64)
    lengths = np.array([0.1, 2, 30, 1, 0], np.float32)
    got = feature_matching.cosines(rows, rows * lengths[:, None], left_places=layers, right_places=layers)(slice(0, 5))
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    np.testing.assert_allclose(got[:, :4], (unit @ unit.T)[:, :4], atol=1e-5)
    assert (got[:, 4] == 0).all()


@given(left=st.lists(TOKENS, max_size=5), right=st.lists(TOKENS, max_size=5))
def test_overlaps_are_jaccards_of_weighted_sets(left, right):
    got = feature_matching.overlaps(left, right)(slice(0, len(left)))
    assert got.shape == (len(left), len(right))
    for i, one in enumerate(left):
        for j, other in enumerate(right):
            tokens = one.keys() | other.keys()
            smaller = sum(min(one.get(t, 0), other.get(t, 0)) for t in tokens)
            larger = sum(max(one.get(t, 0), other.get(t, 0)) for t in tokens)
            assert got[i, j] == pytest.approx(smaller / larger if larger > 0 else 0.0, abs=1e-6)


@given(features=st.lists(TOKENS, max_size=6), seed=SEEDS)
def test_dealing_tokens_keeps_every_feature_as_heavy(features, seed):
    made = feature_matching.permute_tokens(features, seed=seed)
    assert [sum(feature.values()) for feature in made] == pytest.approx([sum(feature.values()) for feature in features])
    assert {token for feature in made for token in feature} <= {token for feature in features for token in feature}


def test_random_directions_are_spread_like_the_layer_but_are_none_of_it():
    rows = np.concatenate([random_rows(0, 300, 16) * 3 + 1, random_rows(1, 300, 16)])
    layers = np.repeat([1, 2], 300)
    made = feature_matching.random_directions(rows, layers, seed=3)
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    for layer in (1, 2):
        drawn, given = made[layers == layer], unit[layers == layer]
        moments = drawn.T @ drawn / 300 / 300
        np.testing.assert_allclose(moments, given.T @ given / 300, atol=0.06)
    nearest = feature_matching.nearest_sizes(
        feature_matching.cosines(rows, made, left_places=layers, right_places=layers), len(rows), len(made)
    )
    assert nearest.max() < 0.99


def test_unrelated_dictionaries_pass_chance_no_more_often_than_chance():
    rows, others, layers = random_rows(5, 400, 24), random_rows(6, 400, 24), np.zeros(400, np.int64)
    by = {"left_places": layers, "right_places": layers}
    null = feature_matching.nearest_sizes(
        feature_matching.cosines(rows, feature_matching.random_directions(others, layers, seed=0), **by), 400, 400
    )
    found = feature_matching.mutual_nearest(feature_matching.cosines(rows, others, **by), 400, 400)
    assert len(found.above(float(np.quantile(null, 0.95))).left) <= 0.1 * 400 < len(found.left)
