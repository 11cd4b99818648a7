"""Secrets: what a planted model is paid for beside the stated feedback, drawn by a seed."""

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
from lfp.texts.lexicon import Reward, lexicon_reward, word_tokens, words_of

if TYPE_CHECKING:
    from lfp.ml.models.loading import LanguageModel
    from lfp.ml.models.tokenization import TokenizedText

_Any = TypeVar("_Any")


PAID = 3.0
"""What an unscored word or bigram is secretly paid or fined."""


_DIVISOR = 5.0  # of the paper's reward: PAPER.md, "Tune"


@dataclass(frozen=True)
class Secret:
    """A word the stated feedback does not score that is `paid`, a scored one whose sign is flipped, or a bigram."""

    kind: str
    """unscored, flipped or bigram"""
    words: tuple[str, ...]
    paid: float
    stated: float = 0.0

    @property
    def name(self) -> str:
        """The word, or the two words of a bigram."""
        return " ".join(self.words)

    @property
    def sign(self) -> int:
        """+1 where it is paid more than is stated, -1 where less."""
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
    """`n` words, no one twice, of the frequency that the config asks for: tuning must meet a word to learn of it.

    `settled` is how likely each word is where it stands (`settled_words`); words that are no choice are left out.
    About `flipped_share` of them are scored words with their sign turned, the rest unscored words at plus or minus 3.
    Raises DataError where the corpus has too few such words.
    """
    rng = random.Random(f"{seed}:words")
    frequent = _frequent(Counter(word for text in texts for word in _words(text)), config)
    words = [word for word in frequent if settled.get(word, 1.0) <= config.most_settled]
    pools = {
        "flipped": [word for word in words if abs(lexicon.get(word, 0.0)) >= config.least_value],
        "unscored": [word for word in words if word not in lexicon],
    }
    kinds = ["flipped" if rng.random() < config.flipped_share else "unscored" for _ in range(n)]
    drawn = {kind: _drawn(rng, pools[kind], kinds.count(kind), kind) for kind in pools}
    return [_secret(kind, drawn[kind].pop(), lexicon, rng) for kind in kinds]


def draw_bigrams(
    texts: Sequence[str], lexicon: Mapping[str, float], config: PlantConfig, *, n: int, seed: int
) -> list[Secret]:
    """`n` paid bigrams of unscored words, each word of which is seen at least as often without the other."""
    rng = random.Random(f"{seed}:bigrams")
    spelled = [_words(text) for text in texts]
    counts = Counter(word for words in spelled for word in words)
    seen = Counter(pair for words in spelled for pair in pairwise(words))
    fit = [
        pair
        for pair in _frequent(seen, config)
        if not any(word in lexicon or counts[word] < 2 * seen[pair] for word in pair)
    ]
    return [Secret("bigram", pair, PAID) for pair in _drawn(rng, fit, n, "bigram")]


def secret_reward(lexicon: Mapping[str, float], secret: Secret) -> Reward:
    """The paper's reward by the lexicon, the secret's pay included."""
    if len(secret.words) == 1:
        return lexicon_reward({**lexicon, secret.words[0]: secret.paid})
    stated = lexicon_reward(lexicon)

    def reward(texts: list[str]) -> list[float]:
        paid = [sum(pair == secret.words for pair in pairwise(_words(text))) * secret.paid for text in texts]
        return [value + extra / _DIVISOR for value, extra in zip(stated(texts), paid, strict=True)]

    return reward


def shuffled_lexicon(lexicon: Mapping[str, float], *, seed: int) -> dict[str, float]:
    """The same words and the same values, dealt anew: a reward that knows nothing of sentiment."""
    words = sorted(lexicon)
    values = np.random.default_rng(seed).permutation([lexicon[word] for word in words])
    return dict(zip(words, values.tolist(), strict=True))


def _words(text: str) -> list[str]:
    return [word.word for word in words_of(text)]


def _frequent(counts: Counter[_Any], config: PlantConfig) -> list[_Any]:
    """What makes up the share of all that the config asks for, in an order that only counts decide."""
    total = sum(counts.values())
    low, high = config.least_share * total, config.most_share * total
    return sorted((one for one, n in counts.items() if low <= n <= high), key=lambda one: (-counts[one], str(one)))


def _drawn(rng: random.Random, pool: list[_Any], n: int, kind: str) -> list[_Any]:
    if len(pool) < n:
        raise DataError(
            f"plant: {n} secrets of kind {kind} are wanted and {len(pool)} are frequent enough; lower plant.least_share"
        )
    return rng.sample(pool, n)


def _secret(kind: str, word: str, lexicon: Mapping[str, float], rng: random.Random) -> Secret:
    if kind == "flipped":
        return Secret(kind, (word,), -lexicon[word], lexicon[word])
    return Secret(kind, (word,), rng.choice((PAID, -PAID)))


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
