"""The tables `probes`, `weights` and `vocabulary`, made from fitted probes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import scipy.sparse as sp

from lfp.bundle.schema import as_table
from lfp.evaluation.statistics.discoveries import adjusted_p
from lfp.evaluation.word_gaps import WordGaps, gap_p_values
from lfp.util.types import SITES, Floats, Place
from precompute.run.work_folder import Run
from precompute.stages.probes.fitting import Probe
from precompute.stages.probes.inputs import MODELS, OF_THE_BUNDLE
from precompute.stages.probes.targets import Words

HEADLINE = 0
_TYPICAL, _LIFT, _MOST = 0.5, 5.0, 30  # when a feature fires on a word, and how many of them are kept
_DENSITY = {"sae": ("density", "mean_activation"), "sae_of_base": ("base_density", "base_mean_activation")}


@dataclass(frozen=True)
class Listed:
    """A probe as the bundle lists it: the scale its predictions are shown on, and how many words or pairs judged it."""

    probe: Probe
    display: tuple[float, float]
    n_test: int


@dataclass(frozen=True)
class RawSide:
    """The raw probe of the headline's target, seen from the features: see DESIGN.md, the second ledger.

    `weights` [features] and `bias` are None where an autoencoder normalises its inputs.
    """

    weights: Floats | None
    bias: float | None
    intercept: float


def probe_table(probes: Sequence[Listed], places: Sequence[Place], raw: RawSide) -> pa.Table:
    """Build the table `probes`, the headline first."""
    rows: list[dict[str, Any]] = [
        {
            "probe_id": probe_id,
            "target": listed.probe.target,
            "inputs": listed.probe.inputs,
            "model": MODELS[listed.probe.inputs],
            "layers": sorted({place.layer for place in read}),
            "sites": [site for site in SITES if any(place.site == site for place in read)],
            "kind": listed.probe.kind,
            "pooling": listed.probe.pooling,
            "alpha": listed.probe.alpha,
            "intercept": listed.probe.intercept,
            "display_slope": listed.display[0],
            "display_offset": listed.display[1],
            "n_train": listed.probe.n_train,
            "n_test": listed.n_test,
            "is_headline": probe_id == HEADLINE,
        }
        for probe_id, listed in enumerate(probes)
        for read in [places if listed.probe.inputs != "token_identity" else ()]
    ]
    rows[HEADLINE] |= {"raw_intercept": raw.intercept, "raw_bias": raw.bias}
    return as_table("probes", rows)


def weight_table(run: Run, probes: Sequence[Listed], raw: RawSide) -> pa.Table:
    """Build the table `weights`: for every probe that reads the bundle's features, a row per feature."""
    features = run.table("features", "features").sort_by("feature_id")
    parts = []
    for i, listed in enumerate(probes):
        if listed.probe.inputs in OF_THE_BUNDLE:
            density, mean = (features[name].to_numpy().astype(float) for name in _DENSITY[listed.probe.inputs])
            parts.append(_weights(i, listed.probe, density * mean, raw.weights if i == HEADLINE else None))
    return pa.concat_tables(parts)


def vocabulary_table(run: Run, words: Words, predicted: Mapping[str, Floats], gaps: WordGaps) -> pa.Table:
    """Build the table `vocabulary`; `predicted` [words] by inputs, sae and base_sae, is of the headline's target."""
    written, means = run.json("completions", "counts"), words.means
    p_values = gap_p_values(gaps)
    has_tokens = means["n"] > 0
    columns = {
        "word": words.words,
        "token_ids": run.json("features", "word_tokens"),
        "feedback": _nullable(words.values),
        "implicit_reward": _nullable(means["reward"]),
        "implicit_advantage": _nullable(means["advantage"]),
        "implicit_matched": _nullable(means["matched"]),
        "implicit_matched_se": _nullable(means["matched_se"]),
        "implicit_excess": _nullable(gaps.excess),
        "implicit_gap": _nullable(gaps.gap),
        "implicit_excess_se": _nullable(gaps.error),
        "implicit_gap_p": _nullable(p_values),
        "implicit_gap_q": _nullable(adjusted_p(p_values)),
        "predicted": _nullable(np.where(has_tokens, predicted["sae"], np.nan)),
        "predicted_base": _nullable(np.where(has_tokens, predicted["base_sae"], np.nan)),
        "n": words.counts,
        "n_generated": [written["tuned"].get(word, 0) for word in words.words],
        "n_generated_base": [written["base"].get(word, 0) for word in words.words],
        "fold": words.folds,
    }
    return as_table("vocabulary", columns)


def word_feature_table(run: Run, words: Words, at_last: sp.csr_array) -> pa.Table:
    """Build the table `word_features`; `at_last` [words, features] are mean features at the last token of words.

    A feature fires on a word when its mean there is at least half of its mean where active, and five times its mean
    over all tokens: as strong as usual where it is active, and more active than elsewhere.
    """
    features = run.table("features", "features").sort_by("feature_id")
    typical = features["mean_activation"].to_numpy().astype(float)
    overall = np.maximum(features["density"].to_numpy() * typical, 1e-12)
    entries = sp.coo_array(at_last)
    word, feature, mean = entries.coords[0], entries.coords[1], entries.data
    lift = mean / overall[feature]
    fires = np.flatnonzero((mean >= _TYPICAL * typical[feature]) & (lift >= _LIFT))
    names = np.array(words.words)[word[fires]]
    order = fires[np.lexsort((feature[fires], -lift[fires], names))]
    names = np.array(words.words)[word[order]]
    firsts = np.flatnonzero(np.concatenate([[True], names[1:] != names[:-1]])) if len(names) else np.zeros(0, np.int64)
    rank = np.arange(len(names)) - np.repeat(firsts, np.diff(firsts, append=len(names)))
    kept = rank < _MOST
    return as_table(
        "word_features",
        {
            "word": names[kept],
            "rank": rank[kept],
            "feature_id": feature[order][kept],
            "mean_activation": mean[order][kept],
            "lift": lift[order][kept],
        },
    )


def _weights(probe_id: int, probe: Probe, mean_activation: Floats, raw: Floats | None) -> pa.Table:
    weights, null, n = probe.weights, probe.weights.null, len(mean_activation)
    weight = weights.value.astype(np.float32)
    size = np.abs(weight) * mean_activation
    columns = {
        "probe_id": np.full(n, probe_id),
        "feature_id": np.arange(n),
        "weight": weight,
        "ci_low": _optional(weights.ci_low, n),
        "ci_high": _optional(weights.ci_high, n),
        "mean_contribution": weight * mean_activation,
        "mean_abs_contribution": size,
        "share": size / max(size.sum(), 1e-30),
        "rank": np.argsort(np.argsort(-size, kind="stable"), kind="stable") + 1,
        "null_mean": _optional(None if null is None else null.mean, n),
        "null_high": _optional(None if null is None else null.high, n),
        "p": _optional(None if null is None else null.p, n),
        "q": _optional(None if null is None else null.q, n),
        "beats_null": pa.nulls(n, pa.bool_()) if null is None else null.beats,
        "raw_weight": _optional(raw, n),
    }
    return as_table("weights", columns)


def _optional(values: Floats | None, n: int) -> pa.Array:
    return pa.nulls(n, pa.float32()) if values is None else pa.array(values.astype(np.float32), mask=np.isnan(values))


def _nullable(values: Floats) -> pa.Array:
    return pa.array(values, mask=np.isnan(values))
