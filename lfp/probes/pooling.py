"""Pool the tokens of a text into one row of inputs: last, mean, sum, response or max; padding is left out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from lfp.errors import DataError
from lfp.util.types import Flags, Floats, Ints

if TYPE_CHECKING:
    import scipy.sparse as sp  # imported where it is used, as the explorer weighs tokens without it


Pooling = Literal["last", "mean", "sum", "response", "max"]
POOLINGS: tuple[Pooling, ...] = get_args(Pooling)


def pool(features: sp.csr_array, texts: Ints, *, how: Pooling | str, response: Flags | None = None) -> sp.csr_array:
    """Pool features [tokens, features] to one row per text [texts, features], float64, nothing made dense.

    `texts` [tokens] is the row of each token's text, from 0, non-decreasing; `response` [tokens] marks the tokens of a
    response, all of them by default. last: the last token; mean, sum, max: over all tokens; response: the mean over
    the response's tokens, over all tokens where a text has none. A text without tokens is a row of zeros.
    """
    import scipy.sparse as sp

    if how == "max":
        return _maxima(sp.csr_array(features), texts)
    return sp.csr_array(_averaging(texts, how, response) @ features)


def pool_dense(values: Floats, texts: Ints, *, how: Pooling | str, response: Flags | None = None) -> Floats:
    """Pool values [tokens, d] that are not sparse, such as MLP outputs, to [texts, d]."""
    if how != "max":
        return np.asarray(_averaging(texts, how, response) @ values)
    pooled = np.zeros((_n_texts(texts), values.shape[1]))
    starts = np.flatnonzero(np.append(True, texts[1:] != texts[:-1])[: len(texts)])
    if len(starts):
        pooled[texts[starts]] = np.maximum.reduceat(values, starts)
    return pooled


def token_shares(texts: Ints, how: Pooling | str, response: Flags | None = None) -> Floats:
    """Compute the weight of each token [tokens]: pooled = sum over a text's tokens of share times value.

    Raises DataError for max, under which it differs by feature.
    """
    n = np.bincount(texts) if len(texts) else np.zeros(0, np.int64)
    if how == "sum":
        return np.ones(len(texts))
    if how == "mean":
        return 1.0 / n[texts]
    if how == "last":
        return np.append(texts[1:] != texts[:-1], True)[: len(texts)].astype(np.float64)
    if how == "response":
        is_response = np.ones(len(texts), bool) if response is None else response
        n_response = np.bincount(texts, is_response, minlength=len(n))
        has_none = n_response == 0
        counts = np.where(has_none, n, n_response)
        return np.where(is_response | has_none[texts], 1.0 / counts[texts], 0.0)
    raise DataError(f"pooling {how}: tokens have no shares; use last, mean, sum or response")


def response_tokens(token_starts: Sequence[int], n_characters: int, responses: Sequence[tuple[int, int]]) -> Flags:
    """Mark the tokens that start inside a response [tokens], given as spans of characters; all where there is none.

    An empty token is a later part of the character before it, and belongs to its token. No token is marked where a text
    was cut before its responses.
    """
    starts = np.asarray(token_starts, np.int64)
    if not responses:
        return np.ones(len(starts), bool)
    inside = np.zeros(len(starts), bool)
    for start, end in responses:
        inside |= (starts >= start) & (starts < end)
    for token in np.flatnonzero(starts == np.append(starts[1:], n_characters)):
        inside[token] = inside[token - 1] if token else inside[token]
    return inside


def _averaging(texts: Ints, how: Pooling | str, response: Flags | None) -> sp.csr_array:
    """Build the matrix [texts, tokens] that pools."""
    import scipy.sparse as sp

    shares = token_shares(texts, how, response)
    kept = np.flatnonzero(shares)
    shape = (_n_texts(texts), len(texts))
    return sp.csr_array((shares[kept], (texts[kept], kept)), shape=shape)


def _maxima(features: sp.csr_array, texts: Ints) -> sp.csr_array:
    """Find the largest value by text and feature; zeros that are not stored count too."""
    import scipy.sparse as sp

    entries = features.tocoo()
    entry_texts = texts[entries.row]
    order = np.lexsort((entries.col, entry_texts))
    rows, columns, values = entry_texts[order], entries.col[order], entries.data[order].astype(np.float64)
    first = np.flatnonzero(np.append(True, (rows[1:] != rows[:-1]) | (columns[1:] != columns[:-1]))[: len(rows)])
    largest = np.maximum.reduceat(values, first) if len(first) else values
    n_stored = np.diff(first, append=len(rows))
    n_tokens = np.bincount(texts)[rows[first]] if len(first) else n_stored
    largest = np.where(n_stored < n_tokens, np.maximum(largest, 0.0), largest)
    pooled = sp.csr_array((largest, (rows[first], columns[first])), shape=(_n_texts(texts), features.shape[1]))
    pooled.eliminate_zeros()
    return pooled


def _n_texts(texts: Ints) -> int:
    return int(texts[-1]) + 1 if len(texts) else 0
