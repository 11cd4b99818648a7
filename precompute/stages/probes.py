"""Stage `probes`: triples, the delta and the implicit-reward probe of both models, words judged out of fold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import scipy.sparse as sp
from numpy.typing import NDArray

from lfp.attribution import display_scale
from lfp.feedback import vader_lexicon
from lfp.judging import ScoredWords, difference_row, sign_rows, tau_rows
from lfp.metrics import Estimate, tau
from lfp.probes import FoldedRidge, Ridge, fit_folded_ridge, layer_scales
from lfp.report import result
from lfp.schema import as_table
from precompute import pair
from precompute.run import Output, Run
from precompute.stages.triples import TriplePoints, collect_points, draw_triples, triple_rows

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_HEADLINE, _DELTA = 0, 1
_INPUTS = {"tuned": "sae", "base": "base_sae"}


@dataclass(frozen=True)
class Words:
    """The vocabulary as the probes see it: words, counts, folds, values (NaN where the lexicon is silent)."""

    words: list[str]
    counts: Ints
    folds: Ints
    values: Floats
    means: Mapping[str, Mapping[str, Floats]]
    """By model: mean features, r_t and c_t an occurrence, from the features stage."""


@dataclass(frozen=True)
class Fitted:
    """A probe of one model: its row of `probes`, its ridges in unscaled features, and its words' predictions.

    `predicted` [words, targets] is out of fold; targets beyond the first belong to shuffled lexicons.
    """

    row: dict[str, Any]
    whole: Ridge
    predicted: Floats


def run(run: Run, output: Output) -> None:
    """Writes triples, vocabulary, probes, weights, and the rows `kendall_tau`, `sign_accuracy`, `implicit_reward`."""
    words = _words(run)
    config, seed = run.config.probes, run.config.seed
    scored = ScoredWords.of(words.values, words.counts.astype(float), config, seed=seed)
    triples = draw_triples(run)
    points = {model: collect_points(run, model, triples) for model in ("tuned", "base")}
    delta = {model: _fit_delta(run, model, points[model], words, scored) for model in points}
    implicit = {model: _fit_implicit(run, model, words) for model in ("tuned", "base")}
    fitted = [implicit["tuned"], delta["tuned"], implicit["base"], delta["base"]]
    output.table("triples", triple_rows(triples, points["tuned"], dict(zip(words.words, words.folds, strict=True))))
    output.table("vocabulary", _vocabulary(run, words, implicit))
    output.table("probes", as_table("probes", [_probe_row(i, one, scored) for i, one in enumerate(fitted)]))
    output.table("weights", pa.concat_tables([_weights(run, i, fitted[i]) for i in (_HEADLINE, _DELTA)]))
    output.results(
        _delta_results(delta, scored)
        + _random_rows(run, points["tuned"], words, scored)
        + _implicit_results(implicit, words, scored)
    )


def _words(run: Run) -> Words:
    stored, lexicon = run.json("features", "vocabulary"), vader_lexicon()
    means = {role: dict(np.load(run.folder("features") / f"words-{role}.npz")) for role in ("tuned", "base")}
    values = np.array([lexicon.get(word, np.nan) for word in stored["words"]])
    return Words(stored["words"], np.array(stored["counts"]), np.array(stored["folds"]), values, means)


def _fit(run: Run, model: str, features: sp.csr_array, targets: Floats, folds: Ints) -> FoldedRidge:
    """Ridges whose coefficients apply to unscaled features; layers enter the fit with unit mean square norm each."""
    config = run.config.probes
    scales = layer_scales(features, pair.dictionary(run, model).layer_of)
    scaled = sp.csr_array(features.multiply(scales))
    fit = fit_folded_ridge(scaled, targets, folds, n_folds=config.folds, alphas=config.alphas)
    return FoldedRidge(tuple(_unscaled(one, scales) for one in fit.by_fold), _unscaled(fit.whole, scales))


def _unscaled(ridge: Ridge, scales: Floats) -> Ridge:
    return Ridge(ridge.coef * scales[:, None], ridge.intercept, ridge.alpha)


def _fit_delta(run: Run, model: str, points: TriplePoints, words: Words, scored: ScoredWords) -> Fitted:
    """The paper's probe: a point's features against plus or minus the norm of its change from the neutral point.

    One more target a shuffled lexicon: the sign is the shuffled value's, the norm stays.
    """
    of_word = {word: i for i, word in enumerate(words.words)}
    rows = np.array([of_word.get(word, -1) for word in points.words])
    kept = np.flatnonzero(rows >= 0)
    rows = rows[kept]
    norms = points.norms(layer_scales(points.features, pair.dictionary(run, model).layer_of))[kept]
    place = np.full(len(words.words), -1)
    place[scored.rows] = np.arange(len(scored.rows))
    values = np.vstack([scored.true, scored.shuffled])[:, place[rows]].T
    features = points.features[kept]
    fit = _fit(run, model, features, np.sign(values) * norms[:, None], words.folds[rows])
    predicted = _by_fold(fit, words.means[model]["at_last"], np.ones(len(words.words)), words.folds)
    return Fitted(_row(run, "delta", model, len(rows)), fit.whole, predicted)


def _fit_implicit(run: Run, model: str, words: Words) -> Fitted:
    """Features of a token against its implicit reward; a word's prediction is the sum over its tokens."""
    folder = run.folder("features")
    sample = np.load(folder / "sample.npz")
    features = sp.csr_array(sp.load_npz(folder / f"sample-{model}.npz"))
    fit = _fit(run, model, features, sample["reward"][:, None], sample["folds"])
    means = words.means[model]
    predicted = _by_fold(fit, means["over_tokens"], means["tokens"], words.folds)
    return Fitted(_row(run, "implicit_reward", model, len(sample["reward"])), fit.whole, predicted)


def _by_fold(fit: FoldedRidge, features: Floats, n_tokens: Floats, folds: Ints) -> Floats:
    """Each word's prediction [words, targets] by the ridge of the fold it is held out in."""
    predicted = np.empty((len(folds), fit.whole.coef.shape[1]))
    for fold, ridge in enumerate(fit.by_fold):
        rows = folds == fold
        predicted[rows] = features[rows] @ ridge.coef + n_tokens[rows, None] * ridge.intercept
    return predicted


def _row(run: Run, target: str, model: str, n_train: int) -> dict[str, Any]:
    return {
        "target": target,
        "inputs": _INPUTS[model],
        "model": model,
        "layers": list(pair.dictionary(run, model).layers),
        "kind": "ridge",
        "pooling": "mean" if target == "implicit_reward" else "last",
        "n_train": n_train,
    }


def _probe_row(probe_id: int, fitted: Fitted, scored: ScoredWords) -> dict[str, Any]:
    slope, offset = display_scale(fitted.predicted[scored.rows, 0], scored.true)
    return fitted.row | {
        "probe_id": probe_id,
        "alpha": float(fitted.whole.alpha[0]),
        "intercept": float(fitted.whole.intercept[0]),
        "display_slope": slope,
        "display_offset": offset,
        "n_test": len(scored.rows),
        "is_headline": probe_id == _HEADLINE,
    }


def _weights(run: Run, probe_id: int, fitted: Fitted) -> pa.Table:
    """A row a feature; the null, where shuffled lexicons were fitted, is the 95th percentile of their |weight|."""
    stats = run.table("features", "features").sort_by("feature_id")
    weight = fitted.whole.coef[:, 0].astype(np.float32)
    mean_activation = stats["density"].to_numpy().astype(float) * stats["mean_activation"].to_numpy()
    size = np.abs(weight) * mean_activation
    n = len(weight)
    has_null = fitted.whole.coef.shape[1] > 1
    null_high = np.quantile(np.abs(fitted.whole.coef[:, 1:]), 0.95, axis=1) if has_null else np.full(n, np.nan)
    missing = np.full(n, not has_null)
    columns = {
        "probe_id": np.full(n, probe_id),
        "feature_id": np.arange(n),
        "weight": weight,
        "ci_low": pa.nulls(n, pa.float32()),
        "ci_high": pa.nulls(n, pa.float32()),
        "mean_contribution": weight * mean_activation,
        "mean_abs_contribution": size,
        "share": size / max(size.sum(), 1e-30),
        "rank": np.argsort(np.argsort(-size, kind="stable"), kind="stable") + 1,
        "null_high": pa.array(null_high.astype(np.float32), mask=missing),
        "beats_null": pa.array(np.abs(weight) > null_high, mask=missing),
    }
    return as_table("weights", columns)


def _vocabulary(run: Run, words: Words, implicit: Mapping[str, Fitted]) -> pa.Table:
    tuned = words.means["tuned"]
    counts = run.json("completions", "counts")
    token_ids = run.json("features", "word_tokens")
    rows = [
        {
            "word": word,
            "token_ids": token_ids[i],
            "feedback": None if np.isnan(words.values[i]) else words.values[i],
            "implicit_reward": tuned["reward"][i] if tuned["n"][i] else None,
            "implicit_advantage": tuned["advantage"][i] if tuned["n"][i] else None,
            "predicted": implicit["tuned"].predicted[i, 0] if tuned["n"][i] else None,
            "predicted_base": implicit["base"].predicted[i, 0] if tuned["n"][i] else None,
            "n": int(words.counts[i]),
            "n_generated": counts["tuned"].get(word, 0),
            "n_generated_base": counts["base"].get(word, 0),
            "fold": int(words.folds[i]),
        }
        for i, word in enumerate(words.words)
    ]
    return as_table("vocabulary", rows)


def _delta_results(delta: Mapping[str, Fitted], scored: ScoredWords) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for model, fitted in delta.items():
        predicted = fitted.predicted[scored.rows]
        keys = {"target": "delta", "inputs": _INPUTS[model], "split": "held_out_words", "model": model}
        rows += tau_rows(scored, predicted[:, 0], predicted[:, 1:].T, "kendall_tau", **keys)
        rows += sign_rows(scored, predicted[:, 0], predicted[:, 1:].T, **keys)
    return [*rows, _difference("delta", delta, scored)]


def _difference(target: str, fitted: Mapping[str, Fitted], scored: ScoredWords) -> dict[str, Any]:
    tuned, base = (fitted[model].predicted[scored.rows, 0] for model in ("tuned", "base"))
    return difference_row(scored, tuned, base, target=target, inputs="sae", split="held_out_words")


def _random_rows(run: Run, points: TriplePoints, words: Words, scored: ScoredWords) -> list[dict[str, Any]]:
    """The paper's split beside ours: rows, not words, are held out, so that a word is on both sides."""
    folds = np.random.default_rng(run.config.seed).integers(run.config.probes.folds, size=len(points.words))
    scales = layer_scales(points.features, pair.dictionary(run, "tuned").layer_of)
    fit = _fit(run, "tuned", points.features, (points.signs * points.norms(scales))[:, None], folds)
    predicted = np.empty(len(folds))
    for fold, ridge in enumerate(fit.by_fold):
        rows = folds == fold
        predicted[rows] = (points.features[rows] @ ridge.coef)[:, 0] + ridge.intercept[0]
    names = sorted(set(points.words) & {words.words[i] for i in scored.rows})
    of_word = [np.mean(predicted[points.words == name]) for name in names]
    true = np.array([vader_lexicon()[name] for name in names])
    keys = {"model": "tuned", "target": "delta", "inputs": "sae", "words": "all", "split": "random_rows"}
    return [result("kendall_tau", "tau", Estimate(tau(true, np.array(of_word)), len(names)), **keys)]


def _implicit_results(implicit: Mapping[str, Fitted], words: Words, scored: ScoredWords) -> list[dict[str, Any]]:
    """The probe of the implicit reward, and the implicit reward itself, against the lexicon."""
    rows: list[dict[str, Any]] = []
    for model, fitted in implicit.items():
        keys = {"target": "implicit_reward", "inputs": _INPUTS[model], "split": "held_out_words", "model": model}
        rows += tau_rows(scored, fitted.predicted[scored.rows, 0], None, "kendall_tau", **keys)
    rows.append(_difference("implicit_reward", implicit, scored))
    for target, name in (("implicit_reward", "reward"), ("implicit_advantage", "advantage")):
        measured = words.means["tuned"][name][scored.rows]
        rows += tau_rows(scored, measured, None, "implicit_reward", model="difference", target=target)
    return rows
