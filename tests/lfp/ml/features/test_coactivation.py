"""Shares of common contexts: exact where sketches hold all, within the stated error where they do not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lfp.ml.features import neighbours
from lfp.ml.features.active import Active
from lfp.ml.features.examples import Batch
from lfp.ml.features.grouping import NO_HASH, Places
from lfp.ml.features.neighbours import ContextSketches, Neighbours

Sets = list[set[int]]


def batch(sets: Sets) -> Batch:
    """Token i is context i; each set is a feature's active tokens."""
    n = 1 + max((max(own, default=0) for own in sets), default=0)
    by_token = [[feature for feature, own in enumerate(sets) if token in own] for token in range(n)]
    offsets = np.cumsum([0, *map(len, by_token)])
    features = np.array([feature for each in by_token for feature in each], np.int32)
    ids = np.arange(n)
    entries = Active(len(sets), offsets, features, np.ones(len(features), np.float32))
    return Batch(Places(ids, np.zeros(n, np.int64), ids), entries)


def sketches(sets: Sets, k: int) -> ContextSketches:
    filled = ContextSketches(len(sets), k)
    filled.update(batch(sets))
    return filled


def naive(sets: Sets, n: int) -> list[tuple[int, int, int, float]]:
    """(feature, rank, neighbour, share): largest first, of equals the lower id, none of share zero."""
    found = []
    for a, own in enumerate(sets):
        shares = [(-len(own & other) / len(own | other), b) for b, other in enumerate(sets) if b != a and own & other]
        found += [(a, rank, b, float(np.float32(-share))) for rank, (share, b) in enumerate(sorted(shares)[:n])]
    return found


def rows(found: Neighbours) -> list[tuple[int, int, int, float]]:
    arrays = found.features, found.ranks, found.others, found.values
    return [tuple(row) for row in zip(*(array.tolist() for array in arrays), strict=True)]  # type: ignore[misc]


@settings(deadline=None)
@given(st.lists(st.sets(st.integers(0, 15)), min_size=1, max_size=8), st.integers(1, 5))
def test_shares_of_small_sets_are_exact(sets: Sets, n: int) -> None:
    assert rows(sketches(sets, 16).neighbours(n)) == naive(sets, n)


def test_blocks_of_features_join_without_a_seam(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    sets = [set(rng.choice(300, rng.integers(1, 40), replace=False).tolist()) for _ in range(50)]
    expected = naive(sets, 6)
    for entries in (50, 350, 10**6):
        monkeypatch.setattr(neighbours, "_BLOCK_ENTRIES", entries)
        assert rows(sketches(sets, 40).neighbours(6)) == expected


@pytest.mark.parametrize(("share", "sizes"), [(0.5, (9000, 9000)), (0.1, (6000, 6000)), (0.2, (2000, 10_000))])
def test_the_estimate_has_the_stated_error(share: float, sizes: tuple[int, int]) -> None:
    """300 pairs of large sets with a planted share, k = 100: no bias, and the standard error of the docstring."""
    k, rng = 100, np.random.default_rng(1)
    common = round(share * sum(sizes) / (1 + share))
    union = sum(sizes) - common
    found = []
    for _ in range(300):
        hashes = rng.integers(0, 2**63, union).astype(np.uint64)
        filled = ContextSketches(2, k)
        filled._add(np.zeros(sizes[0], np.int64), hashes[: sizes[0]])
        filled._add(np.ones(sizes[1], np.int64), hashes[union - sizes[1] :])
        found.append(filled.neighbours(1).values[0])
    stated = (share * (1 - share) / k) ** 0.5
    assert np.mean(found) == pytest.approx(common / union, abs=4 * stated / 300**0.5)
    assert 0.6 * stated < np.std(found) < 1.15 * stated


def test_sketches_hold_the_lowest_different_hashes() -> None:
    rng = np.random.default_rng(2)
    filled = ContextSketches(5, 8)
    offered: list[set[int]] = [set() for _ in range(5)]
    for _ in range(30):
        features, hashes = rng.integers(5, size=20), rng.integers(200, size=20).astype(np.uint64)
        filled._add(features, hashes)
        for feature, value in zip(features, hashes.tolist(), strict=True):
            offered[feature].add(value)
    assert [row.tolist() for row in filled.hashes] == [sorted(own)[:8] for own in offered]


def test_a_sketch_that_is_not_full_ends_in_nothing() -> None:
    assert sketches([{1, 2}, set()], 4).hashes[:, 2:].tolist() == [[int(NO_HASH)] * 2] * 2
    assert rows(sketches([set(), set()], 4).neighbours(3)) == []
    assert rows(ContextSketches(0, 4).neighbours(3)) == []
