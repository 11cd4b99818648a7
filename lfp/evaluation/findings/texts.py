"""Findings about texts: their features as sparse matrices, and how much two principal components tell of them."""

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
    """The sampled texts [texts]: their ids, tokens each, sums of activations and counts of active tokens.

    `sums` and `active` are [texts, features].
    """

    text_ids: Ints
    n_tokens: Ints
    sums: sp.csr_array
    active: sp.csr_array

    @staticmethod
    def of(activations: pa.Table, texts: pa.Table, *, n_features: int) -> TextFeatures:
        """From the tables `activations` and `texts`."""
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
    """The share of the variance of texts' mean features that lies on each of the first two principal components.

    At most 400 texts, drawn by the seed. Intervals are over texts (100 resamples at most); a text drawn twice makes the
    share look larger, and this bias is taken off. The null shuffles each feature over the texts, which keeps every
    feature's values and takes away what they have in common.
    """
    rng, n = draws.rng(), len(texts.text_ids)
    means = sp.csr_array(texts.means[np.sort(rng.permutation(n)[:_TEXTS])])
    if means.shape[0] <= _COMPONENTS:
        return []
    products = np.asarray((means @ means.T).toarray(), np.float64)
    shares = _shares(products)
    drawn = np.array([_resampled(products, rng) for _ in range(min(draws.bootstraps, _RESAMPLES))])
    nulls = np.array([_shares(_shuffled_products(means, rng)) for _ in range(min(draws.permutations, _RESAMPLES))])
    centred = drawn - drawn.mean(axis=0) + shares
    return [
        ResultRow.from_estimate(
            "pca_explained",
            "explained_share",
            with_null(_estimate(shares[k], n, centred[:, k]), nulls[:, k]),
            group=f"pc{k + 1}",
        )
        for k in range(_COMPONENTS)
    ]


def _estimate(share: float, n: int, drawn: Floats) -> Estimate:
    return Estimate(float(share), min(n, _TEXTS), *interval(drawn))


def _shares(products: Floats) -> Floats:
    """The largest eigenvalues of the centred products, as shares of their sum: variance explained."""
    centred = products - products.mean(axis=0) - products.mean(axis=1)[:, None] + products.mean()
    total, n = float(np.trace(centred)), len(centred)
    if total <= 0:
        return np.zeros(_COMPONENTS)
    values = scipy.linalg.eigh(centred, eigvals_only=True, subset_by_index=[n - _COMPONENTS, n - 1])
    return np.asarray(values[::-1] / total, np.float64)


def _resampled(products: Floats, rng: np.random.Generator) -> Floats:
    rows = rng.integers(len(products), size=len(products))
    return _shares(products[np.ix_(rows, rows)])


def _shuffled_products(means: sp.csr_array, rng: np.random.Generator) -> Floats:
    """Inner products once each column's values lie on other rows, blocks of columns at a time."""
    n, columns = means.shape
    products, by_column = np.zeros((n, n)), sp.csc_array(means)
    step = max(1, _CELLS // n)
    for start in range(0, columns, step):
        block = by_column[:, start : start + step].toarray()
        block = rng.permuted(block[:, np.abs(block).sum(axis=0) > 0], axis=0)
        products += block @ block.T
    return products
