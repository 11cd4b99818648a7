"""Which features a language model is asked about: the stable, the weighty, the drifted, and a control beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lfp.config import LabelsConfig
from lfp.labels.evidence import Tables
from lfp.util.arrow import floats
from lfp.util.types import Floats, Ints

CONTROL = "random"
_NEAREST = 10  # features of like density that a control is drawn among


def chosen(tables: Tables, config: LabelsConfig, *, seed: int) -> dict[str, list[int]]:
    """Features by why they were chosen; one may be in several groups, those of `random` are in no other.

    stable: the most stable of each layer, by the cosine with their match in the layer's other dictionary (the paper's
    choice). weighted: the largest mean absolute contribution to the headline estimate. drifted: the contribution that
    tuning changed most. random: for one after another of these, another feature of like density. Only features that
    fire are chosen.
    """
    features = tables("features").sort_by("feature_id")
    density = floats(features, "density")
    live = floats(features, "n_active") > 0
    groups = {
        "stable": _stable(features, live, config.stable),
        "weighted": _largest(_contributions(tables, len(density)), live, config.weighted),
        "drifted": _largest(_drifts(tables, len(density)), live, config.drifted),
    }
    named = np.unique(np.concatenate([np.zeros(0, np.int64), *groups.values()]))
    groups[CONTROL] = _alike(density, named, live, n=config.random, rng=np.random.default_rng(seed))
    return {name: members.tolist() for name, members in groups.items()}


def every(groups: Mapping[str, Sequence[int]]) -> list[int]:
    """All features of the groups, each once, one of every group by turns: a budget that runs out starves none first."""
    longest = max(map(len, groups.values()), default=0)
    turns = (members[i] for i in range(longest) for members in groups.values() if i < len(members))
    return list(dict.fromkeys(turns))


def _stable(features: pa.Table, live: NDArray[np.bool_], per_layer: int) -> Ints:
    stability, layers = floats(features, "stability"), floats(features, "layer")
    known = live & ~np.isnan(stability)
    of_layers = [_largest(stability, known & (layers == layer), per_layer) for layer in np.unique(layers)]
    return np.concatenate([np.zeros(0, np.int64), *of_layers])


def _contributions(tables: Tables, n: int) -> Floats:
    """Mean absolute contribution to the headline estimate [features]; 0 where no probe reads a feature."""
    probes, weights = tables("probes"), tables("weights")
    headline = probes.filter(probes["is_headline"])["probe_id"]
    return _spread(weights.filter(pc.is_in(weights["probe_id"], headline)), "mean_abs_contribution", n)


def _drifts(tables: Tables, n: int) -> Floats:
    return np.abs(_spread(tables("drift"), "drifted_contribution", n))


def _spread(table: pa.Table, name: str, n: int) -> Floats:
    values = np.zeros(n)
    values[table["feature_id"].to_numpy()] = floats(table, name)
    return values


def _largest(values: Floats, allowed: NDArray[np.bool_], n: int) -> Ints:
    """The `n` largest positive values among those allowed, largest first; of equals the lower number."""
    order = np.argsort(np.where(allowed, -values, np.inf), kind="stable")[:n]
    return order[allowed[order] & (values[order] > 0)]


def _alike(density: Floats, named: Ints, live: NDArray[np.bool_], *, n: int, rng: np.random.Generator) -> Ints:
    """Up to `n` live features that are not named, each of a density near that of one that is."""
    free = live.copy()
    free[named] = False
    size = np.log(np.maximum(density, 1e-12))
    drawn: list[int] = []
    for model in rng.permutation(named).tolist():
        left = np.flatnonzero(free)
        if len(drawn) == n or not len(left):
            break
        near = left[np.argsort(np.abs(size[left] - size[model]), kind="stable")[:_NEAREST]]
        drawn.append(int(rng.choice(near)))
        free[drawn[-1]] = False
    return np.array(drawn, np.int64)
