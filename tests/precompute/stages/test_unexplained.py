"""Features that carry unexplained pay: the ridge against scikit-learn's, a planted word found, nulls without it."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.linear_model import Ridge

from lfp.config import ProbesConfig
from lfp.probes.ridge import place_scales
from precompute.stages.probes.targets import Words
from precompute.stages.probes.word_gaps import Unexplained, fit_unexplained

N_WORDS, N_FEATURES, N_ROWS = 40, 60, 3000
CONFIG = ProbesConfig(folds=3, weight_permutations=20)
PLACE_OF = np.arange(N_FEATURES) % 2


def tokens(seed: int = 0) -> tuple[sp.csr_array, np.ndarray, Words]:
    """Feature i < 40 fires on word i alone, the others anywhere; a tenth of the tokens are of no word."""
    rng = np.random.default_rng(seed)
    of = rng.integers(N_WORDS, size=N_ROWS)
    dense = np.where(rng.random((N_ROWS, N_FEATURES)) < 0.05, rng.random((N_ROWS, N_FEATURES)), 0.0)
    dense[np.arange(N_ROWS), of] += rng.uniform(0.5, 1.5, size=N_ROWS)
    of[: N_ROWS // 10] = -1
    words = [f"w{i}" for i in range(N_WORDS)]
    counts = np.bincount(of[of >= 0], minlength=N_WORDS)
    return sp.csr_array(dense), of, Words(words, counts, np.arange(N_WORDS) % 3, np.zeros(N_WORDS), {})


def fitted(excess: np.ndarray, seed: int = 0) -> Unexplained:
    sample, of, words = tokens(seed)
    return fit_unexplained(sample, of, PLACE_OF, words, excess, CONFIG, seed=seed)


@pytest.mark.parametrize("pay", [2.0, -2.0])
def test_the_feature_of_the_word_that_is_paid_otherwise_carries_it(pay: float) -> None:
    excess = np.zeros(N_WORDS)
    excess[17] = pay
    found = fitted(excess)
    assert np.argmax(np.abs(found.contribution)) == 17
    assert np.sign(found.contribution[17]) == np.sign(pay)
    assert found.nulls.shape == (20, N_FEATURES)
    elsewhere = np.argmax(np.abs(found.nulls), axis=1)
    assert len(set(elsewhere.tolist())) > 5  # another word is paid in each deal


def test_it_is_scikit_learns_ridge() -> None:
    excess = np.random.default_rng(1).normal(size=N_WORDS)
    excess[3] = np.nan
    sample, of, _ = tokens()
    dense = sample.toarray() * place_scales(sample, PLACE_OF)
    target = np.where(of >= 0, np.nan_to_num(excess)[of], 0.0)
    ridge = Ridge(alpha=N_ROWS / 150).fit(dense, target)
    np.testing.assert_allclose(fitted(excess).contribution, ridge.coef_ * dense.mean(axis=0), atol=1e-6)


def test_no_excess_is_carried_by_nothing() -> None:
    found = fitted(np.zeros(N_WORDS))
    assert not found.contribution.any() and not found.nulls.any()
    assert not fitted(np.full(N_WORDS, np.nan)).contribution.any()
