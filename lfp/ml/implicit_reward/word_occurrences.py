"""Find the occurrences of words in tokenized texts, average their scores, and draw tokens whose outputs are kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lfp.ml.features.grouping import grouped_order, mix, rank_within
from lfp.texts.vocabulary import TokenWords
from lfp.util.types import Flags, Floats, Ints, Place

_NOT_KEPT = -1


@dataclass(frozen=True)
class CorpusTokens:
    """Every token of the texts of a pass, text after text, all [n].

    `text_ids` and `positions` locate each token, `words` is the vocabulary's word it is part of (-1 for none), and
    `is_last` marks the last token of a word. `in_response` marks the tokens that count: those of responses, or all of a
    text without a prompt.
    """

    text_ids: Ints
    positions: Ints
    token_ids: Ints
    words: Ints
    is_last: NDArray[np.bool_]
    in_response: NDArray[np.bool_]

    @staticmethod
    def from_texts(
        text_ids: Sequence[int],
        token_ids: Sequence[Sequence[int]],
        words: Sequence[TokenWords],
        responses: Sequence[Flags] | None = None,
    ) -> CorpusTokens:
        """Concatenate texts, each given by its id, its tokens, the words they belong to and which of them count."""
        lengths = np.array([len(ids) for ids in token_ids], np.int64)
        starts = np.cumsum(lengths) - lengths
        return CorpusTokens(
            np.repeat(np.asarray(text_ids, np.int64), lengths),
            np.arange(lengths.sum()) - np.repeat(starts, lengths),
            np.concatenate([np.asarray(ids, np.int64) for ids in token_ids]),
            np.concatenate([text.words for text in words]),
            np.concatenate([text.is_last for text in words]),
            np.ones(lengths.sum(), bool) if responses is None else np.concatenate(responses),
        )

    def occurrences(self) -> Occurrences:
        """Find the occurrences of words: runs of tokens of one word of one text, up to its last."""
        before = np.concatenate([[False], self.is_last[:-1]])
        continues = np.zeros(len(self.words), bool)
        continues[1:] = (self.words[1:] == self.words[:-1]) & (self.positions[1:] > 0)
        firsts = np.flatnonzero((self.words >= 0) & ~(continues & ~before))
        lasts = np.flatnonzero((self.words >= 0) & self.is_last)
        # a run interrupted by another word has no last token
        of_last = np.searchsorted(firsts, lasts, side="right") - 1
        return Occurrences(self.words[lasts], firsts[of_last], lasts)


@dataclass(frozen=True)
class Occurrences:
    """Occurrences of words [m]: the word, and its first and last token as indices of `CorpusTokens`."""

    words: Ints
    firsts: Ints
    lasts: Ints

    def lead(self, n_tokens: int) -> Ints:
        """Return the first token of the occurrence that each token is in [n_tokens], or the token itself."""
        lead, lengths = np.arange(n_tokens), self.lasts - self.firsts + 1
        starts = np.cumsum(lengths) - lengths
        inside = np.arange(lengths.sum()) + np.repeat(self.firsts - starts, lengths)
        lead[inside] = np.repeat(self.firsts, lengths)
        return lead

    def means(self, scores: Mapping[str, Floats], n_words: int) -> dict[str, Floats]:
        """Return by name the mean over a word's occurrences of a score [n], summed over the occurrence's tokens.

        Occurrences with an undefined (NaN) score are left out of the mean; a word without any other gets NaN. Each mean
        is [n_words], as are `n` (occurrences) and `tokens` (mean number of tokens per occurrence).
        """
        lengths = (self.lasts - self.firsts + 1).astype(np.float64)
        means = {name: self._mean(self._summed(values), n_words) for name, values in scores.items()}
        n = np.bincount(self.words, minlength=n_words).astype(np.float64)
        return {**means, "n": n, "tokens": np.nan_to_num(self._mean(lengths, n_words))}

    def errors(self, scores: Floats, n_words: int) -> Floats:
        """Return the standard error [n_words] of the mean that `means` gives; NaN below two occurrences."""
        values = self._summed(scores)
        n = np.bincount(self.words[~np.isnan(values)], minlength=n_words)
        variance = self._mean((values - self._mean(values, n_words)[self.words]) ** 2, n_words)
        return np.sqrt(np.divide(variance, n - 1, out=np.full(n_words, np.nan), where=n > 1))

    def _summed(self, scores: Floats) -> Floats:
        """Sum a score over the tokens of each occurrence [m]."""
        total = np.zeros(len(self.words))
        for back in range(int((self.lasts - self.firsts).max(initial=-1)) + 1):
            inside = np.flatnonzero(self.lasts - back >= self.firsts)
            total[inside] += scores[self.lasts[inside] - back]
        return total

    def _mean(self, values: Floats, n_words: int) -> Floats:
        kept = ~np.isnan(values)
        n = np.bincount(self.words[kept], minlength=n_words)
        total = np.bincount(self.words[kept], values[kept], minlength=n_words)
        return np.divide(total, n, out=np.full(n_words, np.nan), where=n > 0)


@dataclass(frozen=True)
class Drawn:
    """Tokens whose activations are kept, each in a slot.

    `tokens` [slots] are indices of `CorpusTokens`: first those of drawn occurrences, word by word, then other sampled
    tokens. Occurrence i has the slots `starts[i]` to `ends[i] - 1` and is of `words[i]`, all [m]. `sample` [rows] holds
    the slots, ascending, of tokens drawn uniformly from those with an implicit reward, and `before` [rows] the slot of
    the token before each, or before the word that it is in: -1 at the beginning of a text.
    """

    tokens: Ints
    words: Ints
    starts: Ints
    ends: Ints
    sample: Ints
    before: Ints

    def slots(self, n_tokens: int) -> Ints:
        """Return the slot of each of the corpus' tokens [n_tokens], -1 for those that are not kept."""
        slots = np.full(n_tokens, _NOT_KEPT)
        slots[self.tokens] = np.arange(len(self.tokens))
        return slots


def draw(tokens: CorpusTokens, *, n_sample: int, per_word: int, first_position: int, seed: int) -> Drawn:
    """Draw up to `n_sample` tokens from `first_position` on, and up to `per_word` occurrences of every word.

    Each token has a number that depends only on its text, its position and the seed; the lowest are drawn. So the order
    of texts does not matter, and the draws of parts of a corpus can be merged by taking the lowest again.
    """
    numbers = token_numbers(tokens, seed)
    found = tokens.occurrences()
    order = grouped_order(found.words, numbers[found.firsts], found.firsts)
    chosen = order[rank_within(found.words[order]) < per_word]
    firsts, lengths = found.firsts[chosen], (found.lasts - found.firsts + 1)[chosen]
    starts = np.cumsum(lengths) - lengths
    of_words = np.arange(lengths.sum()) + np.repeat(firsts - starts, lengths)
    allowed = np.flatnonzero((tokens.positions >= first_position) & tokens.in_response)
    sampled = np.sort(allowed[np.argsort(mix(numbers)[allowed], kind="stable")[:n_sample]])
    slots = np.full(len(numbers), _NOT_KEPT)
    slots[of_words] = np.arange(len(of_words))
    lead = found.lead(len(numbers))[sampled]
    has_before = tokens.positions[lead] > 0
    wanted = np.union1d(sampled, lead[has_before] - 1)
    rest = wanted[slots[wanted] < 0]
    slots[rest] = len(of_words) + np.arange(len(rest))
    kept = np.concatenate([of_words, rest])
    before = np.where(has_before, slots[lead - 1], _NOT_KEPT)
    order = np.argsort(slots[sampled])
    return Drawn(kept, found.words[chosen], starts, starts + lengths, slots[sampled][order], before[order])


def token_numbers(tokens: CorpusTokens, seed: int) -> NDArray[np.uint64]:
    """Return a number per token [n] that depends only on its text, its position and the seed: draws take the lowest."""
    of_text = mix(tokens.text_ids.astype(np.uint64) ^ mix(np.array([seed], np.uint64)))
    return mix(of_text + tokens.positions.astype(np.uint64))


class KeptOutputs:
    """Keeps rows [kept, width] (float32, such as activations, places side by side) of drawn tokens of some texts.

    `slots` [tokens of the texts] are those of `Drawn`, negative for tokens that were not drawn; `slots` and `values` of
    the kept ones stand side by side.
    """

    def __init__(self, slots: Ints, width: int) -> None:
        is_kept = slots >= 0
        self.slots = slots[is_kept]
        self.values = np.zeros((len(self.slots), width), np.float32)
        self._rows = np.where(is_kept, np.cumsum(is_kept) - 1, _NOT_KEPT)

    def update(self, places: Ints, outputs: Mapping[Place, Tensor]) -> None:
        """Offer tokens, as indices among the texts' [n], with their activations [n, d_in] by place."""
        rows = self._rows[places]
        kept = np.flatnonzero(rows >= 0)
        chosen = torch.from_numpy(kept)
        values = [outputs[place][chosen].float() for place in sorted(outputs)]
        self.values[rows[kept]] = torch.cat(values, dim=1).numpy()
