"""Sources of training batches for autoencoders: activations held in memory, or streamed from the model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from lfp.errors import DataError
from lfp.ml.models.activations import stream
from lfp.ml.models.loading import LanguageModel
from lfp.ml.models.tokenization import TokenizedText


class ActivationSource(Protocol):
    """Batches of MLP outputs by layer, the same for the same step, so that training can be resumed."""

    def sample(self) -> Mapping[int, Tensor]:
        """Return outputs [n, d_in] by layer, enough to estimate their scale and mean."""

    def batches(self, start: int) -> Iterator[Mapping[int, Tensor]]:
        """Yield the batches of step `start` and all later ones, forever: outputs [batch_tokens, d_in] by layer."""


@dataclass(frozen=True)
class HeldActivations:
    """Outputs [n, d_in] by layer, in memory; each batch draws tokens by the seed and its step."""

    outputs: Mapping[int, Tensor]
    batch_tokens: int
    seed: int

    def __post_init__(self) -> None:
        for layer, outputs in self.outputs.items():
            bad = (~torch.isfinite(outputs)).any(1).nonzero()
            if len(bad):
                raise DataError(
                    f"layer {layer}: the activation of token {int(bad[0])} is not finite; check the model's weights"
                )

    def sample(self) -> Mapping[int, Tensor]:
        """Return all outputs."""
        return self.outputs

    def batches(self, start: int) -> Iterator[Mapping[int, Tensor]]:
        """Yield tokens drawn with replacement, the same in every layer."""
        n = len(next(iter(self.outputs.values())))
        for step in count(start):
            generator = torch.Generator().manual_seed((self.seed * 1_000_003 + step) % 2**63)
            drawn = torch.randint(n, (self.batch_tokens,), generator=generator)
            yield {layer: outputs.index_select(0, drawn.to(outputs.device)) for layer, outputs in self.outputs.items()}


@dataclass(frozen=True)
class StreamedActivations:
    """Outputs of a model's layers over the texts again and again, through a shuffled buffer.

    A buffer holds the tokens of consecutive texts, whose order is reshuffled for every pass over the texts; a remainder
    smaller than a batch is dropped. Which texts fill a buffer follows from their lengths, so any step can be found
    again without running the model over the buffers before it.
    """

    model: LanguageModel
    texts: Sequence[TokenizedText]
    layers: Sequence[int]
    batch_tokens: int
    buffer_tokens: int
    batch_texts: int
    prepend_bos: bool
    seed: int

    def __post_init__(self) -> None:
        n = sum(len(text.token_ids) for text in self.texts)
        if min(n, self.buffer_tokens) < self.batch_tokens:
            raise DataError(
                f"the texts hold {n} tokens and the buffer {self.buffer_tokens}, less than a batch of"
                f" {self.batch_tokens}; lower sae.batch_tokens"
            )

    def sample(self) -> Mapping[int, Tensor]:
        """Return the first buffer."""
        return self._outputs(next(self._buffers()))

    def batches(self, start: int) -> Iterator[Mapping[int, Tensor]]:
        """Yield batches without replacement from each buffer in turn."""
        step = 0
        for number, buffer in enumerate(self._buffers()):
            n = sum(len(self.texts[i].token_ids) for i in buffer)
            n_batches = n // self.batch_tokens
            if step + n_batches > start:
                order = np.random.default_rng([self.seed, 1, number]).permutation(n)[: n_batches * self.batch_tokens]
                outputs = self._outputs(buffer)
                for drawn in np.split(order, n_batches)[max(0, start - step) :]:
                    yield {layer: values[torch.from_numpy(drawn)] for layer, values in outputs.items()}
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

    def _outputs(self, buffer: Sequence[int]) -> dict[int, Tensor]:
        texts, options = [self.texts[i] for i in buffer], {"batch_texts": self.batch_texts}
        parts = list(stream(self.model, texts, layers=self.layers, prepend_bos=self.prepend_bos, **options))
        return {layer: torch.cat([part.outputs[layer] for part in parts]) for layer in self.layers}
