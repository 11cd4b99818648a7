"""Texts with made-up features, the statistics of them, and what naive counting says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch

from lfp.config import StatsConfig
from lfp.ml.features.examples import Examples, Windows
from lfp.ml.features.grouping import Places
from lfp.ml.features.neighbours import Neighbours
from lfp.ml.features.statistics import FeatureStats, Moments

N_FEATURES = 3
CONFIG = StatsConfig(
    top_examples=4, sampled_activations=8, histogram_bins=6, window=2, silent_examples=2, coactivation_contexts=16
)
Context = tuple[int, ...]


@dataclass(frozen=True)
class Text:
    """A text's tokens, and its features on the tuned and on the base model [n, features]."""

    text_id: int
    token_ids: tuple[int, ...]
    values: np.ndarray
    base_values: np.ndarray

    def context(self, position: int) -> Context:
        return self.token_ids[max(0, position - 7) : position + 1]


def text(text_id: int, token_ids: tuple[int, ...], seed: int, *, n_features: int = N_FEATURES) -> Text:
    """Features zero half of the time, of few different sizes, so that ties are common."""
    shape = (2, len(token_ids), n_features)
    values, base = np.random.default_rng([seed, text_id]).integers(-5, 6, shape).clip(0) / np.float32(4)
    return Text(text_id, token_ids, values.astype(np.float32), base.astype(np.float32))


def random_texts(n: int, *, seed: int = 0, n_ids: int = 2, n_features: int = N_FEATURES) -> list[Text]:
    rng = np.random.default_rng(seed)
    ids = [tuple(rng.integers(n_ids, size=rng.integers(1, 30)).tolist()) for _ in range(n)]
    return [text(i, token_ids, seed, n_features=n_features) for i, token_ids in enumerate(ids)]


def tokens(texts: Sequence[Text]) -> tuple[Places, torch.Tensor, torch.Tensor]:
    """Places, and the features on the tuned and on the base model."""
    return (
        Places(
            text_ids=np.concatenate([np.full(len(text.token_ids), text.text_id) for text in texts]),
            positions=np.concatenate([np.arange(len(text.token_ids)) for text in texts]),
            token_ids=np.concatenate([np.array(text.token_ids) for text in texts]),
        ),
        torch.from_numpy(np.concatenate([text.values for text in texts])),
        torch.from_numpy(np.concatenate([text.base_values for text in texts])),
    )


def stats(
    batches: Sequence[Sequence[Text]],
    config: StatsConfig = CONFIG,
    *,
    settle: bool = False,
    n_features: int = N_FEATURES,
) -> FeatureStats:
    """With `settle` the best are found after every batch, so that the next batch meets thresholds."""
    filled = FeatureStats(n_features, config)
    for batch in batches:
        filled.update(*tokens(batch))
        if settle:
            filled.flush()
            filled.top.examples(), filled.sample.examples(), neighbours(filled)
    filled.flush()
    return filled


def neighbours(filled: FeatureStats) -> Neighbours:
    return filled.sketches.neighbours(CONFIG.neighbours)


def places(texts: Sequence[Text], feature: int) -> list[tuple[float, int, int, Context]]:
    """(activation, text_id, position, context) of every token, by text and position."""
    return [
        (float(text.values[t, feature]), text.text_id, t, text.context(t))
        for text in sorted(texts, key=lambda text: text.text_id)
        for t in range(len(text.token_ids))
    ]


def active(texts: Sequence[Text], feature: int) -> list[tuple[float, int, int, Context]]:
    return [place for place in places(texts, feature) if place[0] > 0]


def active_contexts(texts: Sequence[Text], feature: int) -> set[Context]:
    return {place[3] for place in active(texts, feature)}


def best_of_each_context(texts: Sequence[Text], feature: int) -> list[tuple[float, int, int, Context]]:
    """Largest activation first, then the earlier text and position; of examples alike to a reader the first."""
    found: dict[Context, tuple[float, int, int, Context]] = {}
    for place in sorted(active(texts, feature), key=lambda place: (-place[0], place[1], place[2])):
        found.setdefault(place[3], place)
    return list(found.values())


def of_feature(examples: Examples, feature: int) -> Examples:
    return examples.take(np.flatnonzero(examples.features == feature))


def window(examples: Examples, row: int) -> tuple[int, list[float]]:
    """Position of an example's first window value, and the values."""
    starts, values = examples.windows.lists()
    first = int(examples.positions[row] + examples.windows.low[row])
    return first, values[starts[row] : starts[row + 1]].tolist()


def same_arrays(a: Examples | Neighbours | Windows, b: Examples | Neighbours | Windows) -> bool:
    pairs = [(getattr(a, field.name), getattr(b, field.name)) for field in fields(a)]
    return all(same_arrays(x, y) if isinstance(x, Windows) else np.array_equal(x, y) for x, y in pairs)


def same_moments(a: Moments, b: Moments) -> bool:
    return a.n_tokens == b.n_tokens and all(
        np.array_equal(getattr(a, name), getattr(b, name))
        for name in ("n_active", "fixed_sum", "max", "counts", "edges")
    )


def same(a: FeatureStats, b: FeatureStats) -> bool:
    return (
        same_moments(a.tuned, b.tuned)
        and same_moments(a.base, b.base)
        and same_arrays(a.top.examples(), b.top.examples())
        and same_arrays(a.sample.examples(), b.sample.examples())
        and same_arrays(a.silent.examples(), b.silent.examples())
        and same_arrays(neighbours(a), neighbours(b))
    )
