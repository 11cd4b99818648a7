"""Stream one model or a pair over texts: activations, implicit reward and implicit advantage of every token."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from lfp.errors import DataError
from lfp.ml.models.loading import LanguageModel, check_token_ids
from lfp.ml.models.predictions import States, read_states
from lfp.ml.models.runtime import FastLinear, Queued, finish_later, to_host
from lfp.ml.models.sites import Hook
from lfp.ml.models.tokenization import Batch, TokenizedText, batches
from lfp.util.types import SITE_NAMES, Place

Watch = Callable[[LanguageModel, Mapping[Place, Hook]], AbstractContextManager[None]]
"""Calls functions on what is at places during a model's forward passes: `LanguageModel.hooks`, or another like it."""


@dataclass(frozen=True)
class Tokens:
    """The tokens of a batch of texts, text after text, without padding and beginning-of-sequence tokens.

    `rows` [n] is each token's text (its index in the sequence given), `positions` [n] its position in that text, `ids`
    [n] the token id; `outputs` holds the activations [n, d_in] by place, and `changes` what tuning changed there, where
    that was asked for.
    """

    rows: Tensor
    positions: Tensor
    ids: Tensor
    outputs: dict[Place, Tensor]
    changes: dict[Place, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class PairTokens:
    """The same tokens through both models. `implicit_reward` and `implicit_advantage` [n] are NaN where undefined."""

    tuned: Tokens
    base: Tokens
    implicit_reward: Tensor
    implicit_advantage: Tensor


@dataclass(frozen=True)
class Changes:
    """Places whose changes by tuning are read beside the activations, and what calls functions on them."""

    places: Sequence[Place]
    watch: Watch


@dataclass(frozen=True)
class Observer:
    """A function that sees the predictions of both models at chosen tokens, during the pass of `stream_pair`.

    `chosen` [tokens of all texts, text after text] marks the tokens; those without an implicit reward are left out.
    `update` is called with log pi_base and log pi_tuned - log pi_base [n, d_vocab] of the contexts before these tokens.
    """

    chosen: Tensor
    update: Callable[[Tensor, Tensor], None]


def stream(
    model: LanguageModel,
    texts: Sequence[TokenizedText],
    *,
    places: Sequence[Place],
    batch_texts: int,
    prepend_bos: bool,
    watch: Watch = LanguageModel.hooks,
    changes: Changes | None = None,
) -> Iterator[Tokens]:
    """Yield the activations of the texts' tokens at places, one batch of texts at a time, as `watch` gives them.

    Raises DataError where an activation is not finite.
    """
    batches = model_batches(model, texts, batch_texts=batch_texts, prepend_bos=prepend_bos)
    yield from stream_batches(model, batches, places=places, watch=watch, changes=changes)


def stream_batches(
    model: LanguageModel,
    batches: Iterable[Batch],
    *,
    places: Sequence[Place],
    watch: Watch = LanguageModel.hooks,
    changes: Changes | None = None,
) -> Iterator[Tokens]:
    """Yield the activations of batches' tokens at places. Raises DataError where an activation is not finite."""
    for batch in batches:
        yield _select_tokens(batch, *_read_places(model, batch, places, watch, changes))


def stream_pair(
    tuned: LanguageModel,
    base: LanguageModel,
    texts: Sequence[TokenizedText],
    *,
    places: Sequence[Place],
    batch_texts: int,
    prepend_bos: bool,
    observe: Observer | None = None,
    watch: Watch = LanguageModel.hooks,
    changes: Changes | None = None,
) -> Iterator[PairTokens]:
    """Yield both models' activations at places and the implicit reward of every token, one batch of texts at a time.

    The activations are as `watch` gives them. Raises DataError where an activation or a reward is not finite.
    """

    def start_batches() -> Iterator[Callable[[], PairTokens]]:
        n_seen = 0
        for batch in model_batches(tuned, texts, batch_texts=batch_texts, prepend_bos=prepend_bos):
            mask = batch.text_tokens()
            is_defined = mask.nonzero()[:, 1] > 0  # nothing precedes a first token
            chosen = None if observe is None else observe.chosen[n_seen : n_seen + len(is_defined)]
            n_seen += len(is_defined)
            of_tuned, of_base = (_read(model, batch, places, watch, changes) for model in (tuned, base))
            scores = _score(
                of_tuned.states.take(_before(mask)),
                of_base.states.take(_before(mask)),
                batch.input_ids[:, 1:][mask[:, 1:]],
                observe=observe,
                chosen=None if chosen is None else chosen[is_defined],
            )
            queued = Queued(tuned.devices | base.devices)
            yield partial(_finish_pair, batch, of_tuned, of_base, scores, queued)

    on_card = any(device.type == "cuda" for device in tuned.devices | base.devices)
    yield from finish_later(start_batches(), ahead=int(on_card))


def _finish_pair(batch: Batch, of_tuned: _Read, of_base: _Read, scores: Tensor, queued: Queued) -> PairTokens:
    """Wait for a batch's copies to the host, check them, and return its tokens."""
    queued.wait()
    mask = batch.text_tokens()
    reward, advantage = torch.full((2, int(mask.sum())), float("nan"))
    is_defined = mask.nonzero()[:, 1] > 0
    reward[is_defined], advantage[is_defined] = scores
    for found in (of_tuned, of_base):
        _check_outputs(batch, found.outputs)
        _check_outputs(batch, found.changes)
    _check_finite(_spread(advantage, mask)[:, 1:], "the implicit reward", batch, mask[:, 1:])
    return PairTokens(
        tuned=_select_tokens(batch, of_tuned.outputs, of_tuned.changes),
        base=_select_tokens(batch, of_base.outputs, of_base.changes),
        implicit_reward=reward,
        implicit_advantage=advantage,
    )


def _before(mask: Tensor) -> Tensor:
    """Mark the positions that predict the marked tokens."""
    return F.pad(mask[:, 1:], (0, 1))


def _spread(values: Tensor, mask: Tensor) -> Tensor:
    """Put values [n] at the marked positions, zeros elsewhere."""
    return torch.zeros(mask.shape).masked_scatter(mask, values)


@torch.no_grad()
def _score(tuned: States, base: States, ids: Tensor, *, observe: Observer | None, chosen: Tensor | None) -> Tensor:
    """Return the implicit reward and advantage [2, n] of tokens [n] after states [n, ...], on their way to the host."""
    scores = [torch.empty(2, 0, device=tuned.values.device)]
    for rows in tuned.chunks():
        base_log_probs, difference = compare_predictions(
            tuned.logits(rows), base.logits(rows).to(tuned.values.device, non_blocking=True)
        )
        following = ids[rows].to(difference.device, non_blocking=True)
        scores.append(torch.stack(implicit_reward(base_log_probs, difference, following)))
        wanted = torch.empty(0) if observe is None or chosen is None else chosen[rows].nonzero()[:, 0]
        if observe is not None and len(wanted):
            wanted = wanted.to(difference.device, non_blocking=True)
            observe.update(base_log_probs[wanted], difference[wanted])
    return to_host(torch.cat(scores, dim=1))


def compare_predictions(tuned_logits: Tensor, base_logits: Tensor) -> tuple[Tensor, Tensor]:
    """Return log pi_base and log pi_tuned - log pi_base from logits, all [..., d_vocab]."""
    base_log_probs = base_logits.log_softmax(-1)
    return base_log_probs, tuned_logits.log_softmax(-1).sub_(base_log_probs)


def implicit_reward(base_log_probs: Tensor, difference: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
    """Return r_t = log pi_tuned(x_t | x_<t) - log pi_base(x_t | x_<t), and c_t = r_t + KL(base || tuned) there.

    Takes what `compare_predictions` returns, [..., d_vocab], and the tokens that follow, [...]. Source: PAPER.md,
    "implicit reward" and "implicit_advantage".
    """
    reward = difference.gather(-1, ids[..., None]).squeeze(-1)
    kl = -base_log_probs.exp().mul_(difference).sum(-1)
    return reward, reward + kl


def model_batches(
    model: LanguageModel, texts: Sequence[TokenizedText], *, batch_texts: int, prepend_bos: bool
) -> Iterator[Batch]:
    """Check the texts' token ids and yield them as batches that the model takes."""
    check_token_ids(model, [text.token_ids for text in texts])
    bos_id = model.bos_id if prepend_bos else None
    return batches(texts, bos_id=bos_id, pad_id=model.pad_id, batch_texts=batch_texts)


def batch_of_rows(model: LanguageModel, texts: Sequence[TokenizedText], rows: range, *, prepend_bos: bool) -> Batch:
    """Check some of the texts' token ids and return them as one batch, which knows their places among all texts."""
    (batch,) = model_batches(model, texts[rows.start : rows.stop], batch_texts=len(rows), prepend_bos=prepend_bos)
    return replace(batch, rows=tuple(rows))


class _AllKeptError(Exception):
    """Ends a forward pass once every requested place is kept."""


_Outputs = dict[Place, Tensor]


@dataclass(frozen=True, eq=False)
class _Read:
    """Activations and changes by place, on their way to the host, and the states of the final head."""

    outputs: _Outputs
    changes: _Outputs
    states: States


def _read(model: LanguageModel, batch: Batch, places: Sequence[Place], watch: Watch, changes: Changes | None) -> _Read:
    """Run a batch once."""
    outputs, changed = _Outputs(), _Outputs()
    with (
        torch.no_grad(),
        FastLinear(),
        _keeping(model, changes, changed),
        _keeping(model, Changes(places, watch), outputs),
    ):
        states = read_states(model, batch.input_ids, batch.attention_mask)
    return _Read(outputs, changed, states)


def _read_places(
    model: LanguageModel, batch: Batch, places: Sequence[Place], watch: Watch, changes: Changes | None
) -> tuple[_Outputs, _Outputs]:
    """Run a batch until every place is kept; return the activations and changes by place, on the host."""
    outputs, changed = _Outputs(), _Outputs()
    with (
        torch.no_grad(),
        FastLinear(),
        _keeping(model, changes, changed),
        _keeping(model, Changes(places, watch), outputs, to_the_end=False),
        contextlib.suppress(_AllKeptError),
    ):
        model.forward(batch.input_ids, batch.attention_mask, use_cache=False)
    Queued(model.devices).wait()
    _check_outputs(batch, outputs)
    _check_outputs(batch, changed)
    return outputs, changed


def _keeping(
    model: LanguageModel, wanted: Changes | None, kept: _Outputs, *, to_the_end: bool = True
) -> AbstractContextManager[None]:
    """Keep what is at places, on the host, in `kept`; unless `to_the_end`, end the forward pass once all are kept."""
    if wanted is None:
        return contextlib.nullcontext()

    def keep(place: Place, output: Tensor) -> None:
        kept[place] = to_host(output)
        if not to_the_end and len(kept) == len(set(wanted.places)):
            raise _AllKeptError

    return wanted.watch(model, {place: partial(keep, place) for place in wanted.places})


def _check_outputs(batch: Batch, outputs: Mapping[Place, Tensor]) -> None:
    """Raise DataError where an activation is not finite."""
    for place, output in outputs.items():
        _check_finite(output, f"layer {place.layer}: the {SITE_NAMES[place.site]}", batch, batch.text_tokens())


def _select_tokens(batch: Batch, outputs: _Outputs, changes: _Outputs) -> Tokens:
    mask = batch.text_tokens()
    rows, columns = mask.nonzero(as_tuple=True)
    return Tokens(
        rows=torch.as_tensor(batch.rows)[rows],
        positions=columns - batch.n_bos,
        ids=batch.input_ids[mask],
        outputs={place: output[mask].float() for place, output in outputs.items()},
        changes={place: change[mask].float() for place, change in changes.items()},
    )


def _check_finite(values: Tensor, what: str, batch: Batch, mask: Tensor) -> None:
    """Raise DataError, naming the text, unless `values` [batch, seq, ...] are finite wherever `mask` [batch, seq]."""
    if bool(torch.isfinite(values[mask]).all()):
        return
    finite = torch.isfinite(values).reshape(*mask.shape, -1).all(-1)
    text = batch.rows[int((mask & ~finite).any(1).nonzero()[0])]
    raise DataError(
        f"{what} is not finite in text {text}, in the batch of texts {batch.rows[0]} to {batch.rows[-1]};"
        " check the model's weights"
    )
