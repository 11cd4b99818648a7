"""The best examples of features when many more are offered than are kept."""

from __future__ import annotations

import numpy as np
import torch

from lfp.ml.features.active import active
from lfp.ml.features.examples import Batch, BestExamples
from lfp.ml.features.grouping import Places
from tests.lfp.ml.feature_texts import of_feature


def test_more_candidates_than_are_kept_change_nothing_and_thresholds_rise() -> None:
    """One-token texts in random order; a context is a token."""
    rng = np.random.default_rng(5)
    n, k = 20_000, 5
    features, values = rng.integers(3, size=n), (rng.random(n).round(3) + 0.001).astype(np.float32)
    ids, texts, nought = rng.integers(3000, size=n), np.arange(n), np.zeros(n, np.int64)
    dense = np.zeros((n, 3), np.float32)
    dense[np.arange(n), features] = values
    best = BestExamples(3, k, 0, by="activation")
    for rows in np.array_split(rng.permutation(n), 20):
        places = Places(texts[rows], nought[rows], ids[rows])
        best.update(Batch(places, active(torch.from_numpy(dense[rows]))))
    found = best.examples()
    assert (~best._limits).view(np.float32).min() > 0.9
    for feature in range(3):
        expected: dict[int, int] = {}
        for row in sorted(np.flatnonzero(features == feature), key=lambda row: (-values[row], row)):
            expected.setdefault(int(ids[row]), int(row))
        assert of_feature(found, feature).text_ids.tolist() == list(expected.values())[:k]
