"""Predict next tokens without holding the logits of a batch: the body runs once, the final head on chunks of tokens."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lfp.errors import ModelError
from lfp.ml.models.loading import LanguageModel
from lfp.ml.models.runtime import FastLinear

_CHUNK_ENTRIES = 2**23
"""Logits of a chunk: 32 MB in float32. The memory of a larger one is given back and requested again for every chunk,
which takes longer than to compute on it."""
_DEVICE_CHUNK_ENTRIES = 2**27
"""The same on a GPU, whose products of few rows are slow: 512 MB."""


@dataclass(frozen=True, eq=False)
class States:
    """What a model's final head reads at each position of a batch, [batch, seq, d_model], on the model's device."""

    model: LanguageModel
    values: Tensor
    output: Any
    """The body's whole output, as transformers returns it."""

    def take(self, wanted: Tensor) -> States:
        """Keep the positions that a mask [batch, seq] marks: values [n, d_model], row after row."""
        places = wanted.flatten().nonzero()[:, 0]  # where the mask is on the host, no device is waited for
        taken = self.values.flatten(0, 1).index_select(0, places.to(self.values.device, non_blocking=True))
        return States(self.model, taken, self.output)

    def logits(self, rows: slice) -> Tensor:
        """Return the logits [n, d_vocab] that the network computes from rows of values [..., d_model], as float32."""
        network, values = self.model.network, self.values[rows]
        body = _find_body(network)
        fields = {**self.output, "last_hidden_state": values[None]}
        ids = torch.zeros(1, len(values), dtype=torch.int64, device=values.device)
        with self.model.selected(), FastLinear():
            spread = vars(body).get("forward")  # that of a model over several cards moves its arguments
            body.forward = lambda *_, **__: type(self.output)(**fields)
            try:
                logits: Tensor = network(ids, use_cache=False).logits
            finally:
                del body.forward
                if spread is not None:
                    body.forward = spread
        return logits[0, :, : self.model.d_vocab].float()

    def chunks(self) -> Iterator[slice]:
        """Yield the rows whose logits are computed at a time."""
        entries = _CHUNK_ENTRIES if self.values.device.type == "cpu" else _DEVICE_CHUNK_ENTRIES
        size = max(1, entries // self.model.d_vocab)
        for start in range(0, len(self.values), size):
            yield slice(start, min(start + size, len(self.values)))

    def log_probs(self, ids: Tensor) -> Tensor:
        """Return the log-probability [n] of a token `ids` [n] after each of values [n, d_model].

        In float64 on the CPU, so that sums over many tokens are accurate.
        """
        ids = ids.to(self.values.device)
        chosen = [
            self.logits(chunk).log_softmax(-1).gather(1, ids[chunk, None])[:, 0].double() for chunk in self.chunks()
        ]
        return torch.cat([torch.empty(0, dtype=torch.float64, device=ids.device), *chosen]).cpu()


def read_states(model: LanguageModel, input_ids: Tensor, attention_mask: Tensor) -> States:
    """Run a model up to its final head; hooks on the model take effect."""
    found: list[Any] = []

    def stop(_: nn.Module, __: Any, output: Any) -> None:
        found.append(output)
        raise _BodyDoneError

    with model.selected():
        handle = _find_body(model.network).register_forward_hook(stop)
        try:
            with contextlib.suppress(_BodyDoneError):
                model.forward(input_ids, attention_mask, use_cache=False)
        finally:
            handle.remove()
    return States(model, found[0].last_hidden_state, found[0])


@torch.no_grad()
def try_batch(model: LanguageModel, *, batch_texts: int, context: int) -> None:
    """Run a batch of the largest size once, so that memory is full now or not for this reason."""
    ids = torch.full((batch_texts, min(context + 1, model.n_ctx)), model.pad_id)
    with FastLinear():
        states = read_states(model, ids, torch.ones_like(ids)).take(torch.ones_like(ids, dtype=torch.bool))
        states.logits(next(states.chunks()))


class _BodyDoneError(Exception):
    """Ends a forward pass where the final head would begin."""


def _find_body(network: Any) -> Any:
    """Return the part of a network that its final head reads. Raises ModelError where there is none."""
    body = network.get_decoder()
    if body is network:
        raise ModelError(
            f"{network.config.model_type}: it has no part before its final head; pick another architecture"
        )
    return body
