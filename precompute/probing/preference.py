"""The preference probe: which of two texts was chosen, from the difference of their pooled inputs, and its figures.

Bradley and Terry (1952): the log-odds that a text is chosen over another are the difference of their scores, so that a
logistic regression on differences, without an intercept, gives a score that is linear in a text's inputs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp

from lfp.config import ProbesConfig
from lfp.evaluation.pairs import JudgedPairs, length_row, pair_difference_row, pair_rows
from lfp.evaluation.results import result
from lfp.probes.folds import row_folds
from lfp.probes.logistic import Logistic, fit_logistic
from lfp.probes.ridge import layer_scales
from lfp.probes.weight_intervals import clustered_intervals
from lfp.util.types import Floats, Ints
from precompute.probing.fitting import Probe, Weights
from precompute.probing.inputs import COMPARED, MODELS, OF_THE_BUNDLE, Inputs
from precompute.probing.kept import scaled_columns
from precompute.probing.pairs import Pairs

TARGET = "preference"


@dataclass(frozen=True)
class PairProbe:
    """A probe judged on held-out pairs: predicted chosen minus rejected [pairs], and the same by refitted nulls."""

    probe: Probe
    margins: Floats
    null_margins: Floats
    """[permutations, pairs], by probes of training preferences drawn at random."""


def fit_pairs(inputs: Inputs, pairs: Pairs, config: ProbesConfig, *, seed: int) -> PairProbe:
    """The probe of the training pairs, with as many nulls as `probes.weight_permutations`.

    Each training pair is turned round at random, so that neither side is always the first; the nulls' outcomes are
    drawn like this turning, apart from it.
    """
    differences = pairs.differences(inputs.name)
    train, held_out = np.flatnonzero(~pairs.is_held_out), np.flatnonzero(pairs.is_held_out)
    scales = layer_scales(differences[train], inputs.layer_of)
    turned = np.random.default_rng(seed).choice([-1.0, 1.0], size=(len(train), 1 + config.weight_permutations))
    features = scaled_columns(sp.csr_array(sp.diags_array(turned[:, 0]) @ differences[train]), scales)
    rows = _Rows(features, (turned > 0).astype(np.float64), row_folds(len(train), n_folds=config.folds, seed=seed))
    fit = rows.fit(rows.outcomes, config)
    margins = scaled_columns(differences[held_out], scales) @ fit.coef
    probe = Probe(
        target=TARGET,
        inputs=inputs.name,
        kind="logistic",
        pooling=config.pooling,
        alpha=float(fit.alpha[0]),
        intercept=0.0,
        weights=_weights(inputs, rows, fit, scales, config),
        n_train=len(train),
    )
    return PairProbe(probe, margins[:, 0], margins[:, 1:].T)


def preference_rows(
    probes: Mapping[str, PairProbe],
    ids: Mapping[tuple[str, str], int],
    pairs: Pairs,
    config: ProbesConfig,
    *,
    seed: int,
) -> list[dict[str, Any]]:
    """Row `preference_accuracy`: every probe, tuned minus base, length alone, and the implicit reward with no probe."""
    judged = JudgedPairs.of(pairs.length[pairs.is_held_out], config, seed=seed)
    rows: list[dict[str, Any]] = []
    for inputs, one in probes.items():
        keys = _keys(TARGET, inputs) | {"probe_id": ids[TARGET, inputs]}
        rows += pair_rows(judged, one.margins, one.null_margins, log_odds=True, **keys)
    for tuned, base in COMPARED.items():
        ours, theirs = probes[tuned], probes[base]
        keys = _keys(TARGET, tuned) | {"model": "difference"}
        nulls = ours.null_margins, theirs.null_margins
        rows.append(pair_difference_row(judged, ours.margins, theirs.margins, nulls=nulls, **keys))
    measured = pairs.implicit_reward[pairs.is_held_out]
    rows += pair_rows(judged, measured, None, log_odds=False, model="difference", target="implicit_reward")
    rows.append(length_row(judged, target=TARGET))
    return [*rows, result("preference_accuracy", "pairs_cut_off", pairs.n_cut_off, target=TARGET, n=len(pairs.length))]


@dataclass(frozen=True)
class _Rows:
    """Training pairs: scaled differences [pairs, columns], outcomes [pairs, 1 + nulls] of 0 and 1, folds [pairs]."""

    features: sp.csr_array
    outcomes: Floats
    folds: Ints

    def fit(self, outcomes: Floats, config: ProbesConfig) -> Logistic:
        """Fits outcomes [pairs, targets]."""
        n_folds, alphas = config.folds, config.alphas
        return fit_logistic(self.features, outcomes, self.folds, n_folds=n_folds, alphas=alphas, intercept=False)


def _weights(inputs: Inputs, rows: _Rows, fit: Logistic, scales: Floats, config: ProbesConfig) -> Weights:
    """The weights in units of the pooled inputs; with their noise where they are the bundle's.

    Intervals are over pairs; the null has the probe's own alpha, as of the other probes.
    """
    value = fit.coef[:, 0] * scales
    if inputs.name not in OF_THE_BUNDLE:
        return Weights(value)
    pair_of = np.arange(len(rows.folds))
    low, high = clustered_intervals(rows.features, rows.outcomes[:, 0], pair_of, fit, intercept=False)
    nulls = rows.fit(rows.outcomes[:, 1:], config.model_copy(update={"alphas": (float(fit.alpha[0]),)}))
    null_high = np.quantile(np.abs(nulls.coef), 0.95, axis=1)
    return Weights(value, low * scales, high * scales, null_high * scales)


def _keys(target: str, inputs: str) -> dict[str, Any]:
    return {"model": MODELS[inputs], "target": target, "inputs": inputs, "split": "held_out_pairs"}
