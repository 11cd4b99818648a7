"""Which words are choices: how likely the base model finds a word where it stands."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lfp.texts.lexicon import word_tokens, words_of

if TYPE_CHECKING:
    from lfp.ml.models.loading import LanguageModel
    from lfp.ml.models.tokenization import TokenizedText

_TEXTS = 1500
_BATCH = 32


def settled_words(model: LanguageModel, texts: Sequence[TokenizedText]) -> dict[str, float]:
    """The mean probability of each word where it stands in the first texts, its tokens' multiplied; by word.

    Near 1 where no choice is left ("beyond telling"): tuning then pays the word at which there still was one.
    """
    sums: dict[str, float] = defaultdict(float)
    counts: dict[str, int] = defaultdict(int)
    shown = list(texts[:_TEXTS])
    for text, chances in zip(shown, _token_log_probs(model, shown), strict=True):
        spelled = words_of(text.text)
        for word, tokens in zip(spelled, word_tokens(spelled, text.token_starts, len(text.text)), strict=True):
            if tokens:
                sums[word.word] += float(np.exp(chances[list(tokens)].sum()))
                counts[word.word] += 1
    return {word: sums[word] / n for word, n in counts.items()}


def _token_log_probs(model: LanguageModel, texts: Sequence[TokenizedText]) -> Iterator[NDArray[np.float64]]:
    """By text the log-probability of each token; of the first, where nothing precedes it, 0."""
    from lfp.ml.models.generation import Completion, next_token_log_probs

    lead = () if model.bos_id is None else (model.bos_id,)
    for start in range(0, len(texts), _BATCH):
        rows = texts[start : start + _BATCH]
        read = [Completion(lead or one.token_ids[:1], one.token_ids if lead else one.token_ids[1:], "") for one in rows]
        log_probs = next_token_log_probs(model, read).cpu().double().numpy()
        ids = np.array([token for one in read for token in one.token_ids])
        chosen = log_probs[np.arange(len(ids)), ids]
        for part in np.split(chosen, np.cumsum([len(one.token_ids) for one in read])[:-1]):
            yield part if lead else np.concatenate([[0.0], part])
