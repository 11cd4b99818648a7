"""Fit a probe of a target on a kind of inputs, predict words out of fold, and estimate the noise of weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import numpy as np
import scipy.sparse as sp

from lfp.config import ProbesConfig
from lfp.evaluation.words import HeldOutTokens
from lfp.probes.difference_in_means import fit_difference_in_means
from lfp.probes.exact_ridge import Ridge
from lfp.probes.folds import HeldOutErrors, Penalties, Split
from lfp.probes.ridge import FoldedRidge, fit_folded_ridge, fit_ridge, folded_errors, place_scales
from lfp.probes.weight_intervals import clustered_intervals
from lfp.probes.weight_nulls import WeightNull
from lfp.util.types import Floats, Ints
from precompute.run.executor import IN_PROCESS, InThreads, OneThread, ShardFunction, Shelf, Task, map_in_order
from precompute.run.work_folder import Run
from precompute.stages.probes.inputs import DIFFERENCE_IN_MEANS, OF_THE_BUNDLE, Inputs, scaled_columns
from precompute.stages.probes.targets import POOLING, Rows

_Subject = TypeVar("_Subject")
_Fit = TypeVar("_Fit")


@dataclass(frozen=True)
class Weights:
    """A probe's weights per unit of unscaled input [columns], and their noise.

    `ci_low` and `ci_high` are a 95 % interval, `drawn` [columns, shuffles] the weights of shuffled targets at the
    probe's alpha, and `null` what they say; None where they are not computed.
    """

    value: Floats
    ci_low: Floats | None = None
    ci_high: Floats | None = None
    null: WeightNull | None = None
    drawn: Floats | None = None

    @staticmethod
    def with_noise(value: Floats, interval: tuple[Floats, Floats], drawn: Floats) -> Weights:
        """Compare weights with those of shuffled targets, `drawn` [columns, shuffles]."""
        return Weights(value, *interval, WeightNull.from_weights(value, drawn), drawn)

    @staticmethod
    def of_silence(value: Floats, n_shuffles: int) -> Weights:
        """Return the weights of a probe that has nothing to fit; all are 0."""
        return Weights(value, value, value, WeightNull.of_none(len(value)), np.zeros((len(value), n_shuffles)))


@dataclass(frozen=True)
class Probe:
    """A fitted probe: what predicts which target from which inputs, and how."""

    target: str
    inputs: str
    kind: str
    pooling: str
    alpha: float
    intercept: float
    weights: Weights
    n_train: int


@dataclass(frozen=True)
class WordProbe:
    """A probe and its predictions of words, out of fold.

    `predicted` is [words]; `nulls` [permutations, scored words] are by probes of shuffled lexicons, each with its own
    choice of alpha; None where the target does not depend on the lexicon. `tokens` are the rows of held-out words.
    """

    probe: Probe
    predicted: Floats
    nulls: Floats | None
    tokens: HeldOutTokens


@dataclass(frozen=True)
class Judged:
    """Words to predict: mean inputs [words, columns], tokens that those are summed over, and folds, both [words]."""

    features: sp.csr_array
    tokens: Floats
    folds: Ints


def fit_words(
    target: str,
    inputs: Inputs,
    rows: Rows,
    judged: Judged,
    *,
    scored: Ints,
    config: ProbesConfig,
    alphas: Penalties | None = None,
) -> WordProbe:
    """Fit a probe to `rows` and predict each word by the ridge that never saw it; nulls only the `scored` words.

    Without `alphas` the probe chooses its own.
    """
    fit, scales = _fit(inputs, rows, config, alphas)
    probe = Probe(
        target=target,
        inputs=inputs.name,
        kind=DIFFERENCE_IN_MEANS if inputs.name == DIFFERENCE_IN_MEANS else "ridge",
        pooling=POOLING[target],
        alpha=float(fit.whole.alpha[0]),
        intercept=float(fit.whole.intercept[0]),
        weights=_build_weights(inputs, rows, fit.whole, scales, config),
        n_train=len(rows.targets),
    )
    nulls = None
    if rows.targets.shape[1] > 1:
        of_scored = Judged(judged.features[scored], judged.tokens[scored], judged.folds[scored])
        nulls = _predict(fit, of_scored, slice(1, None)).T
    return WordProbe(probe, _predict(fit, judged, slice(1))[:, 0], nulls, _hold_out(fit, rows))


def predict_words(
    inputs: Inputs, rows: Rows, judged: Judged, *, config: ProbesConfig, alphas: Penalties | None
) -> Floats:
    """Return what `fit_words` predicts of each word [words], and nothing else of it."""
    fit, _ = _fit(inputs, rows, config, alphas)
    return _predict(fit, judged, slice(1))[:, 0]


def _hold_out(fit: FoldedRidge, rows: Rows) -> HeldOutTokens:
    """Predict the rows of words by the ridges that never saw the word."""
    kept = np.flatnonzero(rows.words >= 0)
    predicted = np.empty(len(kept))
    for fold, ridge in enumerate(fit.by_fold):
        in_fold = np.flatnonzero(rows.folds[kept] == fold)
        predicted[in_fold] = rows.features[kept[in_fold]] @ ridge.coef[:, 0] + ridge.intercept[0]
    return HeldOutTokens(rows.targets[kept, 0], predicted, rows.words[kept])


def measure_errors(inputs: Inputs, rows: Rows, config: ProbesConfig) -> HeldOutErrors | None:
    """Compute the errors that choose a probe's alphas; None where there is nothing to fit or to choose."""
    if is_silent(rows) or len(config.alphas) == 1:
        return None
    scaled, _ = _scale(inputs, rows)
    return folded_errors(
        scaled, rows.targets, rows.folds, n_folds=config.folds, alphas=config.alphas, barred=rows.barred
    )


def fit_rows(
    inputs: Inputs, rows: Rows, judged: Judged, config: ProbesConfig, *, alphas: Penalties | None = None
) -> Floats:
    """Return the mean prediction [words, 1 + nulls] of each word's rows times its tokens; NaN for words without a row.

    A row is predicted by the ridge that never saw it.
    """
    n_words, folds = len(judged.folds), rows.folds
    fit, _ = _fit(inputs, rows, config, alphas)
    n = np.bincount(rows.words[rows.words >= 0], minlength=n_words)
    predicted = np.where(n[:, None] > 0, np.zeros((n_words, rows.targets.shape[1])), np.nan)
    for fold, ridge in enumerate(fit.by_fold):
        in_fold = np.flatnonzero((folds == fold) & (rows.words >= 0))
        of = rows.words[in_fold]
        averaging = sp.csr_array((1.0 / n[of], (of, np.arange(len(of)))), shape=(n_words, len(of)))
        held_out = np.bincount(of, 1.0 / n[of], minlength=n_words)
        predicted += (averaging @ rows.features[in_fold]) @ ridge.coef + held_out[:, None] * ridge.intercept
    return predicted * judged.tokens[:, None]


def _fit(inputs: Inputs, rows: Rows, config: ProbesConfig, alphas: Penalties | None) -> tuple[FoldedRidge, Floats]:
    """Fit ridges to rows whose places have unit mean square norm; return them in units of unscaled inputs, and scales.

    A column that is zero on every row, as most token ids are, has weight 0 and does not reach the solver.
    """
    scales = place_scales(rows.features, inputs.place_of)
    if is_silent(rows):
        return _fit_means(rows, len(scales), config), scales
    scaled, used = _scale(inputs, rows)
    if inputs.name == DIFFERENCE_IN_MEANS:
        fit = fit_difference_in_means(scaled, rows.targets, rows.folds, n_folds=config.folds, barred=rows.barred)
    else:
        fit = fit_folded_ridge(
            scaled, rows.targets, rows.folds, n_folds=config.folds, alphas=alphas or config.alphas, barred=rows.barred
        )

    def spread(ridge: Ridge) -> Ridge:
        """Turn a ridge of the used, scaled columns into a ridge of all unscaled columns."""
        coef = np.zeros((len(scales), ridge.coef.shape[1]))
        coef[used] = ridge.coef * scales[used, None]
        return Ridge(coef, ridge.intercept, ridge.alpha)

    return FoldedRidge(tuple(map(spread, fit.by_fold)), spread(fit.whole)), scales


def _scale(inputs: Inputs, rows: Rows) -> tuple[sp.csr_array, Ints]:
    """Return the columns that are ever active, scaled, and their numbers."""
    scales = place_scales(rows.features, inputs.place_of)
    used = np.flatnonzero(np.bincount(rows.features.indices, minlength=len(scales)))
    return scaled_columns(rows.features, scales)[:, used], used


def is_silent(rows: Rows) -> bool:
    """Whether there is nothing to fit: a dictionary of which no feature is ever active, or none ever changes."""
    return rows.features.nnz == 0 or rows.is_silent


def _fit_means(rows: Rows, n_columns: int, config: ProbesConfig) -> FoldedRidge:
    """Fit probes without weights: each predicts the mean of the rows that it saw."""

    def of_rows(seen: Ints) -> Ridge:
        n_targets = rows.targets.shape[1]
        strongest = np.full(n_targets, max(config.alphas))
        return Ridge(np.zeros((n_columns, n_targets)), rows.targets[seen].mean(axis=0), strongest)

    split = Split(rows.folds, rows.barred)
    return FoldedRidge(tuple(of_rows(split.fitted((fold,))) for fold in range(config.folds)), of_rows(split.fitted(())))


def _predict(fit: FoldedRidge, judged: Judged, targets: slice) -> Floats:
    """Predict each word [words, targets] by the ridge of the fold that it is held out in."""
    predicted = np.empty((len(judged.folds), len(fit.whole.alpha[targets])))
    for fold, whole in enumerate(fit.by_fold):
        rows, coef = np.flatnonzero(judged.folds == fold), whole.coef[:, targets]
        predicted[rows] = judged.features[rows] @ coef + judged.tokens[rows, None] * whole.intercept[targets]
    return predicted


def _build_weights(inputs: Inputs, rows: Rows, ridge: Ridge, scales: Floats, config: ProbesConfig) -> Weights:
    """Return the weights of a ridge's first target, in units of the inputs, with noise if the bundle has them.

    The null keeps the ridge's alpha: without a signal a far larger alpha would be chosen, and all weights would vanish.
    """
    value = ridge.coef[:, 0]
    if inputs.name not in OF_THE_BUNDLE:
        return Weights(value)
    if is_silent(rows):
        return Weights.of_silence(value, rows.weight_nulls.shape[1])
    scaled = scaled_columns(rows.features, scales)
    in_fit = replace(ridge, coef=ridge.coef[:, :1] / scales[:, None])
    low, high = clustered_intervals(scaled, rows.targets[:, 0], rows.groups, in_fit)
    nulls = fit_ridge(scaled, rows.weight_nulls, rows.folds, n_folds=config.folds, alphas=(float(ridge.alpha[0]),))
    return Weights.with_noise(value, (low * scales, high * scales), nulls.coef * scales[:, None])


def map_fits(
    run: Run,
    fit: ShardFunction[_Subject, _Fit],
    subjects: Sequence[_Subject],
    *,
    what: str,
    shelf: Shelf,
    sizes: Sequence[int] | None = None,
) -> list[_Fit]:
    """Fit each subject, such as a kind of inputs, in threads of the run or by the workers of a cluster.

    `fit` is pickled for workers, so what it holds of a run is `Run.for_worker`. `sizes` [subjects] are the fits that it
    reports of each, one where they are not given. Subjects are independent, and results do not depend on who fits them.
    """
    of_worker = OneThread(fit)
    task = Task(what, sizes or [1] * len(subjects), partial(_itself, of_worker), shelf, run.progress)
    if run.executor is IN_PROCESS:
        return map_in_order(InThreads(run.config.threads), fit, subjects, task)
    return map_in_order(run.executor, of_worker, subjects, task)


def _itself(function: ShardFunction[_Subject, _Fit]) -> ShardFunction[_Subject, _Fit]:
    return function
