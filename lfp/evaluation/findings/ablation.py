"""Ablations that prove labels: groups of features, matched controls of each, and what the measured effects say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lfp.evaluation.ablation_rows import CONTROL, FEATURE, controls_in, is_inert
from lfp.evaluation.results import Estimate, ResultRow
from lfp.evaluation.statistics.resampling import Draws, bootstrap, mean_interval, with_null
from lfp.evaluation.statistics.scores import spearman
from lfp.util.types import Flags, Floats, Ints

_NEAREST = 5  # like features that a control's is drawn from
_FEWEST = 4  # features that a rank correlation takes


@dataclass(frozen=True)
class Candidates:
    """What groups are made of, arrays [features].

    `weight` and the contributions are the headline probe's, `related` and `confidence` the labeller's (NaN where
    unknown). `density`, `energy` (mean of (activation * decoder norm)^2) and `mean_activation` are of the clean run's
    tokens, inputs scaled to unit mean square norm.
    """

    layer: Ints
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
        """Features that are active on the clean run, and so can be taken out of it."""
        return (self.density > 0) & (self.energy > 0)


@dataclass(frozen=True)
class Group:
    """Features that are taken out together; `control_of` names the group that a control is matched to."""

    name: str
    kind: str
    features: tuple[int, ...]
    control_of: str | None = None


def main_groups(known: Candidates, names: Sequence[str], *, size: int) -> list[Group]:
    """The groups of those names, at most `size` live features each; a group that would be empty is left out.

    related: called so by the labeller, most confident first, then by size of the mean contribution. weighted: those
    that raise the headline estimate most. both: the related ones among those that raise it.
    """
    groups = [Group(name, name, tuple(_ranked(known, name)[:size].tolist())) for name in names]
    return [group for group in groups if group.features]


def _ranked(known: Candidates, name: str) -> Ints:
    raises = known.mean_contribution > 0
    members: Mapping[str, Flags] = {
        "related": known.related,
        "weighted": raises,
        "both": known.related & raises,
    }
    found = np.flatnonzero(members[name] & known.is_live)
    size = np.abs(known.mean_contribution[found])
    if name == "related":
        confidence = np.nan_to_num(known.confidence[found], nan=-1.0)
        return found[np.lexsort((found, -size, -confidence))]
    return found[np.lexsort((found, -size))]


def single_groups(known: Candidates, *, n: int) -> list[Group]:
    """The `n` live features of the largest mean absolute contribution, a group each, largest first."""
    live = np.flatnonzero(known.is_live)
    top = live[np.lexsort((live, -known.mean_abs_contribution[live]))][:n]
    return [Group(f"feature:{feature}", FEATURE, (feature,)) for feature in top.tolist()]


def controls_of_singles(
    known: Candidates, singles: Sequence[Group], *, avoided: Sequence[int], n: int, seed: int
) -> list[Group]:
    """A matched control of `n` of the single features, evenly over their ranks; all n are every single one's null."""
    spread = [singles[i * len(singles) // n] for i in range(n)] if len(singles) > n else singles
    return [
        control
        for group in spread
        for control in matched_controls(known, group, avoided=avoided, n=1, seed=seed + group.features[0])
    ]


def matched_controls(known: Candidates, group: Group, *, avoided: Sequence[int], n: int, seed: int) -> list[Group]:
    """`n` controls of a group: every member's place taken by another live feature of its layer.

    It is drawn among the five nearest in (log density, log energy) that are not of the group, not `avoided` where as
    many others remain, and not in the control already. None where a layer has too few others.
    """
    pools = _pools(known, group, avoided)
    if pools is None:
        return []
    rng = np.random.default_rng(seed)
    place = np.log(np.column_stack([known.density, known.energy]).clip(min=1e-300))
    return [
        Group(f"{group.name}/control-{k + 1:02d}", CONTROL, _matched(known, group, pools, place, rng), group.name)
        for k in range(n)
    ]


def _pools(known: Candidates, group: Group, avoided: Sequence[int]) -> dict[int, Ints] | None:
    """By layer, which features may stand for the group's; None where some layer has fewer than the group."""
    pools = {}
    for layer in sorted({int(known.layer[feature]) for feature in group.features}):
        wanted = sum(int(known.layer[feature]) == layer for feature in group.features)
        others = np.setdiff1d(np.flatnonzero((known.layer == layer) & known.is_live), group.features)
        apart = np.setdiff1d(others, avoided)
        pools[layer] = apart if len(apart) >= wanted else others
        if len(others) < wanted:
            return None
    return pools


def _matched(
    known: Candidates, group: Group, pools: Mapping[int, Ints], place: Floats, rng: np.random.Generator
) -> tuple[int, ...]:
    """One control. Members that have the fewest like them choose first, since others find one all the same."""
    apart = {
        member: np.sort(_distances(place, pools[int(known.layer[member])], member))[:_NEAREST].max()
        for member in group.features
    }
    taken: dict[int, int] = {}
    for member in sorted(group.features, key=lambda one: (-apart[one], one)):
        free = np.setdiff1d(pools[int(known.layer[member])], list(taken.values()))
        nearest = free[np.argsort(_distances(place, free, member), kind="stable")[:_NEAREST]]
        taken[member] = int(rng.choice(nearest))
    return tuple(taken[member] for member in group.features)


def _distances(place: Floats, others: Ints, member: int) -> Floats:
    return np.asarray(((place[others] - place[member]) ** 2).sum(axis=1))


@dataclass(frozen=True)
class Measured:
    """What a model wrote after the prefixes with a group taken out: a score a completion, and the whole's measures.

    `perplexity` is under the base model, a token; `repetition` a share of trigrams.
    """

    scores: Floats
    perplexity: float
    repetition: float


@dataclass(frozen=True)
class Clean:
    """The untouched model's completions, and which prefixes are of one text [completions]."""

    measured: Measured
    clusters: Ints


def ablation_table(
    known: Candidates, groups: Mapping[Group, Measured], clean: Clean, *, scale: float, draws: Draws
) -> list[dict[str, Any]]:
    """Rows of the table `ablations`: effects are paired by prefix, their intervals over texts.

    A group's `null_high` is the 95th percentile of the size of its controls' effects; of single features, of all single
    controls' together.
    """
    rows = [_row(known, group, after, clean, scale=scale, draws=draws) for group, after in groups.items()]
    for row in rows:
        sizes = [abs(one["effect"]) for one in controls_in(row, rows)]
        row["null_high"] = float(np.quantile(sizes, 0.95)) if sizes else None
    return rows


def _row(
    known: Candidates, group: Group, after: Measured, clean: Clean, *, scale: float, draws: Draws
) -> dict[str, Any]:
    before, members = clean.measured, np.array(group.features, np.int64)
    change, layers = after.scores - before.scores, set(known.layer[members].tolist())
    low, high = mean_interval(change, n=draws.bootstraps, rng=draws.rng(), groups=clean.clusters)
    predicted = (scale - 1.0) * float(known.weight[members] @ known.mean_activation[members])
    return {
        "group": group.name,
        "kind": group.kind,
        "control_of": group.control_of,
        "features": sorted(group.features),
        "layer": layers.pop() if len(layers) == 1 else None,
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
        "density": float(known.density[members].mean()),
        "removed_energy": float(known.energy[members].sum()),
    }


def single_figures(rows: Sequence[Mapping[str, Any]], draws: Draws, **keys: Any) -> list[ResultRow]:
    """Report row `ablation` of single features: predicted against measured effect, and what is important but inert.

    predicted_measured is Spearman's rank correlation over the features, its null deals the measured effects anew.
    `inert` names each feature without an effect, with the effect predicted of it, largest first.
    """
    singles = [row for row in rows if row["kind"] == FEATURE]
    inert = sorted((row for row in singles if is_inert(row)), key=lambda row: -abs(row["predicted_effect"]))
    if not singles:
        return []
    return [
        *_predicted_measured(singles, draws, keys),
        ResultRow.from_estimate("ablation", "inert_count", len(inert), group="features", n=len(singles), **keys),
        ResultRow.from_estimate(
            "ablation", "inert_share", len(inert) / len(singles), group="features", n=len(singles), **keys
        ),
        *(
            ResultRow.from_estimate(
                "ablation", "inert", row["predicted_effect"], group=row["group"], layer=row["layer"], **keys
            )
            for row in inert
        ),
    ]


def _predicted_measured(singles: Sequence[Mapping[str, Any]], draws: Draws, keys: Mapping[str, Any]) -> list[ResultRow]:
    if len(singles) < _FEWEST:
        return []
    measured, predicted = (np.array([row[name] for row in singles]) for name in ("effect", "predicted_effect"))
    low, high = bootstrap(spearman, measured, predicted, n=draws.bootstraps, rng=draws.rng())
    rng = draws.rng()
    nulls = np.array([spearman(rng.permutation(measured), predicted) for _ in range(draws.permutations)])
    found = with_null(Estimate(spearman(measured, predicted), len(singles), low, high), nulls)
    return [ResultRow.from_estimate("ablation", "predicted_measured", found, group="features", **keys)]
