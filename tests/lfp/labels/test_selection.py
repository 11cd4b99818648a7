"""Which features are asked about: the ones each group says, live ones only, and a control as often active."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from lfp.bundle.manifest import read_table
from lfp.config import LabelsConfig
from lfp.labels.selection import interleave_groups, select_features


def tables(n: int = 60, *, seed: int = 0):  # type: ignore[no-untyped-def]
    """Features of two layers with random figures; every tenth never fires."""
    rng = np.random.default_rng(seed)
    live = np.arange(n) % 10 > 0
    made = {
        "features": pa.table({
            "feature_id": np.arange(n), "layer": np.arange(n) % 2, "site": ["mlp_out"] * n,
            "density": rng.lognormal(-4, 1, n) * live,
            "n_active": rng.integers(1, 99, n) * live, "stability": rng.random(n),
        }),
        "probes": pa.table({"probe_id": [4, 7], "is_headline": [False, True]}),
        "weights": pa.table({
            "probe_id": np.repeat([4, 7], n), "feature_id": np.tile(np.arange(n), 2),
            "mean_abs_contribution": np.concatenate([np.arange(n, dtype=float), np.arange(n)[::-1].astype(float)]),
        }),
        "drift": pa.table({"feature_id": np.arange(n), "drifted_contribution": np.where(np.arange(n) < 30, -1, 0.5)}),
        "credits": pa.table({"feature_id": np.arange(n), "abs_credit": (np.arange(n) % 7).astype(float)}),
    }  # fmt: skip
    return made.__getitem__


def test_each_group_holds_the_largest_of_its_kind() -> None:
    config = LabelsConfig(stable=3, weighted=4, drifted=5, credited=2, random=6)
    found, given = select_features(tables(), config, seed=0), tables()
    stability = np.array(given("features")["stability"])
    for layer in (0, 1):
        of_layer = [i for i in found["stable"] if i % 2 == layer]
        others = [i for i in range(60) if i % 2 == layer and i % 10 and i not in of_layer]
        assert len(of_layer) == 3 and stability[of_layer].min() >= stability[others].max()
    assert found["weighted"] == [1, 2, 3, 4], "the headline's, not another probe's; 0 never fires"
    assert found["drifted"] == [1, 2, 3, 4, 5] and found["credited"] == [6, 13]
    assert len(found["random"]) == len(set(found["random"])) == 6
    assert not set(found["random"]) & {i for name in ("stable", "weighted", "drifted", "credited") for i in found[name]}
    assert all(i % 10 for members in found.values() for i in members), "only features that fire"
    assert found == select_features(tables(), config, seed=0)
    assert found["random"] != select_features(tables(), config, seed=1)["random"]


def test_the_control_is_as_often_active_as_the_named() -> None:
    given = tables(600)
    found = select_features(given, LabelsConfig(stable=0, weighted=40, drifted=0, credited=0, random=40), seed=0)
    density = np.log(np.maximum(np.array(given("features")["density"]), 1e-12))
    assert abs(density[found["random"]].mean() - density[found["weighted"]].mean()) < 0.1


def test_features_are_taken_from_all_groups_by_turns() -> None:
    assert interleave_groups({"a": [1, 2, 3], "b": [2, 9], "c": []}) == [1, 2, 9, 3]
    assert interleave_groups({}) == []


@pytest.mark.parametrize("which", ["bundle", "empty_bundle"])
def test_a_bundle_gives_its_features(which: str, request: pytest.FixtureRequest) -> None:
    path: Path = request.getfixturevalue(which)
    found = select_features(lambda name: read_table(path, name), LabelsConfig(), seed=0)
    assert set(found) == {"stable", "weighted", "drifted", "credited", "random"}
    assert bool(interleave_groups(found)) == (which == "bundle")
