"""Occurrences of words against a naive walk over the tokens; draws that depend on nothing but place and seed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lfp.ml.implicit_reward.word_occurrences import CorpusTokens, Drawn, KeptOutputs, draw
from lfp.texts.vocabulary import TokenWords
from lfp.util.types import Place

N_WORDS = 4


def corpus(seed: int = 0, n_texts: int = 12) -> CorpusTokens:
    """Texts of words of one to three tokens and tokens of no word; word 3 never occurs."""
    rng = np.random.default_rng(seed)
    ids, words = [], []
    for _ in range(n_texts):
        of, last = [], []
        for word in rng.integers(-1, N_WORDS - 1, size=int(rng.integers(1, 9))).tolist():
            length = 1 if word < 0 else int(rng.integers(1, 4))
            of += [word] * length
            last += [False] * (length - 1) + [word >= 0]
        ids.append(rng.integers(50, size=len(of)).tolist())
        words.append(TokenWords(np.array(of), np.array(last)))
    return CorpusTokens.from_texts(range(100, 100 + n_texts), ids, words)


def walked(tokens: CorpusTokens) -> list[tuple[int, list[int]]]:
    """Each occurrence's word and tokens, found one token after another."""
    found, current = [], []
    for place, (word, is_last) in enumerate(zip(tokens.words.tolist(), tokens.is_last.tolist(), strict=True)):
        if tokens.positions[place] == 0 or (current and tokens.words[current[0]] != word):
            current = []
        if word >= 0:
            current.append(place)
        if is_last:
            found.append((word, current))
            current = []
    return found


def naive_draw(tokens: CorpusTokens, drawn: Drawn, i: int) -> list[int]:
    return drawn.tokens[drawn.starts[i] : drawn.ends[i]].tolist()


@given(st.integers(0, 1000))
def test_occurrences_are_runs_of_one_word_up_to_its_last_token(seed: int) -> None:
    tokens = corpus(seed)
    found, expected = tokens.occurrences(), walked(tokens)
    assert [found.words.tolist(), found.firsts.tolist(), found.lasts.tolist()] == [
        [word for word, _ in expected],
        [places[0] for _, places in expected],
        [places[-1] for _, places in expected],
    ]


def test_a_text_that_begins_with_the_word_another_ended_with_is_another_occurrence() -> None:
    words = [TokenWords(np.array([0, 0]), np.array([False, True])), TokenWords(np.array([0]), np.array([True]))]
    found = CorpusTokens.from_texts([1, 2], [[5, 6], [5]], words).occurrences()
    assert found.firsts.tolist() == [0, 2] and found.lasts.tolist() == [1, 2]


def test_a_word_whose_end_the_context_cut_off_is_no_occurrence() -> None:
    words = [TokenWords(np.array([0, 0]), np.array([False, False])), TokenWords(np.array([1]), np.array([True]))]
    found = CorpusTokens.from_texts([1, 2], [[5, 6], [5]], words).occurrences()
    assert found.words.tolist() == [1] and found.firsts.tolist() == [2]


@given(st.integers(0, 1000))
def test_means_are_over_occurrences_of_scores_summed_over_a_words_tokens(seed: int) -> None:
    tokens = corpus(seed)
    scores = np.random.default_rng(seed).normal(size=len(tokens.words))
    scores[tokens.positions == 0] = np.nan
    means = tokens.occurrences().means({"reward": scores}, N_WORDS)
    for word in range(N_WORDS):
        own = [places for of, places in walked(tokens) if of == word]
        sums = [scores[places].sum() for places in own]
        defined = [total for total in sums if not np.isnan(total)]
        assert means["n"][word] == len(own)
        np.testing.assert_allclose(means["tokens"][word], np.mean([len(p) for p in own]) if own else 0.0)
        np.testing.assert_allclose(means["reward"][word], np.mean(defined) if defined else np.nan)


def test_an_occurrence_without_a_defined_score_counts_in_no_mean_rather_than_as_zero() -> None:
    words = [TokenWords(np.array([0, 0]), np.array([True, True]))]
    tokens = CorpusTokens.from_texts([1], [[5, 5]], words)
    means = tokens.occurrences().means({"reward": np.array([np.nan, 4.0])}, 1)
    assert means["reward"].tolist() == [4.0] and means["n"].tolist() == [2.0]


def test_a_whole_draw_is_every_occurrence_and_every_token_with_a_reward() -> None:
    tokens = corpus()
    drawn = draw(tokens, n_sample=10**6, per_word=10**6, first_position=1, seed=0)
    assert sorted(drawn.tokens.tolist()) == sorted(set(drawn.tokens.tolist()))
    assert set(drawn.tokens[drawn.sample].tolist()) == set(np.flatnonzero(tokens.positions >= 1).tolist())
    found = {(word, tuple(naive_draw(tokens, drawn, i))) for i, word in enumerate(drawn.words.tolist())}
    assert found == {(word, tuple(places)) for word, places in walked(tokens)}
    assert (np.diff(drawn.words) >= 0).all() and (np.diff(drawn.sample) > 0).all()


@given(st.integers(0, 1000), st.integers(0, 30), st.integers(1, 4))
def test_a_draw_keeps_its_sizes_and_says_where_everything_is(seed: int, n_sample: int, per_word: int) -> None:
    tokens = corpus(seed)
    drawn = draw(tokens, n_sample=n_sample, per_word=per_word, first_position=0, seed=seed)
    assert len(drawn.sample) == min(n_sample, len(tokens.words))
    occurrences = np.bincount(tokens.occurrences().words, minlength=N_WORDS)
    np.testing.assert_array_equal(np.bincount(drawn.words, minlength=N_WORDS), np.minimum(occurrences, per_word))
    for i, word in enumerate(drawn.words.tolist()):
        places = naive_draw(tokens, drawn, i)
        assert (tokens.words[places] == word).all() and tokens.is_last[places[-1]]
        assert np.diff(places).tolist() == [1] * (len(places) - 1)


def reordered(tokens: CorpusTokens) -> CorpusTokens:
    """The same texts the other way round."""
    order = np.lexsort((tokens.positions, -tokens.text_ids))
    return CorpusTokens(*(getattr(tokens, name)[order] for name in CorpusTokens.__dataclass_fields__))


def places(tokens: CorpusTokens, drawn: Drawn, slots: np.ndarray) -> set[tuple[int, int]]:
    rows = drawn.tokens[slots]
    return set(zip(tokens.text_ids[rows].tolist(), tokens.positions[rows].tolist(), strict=True))


def test_the_order_of_texts_does_not_matter_and_the_seed_does() -> None:
    tokens = corpus(n_texts=40)
    turned = reordered(tokens)
    one, other = (draw(of, n_sample=30, per_word=5, first_position=0, seed=3) for of in (tokens, turned))
    assert places(tokens, one, one.sample) == places(turned, other, other.sample)
    assert places(tokens, one, one.starts) == places(turned, other, other.starts)
    again = draw(tokens, n_sample=30, per_word=5, first_position=0, seed=4)
    assert places(tokens, one, one.sample) != places(tokens, again, again.sample)
    assert places(tokens, one, one.starts) != places(tokens, again, again.starts)


def test_draws_of_parts_join_by_taking_the_lowest_again() -> None:
    """What a shard leaves out, the whole leaves out: the whole's draw lies within the shards' draws."""
    tokens = corpus(n_texts=40)
    whole = draw(tokens, n_sample=30, per_word=5, first_position=0, seed=3)
    parts: set[tuple[int, int]] = set()
    for low, high in ((100, 120), (120, 140)):
        inside = (tokens.text_ids >= low) & (tokens.text_ids < high)
        shard = CorpusTokens(*(getattr(tokens, name)[inside] for name in CorpusTokens.__dataclass_fields__))
        drawn = draw(shard, n_sample=30, per_word=5, first_position=0, seed=3)
        parts |= places(shard, drawn, drawn.sample)
    assert places(tokens, whole, whole.sample) <= parts


def test_a_sample_is_spread_evenly() -> None:
    words = [TokenWords(np.full(20, -1), np.zeros(20, bool))] * 200
    tokens = CorpusTokens.from_texts(range(200), [[0] * 20] * 200, words)
    drawn = draw(tokens, n_sample=1000, per_word=1, first_position=0, seed=0)
    by_position = np.bincount(tokens.positions[drawn.tokens[drawn.sample]], minlength=20)
    assert abs(by_position - 50).max() < 6 * (50 * 0.75) ** 0.5


@pytest.mark.parametrize("batch", [1, 7, 1000])
def test_kept_outputs_are_those_of_their_tokens_whatever_the_batches_and_parts(batch: int) -> None:
    tokens = corpus()
    n = len(tokens.words)
    drawn = draw(tokens, n_sample=10, per_word=2, first_position=0, seed=1)
    outputs = {Place(layer): torch.randn(n, 3, generator=torch.Generator().manual_seed(layer)) for layer in (2, 0)}
    rows = np.full((len(drawn.tokens), 6), np.nan, np.float32)
    for first, last in ((0, n // 3), (n // 3, n)):
        kept = KeptOutputs(drawn.slots(n)[first:last], 6)
        for start in range(0, last - first, batch):
            part = np.arange(start, min(last - first, start + batch))
            kept.update(part, {place: values[first:last][part] for place, values in outputs.items()})
        rows[kept.slots] = kept.values
    expected = torch.cat([outputs[Place(0)], outputs[Place(2)]], dim=1)[drawn.tokens].numpy()
    np.testing.assert_array_equal(rows, expected)


@pytest.mark.parametrize("seed", range(3))
def test_errors_are_standard_errors_of_the_means(seed: int) -> None:
    tokens = corpus(seed, n_texts=40)
    scores = np.random.default_rng(seed).normal(size=len(tokens.words))
    scores[3] = np.nan
    sums = [(word, scores[places].sum()) for word, places in walked(tokens)]
    for word, error in enumerate(tokens.occurrences().errors(scores, N_WORDS)):
        values = np.array([total for of, total in sums if of == word and not np.isnan(total)])
        expected = values.std(ddof=1) / len(values) ** 0.5 if len(values) > 1 else np.nan
        np.testing.assert_allclose(error, expected)


@pytest.mark.parametrize("seed", range(3))
def test_the_token_before_each_sampled_one_is_kept_where_there_is_one(seed: int) -> None:
    tokens = corpus(seed, n_texts=30)
    drawn = draw(tokens, n_sample=25, per_word=2, first_position=0, seed=seed)
    places, before = drawn.tokens[drawn.sample], drawn.before
    assert len(before) == len(places) == 25
    lead = places.copy()
    for first, last in zip(tokens.occurrences().firsts, tokens.occurrences().lasts, strict=True):
        lead[(places >= first) & (places <= last)] = first
    assert ((before < 0) == (tokens.positions[lead] == 0)).all()
    assert (drawn.tokens[before[before >= 0]] == lead[before >= 0] - 1).all()
    assert len(np.unique(drawn.tokens)) == len(drawn.tokens)
