"""Stream a pair of models over texts: MLP outputs, implicit reward and advantage, token by token, padding masked."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from lfp.errors import DataError
from lfp.ml.models.loading import LanguageModel, check_token_ids, mlp_hook_point
from lfp.ml.models.runtime import FastLinear
from lfp.ml.models.tokenization import Batch, TokenizedText, batches


@dataclass(frozen=True)
class Tokens:
    """The real tokens of a batch of texts, one after another; no padding, no beginning-of-sequence token.

    `rows` [n] is each token's text (its place in the sequence given), `positions` [n] its place in that text, `ids` [n]
    the token; `outputs` holds the MLP outputs [n, d_in] by layer.
    """

    rows: Tensor
    positions: Tensor
    ids: Tensor
    outputs: dict[int, Tensor]


@dataclass(frozen=True)
class PairTokens:
    """The same tokens through both models. `implicit_reward` and `implicit_advantage` [n] are NaN where undefined."""

    tuned: Tokens
    base: Tokens
    implicit_reward: Tensor
    implicit_advantage: Tensor


@dataclass(frozen=True)
class Observer:
    """Sees the predictions of a pair at chosen tokens, on the pass that `stream_pair` makes.

    `chosen` [tokens of all texts, text after text] says at which; those without an implicit reward are left out.
    `update` is called with log pi_base and log pi_tuned - log pi_base [n, d_vocab] of the contexts before these tokens.
    """

    chosen: Tensor
    update: Callable[[Tensor, Tensor], None]


def stream(
    model: LanguageModel, texts: Sequence[TokenizedText], *, layers: Sequence[int], batch_texts: int, prepend_bos: bool
) -> Iterator[Tokens]:
    """The MLP outputs of the texts' tokens, a batch of texts at a time. Raises DataError where one is not finite."""
    for batch in _batches(model, texts, batch_texts=batch_texts, prepend_bos=prepend_bos):
        yield _tokens(batch, _outputs(model, batch, layers))


def stream_pair(
    tuned: LanguageModel,
    base: LanguageModel,
    texts: Sequence[TokenizedText],
    *,
    layers: Sequence[int],
    batch_texts: int,
    prepend_bos: bool,
    observe: Observer | None = None,
) -> Iterator[PairTokens]:
    """Both models over the same texts, with the implicit reward of every token on the same pass.

    Raises DataError where an MLP output or a reward is not finite.
    """
    done = 0
    for batch in _batches(tuned, texts, batch_texts=batch_texts, prepend_bos=prepend_bos):
        of_tuned, of_base = _forward(tuned, batch, layers), _forward(base, batch, layers)
        compared = _compare(of_tuned.logits, of_base.logits)
        reward, advantage = _rewards(compared, batch.input_ids)
        real = _real(batch)
        _check_finite(advantage[:, 1:], "the implicit reward", batch, real[:, 1:])
        if observe is not None:
            _observe(observe, compared, real, done)
            done += int(real.sum())
        yield PairTokens(
            tuned=_tokens(batch, of_tuned.outputs),
            base=_tokens(batch, of_base.outputs),
            implicit_reward=reward[real],
            implicit_advantage=advantage[real],
        )


def implicit_reward(tuned_logits: Tensor, base_logits: Tensor, input_ids: Tensor) -> tuple[Tensor, Tensor]:
    """r_t = log pi_tuned(x_t | x_<t) - log pi_base(x_t | x_<t), and c_t = r_t + KL(base || tuned) at that context.

    Logits are [batch, seq, d_vocab]; both answers are [batch, seq], NaN at the first position, where nothing precedes.
    Source: PAPER.md, "implicit reward" and "implicit_advantage".
    """
    return _rewards(_compare(tuned_logits, base_logits), input_ids)


@dataclass(frozen=True)
class _Compared:
    """Log pi_base and log pi_tuned - log pi_base of what follows each position but the last [batch, seq, d_vocab]."""

    base: Tensor
    difference: Tensor


def _compare(tuned_logits: Tensor, base_logits: Tensor) -> _Compared:
    base = base_logits[:, :-1].log_softmax(-1)
    return _Compared(base, tuned_logits[:, :-1].log_softmax(-1) - base)


def _rewards(compared: _Compared, input_ids: Tensor) -> tuple[Tensor, Tensor]:
    reward = compared.difference.gather(-1, input_ids[:, 1:, None]).squeeze(-1)
    kl = -(compared.base.exp() * compared.difference).sum(-1)
    undefined = torch.full_like(reward[:, :1], float("nan"))
    return torch.cat([undefined, reward], 1), torch.cat([undefined, reward + kl], 1)


def _observe(observe: Observer, compared: _Compared, real: Tensor, done: int) -> None:
    """Shows the chosen ones of a batch's real tokens, which come after `done` others; the first position has none."""
    wanted = torch.zeros_like(real)
    wanted[real] = observe.chosen[done : done + int(real.sum())].to(real.device)
    rows = wanted[:, 1:]
    if bool(rows.any()):
        observe.update(compared.base[rows], compared.difference[rows])


@dataclass(frozen=True)
class _Forward:
    logits: Tensor
    outputs: dict[int, Tensor]


def _batches(
    model: LanguageModel, texts: Sequence[TokenizedText], *, batch_texts: int, prepend_bos: bool
) -> Iterator[Batch]:
    check_token_ids(model, [text.token_ids for text in texts])
    bos_id = model.bos_id if prepend_bos else None
    return batches(texts, bos_id=bos_id, pad_id=model.pad_id, batch_texts=batch_texts)


class _AllKeptError(Exception):
    """Ends a pass early: every layer asked for has been met, and what is left, logits above all, nobody reads."""


def _outputs(model: LanguageModel, batch: Batch, layers: Sequence[int]) -> dict[int, Tensor]:
    """The MLP outputs by layer, of a pass that ends at the last of them."""
    outputs: dict[int, Tensor] = {}
    with contextlib.suppress(_AllKeptError):
        _run(model, batch, layers, partial(_keep_and_stop, outputs, len(set(layers))))
    _settle(model, outputs, batch)
    return outputs


def _forward(model: LanguageModel, batch: Batch, layers: Sequence[int]) -> _Forward:
    """The MLP outputs by layer, and the logits."""
    outputs: dict[int, Tensor] = {}
    logits = _on_host(_run(model, batch, layers, partial(_keep, outputs)))
    _settle(model, outputs, batch)
    return _Forward(logits, outputs)


def _run(model: LanguageModel, batch: Batch, layers: Sequence[int], keep: Callable[..., Tensor]) -> Tensor:
    """One pass with hooks that are gone when it returns or raises; a lock keeps other threads' passes out of them."""
    hooks = [(mlp_hook_point(layer), partial(keep, layer)) for layer in layers]
    device = model.bridge.cfg.device
    with model.lock, torch.no_grad(), FastLinear(), model.bridge.hooks(fwd_hooks=hooks):
        return model.bridge(batch.input_ids.to(device), attention_mask=batch.attention_mask.to(device))


def _settle(model: LanguageModel, outputs: Mapping[int, Tensor], batch: Batch) -> None:
    """Waits for copies from a GPU, once a batch, and checks what they brought."""
    device = torch.device(model.bridge.cfg.device)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    for layer, output in outputs.items():
        _check_finite(output, f"layer {layer}: the MLP output", batch, _real(batch))


def _keep(outputs: dict[int, Tensor], layer: int, output: Tensor, hook: Any) -> Tensor:  # noqa: ARG001 (the hook's form)
    outputs[layer] = _on_host(output)
    return output


def _keep_and_stop(outputs: dict[int, Tensor], n_layers: int, layer: int, output: Tensor, hook: Any) -> Tensor:
    _keep(outputs, layer, output, hook)
    if len(outputs) == n_layers:
        raise _AllKeptError
    return output


def _on_host(values: Tensor) -> Tensor:
    """The values on the host; from a GPU through pinned memory, without waiting for the copy to end."""
    if values.device.type == "cpu":
        return values.detach()
    pinned = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
    return pinned.copy_(values.detach(), non_blocking=True)


def _real(batch: Batch) -> Tensor:
    real = batch.attention_mask.bool().clone()
    real[:, : batch.n_bos] = False
    return real


def _tokens(batch: Batch, outputs: dict[int, Tensor]) -> Tokens:
    real = _real(batch)
    rows, columns = real.nonzero(as_tuple=True)
    return Tokens(
        rows=torch.as_tensor(batch.rows)[rows],
        positions=columns - batch.n_bos,
        ids=batch.input_ids[real],
        outputs={layer: output[real] for layer, output in outputs.items()},
    )


def _check_finite(values: Tensor, what: str, batch: Batch, real: Tensor) -> None:
    """`values` [batch, seq, ...] must be finite wherever `real` [batch, seq]."""
    if bool(torch.isfinite(values[real]).all()):
        return
    finite = torch.isfinite(values).reshape(*real.shape, -1).all(-1)
    text = batch.rows[int((real & ~finite).any(1).nonzero()[0])]
    raise DataError(
        f"{what} is not finite in text {text}, in the batch of texts {batch.rows[0]} to {batch.rows[-1]};"
        " check the model's weights"
    )
