"""Words of two models' continuations: counts, and a sign test that chance does not pass."""

from __future__ import annotations

import random

import numpy as np
import pytest
from scipy.stats import binomtest

from lfp.evaluation.written_words import compare_writing, split_words


def write(n: int, rate: float, seed: int) -> list[set[str]]:
    """The words of continuations, five common ones, with "joyful" in a share of them."""
    chance = random.Random(seed)
    words = ["the", "plot", "was", "dull", "and", "then"]
    return [{*chance.choices(words, k=5), *["joyful"] * (chance.random() < rate)} for _ in range(n)]


def test_a_word_counts_continuations_and_its_test_is_mcnemars():
    base, tuned = write(60, 0.1, 1), write(60, 0.6, 2)
    found = {word.word: word for word in compare_writing(base, tuned)}["joyful"]
    has = [np.array(["joyful" in words for words in side]) for side in (base, tuned)]
    assert (found.n_base, found.n_tuned) == (has[0].sum(), has[1].sum())
    only = (int((has[1] & ~has[0]).sum()), int((has[0] & ~has[1]).sum()))
    assert found.p == pytest.approx(binomtest(only[0], sum(only)).pvalue)
    assert [word.word for word in split_words([found])[0]] == ["joyful"]


def test_exchanged_models_exchange_the_lists():
    base, tuned = write(80, 0.1, 3), write(80, 0.5, 4)
    risen, fallen = split_words(compare_writing(base, tuned))
    back = split_words(compare_writing(tuned, base))
    assert risen and not fallen
    assert ([word.word for word in back[1]], [word.word for word in back[0]]) == ([word.word for word in risen], [])


def test_models_that_are_alike_differ_in_no_word_beyond_the_rate():
    flagged = sum(
        any(map(len, split_words(compare_writing(write(60, 0.3, 2 * seed), write(60, 0.3, 2 * seed + 1)))))
        for seed in range(200)
    )
    assert flagged <= 18  # 5 % of 200, and 2.6 standard errors


def test_a_word_that_few_prompts_decide_is_not_tested():
    assert not compare_writing([{"dull"}] * 5 + [set()] * 40, [set()] * 45)
    assert compare_writing([{"dull"}] * 6 + [set()] * 40, [set()] * 46)[0].p == pytest.approx(2 / 2**6)
    assert compare_writing([], []) == []
    with pytest.raises(ValueError, match="argument 2"):
        compare_writing([{"dull"}], [])
