"""Findings about labels: how well they describe features, whether weights agree, where related features fire."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from lfp.evaluation.results import Estimate, ResultRow
from lfp.evaluation.statistics.resampling import Draws, bootstrap, interval, mean_interval, with_null
from lfp.evaluation.statistics.scores import spearman
from lfp.util.types import Flags, Floats, Ints

_DECILE, _HIGH, _NEAREST = 0.9, 0.75, 20


def references(weight: Floats, beats_null: Flags | None) -> dict[str, Flags]:
    """Select what labels are compared with: weights beyond their null, where known, and the top tenth by size.

    `beats_null` [features] flags weights at a false discovery rate of 5 % within the probe.
    """
    sizes = np.abs(weight)
    known = {} if beats_null is None else {"beats_null": beats_null}
    return {**known, "top_decile": (sizes >= np.quantile(sizes, _DECILE)) & (sizes > 0)}


def label_agreement(labeller: str, related: Flags, against: Mapping[str, Flags], draws: Draws) -> list[ResultRow]:
    """Compare `related` with each reference, all flags [features], by accuracy, Cohen's kappa and the odds ratio.

    Intervals are over features: a resample is a multinomial draw of the four cells of the contingency table. The null
    permutes the labels over the features: a hypergeometric draw. Leave out features that never fire: every labeller
    and every probe ignores them, and they would count as agreement.
    """
    rows, n = [], len(related)
    for name, flags in against.items():
        rng = draws.rng()
        both, first, second = int((related & flags).sum()), int(related.sum()), int(flags.sum())
        cells = np.array([both, first - both, second - both, n - first - second + both], np.int64)
        drawn = rng.multinomial(n, cells / max(1, n), size=draws.bootstraps)
        hits = np.zeros(draws.permutations, np.int64)
        if n:
            hits = rng.hypergeometric(first, n - first, second, size=draws.permutations)
        permuted = np.column_stack([hits, first - hits, second - hits, n - first - second + hits])
        for metric, score in _AGREEMENT.items():
            low, high = interval(score(drawn))
            estimate = with_null(Estimate(float(score(cells[None])[0]), n, low, high), score(permuted))
            rows.append(
                ResultRow.from_estimate(
                    "label_agreement", metric, estimate, group=f"labeller={labeller},against={name}"
                )
            )
    return rows


def _accuracy(cells: Ints) -> Floats:
    """Score cells [draws, 4]: both, first only, second only, neither."""
    return np.asarray((cells[:, 0] + cells[:, 3]) / np.maximum(1, cells.sum(axis=1)))


def _kappa(cells: Ints) -> Floats:
    """Agreement beyond chance, of what chance left (Cohen 1960); 0 where chance left nothing."""
    n = np.maximum(1, cells.sum(axis=1))
    first, second = (cells[:, 0] + cells[:, 1]) / n, (cells[:, 0] + cells[:, 2]) / n
    chance = first * second + (1 - first) * (1 - second)
    beyond = np.round(_accuracy(cells) - chance, 12)  # so that no agreement beyond chance is 0, not what rounding left
    return np.divide(beyond, 1 - chance, out=np.zeros(len(cells)), where=chance < 1)


def _odds_ratio(cells: Ints) -> Floats:
    """Odds of a flagged feature among the related ones over those among the rest.

    Half a feature is added to each cell so that an empty one leaves it finite (Haldane 1956, Anscombe 1956).
    """
    both, first, second, neither = (cells[:, i] + 0.5 for i in range(4))
    return np.asarray(both * neither / (first * second))


_AGREEMENT: Mapping[str, Callable[[Ints], Floats]] = {
    "accuracy": _accuracy,
    "kappa": _kappa,
    "odds_ratio": _odds_ratio,
    "related_and_weighty": lambda cells: cells[:, 0].astype(np.float64),
    "related_only": lambda cells: cells[:, 1].astype(np.float64),
    "weighty_only": lambda cells: cells[:, 2].astype(np.float64),
    "neither": lambda cells: cells[:, 3].astype(np.float64),
}


def label_correlation(labeller: str, belief: Floats, sizes: Floats, draws: Draws) -> ResultRow:
    """Correlate how surely features are related, from -1 (surely not) to 1, with their weights' sizes, by Spearman.

    Both [features]; intervals are over features, the null permutes the labels.
    """
    rng = draws.rng()
    low, high = bootstrap(spearman, sizes, belief, n=draws.bootstraps, rng=rng)
    nulls = np.array([spearman(sizes, rng.permutation(belief)) for _ in range(draws.permutations)])
    estimate = with_null(Estimate(spearman(sizes, belief), len(sizes), low, high), nulls, two_sided=True)
    return ResultRow.from_estimate(
        "label_agreement", "rank_correlation", estimate, group=f"labeller={labeller},against=weight"
    )


def label_scores(scores: Mapping[str, Floats], swapped: Floats, draws: Draws, *, group: str) -> list[ResultRow]:
    """Average scores of labels by their names, arrays [features], NaN where there is none; intervals are over features.

    The null of detection is what other features' descriptions score on the same examples: `swapped` [features], and
    draws of as many features from it.
    """
    rows, known = [], swapped[~np.isnan(swapped)]
    for metric, values in scores.items():
        held = values[~np.isnan(values)]
        if not len(held):
            continue
        estimate = Estimate(float(held.mean()), len(held), *mean_interval(held, n=draws.bootstraps, rng=draws.rng()))
        if metric == "detection" and len(known):
            rows_of_null = draws.rng().integers(len(known), size=(draws.permutations, len(known)))
            estimate = with_null(estimate, known[rows_of_null].mean(axis=1))
        rows.append(ResultRow.from_estimate("label_scores", metric, estimate, group=group))
    return rows


@dataclass(frozen=True)
class Inputs:
    """Sampled texts: the tokens each feature is active on [texts, features], tokens per text, and the estimate."""

    active: sp.csr_array
    n_tokens: Ints
    predicted: Floats


def activation_frequency(inputs: Inputs, related: Flags, live: Flags, draws: Draws) -> list[ResultRow]:
    """Compare how often related features, and all live ones, are active on texts of high estimate and on the rest.

    `per_token` is the share of (token, feature) pairs that are active, texts weighing alike; `per_text` the share of
    features active anywhere in a text. Intervals are over texts; the null of related features is as many other
    features, each drawn from the twenty that are most nearly as often active on the rest.
    """
    high = np.asarray(inputs.predicted >= np.quantile(inputs.predicted, _HIGH))  # the top quarter of texts
    if len(inputs.n_tokens) < 4 or high.all() or not live.any():
        return []
    shares = {
        "per_token": sp.csr_array(inputs.active.multiply(1.0 / np.maximum(1, inputs.n_tokens)[:, None])),
        "per_text": sp.csr_array(inputs.active > 0, dtype=np.float64),
    }
    sets: dict[str, Floats] = {"all": (live / live.sum())[:, None]}
    if (related & live).any():
        density = np.asarray(shares["per_token"][np.flatnonzero(~high)].mean(axis=0)).ravel()
        sets = {"related": _with_random_sets(related & live, live, density, draws), **sets}
    rows = []
    for metric, values in shares.items():
        for name, weights in sets.items():
            of_sets = values @ weights  # [texts, 1 + permutations]: the set's own share, then random sets'
            rng, drawn, means = draws.rng(), {}, {}
            for side, texts in (("high", high), ("rest", ~high)):
                own = of_sets[texts, 0]
                drawn[side] = own[rng.integers(len(own), size=(draws.bootstraps, len(own)))].mean(axis=1)
                means[side] = of_sets[texts].mean(axis=0)
            drawn["high_less_rest"] = drawn["high"] - drawn["rest"]
            means["high_less_rest"] = means["high"] - means["rest"]
            sizes = {"high": int(high.sum()), "rest": int((~high).sum()), "high_less_rest": len(high)}
            for side, mean in means.items():
                estimate = Estimate(float(mean[0]), sizes[side], *interval(drawn[side]))
                estimate = with_null(estimate, mean[1:]) if len(mean) > 1 else estimate
                rows.append(ResultRow.from_estimate("activation_frequency", metric, estimate, group=f"{name}_{side}"))
    return rows


def _with_random_sets(related: Flags, live: Flags, density: Floats, draws: Draws) -> Floats:
    """Average the related features, then random sets of as many others: weights [features, 1 + permutations].

    Each related feature is replaced by one of the twenty other live features nearest in density; or by any live feature
    where all are related.
    """
    rng, size = draws.rng(), int(related.sum())
    others = np.flatnonzero(live & ~related) if (live & ~related).any() else np.flatnonzero(live)
    others = others[np.argsort(density[others], kind="stable")]
    width = min(_NEAREST, len(others))
    first = np.searchsorted(density[others], density[related]) - width // 2
    first = np.clip(first, 0, len(others) - width)
    sets = np.zeros((len(live), 1 + draws.permutations))
    sets[:, 0] = related / size
    for k in range(draws.permutations):
        np.add.at(sets[:, 1 + k], others[first + rng.integers(width, size=size)], 1.0 / size)
    return sets
