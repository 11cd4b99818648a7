"""Scale or remove features in a running model: only what the chosen features decode to is changed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from lfp.errors import ModelError
from lfp.ml.features.active import FeatureTotals, encode_active
from lfp.ml.implicit_reward.changes import ChangeOfWrites, watch_changes
from lfp.ml.models.activations import stream
from lfp.ml.models.generation import Completion
from lfp.ml.models.loading import LanguageModel
from lfp.ml.models.sites import Hook
from lfp.ml.models.tokenization import TokenizedText
from lfp.ml.sae.autoencoders import Dictionary, Sae, normalise
from lfp.ml.sae.views import find_change_places, stream_both, view_places
from lfp.util.types import Place, Role


@contextmanager
def scaling(
    model: LanguageModel,
    dictionary: Dictionary,
    scales: Mapping[int, float],
    *,
    prepend_bos: bool,
    other: LanguageModel | None = None,
    role: Role = "tuned",
    others: float = 1.0,
    rest: float = 1.0,
) -> Iterator[None]:
    """Scale features in `model` within the context: each of `scales` acts `scales[feature]` times as strongly.

    The activation x at a feature's place becomes x + sum_i (scale_i - 1) f_i d_i: 0 removes feature i, 2 doubles it,
    1 leaves it unchanged. What the autoencoder does not explain of x, and its decoder bias, stay. With `prepend_bos`
    the first position of a call with several tokens, the beginning-of-sequence token, is left unchanged, because no
    autoencoder was trained on one; rows of such a call must not be padded on the left. `model` is the pair's `role`;
    f and d are its features and its decoder rows (`lfp.ml.sae.views`), for which a dictionary that reads both models
    needs the `other` one: that runs over the same tokens, unchanged. The model's lock is held, and its hooks are
    removed at the end.

    Of a dictionary of what tuning changed, `others` scales all features that are not in `scales`, and `rest` what no
    feature holds of the change: its bias and residual. With all of them at 0 the tuned model's module writes what the
    base's weights do. Raises ModelError for a feature that the dictionary does not have, and for `others` or `rest` of
    another kind of dictionary.
    """
    by_place: dict[int, dict[int, float]] = defaultdict(dict)
    for feature_id, scale in scales.items():
        if not 0 <= feature_id < dictionary.n_features:
            raise ModelError(
                f"feature {feature_id}: not one of the dictionary's 0 to {dictionary.n_features - 1}; name one of those"
            )
        by_place[int(dictionary.place_of[feature_id])][int(dictionary.index_of[feature_id])] = scale
    if others != 1.0 or rest != 1.0:
        if any(sae.info.reads != "change" for sae in dictionary.saes):
            raise ModelError("only a dictionary of what tuning changed has a rest of the change; scale single features")
        for number, sae in enumerate(dictionary.saes):
            by_place[number] = dict.fromkeys(range(sae.info.width), others) | by_place[number]
    n_bos = len(model.bos_ids(prepend_bos))
    saes = [dictionary.saes[number] for number in by_place]
    with ExitStack() as stack:
        seen = stack.enter_context(_seeing(model, other, saes, role))
        hooks = {
            sae.info.place: partial(_rescale, sae, of_place, rest, n_bos, role, seen)
            for sae, of_place in zip(saes, by_place.values(), strict=True)
        }
        stack.enter_context(model.hooks(hooks))
        yield


@dataclass(eq=False)
class _Seen:
    """What the current forward pass has at places besides the model's own activations, [batch, seq, d_model]."""

    others: dict[Place, Tensor] = field(default_factory=dict)
    """Activations of the other model."""
    changes: dict[Place, Tensor] = field(default_factory=dict)
    """What tuning changed of what the model's modules write."""
    is_others: bool = False
    """Whether the other model is running, which may share the network and so its hooks."""

    def view(self, sae: Sae, role: Role, output: Tensor, first: int) -> Tensor:
        """Return what an autoencoder reads [tokens, d_in] of the model's activations, from position `first` on."""
        place, device = sae.info.place, sae.W_dec.device

        def flat(values: Tensor) -> Tensor:
            return values[:, first:].reshape(-1, output.shape[-1]).float().to(device)

        own = flat(output)
        if sae.info.reads == "activations":
            return own
        if sae.info.reads == "pair":
            return torch.cat([own, own if role == "base" else flat(self.others[place])], dim=1)
        if place in self.changes:
            return flat(self.changes[place])
        difference = own - flat(self.others[place])
        return difference if role == "tuned" else -difference


@contextmanager
def _seeing(model: LanguageModel, other: LanguageModel | None, saes: Sequence[Sae], role: Role) -> Iterator[_Seen]:
    """Keep what autoencoders need besides the activations of `model` during its forward passes."""
    written = [sae.info.place for sae in saes if sae.info.reads == "change" and sae.info.place.site != "resid_post"]
    beside = [
        sae.info.place
        for sae in saes
        if (sae.info.reads == "pair" and role == "tuned")
        or (sae.info.reads == "change" and sae.info.place.site == "resid_post")
    ]
    seen = _Seen()
    if not written and not beside:
        yield seen
        return
    if other is None:
        raise ModelError("the dictionary reads both models of the pair; pass the other one too")
    with ExitStack() as stack:
        if beside:
            stack.enter_context(_running_beside(model, other, beside, seen))
        if written:
            pair = (model, other) if role == "tuned" else (other, model)
            hooks: dict[Place, Hook] = {place: partial(seen.changes.__setitem__, place) for place in written}
            stack.enter_context(ChangeOfWrites(*pair).hooks(model, hooks))
        yield seen


@contextmanager
def _running_beside(model: LanguageModel, other: LanguageModel, places: Sequence[Place], seen: _Seen) -> Iterator[None]:
    """Run `other` over the tokens of every forward pass of `model` first, and keep its activations at places.

    Where `model` continues from a cache, so does `other`, from its own.
    """
    cache: list[Any] = []

    def keep(place: Place, output: Tensor) -> None:
        if seen.is_others:
            seen.others[place] = output

    def run_other(_: nn.Module, __: Any, kwargs: dict[str, Any]) -> None:
        if seen.is_others:
            return
        continues = kwargs.get("past_key_values") is not None
        own = {name: value for name, value in kwargs.items() if name != "past_key_values"}
        if kwargs.get("use_cache"):
            own["past_key_values"] = cache[0] if continues else None
        seen.is_others = True
        try:
            with other.selected():
                output = other.network(**own)
        finally:
            seen.is_others = False
            with model.selected():  # in a network that both share, the adapter is as before
                pass
        cache[:] = [output.past_key_values] if kwargs.get("use_cache") else []

    with other.hooks({place: partial(keep, place) for place in places}), model.selected():
        handle = model.network.register_forward_pre_hook(run_other, with_kwargs=True)
        try:
            yield
        finally:
            handle.remove()


@torch.no_grad()
def _rescale(
    sae: Sae, scales: Mapping[int, float], rest: float, n_bos: int, role: Role, seen: _Seen, output: Tensor
) -> Tensor | None:
    """Scale features of `sae` in activations [batch, seq, d_model], unless the other model is running.

    A change becomes `rest` times itself plus (scale - rest) times each feature. A call with one token continues from a
    cache, so it contains no beginning-of-sequence token. Inputs that the autoencoder normalises by a scale get a change
    in the scale of x; the centre is not part of a change.
    """
    if seen.is_others:
        return None
    first = n_bos if output.shape[1] > 1 else 0
    inputs = seen.view(sae, role, output, first)
    indices = torch.tensor(list(scales), device=sae.W_dec.device)
    factors = torch.tensor([scale - rest for scale in scales.values()], device=sae.W_dec.device)
    decoder = sae.tuned_decoder if role == "tuned" else sae.base_decoder
    change = sae.encode_some(inputs, indices) @ (decoder[indices] * factors[:, None])
    change = replace(normalise(inputs, sae.info.normalize), centre=None).undo(change)
    if rest != 1.0:
        change += (rest - 1.0) * inputs
    changed = output[:, first:] + change.view_as(output[:, first:])
    return torch.cat([output[:, :first], changed], dim=1) if first else changed


def firing(
    model: LanguageModel,
    dictionary: Dictionary,
    completions: Sequence[Completion],
    *,
    prepend_bos: bool,
    batch_texts: int = 64,
    base: LanguageModel | None = None,
) -> FeatureTotals:
    """Total the activations of features where an ablation acts: on all tokens of prefixes and completions.

    With `prepend_bos` the prefixes begin with a beginning-of-sequence token, which is left out. One pass; memory grows
    with features, not with tokens. Activations are those of `Dictionary.encode`; where it reads both models, `model` is
    the tuned one and `base` the other.
    """
    totals = FeatureTotals(dictionary.n_features)
    n_bos = len(model.bos_ids(prepend_bos))
    texts = [TokenizedText("", (*row.prefix_ids[n_bos:], *row.token_ids), (), truncated=False) for row in completions]
    options: dict[str, Any] = {"places": dictionary.places, "batch_texts": batch_texts, "prepend_bos": prepend_bos}
    with model.lock:
        if base is None or not dictionary.reads_pair:
            for tokens in stream(model, texts, **options):
                totals.update(encode_active(dictionary, tokens.outputs))
            return totals
        changes = watch_changes(model, base, find_change_places(dictionary))
        for both in stream_both(model, base, texts, changes=changes, **options):
            totals.update(encode_active(dictionary, view_places(dictionary, both, "tuned")))
    return totals
