"""Packed sorting against `np.lexsort`."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from lfp.ml.features.grouping import descending_keys, grouped_order, rank_within, run_starts

ROWS = st.lists(
    st.tuples(st.integers(0, 3), st.sampled_from([0, 1, 2**32 - 1, 2**32, 2**63, 2**64 - 1]), st.integers(0, 2)),
    max_size=40,
)


@given(ROWS)
def test_order_is_by_group_key_tie_and_place(rows: list[tuple[int, int, int]]) -> None:
    groups, ties = (np.array([row[i] for row in rows], np.int64) for i in (0, 2))
    keys = np.array([row[1] for row in rows], np.uint64)
    assert grouped_order(groups, keys, ties).tolist() == np.lexsort((ties, keys, groups)).tolist()
    assert grouped_order(groups, keys).tolist() == np.lexsort((keys, groups)).tolist()


@given(st.lists(st.integers(0, 2), max_size=20))
def test_ranks_start_again_with_every_run(groups: list[int]) -> None:
    starts = [i for i in range(len(groups)) if i == 0 or groups[i] != groups[i - 1]]
    assert run_starts(np.array(groups, np.int64)).tolist() == starts
    expected = [i - max(start for start in starts if start <= i) for i in range(len(groups))]
    assert rank_within(np.array(groups, np.int64)).tolist() == expected


@given(st.lists(st.floats(0, 2.0**99, width=32), min_size=1, max_size=20))
def test_falling_keys_sort_from_the_largest(values: list[float]) -> None:
    array = np.array(values, np.float32)
    assert array[np.argsort(descending_keys(array))].tolist() == sorted(array.tolist(), reverse=True)
    assert len(set(descending_keys(array).tolist())) == len(set(array.tolist())), "zero has one key, whatever its sign"
