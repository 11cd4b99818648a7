"""How alike a sweep's dictionaries of one setting are, in other sizes and from other seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean
from typing import TYPE_CHECKING

from precompute.sweep_grid import Point

if TYPE_CHECKING:
    from lfp.ml.sae.autoencoders import Sae


class Likeness:
    """The autoencoders of one layer, in the order of the grid; each pair is matched once."""

    def __init__(self, grid: Sequence[Point], saes: Sequence[Sae]) -> None:
        self._grid, self._saes = grid, saes
        self._found: dict[frozenset[int], float] = {}

    def of(self, number: int) -> dict[str, float | None]:
        """Mean cosines of Hungarian-matched features, null where there is nothing to match with.

        `mmcs`: with the next larger size, the largest with the next smaller; `mmcs_seeds`: the mean over other seeds.
        """
        size, seeds = self._nearest_size(number), self._others(number, "seed")
        return {
            "mmcs": None if size is None else self._mmcs(number, size),
            "mmcs_seeds": fmean(self._mmcs(number, other) for other in seeds) if seeds else None,
        }

    def _nearest_size(self, number: int) -> int | None:
        sizes = sorted([number, *self._others(number, "expansion")], key=lambda i: self._grid[i].expansion)
        if len(sizes) == 1:
            return None
        place = sizes.index(number)
        return sizes[place + 1] if place + 1 < len(sizes) else sizes[place - 1]

    def _others(self, number: int, name: str) -> list[int]:
        """The points that differ from one in `name` alone."""
        one = self._grid[number]
        return [
            i
            for i, other in enumerate(self._grid)
            if i != number and replace(other, **{name: getattr(one, name)}) == one
        ]

    def _mmcs(self, number: int, other: int) -> float:
        from lfp.ml.sae.quality import matched_cosines

        pair = frozenset((number, other))
        if pair not in self._found:
            small, large = sorted((self._saes[i].decoder.detach() for i in sorted(pair)), key=len)
            self._found[pair] = matched_cosines(small, large)[0].double().mean().item()
        return self._found[pair]
