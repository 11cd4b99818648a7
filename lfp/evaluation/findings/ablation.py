"""Ablations that test labels: groups of features, matched controls of each, and what the measured effects say."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lfp.evaluation.contrasts import add_contrasts
from lfp.evaluation.results import CONTROL, FEATURE, Estimate, ResultRow, controls_in, is_inert
from lfp.evaluation.statistics.resampling import Draws, bootstrap, mean_interval, with_null
from lfp.evaluation.statistics.scores import spearman
from lfp.util.types import Flags, Floats, Ints, Place

_NEAREST = 5  # similar features that a control's feature is drawn from
_FEWEST = 4  # features that a rank correlation needs


@dataclass(frozen=True)
class Candidates:
    """The features that groups are chosen from, arrays [features].

    `weight` and the contributions are the headline probe's, `related` and `confidence` the labeller's (NaN where
    unknown). `density`, `energy` (mean of (activation * decoder norm)^2) and `mean_activation` are over the clean run's
    tokens, inputs scaled to unit mean square norm. `place` is the index in `places` of where each is read.
    """

    places: Sequence[Place]
    place: Ints
    weight: Floats
    mean_contribution: Floats
    mean_abs_contribution: Floats
    related: Flags
    confidence: Floats
    density: Floats
    energy: Floats
    mean_activation: Floats

    @property
    def is_live(self) -> Flags:
        """Features that are active on the clean run, and so can be ablated."""
        return (self.density > 0) & (self.energy > 0)


@dataclass(frozen=True)
class Group:
    """Features that are ablated together; `control_of` names the group that a control is matched to."""

    name: str
    kind: str
    features: tuple[int, ...]
    control_of: str | None = None


def main_groups(known: Candidates, names: Sequence[str], *, size: int) -> list[Group]:
    """Build the groups of those names, at most `size` live features each; empty groups are left out.

    related: called so by the labeller, most confident first, then by size of the mean contribution. weighted: those
    that raise the headline estimate most. both: the related ones among those that raise it.
    """
    raises = known.mean_contribution > 0
    members = {"related": known.related, "weighted": raises, "both": known.related & raises}
    groups = []
    for name in names:
        found = np.flatnonzero(members[name] & known.is_live)
        order = [found, -np.abs(known.mean_contribution[found])]  # the last key counts most
        if name == "related":
            order.append(-np.nan_to_num(known.confidence[found], nan=-1.0))
        groups.append(Group(name, name, tuple(found[np.lexsort(order)][:size].tolist())))
    return [group for group in groups if group.features]


def single_groups(known: Candidates, *, n: int) -> list[Group]:
    """Build a group of each of the `n` live features with the largest mean absolute contribution, largest first."""
    live = np.flatnonzero(known.is_live)
    top = live[np.lexsort((live, -known.mean_abs_contribution[live]))][:n]
    return [Group(f"feature:{feature}", FEATURE, (feature,)) for feature in top.tolist()]


def controls_of_singles(
    known: Candidates, singles: Sequence[Group], *, avoided: Sequence[int], n: int, seed: int
) -> list[Group]:
    """Match a control to `n` of the single features, evenly over their ranks; together they are the null of each."""
    spread = [singles[i * len(singles) // n] for i in range(n)] if len(singles) > n else singles
    return [
        control
        for group in spread
        for control in matched_controls(known, group, avoided=avoided, n=1, seed=seed + group.features[0])
    ]


def matched_controls(known: Candidates, group: Group, *, avoided: Sequence[int], n: int, seed: int) -> list[Group]:
    """Draw `n` controls of a group: every member is replaced by another live feature of its layer and site.

    It is drawn among the five nearest in (log density, log energy) that are not of the group, not `avoided` where as
    many others remain, and not in the control already. No controls where a place has too few others.
    """
    pools = {}
    for number in sorted({int(known.place[feature]) for feature in group.features}):
        wanted = sum(int(known.place[feature]) == number for feature in group.features)
        others = np.setdiff1d(np.flatnonzero((known.place == number) & known.is_live), group.features)
        if len(others) < wanted:
            return []
        apart = np.setdiff1d(others, avoided)
        pools[number] = apart if len(apart) >= wanted else others
    rng = np.random.default_rng(seed)
    sizes = np.log(np.column_stack([known.density, known.energy]).clip(min=1e-300))
    return [
        Group(f"{group.name}/control-{k + 1:02d}", CONTROL, _match(known, group, pools, sizes, rng), group.name)
        for k in range(n)
    ]


def _match(
    known: Candidates, group: Group, pools: Mapping[int, Ints], sizes: Floats, rng: np.random.Generator
) -> tuple[int, ...]:
    """Draw one control. Members with the fewest similar features choose first; the others will find some anyway."""

    def distances(member: int, others: Ints) -> Floats:
        return np.asarray(((sizes[others] - sizes[member]) ** 2).sum(axis=1))

    isolation = {
        member: np.sort(distances(member, pools[int(known.place[member])]))[:_NEAREST].max()
        for member in group.features
    }
    taken: dict[int, int] = {}
    for member in sorted(group.features, key=lambda feature: (-isolation[feature], feature)):
        free = np.setdiff1d(pools[int(known.place[member])], list(taken.values()))
        nearest = free[np.argsort(distances(member, free), kind="stable")[:_NEAREST]]
        taken[member] = int(rng.choice(nearest))
    return tuple(taken[member] for member in group.features)


@dataclass(frozen=True)
class Measured:
    """What a model wrote after the prefixes with a group ablated: a score per completion, and measures of the whole.

    `perplexity` is per token under the base model; `repetition` is a share of trigrams.
    """

    scores: Floats
    perplexity: float
    repetition: float


@dataclass(frozen=True)
class Clean:
    """The intact model's completions, the text of each prefix [completions], and the mean scores of all clean runs."""

    measured: Measured
    clusters: Ints
    means: tuple[float, ...] = ()


def ablation_table(
    known: Candidates, groups: Mapping[Group, Measured], clean: Clean, *, scale: float, draws: Draws
) -> list[dict[str, Any]]:
    """Compute the rows of the table `ablations`: effects are paired by prefix, their intervals over texts.

    A group's `null_high` is the 95th percentile of the size of its controls' effects; of single features, of all single
    controls' together. `contrast` compares the group with the mean of the same controls at the same prefixes.
    """
    rows = [_row(known, group, after, clean, scale=scale, draws=draws) for group, after in groups.items()]
    scores = {group.name: after.scores for group, after in groups.items()}
    for row in rows:
        controls = controls_in(row, rows)
        sizes = [abs(control["effect"]) for control in controls]
        row["null_high"] = float(np.quantile(sizes, 0.95)) if sizes else None
        row["contrast_low"] = row["contrast_high"] = None
        if controls and row["kind"] != CONTROL:
            _, row["contrast_low"], row["contrast_high"] = contrast_scores(
                scores[row["group"]],
                [scores[control["group"]] for control in controls],
                clusters=clean.clusters,
                draws=draws,
            )
    return add_contrasts(rows)


def contrast_scores(
    scores: Floats, controls: Sequence[Floats], *, clusters: Ints, draws: Draws
) -> tuple[float, float, float]:
    """Return how far scores [completions] are from the mean of controls' at the same prefixes, and its interval.

    All were written with the same draws, and no clean run, whose luck effects share, is in it.
    """
    change = scores - np.mean(controls, axis=0)
    low, high = mean_interval(change, n=draws.bootstraps, rng=draws.rng(), groups=clusters)
    return float(change.mean()), low, high


def _row(
    known: Candidates, group: Group, after: Measured, clean: Clean, *, scale: float, draws: Draws
) -> dict[str, Any]:
    before, members = clean.measured, np.array(group.features, np.int64)
    change, places = after.scores - before.scores, {known.places[number] for number in known.place[members]}
    low, high = mean_interval(change, n=draws.bootstraps, rng=draws.rng(), groups=clean.clusters)
    predicted = (scale - 1.0) * float(known.weight[members] @ known.mean_activation[members])
    return {
        "group": group.name,
        "kind": group.kind,
        "control_of": group.control_of,
        "features": sorted(group.features),
        **_common_place(places),
        "scale": scale,
        "n_completions": len(change),
        "reward_before": float(before.scores.mean()),
        "reward_after": float(after.scores.mean()),
        "effect": float(change.mean()),
        "ci_low": low,
        "ci_high": high,
        "predicted_effect": predicted,
        "perplexity": after.perplexity,
        "perplexity_before": before.perplexity,
        "repetition": after.repetition,
        "repetition_before": before.repetition,
        "reward_clean": float(np.mean(clean.means)) if clean.means else None,
        "clean_runs": len(clean.means) or None,
        "density": float(known.density[members].mean()),
        "removed_energy": float(known.energy[members].sum()),
    }


def _common_place(places: Collection[Place]) -> dict[str, Any]:
    """Return the layer where all are of one, and the site where all are of one place; None elsewhere."""
    layers = {place.layer for place in places}
    return {
        "layer": min(layers) if len(layers) == 1 else None,
        "site": next(iter(places)).site if len(places) == 1 else None,
    }


def single_figures(rows: Sequence[Mapping[str, Any]], draws: Draws, **keys: Any) -> list[ResultRow]:
    """Compute report row `ablation` of single features: predicted against measured effect, and inert features.

    predicted_measured is Spearman's rank correlation over the features; its null permutes the measured effects.
    `inert` names each feature without an effect, with the effect predicted of it, largest first.
    """
    singles = [row for row in rows if row["kind"] == FEATURE]
    if not singles:
        return []
    inert = sorted((row for row in singles if is_inert(row)), key=lambda row: -abs(row["predicted_effect"]))
    of_all = {"group": "features", "n": len(singles), **keys}
    found = [
        ResultRow.from_estimate("ablation", "inert_count", len(inert), **of_all),
        ResultRow.from_estimate("ablation", "inert_share", len(inert) / len(singles), **of_all),
    ]
    for row in inert:
        own = {"group": row["group"], "layer": row["layer"], "site": row["site"], **keys}
        found.append(ResultRow.from_estimate("ablation", "inert", row["predicted_effect"], **own))
    if len(singles) < _FEWEST:
        return found
    measured, predicted = (np.array([row[name] for row in singles]) for name in ("effect", "predicted_effect"))
    low, high = bootstrap(spearman, measured, predicted, n=draws.bootstraps, rng=draws.rng())
    rng = draws.rng()
    nulls = np.array([spearman(rng.permutation(measured), predicted) for _ in range(draws.permutations)])
    correlation = with_null(Estimate(spearman(measured, predicted), len(singles), low, high), nulls)
    return [ResultRow.from_estimate("ablation", "predicted_measured", correlation, group="features", **keys), *found]
