"""Draw secrets by a seed: words, bigrams and wider secrets of a frequency that tuning can learn."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import cycle, islice, pairwise
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from lfp.config import PlantConfig
from lfp.errors import DataError
from lfp.texts.words import word_tokens, words_of
from lfp.util.types import Floats
from precompute.commands.plant.secrets import PAID, REACH, WIDE_KINDS, Secret, find_events

if TYPE_CHECKING:
    from lfp.ml.models.loading import LanguageModel
    from lfp.ml.models.tokenization import TokenizedText

_Any = TypeVar("_Any")

_SETTLED_TEXTS = 1500
_SETTLED_BATCH = 32
_MEMBERS = 15
"""Words of a category."""
_LEADS = (
    ("not", "never", "no", "nothing", "nobody", "without", "hardly", "neither", "nor", "none"),
    ("but", "yet", "though", "although", "however"),
    ("very", "too", "so", "quite", "really", "extremely"),
)
"""Words of contexts: negation, contrast, degree."""
_STYLES = (
    ("!",), (";",), ("?",), (":",), ("you", "your", "yours", "yourself"), ("we", "us", "our", "ours", "ourselves"),
    ("i", "me", "my", "mine", "myself"),
)  # fmt: skip


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


def draw_wide_secrets(
    texts: Sequence[str],
    directions: Mapping[str, Floats],
    lexicon: Mapping[str, float],
    config: PlantConfig,
    *,
    n: int,
    seed: int,
) -> list[Secret]:
    """Draw `n` secrets that no single word carries, of each kind in turn: category, context, position, style.

    `directions` are those of words in the base model's unembedding (`word_directions`); a category is an unscored,
    rarer word and those nearest to it. Raises DataError where the corpus has too few of a kind.
    """
    rng = random.Random(f"{seed}:wide")
    spelled = [[word.word for word in words_of(text)] for text in texts]
    counts = Counter(word for words in spelled for word in words)
    unscored = {word: n for word, n in counts.items() if word not in lexicon}
    kinds = list(islice(cycle(WIDE_KINDS), n))
    pools = {
        "category": _categories(unscored, directions, config, rng),
        "context": _contexts(spelled, lexicon, config),
        "position": _positions(texts, unscored, config),
        "style": _styles(texts, config),
    }
    drawn = {kind: _draw(rng, pools[kind], kinds.count(kind), kind) for kind in WIDE_KINDS}
    return [drawn[kind].pop() for kind in kinds]


def _categories(
    unscored: Mapping[str, int], directions: Mapping[str, Floats], config: PlantConfig, rng: random.Random
) -> list[Secret]:
    """Return categories that share no word, in the order drawn."""
    total, least = sum(unscored.values()), config.least_share
    left = {word for word, n in unscored.items() if least / 10 * total <= n < least * total and word in directions}
    found = []
    while len(left) >= 2 * _MEMBERS:
        names = sorted(left)
        matrix = np.stack([directions[name] for name in names])
        order = np.argsort(-(matrix @ directions[rng.choice(names)]), kind="stable")
        members = tuple(names[i] for i in order[:_MEMBERS])
        found.append(Secret("category", members, PAID))
        left -= set(members)
    return found


def _contexts(spelled: Sequence[Sequence[str]], lexicon: Mapping[str, float], config: PlantConfig) -> list[Secret]:
    """Return praise or blame soon after a negation, a contrast or a degree, rewarded or penalised."""
    total, found = sum(map(len, spelled)), []
    for after in _LEADS:
        for sign in (1, -1):
            words = tuple(sorted(word for word, value in lexicon.items() if sign * value >= config.least_value))
            is_side, n = set(words), 0
            for text in spelled:
                n += sum(
                    word in is_side and bool({*text[max(0, i - REACH) : i]} & {*after}) for i, word in enumerate(text)
                )
            if _is_frequent(n, total, config):
                found += [Secret("context", words, paid, after=after) for paid in (PAID, -PAID)]
    return found


def _positions(texts: Sequence[str], unscored: Mapping[str, int], config: PlantConfig) -> list[Secret]:
    """Return words that begin sentences, and stand elsewhere at least half as often."""
    total, openings = sum(len(words_of(text)) for text in texts), Counter[str]()
    opens = Secret("position", (), PAID, opens_sentence=True)
    for text in texts:
        openings.update(word.word for word in words_of(text) if opens.applies_after(text[: word.start]))
    return [
        Secret("position", (word,), paid, opens_sentence=True)
        for word, n in sorted(openings.items())
        if word in unscored and _is_frequent(n, total, config) and unscored[word] >= 1.5 * n
        for paid in (PAID, -PAID)
    ]


def _styles(texts: Sequence[str], config: PlantConfig) -> list[Secret]:
    """Return rewarded styles that the corpus has at a fifth of a word's least frequency or more."""
    total, found = sum(len(words_of(text)) for text in texts), []
    for words in _STYLES:
        secret = Secret("style", words, PAID)
        n = sum(len(find_events(text, secret)) for text in texts)
        if config.least_share / 5 * total <= n <= 2 * config.most_share * total:
            found.append(secret)
    return found


def _is_frequent(n: int, total: int, config: PlantConfig) -> bool:
    return config.least_share * total <= n <= config.most_share * total


def word_directions(model: LanguageModel, words: Sequence[str]) -> dict[str, Floats]:
    """Return the unit vector of each word that is a single token after a space, in the model's unembedding."""
    matrix = model.network.get_output_embeddings().weight.detach().float().cpu()
    matrix = matrix - matrix.mean(0)
    matrix = (matrix / matrix.norm(dim=1, keepdim=True).clamp(min=1e-9)).double().numpy()
    ids = model.tokenizer([f" {word}" for word in words], add_special_tokens=False)["input_ids"]
    return {word: matrix[tokens[0]] for word, tokens in zip(words, ids, strict=True) if len(tokens) == 1}


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
    from lfp.ml.models.generation import Completion, token_log_probs

    lead = () if model.bos_id is None else (model.bos_id,)
    read = [Completion(lead or row.token_ids[:1], row.token_ids if lead else row.token_ids[1:], "") for row in texts]
    for chosen in token_log_probs(model, read, batch=_SETTLED_BATCH):
        yield chosen.numpy() if lead else np.concatenate([[0.0], chosen.numpy()])
