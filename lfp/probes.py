"""Linear probes on sparse features, every word out of fold: the front of their fits, folds and intervals."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from lfp.estimators import LogisticProbe, RidgeProbe
from lfp.folds import group_folds, row_folds, word_folds
from lfp.intervals import clustered_intervals
from lfp.logistic import FoldedLogistic, Logistic, fit_folded_logistic, fit_logistic
from lfp.ridge import FoldedRidge, fit_folded_ridge, fit_ridge
from lfp.solvers.normal_equations import Ridge
from lfp.util.types import Floats, Ints

__all__ = [
    "FoldedLogistic",
    "FoldedRidge",
    "Logistic",
    "LogisticProbe",
    "Ridge",
    "RidgeProbe",
    "clustered_intervals",
    "fit_folded_logistic",
    "fit_folded_ridge",
    "fit_logistic",
    "fit_ridge",
    "group_folds",
    "layer_scales",
    "row_folds",
    "word_folds",
]


def layer_scales(features: sp.csr_array, layer_of: Ints) -> Floats:
    """The factor of each feature [features] that gives its layer's block unit mean square norm over rows."""
    squares = np.asarray(features.multiply(features).sum(axis=0)).ravel() / max(1, features.shape[0])
    of_layer = np.bincount(layer_of, squares)
    return 1.0 / np.sqrt(np.maximum(of_layer, 1e-30))[layer_of]
