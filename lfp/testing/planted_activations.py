"""Activations made from a known dictionary, to tell whether an autoencoder finds it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

_CHUNK = 8192


@dataclass(frozen=True)
class PlantedDictionary:
    """Unit directions that are active together at random: x = c D + noise, with about `l0` of the c not zero.

    A direction's chance falls as a power of its rank, as in dictionaries of language models; its coefficient, where
    active, is 0.5 plus an exponential of mean 1.
    """

    d_in: int
    n_directions: int
    l0: float = 16.0
    noise: float = 0.02
    seed: int = 0

    @cached_property
    def directions(self) -> Tensor:
        """The dictionary, [n_directions, d_in]."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003)
        return F.normalize(torch.randn(self.n_directions, self.d_in, generator=generator), dim=1)

    def outputs(self, n: int, *, part: int = 1) -> Tensor:
        """Activations [n, d_in]; another part (1, 2, ...), others."""
        generator, parts = torch.Generator().manual_seed(self.seed * 1_000_003 + part), []
        chance = (torch.arange(self.n_directions) + 10.0) ** -0.6
        chance = (chance / chance.sum() * self.l0).clamp(max=0.5)
        for done in range(0, n, _CHUNK):
            size = min(_CHUNK, n - done)
            active = torch.rand(size, self.n_directions, generator=generator) < chance
            coefficients = 0.5 + torch.empty(active.shape).exponential_(generator=generator)
            noise = self.noise * torch.randn(size, self.d_in, generator=generator)
            parts.append((active * coefficients) @ self.directions + noise)
        return torch.cat(parts)

    def cosines(self, decoder: Tensor) -> Tensor:
        """For each direction its largest cosine with a row of a decoder [width, d_in]: [n_directions]."""
        return (self.directions @ F.normalize(decoder, dim=1).T).max(1).values
