"""Batches of activations that autoencoders are trained on: held in memory, or streamed through a buffer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from lfp.errors import DataError
from lfp.ml.models.tokenization import TokenizedText
from lfp.util.types import Place

_LONGEST = 4.0
"""Of a change that is trained on, as a multiple of the median length."""


def shorten_rows(outputs: Tensor) -> Tensor:
    """Return rows [n, d_in] with those longer than four times the median brought to that length.

    Some layers write very large values at a few tokens, and so does what tuning changes there: squared errors would be
    of these alone. A dictionary without biases encodes a row and its multiples alike, so nothing is lost of them.
    """
    lengths = outputs.norm(dim=1, keepdim=True)
    longest = _LONGEST * lengths.median()
    return outputs * (longest / lengths.clamp(min=1e-30)).clamp(max=1.0) if longest > 0 else outputs


class ActivationSource(Protocol):
    """Batches of activations by place, the same for the same step, so that training can be resumed."""

    def sample(self) -> Mapping[Place, Tensor]:
        """Return activations [n, d_in] by place, enough to estimate their scale and mean."""

    def batches(self, start: int) -> Iterator[Mapping[Place, Tensor]]:
        """Yield the batches of step `start` and all later ones, forever: [batch_tokens, d_in] by place."""


@dataclass(frozen=True)
class HeldActivations:
    """Activations [n, d_in] by place, in memory; each batch draws tokens by the seed and its step."""

    outputs: Mapping[Place, Tensor]
    batch_tokens: int
    seed: int

    def __post_init__(self) -> None:
        for place, outputs in self.outputs.items():
            bad = (~torch.isfinite(outputs)).any(1).nonzero()
            if len(bad):
                raise DataError(
                    f"{place}: the activation of token {int(bad[0])} is not finite; check the model's weights"
                )

    def sample(self) -> Mapping[Place, Tensor]:
        """Return all outputs."""
        return self.outputs

    def batches(self, start: int) -> Iterator[Mapping[Place, Tensor]]:
        """Yield tokens drawn with replacement, the same at every place."""
        n = len(next(iter(self.outputs.values())))
        for step in count(start):
            generator = torch.Generator().manual_seed((self.seed * 1_000_003 + step) % 2**63)
            drawn = torch.randint(n, (self.batch_tokens,), generator=generator)
            yield {place: outputs.index_select(0, drawn.to(outputs.device)) for place, outputs in self.outputs.items()}


@dataclass(frozen=True)
class StreamedActivations:
    """Activations by place that `read` gives of texts, again and again, through a shuffled buffer.

    `read` returns `rows_per_token` activations of each token. A buffer holds the tokens of consecutive texts, whose
    order is reshuffled for every pass over the texts; a remainder smaller than a batch is dropped. Which texts fill a
    buffer follows from their lengths, so any step can be found again without running the model over the buffers before
    it.
    """

    read: Callable[[Sequence[TokenizedText]], Mapping[Place, Tensor]]
    texts: Sequence[TokenizedText]
    batch_tokens: int
    buffer_tokens: int
    seed: int
    rows_per_token: int = 1

    def __post_init__(self) -> None:
        n = sum(len(text.token_ids) for text in self.texts)
        if min(n, self.buffer_tokens) < self.batch_tokens:
            raise DataError(
                f"the texts hold {n} tokens and the buffer {self.buffer_tokens}, less than a batch of"
                f" {self.batch_tokens}; lower sae.batch_tokens"
            )

    def sample(self) -> Mapping[Place, Tensor]:
        """Return the first buffer."""
        return self._outputs(next(self._buffers()))

    def batches(self, start: int) -> Iterator[Mapping[Place, Tensor]]:
        """Yield batches without replacement from each buffer in turn."""
        step = 0
        for number, buffer in enumerate(self._buffers()):
            n = sum(len(self.texts[i].token_ids) for i in buffer) * self.rows_per_token
            n_batches = n // self.batch_tokens
            if step + n_batches > start:
                order = np.random.default_rng([self.seed, 1, number]).permutation(n)[: n_batches * self.batch_tokens]
                outputs = self._outputs(buffer)
                for drawn in np.split(order, n_batches)[max(0, start - step) :]:
                    yield {place: values[torch.from_numpy(drawn)] for place, values in outputs.items()}
            step += n_batches

    def _buffers(self) -> Iterator[list[int]]:
        """Yield the text indices of each buffer, pass after pass; the last buffer of a pass may be small."""
        for number in count():
            buffer: list[int] = []
            n = 0
            for i in np.random.default_rng([self.seed, 0, number]).permutation(len(self.texts)):
                buffer.append(int(i))
                n += len(self.texts[i].token_ids)
                if n >= self.buffer_tokens:
                    yield buffer
                    buffer, n = [], 0
            if n >= self.batch_tokens:
                yield buffer

    def _outputs(self, buffer: Sequence[int]) -> Mapping[Place, Tensor]:
        return self.read([self.texts[i] for i in buffer])
