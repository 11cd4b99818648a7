"""The simplest probe: the difference of two means as a direction, with a slope and an intercept by least squares."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from lfp.probes.exact_ridge import Ridge
from lfp.probes.folds import Split
from lfp.probes.ridge import FoldedRidge
from lfp.util.types import Flags, Floats, Ints


def fit_difference_in_means(
    features: sp.csr_array, targets: Floats, folds: Ints, *, n_folds: int, barred: Flags | None = None
) -> FoldedRidge:
    """Fit every target [rows, targets] on features [rows, columns], without the rows of each fold and with all.

    The direction is the mean of the rows whose target is above the mean target, minus the mean of the others. Its slope
    and intercept are those of least squares on the same rows. Source: "simple baselines" of AxBench, arXiv 2501.17148.
    """
    split = Split(folds, barred)
    by_fold = tuple(_fit(features, targets, split.fitted((fold,))) for fold in range(n_folds))
    return FoldedRidge(by_fold, _fit(features, targets, split.fitted(())))


def _fit(features: sp.csr_array, targets: Floats, seen: Ints) -> Ridge:
    rows, wanted = features[seen], targets[seen]
    centred = wanted - wanted.mean(axis=0)
    above = (centred > 0).astype(float)
    n_above = above.sum(axis=0)
    sides = above / np.maximum(1, n_above) - (1 - above) / np.maximum(1, len(seen) - n_above)
    directions = np.asarray(rows.T @ sides)
    projected = np.asarray(rows @ directions)
    middle = projected.mean(axis=0)
    variance = ((projected - middle) ** 2).mean(axis=0)
    covariance = ((projected - middle) * centred).mean(axis=0)
    slope = np.divide(covariance, variance, out=np.zeros_like(variance), where=variance > 0)
    return Ridge(directions * slope, wanted.mean(axis=0) - slope * middle, np.zeros(targets.shape[1]))
