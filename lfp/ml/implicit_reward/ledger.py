"""Split the implicit reward exactly over the modules that tuning changed: the ledger of a pair of models.

For weights theta_a = theta_0 + a (theta_1 - theta_0) between base (0) and tuned (1), the implicit reward of a text is

    r = log p_1 - log p_0 = integral over a from 0 to 1 of < d log p_a / d theta, theta_1 - theta_0 > da,

integrated gradients along the path of weights; the integrand is a sum over parameters, so r splits over modules. The
integral is by Gauss-Legendre nodes, more of them for the texts whose sum is not close enough.

Two kinds of path. The full path counts what a module writes at a position through every later layer and position. On
the same position, keys and values are constants, so that what is written at a position counts for the prediction of the
next token alone; the rest of a token's implicit reward came through keys and values, its own position's included.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from lfp.ml.implicit_reward.quadrature import FirstRule, refine
from lfp.ml.implicit_reward.watched_modules import FULL, SAME_POSITION, Module
from lfp.ml.implicit_reward.weight_path import WeightPath
from lfp.ml.models.activations import model_batches
from lfp.ml.models.loading import LanguageModel, check_token_ids
from lfp.ml.models.runtime import Batches
from lfp.ml.models.tokenization import Batch, TokenizedText
from lfp.util.types import Flags, Floats, Ints, Progress

_MOST_WITH_JUMPS = 7
"""Nodes beyond which the integral comes no closer where a router jumps."""


@dataclass(frozen=True, eq=False)
class TokenCredits:
    """A text's credits token by token, in nats: what modules wrote at the position before each token.

    `same_position` [tokens, modules] is of the token's own implicit reward, `reward` [tokens]; what is missing came
    through keys and values, its own included. `full` [tokens, modules] is of the whole text's. NaN where nothing
    precedes.
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
    base: Floats
    """The base model's log-likelihood of each text's tokens that count."""
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
    batch_key: str = "credits.batch_texts",
    prepend_bos: bool = True,
    tolerance: float = 1e-3,
    max_nodes: int = 63,
    base_likelihood: Floats | None = None,
    progress: Progress | None = None,
) -> ModuleCredits:
    """Split the implicit reward of each text over the modules that differ between base and tuned.

    A text's nodes are increased, each time to twice as many and one, until the sum is within `tolerance` of the sum of
    its absolute credits or no more than `max_nodes` are allowed; those that a batch starts with follow from the batches
    before. `counted` marks the tokens whose implicit reward adds up, all by default. The first `n_by_token` texts are
    split token by token too, on both kinds of path; they come last, when it is known how many nodes others needed.
    `base_likelihood` [texts] are those of another call with this base and these texts, where there was one. Where
    memory is full, batches are halved, once; `batch_key` is the key of the config that sets their size.

    Raises ModelError where the models' parameters differ in shape or memory is still full, TextError where a gradient
    is not finite.
    """
    check_token_ids(base, [text.token_ids for text in texts])
    path = WeightPath.between(base, tuned)
    flags = [np.ones(len(text.token_ids), bool) for text in texts] if counted is None else counted
    first = FirstRule(min(max_nodes, _MOST_WITH_JUMPS) if path.switches else max_nodes)
    reader = _Reader(path, texts, flags, prepend_bos, tolerance, first, base_likelihood)
    parts, batches = list[_Part](), Batches(batch_texts, "credits of modules", batch_key, base.device)
    split_at = min(n_by_token, len(texts))
    for span, by_token in ((range(split_at, len(texts)), False), (range(split_at), True)):
        for part in batches.split(span, partial(reader.split, by_token=by_token)):
            parts.append(part)
            if progress is not None:
                done = sum(len(part.reward) for part in parts)
                progress("credits: texts", done, len(texts), float(parts[-1].nodes.max()))
    return _join(path, sorted(parts, key=lambda part: part.first_row))


def _join(path: WeightPath, parts: Sequence[_Part]) -> ModuleCredits:
    """Put batches together; what jumps leave is credit of the kind `other`."""
    nothing = np.zeros(0)
    credits = np.concatenate([np.zeros((0, len(path.modules))), *(part.credits for part in parts)])
    reward = np.concatenate([nothing, *(part.reward for part in parts)])
    missed = relative_error(credits, reward)
    if path.switches:
        credits[:, path.modules.index(Module(None, "other"))] += reward - credits.sum(1)
    return ModuleCredits(
        path.modules,
        credits,
        reward,
        missed,
        np.concatenate([nothing.astype(np.int64), *(part.nodes for part in parts)]),
        np.concatenate([nothing, *(part.base for part in parts)]),
        tuple(text for part in parts for text in part.tokens),
        sum(part.forward_passes for part in parts) / max(1, len(reward)),
        path.unknown,
        path.switches,
    )


def join_credits(parts: Sequence[ModuleCredits]) -> ModuleCredits:
    """Put the splits of texts by the same pair of models together, in the order of the texts."""
    if len(parts) == 1:
        return parts[0]
    joined: dict[str, Any] = {
        name: np.concatenate([getattr(part, name) for part in parts])
        for name in ("credits", "reward", "error", "nodes", "base")
    }
    passes = sum(part.forward_passes * len(part.reward) for part in parts)
    tokens = tuple(text for part in parts for text in part.tokens)
    return replace(parts[0], **joined, tokens=tokens, forward_passes=passes / max(1, len(joined["reward"])))


def relative_error(credits: Floats, reward: Floats) -> Floats:
    """Return |sum of credits - reward| over the sum of absolute credits, for each text; 0 where all are 0."""
    size = np.abs(credits).sum(1)
    return np.abs(credits.sum(1) - reward) / np.where(size > 0, size, 1.0)


@dataclass(frozen=True, eq=False)
class _Part:
    """The credits of a batch of texts, the first of them `first_row`."""

    first_row: int
    credits: Floats
    reward: Floats
    base: Floats
    nodes: Ints
    tokens: tuple[TokenCredits, ...]
    forward_passes: float


@dataclass(frozen=True, eq=False)
class _Reader:
    """What texts are split with, and the texts."""

    path: WeightPath
    texts: Sequence[TokenizedText]
    counted: Sequence[Flags]
    prepend_bos: bool
    tolerance: float
    first: FirstRule
    base_likelihood: Floats | None
    passes: dict[bool, float] = field(default_factory=dict)
    """What a node takes, in forward passes, without and with the split by token."""

    def split(self, rows: range, *, by_token: bool) -> _Part:
        """Split the implicit reward of some texts."""
        batch, counted = self._batch(rows)
        after = self.path.log_probs(batch, counted, 1.0).cpu().numpy()
        if self.base_likelihood is None or by_token:
            before, passes = self.path.log_probs(batch, counted, 0.0).cpu().numpy(), 2.0 * len(rows)
            base = before.sum(1)
        else:
            before, passes = np.zeros_like(after), 1.0 * len(rows)
            base = self.base_likelihood[rows.start : rows.stop]
        reward: Floats = after.sum(1) - base
        found = np.zeros((1 + by_token, *batch.input_ids.shape, len(self.path.modules)))
        nodes, evaluated, values, left = np.ones(len(rows), np.int64), 0, found[None], np.arange(len(rows))
        for number, step in enumerate(refine(self.first.n, self.first.most) if self.path.modules else ()):
            new = self._evaluate(batch.take(left), counted[left], step.new, by_token)
            values = np.concatenate([values, new]) if step.n_known else new
            evaluated += len(step.new) * len(left)
            found[:, left] = np.einsum("n,n...->...", step.rule.weights, values)
            nodes[left] = len(step.rule.nodes)
            is_missed = relative_error(found[FULL, left].sum(1), reward[left]) > self.tolerance
            left, values = left[is_missed], values[:, :, is_missed]
            if number == 0:
                self.first.note(len(rows), len(left))
            if not len(left):
                break
        if evaluated:
            passes += evaluated * self._passes_per_node(by_token)
        tokens = self._by_token(batch, found, after - before) if by_token else ()
        return _Part(rows.start, found[FULL].sum(1), reward, base, nodes, tokens, passes)

    def _batch(self, rows: range) -> tuple[Batch, Tensor]:
        """Return the texts as a batch, and which of its positions [texts, seq] count."""
        texts, base = [self.texts[row] for row in rows], self.path.base
        (batch,) = model_batches(base, texts, batch_texts=len(texts), prepend_bos=self.prepend_bos)
        counted = torch.zeros(batch.input_ids.shape, dtype=torch.bool)
        for place, row in enumerate(rows):
            flags = torch.from_numpy(self.counted[row])
            counted[place, batch.n_bos : batch.n_bos + len(flags)] = flags
        return replace(batch, rows=tuple(rows)), counted

    def _evaluate(self, batch: Batch, counted: Tensor, nodes: Sequence[float], by_token: bool) -> Floats:
        """Return the integrand [nodes, paths, texts, seq, modules] at nodes."""
        found = [self.path.differentiate(batch, counted, at, same_position=by_token) for at in nodes]
        return torch.stack(found).numpy()

    def _by_token(self, batch: Batch, found: Floats, token_reward: Floats) -> tuple[TokenCredits, ...]:
        """Take the credits [paths, texts, seq, modules] of a batch apart by text."""
        tokens = []
        for place, row in enumerate(batch.rows):
            span = slice(batch.n_bos, batch.n_bos + len(self.texts[row].token_ids))
            same, full = (_shift(found[path, place])[span] for path in (SAME_POSITION, FULL))
            tokens.append(TokenCredits(same, full, np.concatenate([[np.nan], token_reward[place]])[span]))
        return tuple(tokens)

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
