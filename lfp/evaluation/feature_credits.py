"""What features carry of the implicit reward: totals with intervals, next tokens, examples, and shares of modules."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import scipy.sparse as sp
from scipy.special import stdtrit

from lfp.evaluation.results import TRAINED_RANDOM, Estimate, ResultRow
from lfp.evaluation.statistics.resampling import Draws, interval_of_sums
from lfp.util.types import Flags, Floats, Indices, Ints, Place

PATHS = ("full", "same_position")
"""Kinds of path, in the order of arrays [paths, ...]."""
N_TOKENS, N_EXAMPLES, N_NAMED = 10, 10, 10
"""Next tokens and examples that are kept of a feature, and features that the report names."""


@dataclass(frozen=True, eq=False)
class TextCredits:
    """The credits of a text's features at the positions they were written at, in nats.

    `credits` [paths, entries] belong to `positions` and `features` [entries]; those on the same position concern the
    token that follows. `modules`, `bias` and `residual` are [paths, places, tokens + n_bos]: what a beginning-of-
    sequence token's write carries is all residual, since no dictionary is trained on one.
    """

    positions: Ints
    features: Ints
    credits: Floats
    modules: Floats
    bias: Floats
    residual: Floats
    control: Floats | None = None
    """What the features of control dictionaries carry [paths, places], NaN at places without one."""
    nodes: int = 1
    """Points of the path of weights at which the text was differentiated."""
    error: float = math.nan
    """Largest distance of a module's credit from the ledger's, over the sum of the sizes of all; NaN if not known."""
    forward_passes: float = math.nan
    """What the split took, as a multiple of the floating-point operations of a forward pass."""

    def place_sums(self, place_of: Ints) -> Floats:
        """Return the sums over tokens [4, paths, places]: module, features, bias, residual."""
        n_places = self.modules.shape[1]
        features = np.stack([np.bincount(place_of[self.features], part, n_places) for part in self.credits])
        return np.stack([self.modules.sum(2), features, self.bias.sum(2), self.residual.sum(2)])

    def by_token(self, place_of: Ints, number: int, *, n_bos: int) -> tuple[Floats, Floats]:
        """Return, on the same position, what a place's features and its module carry at each token [tokens]."""
        own, module = place_of[self.features] == number, self.modules[1, number, n_bos:]
        carried = np.zeros(len(module))
        np.add.at(carried, self.positions[own], self.credits[1, own])
        return carried, module


@dataclass(frozen=True, eq=False)
class Split:
    """Texts split over features: all their entries side by side, and the tokens that they have.

    `text`, `position` and `feature` [entries] place the credits [paths, entries]; `next_token` [entries] is the token
    after, and `feedback` [entries] its stated feedback, -1 and 0 where there is none. `n_tokens` [texts] are the tokens
    whose implicit reward is split, those of responses; `stated` [tokens] has the stated feedback of those that follow
    another. Texts of one of the `groups` [texts], such as a pair, depend on each other.
    """

    text: Ints
    position: Ints
    feature: Ints
    credits: Floats
    next_token: Ints
    feedback: Floats
    n_tokens: Ints
    stated: Floats
    groups: Ints


def combine(
    texts: Sequence[TextCredits],
    token_ids: Sequence[Ints],
    feedback: Sequence[Floats],
    *,
    counted: Sequence[Flags],
    groups: Ints,
) -> Split:
    """Put texts side by side; `token_ids`, `feedback` and `counted` [tokens] are of each.

    Feedback is 0 where none is stated; `counted` marks the tokens whose implicit reward was split.
    """
    empty = np.zeros(0, np.int64)
    feedback = [np.where(flags, values, 0.0) for values, flags in zip(feedback, counted, strict=True)]
    following = [np.append(ids[1:], -1) for ids in token_ids]
    stated = [np.append(values[1:], 0.0) for values in feedback]
    return Split(
        text=np.concatenate([empty, *(np.full(len(text.features), i) for i, text in enumerate(texts))]),
        position=np.concatenate([empty, *(text.positions for text in texts)]),
        feature=np.concatenate([empty, *(text.features for text in texts)]),
        credits=np.concatenate([np.zeros((len(PATHS), 0)), *(text.credits for text in texts)], axis=1),
        next_token=np.concatenate([empty, *(f[text.positions] for f, text in zip(following, texts, strict=True))]),
        feedback=np.concatenate([np.zeros(0), *(f[text.positions] for f, text in zip(stated, texts, strict=True))]),
        n_tokens=np.array([flags.sum() for flags in counted], np.int64),
        stated=np.concatenate([np.zeros(0), *(v[1:][flags[1:]] for v, flags in zip(feedback, counted, strict=True))]),
        groups=groups,
    )


def credit_columns(split: Split, *, n_features: int, spelled: Sequence[str], text_ids: Ints) -> dict[str, Any]:
    """Compute the columns of the table `credits`; `spelled` is the string of every token id."""
    full = split.credits[0]
    credit, low, high = _rates(split, full, n_features)
    size, size_low, size_high = _rates(split, np.abs(full), n_features)
    unexplained = _unexplained(split, n_features)
    of_feature, tokens, sums = _by_next_token(split)
    examples = _largest(split.feature, -np.abs(full), N_EXAMPLES)
    bounds = np.searchsorted(split.feature[examples], np.arange(n_features + 1))
    lists = [examples[start:end] for start, end in pairwise(bounds.tolist())]
    return {
        "feature_id": np.arange(n_features),
        "credit": credit, "ci_low": low, "ci_high": high,
        "abs_credit": size, "abs_ci_low": size_low, "abs_ci_high": size_high,
        "rank": rank_by_size(credit),
        "unexplained_credit": unexplained, "unexplained_rank": rank_by_size(unexplained),
        "promotes": _list_tokens(of_feature, tokens, sums, n_features, spelled),
        "demotes": _list_tokens(of_feature, tokens, -sums, n_features, spelled, sign=-1.0),
        "example_text_ids": [text_ids[split.text[rows]].tolist() for rows in lists],
        "example_positions": [split.position[rows].tolist() for rows in lists],
        "example_credits": [full[rows].tolist() for rows in lists],
    }  # fmt: skip


def rank_by_size(values: Floats) -> Ints:
    """Rank by size, largest first, from 1; ties by number."""
    ranks = np.empty(len(values), np.int64)
    ranks[np.argsort(-np.abs(values), kind="stable")] = np.arange(1, len(values) + 1)
    return ranks


def _rates(split: Split, values: Floats, n_features: int) -> tuple[Floats, Floats, Floats]:
    """Return values per token [features] with intervals over groups, of a ratio of sums by its linear part."""
    names, group = np.unique(split.groups, return_inverse=True)
    n, tokens = len(names), np.bincount(group, split.n_tokens)
    sums = sp.csr_array((values, (group[split.text], split.feature)), shape=(n, n_features))
    sums.sum_duplicates()
    total = max(tokens.sum(), 1.0)
    rate = np.asarray(sums.sum(axis=0)) / total
    squares = np.asarray((sums * sums).sum(axis=0)) - 2.0 * rate * (sums.T @ tokens) + rate**2 * (tokens @ tokens)
    spread = np.sqrt(np.maximum(squares, 0.0) * n / max(n - 1, 1)) / total
    half = float(stdtrit(max(n - 1, 1), 0.975)) * spread
    return rate, rate - half, rate + half


def _unexplained(split: Split, n_features: int) -> Floats:
    """Return the mean size of what the next token's stated feedback leaves of the credits on the same position."""
    values, stated, n = split.credits[1], split.stated, max(len(split.stated), 1)
    sums = np.bincount(split.feature, values, n_features)
    products = np.bincount(split.feature, values * split.feedback, n_features)
    spread = float((stated**2).sum() - stated.sum() ** 2 / n)
    slope = (products - sums * stated.sum() / n) / spread if spread > 0 else np.zeros(n_features)
    left = np.bincount(split.feature, np.abs(values - slope[split.feature] * split.feedback), n_features)
    silent = np.abs(stated).sum() - np.bincount(split.feature, np.abs(split.feedback), n_features)
    found: Floats = (left + np.abs(slope) * silent) / n
    return found


def _by_next_token(split: Split) -> tuple[Ints, Ints, Floats]:
    """Sum the credits on the same position by feature and next token: features, tokens and sums [pairs]."""
    known = split.next_token >= 0
    width = int(split.next_token.max(initial=0)) + 1
    keys, place = np.unique(split.feature[known] * width + split.next_token[known], return_inverse=True)
    sums = np.zeros(len(keys))
    np.add.at(sums, place, split.credits[1, known])
    return keys // width, keys % width, sums


def _largest(groups: Ints, order: Floats, n: int) -> Indices:
    """Return the indices of the `n` first of each group by `order`, group after group."""
    rows = np.lexsort((order, groups))
    starts = np.searchsorted(groups[rows], groups[rows])
    return rows[np.arange(len(rows)) - starts < n]


def _list_tokens(
    of_feature: Ints, tokens: Ints, sums: Floats, n_features: int, spelled: Sequence[str], *, sign: float = 1.0
) -> list[list[dict[str, Any]]]:
    """List each feature's tokens with the largest positive sums; their values are times `sign`."""
    lists: list[list[dict[str, Any]]] = [[] for _ in range(n_features)]
    kept = np.flatnonzero(sums > 0)
    for row in kept[_largest(of_feature[kept], -sums[kept], N_TOKENS)].tolist():
        lists[int(of_feature[row])].append({"token": spelled[int(tokens[row])], "value": sign * float(sums[row])})
    return lists


def sum_rows(text_id: int, text: TextCredits, places: Sequence[Place], place_of: Ints) -> list[dict[str, Any]]:
    """Return a text's rows of the table `credit_sums`."""
    sums = text.place_sums(place_of)
    return [
        {"text_id": text_id, "layer": place.layer, "site": place.site, "path": path}
        | dict(zip(("module", "features", "bias", "residual"), sums[:, p, number].tolist(), strict=True))
        for number, place in enumerate(places)
        if place.site != "resid_post"  # which no single module writes
        for p, path in sorted(enumerate(PATHS), key=lambda pair: pair[1])
    ]


def share_results(
    sums: Floats,
    tokens: Sequence[tuple[Floats, Floats]],
    places: Sequence[Place],
    draws: Draws,
    *,
    groups: Ints,
    **keys: Any,
) -> list[ResultRow]:
    """Return rows `feature_credits` by place: shares of the module's credit, and how features follow it by token.

    `sums` [texts, 4, paths, places] are those of `place_sums`; `tokens` has what features and module carry at each
    token of a place. Intervals are over `groups` [texts]. `check` is the largest miss of the three parts, relative to
    their sizes.
    """
    rows = []
    n = len(sums)
    for number, place in enumerate(places):
        own = keys | {"layer": place.layer, "site": place.site}
        for p, path in enumerate(PATHS):
            module, *parts = sums[:, :, p, number].T
            if not n or module.sum() == 0.0:
                continue
            columns = np.column_stack([*parts, module])
            low, high = interval_of_sums(_shares, columns, n=draws.bootstraps, rng=draws.rng(), groups=groups)
            for i, (metric, part) in enumerate(zip(("features", "bias", "residual"), parts, strict=True)):
                found = Estimate(float(part.sum() / module.sum()), n, float(low[i]), float(high[i]))
                rows.append(ResultRow.from_estimate("feature_credits", f"{metric}_share", found, group=path, **own))
        features, module = tokens[number]
        if np.ptp(module) > 0 and np.ptp(features) > 0:
            value = Estimate(float(np.corrcoef(features, module)[0, 1]), len(module))
            rows.append(ResultRow.from_estimate("feature_credits", "correlation", value, group=PATHS[1], **own))
    return [*rows, ResultRow.from_estimate("feature_credits", "check", largest_miss(sums), n=n, **keys)]


def control_results(
    texts: Sequence[TextCredits], places: Sequence[Place], draws: Draws, *, groups: Ints
) -> list[ResultRow]:
    """Return rows `feature_credits` by place: the share of the module's credit that a control's features carry.

    The control is a dictionary whose random decoder was frozen while the rest was trained like the dictionary's own.
    Intervals are over `groups` [texts]; a place without a control has no row.
    """
    rows = []
    carried = [text.control for text in texts if text.control is not None]
    if not carried:
        return []
    control, module = np.stack(carried), np.stack([text.modules.sum(2) for text in texts])
    for number, place in enumerate(places):
        for p, path in enumerate(PATHS):
            columns = np.column_stack([control[:, p, number], module[:, p, number]])
            total = columns.sum(0)
            if total[1] == 0.0 or np.isnan(total[0]):
                continue
            low, high = interval_of_sums(_shares, columns, n=draws.bootstraps, rng=draws.rng(), groups=groups)
            found = Estimate(float(total[0] / total[1]), len(texts), float(low[0]), float(high[0]))
            rows.append(
                ResultRow.from_estimate(
                    "feature_credits",
                    "control_share",
                    found,
                    group=path,
                    layer=place.layer,
                    site=place.site,
                    inputs=TRAINED_RANDOM,
                )
            )
    return rows


def cost_results(texts: Sequence[TextCredits]) -> list[ResultRow]:
    """Report how far modules' credits are from the ledger's at most, and what the split took."""
    if not texts:
        return []
    nodes, known = np.array([text.nodes for text in texts]), [text.error for text in texts if text.error == text.error]
    figures = {
        "nodes": nodes.mean(),
        "nodes_most": nodes.max(),
        "forward_passes": np.mean([text.forward_passes for text in texts]),
    } | ({"module_error": max(known)} if known else {})
    return [
        ResultRow.from_estimate("feature_credits", metric, float(value), n=len(texts))
        for metric, value in figures.items()
    ]


def _shares(sums: Floats) -> Floats:
    return np.asarray(sums[:, :-1] / sums[:, -1:])


def largest_miss(sums: Floats) -> float:
    """Return the largest |features + bias + residual - module| of a text and place, relative to the parts' sizes."""
    missed = np.abs(sums[:, 1:].sum(1) - sums[:, 0])
    size = np.abs(sums[:, 1:]).sum(1)
    return float((missed / np.where(size > 0, size, 1.0)).max(initial=0.0))


def largest_results(columns: Mapping[str, Any], n_texts: int) -> list[ResultRow]:
    """Return rows that name the features of the largest credit, and of the largest credit left unexplained."""
    rows = []
    for metric, ranks in (("credit", columns["rank"]), ("unexplained_credit", columns["unexplained_rank"])):
        for feature in np.argsort(ranks)[:N_NAMED].tolist():
            value = float(columns[metric][feature])
            if value == 0.0:
                continue
            ends = (float(columns[f"ci_{end}"][feature]) for end in ("low", "high"))
            found = Estimate(value, n_texts, *ends) if metric == "credit" else Estimate(value, n_texts)
            rows.append(ResultRow.from_estimate("feature_credits", metric, found, group=f"feature:{feature}"))
    return rows


def flags_of(counted: Sequence[bool] | None, n: int) -> Flags:
    """Return which of `n` tokens count: all, where none is marked."""
    flags = np.zeros(n, bool) if counted is None else np.array(counted, bool)
    return flags if flags.any() else np.ones(n, bool)
