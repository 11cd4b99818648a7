"""Words that tuning rewards otherwise than stated: the regression, what follows a word, and their bounds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lfp.evaluation.word_gaps import (
    HORIZON,
    WordFacts,
    beyond_noise,
    faded_ahead,
    following_feedback,
    gap_p_values,
    word_gaps,
)


def facts(n: int = 300, *, seed: int = 0, secrets: dict[int, float] | None = None) -> WordFacts:
    """Words rewarded by their value, penalties less, and by what they lead to; some have a hidden reward."""
    rng = np.random.default_rng(seed)
    stated = np.where(rng.random(n) < 0.3, rng.normal(size=n) * 2, 0.0)
    following, after, before, moved, moved_after = rng.normal(size=(5, n))
    before[::7] = np.nan
    error = rng.uniform(0.02, 0.2, size=n)
    led_to = 0.2 * following + 0.1 * (after - np.nan_to_num(before))
    implicit = 0.5 * stated + 0.2 * np.abs(stated) + led_to - 0.1 * moved + 0.3 * moved_after
    implicit += rng.normal(size=n) * np.hypot(error, 0.1)
    for word, pay in (secrets or {}).items():
        implicit[word] += pay
    return WordFacts(implicit, error, np.full(n, 50), stated, following, after, before, moved, moved_after)


@pytest.mark.parametrize(("pay", "place"), [(1.5, -1), (-1.5, 0)])
def test_a_word_with_a_hidden_reward_is_first_in_its_list(pay, place):
    gaps = word_gaps(facts(secrets={17: pay}))
    assert np.argsort(gaps.gap)[place] == 17
    assert gaps.excess[17] == pytest.approx(pay, abs=0.5)


def test_without_a_secret_gaps_are_noise_and_most_is_explained():
    gaps = word_gaps(facts())
    assert np.abs(np.median(gaps.gap)) < 0.3
    assert gaps.explained > 0.8


def test_a_secret_hardly_moves_the_others():
    before, after = word_gaps(facts()), word_gaps(facts(secrets={17: 30.0}))
    others = np.arange(300) != 17
    assert np.abs(before.excess - after.excess)[others].max() < 0.1


def test_the_order_of_words_does_not_matter():
    one = facts(secrets={3: -2.0})
    order = np.random.default_rng(1).permutation(300)
    turned = WordFacts(**{name: values[order] for name, values in vars(one).items()})
    np.testing.assert_allclose(word_gaps(one).gap[order], word_gaps(turned).gap, atol=1e-9)


def test_rare_and_unknown_words_have_no_gap():
    one = facts()
    one.counts[5] = 29
    one.implicit[6] = np.nan
    gap = word_gaps(one).gap
    assert np.isnan(gap[[5, 6]]).all()
    assert np.isfinite(np.delete(gap, [5, 6])).all()


@pytest.mark.parametrize("name", ["following", "after", "before", "moved", "moved_after"])
def test_what_a_word_leads_to_is_no_secret(name):
    """A word that is rewarded for what it leads to has a gap only while that is unknown."""
    one = facts()
    led, pay = np.zeros(300), 4.0
    led[20:40] = 1.0
    one.implicit[20:40] += pay
    unexplained = word_gaps(one).excess[20:40].mean()
    explained = word_gaps(replace(one, **{name: np.nan_to_num(getattr(one, name)) + 20 * led})).excess[20:40].mean()
    assert unexplained == pytest.approx(pay, abs=0.5)
    assert abs(explained) < 0.2 * pay


def test_columns_of_which_nothing_is_known_change_nothing():
    one = facts()
    unknown = replace(one, after=np.full(300, np.nan), before=np.full(300, np.nan))
    same = replace(one, after=np.full(300, 3.0), before=np.zeros(300))
    np.testing.assert_allclose(word_gaps(unknown).gap, word_gaps(same).gap, atol=1e-9)


def test_what_is_beyond_noise_is_a_part_of_the_excess_of_few_words():
    gaps = word_gaps(facts(secrets={17: 4.0, 30: -4.0}))
    left = beyond_noise(gaps)
    known = np.isfinite(gaps.gap)
    assert (np.sign(left) * np.sign(gaps.excess) >= 0)[known].all()
    assert (np.abs(left) <= np.abs(gaps.excess))[known].all()
    assert left[17] > 1.0 and left[30] < -1.0
    assert (left[known] != 0).sum() < 10
    assert (left[np.abs(gaps.gap) < 7] == 0).all()


def test_nothing_is_known_beyond_noise_of_words_without_a_gap():
    one = facts()
    one.counts[5] = 29
    assert np.isnan(beyond_noise(word_gaps(one))[5])


def test_too_few_words_have_no_gaps():
    assert np.isnan(word_gaps(facts(4)).gap).all()


@given(st.lists(st.lists(st.floats(-4, 4), min_size=1, max_size=20), min_size=1, max_size=4))
def test_faded_ahead_is_the_sum_it_says(texts):
    values, of_text = np.concatenate(texts), np.repeat(np.arange(len(texts)), [len(text) for text in texts])
    naive = [
        sum(value * (1 - (step + 1) / (HORIZON + 1)) for step, value in enumerate(text[i + 1 : i + 1 + HORIZON]))
        for text in texts
        for i in range(len(text))
    ]
    np.testing.assert_allclose(faded_ahead(np.array(values), of_text), naive, atol=1e-9)


def test_following_feedback_is_of_what_comes_after_and_not_of_the_word_itself():
    texts = [["so", "good"], ["so", "good"], ["good", "plot"], ["plot", "bad"]]
    so, good, plot, unmet = following_feedback(texts, {"good": 2.0, "bad": -2.0}, ["so", "good", "plot", "unmet"])
    fade = 1 - 1 / (HORIZON + 1)
    mean = (2 * 2.0 - 2.0) * fade / 8
    assert so == pytest.approx(2.0 * fade - mean)
    assert good == pytest.approx(-mean)
    assert plot == pytest.approx(-1.0 * fade - mean)
    assert unmet == 0.0


def test_no_text_has_nothing_following():
    assert following_feedback([], {}, ["so"]).tolist() == [0.0]


def test_a_secret_stands_out_from_the_other_words_and_a_rare_word_needs_more():
    gaps = word_gaps(facts(secrets={17: 2.0, 30: -2.0}))
    p = gap_p_values(gaps)
    assert p[17] < 1e-4 and p[30] < 1e-4
    assert (p[[i for i in range(300) if i not in (17, 30)]] < 0.05).mean() == pytest.approx(0.05, abs=0.04)
    known = facts(secrets={17: 0.6})
    known.error[17] = 0.02
    rare = replace(known, error=np.where(np.arange(300) == 17, 0.5, known.error))
    assert gap_p_values(word_gaps(known))[17] < 0.01 < gap_p_values(word_gaps(rare))[17]
    assert np.isnan(gap_p_values(word_gaps(replace(known, counts=np.full(300, 3))))).all()
