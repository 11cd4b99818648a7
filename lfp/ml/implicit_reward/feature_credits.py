"""Split modules' credits over features: what each feature of a dictionary carries of the implicit reward, in nats.

At a point a of the path of weights, m'_s is how tuning changes what a module writes at position s, its input held
fixed, and g_s the gradient of the log-likelihood with respect to that write. A dictionary splits m'_s into codes c_i
times directions d_i, a bias b and what is left, so that the module's credit is, to rounding,

    g_s . m'_s = sum over features i of c_i (g_s . d_i)  +  g_s . b  +  g_s . (m'_s - decoded),

and its integral over a is split alike. A dictionary of changes encodes m'_s itself. Of one of activations, c_i is how
feature i moves with the write, by the derivative of its activation, and there is no bias. A crosscoder encodes what
both models' weights write for the input, and d_i is the difference of its two decoders' rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, jvp
from torch.utils._pytree import tree_map
from transformers.models.bloom.modeling_bloom import BloomGelu

from lfp.evaluation.feature_credits import PATHS, TextCredits
from lfp.ml.implicit_reward.quadrature import Rule, gauss
from lfp.ml.implicit_reward.watched_modules import Call, Kind, Module, Tally
from lfp.ml.implicit_reward.weight_path import WeightPath
from lfp.ml.models.activations import model_batches
from lfp.ml.models.loading import LanguageModel
from lfp.ml.models.sites import Writer, find_writer, site_module
from lfp.ml.models.tokenization import Batch, TokenizedText
from lfp.ml.sae.autoencoders import Dictionary, Sae, normalise
from lfp.util.types import Flags, Place, Reads, Site

N_PATHS = len(PATHS)
_KINDS: Mapping[Site, Kind] = {"mlp_out": "mlp", "attn_out": "attention", "resid_post": "other"}
_STEP = 1e-4
"""Of a difference along the path, whose length is 1."""
_CHUNK_ENTRIES = 2**22
"""Most features times tokens, and numbers of decoder rows, in memory at a time."""


def feature_credits(
    base: LanguageModel,
    tuned: LanguageModel,
    dictionary: Dictionary,
    texts: Sequence[TokenizedText],
    *,
    nodes: int,
    batch_texts: int,
    prepend_bos: bool = True,
    counted: Sequence[Flags] | None = None,
) -> Iterator[TextCredits]:
    """Yield the split of every text's implicit reward over the dictionary's features, on both kinds of path.

    `counted` marks the tokens whose implicit reward is split, all by default. The integral has `nodes` Gauss-Legendre
    nodes, each of about six forward passes' time. Features of the residual stream, which no single module writes, get
    none. Raises ModelError where the models' parameters differ in shape, DataError where a gradient is not finite.
    """
    path = _restrict(WeightPath.between(base, tuned), dictionary.places)
    for batch in model_batches(base, texts, batch_texts=batch_texts, prepend_bos=prepend_bos):
        sums = _integrate(path, batch, batch.mark(counted), dictionary, gauss(nodes))
        for row, text in enumerate(batch.rows):
            yield sums.of_text(row, len(texts[text].token_ids))


def _restrict(path: WeightPath, places: Sequence[Place]) -> WeightPath:
    """Leave out of the ledger's pass all modules but those that write to the places; the others get no credit."""
    wanted = {Module(place.layer, _KINDS[place.site]) for place in places}
    columns = {name: column for name, column in path.columns.items() if path.modules[column] in wanted}
    return replace(path, leaves={k: v for k, v in path.leaves.items() if k in columns}, columns=columns)


@dataclass(frozen=True, eq=False)
class _Sums:
    """The integrals of a batch: entries (token of the batch, feature, credits), and sums by place and token."""

    batch: Batch
    tokens: Tensor
    features: Tensor
    credits: Tensor
    by_token: Tensor
    """[3, paths, places, texts, seq]: modules, bias, residual."""

    def of_text(self, row: int, n_tokens: int) -> TextCredits:
        n_bos, length = self.batch.n_bos, self.batch.input_ids.shape[1]
        low, high = torch.searchsorted(self.tokens, torch.tensor([row * length, (row + 1) * length])).tolist()
        modules, bias, residual = self.by_token[..., row, : n_bos + n_tokens].numpy()
        return TextCredits(
            positions=(self.tokens[low:high] - row * length - n_bos).numpy(),
            features=self.features[low:high].numpy(),
            credits=self.credits[low:high].T.numpy(),
            modules=modules,
            bias=bias,
            residual=residual,
        )


def _integrate(path: WeightPath, batch: Batch, counted: Tensor, dictionary: Dictionary, rule: Rule) -> _Sums:
    """Integrate the split of every place's write over the nodes of a rule."""
    shape, mask = batch.input_ids.shape, batch.text_tokens().flatten()
    written = [number for number, place in enumerate(dictionary.places) if place.site != "resid_post"]
    offsets = np.searchsorted(dictionary.place_of, np.arange(len(dictionary.places)))
    by_token = torch.zeros(3, N_PATHS, len(dictionary.places), shape.numel(), dtype=torch.float64)
    keys, values = [torch.zeros(0, dtype=torch.int64)], [torch.zeros(0, N_PATHS, dtype=torch.float64)]
    for at, weight in zip(rule.nodes.tolist(), rule.weights.tolist(), strict=True):
        credits, writes = observe_writes(path, batch, counted, [dictionary.saes[number] for number in written], at)
        for number, write in zip(written, writes, strict=True):
            place = dictionary.places[number]
            column = (
                path.modules.index(Module(place.layer, _KINDS[place.site])) if write.gradients is not None else None
            )
            if column is None or write.gradients is None:
                continue  # tuning changed nothing there
            sae, moved, gradients = dictionary.saes[number], write.moved, write.gradients
            module, bias, residual = by_token[:, :, number]
            module += weight * credits[..., column].flatten(1)
            residual[:, ~mask] += weight * (gradients.double() * moved).sum(-1).cpu()[:, ~mask]
            for chosen in _chunks(mask, sae):
                part = split_change(sae, moved[chosen], write.read[chosen], gradients[:, chosen])
                bias[:, chosen] += weight * part.bias.cpu()
                residual[:, chosen] += weight * part.residual.cpu()
                entries = chosen[part.tokens.cpu()] * dictionary.n_features + int(offsets[number]) + part.features.cpu()
                keys.append(entries)
                values.append(weight * part.credits.cpu())
    key, place = torch.unique(torch.cat(keys), return_inverse=True)
    credits = torch.zeros(len(key), N_PATHS, dtype=torch.float64).index_add_(0, place, torch.cat(values))
    by_token = by_token.view(3, N_PATHS, len(dictionary.places), *shape)
    return _Sums(batch, key // dictionary.n_features, key % dictionary.n_features, credits, by_token)


def _chunks(mask: Tensor, sae: Sae) -> Iterator[Tensor]:
    """Yield the indices of the marked tokens, as many at a time as memory is meant to hold."""
    yield from mask.nonzero()[:, 0].split(max(1, _CHUNK_ENTRIES // max(sae.info.width, 64 * sae.info.d_in)))


@dataclass(frozen=True, eq=False)
class SplitChange:
    """The split of writes' movements at one point: entries (token, feature, credits [entries, paths]), and the rest.

    `bias` and `residual` are [paths, tokens].
    """

    tokens: Tensor
    features: Tensor
    credits: Tensor
    bias: Tensor
    residual: Tensor


@torch.no_grad()
def split_change(sae: Sae, moved: Tensor, read: Tensor, gradients: Tensor) -> SplitChange:
    """Split gradients [paths, n, d] times the movements [n, d] of writes over a dictionary's features.

    `read` [n, d_in] is what the dictionary reads: the movements, the writes, or the writes of both models' weights.
    """
    normalised = normalise(read, sae.info.normalize)
    size = normalised.size if normalised.size is not None else moved.new_ones(len(moved), 1)
    codes = sae.activate_(F.linear(normalised.inputs, sae.encoder, sae.b_enc))
    if sae.info.reads == "activations":
        codes = F.linear(moved / size, sae.encoder) * (codes > 0)
    rows, constant = change_decoder(sae)
    tokens, features = codes.nonzero(as_tuple=True)
    parts = rows[features] * (codes[tokens, features][:, None] * size[tokens])
    decoded = (size * constant).index_add(0, tokens, parts)
    return SplitChange(
        tokens,
        features,
        (gradients[:, tokens].double() * parts).sum(-1).T,
        (gradients.double() * (size * constant)).sum(-1),
        (gradients.double() * (moved - decoded)).sum(-1),
    )


def change_decoder(sae: Sae) -> tuple[Tensor, Tensor]:
    """Return what a unit of each feature adds to a change [width, d_model], and what all changes have [d_model]."""
    rows, bias = sae.tuned_decoder, sae.tuned_bias
    if sae.info.reads == "pair":
        return rows - sae.base_decoder, bias - sae.b_dec.detach()[sae.info.d_model :]
    return rows, bias if sae.info.reads == "change" else torch.zeros_like(bias)


@dataclass(eq=False)
class Write:
    """What the pass at a point of the path shows of a place: how tuning moves its write, and the write's gradients.

    `moved` is [tokens of the batch, d_model], `read` [tokens, d_in] what the dictionary reads, and `gradients` [paths,
    tokens, d_model] or None where nothing that changed is before or in the module.
    """

    reads: Reads
    writer: Writer
    name: str
    norm: str
    call: Call | None = None
    read: Tensor = field(default_factory=lambda: torch.zeros(0))
    moved: Tensor = field(default_factory=lambda: torch.zeros(0))
    gradients: Tensor | None = None
    _found: dict[int, Tensor] = field(default_factory=dict)

    def watch(self, stack: ExitStack, tally: Tally, site: nn.Module) -> None:
        """Hook what the module reads and what stands at its site, until the stack closes."""

        def note(_: nn.Module, args: Any, kwargs: Any) -> None:
            self.call = Call(self.writer.module, self.name, *tree_map(_detach, (args, kwargs)))

        def keep(_: nn.Module, __: Any, output: Any) -> None:
            found = output[0] if isinstance(output, tuple) else output
            self.read = found.detach().flatten(0, -2)
            if found.requires_grad:
                found.register_hook(partial(self._keep_gradient, tally))

        stack.callback(self.writer.reads.register_forward_pre_hook(note, with_kwargs=True).remove)
        stack.callback(site.register_forward_hook(keep).remove)

    def _keep_gradient(self, tally: Tally, gradient: Tensor) -> None:
        for path in tally.active:
            self._found[path] = gradient.flatten(0, -2)

    @torch.no_grad()
    def finish(self, path: WeightPath, weights: Mapping[str, Tensor]) -> None:
        """Compute how tuning moves the write, and stack the gradients; the call is let go."""
        assert self.call is not None
        call, self.call = self.call, None
        if len(self._found) < N_PATHS:
            return
        self.gradients = torch.stack([self._found[number] for number in range(N_PATHS)])
        moved = _move(path, call, weights)
        if self.writer.norm is not None:
            moved = jvp(partial(self._scale, weights), (_run(call, weights),), (moved,))[1]
        self.moved = moved.flatten(0, -2)
        if self.reads == "change":
            self.read = self.moved
        elif self.reads == "pair":
            ends = [self._scale(weights, _run(call, path.weights(at))).flatten(0, -2) for at in (1.0, 0.0)]
            self.read = torch.cat(ends, dim=-1)

    def _scale(self, weights: Mapping[str, Tensor], written: Tensor) -> Tensor:
        """Apply the norm between the module and the residual stream, where there is one."""
        if self.writer.norm is None:
            return written
        own = {key: weights[f"{self.norm}.{key}"] for key, _ in self.writer.norm.named_parameters()}
        scaled: Tensor = functional_call(self.writer.norm, own, (written,))
        return scaled


def _run(call: Call, weights: Mapping[str, Tensor]) -> Tensor:
    return call.run({key: weights[f"{call.name}.{key}"] for key, _ in call.module.named_parameters()})[0]


def _move(path: WeightPath, call: Call, weights: Mapping[str, Tensor]) -> Tensor:
    """Return the derivative of a module's output along the path, its inputs held fixed.

    Functions that cannot be differentiated forwards, such as BLOOM's activation, are differenced in double precision.
    """
    if not any(isinstance(module, BloomGelu) for module in call.module.modules()):
        return path.move(call, weights, is_leaf=False)[0]
    twice = replace(call, args=tree_map(_to_double, call.args), kwargs=tree_map(_to_double, dict(call.kwargs)))
    own = {key: f"{call.name}.{key}" for key, _ in call.module.named_parameters()}
    ends = []
    for step in (_STEP, -_STEP):
        stepped = {
            key: weights[name].double() + (step * path.change[name].double() if name in path.change else 0.0)
            for key, name in own.items()
        }
        ends.append(twice.run(stepped)[0])
    return ((ends[0] - ends[1]) / (2.0 * _STEP)).float()


def observe_writes(
    path: WeightPath, batch: Batch, counted: Tensor, saes: Sequence[Sae], at: float
) -> tuple[Tensor, list[Write]]:
    """Run the ledger's pass at a point of the path; return its credits and what it shows of dictionaries' places."""
    network = path.base.network
    names = {id(module): name for name, module in network.named_modules()}
    writes = []
    for sae in saes:
        writer = find_writer(network, sae.info.place)
        name = names.get(id(writer.module), names[id(writer.reads)].rpartition(".")[0])
        norm = "" if writer.norm is None else names[id(writer.norm)]
        writes.append(Write(sae.info.reads, writer, name, norm))

    def observe(stack: ExitStack, tally: Tally) -> None:
        for sae, write in zip(saes, writes, strict=True):
            write.watch(stack, tally, site_module(network, sae.info.place))

    credits = path.differentiate(batch, counted, at, same_position=True, observe=observe)
    weights = path.weights(at)
    with path.base.selected():
        for write in writes:
            write.finish(path, weights)
    return credits, writes


def _to_double(value: Any) -> Any:
    return value.double() if isinstance(value, Tensor) and value.is_floating_point() else value


def _detach(value: Any) -> Any:
    return value.detach() if isinstance(value, Tensor) else value
