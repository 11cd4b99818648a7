"""Pretrain a small GPT-NeoX and its tokenizer, for when no base model can be downloaded."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F

from lfp.config import PretrainConfig
from lfp.errors import CorpusError, TrainingError
from lfp.ml.models import runtime
from lfp.ml.models.sources import quiet_files
from lfp.ml.models.tokenization import TokenizedText, pad, tokenize
from lfp.util.types import Progress

if TYPE_CHECKING:
    from transformers import GPTNeoXForCausalLM, PreTrainedTokenizerFast

END_OF_TEXT = "<|endoftext|>"
"""The one special token, as in Pythia: it begins and ends texts, and pads."""
_POSITIONS_MARGIN = 16
"""Positions beyond twice the context, so that a prefix, its completion and special tokens always fit."""
_POOL_BATCHES = 16
"""Batches drawn together and sorted by length, so that the rows of a batch need little padding."""
_WEIGHT_DECAY = 0.1
_FINAL_RATE = 0.1
"""Share of the learning rate at the end of the cosine."""
_CURVE_POINTS = 100
_CHOOSING_TEXTS = 500
"""Most held-out texts per evaluation."""
_CHECKPOINT = "checkpoint.pt"
_CHECKPOINT_S = 60.0
"""Seconds between two checkpoints, so the most work a kill costs. The weights do not depend on it."""


@dataclass(frozen=True)
class PretrainReport:
    """How the training went."""

    steps: int
    tokens: int
    """Tokens predicted in training, repetitions included."""
    final_loss: float
    """Nats per token, mean of the last interval of the curve."""
    learning_curve: tuple[tuple[int, float], ...]
    """(step, mean loss since the step before)"""
    held_out_bits_per_byte: float | None
    """On the held-out texts that did not choose the weights, ends of text included; None without such texts."""
    held_out_curve: tuple[tuple[int, float], ...]
    """(step, bits per byte) on the texts that choose the weights, at each evaluation."""
    kept_step: int
    """The step whose weights were kept: the best of the evaluations, or the last step without evaluations."""
    seconds: float
    """Including the time before an interruption."""


def pretrain(
    texts: Sequence[str],
    config: PretrainConfig,
    *,
    context: int,
    seed: int,
    folder: Path,
    held_out: Sequence[str] = (),
    device: str = "cpu",
    scratch: Path | None = None,
    progress: Progress | None = None,
) -> PretrainReport:
    """Train tokenizer and model on `texts` and save both to `folder`.

    Texts are truncated to `context` tokens or, with `config.whole_texts`, split into pieces of that length. AdamW with
    warm-up and cosine decay. With `config.evaluations`, every second held-out text (at most `_CHOOSING_TEXTS`) is read
    at that many steps, and the weights that predict these best are kept; the other held-out texts judge them.
    With the folder `scratch`, an interrupted training resumes from its last checkpoint there, to the same weights.
    Raises CorpusError without texts, TrainingError when the loss is not finite.
    """
    started = time.perf_counter()
    if not any(texts):
        raise CorpusError("pretrain: no texts to train on; set corpus.source to a file that has some")
    tokenizer = _train_tokenizer(texts, config.vocab_size, folder)
    model = _build_model(len(tokenizer), config, context=context, seed=seed).to(device)
    judging = [text for text in held_out if text]
    choosing: list[str] = []
    if config.evaluations and len(judging) > 1:
        choosing, judging = judging[::2][:_CHOOSING_TEXTS], judging[1::2]
    state = _train(
        model,
        _sequences(tokenizer, texts, context, whole=config.whole_texts),
        config,
        seed=seed,
        scratch=scratch,
        judge=lambda: _bits_per_byte(model, tokenizer, choosing, context) if choosing else None,
        progress=progress,
    )
    with quiet_files():
        model.save_pretrained(folder)
    curve = _curve(state.losses)
    return PretrainReport(
        steps=config.steps,
        tokens=state.tokens,
        final_loss=curve[-1][1],
        learning_curve=curve,
        held_out_bits_per_byte=_bits_per_byte(model, tokenizer, judging, context) if judging else None,
        held_out_curve=tuple(state.held_out),
        kept_step=state.kept_step,
        seconds=state.seconds_before + time.perf_counter() - started,
    )


def _train_tokenizer(texts: Sequence[str], vocab_size: int, folder: Path) -> PreTrainedTokenizerFast:
    """Train byte-level BPE and save it in `folder`; a frequent word is one token with the space before it."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    special = dict.fromkeys(("bos_token", "eos_token", "pad_token", "unk_token"), END_OF_TEXT)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, clean_up_tokenization_spaces=False, **special)
    fast.save_pretrained(folder)
    return fast


def _build_model(d_vocab: int, config: PretrainConfig, *, context: int, seed: int) -> GPTNeoXForCausalLM:
    """Build a model with random weights; token id 0 is the end of text."""
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    sizes = GPTNeoXConfig(
        vocab_size=d_vocab,
        hidden_size=config.d_model,
        num_hidden_layers=config.n_layers,
        num_attention_heads=config.n_heads,
        intermediate_size=4 * config.d_model,
        max_position_embeddings=2 * context + _POSITIONS_MARGIN,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return GPTNeoXForCausalLM(sizes)


def _sequences(
    tokenizer: PreTrainedTokenizerFast, texts: Sequence[str], context: int, *, whole: bool = False
) -> list[list[int]]:
    """Return each text between two ends of text; a truncated text has none at its end.

    With `whole` texts are split into pieces of `context` tokens to predict instead of being truncated; a piece begins
    with the last token of the piece before.
    """
    tokenized = tokenize(tokenizer, texts, context=sys.maxsize if whole else context)
    rows = [_between_ends(text) for text in tokenized if text.token_ids]
    return [row[at : at + context + 1] for row in rows for at in range(0, len(row) - 1, context)] if whole else rows


def _between_ends(text: TokenizedText) -> list[int]:
    """Return the ids of a text between two ends of text, without the second where the text was truncated."""
    return [0, *text.token_ids, *([] if text.truncated else [0])]


@dataclass
class _Training:
    """State of a training: what a checkpoint holds beside weights, optimizer and schedule."""

    step: int = 0
    tokens: int = 0
    losses: list[float] = field(default_factory=list)
    held_out: list[tuple[int, float]] = field(default_factory=list)
    best: dict[str, torch.Tensor] | None = None
    kept_step: int = 0
    seconds_before: float = 0.0
    """Spent before the last interruption."""


def _train(
    model: GPTNeoXForCausalLM,
    sequences: Sequence[Sequence[int]],
    config: PretrainConfig,
    *,
    seed: int,
    scratch: Path | None,
    judge: Callable[[], float | None],
    progress: Progress | None,
) -> _Training:
    """Train the model in place and leave it with the best weights."""
    decayed = [value for value in model.parameters() if value.dim() > 1]
    rest = [value for value in model.parameters() if value.dim() <= 1]  # biases and norms
    groups = [{"params": decayed, "weight_decay": _WEIGHT_DECAY}, {"params": rest, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=config.learning_rate, betas=(0.9, 0.95), fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, config))
    parts = {"model": model, "optimizer": optimizer, "schedule": schedule}
    checkpoint = _Checkpoint(scratch / _CHECKPOINT) if scratch else None
    state = (checkpoint.load(parts) if checkpoint else None) or _Training()
    order = _batch_order([len(sequence) for sequence in sequences], batch=config.batch, seed=seed)
    for _ in range(state.step):
        next(order)
    n_evaluations = min(config.evaluations, config.steps)
    evaluation_steps = {round(config.steps * (i + 1) / n_evaluations) for i in range(n_evaluations)}
    while state.step < config.steps:
        model.train()
        loss, count = _loss(model, [sequences[row] for row in next(order)])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        state.step, state.tokens = state.step + 1, state.tokens + count
        state.losses.append(loss.item())
        if not math.isfinite(state.losses[-1]):
            raise TrainingError(
                f"pretrain: the loss is {state.losses[-1]} at step {state.step}; lower pretrain.learning_rate"
            )
        if state.step in evaluation_steps:
            model.eval()
            bits = judge()
            if bits is not None:
                if all(bits < before for _, before in state.held_out):
                    state.best = {name: value.detach().clone() for name, value in model.state_dict().items()}
                    state.kept_step = state.step
                state.held_out.append((state.step, bits))
        if checkpoint:
            checkpoint.save_if_due(state, parts)
        if progress is not None:
            progress("pretrain", state.step, config.steps, state.losses[-1])
    model.eval()
    if state.best is None:
        state.kept_step = state.step
    else:
        model.load_state_dict(state.best)
    return state


class _Checkpoint:
    """A file from which training resumes after a kill, written at most once per `_CHECKPOINT_S` seconds."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._started = self._written = time.perf_counter()

    def load(self, parts: Mapping[str, Any]) -> _Training | None:
        """Restore the parts from the file; None where there is no file."""
        saved = runtime.load(self._file)
        if saved is None:
            return None
        for name, part in parts.items():
            part.load_state_dict(saved[name])
        return _Training(**saved["training"])

    def save_if_due(self, state: _Training, parts: Mapping[str, Any]) -> None:
        """Write the checkpoint when the last one is old enough."""
        now = time.perf_counter()
        if now - self._written < _CHECKPOINT_S:
            return
        training = vars(state) | {"seconds_before": state.seconds_before + now - self._started}
        runtime.save({"training": training} | {name: part.state_dict() for name, part in parts.items()}, self._file)
        self._written = now


def _rate(step: int, config: PretrainConfig) -> float:
    """Return the share of the learning rate at a step: linear warm-up, then a cosine down to `_FINAL_RATE`."""
    warmup = max(1, round(config.warmup_share * config.steps))
    if step < warmup:
        return (step + 1) / warmup
    done = (step - warmup) / max(1, config.steps - warmup)
    return _FINAL_RATE + (1 - _FINAL_RATE) * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def _batch_order(lengths: Sequence[int], *, batch: int, seed: int) -> Iterator[list[int]]:
    """Yield the rows of batches forever: reshuffled every epoch, rows of a batch similar in length."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        shuffled = torch.randperm(len(lengths), generator=generator).tolist()
        for start in range(0, len(shuffled), batch * _POOL_BATCHES):
            pool = sorted(shuffled[start : start + batch * _POOL_BATCHES], key=lambda row: lengths[row])
            rows = [pool[at : at + batch] for at in range(0, len(pool), batch)]
            for pick in torch.randperm(len(rows), generator=generator).tolist():
                yield rows[pick]


def _loss(model: GPTNeoXForCausalLM, rows: Sequence[Sequence[int]]) -> tuple[torch.Tensor, int]:
    """Return the mean cross-entropy of each row's tokens after its first, in nats, and their number.

    Rows are padded on the right, where a causal model needs no mask; logits of padding are never computed.
    """
    input_ids, mask = (part.to(model.device) for part in pad(rows, pad_id=0))
    hidden = model.gpt_neox(input_ids=input_ids[:, :-1], use_cache=False).last_hidden_state
    is_token = mask[:, 1:].bool()
    targets = input_ids[:, 1:][is_token]
    return F.cross_entropy(model.lm_head(hidden[is_token]), targets), len(targets)


def _curve(losses: Sequence[float]) -> tuple[tuple[int, float], ...]:
    """Summarise losses as at most `_CURVE_POINTS` means (last step, mean) over consecutive steps."""
    width = math.ceil(len(losses) / _CURVE_POINTS)
    ends = [*range(width, len(losses), width), len(losses)]
    starts = [0, *ends[:-1]]
    return tuple((end, sum(losses[start:end]) / (end - start)) for start, end in zip(starts, ends, strict=True))


@torch.no_grad()
def _bits_per_byte(
    model: GPTNeoXForCausalLM, tokenizer: PreTrainedTokenizerFast, texts: Sequence[str], context: int
) -> float:
    """Return the bits per byte of the texts, each truncated to the context: bits and bytes are of the same tokens.

    An end of text counts, as a token of no bytes, only where the text ends.
    """
    tokenized = [text for text in tokenize(tokenizer, texts, context=context) if text.token_ids]
    sequences = [_between_ends(text) for text in tokenized]
    nats = 0.0
    for start in range(0, len(sequences), 64):
        loss, count = _loss(model, sequences[start : start + 64])
        nats += loss.item() * count
    ids = [token_id for text in tokenized for token_id in text.token_ids]
    n_bytes = sum(map(len, tokenizer.convert_ids_to_tokens(ids)))  # byte-level: a token has a character per byte
    return nats / math.log(2) / n_bytes
