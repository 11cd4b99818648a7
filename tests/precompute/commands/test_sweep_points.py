"""The points of a sweep: which there are, how each is trained, what cannot be, and how alike dictionaries are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lfp.config import RunConfig, SweepConfig, parse_config
from lfp.errors import ConfigError
from lfp.ml.sae.autoencoders import SAES, Sae, SaeInfo
from lfp.util.types import Place
from precompute.commands.sweep import Likeness, Point, build_points, check_k
from precompute.run.work_folder import Run
from tests.precompute.conftest import silent


def test_a_setting_varies_only_the_variants_that_have_it() -> None:
    grid = SweepConfig(l1=(0.1, 0.2), k=(4, 8, 16), l0_weight=(0.01,), expansion=(2,))
    points = build_points(RunConfig(), grid)
    settings = {name: [point.value for point in points if point.variant == name] for name in SAES}
    assert settings == {
        "tied_relu": [0.1, 0.2],
        "relu": [0.1, 0.2],
        "topk": [4, 8, 16],
        "batchtopk": [4, 8, 16],
        "jumprelu": [0.01],
    }


def test_what_the_sweep_does_not_name_is_the_sae_sections() -> None:
    config = parse_config({"seed": 7, "sae": {"expansion": [3, 3, 5], "l1": 0.5, "k": 9, "l0_weight": 0.25}})
    points = build_points(config, SweepConfig())
    assert len(points) == len(SAES) * 2 == len(set(points))
    assert {point.expansion for point in points} == {3, 5} and {point.seed for point in points} == {7}
    assert {point.value for point in points} == {0.5, 9, 0.25}


def test_a_point_is_trained_with_its_own_setting_and_rate() -> None:
    config = parse_config({"sae": {"learning_rate": 0.5, "steps": 77}})
    grid = SweepConfig.model_validate({"learning_rate": {"topk": 0.125}})
    topk, relu = (
        point.training(config, grid) for point in (Point("topk", "k", 4, 2, 0), Point("relu", "l1", 0.25, 2, 0))
    )
    assert (topk.variant, topk.k, topk.learning_rate, topk.steps) == ("topk", 4, 0.125, 77)
    assert (relu.variant, relu.l1, relu.learning_rate, relu.k) == ("relu", 0.25, 0.5, config.sae.k)


def test_a_point_says_what_it_is() -> None:
    point = Point("topk", "k", 16, 4, 0)
    assert point.group == "variant=topk,k=16,expansion=4,seed=0"
    info = point.info(place=Place(3), d_in=10, scale=0.5)
    assert info == SaeInfo(3, 40, 10, 0.5, None, 0, "tuned", variant="topk", k=16)
    info = Point("jumprelu", "l0_weight", 0.5, 4, 0).info(place=Place(3), d_in=10, scale=0.5)
    assert (info.l1, info.k, info.l0_weight) == (None, None, 0.5)


@pytest.mark.parametrize(
    ("section", "says"),
    [
        ({"k": [4, 8, 4]}, "names a value twice"),
        ({"seeds": [1, 1]}, "names a value twice"),
        ({"k": []}, "sweep.k"),
        ({"k": [0]}, "sweep.k"),
        ({"l1": [-0.1]}, "sweep.l1"),
        ({"variants": []}, "sweep.variants"),
        ({"variants": ["gated"]}, "sweep.variants"),
        ({"learning_rate": {"relu": 0.0}}, "sweep.learning_rate.relu"),
        ({"learning_rate": {"gated": 0.1}}, "sweep.learning_rate.gated"),
    ],
)
def test_a_grid_that_cannot_be_is_refused(section: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        parse_config({"sweep": section})


@given(st.integers(1, 40), st.integers(1, 4))
def test_k_is_refused_just_where_it_is_more_than_the_features(k: int, expansion: int) -> None:
    config = parse_config({"pretrain": {"d_model": 8, "n_heads": 2}})
    run = Run(config, Path("nowhere"), None, silent)
    points = build_points(config, SweepConfig(variants=("topk",), k=(k,), expansion=(expansion,)))
    if k <= 8 * expansion:
        check_k(run, points)
    else:
        with pytest.raises(ConfigError, match=f"k {k} is more than the {8 * expansion} features"):
            check_k(run, points)


def dictionary(rows: list[list[float]]) -> Sae:
    """An autoencoder with these decoder rows."""
    sae = SAES["relu"](SaeInfo(0, len(rows), len(rows[0]), 1.0, 0.1, 0, "tuned", variant="relu"))
    sae.W_dec.data.copy_(torch.tensor(rows))
    return sae


def test_sizes_and_seeds_are_matched_within_their_setting() -> None:
    east, north, west = [1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]
    one = Point("relu", "l1", 0.1, 1, 0)
    grid = [one, replace(one, expansion=2), replace(one, seed=1), replace(one, value=0.2)]
    saes = [dictionary(rows) for rows in ([east], [north, east, west], [north], [west])]
    found = [Likeness(grid, saes).measure(number) for number in range(4)]
    assert found == [
        {"mmcs": 1.0, "mmcs_seeds": 0.0},
        {"mmcs": 1.0, "mmcs_seeds": None},
        {"mmcs": None, "mmcs_seeds": 0.0},
        {"mmcs": None, "mmcs_seeds": None},
    ]


def test_of_three_sizes_each_is_matched_with_the_next_and_of_three_seeds_with_all_others() -> None:
    a, b, c = [1.0, 0.0], [0.6, 0.8], [0.0, 1.0]
    one = Point("relu", "l1", 0.1, 1, 0)
    saes = [dictionary([row]) for row in (a, b, c)]
    by_size = Likeness([replace(one, expansion=size) for size in (4, 1, 2)], saes)
    assert [by_size.measure(i)["mmcs"] for i in range(3)] == pytest.approx([0.0, 0.8, 0.0])
    by_seed = Likeness([replace(one, seed=seed) for seed in range(3)], saes)
    assert [by_seed.measure(i)["mmcs_seeds"] for i in range(3)] == pytest.approx([0.3, 0.7, 0.4])
