"""Examples in intervals of activation, and their ranks."""

from __future__ import annotations

import numpy as np

from lfp.ml.features.display import quantile_buckets, ranks
from tests.lfp.ml.feature_texts import CONFIG, N_FEATURES, random_texts, stats, text


def test_buckets_are_the_quantile_intervals_of_each_features_sample() -> None:
    rng = np.random.default_rng(6)
    config = CONFIG.model_copy(update={"sampled_activations": 64})
    texts = [text(i, tuple(rng.integers(500, size=20).tolist()), 6) for i in range(30)]
    for drawn in texts:
        drawn.values[:] = rng.exponential(size=drawn.values.shape)
    sample = stats([texts], config).sample.examples()
    buckets, rows = quantile_buckets(sample, intervals=4, per_interval=1000)
    assert sorted(rows.tolist()) == list(range(len(sample.features)))
    for feature in range(N_FEATURES):
        own = sample.features[rows] == feature
        values = sample.activations[rows][own]
        cuts = np.quantile(values, [0.25, 0.5, 0.75])
        assert buckets[own].tolist() == (1 + np.searchsorted(cuts, values)).tolist()


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
            own = [row for row in all_rows if sample.features[row] == feature and bucket_of[int(row)] == bucket]
            drawn = sorted(own, key=lambda row: sample.keys[row])[:3]
            assert set(drawn) == {row for row, b in zip(rows, buckets, strict=True) if row in own and b == bucket}


def test_fewer_examples_than_intervals_fill_what_they_can() -> None:
    short = text(0, (1, 2), 0)
    short.values[:] = [[1.0, 0.0, 0.0], [2.0, 0.5, 0.0]]
    sample = stats([[short]]).sample.examples()
    buckets, rows = quantile_buckets(sample, intervals=4, per_interval=5)
    found = {
        (int(sample.features[r]), float(sample.activations[r])): int(b) for b, r in zip(buckets, rows, strict=True)
    }
    assert found == {(0, 1.0): 1, (0, 2.0): 3, (1, 0.5): 1}


def test_no_examples_fill_no_bucket() -> None:
    silent = text(0, (1,), 0)
    silent.values[:] = 0
    assert len(quantile_buckets(stats([[silent]]).sample.examples(), intervals=4, per_interval=2)[0]) == 0


def test_ranks_count_from_the_largest_within_feature_and_bucket() -> None:
    sample = stats([random_texts(9, seed=8)]).sample.examples()
    buckets = np.arange(len(sample.features)) % 3 - 1
    found = ranks(sample, buckets)
    for feature in range(N_FEATURES):
        for bucket in (-1, 0, 1):
            own = np.flatnonzero((sample.features == feature) & (buckets == bucket))
            key = {row: (-sample.activations[row], sample.text_ids[row], sample.positions[row]) for row in own}
            assert found[own].tolist() == [sorted(key.values()).index(key[row]) for row in own]
