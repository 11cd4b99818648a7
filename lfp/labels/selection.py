"""Which features a language model labels: stable, weighted, drifted and credited ones, and a random control."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow.compute as pc

from lfp.config import LabelsConfig
from lfp.labels.evidence import Tables
from lfp.util.types import Flags, Floats, Ints, floats

_NEAREST = 10  # features of similar density that a control is drawn from


def select_features(tables: Tables, config: LabelsConfig, *, seed: int) -> dict[str, list[int]]:
    """Select live features by group; a feature may be in several groups, those of `random` are in no other.

    stable: the most stable of each layer and site, by the cosine with their match in the other dictionary there (the
    paper's choice). weighted: the largest mean absolute contribution to the headline estimate. drifted: the
    contribution that tuning changed most. credited: the largest mean absolute credit for the implicit reward, none
    where the run did not split it over features. random: a control, drawn from features whose density is close to that
    of a selected one.
    """
    features = tables("features").sort_by("feature_id")
    density, stability = (floats(features, name) for name in ("density", "stability"))
    places = list(zip(features["layer"].to_pylist(), features["site"].to_pylist(), strict=True))
    numbers = {place: number for number, place in enumerate(sorted(set(places)))}
    of_place = np.array([numbers[place] for place in places], np.int64)
    live = floats(features, "n_active") > 0
    stable = [
        _largest(stability, live & ~np.isnan(stability) & (of_place == number), config.stable)
        for number in numbers.values()
    ]
    probes, weights = tables("probes"), tables("weights")
    headline = weights.filter(pc.is_in(weights["probe_id"], probes.filter(probes["is_headline"])["probe_id"]))
    contributions, drifts, credits = (np.zeros(len(live)) for _ in range(3))  # 0 for features that a table lacks
    contributions[headline["feature_id"].to_numpy()] = floats(headline, "mean_abs_contribution")
    drift = tables("drift")
    drifts[drift["feature_id"].to_numpy()] = np.abs(floats(drift, "drifted_contribution"))
    credited = tables("credits")
    credits[credited["feature_id"].to_numpy()] = floats(credited, "abs_credit")
    groups = {
        "stable": np.concatenate([np.zeros(0, np.int64), *stable]),
        "weighted": _largest(contributions, live, config.weighted),
        "drifted": _largest(drifts, live, config.drifted),
        "credited": _largest(credits, live, config.credited),
    }
    selected = np.unique(np.concatenate([np.zeros(0, np.int64), *groups.values()]))
    groups["random"] = _draw_controls(density, selected, live, n=config.random, rng=np.random.default_rng(seed))
    return {name: members.tolist() for name, members in groups.items()}


def interleave_groups(groups: Mapping[str, Sequence[int]]) -> list[int]:
    """List every feature once, taking one of each group in turn, so that a short budget serves all groups."""
    longest = max(map(len, groups.values()), default=0)
    turns = (members[i] for i in range(longest) for members in groups.values() if i < len(members))
    return list(dict.fromkeys(turns))


def _largest(values: Floats, allowed: Flags, n: int) -> Ints:
    """Ids of the `n` largest positive values among those allowed, largest first; of equal ones the lower id."""
    order = np.argsort(np.where(allowed, -values, np.inf), kind="stable")[:n]
    return order[allowed[order] & (values[order] > 0)]


def _draw_controls(density: Floats, selected: Ints, live: Flags, *, n: int, rng: np.random.Generator) -> Ints:
    """Draw up to `n` live features that are not selected, each of a density close to that of a selected one."""
    free = live.copy()
    free[selected] = False
    size = np.log(np.maximum(density, 1e-12))
    drawn: list[int] = []
    for feature in rng.permutation(selected).tolist():
        left = np.flatnonzero(free)
        if len(drawn) == n or not len(left):
            break
        near = left[np.argsort(np.abs(size[left] - size[feature]), kind="stable")[:_NEAREST]]
        drawn.append(int(rng.choice(near)))
        free[drawn[-1]] = False
    return np.array(drawn, np.int64)
