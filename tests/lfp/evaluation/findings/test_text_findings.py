"""Findings about texts: sparse features from the tables, variance explained as scikit-learn says."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.decomposition import PCA

from lfp.bundle.schema import as_table
from lfp.evaluation.findings.texts import TextFeatures, pca_explained
from lfp.evaluation.statistics.resampling import Draws

DRAWS = Draws(bootstraps=30, permutations=39, seed=0)


def text_features(dense: np.ndarray, tokens: int = 4) -> TextFeatures:
    """Texts whose mean features are `dense` [texts, features], all of it on their first token."""
    texts = [
        {"text_id": 7 + i, "source": "", "split": "train", "role": "text", "text": "", "token_ids": [0] * tokens,
         "token_starts": [0] * tokens, "response_start": 0, "predicted": 0.0, "pca_x": 0.0, "pca_y": 0.0}
        for i in range(len(dense))
    ]  # fmt: skip
    activations = [
        {"text_id": 7 + i, "positions": [0] * np.count_nonzero(row), "feature_ids": np.flatnonzero(row).tolist(),
         "values": (row[row != 0] * tokens).tolist()}
        for i, row in enumerate(dense)
    ]  # fmt: skip
    tables = as_table("activations", activations), as_table("texts", texts)
    return TextFeatures.from_tables(*tables, n_features=dense.shape[1])


def planted(n: int = 60, *, seed: int = 0) -> np.ndarray:
    """Sparse non-negative features moved by one common cause."""
    rng = np.random.default_rng(seed)
    cause = rng.normal(size=(n, 1)) * rng.normal(size=(1, 20))
    return np.maximum(cause + 0.3 * rng.normal(size=(n, 20)), 0.0)


def test_the_tables_give_sums_counts_and_means() -> None:
    dense = planted(9)
    found = text_features(dense)
    np.testing.assert_allclose(found.means.toarray(), dense, rtol=1e-6)
    np.testing.assert_array_equal(found.active.toarray(), dense > 0)
    assert found.text_ids.tolist() == list(range(7, 16)) and set(found.n_tokens) == {4}


def test_shares_are_those_of_scikit_learn() -> None:
    dense = planted()
    rows = pca_explained(text_features(dense), DRAWS)
    expected = PCA(2).fit(text_features(dense).means.toarray()).explained_variance_ratio_
    assert [row.group for row in rows] == ["pc1", "pc2"]
    assert [row.value for row in rows] == pytest.approx(expected, rel=1e-6)
    assert all(row.ci_low < row.value < row.ci_high for row in rows)


def test_a_common_cause_passes_the_null_and_independent_features_do_not() -> None:
    first = pca_explained(text_features(planted()), DRAWS)[0]
    assert first.ci_low > first.null_high and first.null_p == pytest.approx(1 / 40)
    noise = np.maximum(np.random.default_rng(1).normal(size=(60, 20)), 0.0)
    assert pca_explained(text_features(noise), DRAWS)[0].null_p > 0.05


def test_constant_or_too_few_texts() -> None:
    assert pca_explained(text_features(planted(2)), DRAWS) == []
    assert [row.value for row in pca_explained(text_features(np.ones((5, 3))), DRAWS)] == [0.0, 0.0]
