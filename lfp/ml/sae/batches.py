"""Where autoencoders' training batches come from: activations held in memory, or streamed from the model."""

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
        """Outputs [n, d_in] by layer, enough to know their scale and mean."""

    def batches(self, start: int) -> Iterator[Mapping[int, Tensor]]:
        """The batches of step `start` and all later ones, without end: outputs [batch_tokens, d_in] by layer."""


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
        """All of them."""
        return self.outputs

    def batches(self, start: int) -> Iterator[Mapping[int, Tensor]]:
        """Tokens drawn with replacement, the same ones in every layer."""
        n = len(next(iter(self.outputs.values())))
        for step in count(start):
            generator = torch.Generator().manual_seed((self.seed * 1_000_003 + step) % 2**63)
            drawn = torch.randint(n, (self.batch_tokens,), generator=generator)
            yield {layer: outputs.index_select(0, drawn.to(outputs.device)) for layer, outputs in self.outputs.items()}


@dataclass(frozen=True)
class StreamedActivations:
    """Outputs of a model's layers over texts without end, a shuffled buffer at a time.

    A buffer holds the tokens of consecutive texts, in an order drawn anew for every pass over the texts; what is left
    of it below a batch is dropped. Which texts make a buffer follows from their lengths, so that any step can be found
    again without running the model over those before it.
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
        """The first buffer."""
        return self._outputs(next(self._buffers()))

    def batches(self, start: int) -> Iterator[Mapping[int, Tensor]]:
        """Batches without replacement from each buffer in turn."""
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
        """The texts of each buffer, pass after pass; the last buffer of a pass may be small."""
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
        parts = list(
            stream(
                self.model,
                [self.texts[i] for i in buffer],
                layers=self.layers,
                batch_texts=self.batch_texts,
                prepend_bos=self.prepend_bos,
            )
        )
        return {layer: torch.cat([part.outputs[layer] for part in parts]) for layer in self.layers}
