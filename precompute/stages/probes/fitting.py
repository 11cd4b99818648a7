"""Fits: one probe of a target on one kind of inputs, its words' predictions out of fold, and its weights' noise."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse as sp

from lfp.config import ProbesConfig
from lfp.probes.folds import row_folds
from lfp.probes.ridge import FoldedRidge, fit_folded_ridge, fit_ridge, layer_scales
from lfp.probes.solvers.normal_equations import Ridge
from lfp.probes.weight_intervals import clustered_intervals
from lfp.util.types import Floats, Ints
from precompute.stages.probes.inputs import OF_THE_BUNDLE, Inputs, WordFeatures, scaled_columns
from precompute.stages.probes.targets import POOLING, Rows


@dataclass(frozen=True)
class Weights:
    """A probe's weights a unit of unscaled input [columns], and what is known of their noise.

    `ci_low` and `ci_high` are a 95 % interval, `null_high` the 95th percentile of |weight| over shuffled targets; None
    where nobody asks.
    """

    value: Floats
    ci_low: Floats | None = None
    ci_high: Floats | None = None
    null_high: Floats | None = None


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
    """A probe judged on words: what it predicts of each, out of fold.

    `predicted` is [words]; `nulls` [permutations, scored words] are by probes of shuffled lexicons, each with its own
    choice of alpha; None where the target knows no lexicon.
    """

    probe: Probe
    predicted: Floats
    nulls: Floats | None


@dataclass(frozen=True)
class Judged:
    """Words to predict: their mean inputs [words, columns], how many tokens those are summed over, their folds."""

    features: sp.csr_array
    tokens: Floats
    folds: Ints

    @staticmethod
    def of(target: str, words: WordFeatures, folds: Ints) -> Judged:
        """Words as the target takes them: at their last token, or for the implicit reward summed over their tokens."""
        if POOLING[target] == "last":
            return Judged(words.at_last, np.ones(len(folds)), folds)
        return Judged(words.over_tokens, words.tokens, folds)

    def some(self, rows: Ints) -> Judged:
        """Those words, in that order."""
        return Judged(self.features[rows], self.tokens[rows], self.folds[rows])


def fit_words(
    target: str, inputs: Inputs, rows: Rows, judged: Judged, *, scored: Ints, config: ProbesConfig
) -> WordProbe:
    """The probe of `rows`, each word predicted by the ridge that never saw it; `scored` are the words nulls are for."""
    fit, scales = _fit(inputs, rows, config)
    probe = Probe(
        target=target,
        inputs=inputs.name,
        kind="ridge",
        pooling=POOLING[target],
        alpha=float(fit.whole.alpha[0]),
        intercept=float(fit.whole.intercept[0]),
        weights=_weights(inputs, rows, _columns(fit.whole, slice(1)), scales, config),
        n_train=len(rows.targets),
    )
    nulls = _predicted(fit, judged.some(scored), slice(1, None)).T if rows.targets.shape[1] > 1 else None
    return WordProbe(probe, _predicted(fit, judged, slice(1))[:, 0], nulls)


def fit_random_rows(inputs: Inputs, rows: Rows, judged: Judged, config: ProbesConfig, *, seed: int) -> Floats:
    """What `fit_rows` gives under the paper's split: rows, not words, are held out, so that a word is on both sides."""
    folds = row_folds(len(rows.words), n_folds=config.folds, seed=seed)
    return fit_rows(inputs, replace(rows, folds=folds), judged, config)


def fit_rows(inputs: Inputs, rows: Rows, judged: Judged, config: ProbesConfig) -> Floats:
    """The mean prediction [words, 1 + nulls] of each word's rows times its tokens; NaN where the word has no row.

    A row is predicted by the ridge that never saw it.
    """
    n_words, folds = len(judged.folds), rows.folds
    fit, _ = _fit(inputs, rows, config)
    n = np.bincount(rows.words[rows.words >= 0], minlength=n_words)
    predicted = np.where(n[:, None] > 0, np.zeros((n_words, rows.targets.shape[1])), np.nan)
    for fold, ridge in enumerate(fit.by_fold):
        mine = np.flatnonzero((folds == fold) & (rows.words >= 0))
        of = rows.words[mine]
        averaging = sp.csr_array((1.0 / n[of], (of, np.arange(len(mine)))), shape=(n_words, len(mine)))
        held_out = np.bincount(of, 1.0 / n[of], minlength=n_words)
        predicted += (averaging @ rows.features[mine]) @ ridge.coef + held_out[:, None] * ridge.intercept
    return predicted * judged.tokens[:, None]


def _fit(inputs: Inputs, rows: Rows, config: ProbesConfig) -> tuple[FoldedRidge, Floats]:
    """The ridges of rows whose layers have unit mean square norm, in units of the inputs as they are, and the scales.

    A column that is zero on every row has weight 0 and is spared the solver: most token ids are, most of the time.
    """
    scales = layer_scales(rows.features, inputs.layer_of)
    used = np.flatnonzero(np.bincount(rows.features.indices, minlength=len(scales)))
    scaled = scaled_columns(rows.features, scales)[:, used]
    fit = fit_folded_ridge(scaled, rows.targets, rows.folds, n_folds=config.folds, alphas=config.alphas)
    return FoldedRidge(
        tuple(_spread(one, used, scales) for one in fit.by_fold), _spread(fit.whole, used, scales)
    ), scales


def _spread(ridge: Ridge, used: Ints, scales: Floats) -> Ridge:
    """The ridge of the used columns, scaled, as one of all columns as they are."""
    coef = np.zeros((len(scales), ridge.coef.shape[1]))
    coef[used] = ridge.coef * scales[used, None]
    return Ridge(coef, ridge.intercept, ridge.alpha)


def _predicted(fit: FoldedRidge, judged: Judged, targets: slice) -> Floats:
    """Each word's prediction [words, targets] by the ridge of the fold it is held out in."""
    predicted = np.empty((len(judged.folds), len(fit.whole.alpha[targets])))
    for fold, whole in enumerate(fit.by_fold):
        ridge, rows = _columns(whole, targets), np.flatnonzero(judged.folds == fold)
        predicted[rows] = judged.features[rows] @ ridge.coef + judged.tokens[rows, None] * ridge.intercept
    return predicted


def _weights(inputs: Inputs, rows: Rows, ridge: Ridge, scales: Floats, config: ProbesConfig) -> Weights:
    """The weights of a ridge of one target, in units of the inputs; with their noise where they are the bundle's.

    The null has the ridge's own alpha: nothing to learn would choose a far larger one, under which all weights vanish.
    """
    value = ridge.coef[:, 0]
    if inputs.name not in OF_THE_BUNDLE:
        return Weights(value)
    scaled = scaled_columns(rows.features, scales)
    in_fit = replace(ridge, coef=ridge.coef / scales[:, None])
    low, high = clustered_intervals(scaled, rows.targets[:, 0], rows.groups, in_fit)
    nulls = fit_ridge(scaled, rows.weight_nulls, rows.folds, n_folds=config.folds, alphas=(float(ridge.alpha[0]),))
    null_high = np.quantile(np.abs(nulls.coef), 0.95, axis=1)
    return Weights(value, low * scales, high * scales, null_high * scales)


def _columns(ridge: Ridge, targets: slice) -> Ridge:
    return Ridge(ridge.coef[:, targets], ridge.intercept[targets], ridge.alpha[targets])
