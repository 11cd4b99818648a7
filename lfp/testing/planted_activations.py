"""Activations made from a known dictionary, to tell whether an autoencoder finds it."""

from __future__ import annotations

from collections.abc import Iterator
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
        parts = []
        for generator, active, coefficients in self._draw(n, part=part):
            noise = self.noise * torch.randn(len(active), self.d_in, generator=generator)
            parts.append((active * coefficients) @ self.directions + noise)
        return torch.cat(parts)

    def _draw(self, n: int, *, part: int) -> Iterator[tuple[torch.Generator, Tensor, Tensor]]:
        """Draw which directions are active and their coefficients [tokens, n_directions], chunk by chunk."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + part)
        chance = (torch.arange(self.n_directions) + 10.0) ** -0.6
        chance = (chance / chance.sum() * self.l0).clamp(max=0.5)
        for done in range(0, n, _CHUNK):
            size = min(_CHUNK, n - done)
            active = torch.rand(size, self.n_directions, generator=generator) < chance
            yield generator, active, 0.5 + torch.empty(active.shape).exponential_(generator=generator)

    def pair(self, n: int, *, scales: Tensor, part: int = 1) -> tuple[Tensor, Tensor]:
        """Activations [n, d_in] of a tuned and a base model at the same tokens.

        In the base model direction i is `scales[i]` times as strong, 0 where tuning brought it; noise is drawn apart.
        """
        tuned, base = list[Tensor](), list[Tensor]()
        for generator, active, coefficients in self._draw(n, part=part):
            code = active * coefficients
            for found, of_model in ((tuned, code), (base, code * scales)):
                noise = self.noise * torch.randn(len(code), self.d_in, generator=generator)
                found.append(of_model @ self.directions + noise)
        return torch.cat(tuned), torch.cat(base)

    def cosines(self, decoder: Tensor) -> Tensor:
        """For each direction its largest cosine with a row of a decoder [width, d_in]: [n_directions]."""
        return (self.directions @ F.normalize(decoder, dim=1).T).max(1).values
