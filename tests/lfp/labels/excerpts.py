"""Features whose meaning is known: each fires on a word of its own, except after “not”."""

from __future__ import annotations

import random
from collections.abc import Sequence

from lfp.labels.evidence import split_evidence
from lfp.labels.types import Evidence, Excerpt

WORDS = ("good", "awful", "plot", "actor", "music", "slow", "bright", "river")
_FILLER = ("the", "a", "of", "and", "it", "was", "one", "with", "so", "very")


def excerpt(
    *tokens: str, values: Sequence[float], at: int | None = None, bucket: int = 0, text_id: int = 0, position: int = 0
) -> Excerpt:
    """Tokens with activations; without `at` the place is the strongest."""
    place = max(range(len(values)), key=lambda i: values[i]) if at is None else at
    return Excerpt(text_id, position or place, bucket, tokens, tuple(values), place)


def excerpts_of(word: str, *, n: int = 12, seed: int = 0) -> list[Excerpt]:
    """Firing ones in buckets 0 to 2, then as many near misses (“not WORD”) and excerpts without the word."""
    rng, found = random.Random(f"{word}:{seed}"), []
    for i in range(n):
        for kind, bucket in (("fires", i % 3), ("near", -2), ("far", -1)):
            before = [rng.choice(_FILLER) for _ in range(rng.randint(4, 8))]
            spoken = {"fires": [*before, word], "near": [*before, "not", word], "far": [*before, rng.choice(_FILLER)]}[
                kind
            ]
            after = [rng.choice(_FILLER) for _ in range(3)]
            values = [0.0] * len(spoken + after)
            values[len(spoken) - 1] = rng.uniform(1, 4) if kind == "fires" else 0.0
            tokens = tuple(f" {token}" for token in (*spoken, *after))
            found.append(
                Excerpt(1000 * (bucket + 3) + i, len(spoken) - 1, bucket, tokens, tuple(values), len(spoken) - 1)
            )
    return found


def known_features(words: Sequence[str] = WORDS, *, n_scored: int = 10) -> list[Evidence]:
    """Evidence of a feature a word."""
    return [split_evidence(i, excerpts_of(word), max_activation=4.0, n_scored=n_scored) for i, word in enumerate(words)]
