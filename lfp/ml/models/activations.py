"""Stream one model or a pair over texts: activations, implicit reward and implicit advantage of every token."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from lfp.errors import DataError
from lfp.ml.models.loading import LanguageModel, check_token_ids
from lfp.ml.models.runtime import FastLinear
from lfp.ml.models.tokenization import Batch, TokenizedText, batches
from lfp.util.types import SITE_NAMES, Place


@dataclass(frozen=True)
class Tokens:
    """The tokens of a batch of texts, text after text, without padding and beginning-of-sequence tokens.

    `rows` [n] is each token's text (its index in the sequence given), `positions` [n] its position in that text, `ids`
    [n] the token id; `outputs` holds the activations [n, d_in] by place.
    """

    rows: Tensor
    positions: Tensor
    ids: Tensor
    outputs: dict[Place, Tensor]


@dataclass(frozen=True)
class PairTokens:
    """The same tokens through both models. `implicit_reward` and `implicit_advantage` [n] are NaN where undefined."""

    tuned: Tokens
    base: Tokens
    implicit_reward: Tensor
    implicit_advantage: Tensor


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
) -> Iterator[Tokens]:
    """Yield the activations of the texts' tokens at places, one batch of texts at a time.

    Raises DataError where an activation is not finite.
    """
    for batch in model_batches(model, texts, batch_texts=batch_texts, prepend_bos=prepend_bos):
        outputs, _ = _forward(model, batch, places, with_logits=False)
        yield _select_tokens(batch, outputs)


def stream_pair(
    tuned: LanguageModel,
    base: LanguageModel,
    texts: Sequence[TokenizedText],
    *,
    places: Sequence[Place],
    batch_texts: int,
    prepend_bos: bool,
    observe: Observer | None = None,
) -> Iterator[PairTokens]:
    """Yield both models' activations at places and the implicit reward of every token, one batch of texts at a time.

    Raises DataError where an activation or a reward is not finite.
    """
    n_seen = 0
    for batch in model_batches(tuned, texts, batch_texts=batch_texts, prepend_bos=prepend_bos):
        tuned_outputs, tuned_logits = _forward(tuned, batch, places, with_logits=True)
        base_outputs, base_logits = _forward(base, batch, places, with_logits=True)
        base_log_probs, difference = compare_predictions(tuned_logits, base_logits)
        reward, advantage = implicit_reward(base_log_probs, difference, batch.input_ids)
        mask = batch.text_tokens()
        _check_finite(advantage[:, 1:], "the implicit reward", batch, mask[:, 1:])
        if observe is not None:
            n_tokens = int(mask.sum())
            wanted = torch.zeros_like(mask)
            wanted[mask] = observe.chosen[n_seen : n_seen + n_tokens].to(mask.device)
            n_seen += n_tokens
            if bool(wanted[:, 1:].any()):
                observe.update(base_log_probs[wanted[:, 1:]], difference[wanted[:, 1:]])
        yield PairTokens(
            tuned=_select_tokens(batch, tuned_outputs),
            base=_select_tokens(batch, base_outputs),
            implicit_reward=reward[mask],
            implicit_advantage=advantage[mask],
        )


def compare_predictions(tuned_logits: Tensor, base_logits: Tensor) -> tuple[Tensor, Tensor]:
    """Return log pi_base and log pi_tuned - log pi_base, both [batch, seq - 1, d_vocab], from logits [batch, seq, ...].

    The last position is left out: it predicts a token that is not there.
    """
    base_log_probs = base_logits[:, :-1].log_softmax(-1)
    return base_log_probs, tuned_logits[:, :-1].log_softmax(-1) - base_log_probs


def implicit_reward(base_log_probs: Tensor, difference: Tensor, input_ids: Tensor) -> tuple[Tensor, Tensor]:
    """Return r_t = log pi_tuned(x_t | x_<t) - log pi_base(x_t | x_<t), and c_t = r_t + KL(base || tuned) there.

    Takes what `compare_predictions` returns; both results are [batch, seq] and NaN at the first position, which nothing
    precedes. Source: PAPER.md, "implicit reward" and "implicit_advantage".
    """
    reward = difference.gather(-1, input_ids[:, 1:, None]).squeeze(-1)
    kl = -(base_log_probs.exp() * difference).sum(-1)
    undefined = torch.full_like(reward[:, :1], float("nan"))
    return torch.cat([undefined, reward], 1), torch.cat([undefined, reward + kl], 1)


def model_batches(
    model: LanguageModel, texts: Sequence[TokenizedText], *, batch_texts: int, prepend_bos: bool
) -> Iterator[Batch]:
    """Check the texts' token ids and yield them as batches that the model takes."""
    check_token_ids(model, [text.token_ids for text in texts])
    bos_id = model.bos_id if prepend_bos else None
    return batches(texts, bos_id=bos_id, pad_id=model.pad_id, batch_texts=batch_texts)


class _AllKeptError(Exception):
    """Ends a forward pass once every requested place is kept, when the logits are not wanted."""


def _forward(
    model: LanguageModel, batch: Batch, places: Sequence[Place], *, with_logits: bool
) -> tuple[dict[Place, Tensor], Tensor]:
    """Run a batch once; return the activations by place, and the logits (empty unless wanted), on the host.

    The hooks are removed at the end, and a lock keeps passes of other threads out of them.
    """
    outputs: dict[Place, Tensor] = {}

    def keep(place: Place, output: Tensor) -> None:
        outputs[place] = _to_host(output)
        if not with_logits and len(outputs) == len(set(places)):
            raise _AllKeptError

    hooks = {place: partial(keep, place) for place in places}
    logits = torch.empty(0)
    with torch.no_grad(), FastLinear(), model.hooks(hooks):
        with contextlib.suppress(_AllKeptError):
            logits = model.forward(batch.input_ids, batch.attention_mask, use_cache=False).logits
        logits = _to_host(logits)
    if model.device.type == "cuda":  # wait for the copies, once per batch
        torch.cuda.synchronize(model.device)
    for place, output in outputs.items():
        _check_finite(output, f"layer {place.layer}: the {SITE_NAMES[place.site]}", batch, batch.text_tokens())
    return outputs, logits


def _to_host(values: Tensor) -> Tensor:
    """Copy values to the host; from a GPU through pinned memory, without waiting for the copy to end."""
    if values.device.type == "cpu":
        return values.detach()
    pinned = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
    return pinned.copy_(values.detach(), non_blocking=True)


def _select_tokens(batch: Batch, outputs: dict[Place, Tensor]) -> Tokens:
    mask = batch.text_tokens()
    rows, columns = mask.nonzero(as_tuple=True)
    return Tokens(
        rows=torch.as_tensor(batch.rows)[rows],
        positions=columns - batch.n_bos,
        ids=batch.input_ids[mask],
        outputs={place: output[mask] for place, output in outputs.items()},
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
