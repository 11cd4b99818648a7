"""A small GPT-NeoX from scratch, tokenizer included: a base model where none can be downloaded."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from lfp.config import PretrainConfig
from lfp.errors import CorpusError, TrainingError
from lfp.ml.models import quiet_files
from lfp.ml.tokens import pad, tokenize
from lfp.progress import Progress

if TYPE_CHECKING:
    from transformers import GPTNeoXForCausalLM, PreTrainedTokenizerFast

END_OF_TEXT = "<|endoftext|>"
"""The one special token, as in Pythia: it begins texts, ends them and pads."""
_POSITIONS_MARGIN = 16
"""Positions beyond twice the context: a prefix, its completion and the tokens around them always fit."""
_POOL_BATCHES = 16
"""Batches drawn together and sorted by length, so that rows of a batch need little padding."""
_WEIGHT_DECAY = 0.1
_FINAL_RATE = 0.1
"""Share of the learning rate that the cosine ends on."""
_CURVE_POINTS = 100


@dataclass(frozen=True)
class PretrainReport:
    """How the training went."""

    steps: int
    tokens: int
    """Tokens predicted in training, repeats counted."""
    final_loss: float
    """Nats a token, mean of the last interval of the curve."""
    learning_curve: tuple[tuple[int, float], ...]
    """(step, mean loss since the step before)"""
    held_out_bits_per_byte: float | None
    """On the held-out texts, ends of text counted; none without such texts."""
    seconds: float


def pretrain(
    texts: Sequence[str],
    config: PretrainConfig,
    *,
    context: int,
    seed: int,
    folder: Path,
    held_out: Sequence[str] = (),
    progress: Progress | None = None,
) -> PretrainReport:
    """Trains tokenizer and model on `texts`, cut to `context` tokens, and saves both to `folder`.

    AdamW with warm-up and cosine decay. Raises CorpusError without texts, TrainingError when the loss is not a number.
    """
    started = time.perf_counter()
    if not any(texts):
        raise CorpusError("pretrain: no texts to train on; set corpus.source to a file that has some")
    tokenizer = _train_tokenizer(texts, config.vocab_size, folder)
    model = _build_model(len(tokenizer), config, context=context, seed=seed)
    sequences = _sequences(tokenizer, texts, context)
    losses, tokens = _train(model, sequences, config, seed=seed, progress=progress)
    with quiet_files():
        model.save_pretrained(folder)
    curve = _curve(losses)
    return PretrainReport(
        steps=config.steps,
        tokens=tokens,
        final_loss=curve[-1][1],
        learning_curve=curve,
        held_out_bits_per_byte=_bits_per_byte(model, tokenizer, held_out, context) if any(held_out) else None,
        seconds=time.perf_counter() - started,
    )


def _train_tokenizer(texts: Sequence[str], vocab_size: int, folder: Path) -> PreTrainedTokenizerFast:
    """Byte-level BPE; a word and the space before it are one token where that is frequent. Saved in `folder`."""
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
    """Fresh weights; the token id 0 is the end of text."""
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


def _sequences(tokenizer: PreTrainedTokenizerFast, texts: Sequence[str], context: int) -> list[list[int]]:
    """Each text between two ends of text; one cut at the context does not end."""
    tokenized = tokenize(tokenizer, texts, context=context)
    return [[0, *text.token_ids, *([] if text.truncated else [0])] for text in tokenized if text.token_ids]


def _train(
    model: GPTNeoXForCausalLM,
    sequences: Sequence[Sequence[int]],
    config: PretrainConfig,
    *,
    seed: int,
    progress: Progress | None,
) -> tuple[list[float], int]:
    """Every step's loss, and how many tokens were predicted in all."""
    decayed = [value for value in model.parameters() if value.dim() > 1]
    kept = [value for value in model.parameters() if value.dim() <= 1]
    groups = [{"params": decayed, "weight_decay": _WEIGHT_DECAY}, {"params": kept, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=config.learning_rate, betas=(0.9, 0.95), fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, config))
    model.train()
    losses, tokens = [], 0
    order = _batch_order([len(sequence) for sequence in sequences], batch=config.batch, seed=seed)
    for step in range(1, config.steps + 1):
        loss, count = _loss(model, [sequences[row] for row in next(order)])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
        tokens += count
        if not math.isfinite(losses[-1]):
            raise TrainingError(f"pretrain: the loss is {losses[-1]} at step {step}; lower pretrain.learning_rate")
        if progress is not None:
            progress("pretrain", step, config.steps, losses[-1])
    model.eval()
    return losses, tokens


def _rate(step: int, config: PretrainConfig) -> float:
    """Share of the learning rate at a step: linear warm-up, then a cosine down to `_FINAL_RATE`."""
    warmup = max(1, round(config.warmup_share * config.steps))
    if step < warmup:
        return (step + 1) / warmup
    done = (step - warmup) / max(1, config.steps - warmup)
    return _FINAL_RATE + (1 - _FINAL_RATE) * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def _batch_order(lengths: Sequence[int], *, batch: int, seed: int) -> Iterator[list[int]]:
    """Rows of batches without end: every epoch shuffled anew, rows of a batch alike in length."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        shuffled = torch.randperm(len(lengths), generator=generator).tolist()
        for start in range(0, len(shuffled), batch * _POOL_BATCHES):
            pool = sorted(shuffled[start : start + batch * _POOL_BATCHES], key=lambda row: lengths[row])
            rows = [pool[at : at + batch] for at in range(0, len(pool), batch)]
            for pick in torch.randperm(len(rows), generator=generator).tolist():
                yield rows[pick]


def _loss(model: GPTNeoXForCausalLM, rows: Sequence[Sequence[int]]) -> tuple[torch.Tensor, int]:
    """Mean cross-entropy of each row's tokens after its first, in nats, and their number.

    Rows are padded on the right, where a causal model needs no mask; logits of padding are never computed.
    """
    input_ids, mask = pad(rows, pad_id=0)
    hidden = model.gpt_neox(input_ids=input_ids[:, :-1], use_cache=False).last_hidden_state
    real = mask[:, 1:].bool()
    targets = input_ids[:, 1:][real]
    return F.cross_entropy(model.lm_head(hidden[real]), targets), len(targets)


def _curve(losses: Sequence[float]) -> tuple[tuple[int, float], ...]:
    """At most `_CURVE_POINTS` means of consecutive steps."""
    width = math.ceil(len(losses) / _CURVE_POINTS)
    ends = [*range(width, len(losses), width), len(losses)]
    starts = [0, *ends[:-1]]
    return tuple((end, sum(losses[start:end]) / (end - start)) for start, end in zip(starts, ends, strict=True))


@torch.no_grad()
def _bits_per_byte(
    model: GPTNeoXForCausalLM, tokenizer: PreTrainedTokenizerFast, texts: Sequence[str], context: int
) -> float:
    """Of the parts of the texts within the context, as the model sees them."""
    tokenized = [text for text in tokenize(tokenizer, texts, context=context) if text.token_ids]
    sequences = _sequences(tokenizer, [text.text for text in tokenized], context)
    nats = 0.0
    for start in range(0, len(sequences), 64):
        loss, count = _loss(model, sequences[start : start + 64])
        nats += loss.item() * count
    return nats / math.log(2) / sum(len(text.text.encode()) for text in tokenized)
