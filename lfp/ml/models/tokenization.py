"""Turn texts into token ids with character offsets, and into padded batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING

import numpy as np
import torch

from lfp.errors import ModelError
from lfp.util.types import Flags, Ints

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class TokenizedText:
    """One text as the models see it, without its beginning-of-sequence token.

    `text` ends where the last token does, so a truncated text keeps only what its tokens cover. Token i is the slice
    `text[token_starts[i]:token_starts[i + 1]]` (the last runs to the end), and the slices concatenated give `text`.
    A space belongs to the token after it, as in byte-level BPE. A character split over several tokens belongs to the
    first of them; the others are empty slices.
    """

    text: str
    token_ids: tuple[int, ...]
    token_starts: tuple[int, ...]
    truncated: bool


@dataclass(frozen=True)
class Batch:
    """Texts of one forward pass, padded on the right.

    `rows` are the indices of its texts in the sequence that was batched; `n_bos` is 1 where every row begins with a
    beginning-of-sequence token, else 0.
    """

    rows: tuple[int, ...]
    input_ids: torch.Tensor
    """int64 [batch, seq]"""
    attention_mask: torch.Tensor
    """int64 [batch, seq], 1 on tokens (the beginning-of-sequence token too) and 0 on padding"""
    n_bos: int

    def text_tokens(self) -> torch.Tensor:
        """Return a bool mask [batch, seq] of the texts' own tokens: neither padding nor beginning-of-sequence."""
        mask = self.attention_mask.bool().clone()
        mask[:, : self.n_bos] = False
        return mask

    def take(self, places: Sequence[int] | Ints) -> Batch:
        """Keep some of its texts, by their places in the batch."""
        chosen = torch.as_tensor(places, dtype=torch.int64)
        rows = tuple(self.rows[place] for place in chosen.tolist())
        return Batch(rows, self.input_ids[chosen], self.attention_mask[chosen], self.n_bos)

    def mark(self, flags: Sequence[Flags] | None) -> torch.Tensor:
        """Return a bool mask [batch, seq] of the texts' tokens that `flags` mark, by text; of all without flags."""
        mask = self.text_tokens()
        if flags is not None:
            mask[mask.clone()] = torch.from_numpy(np.concatenate([flags[row] for row in self.rows]))
        return mask


def tokenize(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], *, context: int) -> list[TokenizedText]:
    """Tokenize texts to their first `context` tokens; special tokens are neither added nor counted."""
    if not texts:
        return []
    if not tokenizer.is_fast:
        raise ModelError(f"{tokenizer.name_or_path}: its tokenizer has no character offsets; save it as tokenizer.json")
    encoded = tokenizer(list(texts), add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    tokenized = []
    for text, ids, offsets in zip(texts, encoded["input_ids"], encoded["offset_mapping"], strict=True):
        # a token starts where the furthest of those before it ended, so that no character between tokens is lost
        starts = (0, *accumulate((end for _, end in offsets), max))
        n_tokens = min(len(ids), context)
        truncated = n_tokens < len(ids)
        kept = text[: starts[n_tokens]] if truncated or not ids else text
        tokenized.append(TokenizedText(kept, tuple(ids[:n_tokens]), starts[:n_tokens], truncated))
    return tokenized


def batches(texts: Sequence[TokenizedText], *, bos_id: int | None, pad_id: int, batch_texts: int) -> Iterator[Batch]:
    """Yield the texts in the order given, `batch_texts` at a time, each row preceded by `bos_id` unless it is None.

    Raises ModelError for a text without tokens when there is no `bos_id`.
    """
    bos = () if bos_id is None else (bos_id,)
    for start in range(0, len(texts), batch_texts):
        rows = tuple(range(start, min(start + batch_texts, len(texts))))
        ids = [(*bos, *texts[row].token_ids) for row in rows]
        for row, row_ids in zip(rows, ids, strict=True):
            if not row_ids:
                raise ModelError(f"text {row} has no tokens; drop it, or prepend a beginning-of-sequence token")
        input_ids, attention_mask = pad(ids, pad_id=pad_id)
        yield Batch(rows, input_ids, attention_mask, len(bos))


def pad(ids: Sequence[Sequence[int]], *, pad_id: int, left: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    """Pad rows of unequal length: `(input_ids, attention_mask)`, both int64 [batch, longest]."""
    width = max(len(row) for row in ids)
    input_ids = torch.full((len(ids), width), pad_id, dtype=torch.int64)
    mask = torch.zeros_like(input_ids)
    for number, row in enumerate(ids):
        columns = slice(width - len(row), width) if left else slice(len(row))
        input_ids[number, columns] = torch.as_tensor(row, dtype=torch.int64)
        mask[number, columns] = 1
    return input_ids, mask
