"""Predict next tokens without holding the logits of a batch: the body runs once, the final head on chunks of tokens."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from lfp.errors import ModelError
from lfp.ml.models.loading import LanguageModel
from lfp.ml.models.runtime import affine

_CHUNK_ENTRIES = 2**24
"""Logits of a chunk: 64 MB in float32."""


@dataclass(frozen=True, eq=False)
class States:
    """What a model's final head reads at each position of a batch, [batch, seq, d_model], on the model's device."""

    model: LanguageModel
    values: Tensor
    output: Any
    """The body's whole output, as transformers returns it."""

    def take(self, wanted: Tensor) -> States:
        """Keep the positions that a mask [batch, seq] marks: values [n, d_model], row after row."""
        return States(self.model, self.values[wanted.to(self.values.device)], self.output)

    def logits(self, rows: slice) -> Tensor:
        """Return the logits [n, d_vocab] that the network itself computes from rows of values [..., d_model], float32.

        They are computed in float32 whatever the type of the weights: a difference of two models' log-probabilities
        would drown in the rounding of bfloat16.
        """
        network, values = self.model.network, self.values[rows]
        body = _find_body(network)
        fields = {**self.output, "last_hidden_state": values[None]}
        ids = torch.zeros(1, len(values), dtype=torch.int64, device=values.device)
        with self.model.selected(), _Float32Linear():
            body.forward = lambda *_, **__: type(self.output)(**fields)
            try:
                logits: Tensor = network(ids, use_cache=False).logits
            finally:
                del body.forward
        return logits[0, :, : self.model.d_vocab].float()

    def chunks(self) -> Iterator[slice]:
        """Yield the rows whose logits are computed at a time."""
        size = max(1, _CHUNK_ENTRIES // self.model.d_vocab)
        for start in range(0, len(self.values), size):
            yield slice(start, min(start + size, len(self.values)))


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


class _BodyDoneError(Exception):
    """Ends a forward pass where the final head would begin."""


class _Float32Linear(TorchFunctionMode):
    """Context in which linear layers compute in float32, in the thread that entered it."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Replace `F.linear`; torch calls this for each of its functions."""
        if func is not F.linear:
            return func(*args, **(kwargs or {}))
        inputs, weight, bias = (*args, None)[:3] if "bias" not in (kwargs or {}) else (*args, (kwargs or {})["bias"])
        return affine(inputs.float(), weight.float(), None if bias is None else bias.float())


def _find_body(network: Any) -> Any:
    """Return the part of a network that its final head reads. Raises ModelError where there is none."""
    body = network.get_decoder()
    if body is network:
        raise ModelError(
            f"{network.config.model_type}: it has no part before its final head; pick another architecture"
        )
    return body
