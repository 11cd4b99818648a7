"""Near misses against a naive search through all texts, and parts merged in any way against one pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lfp.ml.features.active import active
from lfp.ml.features.examples import Batch, Examples
from lfp.ml.features.grouping import Places, hash_with_feature
from lfp.ml.features.near_misses import Lists, NearMisses
from tests.lfp.ml.feature_texts import Text, random_texts, same_arrays, tokens, window

N_FEATURES, N_IDS, REACH = 6, 8, 2
AT_TOKEN = {(0, 0), (0, 1), (1, 0), (2, 5), (3, 1), (3, 2)}
"""Feature and token id; features 4 and 5 have no top token."""
NEIGHBOURS = {(0, 1), (0, 2), (1, 0), (2, 0), (2, 3), (3, 5), (4, 0), (4, 1), (4, 3)}
"""Feature and neighbour; feature 5 has none."""


def sparse_texts(n: int, *, seed: int = 0) -> list[Text]:
    """Features active on about one token in twelve."""
    rng = np.random.default_rng(seed)
    texts = random_texts(n, seed=seed, n_ids=N_IDS, n_features=N_FEATURES)
    return [
        replace(text, values=text.values * (rng.random(text.values.shape) < 0.18).astype(np.float32)) for text in texts
    ]


def near_misses(batches: Sequence[Sequence[Text]], n: int = 4) -> NearMisses:
    tops, near = (np.array(sorted(pairs)).T for pairs in (AT_TOKEN, NEIGHBOURS))
    by_token, by_neighbour = Lists.from_pairs(tops[1], tops[0], N_IDS), Lists.from_pairs(near[1], near[0], N_FEATURES)
    filled = NearMisses(by_token, by_neighbour, n, REACH)
    for texts in filter(None, batches):
        places, values, _ = tokens(texts)
        filled.update(Batch(places, active(values)))
    return filled


def naive(texts: Sequence[Text], feature: int, n: int) -> list[tuple[int, int]]:
    """Text and position of the feature's near misses, looked for place by place."""
    kinds: tuple[dict[int, tuple[int, int]], dict[int, tuple[int, int]]] = ({}, {})
    for text in sorted(texts, key=lambda text: text.text_id):
        positions, ids = np.arange(len(text.token_ids)), np.array(text.token_ids)
        hashes = Places(positions, positions, ids).contexts
        keys = hash_with_feature(hashes, np.full(len(hashes), feature))
        for t, token in enumerate(text.token_ids):
            if text.values[max(0, t - REACH) : t + REACH + 1, feature].any():
                continue
            if (feature, token) in AT_TOKEN:
                kinds[0].setdefault(int(keys[t]), (text.text_id, t))
            elif any(text.values[t, other] for f, other in NEIGHBOURS if f == feature):
                kinds[1].setdefault(int(keys[t]), (text.text_id, t))
    at_tokens, at_neighbours = ([places[key] for key in sorted(places)] for places in kinds)
    kept = at_tokens[: max((n + 1) // 2, n - len(at_neighbours))][:n]
    return kept + at_neighbours[: n - len(kept)]


def found_places(found: Examples) -> dict[int, list[tuple[int, int]]]:
    places: dict[int, list[tuple[int, int]]] = {feature: [] for feature in range(N_FEATURES)}
    for feature, *place in zip(found.features.tolist(), found.text_ids.tolist(), found.positions.tolist(), strict=True):
        places[feature].append((place[0], place[1]))
    return places


@pytest.mark.parametrize("n_texts", [1, 3, 8, 60])
@pytest.mark.parametrize("n", [1, 4, 7, 1000])
def test_they_are_what_a_naive_search_finds(n_texts: int, n: int) -> None:
    texts = sparse_texts(n_texts, seed=n_texts)
    found = found_places(near_misses([texts[: n_texts // 2], texts[n_texts // 2 :]], n).examples())
    assert found == {feature: naive(texts, feature, n) for feature in range(N_FEATURES)}
    assert n_texts < 60 or all(found[feature] for feature in range(5))


def test_either_kind_fills_up_for_the_other() -> None:
    found = near_misses([sparse_texts(60)], 4).examples()
    is_token = np.array([pair in AT_TOKEN for pair in zip(found.features.tolist(), found.token_ids.tolist())])  # noqa: B905
    assert [int(is_token[found.features == feature].sum()) for feature in range(5)] == [2, 2, 2, 2, 0]
    assert np.bincount(found.features, minlength=N_FEATURES).tolist() == [4, 4, 4, 4, 4, 0]


def test_windows_are_silent_and_end_where_the_text_does() -> None:
    texts = sparse_texts(30)
    found = near_misses([texts]).examples()
    assert {0, 1} <= set(found.positions.tolist()) and not found.activations.any(), "some at an edge"
    for row in range(len(found.features)):
        at, end = int(found.positions[row]), len(texts[int(found.text_ids[row])].token_ids)
        first, last = max(0, at - REACH), min(end, at + REACH + 1)
        assert window(found, row) == (first, [0.0] * (last - first))


@settings(deadline=None, max_examples=30)
@given(st.randoms(use_true_random=False), st.integers(0, 20))
def test_parts_in_any_order_give_the_same(random: object, cut: int) -> None:
    texts = sparse_texts(20, seed=3)
    shuffled = texts.copy()
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    merged = near_misses([[text] for text in shuffled[:cut]])
    merged.merge(near_misses([shuffled[cut:]]))
    assert same_arrays(merged.examples(), near_misses([texts]).examples())


def test_memory_knows_no_number_of_texts() -> None:
    """After many batches no more waits than a part of what is kept."""
    filled = near_misses([[text] for text in sparse_texts(400, seed=5)], 2)
    for kept in filled._kept.values():
        assert sum(len(part.features) for part in kept._waiting) <= 2 * N_FEATURES
        assert len(kept.examples().features) <= 2 * N_FEATURES
