"""Stream what tuning changed at places: the change of a module's write at the same input, or of the activations.

The change of a write is m(u; theta_1) - m(u; theta_0), with m the MLP or the attention of a layer, theta_0 the base
model's weights, theta_1 the tuned model's, and u the input that m has in the tuned model's forward pass or in the
base's. A norm between m and the residual stream is that of the model whose forward pass it is, so that what changes is
m alone. The other form, for every site, is the tuned model's activation less the base's at the same token, which holds
what the layers before changed too.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import Cache

from lfp.errors import ModelError
from lfp.ml.models.activations import Changes, Observer, PairTokens, Tokens, stream, stream_pair
from lfp.ml.models.loading import LanguageModel
from lfp.ml.models.sites import Hook, Writer, find_writer, site_module
from lfp.ml.models.tokenization import TokenizedText
from lfp.util.types import Place

Form = Literal["writes", "activations"]
"""What is subtracted: a module's outputs at the same input, or the two models' activations."""

OnChange = Callable[[Tensor, Tensor], Tensor | None]
"""Called with a change of a write and the write itself [batch, seq, d_model]."""


@dataclass(frozen=True, eq=False)
class ChangeOfWrites:
    """A pair of models whose changes of writes can be hooked like a model's activations."""

    tuned: LanguageModel
    base: LanguageModel

    def __post_init__(self) -> None:
        """Refuse weights of half precision, whose rounding is as large as many changes."""
        for model in (self.tuned, self.base):
            if model.network.dtype != torch.float32:
                kind = str(model.network.dtype).removeprefix("torch.")
                raise ModelError(f"{model.name}: {kind} rounds away what tuning changed; set model.dtype to float32")

    @contextmanager
    def hooks(self, model: LanguageModel, hooks: Mapping[Place, Hook]) -> Iterator[None]:
        """Call functions on the changes of writes at places during forward passes of `model`, either of the pair.

        Raises ModelError for a place where no module writes.
        """

        def ignore_write(hook: Hook, change: Tensor, _: Tensor) -> None:
            hook(change)

        with self.compare(model, {place: partial(ignore_write, hook) for place, hook in hooks.items()}):
            yield

    @contextmanager
    def compare(self, model: LanguageModel, hooks: Mapping[Place, OnChange]) -> Iterator[None]:
        """Call functions on changes and writes at places during forward passes of `model`, either of the pair.

        In the tuned model what a function returns, unless None, takes the change's place. Raises ModelError for a place
        where no module writes.
        """
        other = self.base if model is self.tuned else self.tuned
        with self.base.lock, self.tuned.lock, model.selected(), ExitStack() as stack:
            for place, hook in hooks.items():
                own, others = find_writer(model.network, place), find_writer(other.network, place)
                sign = 1.0 if model is self.tuned else -1.0
                comparison = _Comparison(place, model, other, others, sign, hook, own.norm)
                for register, call in (
                    (partial(model.network.register_forward_pre_hook, with_kwargs=True), comparison.note_shape),
                    (partial(own.reads.register_forward_pre_hook, with_kwargs=True), comparison.note),
                    (site_module(model.network, place).register_forward_hook, comparison.note_write),
                    ((own.norm or own.writes).register_forward_hook, comparison.compare),
                ):
                    stack.callback(register(call).remove)
            yield


@dataclass(eq=False)
class _Comparison:
    """What one model writes at a place less what the other would, times a sign, given to a hook at every call."""

    place: Place
    model: LanguageModel
    other: LanguageModel
    others: Writer
    sign: float
    hook: OnChange
    norm: nn.Module | None
    """Of the model whose forward pass it is."""
    shape: tuple[int, ...] = ()
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    written: Tensor | None = None
    cache: Cache | None = None
    """Keys and values of the other model's module, where the forward pass has a cache."""

    def note_shape(self, _: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        self.shape = tuple((args[0] if args else kwargs["input_ids"]).shape)

    def note(self, _: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        self.args, self.kwargs = args, {name: self._own_cache(value) for name, value in kwargs.items()}

    def _own_cache(self, value: Any) -> Any:
        """Return the other module's own cache in place of the model's, which its call must not fill."""
        if not isinstance(value, Cache):
            return value
        if self.cache is None or value.get_seq_length(self.place.layer) == 0:
            self.cache = copy.deepcopy(value)
        return self.cache

    def note_write(self, _: nn.Module, __: Any, output: Any) -> None:
        self.written = output[0] if isinstance(output, tuple) else output

    def compare(self, _: nn.Module, __: Any, output: Any) -> Any:
        with self.other.selected():
            others = self.others.module.forward(*self.args, **self.kwargs)  # whose own hooks are not called
        with self.model.selected():  # in a network that both share, the adapter is as before
            other = others[0] if isinstance(others, tuple) else others
            own = output[0] if isinstance(output, tuple) else output
            change = self.sign * (own - (other if self.norm is None else self.norm.forward(other)))
        assert self.written is not None
        shape = (*self.shape, change.shape[-1])
        wanted = self.hook(change.view(shape), self.written.view(shape))
        self.args, self.kwargs, self.written = (), {}, None
        if wanted is None or self.sign < 0:
            return None
        changed = own - change + wanted.view_as(change)
        return (changed, *output[1:]) if isinstance(output, tuple) else changed


def watch_changes(tuned: LanguageModel, base: LanguageModel, places: Sequence[Place]) -> Changes | None:
    """Return what reads changes at places beside the activations; None where no module's write is among them.

    Those of the residual stream are the differences of the activations, which need no reading.
    """
    written = [place for place in places if place.site != "resid_post"]
    return Changes(written, ChangeOfWrites(tuned, base).hooks) if written else None


def stream_changes(
    tuned: LanguageModel,
    base: LanguageModel,
    texts: Sequence[TokenizedText],
    *,
    places: Sequence[Place],
    batch_texts: int,
    prepend_bos: bool,
    form: Form = "writes",
) -> Iterator[Tokens]:
    """Yield what tuning changed at the texts' tokens, one batch of texts at a time, in the form of `stream`.

    Changes of writes are at the inputs of the tuned model's forward pass. Raises ModelError for a place where no module
    writes, DataError where a change is not finite.
    """
    options = {"places": places, "batch_texts": batch_texts, "prepend_bos": prepend_bos}
    if form == "writes":
        yield from stream(tuned, texts, watch=ChangeOfWrites(tuned, base).hooks, **options)  # type: ignore[arg-type]
        return
    streams = (stream(model, texts, **options) for model in (tuned, base))  # type: ignore[arg-type]
    for after, before in zip(*streams, strict=True):
        yield _subtract(after, before)


def stream_change_pairs(
    tuned: LanguageModel,
    base: LanguageModel,
    texts: Sequence[TokenizedText],
    *,
    places: Sequence[Place],
    batch_texts: int,
    prepend_bos: bool,
    observe: Observer | None = None,
    form: Form = "writes",
) -> Iterator[PairTokens]:
    """Yield what tuning changed and the implicit reward of every token, in the form of `stream_pair`.

    Changes of writes are at the tuned model's inputs in `tuned` and at the base model's in `base`; differences of
    activations are the same in both. Raises what `stream_changes` raises.
    """
    options = {"places": places, "batch_texts": batch_texts, "prepend_bos": prepend_bos, "observe": observe}
    if form == "writes":
        yield from stream_pair(tuned, base, texts, watch=ChangeOfWrites(tuned, base).hooks, **options)  # type: ignore[arg-type]
        return
    for pair in stream_pair(tuned, base, texts, **options):  # type: ignore[arg-type]
        change = _subtract(pair.tuned, pair.base)
        yield replace(pair, tuned=change, base=change)


def _subtract(after: Tokens, before: Tokens) -> Tokens:
    return replace(after, outputs={place: after.outputs[place] - before.outputs[place] for place in after.outputs})
