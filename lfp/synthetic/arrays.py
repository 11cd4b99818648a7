"""Arrays sorted by group, and arrays as Arrow lists."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from lfp.schema import TOKEN_VALUES

Array = np.ndarray[Any, Any]
Random = np.random.Generator


def ranked(group: Array, score: Array) -> tuple[Array, Array]:
    """Indices sorted by group, then falling score, and each one's rank within its group."""
    order = np.lexsort((-score, group))
    return order, counts_up(group[order])


def counts_up(group: Array) -> Array:
    """0, 1, 2, ... within each run of equal values."""
    first = np.flatnonzero(np.diff(group, prepend=-1)) if len(group) else group
    return np.arange(len(group)) - np.repeat(first, np.diff(np.append(first, len(group))))


def list_offsets(group: Array, n_groups: int) -> Array:
    """List offsets of values sorted by group."""
    return np.concatenate([[0], np.cumsum(np.bincount(group.astype(np.int64), minlength=n_groups))])


def listed(offsets: Array, values: Array | pa.Array) -> pa.Array:
    """Lists from the places where each begins, and their values one after the other."""
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(values))


def nulled(values: Array) -> pa.Array:
    """NaN becomes null."""
    return pa.array(values, mask=np.isnan(values))


def token_values(tokens: Sequence[str], which: Array, values: Array) -> pa.StructArray:
    """Pairs of a token and a value; `which` says which of the tokens each is."""
    names = pa.array(tokens, pa.string()).take(pa.array(which, pa.int64()))
    return pa.StructArray.from_arrays([names, pa.array(values, pa.float32())], fields=list(TOKEN_VALUES.value_type))
