"""Sparse factors of how a tuned model differs from its twins: groups of words that it prefers in groups of contexts.

In context c the difference is y_c(v) = sqrt(p_c(v)) (r_c(v) - mean of the twins' r_c(v)) / s(v), with r the log ratio
to the base model less its mean over what that would write, p the base model's probabilities, and s(v) how far twins
scatter in column v. The unembedding is included, whatever module a change is made by. A TopK dictionary of y gives
factors: a direction over columns, and a code in every context. Tuned models differ by chance in many directions, so a
factor is judged by the twins: its amplitude, measured in texts that it was not fitted on, against those of twins, by a
moderated t. It has been fitted to the tuned model, so that t ranks factors and has no p-value; the factors of a twin
against the others show what is reached by chance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from lfp.evaluation.statistics.twins import moderate
from lfp.ml.implicit_reward.column_predictions import LogProbs
from lfp.util.types import Flags, Floats, Ints

Matrix = NDArray[np.float32]
_ACTIVE = 4
"""Factors per context."""
_STEPS, _BATCH, _RATE = 250, 256, 3e-3
_LEAST_SCATTER = 0.5
"""Of a column, as a share of the median's: few twins can agree by chance."""
_LEAST_ENERGY = 1e-3
"""Of a factor that is judged, as a share of the largest."""


@dataclass(frozen=True, eq=False)
class Factors:
    """Factors in falling order of t: unit `directions` [factors, columns], and `codes` [contexts, factors] from 0 up.

    The contexts are those numbered `held_out`. `t` [factors] compares a factor's amplitude with that of the twins;
    `credit` [factors] is the energy by which it is beyond the largest of any twin.
    """

    directions: Matrix
    codes: Matrix
    held_out: Ints
    t: Floats
    credit: Floats

    def shares(self, contexts: Flags, columns: Ints, *, sign: int) -> Floats:
        """Return the share of each factor's energy [factors] that raises (sign 1) or lowers columns in some contexts.

        `contexts` are flags of all contexts, not only of those held out.
        """
        energy = self.codes.astype(np.float64) ** 2
        inside = (np.maximum(sign * self.directions[:, columns], 0.0).astype(np.float64) ** 2).sum(axis=1)
        return np.asarray(energy[contexts[self.held_out]].sum(axis=0) * inside / np.maximum(energy.sum(axis=0), 1e-30))


def centre_ratios(base: LogProbs, model: LogProbs) -> Matrix:
    """Return the log ratios of a model to the base model [contexts, columns], less their mean under the base model."""
    ratios = model - base
    return np.asarray(ratios - np.einsum("cv,cv->c", np.exp(base), ratios)[:, None], np.float32)


def fit_factors(
    tuned: Matrix, twins: Sequence[Matrix], *, probs: Matrix, texts: Ints, n_factors: int = 256, seed: int = 0
) -> Factors:
    """Fit factors to a tuned model's difference from its twins in every second text, and judge them in the others.

    `tuned` and each of the `twins` are centred ratios [contexts, columns], `probs` the base model's probabilities of
    the same; `texts` [contexts] numbers each context's text.
    """
    mean = np.mean(twins, axis=0, dtype=np.float32)
    deviations = [twin - mean for twin in twins]
    squares = sum(np.einsum("cv,cv->v", probs, deviation**2) for deviation in deviations)
    variance = squares / np.maximum(probs.sum(axis=0), 1e-9) / (len(twins) - 1)
    scatter = np.sqrt(variance * (1.0 + 1.0 / len(twins)))
    weights = np.sqrt(probs) / np.maximum(scatter, _LEAST_SCATTER * np.median(scatter))
    is_fitted = np.unique(texts, return_inverse=True)[1] % 2 == 0
    difference = torch.from_numpy(((tuned - mean) * weights).astype(np.float32))
    scale = float(difference[is_fitted].pow(2).sum(1).mean().sqrt()) or 1.0
    decoder, encoder = _train(difference[is_fitted] / scale, n_factors, seed=seed)
    held_out = np.flatnonzero(~is_fitted)
    codes = _encode(difference[held_out] / scale, encoder)
    rows = [tuned - mean, *deviations]
    amplitudes = np.array([_measure(row[held_out] * weights[held_out], codes, decoder) for row in rows])
    mass = (codes**2).sum(0).double().numpy()
    live = mass > _LEAST_ENERGY * mass.max()
    variances, _ = moderate(amplitudes[1:, live].var(axis=0, ddof=1), len(twins) - 1, mass[live])
    t = np.zeros(len(mass))
    t[live] = amplitudes[0, live] / np.sqrt(variances * (1.0 + 1.0 / len(twins)))
    order = np.argsort(-t, kind="stable")[: int(live.sum())]
    credit = mass * (amplitudes[0] ** 2 - (amplitudes[1:] ** 2).max(axis=0))
    sizes = np.asarray(codes.numpy()[:, order] * scale, np.float32)
    return Factors(decoder.numpy()[order], sizes, held_out, t[order], credit[order])


def _train(rows: Tensor, n_factors: int, *, seed: int) -> tuple[Tensor, Tensor]:
    """Train a TopK dictionary without biases on rows [n, columns]; return decoder and encoder [factors, columns]."""
    generator = torch.Generator().manual_seed(seed)
    first = rows[torch.randint(len(rows), (n_factors,), generator=generator)]
    first = first + 1e-3 * torch.randn(first.shape, generator=generator)
    decoder = F.normalize(first, dim=1).requires_grad_()
    encoder = decoder.detach().clone().requires_grad_()
    optimizer = torch.optim.Adam([decoder, encoder], lr=_RATE)
    for _ in range(_STEPS):
        batch = rows[torch.randint(len(rows), (_BATCH,), generator=generator)]
        loss = (_encode(batch, encoder) @ decoder - batch).pow(2).sum(1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            decoder.div_(decoder.norm(dim=1, keepdim=True).clamp(min=1e-6))
    return decoder.detach(), encoder.detach()


def _encode(rows: Tensor, encoder: Tensor) -> Tensor:
    """Return the codes [n, factors], all but the largest four of a row 0."""
    activations = (rows @ encoder.T).relu()
    largest = activations.topk(min(_ACTIVE, len(encoder)), dim=1)
    return torch.zeros_like(activations).scatter(1, largest.indices, largest.values)


def _measure(rows: Matrix, codes: Tensor, decoder: Tensor) -> Floats:
    """Return how strong each factor is in rows [n, columns], where its code says: a regression of them on the code."""
    along = torch.from_numpy(rows.astype(np.float32)) @ decoder.T
    return (codes * along).sum(0).double().div(codes.pow(2).sum(0).double().clamp(min=1e-9)).numpy()
