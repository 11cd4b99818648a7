"""Split modules' credits over features: what each feature of a dictionary carries of the implicit reward, in nats.

At a point a of the path of weights, m'_s is how tuning changes what a module writes at position s, its input held
fixed, and g_s the gradient of the log-likelihood with respect to that write. A dictionary splits m'_s into codes c_i
times directions d_i, a bias b and what is left, so that the module's credit is, to rounding of double precision,

    g_s . m'_s = sum over features i of c_i (g_s . d_i)  +  g_s . b  +  g_s . (m'_s - decoded),

and its integral over a is split alike. A dictionary of changes encodes m'_s itself. Of one of activations, c_i is how
feature i moves with the write, by the derivative of its activation, and there is no bias. A crosscoder encodes what
both models' weights write for the input, and d_i is the difference of its two decoders' rows.

The nodes of the integral are as many as bring the modules' credits to those that the ledger has for the same texts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from lfp.errors import TextError
from lfp.evaluation.feature_credits import TextCredits
from lfp.ml.implicit_reward.observed_writes import N_PATHS, observe_writes
from lfp.ml.implicit_reward.quadrature import FirstRule, refine
from lfp.ml.implicit_reward.watched_modules import Kind
from lfp.ml.implicit_reward.weight_path import WeightPath
from lfp.ml.models.activations import batch_of_rows
from lfp.ml.models.loading import LanguageModel
from lfp.ml.models.runtime import Batches
from lfp.ml.models.tokenization import Batch, TokenizedText
from lfp.ml.sae.autoencoders import Dictionary, Sae, normalise
from lfp.util.types import Flags, Floats, Place, Site

KINDS: Mapping[Site, Kind] = {"mlp_out": "mlp", "attn_out": "attention"}
"""The kind of module that writes at a site."""
_CHUNK_ENTRIES = 2**22
"""Most features times tokens, and numbers of decoder rows, in memory at a time."""


@dataclass(frozen=True, eq=False)
class Reference:
    """What the ledger says of texts on the full path, by which the number of nodes is chosen.

    `credits` [texts, places] are those of the modules that write at the dictionary's places, 0 where none does, and NaN
    for texts that the ledger did not split; `size` [texts] is the sum of the sizes of all modules' credits.
    """

    credits: Floats
    size: Floats
    tolerance: float = 1e-3
    """Largest distance of a module's credit from this, as a share of `size`."""
    max_nodes: int = 63

    def take(self, texts: slice) -> Reference:
        """Return what it says of some texts."""
        return replace(self, credits=self.credits[texts], size=self.size[texts])


def feature_credits(
    base: LanguageModel,
    tuned: LanguageModel,
    dictionary: Dictionary,
    texts: Sequence[TokenizedText],
    *,
    nodes: int,
    batch_texts: int,
    batch_key: str = "feature_credits.batch_texts",
    prepend_bos: bool = True,
    counted: Sequence[Flags] | None = None,
    reference: Reference | None = None,
    controls: Mapping[Place, Sae] | None = None,
) -> Iterator[TextCredits]:
    """Yield the split of every text's implicit reward over the dictionary's features, on both kinds of path.

    `counted` marks the tokens whose implicit reward is split, all by default. The integral has as many nodes as bring
    the modules' credits within the tolerance of those of the `reference`, and `nodes` Gauss-Legendre nodes for texts
    that it does not know. Features of the residual stream, which no single module writes, get none. The same changes
    are split over the features of `controls`, dictionaries that read what the dictionary of their place does. Where
    memory is full, batches are halved, once; `batch_key` is the key of the config that sets their size. Raises
    ModelError where the models' parameters differ in shape or memory is still full, TextError where a gradient is not
    finite.
    """
    path = WeightPath.between(base, tuned)
    known = reference if reference is not None else _know_nothing(len(texts), dictionary)
    most = max(nodes, known.max_nodes)
    first = FirstRule(most, nodes if reference is None else 1)
    splitter = _Splitter(path, dictionary, known, first, nodes, controls or {})

    def split(rows: range) -> list[TextCredits]:
        batch = batch_of_rows(base, texts, rows, prepend_bos=prepend_bos)
        return list(splitter.split(batch, batch.mark(counted), [len(texts[row].token_ids) for row in rows]))

    batches = Batches(batch_texts, "credits of features", batch_key, base.device)
    for found in batches.split(range(len(texts)), split):
        yield from found


def _know_nothing(n_texts: int, dictionary: Dictionary) -> Reference:
    return Reference(np.full((n_texts, len(dictionary.places)), np.nan), np.ones(n_texts))


@dataclass(frozen=True, eq=False)
class _Splitter:
    """What texts are split with."""

    path: WeightPath
    dictionary: Dictionary
    reference: Reference
    first: FirstRule
    nodes: int
    controls: Mapping[Place, Sae]
    passes: list[float] = field(default_factory=list)
    """What a node takes, in forward passes, once it is known."""

    def split(self, batch: Batch, counted: Tensor, lengths: Sequence[int]) -> Iterator[TextCredits]:
        """Yield the split of a batch's texts, which have so many tokens."""
        n = len(batch.rows)
        points: list[list[TextCredits]] = [[] for _ in range(n)]
        found: dict[int, TextCredits] = {}
        left, evaluated = list(range(n)), np.zeros(n)
        for number, step in enumerate(refine(self.first.n, self.first.most)):
            if not step.n_known:
                points = [[] for _ in range(n)]
            for at in step.new:
                sums = self._differentiate(batch.take(left), counted[left], at)
                for row, place in enumerate(left):
                    points[place].append(sums.of_text(row, lengths[place]))
            evaluated[left] += len(step.new)
            for place in left:
                text = _integrate(points[place], step.rule.weights, self.dictionary.n_features)
                found[place] = replace(text, error=self._measure_error(text, batch.rows[place]))
            left = [place for place in left if self._needs_more(found[place])]
            if number == 0:
                self.first.note(n, len(left))
            if not left:
                break
        if not self.passes:
            self.passes.append(self._count_passes(batch.take([0]), counted[:1]))
        for place, n_nodes in enumerate(evaluated.tolist()):
            yield replace(found[place], forward_passes=n_nodes * self.passes[0])

    def _measure_error(self, text: TextCredits, row: int) -> float:
        """Return how far a module's credit is from the ledger's at most; NaN for texts that it does not know."""
        missed = np.abs(text.modules[0].sum(1) - self.reference.credits[row]).max(initial=0.0)
        return float(missed / max(self.reference.size[row], 1e-300))

    def _needs_more(self, text: TextCredits) -> bool:
        if np.isnan(text.error):
            return text.nodes < self.nodes
        return text.error > self.reference.tolerance

    def _count_passes(self, batch: Batch, counted: Tensor) -> float:
        """Count what a node takes, as a multiple of the floating-point operations of a forward pass."""
        with FlopCounterMode(display=False) as forward:
            self.path.log_probs(batch, counted, 0.5)
        with FlopCounterMode(display=False) as node:
            self._differentiate(batch, counted, 0.5)
        return float(node.get_total_flops() / forward.get_total_flops())

    def _differentiate(self, batch: Batch, counted: Tensor, at: float) -> _Sums:
        """Split every place's derivative at a point of the path."""
        dictionary, shape, mask = self.dictionary, batch.input_ids.shape, batch.text_tokens().flatten()
        written = [number for number, place in enumerate(dictionary.places) if place.site in KINDS]
        offsets = np.searchsorted(dictionary.place_of, np.arange(len(dictionary.places)))
        by_token = torch.zeros(4, N_PATHS, len(dictionary.places), shape.numel(), dtype=torch.float64)
        by_token[3, :, [place not in self.controls for place in dictionary.places]] = torch.nan
        keys, values = [torch.zeros(0, dtype=torch.int64)], [torch.zeros(0, N_PATHS, dtype=torch.float64)]
        writes = observe_writes(self.path, batch, counted, [dictionary.saes[number] for number in written], at)
        for number, write in zip(written, writes, strict=True):
            if write is None or not len(write.gradients):
                continue  # tuning changed nothing there
            sae, moved, gradients = dictionary.saes[number], write.moved, write.gradients
            module, bias, residual, control = by_token[:, :, number]
            module[:] = (gradients.double() * moved).sum(-1).cpu()
            if not bool(torch.isfinite(module).all()):
                token = int((~torch.isfinite(module)).any(0).nonzero()[0])
                raise TextError(
                    batch.rows[token // shape[1]],
                    f"a gradient at {dictionary.places[number]} is not finite; check both models' weights",
                )
            residual[:, ~mask] = module[:, ~mask]
            for chosen in _chunks(mask, sae):
                part = split_change(sae, moved[chosen], write.read[chosen], gradients[:, chosen])
                bias[:, chosen], residual[:, chosen] = part.bias.cpu(), part.residual.cpu()
                entries = chosen[part.tokens.cpu()] * dictionary.n_features + int(offsets[number]) + part.features.cpu()
                keys.append(entries)
                values.append(part.credits.cpu())
            random = self.controls.get(dictionary.places[number])
            if random is not None:
                for chosen in _chunks(mask, random):
                    part = split_change(random, moved[chosen], write.read[chosen], gradients[:, chosen])
                    control.index_add_(1, chosen[part.tokens.cpu()], part.credits.T.cpu())
        key, order = torch.cat(keys).sort()
        by_token = by_token.view(4, N_PATHS, len(dictionary.places), *shape)
        return _Sums(
            batch, key // dictionary.n_features, key % dictionary.n_features, torch.cat(values)[order], by_token
        )


def _integrate(points: Sequence[TextCredits], weights: Floats, n_features: int) -> TextCredits:
    """Add up a text's splits at the nodes of a rule."""
    keys = [text.positions * n_features + text.features for text in points]
    entries, place = np.unique(np.concatenate(keys), return_inverse=True)
    weighted = [weight * text.credits for weight, text in zip(weights.tolist(), points, strict=True)]
    parts = np.concatenate(weighted, axis=1)
    credits = np.array([np.bincount(place, part, len(entries)) for part in parts], np.float64)
    sums = {
        name: np.einsum("n,n...->...", weights, np.stack([getattr(text, name) for text in points]))
        for name in ("modules", "bias", "residual", "control")
        if getattr(points[0], name) is not None
    }
    return TextCredits(entries // n_features, entries % n_features, credits, **sums, nodes=len(points))


@dataclass(frozen=True, eq=False)
class _Sums:
    """The split of a batch at one point: entries (token of the batch, feature, credits), and sums by place and token.

    Entries are in the order of tokens.
    """

    batch: Batch
    tokens: Tensor
    features: Tensor
    credits: Tensor
    by_token: Tensor
    """[4, paths, places, texts, seq]: modules, bias, residual, and what controls' features carry, NaN without any."""

    def of_text(self, row: int, n_tokens: int) -> TextCredits:
        n_bos, length = self.batch.n_bos, self.batch.input_ids.shape[1]
        low, high = torch.searchsorted(self.tokens, torch.tensor([row * length, (row + 1) * length])).tolist()
        modules, bias, residual, control = self.by_token[..., row, : n_bos + n_tokens].numpy()
        return TextCredits(
            positions=(self.tokens[low:high] - row * length - n_bos).numpy(),
            features=self.features[low:high].numpy(),
            credits=self.credits[low:high].T.numpy(),
            modules=modules,
            bias=bias,
            residual=residual,
            control=control.sum(2),
        )


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
    decoded = (size * constant).double().index_add(0, tokens, parts.double())  # so that the three parts sum exactly
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
