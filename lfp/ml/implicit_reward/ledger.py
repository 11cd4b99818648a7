"""Split the implicit reward exactly over the modules that tuning changed: the ledger of a pair of models.

For weights theta_a = theta_0 + a (theta_1 - theta_0) between base (0) and tuned (1), the implicit reward of a text is

    r = log p_1 - log p_0 = integral over a from 0 to 1 of < d log p_a / d theta, theta_1 - theta_0 > da,

integrated gradients along the path of weights; the integrand is a sum over parameters, so r splits over modules. The
integral is by Gauss-Legendre nodes, more of them for the texts whose sum is not close enough.

Two kinds of path. The full path counts what a module writes at a position through every later layer and position. On
the same position, keys and values are constants, so that what is written at a position counts for the prediction of the
next token alone; the rest of a token's implicit reward came through attention from elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from lfp.errors import ModelError
from lfp.ml.implicit_reward.quadrature import gauss, kronrod
from lfp.ml.implicit_reward.watched_modules import FULL, SAME_POSITION, Module
from lfp.ml.implicit_reward.weight_path import WeightPath
from lfp.ml.models.activations import model_batches
from lfp.ml.models.loading import LanguageModel, check_token_ids
from lfp.ml.models.runtime import is_out_of_memory
from lfp.ml.models.tokenization import Batch, TokenizedText
from lfp.util.types import Flags, Floats, Ints, Progress

_FEW = 0.4
"""Share of texts that may need more nodes than they started with before later texts start with one more."""

_MOST_WITH_JUMPS = 7
"""Nodes beyond which the integral comes no closer where a router jumps."""


@dataclass(frozen=True, eq=False)
class TokenCredits:
    """A text's credits token by token, in nats: what modules wrote at the position before each token.

    `same_position` [tokens, modules] is of the token's own implicit reward, `reward` [tokens]; what is missing came
    through attention from elsewhere. `full` [tokens, modules] is of the whole text's. NaN where nothing precedes.
    """

    same_position: Floats
    full: Floats
    reward: Floats


@dataclass(frozen=True, eq=False)
class ModuleCredits:
    """The split of the implicit reward of texts over modules, in nats.

    `credits` [texts, modules], of the full path, sum over modules to `reward` [texts] up to `error` [texts], the share
    of the sum of absolute credits that is missed. `tokens` are of the first texts.
    """

    modules: tuple[Module, ...]
    credits: Floats
    reward: Floats
    error: Floats
    nodes: Ints
    """Nodes of the quadrature that each text needed."""
    tokens: tuple[TokenCredits, ...]
    forward_passes: float
    """What a text took on average, as a multiple of the floating-point operations of a forward pass."""
    unknown: tuple[str, ...]
    """Names of the modules whose credit is in kind `other`."""
    switches: tuple[str, ...]
    """Names of the modules that choose, such as routers of experts; what `error` says is missed through the jumps of
    their choices is in kind `other` too, so that sums hold."""

    @property
    def same_position(self) -> Floats:
        """The sums over tokens [texts with tokens, modules] of the credits on the same position."""
        sums = [np.nansum(text.same_position, axis=0) for text in self.tokens]
        return np.array(sums).reshape(len(sums), len(self.modules))


def module_credits(
    base: LanguageModel,
    tuned: LanguageModel,
    texts: Sequence[TokenizedText],
    *,
    counted: Sequence[Flags] | None = None,
    n_by_token: int = 0,
    batch_texts: int = 8,
    prepend_bos: bool = True,
    tolerance: float = 1e-3,
    max_nodes: int = 63,
    progress: Progress | None = None,
) -> ModuleCredits:
    """Split the implicit reward of each text over the modules that differ between base and tuned.

    A text's nodes are increased, each time to twice as many and one, until the sum is within `tolerance` of the sum of
    its absolute credits or no more than `max_nodes` are allowed; those that a batch starts with follow from the batches
    before. `counted` marks the tokens whose implicit reward adds up, all by default. The first `n_by_token` texts are
    split token by token too, on both kinds of path. Where memory is full, batches are halved, once.

    Raises ModelError where the models' parameters differ in shape or memory is still full, DataError where a gradient
    is not finite.
    """
    check_token_ids(base, [text.token_ids for text in texts])
    path = WeightPath.between(base, tuned)
    flags = [np.ones(len(text.token_ids), bool) for text in texts] if counted is None else counted
    most = min(max_nodes, _MOST_WITH_JUMPS) if path.switches else max_nodes
    reader = _Reader(path, texts, flags, prepend_bos, n_by_token, tolerance, most)
    parts, spent, start, size, is_lowered = list[_Part](), 0.0, 0, batch_texts, False
    first, tried, failed = 1, 0, 0
    while start < len(texts):
        rows = range(start, min(start + size, len(texts)))
        try:
            part = reader.split(rows, first)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if is_lowered or size == 1:
                raise ModelError(
                    f"credits of modules: out of memory on {base.device} with {size} texts per batch; lower"
                    f" credits.batch_texts (now {batch_texts}) or model.context"
                ) from error
            size, is_lowered = size // 2, True
            continue
        tried, failed = tried + len(rows), failed + part.failed
        if failed > _FEW * tried and first < most:
            first, tried, failed = first + 1, 0, 0
        parts.append(part)
        spent += part.forward_passes
        start = rows.stop
        if progress is not None:
            progress("credits: texts", start, len(texts), float(part.nodes.max()))
    n = len(path.modules)
    credits = np.concatenate([np.zeros((0, n)), *(part.credits for part in parts)])
    reward = np.concatenate([np.zeros(0), *(part.reward for part in parts)])
    missed = relative_error(credits, reward)
    if path.switches:
        credits[:, path.modules.index(Module(None, "other"))] += reward - credits.sum(1)
    return ModuleCredits(
        path.modules,
        credits,
        reward,
        missed,
        np.concatenate([np.zeros(0, np.int64), *(part.nodes for part in parts)]),
        tuple(text for part in parts for text in part.tokens),
        spent / max(1, len(texts)),
        path.unknown,
        path.switches,
    )


def relative_error(credits: Floats, reward: Floats) -> Floats:
    """Return |sum of credits - reward| over the sum of absolute credits, for each text; 0 where all are 0."""
    size = np.abs(credits).sum(1)
    return np.abs(credits.sum(1) - reward) / np.where(size > 0, size, 1.0)


@dataclass(frozen=True, eq=False)
class _Part:
    """The credits of a batch; `failed` counts the texts that needed more nodes than the batch started with."""

    credits: Floats
    reward: Floats
    nodes: Ints
    tokens: tuple[TokenCredits, ...]
    failed: int
    forward_passes: float


@dataclass(frozen=True, eq=False)
class _Reader:
    """What texts are split with, and the texts."""

    path: WeightPath
    texts: Sequence[TokenizedText]
    counted: Sequence[Flags]
    prepend_bos: bool
    n_by_token: int
    tolerance: float
    max_nodes: int
    passes: dict[bool, float] = field(default_factory=dict)
    """What a node takes, in forward passes, without and with the split by token."""

    def split(self, rows: range, first: int) -> _Part:
        """Split the implicit reward of some texts, starting with `first` nodes."""
        batch, counted = self._batch(rows)
        by_token = rows.start < self.n_by_token
        ends = [self.path.log_probs(batch, counted, at).cpu().numpy() for at in (0.0, 1.0)]
        token_reward: Floats = ends[1] - ends[0]
        reward = token_reward.sum(1)
        if not self.path.modules:
            return self._collect(batch, _nothing(batch, by_token), reward, token_reward, np.ones(len(rows), np.int64))
        rule, is_extended, n = gauss(first), False, first
        values = self._evaluate(batch, counted, rule.nodes, by_token)
        found = np.einsum("n,n...->...", rule.weights, values)
        nodes, evaluated = np.full(len(rows), n), n * len(rows)
        missed = np.flatnonzero(relative_error(found[FULL].sum(1), reward) > self.tolerance)
        kept, failed = np.arange(len(rows)), len(missed)
        while len(missed) and 2 * n + 1 <= self.max_nodes:
            kept, n = kept[missed], 2 * n + 1
            again, flags = _take(batch, kept), counted[torch.from_numpy(kept)]
            if is_extended:
                rule, new = gauss(n), gauss(n).nodes
                values = self._evaluate(again, flags, new, by_token)
            else:
                rule = kronrod(n // 2)
                new = rule.nodes[n // 2 :]
                values = np.concatenate([values[:, :, missed], self._evaluate(again, flags, new, by_token)])
            is_extended = not is_extended
            evaluated += len(new) * len(kept)
            found[:, kept] = np.einsum("n,n...->...", rule.weights, values)
            nodes[kept] = n
            missed = np.flatnonzero(relative_error(found[FULL, kept].sum(1), reward[kept]) > self.tolerance)
        part = self._collect(batch, found, reward, token_reward, nodes)
        passes = 2.0 * len(rows) + evaluated * self._passes_per_node(by_token)
        return replace(part, failed=failed, forward_passes=passes)

    def _batch(self, rows: range) -> tuple[Batch, Tensor]:
        """Return the texts as a batch, and which of its positions [texts, seq] count."""
        texts, base = [self.texts[row] for row in rows], self.path.base
        (batch,) = model_batches(base, texts, batch_texts=len(texts), prepend_bos=self.prepend_bos)
        counted = torch.zeros(batch.input_ids.shape, dtype=torch.bool)
        for place, row in enumerate(rows):
            flags = torch.from_numpy(self.counted[row])
            counted[place, batch.n_bos : batch.n_bos + len(flags)] = flags
        return replace(batch, rows=tuple(rows)), counted

    def _evaluate(self, batch: Batch, counted: Tensor, nodes: Floats, by_token: bool) -> Floats:
        """Return the integrand [nodes, paths, texts, seq, modules] at nodes."""
        found = [self.path.differentiate(batch, counted, at, same_position=by_token) for at in nodes.tolist()]
        return torch.stack(found).numpy()

    def _collect(self, batch: Batch, found: Floats, reward: Floats, token_reward: Floats, nodes: Ints) -> _Part:
        """Put the credits [paths, texts, seq, modules] of a batch into texts and tokens."""
        tokens = []
        for place, row in enumerate(batch.rows[: max(0, self.n_by_token - batch.rows[0])]):
            span = slice(batch.n_bos, batch.n_bos + len(self.texts[row].token_ids))
            same, full = (_shift(found[path, place])[span] for path in (SAME_POSITION, FULL))
            tokens.append(TokenCredits(same, full, np.concatenate([[np.nan], token_reward[place]])[span]))
        return _Part(found[FULL].sum(1), reward, nodes, tuple(tokens), 0, 2.0 * len(batch.rows))

    def _passes_per_node(self, by_token: bool) -> float:
        """Count what a node takes, as a multiple of the floating-point operations of a forward pass."""
        if by_token in self.passes:
            return self.passes[by_token]
        batch, counted = self._batch(range(1))
        with FlopCounterMode(display=False) as forward:
            self.path.log_probs(batch, counted, 0.5)
        with FlopCounterMode(display=False) as node:
            self.path.differentiate(batch, counted, 0.5, same_position=by_token)
        self.passes[by_token] = node.get_total_flops() / forward.get_total_flops()
        return self.passes[by_token]


def _shift(found: Floats) -> Floats:
    """Move what stands at the positions written to [seq, modules] to the tokens after them; NaN at the first."""
    return np.concatenate([np.full_like(found[:1], np.nan), found[:-1]])


def _nothing(batch: Batch, by_token: bool) -> Floats:
    """Return the credits of models that are equal."""
    return np.zeros((1 + by_token, *batch.input_ids.shape, 0))


def _take(batch: Batch, rows: Ints) -> Batch:
    """Keep some texts of a batch."""
    chosen = torch.from_numpy(rows)
    return Batch(
        tuple(batch.rows[row] for row in rows), batch.input_ids[chosen], batch.attention_mask[chosen], batch.n_bos
    )
