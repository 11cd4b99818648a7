"""Rows cut and concatenate_offsets, against lists."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from lfp.ml.features.grouping import concatenate_offsets, concatenate_slices

SIZES = st.lists(st.integers(0, 5), max_size=6)


def offsets_of(sizes: list[int]) -> np.ndarray:
    return np.array([0, *np.cumsum(sizes)], np.int64)


@given(SIZES, st.data())
def test_rows_that_are_cut_out_are_those_rows(sizes: list[int], data: st.DataObject) -> None:
    ends = offsets_of(sizes)
    rows = data.draw(st.lists(st.integers(0, len(sizes) - 1))) if sizes else []
    offsets, places = concatenate_slices(ends[:-1][rows], ends[1:][rows])
    expected = [list(range(ends[row], ends[row + 1])) for row in rows]
    assert [places[low:high].tolist() for low, high in itertools.pairwise(offsets)] == expected
    assert len(places) == offsets[-1]


@given(st.lists(SIZES, min_size=1, max_size=4))
def test_joined_rows_keep_their_sizes_in_order(parts: list[list[int]]) -> None:
    found = concatenate_offsets([offsets_of(sizes) for sizes in parts])
    assert found.tolist() == offsets_of([size for sizes in parts for size in sizes]).tolist()
