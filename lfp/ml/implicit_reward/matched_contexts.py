"""Estimate words' implicit reward in matched contexts: a regression on word and context, weighted by pi_base."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.linalg
import torch
from numpy.typing import NDArray
from torch import Tensor

from lfp.errors import DataError
from lfp.ml.features.grouping import mix
from lfp.util.types import Floats, Ints

_BLOCKS = 40
"""Groups of contexts for the standard errors, with 39 degrees of freedom where all are filled."""
_RUN = 8
"""Consecutive contexts in the same block."""
_ROWS = 512
"""Contexts multiplied at a time."""
_RIDGE = 1e-6
"""Share of a column's own weight that is added to it, which shrinks an effect by a millionth."""


@dataclass(frozen=True)
class MatchedEffects:
    """What a column adds to the implicit reward in any context: `effect` and its standard error `se`, in nats.

    Both are [n_columns], NaN where the base model gave a column no probability; `weight` is that probability summed
    over contexts. The weighted mean of effects is 0. `influence` [blocks, n_columns] is how far each block of contexts
    moves the effects.
    """

    effect: Floats
    se: Floats
    weight: Floats
    influence: Floats

    def of_words(self, words: Sequence[Sequence[int]]) -> tuple[Floats, Floats]:
        """Return effects and standard errors of words [n_words], summed over their columns; NaN without columns."""
        effects, errors = np.full(len(words), np.nan), np.full(len(words), np.nan)
        for row, columns in enumerate(words):
            if columns:
                effects[row] = self.effect[list(columns)].sum()
                errors[row] = _standard_error(self.influence[:, list(columns)].sum(axis=1))
        errors[np.isnan(effects)] = np.nan
        return effects, errors


class MatchedContexts:
    """Sums over contexts, from which word effects a and context effects b on the implicit reward are solved.

    For context c and token v, r(v | c) = log pi_tuned(v | c) - log pi_base(v | c). `columns` [d_vocab] gives the column
    of each token; tokens of the same column share its effect. The effects minimise

        sum_c sum_v p_cv (r(v | c) - a_column(v) - b_c)^2,    p_cv = pi_base(v | c).

    At the minimum b_c is the p-weighted mean of r - a, which leaves (Frisch, Waugh and Lovell)

        (diag(P) - sum_c p_c p_c^T) a = sum_c g_c,    P = sum_c p_c,    g_ck = sum_(v of k) p_cv (r(v | c) - E_p[r])

    with p_c [n_columns] summed by column, so no context's effect is stored. Products are computed in float32 and summed
    in float64. Beside those sums of [n_columns, n_columns], each context's p_c is kept in bfloat16 (8 kB at 4,000
    columns) for the standard errors: neighbouring contexts, mostly of one text, share a block, and each block's share
    of the normal equations' residual determines how far it moves the effects.

    `first` is the number, among all contexts, of the first one added here: with it, parts that are merged have the
    blocks, and so the standard errors, of one pass.
    """

    def __init__(self, columns: Ints, n_columns: int, *, first: int = 0) -> None:
        if len(columns) and not 0 <= columns.min() <= columns.max() < n_columns:
            raise DataError(
                f"columns of tokens run from {columns.min()} to {columns.max()}; number them below {n_columns}"
            )
        self.n_contexts, self._next = 0, first
        self._columns = torch.from_numpy(np.ascontiguousarray(columns, np.int64))
        self._products = torch.zeros(n_columns, n_columns, dtype=torch.float64)
        self._weights = torch.zeros(_BLOCKS, n_columns, dtype=torch.float64)
        self._scores = torch.zeros(_BLOCKS, n_columns, dtype=torch.float64)
        self._kept: list[tuple[Tensor, Tensor]] = []
        self._waiting: list[Tensor] = []

    def update(self, base_log_probs: Tensor, difference: Tensor) -> None:
        """Add contexts: log pi_base and log pi_tuned - log pi_base of every token, both [n, d_vocab]."""
        log_probs, reward = (values.detach().cpu().float() for values in (base_log_probs, difference))
        probs = log_probs.exp()
        means = torch.einsum("cv,cv->c", probs, reward)
        zeros = torch.zeros(len(probs), len(self._products))
        of_columns = zeros.index_add(1, self._columns, probs)
        # in place, because memory for every token of every context takes longer to get than to fill
        scores = zeros.index_add_(1, self._columns, probs.mul_(reward)).sub_(means[:, None] * of_columns)
        blocks = (self._next + torch.arange(len(probs))) // _RUN % _BLOCKS
        self._weights.index_add_(0, blocks, of_columns.double())
        self._scores.index_add_(0, blocks, scores.double())
        self._kept.append((blocks, of_columns.bfloat16()))
        self._waiting.append(of_columns)
        self.n_contexts, self._next = self.n_contexts + len(probs), self._next + len(probs)
        if sum(map(len, self._waiting)) >= _ROWS:
            self._multiply()

    def merge(self, other: MatchedContexts) -> None:
        """Add the contexts of another part, with the same columns."""
        for part in (self, other):
            part._multiply()
        self._products += other._products
        self._weights += other._weights
        self._scores += other._scores
        self._kept += other._kept
        self.n_contexts, self._next = self.n_contexts + other.n_contexts, max(self._next, other._next)

    def effects(self) -> MatchedEffects:
        """Solve for the effects of all columns. Raises DataError where no context was added."""
        self._multiply()
        weight = self._weights.sum(0).numpy()
        possible = np.flatnonzero(weight > 0)
        if not len(possible):
            raise DataError("no context of the corpus has an implicit reward; pass texts of two tokens or more")
        solve = _solver(weight[possible], self._products.numpy()[np.ix_(possible, possible)])
        effect = np.zeros(len(weight))
        effect[possible] = solve(self._scores.sum(0).numpy()[possible])
        a = torch.from_numpy(effect)
        residuals = self._scores - self._weights * a  # of each block's normal equations [blocks, n_columns]
        for blocks, probs in self._kept:
            rows = probs.float()
            residuals.index_add_(0, blocks, (rows * (rows @ a.float())[:, None]).double())
        filled = self._weights.any(1).numpy()
        influence = np.zeros((int(filled.sum()), len(weight)))
        influence[:, possible] = solve(residuals.numpy()[np.ix_(filled, possible)].T).T
        effect[weight == 0] = np.nan
        error = np.where(weight > 0, _standard_error(influence), np.nan)
        return MatchedEffects(effect, error, weight, influence)

    def _multiply(self) -> None:
        """Add sum_c p_c p_c^T of the collected contexts, as one product of many rows."""
        if self._waiting:
            rows = torch.cat(self._waiting)
            self._products += rows.T @ rows
            self._waiting.clear()


def draw_contexts(
    text_ids: Ints,
    positions: Ints,
    *,
    n: int,
    first_position: int,
    seed: int,
    counts: NDArray[np.bool_] | None = None,
) -> NDArray[np.bool_]:
    """Mark the tokens [tokens] whose contexts are used: `n` of those from `first_position` on, or all if fewer.

    Only those that `counts` marks are used, all by default.

    The choice depends only on text, position and seed, so neither the order of texts nor their batches matter.
    """
    of_text = mix(text_ids.astype(np.uint64) + mix(np.array([seed], np.uint64)))
    numbers = mix(of_text ^ mix(positions.astype(np.uint64)))
    is_usable = positions >= first_position
    among = np.flatnonzero(is_usable if counts is None else is_usable & counts)
    chosen = np.zeros(len(positions), bool)
    chosen[among[np.argsort(numbers[among], kind="stable")[:n]]] = True
    return chosen


def _solver(weight: Floats, products: Floats) -> Callable[[Floats], Floats]:
    """Return a solver of (diag(weight) - products) a = scores [k] or [k, m] for the a whose weighted mean is 0.

    Columns are scaled to unit weight first, because weights differ by many powers of ten. The matrix has the constant
    as its null space: adding weight weight^T / sum(weight) does not change the solution of mean 0.
    """
    root = np.sqrt(weight)
    matrix = np.outer(root, root) / weight.sum() - products / root[:, None] / root
    matrix[np.diag_indices_from(matrix)] += 1.0 + _RIDGE
    factor = scipy.linalg.cho_factor(matrix, lower=True, overwrite_a=True, check_finite=False)

    def solve(scores: Floats) -> Floats:
        scaled = scores.T / root
        effects = scipy.linalg.cho_solve(factor, scaled.T, check_finite=False).T / root
        return (effects - (effects @ weight / weight.sum())[..., None]).T

    return solve


def _standard_error(influence: Floats) -> Floats:
    """Return the standard error of a sum from its moves by independent blocks [blocks, ...]; NaN below two blocks."""
    n = len(influence)
    if n < 2:
        return np.full(influence.shape[1:], np.nan)
    return np.asarray(np.sqrt((influence**2).sum(axis=0) * n / (n - 1)))
