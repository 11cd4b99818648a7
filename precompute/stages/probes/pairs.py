"""Preference pairs: pooled inputs of every kind and the implicit reward of both texts; the probe of preferences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from lfp.config import ProbesConfig
from lfp.errors import DataError
from lfp.evaluation.pairs import JudgedPairs, length_row, pair_difference_row, pair_rows
from lfp.evaluation.results import ResultRow
from lfp.probes.folds import row_folds
from lfp.probes.logistic import Logistic, fit_logistic, logistic_errors
from lfp.probes.ridge import place_scales
from lfp.probes.weight_intervals import clustered_intervals
from lfp.util.types import Floats, Ints
from precompute.run.executor import Shelf
from precompute.run.inputs import load_pair, mark_responses, read_texts, tokenize_texts
from precompute.run.work_folder import Run
from precompute.stages.probes.fitting import Probe, Weights
from precompute.stages.probes.inputs import (
    COMPARED,
    DIFFERENCE_IN_MEANS,
    OF_THE_BUNDLE,
    Inputs,
    probe_keys,
    scaled_columns,
)
from precompute.stages.probes.pooled_texts import PoolWorker, pool_texts


@dataclass(frozen=True)
class Pairs:
    """Pairs whose two texts differ within the context, [pairs].

    `features` by kind of inputs are [2 pairs, columns], pooled over a text's tokens: chosen texts, then rejected texts
    in the same order. `implicit_reward` is a pair's summed r_t over the response's tokens (over all tokens where there
    is no prompt), chosen minus rejected, and `length` the number of those tokens, also chosen minus rejected.
    Pairs of one `conversation` open alike.
    `n_cut_off` pairs were left out because the context ends before their texts differ.
    """

    is_held_out: NDArray[np.bool_]
    features: Mapping[str, sp.csr_array]
    implicit_reward: Floats
    length: Floats
    n_cut_off: int
    conversation: Ints

    def differences(self, inputs: str) -> sp.csr_array:
        """Return pooled inputs [pairs, columns] of the chosen text minus those of the rejected text."""
        n, features = len(self.length), self.features[inputs]
        return sp.csr_array(features[:n] - features[n:])


def collect_pairs(run: Run, inputs: Sequence[Inputs], scratch: Path | None = None) -> Pairs:
    """Run both models over the texts of all pairs. Raises DataError where a split has too few pairs.

    `scratch` is the folder that keeps what workers of a cluster did.
    """
    base, tuned = load_pair(run)
    texts = sorted(read_texts(run), key=lambda text: (text.role, text.pair_id))  # chosen sorts before rejected
    tokenized = tokenize_texts(run, tuned, texts)
    half = len(texts) // 2
    differs = [tokenized[i].token_ids != tokenized[half + i].token_ids for i in range(half)]
    kept = [i for side in (0, half) for i, is_other in enumerate(differs, start=side) if is_other]
    texts, tokenized = [texts[i] for i in kept], [tokenized[i] for i in kept]
    held_out = np.array([text.split == "held_out" for text in texts[: len(texts) // 2]], bool)
    n_train, n_held_out, n_folds = int((~held_out).sum()), int(held_out.sum()), run.config.probes.folds
    if n_train < n_folds or n_held_out < 2:
        raise DataError(
            f"{n_train} pairs to fit a preference probe on and {n_held_out} held out differ within the context;"
            f" at least {n_folds} and 2 are needed, so pass more pairs, raise model.context or change"
            " corpus.held_out_share"
        )
    worker, n = PoolWorker(run, (tuned, base), inputs), len(held_out)
    pooled = pool_texts(worker, tokenized, mark_responses(texts, tokenized), Shelf(scratch, "pairs"))
    conversations = [text.pair_id if text.conversation is None else text.conversation for text in texts[:n]]
    return Pairs(
        is_held_out=held_out,
        features=pooled.features,
        implicit_reward=pooled.reward[:n] - pooled.reward[n:],
        length=pooled.length[:n] - pooled.length[n:],
        n_cut_off=half - n,
        conversation=np.array(conversations, np.int64),
    )


PREFERENCE = "preference"
"""Target of the probes of pairs."""


@dataclass(frozen=True)
class PairProbe:
    """A probe and its predictions of held-out pairs, chosen minus rejected [pairs], and those of refitted nulls."""

    probe: Probe
    margins: Floats
    null_margins: Floats
    """[permutations, pairs], by probes of training preferences drawn at random."""


@dataclass(frozen=True)
class _Training:
    """Training pairs, each turned at random: features [pairs, columns] scaled, outcomes [pairs, 1 + nulls], folds."""

    features: sp.csr_array
    scales: Floats
    outcomes: Floats
    folds: Ints

    @staticmethod
    def draw(inputs: Inputs, pairs: Pairs, config: ProbesConfig, *, seed: int) -> _Training:
        """Swap the sides of each pair at random, and draw the outcomes of the nulls in the same way."""
        differences = pairs.differences(inputs.key)[np.flatnonzero(~pairs.is_held_out)]
        n, scales = differences.shape[0], place_scales(differences, inputs.place_of)
        turned = np.random.default_rng(seed).choice([-1.0, 1.0], size=(n, 1 + config.weight_permutations))
        features = scaled_columns(sp.csr_array(sp.diags_array(turned[:, 0]) @ differences), scales)
        folds = row_folds(n, n_folds=config.folds, seed=seed)
        return _Training(features, scales, (turned > 0).astype(np.float64), folds)


def measure_pair_errors(inputs: Inputs, pairs: Pairs, config: ProbesConfig, *, seed: int) -> Floats:
    """Compute the loss of held-out training pairs [alphas, 1 + nulls], by which alphas are chosen."""
    train = _Training.draw(inputs, pairs, config, seed=seed)
    return logistic_errors(
        train.features, train.outcomes, train.folds, n_folds=config.folds, alphas=config.alphas, intercept=False
    )


def fit_pairs(
    inputs: Inputs, pairs: Pairs, config: ProbesConfig, *, seed: int, alphas: Floats | None = None
) -> PairProbe:
    """Fit the probe of the training pairs, with as many nulls as `probes.weight_permutations`.

    The sides of each training pair are swapped at random, so that neither side is always the first; the outcomes of
    the nulls are drawn in the same way, independently. Without `alphas` [1 + nulls] each target chooses its own.
    """
    train, held_out = _Training.draw(inputs, pairs, config, seed=seed), np.flatnonzero(pairs.is_held_out)
    features, scales, outcomes, folds = train.features, train.scales, train.outcomes, train.folds
    if inputs.name == DIFFERENCE_IN_MEANS:
        coef, none = np.asarray(features.T @ np.sign(outcomes - 0.5)) / max(1, len(folds)), np.zeros(outcomes.shape[1])
        fit = Logistic(coef, none, none)
    else:
        fit = fit_logistic(
            features, outcomes, folds, n_folds=config.folds, alphas=config.alphas, intercept=False, chosen=alphas
        )
    margins = scaled_columns(pairs.differences(inputs.key)[held_out], scales) @ fit.coef
    weights = Weights(fit.coef[:, 0] * scales)
    if inputs.key in OF_THE_BUNDLE:  # with noise: intervals over conversations, and nulls that keep the probe's alpha
        low, high = clustered_intervals(
            features, outcomes[:, 0], pairs.conversation[~pairs.is_held_out], fit, intercept=False
        )
        own = (float(fit.alpha[0]),)
        nulls = fit_logistic(features, outcomes[:, 1:], folds, n_folds=config.folds, alphas=own, intercept=False)
        drawn = nulls.coef * scales[:, None]
        weights = Weights.with_noise(weights.value, (low * scales, high * scales), drawn)
    probe = Probe(
        target=PREFERENCE,
        inputs=inputs.name,
        kind=DIFFERENCE_IN_MEANS if inputs.name == DIFFERENCE_IN_MEANS else "logistic",
        pooling=config.pooling,
        alpha=float(fit.alpha[0]),
        intercept=0.0,
        weights=weights,
        n_train=len(folds),
    )
    return PairProbe(probe, margins[:, 0], margins[:, 1:].T)


def preference_rows(
    probes: Mapping[str, PairProbe],
    ids: Mapping[tuple[str, str], int],
    pairs: Pairs,
    again: Sequence[tuple[Floats, Floats]],
    config: ProbesConfig,
    *,
    seed: int,
) -> list[ResultRow]:
    """Report `preference_accuracy`: every probe, tuned minus base, length alone, and the implicit reward alone.

    `again` are margins of tuned and base model by further dictionaries.
    """
    of_held_out = pairs.conversation[pairs.is_held_out]
    judged = JudgedPairs.from_lengths(pairs.length[pairs.is_held_out], config, seed=seed, groups=of_held_out)
    rows: list[ResultRow] = []
    for inputs, fitted in probes.items():
        keys = probe_keys(PREFERENCE, inputs, "held_out_pairs") | {"probe_id": ids[PREFERENCE, inputs]}
        is_logistic = fitted.probe.kind == "logistic"
        rows += pair_rows(judged, fitted.margins, fitted.null_margins, log_odds=is_logistic, **keys)
    for inputs, base_inputs in COMPARED.items():
        tuned, base = probes[inputs], probes[base_inputs]
        keys = probe_keys(PREFERENCE, inputs, "held_out_pairs") | {"model": "difference"}
        nulls = tuned.null_margins, base.null_margins
        others = again if inputs == "sae" else ()
        rows.append(pair_difference_row(judged, tuned.margins, base.margins, nulls=nulls, others=others, **keys))
    measured = pairs.implicit_reward[pairs.is_held_out]
    rows += pair_rows(judged, measured, None, log_odds=False, model="difference", target="implicit_reward")
    rows.append(length_row(judged, target=PREFERENCE))
    return [
        *rows,
        ResultRow.from_estimate(
            "preference_accuracy", "pairs_cut_off", pairs.n_cut_off, target=PREFERENCE, n=len(pairs.length)
        ),
    ]
