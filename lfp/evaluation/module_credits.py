"""Where in the model the implicit reward comes from: shares of modules, with intervals and nulls over texts."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from lfp.evaluation.results import KINDS, Estimate, ResultRow
from lfp.evaluation.statistics.resampling import Draws, interval_of_sums, permutations_of_groups, with_null
from lfp.evaluation.statistics.twins import beside_twins
from lfp.util.types import Flags, Floats, Ints, Place

FULL, SAME_POSITION = "full", "same_position"
"""Kinds of path, as the tables of credits name them."""
SECTION = "module_credits"

Key = tuple[int | None, str]
"""A module: its layer, None outside the layers, and its kind."""


@dataclass(frozen=True, eq=False)
class Credits:
    """Credits [texts, modules] in nats on one kind of path.

    They sum to `reward` [texts] over `n_tokens` [texts] tokens; texts of one of the `groups` [texts], such as a pair,
    depend on each other.
    """

    modules: tuple[Key, ...]
    values: Floats
    reward: Floats
    n_tokens: Ints
    groups: Ints
    path: str = FULL
    by_token: Floats | None = None
    """Sums over tokens of absolute credits [texts, modules], where texts were split token by token."""

    @property
    def is_nothing(self) -> bool:
        """Whether base and tuned model are equal, so that there is nothing to split."""
        return not self.values.any()

    def select(self, wanted: Collection[Key]) -> Flags:
        """Mark the modules [modules] that are among some."""
        return np.array([module in wanted for module in self.modules], bool)


def credit_rows(credits: Credits, draws: Draws) -> list[ResultRow]:
    """Report every kind of module, and every module of a layer: share, nats per token, and share of differences."""
    if credits.is_nothing:
        return []
    kinds = [kind for kind in KINDS if any(of == kind for _, of in credits.modules)]
    groups: list[tuple[Key, Flags]] = [
        ((None, kind), np.array([of == kind for _, of in credits.modules])) for kind in kinds
    ]
    groups += [(module, credits.select([module])) for module in credits.modules if module[0] is not None]
    return [row for (layer, kind), members in groups for row in group_rows(credits, members, kind, draws, layer=layer)]


def group_rows(
    credits: Credits, members: Flags, group: str, draws: Draws, *, layer: int | None = None
) -> Iterator[ResultRow]:
    """Report what some modules [modules] carry together, with 95 % intervals over texts.

    share: of the sum of absolute credits. nats: their credit per token, against texts whose credits keep their size but
    not their sign, which the texts of a group share. share_by_token: of the sum over tokens of absolute credits.
    differences: the share of what tells one text's implicit reward from another's, the covariance with it over its
    variance, against credits of these modules that are exchanged among groups of texts.
    """
    own = credits.values[:, members].sum(1)
    absolute = np.abs(credits.values[:, members]).sum(1)
    whole = np.abs(credits.values).sum(1)
    n_tokens = credits.n_tokens.astype(np.float64)
    columns = np.column_stack(
        [absolute, whole, own, n_tokens, own * credits.reward, credits.reward, credits.reward**2, np.ones(len(own))]
    )

    def figures(sums: Floats) -> Floats:
        absolute, whole, own, tokens, product, reward, square, n = sums.T
        covariance, variance = product - own * reward / n, square - reward**2 / n
        return np.column_stack([_divide(absolute, whole), _divide(own, tokens), _divide(covariance, variance)])

    values = figures(columns.sum(0)[None])[0]
    low, high = interval_of_sums(figures, columns, n=draws.bootstraps, rng=draws.rng(), groups=credits.groups)
    nulls = [None, _exchange_signs(own, credits, draws), _exchange_texts(own, credits, draws)]
    suffix = "" if credits.path == FULL else f"_{credits.path}"
    for place, metric in enumerate(("share", "nats", "differences")):
        figure = Estimate(float(values[place]), len(own), float(low[place]), float(high[place]))
        null = nulls[place]
        if null is not None:
            figure = with_null(figure, null, two_sided=metric == "nats")
        yield ResultRow.from_estimate(SECTION, metric + suffix, figure, model="difference", layer=layer, group=group)
    if credits.by_token is not None:
        found = _share_tokens(credits.by_token, members, credits.groups, draws)
        yield ResultRow.from_estimate(SECTION, "share_by_token", found, model="difference", layer=layer, group=group)


def _share_tokens(by_token: Floats, members: Flags, groups: Ints, draws: Draws) -> Estimate:
    """Estimate the share of the sum over tokens of absolute credits that some modules have."""
    columns = np.column_stack([by_token[:, members].sum(1), by_token.sum(1)])

    def share(sums: Floats) -> Floats:
        return _divide(sums[:, 0], sums[:, 1])[:, None]

    low, high = interval_of_sums(share, columns, n=draws.bootstraps, rng=draws.rng(), groups=groups)
    return Estimate(float(share(columns.sum(0)[None])[0, 0]), len(columns), float(low[0]), float(high[0]))


def _exchange_signs(own: Floats, credits: Credits, draws: Draws) -> Floats:
    """Return the credit per token of texts whose signs are exchanged [permutations], those of a group together."""
    of_groups = np.bincount(np.unique(credits.groups, return_inverse=True)[1], own)
    signs = draws.rng().choice([-1.0, 1.0], size=(draws.permutations, len(of_groups)))
    return np.asarray(signs @ of_groups / max(credits.n_tokens.sum(), 1.0))  # no tokens, nothing to split


def _divide(part: Floats, whole: Floats) -> Floats:
    """Return part / whole, 0 where there is no whole, as in a draw that holds one text alone."""
    return np.divide(part, whole, out=np.zeros(len(part)), where=whole > 0)


def _exchange_texts(own: Floats, credits: Credits, draws: Draws) -> Floats:
    """Return the share of differences that modules have whose credits are other groups' of texts [permutations]."""
    shuffled = permutations_of_groups(own, credits.groups, n=draws.permutations, rng=draws.rng())
    rewards = credits.reward - own + shuffled
    centred = rewards - rewards.mean(1, keepdims=True)
    return _divide((shuffled * centred).sum(1), (centred**2).sum(1))


def check_rows(error: Floats, nodes: Ints, forward_passes: float) -> list[ResultRow]:
    """Report how exactly the credits sum, and what they took."""
    if not len(error):
        return []
    n = len(error)
    figures = {"error": error.max(), "nodes": nodes.mean(), "nodes_most": nodes.max(), "forward_passes": forward_passes}
    return [
        ResultRow.from_estimate(SECTION, metric, float(value), model="difference", n=n)
        for metric, value in figures.items()
    ]


def with_twins(rows: Sequence[ResultRow], twins: Sequence[Sequence[ResultRow]]) -> list[ResultRow]:
    """Compare each share with the same of twins, models tuned on the same stated feedback by other seeds.

    The null is a further twin: its mean, the upper end of its 95 % interval, and two-sided p by Student's t.
    """
    if not twins:
        return list(rows)
    known = [{(row.metric, row.layer, row.group): row.value for row in of_twin} for of_twin in twins]
    found = []
    for row in rows:
        if row.metric.startswith("share"):
            values = np.array([of_twin.get((row.metric, row.layer, row.group), 0.0) for of_twin in known])
            null = beside_twins(row.value, values)
            row = replace(row, null_mean=null.null_mean, null_high=null.null_high, null_p=null.null_p)
        found.append(row)
    return found


def modules_read(modules: Sequence[Key], places: Collection[Place]) -> set[Key]:
    """Return the modules whose writes the dictionaries at some places see.

    A dictionary of the residual stream sees everything written up to its layer, the embedding included.
    """
    depth = max((place.layer for place in places if place.site == "resid_post"), default=-1)
    direct = {(place.layer, _KIND_OF_SITE[place.site]) for place in places if place.site != "resid_post"}
    return {
        module
        for module in modules
        if module in direct
        or (module[0] is not None and module[0] <= depth)
        or (depth >= 0 and module == (None, "embedding"))
    }


_KIND_OF_SITE = {"mlp_out": "mlp", "attn_out": "attention"}


def layer_shares(credits: Credits, sites: Collection[str], n_layers: int) -> Floats:
    """Return each layer's share of the absolute credits [n_layers], of the modules that write at some sites.

    The residual stream is written by all modules of a layer. 0 for all layers where the models are equal.
    """
    kinds = {_KIND_OF_SITE.get(site, "") for site in sites}
    size = np.abs(credits.values).sum(0)
    shares = np.zeros(n_layers)
    for (layer, kind), value in zip(credits.modules, size, strict=True):
        if layer is not None and (kind in kinds or "resid_post" in sites):
            shares[layer] += value / max(float(size.sum()), 1e-300)
    return shares


@dataclass(frozen=True, eq=False)
class WordCredits:
    """Means over contexts of what modules wrote before a word [words, modules], with 95 % intervals; `n` [words]."""

    mean: Floats
    low: Floats
    high: Floats
    n: Ints


def word_credits(values: Floats, words: Ints, n_words: int, *, groups: Ints) -> WordCredits:
    """Average the credits [occurrences, modules] of words [occurrences] over their contexts, with t intervals.

    Contexts of one of the `groups` [occurrences], a text or the two of a pair, depend on each other: the error is the
    jackknife's, of means without a group each, with as many degrees of freedom as groups less one. Where each context
    is a group, that is the usual interval of a mean; it is NaN where a word is in one group only.
    """
    from scipy.special import stdtrit

    n = np.bincount(words, minlength=n_words)
    sums, squares = np.zeros((2, n_words, values.shape[1]))
    np.add.at(sums, words, values)
    mean = sums / np.maximum(n, 1)[:, None]
    pairs, pair, sizes = np.unique(np.column_stack([words, groups]), axis=0, return_inverse=True, return_counts=True)
    moved = np.zeros((len(pairs), values.shape[1]))  # the mean less the mean without the group
    np.add.at(moved, pair, values - mean[words])
    of_word, n_groups = pairs[:, 0], np.bincount(pairs[:, 0], minlength=n_words)
    moved /= np.maximum(n[of_word] - sizes, 1)[:, None]
    np.add.at(squares, of_word, moved**2)
    several = np.where(n_groups > 1, n_groups, 2)
    error = np.sqrt(squares * ((several - 1) / several)[:, None])
    out = np.where(n_groups > 1, stdtrit(several - 1, 0.975), np.nan)[:, None] * error
    return WordCredits(mean, mean - out, mean + out, n)
