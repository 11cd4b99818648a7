"""Match features of two runs one to one, by decoder direction or by what they fire on, and what chance reaches."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lfp.util.types import Floats32, Ints

Similar = Callable[[slice], Floats32]
"""Compute the similarities of a block of the first run's features with all of the second run's: [block, n_right]."""

BLOCK = 256
"""Features of the first run whose similarities are held at once."""
NO_MATCH = -1.0
"""The similarity of features that cannot match because they are read at different places."""


@dataclass(frozen=True, eq=False)
class Matching:
    """Pairs by their places in either run, `left` ascending, with their `similarity` [k each]."""

    left: Ints
    right: Ints
    similarity: Floats32

    def above(self, least: float) -> Matching:
        """Keep the pairs whose similarity is larger."""
        kept = self.similarity > least
        return Matching(self.left[kept], self.right[kept], self.similarity[kept])


def mutual_nearest(similar: Similar, n_left: int, n_right: int) -> Matching:
    """Pair features that are each other's most similar; the first of equally similar features counts.

    Every feature is in one pair at most. Memory is BLOCK * n_right.
    """
    nearest, size = np.zeros(n_left, np.int64), np.full(n_left, NO_MATCH, np.float32)
    back, back_size = np.zeros(n_right, np.int64), np.full(n_right, NO_MATCH, np.float32)
    for at in _blocks(n_left if n_right else 0):
        values = similar(at)
        nearest[at], size[at] = values.argmax(axis=1), values.max(axis=1)
        best = values.max(axis=0)
        better = best > back_size
        back[better], back_size[better] = at.start + values.argmax(axis=0)[better], best[better]
    left = np.flatnonzero((size > NO_MATCH) & (back[nearest] == np.arange(n_left))) if n_right else nearest[:0]
    return Matching(left, nearest[left], size[left])


def nearest_sizes(similar: Similar, n_left: int, n_right: int) -> Floats32:
    """Find each feature's largest similarity with any of the other run [n_left]; NO_MATCH where it has none."""
    sizes = [similar(at).max(axis=1) for at in _blocks(n_left if n_right else 0)]
    return np.concatenate([np.zeros(0, np.float32), *sizes])


def cosines(left: Floats32, right: Floats32, *, left_places: Ints, right_places: Ints) -> Similar:
    """Compare decoder rows [n, d_in] and [m, d_in] by cosine; features match within a place [n] and [m] only."""
    rows, others = _unit(left), _unit(right)

    def similar(at: slice) -> Floats32:
        is_same = left_places[at, None] == right_places[None, :]
        return np.where(is_same, rows[at] @ others.T, np.float32(NO_MATCH))

    return similar


def random_directions(rows: Floats32, places: Ints, *, seed: int) -> Floats32:
    """Draw as many random directions as `rows` [m, d_in], with the second moments of their place: the null of cosines.

    Each is a sum of the place's unit rows with normal weights.
    """
    random, made = np.random.default_rng(seed), np.zeros_like(rows)
    unit = _unit(rows)
    for number in np.unique(places):
        of_place = np.flatnonzero(places == number)
        for at in _blocks(len(of_place)):
            weights = random.standard_normal((len(of_place[at]), len(of_place)), np.float32)
            made[of_place[at]] = weights @ unit[of_place]
    return made


def overlaps(left: Sequence[Mapping[str, float]], right: Sequence[Mapping[str, float]]) -> Similar:
    """Compare features by the weighted Jaccard overlap of their tokens: sum of smaller values over sum of larger ones.

    A feature is a mapping of the tokens it fires on to non-negative shares; features without tokens overlap with none.
    """
    by_token: dict[str, tuple[list[int], list[float]]] = defaultdict(lambda: ([], []))
    for place, tokens in enumerate(right):
        for token, value in tokens.items():
            by_token[token][0].append(place)
            by_token[token][1].append(value)
    index = {token: (np.array(places), np.array(values)) for token, (places, values) in by_token.items()}
    totals = np.array([sum(tokens.values()) for tokens in right])

    def similar(at: slice) -> Floats32:
        shared, own = np.zeros((len(left[at]), len(right))), np.array([sum(tokens.values()) for tokens in left[at]])
        for row, tokens in zip(shared, left[at], strict=True):
            for token, value in tokens.items():
                if token in index:
                    places, values = index[token]
                    row[places] += np.minimum(value, values)
        union = own[:, None] + totals[None, :] - shared
        return (shared / np.where(union > 0, union, 1.0)).astype(np.float32)

    return similar


def permute_tokens(features: Sequence[Mapping[str, float]], *, seed: int) -> list[dict[str, float]]:
    """Permute the tokens over the features' values: the null of overlaps, each token as common as before."""
    tokens = [token for feature in features for token in feature]
    order = iter(np.random.default_rng(seed).permutation(len(tokens)).tolist())
    permuted = []
    for feature in features:
        new: dict[str, float] = defaultdict(float)
        for value in feature.values():
            new[tokens[next(order)]] += value
        permuted.append(dict(new))
    return permuted


def _unit(rows: Floats32) -> Floats32:
    """Scale rows to unit length; a row of zeros stays."""
    rows = rows.astype(np.float32)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.where(lengths > 0, lengths, 1.0), np.float32)


def _blocks(n: int) -> Iterator[slice]:
    return (slice(start, min(start + BLOCK, n)) for start in range(0, n, BLOCK))
