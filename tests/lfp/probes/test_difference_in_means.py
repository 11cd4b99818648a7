"""The difference of two means as a probe: its direction, its slope, and what each fold has not seen."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from lfp.probes.difference_in_means import fit_difference_in_means

RNG = np.random.default_rng(0)
FEATURES = RNG.normal(size=(120, 5))
TARGETS = np.stack([FEATURES @ [1.0, 2, 0, 0, 0] + RNG.normal(size=120), RNG.normal(size=120)], axis=1)
FOLDS = np.arange(120) % 3


def direct(seen: np.ndarray, target: int) -> tuple[np.ndarray, float]:
    """The same by numpy, on the rows seen."""
    x, y = FEATURES[seen], TARGETS[seen, target]
    above = y > y.mean()
    direction = x[above].mean(0) - x[~above].mean(0)
    slope, intercept = np.polyfit(x @ direction, y, 1)
    return slope * direction, intercept


def test_every_fold_is_the_difference_of_the_means_that_it_saw() -> None:
    fit = fit_difference_in_means(sp.csr_array(FEATURES), TARGETS, FOLDS, n_folds=3)
    for ridge, seen in [(fit.whole, FOLDS >= 0), *((fit.by_fold[fold], fold != FOLDS) for fold in range(3))]:
        for target in range(2):
            coef, intercept = direct(seen, target)
            np.testing.assert_allclose(ridge.coef[:, target], coef, atol=1e-10)
            np.testing.assert_allclose(ridge.intercept[target], intercept, atol=1e-10)


def test_a_target_that_never_changes_has_no_slope() -> None:
    fit = fit_difference_in_means(sp.csr_array(FEATURES), np.ones((120, 1)), FOLDS, n_folds=3)
    assert not fit.whole.coef.any() and fit.whole.intercept.tolist() == [1.0]
