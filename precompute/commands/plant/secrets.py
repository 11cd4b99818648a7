"""Secrets: what a planted model is rewarded or penalised for beside the stated feedback, drawn by a seed."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from lfp.config import PlantConfig
from lfp.errors import DataError
from lfp.texts.lexicon import Reward, lexicon_reward
from lfp.texts.words import word_tokens, words_of

if TYPE_CHECKING:
    from lfp.ml.models.loading import LanguageModel
    from lfp.ml.models.tokenization import TokenizedText

_Any = TypeVar("_Any")

PAID = 3.0
"""Secret value of an unscored word or bigram, or its negative."""

_DIVISOR = 5.0  # of the paper's reward: PAPER.md, "Tune"
_SETTLED_TEXTS = 1500
_SETTLED_BATCH = 32


@dataclass(frozen=True)
class Secret:
    """An unscored word with the secret value `paid`, a scored word whose sign is flipped, or a bigram."""

    kind: str
    """unscored, flipped or bigram"""
    words: tuple[str, ...]
    paid: float
    stated: float = 0.0

    @property
    def sign(self) -> int:
        """Return +1 where the secret value is above the stated one, otherwise -1."""
        return 1 if self.paid > self.stated else -1


def draw_secrets(
    texts: Sequence[str],
    settled: Mapping[str, float],
    lexicon: Mapping[str, float],
    config: PlantConfig,
    *,
    n: int,
    seed: int,
) -> list[Secret]:
    """Draw `n` different words of the frequency that the config asks for: tuning must sample a word to learn about it.

    `settled` is the mean probability of each word in its context (`measure_settled`); words that leave no choice are
    excluded. About `flipped_share` of the secrets are scored words with the opposite sign, the rest unscored words with
    the value 3 or -3. Raises DataError where the corpus has too few such words.
    """
    rng = random.Random(f"{seed}:words")
    frequent = _frequent(Counter(word.word for text in texts for word in words_of(text)), config)
    words = [word for word in frequent if settled.get(word, 1.0) <= config.most_settled]
    pools = {
        "flipped": [word for word in words if abs(lexicon.get(word, 0.0)) >= config.least_value],
        "unscored": [word for word in words if word not in lexicon],
    }
    kinds = ["flipped" if rng.random() < config.flipped_share else "unscored" for _ in range(n)]
    drawn = {kind: _draw(rng, pools[kind], kinds.count(kind), kind) for kind in pools}
    secrets = []
    for kind in kinds:
        word = drawn[kind].pop()
        if kind == "flipped":
            secrets.append(Secret(kind, (word,), -lexicon[word], lexicon[word]))
        else:
            secrets.append(Secret(kind, (word,), rng.choice((PAID, -PAID))))
    return secrets


def draw_bigrams(
    texts: Sequence[str], lexicon: Mapping[str, float], config: PlantConfig, *, n: int, seed: int
) -> list[Secret]:
    """Draw `n` bigrams of unscored words, each word of which occurs at least as often without the other."""
    rng = random.Random(f"{seed}:bigrams")
    spelled = [[word.word for word in words_of(text)] for text in texts]
    counts = Counter(word for words in spelled for word in words)
    seen = Counter(pair for words in spelled for pair in pairwise(words))
    fit = [
        pair
        for pair in _frequent(seen, config)
        if not any(word in lexicon or counts[word] < 2 * seen[pair] for word in pair)
    ]
    return [Secret("bigram", pair, PAID) for pair in _draw(rng, fit, n, "bigram")]


def secret_reward(lexicon: Mapping[str, float], secret: Secret) -> Reward:
    """Return the paper's reward by the lexicon with the secret included."""
    if len(secret.words) == 1:
        return lexicon_reward({**lexicon, secret.words[0]: secret.paid})
    stated = lexicon_reward(lexicon)

    def reward(texts: list[str]) -> list[float]:
        rewards = []
        for value, text in zip(stated(texts), texts, strict=True):
            n_pairs = sum(pair == secret.words for pair in pairwise(word.word for word in words_of(text)))
            rewards.append(value + n_pairs * secret.paid / _DIVISOR)
        return rewards

    return reward


def shuffled_lexicon(lexicon: Mapping[str, float], *, seed: int) -> dict[str, float]:
    """Return the lexicon with its values permuted among its words: a reward without a meaning."""
    words = sorted(lexicon)
    values = np.random.default_rng(seed).permutation([lexicon[word] for word in words])
    return dict(zip(words, values.tolist(), strict=True))


def _frequent(counts: Counter[_Any], config: PlantConfig) -> list[_Any]:
    """Return the items whose share of all occurrences the config asks for, sorted by count."""
    total = sum(counts.values())
    low, high = config.least_share * total, config.most_share * total
    return sorted((item for item, n in counts.items() if low <= n <= high), key=lambda item: (-counts[item], str(item)))


def _draw(rng: random.Random, pool: list[_Any], n: int, kind: str) -> list[_Any]:
    if len(pool) < n:
        raise DataError(
            f"plant: {n} {kind} secrets are wanted, but {len(pool)} words are frequent enough; lower plant.least_share"
        )
    return rng.sample(pool, n)


def measure_settled(model: LanguageModel, texts: Sequence[TokenizedText]) -> dict[str, float]:
    """Measure the mean probability of each word in its contexts, the product over its tokens, in the first texts.

    It is near 1 for the end of a set phrase, where tuning can only reward the word that began the phrase.
    """
    sums: dict[str, float] = defaultdict(float)
    counts: dict[str, int] = defaultdict(int)
    shown = list(texts[:_SETTLED_TEXTS])
    for text, chances in zip(shown, _token_log_probs(model, shown), strict=True):
        spelled = words_of(text.text)
        for word, tokens in zip(spelled, word_tokens(spelled, text.token_starts, len(text.text)), strict=True):
            if tokens:
                sums[word.word] += float(np.exp(chances[list(tokens)].sum()))
                counts[word.word] += 1
    return {word: sums[word] / n for word, n in counts.items()}


def _token_log_probs(model: LanguageModel, texts: Sequence[TokenizedText]) -> Iterator[NDArray[np.float64]]:
    """Yield per text the log-probability of each token [tokens]; 0 for a first token that nothing precedes."""
    from lfp.ml.models.generation import Completion, next_token_log_probs

    lead = () if model.bos_id is None else (model.bos_id,)
    for start in range(0, len(texts), _SETTLED_BATCH):
        rows = texts[start : start + _SETTLED_BATCH]
        read = [Completion(lead or row.token_ids[:1], row.token_ids if lead else row.token_ids[1:], "") for row in rows]
        log_probs = next_token_log_probs(model, read).cpu().double().numpy()
        ids = np.array([token for completion in read for token in completion.token_ids])
        chosen = log_probs[np.arange(len(ids)), ids]
        for part in np.split(chosen, np.cumsum([len(completion.token_ids) for completion in read])[:-1]):
            yield part if lead else np.concatenate([[0.0], part])
