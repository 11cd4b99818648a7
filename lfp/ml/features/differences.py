"""What tuning changed of activations without any dictionary: the mean difference, and its principal components."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lfp.util.types import Place


@dataclass(frozen=True, eq=False)
class Direction:
    """A direction [d_model] of the differences tuned minus base at a place.

    `share` of the mean is its square over the mean square of the differences; of a component, its share of their
    variance. `size` is the length of the mean, or the standard deviation along the component.
    """

    place: Place
    rank: int
    """0 for the mean, then the components from 1."""
    vector: Tensor
    share: float
    size: float


class Differences:
    """Mean and second moments of the activations' differences by place, whatever the order of tokens."""

    def __init__(self, widths: Mapping[Place, int]) -> None:
        self.n_tokens = 0
        self._sums = {place: torch.zeros(d, dtype=torch.float64) for place, d in widths.items()}
        self._squares = {place: torch.zeros(d, d, dtype=torch.float64) for place, d in widths.items()}

    def update(self, tuned: Mapping[Place, Tensor], base: Mapping[Place, Tensor]) -> None:
        """Add both models' activations [n, d_model] at the same tokens."""
        for place, total in self._sums.items():
            difference = tuned[place] - base[place]
            total += difference.sum(0, dtype=torch.float64)
            self._squares[place] += (difference.T @ difference).double()
        self.n_tokens += len(next(iter(tuned.values())))

    def merge(self, other: Differences) -> None:
        """Add the differences of another part of the tokens."""
        for place, total in self._sums.items():
            total += other._sums[place]
            self._squares[place] += other._squares[place]
        self.n_tokens += other.n_tokens

    def directions(self, n_components: int) -> list[Direction]:
        """Return the mean and the largest principal components of every place.

        A component points where the mean does, since its sign is otherwise arbitrary.
        """
        return [direction for place in self._sums for direction in self._of_place(place, n_components)]

    def _of_place(self, place: Place, n_components: int) -> Sequence[Direction]:
        n = max(1, self.n_tokens)
        mean, second = self._sums[place] / n, self._squares[place] / n
        covariance = second - torch.outer(mean, mean)
        values, vectors = torch.linalg.eigh(covariance)
        values = values.clamp(min=0.0)
        power, variance = max(float(second.trace()), 1e-30), max(float(values.sum()), 1e-30)
        found = [Direction(place, 0, mean.float(), float(mean @ mean) / power, float(mean.norm()))]
        for rank in range(1, min(n_components, len(values)) + 1):
            value, vector = float(values[-rank]), vectors[:, -rank]
            vector = vector if float(vector @ mean) >= 0 else -vector
            found.append(Direction(place, rank, vector.float(), value / variance, value**0.5))
        return found
