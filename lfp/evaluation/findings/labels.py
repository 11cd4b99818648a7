"""Findings about labels: how well they tell their features, whether weights agree, where related features fire."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from lfp.evaluation.results import Estimate, ResultRow
from lfp.evaluation.statistics.resampling import Draws, bootstrap, interval, mean_interval, with_null
from lfp.evaluation.statistics.scores import spearman
from lfp.util.types import Flags, Floats, Ints

_DECILE, _HIGH = 0.9, 0.75


def references(weight: Floats, beats_null: Flags | None) -> dict[str, Flags]:
    """What labels are held against: weights that beat their null, where that is known, and the top tenth by size."""
    sizes = np.abs(weight)
    known = {} if beats_null is None else {"beats_null": beats_null}
    return {**known, "top_decile": (sizes >= np.quantile(sizes, _DECILE)) & (sizes > 0)}


def label_agreement(labeller: str, related: Flags, against: Mapping[str, Flags], draws: Draws) -> list[ResultRow]:
    """Accuracy and Cohen's kappa of `related` against each reference, all flags [features].

    Intervals are over features; the null deals the labels anew over the features. Features that never fire belong left
    out: every labeller and every probe passes them over, and they would count as agreement.
    """
    return [
        ResultRow.from_estimate("label_agreement", metric, estimate, group=f"labeller={labeller},against={name}")
        for name, flags in against.items()
        for metric, estimate in _agreement(related, flags, draws).items()
    ]


def label_correlation(labeller: str, belief: Floats, sizes: Floats, draws: Draws) -> ResultRow:
    """Spearman's correlation of how surely features are related, from -1 (surely not) to 1, with their weights' sizes.

    Both [features]; intervals are over features, the null deals the labels anew.
    """
    rng = draws.rng()
    low, high = bootstrap(spearman, sizes, belief, n=draws.bootstraps, rng=rng)
    nulls = np.array([spearman(sizes, rng.permutation(belief)) for _ in range(draws.permutations)])
    estimate = with_null(Estimate(spearman(sizes, belief), len(sizes), low, high), nulls, two_sided=True)
    return ResultRow.from_estimate(
        "label_agreement", "rank_correlation", estimate, group=f"labeller={labeller},against=weight"
    )


def label_scores(scores: Mapping[str, Floats], swapped: Floats, draws: Draws, *, group: str) -> list[ResultRow]:
    """Mean scores of labels by their names, arrays [features], NaN where there is none; intervals are over features.

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
            nulls = _resampled_means(known, draws.permutations, draws.rng())
            estimate = with_null(estimate, nulls)
        rows.append(ResultRow.from_estimate("label_scores", metric, estimate, group=group))
    return rows


def _agreement(related: Flags, flags: Flags, draws: Draws) -> dict[str, Estimate]:
    """A resample of features is a multinomial draw of the four cells, a deal of labels a hypergeometric one."""
    n, rng = len(related), draws.rng()
    cells = _cells(related, flags)
    one, other = cells[0] + cells[1], cells[0] + cells[2]
    drawn = rng.multinomial(n, cells / max(1, n), size=draws.bootstraps)
    hits = rng.hypergeometric(one, n - one, other, size=draws.permutations) if n else np.zeros(draws.permutations)
    dealt = np.column_stack([hits, one - hits, other - hits, n - one - other + hits])
    found = {}
    for metric, score in {"accuracy": _accuracy, "kappa": _kappa, "odds_ratio": _odds_ratio, **_COUNTS}.items():
        low, high = interval(score(drawn))
        found[metric] = with_null(Estimate(float(score(cells[None])[0]), n, low, high), score(dealt))
    return found


def _cells(related: Flags, flags: Flags) -> Ints:
    """The contingency table as four counts: both, related only, flagged only, neither."""
    both = int((related & flags).sum())
    one, other = int(related.sum()) - both, int(flags.sum()) - both
    return np.array([both, one, other, len(related) - both - one - other], np.int64)


def _odds_ratio(cells: Ints) -> Floats:
    """Odds of a weighty feature among the related ones over those among the rest; half a feature is added to each cell
    so that an empty one leaves it finite (Haldane 1956, Anscombe 1956).
    """
    both, one, other, neither = (cells[:, i] + 0.5 for i in range(4))
    return np.asarray(both * neither / (one * other))


def _accuracy(cells: Ints) -> Floats:
    """Of cells [draws, 4]: both, first only, second only, neither."""
    return np.asarray((cells[:, 0] + cells[:, 3]) / np.maximum(1, cells.sum(axis=1)))


def _kappa(cells: Ints) -> Floats:
    """Cohen (1960): agreement beyond chance, of what chance left to be had; 0 where chance left nothing."""
    n = np.maximum(1, cells.sum(axis=1))
    first, second = (cells[:, 0] + cells[:, 1]) / n, (cells[:, 0] + cells[:, 2]) / n
    chance = first * second + (1 - first) * (1 - second)
    beyond = np.round(_accuracy(cells) - chance, 12)  # so that no agreement beyond chance is 0, not what rounding left
    return np.divide(beyond, 1 - chance, out=np.zeros(len(cells)), where=chance < 1)


_CELLS = ("related_and_weighty", "related_only", "weighty_only", "neither")
_COUNTS: Mapping[str, Callable[[Ints], Floats]] = {
    name: lambda cells, place=place: cells[:, place].astype(np.float64)  # type: ignore[misc]
    for place, name in enumerate(_CELLS)
}


@dataclass(frozen=True)
class Inputs:
    """Sampled texts: on how many tokens each feature is active [texts, features], tokens a text, and the estimate."""

    active: sp.csr_array
    n_tokens: Ints
    predicted: Floats

    @property
    def is_high(self) -> Flags:
        """The texts in the top quarter by the headline estimate."""
        return np.asarray(self.predicted >= np.quantile(self.predicted, _HIGH))


def activation_frequency(inputs: Inputs, related: Flags, live: Flags, draws: Draws) -> list[ResultRow]:
    """How often related features, and all live ones, are active on texts of high estimate and on the rest.

    `per_token` is the share of (token, feature) pairs that are active, texts weighing alike; `per_text` the share of
    features active anywhere in a text. Intervals are over texts; the null of related features is as many live
    features drawn at random.
    """
    if len(inputs.n_tokens) < 4 or inputs.is_high.all() or not live.any():
        return []
    shares = {
        "per_token": sp.csr_array(inputs.active.multiply(1.0 / np.maximum(1, inputs.n_tokens)[:, None])),
        "per_text": sp.csr_array(inputs.active > 0, dtype=np.float64),
    }
    sets: dict[str, Floats] = {"all": (live / live.sum())[:, None]}
    if (related & live).any():
        sets = {"related": _with_random_sets(related & live, live, draws), **sets}
    return [
        row
        for metric, values in shares.items()
        for name, weights in sets.items()
        for row in _frequencies(metric, name, values @ weights, inputs.is_high, draws)
    ]


def _frequencies(metric: str, name: str, shares: Floats, high: Flags, draws: Draws) -> list[ResultRow]:
    """Of `shares` [texts, 1 + permutations], the set's own in the first column and random sets' after it."""
    rng = draws.rng()
    drawn = {side: _resampled_means(shares[rows, 0], draws.bootstraps, rng) for side, rows in _sides(high)}
    means = {side: shares[rows].mean(axis=0) for side, rows in _sides(high)}
    sizes = {side: int(rows.sum()) for side, rows in _sides(high)} | {"high_less_rest": len(high)}
    drawn["high_less_rest"] = drawn["high"] - drawn["rest"]
    means["high_less_rest"] = means["high"] - means["rest"]
    return [
        ResultRow.from_estimate(
            "activation_frequency", metric, _estimate(means[side], sizes[side], drawn[side]), group=f"{name}_{side}"
        )
        for side in means
    ]


def _sides(high: Flags) -> tuple[tuple[str, Flags], ...]:
    return ("high", high), ("rest", ~high)


def _estimate(means: Floats, n: int, drawn: Floats) -> Estimate:
    estimate = Estimate(float(means[0]), n, *interval(drawn))
    return with_null(estimate, means[1:]) if len(means) > 1 else estimate


def _with_random_sets(related: Flags, live: Flags, draws: Draws) -> Floats:
    """The related features, then random sets of as many live ones: averaging weights [features, 1 + permutations]."""
    rng, candidates, size = draws.rng(), np.flatnonzero(live), int(related.sum())
    sets = np.zeros((len(live), 1 + draws.permutations))
    sets[:, 0] = related / size
    for k in range(draws.permutations):
        sets[rng.choice(candidates, size, replace=False), 1 + k] = 1.0 / size
    return sets


def _resampled_means(values: Floats, n: int, rng: np.random.Generator) -> Floats:
    return np.asarray(values[rng.integers(len(values), size=(n, len(values)))].mean(axis=1))
