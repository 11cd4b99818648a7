"""How alike a sweep's dictionaries are: matched within their setting, across sizes and across seeds."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from lfp.ml.sae.autoencoders import SAES, Sae, SaeInfo
from precompute.commands.sweep import Likeness, Point


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
