"""Folds: which rows are held out together, drawn by a seed, and the checks that every fit of probes starts with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike

from lfp.errors import DataError
from lfp.util.types import Floats, Ints


def row_folds(n_rows: int, *, n_folds: int, seed: int) -> Ints:
    """A fold for every row [rows], of even sizes, drawn by the seed whatever the rows' words are."""
    return np.random.default_rng(seed).permutation(n_rows) % n_folds


def group_folds(groups: ArrayLike, *, n_folds: int, seed: int) -> Ints:
    """A fold for every row [rows], the same for all rows of a group (a word, a pair); groups are dealt evenly.

    Raises DataError where there are fewer groups than folds.
    """
    names, group_of = np.unique(np.asarray(groups), return_inverse=True)
    if len(names) < n_folds:
        raise DataError(
            f"{len(names)} words or pairs cannot fill {n_folds} folds, so a fold would hold out none; "
            "pass more texts or lower probes.folds"
        )
    return row_folds(len(names), n_folds=n_folds, seed=seed)[group_of]


def check_fit(features: sp.csr_array, targets: Floats, folds: Ints, n_folds: int) -> None:
    """Raises DataError on what no probe can be fitted to: an empty fold, a constant target, a value not finite."""
    if n_folds < 3:
        raise DataError(f"{n_folds} folds leave none to choose alpha on; set probes.folds to 3 or more")
    if not features.shape[0] == len(targets) == len(folds):
        raise DataError(
            f"{features.shape[0]} rows of features, {len(targets)} of targets and {len(folds)} of folds: "
            "pass one of each a row"
        )
    sizes = np.bincount(folds, minlength=n_folds)
    if len(sizes) > n_folds:
        raise DataError(
            f"row {int(folds.argmax())} is in fold {folds.max()}, but the last of {n_folds} is {n_folds - 1}"
        )
    if (sizes == 0).any():
        raise DataError(
            f"fold {int(sizes.argmin())} of {n_folds} has no row, so no word of it is held out: too few words; "
            "pass more texts or lower probes.folds"
        )
    _check_numbers(features, targets)


def check_alphas(alphas: Sequence[float]) -> None:
    """Raises DataError where there is no penalty to choose, or one that is not above 0."""
    if not len(alphas) or not min(alphas) > 0:
        raise DataError(f"alphas {list(alphas)} must be one or more numbers above 0; set probes.alphas")


def _check_numbers(features: sp.csr_array, targets: Floats) -> None:
    wrong = np.flatnonzero(~np.isfinite(features.data))
    if wrong.size:
        row = int(np.searchsorted(features.indptr, wrong[0], side="right")) - 1
        raise DataError(
            f"feature {features.indices[wrong[0]]} of row {row} is not a finite number; check the activations"
        )
    rows, columns = np.nonzero(~np.isfinite(targets))
    if rows.size:
        raise DataError(
            f"the feedback of row {rows[0]} ({_target(targets, columns[0])}) is not a finite number; check the reward"
        )
    constant = np.flatnonzero(np.ptp(targets, axis=0) == 0)
    if constant.size:
        raise DataError(
            f"the feedback ({_target(targets, constant[0])}) is the same on every row, {targets[0, constant[0]]:g}, "
            "so there is nothing to predict; check the reward"
        )


def _target(targets: Floats, column: Any) -> str:
    return f"target {column} of {targets.shape[1]}, counted from 0"
