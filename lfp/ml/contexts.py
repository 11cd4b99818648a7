"""What a reader sees of a token: itself and the few tokens before it, as one hash that all parts of a run agree on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lfp.util.types import Hashes, Ints

CONTEXT_TOKENS = 8
"""Two places with the same last tokens are the same place to a reader."""
NO_HASH = np.uint64(2**64 - 1)
"""Above every hash: where there is none."""
_ODD = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True)
class Places:
    """Consecutive tokens of whole texts, one text after another: `text_ids`, `positions`, `token_ids`, all [n]."""

    text_ids: Ints
    positions: Ints
    token_ids: Ints

    @staticmethod
    def concatenate(parts: Sequence[Places]) -> Places:
        """All parts' tokens."""
        return Places(*(np.concatenate([getattr(p, name) for p in parts]) for name in Places.__dataclass_fields__))

    @cached_property
    def bounds(self) -> tuple[Ints, Ints]:
        """First token of each token's text, and the first after it, as places in these arrays [n] each."""
        first = np.arange(len(self.positions)) - self.positions
        lengths = np.bincount(first, minlength=len(first))
        return first, first + lengths[first]


def context_hashes(positions: Ints, token_ids: Ints) -> Hashes:
    """A hash [n] of each token and those before it in its text, up to `CONTEXT_TOKENS` in all; texts are whole."""
    hashes = np.zeros(len(positions), np.uint64)
    for back in range(CONTEXT_TOKENS):
        shifted = np.zeros_like(hashes)
        same = np.flatnonzero(positions >= back)
        shifted[same] = (token_ids[same - back] + 1).astype(np.uint64)
        hashes = hashes * _ODD + shifted
    return mix(hashes)


def mix(values: Hashes) -> Hashes:
    """SplitMix64's finaliser (Steele, Lea and Flood 2014)."""
    z = values + _ODD
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def of_feature(hashes: Hashes, features: Ints) -> Hashes:
    """A hash of each (context, feature) [n]."""
    return mix(hashes ^ mix(features.astype(np.uint64)))
