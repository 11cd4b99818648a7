"""Sample completions from a model, and compare two models on them."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from lfp.errors import CorpusError, ModelError
from lfp.ml.models.loading import LanguageModel, check_token_ids
from lfp.ml.models.predictions import States, read_states
from lfp.ml.models.runtime import Batches, FastLinear
from lfp.ml.models.tokenization import TokenizedText, pad


@dataclass(frozen=True)
class Completion:
    """What a model wrote after a prefix."""

    prefix_ids: tuple[int, ...]
    """As given, including the beginning-of-sequence token."""
    token_ids: tuple[int, ...]
    """The tokens sampled, including the end-of-sequence token where one was."""
    text: str
    """The tokens decoded, without special tokens."""


def prefixes(
    texts: Sequence[TokenizedText],
    *,
    n: int,
    token_range: tuple[int, int],
    seed: int,
    bos_id: int | None,
    prompts: Sequence[int | None] | None = None,
) -> list[tuple[int, ...]]:
    """Draw the beginnings of `n` texts by the seed, each preceded by `bos_id` unless that is None.

    Lengths are uniform in `token_range` (without `bos_id`), at most the text's own; a text that has a number of tokens
    among `prompts` is taken up to there instead. Raises CorpusError when every text is shorter than that.
    """
    bos = () if bos_id is None else (bos_id,)
    drawn = _draw_prefixes(texts, n=n, token_range=token_range, seed=seed, prompts=prompts)
    return [(*bos, *text.token_ids[:length]) for text, length in drawn]


def prefix_strings(
    texts: Sequence[TokenizedText],
    *,
    n: int,
    token_range: tuple[int, int],
    seed: int,
    prompts: Sequence[int | None] | None = None,
) -> list[str]:
    """Draw the same beginnings as `prefixes` with the same seed, as strings."""
    drawn = _draw_prefixes(texts, n=n, token_range=token_range, seed=seed, prompts=prompts)
    return [text.text[: (*text.token_starts, len(text.text))[length]] for text, length in drawn]


def sample_completions(
    model: LanguageModel,
    prefixes: Sequence[Sequence[int]],
    *,
    n_tokens: int,
    temperature: float,
    seed: int,
    batch: int = 64,
    batches: Batches | None = None,
    least_tokens: int = 0,
) -> list[Completion]:
    """Sample one completion per prefix, of `n_tokens` tokens or up to the end-of-sequence token.

    That token is not among the first `least_tokens`.
    Token t of prefix i is the quantile u[i, t] of the model's distribution, with u uniform by the seed. So a completion
    does not depend on its batch, and two models with the same seed draw the same tokens where they agree, which reduces
    the noise of differences between them. Hooks on the model take effect. `batches` take the place of `batch`, and are
    halved, once, where memory is full. Raises ModelError where a prefix is empty, has unknown tokens or leaves no room.
    """
    _check_room(model, prefixes, n_tokens)
    n, uniform = len(prefixes), _draw_quantiles(len(prefixes), n_tokens, seed)

    def complete(rows: range) -> list[Completion]:
        chosen = [prefixes[row] for row in rows]
        steps = _sample(model, chosen, uniform[rows.start : rows.stop], temperature, least_tokens=least_tokens)
        sampled = [torch.empty(len(chosen), 0, dtype=torch.int64), *steps][-1]
        return _completions(model, chosen, sampled)

    with model.lock:
        if batches is not None:
            parts = list(batches.split(range(n), complete))
        else:
            parts = [complete(range(start, min(start + batch, n))) for start in range(0, n, batch)]
    return [completion for part in parts for completion in part]


def stream_completions(
    model: LanguageModel,
    prefix: Sequence[int],
    *,
    n: int,
    n_tokens: int,
    temperature: float,
    seed: int,
    reads_once: bool = True,
) -> Iterator[list[Completion]]:
    """Yield `n` completions of a prefix as far as they have come, after each token: those of `sample_completions`.

    The prefix is read once for all of them, unless hooks on the model keep keys and values of their own. The model's
    lock is held while a token is sampled, not in between. Raises what `sample_completions` raises.
    """
    prefixes = [tuple(prefix)] * n
    _check_room(model, prefixes, n_tokens)
    uniform = _draw_quantiles(n, n_tokens, seed)
    for sampled in _sample(model, prefixes, uniform, temperature, reads_once=reads_once):
        yield _completions(model, prefixes, sampled)


def _check_room(model: LanguageModel, prefixes: Sequence[Sequence[int]], n_tokens: int) -> None:
    """Raise ModelError where a prefix is empty, has unknown tokens or leaves no room for `n_tokens` more."""
    check_token_ids(model, prefixes)
    for row, ids in enumerate(prefixes):
        if not ids:
            raise ModelError(f"{model.name}: prefix {row} is empty; begin it with a beginning-of-sequence token")
        if len(ids) + n_tokens > model.n_ctx:
            raise ModelError(
                f"{model.name}: prefix {row} of {len(ids)} tokens and {n_tokens} more do not fit its {model.n_ctx}"
                " positions; lower tune.completion_tokens or the prefix_tokens"
            )


def _draw_quantiles(n: int, n_tokens: int, seed: int) -> torch.Tensor:
    return torch.rand(n, n_tokens, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def _completions(model: LanguageModel, prefixes: Sequence[Sequence[int]], sampled: torch.Tensor) -> list[Completion]:
    """Return sampled tokens [batch, n] as completions, each up to its end-of-sequence token."""
    eos_id = model.tokenizer.eos_token_id
    rows = [ids[: ids.index(eos_id) + 1] if eos_id in ids else ids for ids in sampled.tolist()]
    return [
        Completion(tuple(prefix), tuple(ids), model.tokenizer.decode(ids, skip_special_tokens=True))
        for prefix, ids in zip(prefixes, rows, strict=True)
    ]


@torch.no_grad()
def mean_kl_per_token(
    tuned: LanguageModel, base: LanguageModel, completions: Sequence[Completion], *, batch: int = 32
) -> float:
    """Return the mean over the completions' tokens of KL(tuned || base) in their contexts, in nats.

    Exact over the vocabulary at temperature 1: sum over v of p_tuned(v) (log p_tuned(v) - log p_base(v)).
    """
    total, count = 0.0, 0
    for start in range(0, len(completions), batch):
        rows = completions[start : start + batch]
        of_tuned, of_base = _states_before(tuned, rows), _states_before(base, rows)
        for chunk in of_tuned.chunks():
            log_p, log_q = (states.logits(chunk).log_softmax(-1) for states in (of_tuned, of_base))
            total += log_q.to(log_p.device).neg_().add_(log_p).mul_(log_p.exp()).sum().item()
        count += len(of_tuned.values)
    if count == 0:
        raise ModelError("no completion has a token to compare the models on; raise tune.completion_tokens")
    return total / count


@torch.no_grad()
def token_log_probs(
    model: LanguageModel, completions: Sequence[Completion], *, batch: int = 64
) -> Iterator[torch.Tensor]:
    """Yield the log-probability of each token of each completion, in nats, in float64 [tokens of the completion]."""
    for start in range(0, len(completions), batch):
        rows = completions[start : start + batch]
        ids = torch.tensor([token_id for row in rows for token_id in row.token_ids])
        of_tokens = _states_before(model, rows).log_probs(ids)
        yield from of_tokens.split([len(row.token_ids) for row in rows])


def log_likelihoods(model: LanguageModel, completions: Sequence[Completion], *, batch: int = 64) -> torch.Tensor:
    """Return the log-probability [completions] of each completion after its prefix, in nats, summed over its tokens."""
    return torch.stack([of_tokens.sum() for of_tokens in token_log_probs(model, completions, batch=batch)])


@torch.no_grad()
def _states_before(model: LanguageModel, completions: Sequence[Completion]) -> States:
    """Return the states before each token of the completions, in order."""
    input_ids, mask = pad([(*row.prefix_ids, *row.token_ids) for row in completions], pad_id=model.pad_id)
    wanted = torch.zeros(input_ids.shape, dtype=torch.bool)
    for row, completion in zip(wanted, completions, strict=True):
        row[len(completion.prefix_ids) - 1 : len(completion.prefix_ids) + len(completion.token_ids) - 1] = True
    with FastLinear():
        return read_states(model, input_ids, mask).take(wanted)


def repetition(completions: Sequence[Completion], *, size: int = 3) -> float:
    """Return the share of token trigrams that occurred earlier in the same completion; 0 where there are none."""
    repeated = total = 0
    for completion in completions:
        trigrams = list(zip(*(completion.token_ids[k:] for k in range(size)), strict=False))
        total += len(trigrams)
        repeated += len(trigrams) - len(set(trigrams))
    return repeated / total if total else 0.0


def _draw_prefixes(
    texts: Sequence[TokenizedText],
    *,
    n: int,
    token_range: tuple[int, int],
    seed: int,
    prompts: Sequence[int | None] | None,
) -> list[tuple[TokenizedText, int]]:
    """Draw texts and how many of their tokens to take; every text is used once before any is used again."""
    shortest, longest = token_range
    lengths = [None] * len(texts) if prompts is None else prompts
    usable = [
        (text, length)
        for text, length in zip(texts, lengths, strict=True)
        if (len(text.token_ids) >= shortest if length is None else length < len(text.token_ids))
    ]
    if not usable:
        raise CorpusError(
            f"no text has the {shortest} tokens of a prefix; lower tune.prefix_tokens"
            if None in lengths
            else "no dialogue's prompt fits into the context; raise model.context"
        )
    draw, order = random.Random(seed), list[tuple[TokenizedText, int | None]]()
    while len(order) < n:
        order += draw.sample(usable, len(usable))
    return [
        (text, draw.randint(shortest, min(longest, len(text.token_ids))) if length is None else length)
        for text, length in order[:n]
    ]


@torch.no_grad()
def _sample(
    model: LanguageModel,
    rows: Sequence[Sequence[int]],
    uniform: torch.Tensor,
    temperature: float,
    *,
    least_tokens: int = 0,
    reads_once: bool = False,
) -> Iterator[torch.Tensor]:
    """Sample tokens after each row, at quantiles `uniform` [batch, n_tokens]; the keys and values are cached.

    Yields all tokens [batch, n] after each step, until every row has ended. The end-of-sequence token is not among the
    first `least_tokens`. With `reads_once` the first row is read for all, which are the same.
    """
    device, eos_id, n = model.device, model.tokenizer.eos_token_id, len(rows)
    tokens, mask = (part.to(device) for part in pad(rows[:1] if reads_once else rows, pad_id=model.pad_id, left=True))
    sampled = torch.empty(n, 0, dtype=torch.int64, device=device)
    cache, ended = None, torch.zeros(n, dtype=torch.bool, device=device)
    for quantile in uniform.to(device).split(1, dim=1):
        with FastLinear():
            output = model.forward(tokens, mask, past_key_values=cache, use_cache=True, logits_to_keep=1)
        logits, cache = output.logits[:, -1, : model.d_vocab].float(), output.past_key_values
        if len(logits) < n:
            cache.batch_repeat_interleave(n)
            logits, mask = logits.repeat(n, 1), mask.repeat(n, 1)
        if eos_id is not None and sampled.shape[1] < least_tokens:
            logits[:, eos_id] = -torch.inf
        cumulative = (logits / temperature).double().softmax(dim=-1).cumsum(dim=-1)
        tokens = torch.searchsorted(cumulative, quantile * cumulative[:, -1:], right=True)
        tokens = tokens.clamp(max=logits.shape[-1] - 1)
        sampled, mask = torch.cat([sampled, tokens], dim=1), F.pad(mask, (0, 1), value=1)
        yield sampled
        ended |= tokens[:, 0] == (-1 if eos_id is None else eos_id)
        if ended.all():
            break
