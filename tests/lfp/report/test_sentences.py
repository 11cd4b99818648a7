"""Sentences that name the first of a list: chosen by its figures, whatever the order of the rows."""

from __future__ import annotations

import itertools

import pytest

from lfp.evaluation.results import Estimate, ResultRow
from lfp.report.sentences.sections import sentence

COUNT = Estimate(2.0, 300, null_mean=0.5, null_high=2.0)


def _word(metric: str, name: str, value: float, *, half: float, p: float) -> ResultRow:
    estimate = Estimate(value, 300, value - half, value + half, null_p=p)
    return ResultRow.from_estimate("twins", metric, estimate, group=f"word:{name}")


WORDS = [
    ResultRow.from_estimate("twins", "twins", 8.0),
    ResultRow.from_estimate("twins", "words_differing", COUNT),
    _word("preferred_more", "able", 0.9, half=0.8, p=0.03),  # the first of the alphabet, and the largest
    _word("preferred_more", "zest", 0.5, half=0.1, p=1e-7),
    _word("preferred_more", "yarn", 0.4, half=0.1, p=1e-5),
    _word("preferred_less", "acre", -0.1, half=0.4, p=0.6),
    _word("preferred_less", "mild", -0.3, half=0.2, p=0.01),
]


def test_the_first_word_beside_twins_is_the_one_of_least_p_whatever_the_order() -> None:
    for rows in itertools.islice(itertools.permutations(WORDS), 0, 5040, 97):
        says = sentence("twins", rows)
        assert "preferred more: word:zest, by +0.50 [0.40, 0.60] nats." in says
        assert "preferred less: word:mild, by −0.30 [−0.50, −0.10] nats, not at that false discovery rate." in says


@pytest.mark.parametrize(("p", "passes"), [(0.1 * 2 / 300, True), (0.1 * 2.01 / 300, False)])
def test_a_first_word_passes_where_its_p_is_among_the_discoveries(p: float, passes: bool) -> None:
    says = sentence("twins", [*WORDS[:2], _word("preferred_more", "zest", 0.5, half=0.2, p=p)])
    assert says.endswith("nats." if passes else "nats, not at that false discovery rate.")


def test_the_first_component_is_that_of_the_largest_share() -> None:
    shares = {"0: good": ("mean_share", 0.3), "10: the": ("component_share", 0.01), "1: bad": ("component_share", 0.4)}
    rows = [
        ResultRow.from_estimate("differences", metric, value, layer=1, site="mlp_out", group=group)
        for group, (metric, value) in sorted(shares.items())
    ]
    assert sentence("differences", rows).endswith("The first principal component holds 40 % of their variance.")
