"""Findings about texts: their features as sparse matrices, and the variance two principal components explain."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import scipy.linalg
import scipy.sparse as sp

from lfp.evaluation.results import Estimate, ResultRow
from lfp.evaluation.statistics.resampling import Draws, interval, with_null
from lfp.util.types import Floats, Ints

_TEXTS, _RESAMPLES, _COMPONENTS = 400, 100, 2
_CELLS = 1 << 24  # of a block of columns shuffled at once


@dataclass(frozen=True)
class TextFeatures:
    """The sampled texts [texts]: their ids, tokens per text, sums of activations and counts of active tokens.

    `sums` and `active` are [texts, features].
    """

    text_ids: Ints
    n_tokens: Ints
    sums: sp.csr_array
    active: sp.csr_array

    @staticmethod
    def from_tables(activations: pa.Table, texts: pa.Table, *, n_features: int) -> TextFeatures:
        """Read the tables `activations` and `texts`."""
        n_tokens = pc.list_value_length(texts["token_ids"]).to_pylist()
        length_of = dict(zip(texts["text_id"].to_pylist(), n_tokens, strict=True))
        ids = activations["text_id"].to_numpy()
        rows = np.repeat(np.arange(len(ids)), pc.list_value_length(activations["feature_ids"]).to_numpy())
        columns = pc.list_flatten(activations["feature_ids"]).to_numpy()
        values = pc.list_flatten(activations["values"]).to_numpy().astype(np.float64)
        shape = (len(ids), n_features)
        return TextFeatures(
            text_ids=ids,
            n_tokens=np.array([length_of[i] for i in ids.tolist()], np.int64),
            sums=sp.csr_array(sp.coo_array((values, (rows, columns)), shape=shape)),
            active=sp.csr_array(sp.coo_array((np.ones_like(values), (rows, columns)), shape=shape)),
        )

    @property
    def means(self) -> sp.csr_array:
        """Mean features over each text's tokens [texts, features]."""
        return sp.csr_array(self.sums.multiply(1.0 / np.maximum(1, self.n_tokens)[:, None]))


def pca_explained(texts: TextFeatures, draws: Draws) -> list[ResultRow]:
    """Compute the share of the variance of texts' mean features on each of the first two principal components.

    At most 400 texts, drawn by the seed. Intervals are over texts (100 resamples at most); a text drawn twice makes the
    share look larger, and this bias is subtracted. The null shuffles each feature over the texts, which keeps every
    feature's values and removes what they have in common.
    """
    rng, n = draws.rng(), len(texts.text_ids)
    means = sp.csr_array(texts.means[np.sort(rng.permutation(n)[:_TEXTS])])
    if means.shape[0] <= _COMPONENTS:
        return []
    products = np.asarray((means @ means.T).toarray(), np.float64)
    shares, drawn = _explained_shares(products), []
    for _ in range(min(draws.bootstraps, _RESAMPLES)):
        rows = rng.integers(len(products), size=len(products))
        drawn.append(_explained_shares(products[np.ix_(rows, rows)]))
    n_nulls = min(draws.permutations, _RESAMPLES)
    nulls = np.array([_explained_shares(_shuffled_products(means, rng)) for _ in range(n_nulls)])
    centred = np.array(drawn) - np.mean(drawn, axis=0) + shares
    rows_of_report = []
    for k in range(_COMPONENTS):
        estimate = Estimate(float(shares[k]), min(n, _TEXTS), *interval(centred[:, k]))
        figure = with_null(estimate, nulls[:, k])
        rows_of_report.append(ResultRow.from_estimate("pca_explained", "explained_share", figure, group=f"pc{k + 1}"))
    return rows_of_report


def _explained_shares(products: Floats) -> Floats:
    """Compute the largest eigenvalues of the centred products, as shares of their sum: the variance explained."""
    centred = products - products.mean(axis=0) - products.mean(axis=1)[:, None] + products.mean()
    total, n = float(np.trace(centred)), len(centred)
    if total <= 0:
        return np.zeros(_COMPONENTS)
    values = scipy.linalg.eigh(centred, eigvals_only=True, subset_by_index=[n - _COMPONENTS, n - 1])
    return np.asarray(values[::-1] / total, np.float64)


def _shuffled_products(means: sp.csr_array, rng: np.random.Generator) -> Floats:
    """Multiply texts [texts, texts] with each column's values shuffled over the rows, blocks of columns at a time."""
    n, columns = means.shape
    products, by_column = np.zeros((n, n)), sp.csc_array(means)
    step = max(1, _CELLS // n)
    for start in range(0, columns, step):
        block = by_column[:, start : start + step].toarray()
        block = rng.permuted(block[:, np.abs(block).sum(axis=0) > 0], axis=0)
        products += block @ block.T
    return products
