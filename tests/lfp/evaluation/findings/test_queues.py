"""Queues: gaps of mid-ranks, largest first, missing values left out, compared with permuted ranks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kstest

from lfp.evaluation.findings.words import percentile_ranks, queues, word_gap_rows
from lfp.evaluation.statistics.resampling import Draws

DRAWS = Draws(bootstraps=10, permutations=99, seed=0)
PAIR = {"gap": ("a", "b")}


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=40))
def test_ranks_are_the_middle_of_equal_ones(values: list[int]) -> None:
    ranks = percentile_ranks(np.array(values, float))
    naive = [(sum(v < value for v in values) + sum(v <= value for v in values)) / 2 / len(values) for value in values]
    np.testing.assert_allclose(ranks, naive)


def test_the_planted_disagreement_is_first_with_its_sign() -> None:
    agreed = np.arange(50.0)
    other = agreed.copy()
    other[0], other[30] = 100.0, np.nan
    rows = queues([f"text:{i}" for i in range(50)], {"a": agreed, "b": other}, PAIR, DRAWS)
    assert rows[0].group == "text:0" and rows[0].value == pytest.approx(-48 / 49)
    assert len(rows) == 10 and rows[0].n == 49 and "text:30" not in {row.group for row in rows}
    sizes = [abs(row.value) for row in rows]
    assert sizes == sorted(sizes, reverse=True)


def test_the_null_is_of_judges_that_know_nothing_of_each_other() -> None:
    rng = np.random.default_rng(0)
    judges = {"a": rng.normal(size=200), "b": rng.normal(size=200)}
    rows = queues([str(i) for i in range(200)], judges, PAIR, DRAWS)
    assert all(0.6 < row.null_mean < 1.0 for row in rows)
    assert 0.05 < rows[0].null_p <= 1.0
    same = queues([str(i) for i in range(200)], {"a": judges["a"], "b": judges["a"]}, PAIR, DRAWS)
    assert all(row.value == 0 and row.null_p == 1.0 for row in same)


def test_gaps_of_judges_that_agree_have_uniform_p_values_and_a_planted_one_is_found() -> None:
    """Ranks that are permuted would give p = 1 to all of these."""
    names, ps = [str(i) for i in range(150)], []
    for seed in range(120):
        rng = np.random.default_rng(seed)
        first = rng.normal(size=150)
        judges = {"a": first, "b": 0.8 * first + 0.6 * rng.normal(size=150)}
        ps.append([row.null_p for row in queues(names, judges, PAIR, Draws(10, 99, seed))])
    assert kstest(np.array(ps)[:, 0], "uniform").pvalue > 0.01 and 0.35 < np.mean(ps) < 0.65
    order = np.argsort(judges["a"])
    judges["b"][order[0]] = 10.0
    assert queues(names, judges, PAIR, Draws(10, 99, 0))[0].null_p == 0.01


def test_a_judge_that_is_silent_makes_no_queue() -> None:
    assert queues(["x", "y"], {"a": np.ones(2), "b": np.full(2, np.nan)}, PAIR, DRAWS) == []


def test_words_paid_otherwise_than_stated_stand_first_in_their_own_list() -> None:
    rng = np.random.default_rng(0)
    gaps = rng.normal(size=200)
    gaps[[5, 9]], gaps[3] = (30.0, -30.0), np.nan
    words = [f"word{i}" for i in range(200)]
    rows = word_gap_rows(words, gaps, Draws(20, 50, 0), flagged=np.abs(gaps) > 10)
    over, under = ([row for row in rows if row.metric == metric] for metric in ("gap_over_paid", "gap_under_paid"))
    assert (over[0].group, over[0].value) == ("word:word5", 30.0)
    assert (under[0].group, under[0].value) == ("word:word9", -30.0)
    assert all(row.n == 199 for row in rows)
    assert [row.value for row in over] == sorted((row.value for row in over), reverse=True)
    assert over[0].null_p == under[0].null_p == 1 / 51
    assert 0.1 < np.mean([row.null_p for row in over[2:] + under[2:]]) <= 1.0
    assert [(row.value, row.n) for row in rows if row.metric == "words_flagged"] == [(2.0, 199)]


def test_a_planted_gap_is_rare_whatever_its_size_and_the_first_word_of_chance_has_any_p() -> None:
    words, draws = [f"word{i}" for i in range(1000)], Draws(10, 199, 0)
    planted = np.random.default_rng(0).normal(size=1000)
    for gap in (10.0, 1e6):
        planted[7] = gap
        assert word_gap_rows(words, planted, draws)[0].null_p < 0.01
    firsts = [
        word_gap_rows(words, np.random.default_rng(seed).normal(size=1000), Draws(10, 199, seed))[0].null_p
        for seed in range(100)
    ]
    assert kstest(firsts, "uniform").pvalue > 0.05


def test_a_gap_is_compared_with_words_that_scatter_as_much() -> None:
    rng = np.random.default_rng(0)
    spreads = np.where(np.arange(400) < 40, 5.0, 1.0)
    gaps = spreads * rng.normal(size=400)
    gaps[[0, 100]] = 8.0, -8.0
    rows = word_gap_rows([str(i) for i in range(400)], gaps, Draws(10, 499, 0), spreads=spreads)
    wide, narrow = (word_gap_rows(["w"] * len(part), part, Draws(10, 499, 0)) for part in (gaps[:40], gaps[40:]))
    assert rows[0].null_p > 0.05 and wide[0].null_p > 0.05
    assert min(row.null_p for row in narrow) < 0.01


def test_too_few_words_have_no_null() -> None:
    rows = word_gap_rows(["a", "b"], np.array([1.0, -1.0]), DRAWS)
    assert [row.null_p for row in rows] == [None] * 4
