"""Lists of numbers by key, against dictionaries of sets."""

from __future__ import annotations

from unittest.mock import patch

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from lfp.ml.features import near_misses
from lfp.ml.features.near_misses import Lists

N_KEYS = 5
Pairs = set[tuple[int, int]]
pairs = st.sets(st.tuples(st.integers(0, N_KEYS - 1), st.integers(0, 6)))


def lists(wanted: Pairs) -> Lists:
    keys, values = np.array(list(wanted), np.int64).reshape(-1, 2).T
    return Lists.from_pairs(keys, values, N_KEYS)


@given(pairs, st.lists(st.integers(0, N_KEYS - 1), max_size=9), st.integers(1, 9))
def test_every_value_of_every_key_comes_once_in_bounded_chunks(wanted: Pairs, keys: list[int], chunk: int) -> None:
    with patch.object(near_misses, "_CHUNK_PAIRS", chunk):
        chunks = list(lists(wanted).pairs(np.array(keys, np.int64)))
    found = [pair for rows, values in chunks for pair in zip(rows.tolist(), values.tolist(), strict=True)]
    assert found == [(row, value) for row, key in enumerate(keys) for value in range(7) if (key, value) in wanted]
    assert all(len(rows) < chunk + 7 for rows, _ in chunks)


@given(pairs, st.lists(st.tuples(st.integers(0, N_KEYS - 1), st.integers(0, 7)), max_size=9))
def test_a_pair_is_held_where_it_was_given(wanted: Pairs, asked: list[tuple[int, int]]) -> None:
    keys, values = np.array(asked, np.int64).reshape(-1, 2).T
    assert lists(wanted).holds(keys, values).tolist() == [pair in wanted for pair in asked]
