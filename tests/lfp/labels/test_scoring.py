"""Balanced accuracy as scikit-learn counts it, and an interval that covers what it says."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn.metrics import balanced_accuracy_score

from lfp.labels.scoring import balanced_accuracy, balanced_interval, score
from lfp.labels.types import Score
from tests.lfp.labels.excerpts import excerpt

ANSWERS = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=2, max_size=40)


@given(ANSWERS)
def test_it_is_what_scikit_learn_says(pairs: list[tuple[bool, bool]]) -> None:
    true, said = (list(side) for side in zip(*pairs, strict=True))
    if len(set(true)) < 2:
        assert balanced_accuracy(true, said) is None and balanced_interval(true, said) == (None, None)
        return
    assert balanced_accuracy(true, said) == pytest.approx(balanced_accuracy_score(true, said))
    low, high = balanced_interval(true, said)
    assert low is not None and high is not None
    assert -1e-9 <= low <= balanced_accuracy_score(true, said) <= high <= 1 + 1e-9
    assert high - low > 0.05, "no interval of forty answers is as narrow as that"


def test_where_one_side_is_certain_the_interval_is_half_of_the_others() -> None:
    """Wilson's interval, as scipy has it, of the one share; of many on the other side there is no doubt."""
    true = [True] * 10 + [False] * 100_000
    said = [True] * 7 + [False] * 3 + [False] * 100_000
    wilson = binomtest(7, 10).proportion_ci(method="wilson")
    low, high = balanced_interval(true, said)
    assert (low, high) == pytest.approx(((wilson.low + 1) / 2, (wilson.high + 1) / 2), abs=1e-4)


@pytest.mark.parametrize("share", [0.5, 0.7, 0.9, 1.0])
def test_the_interval_covers_the_truth(share: float) -> None:
    rng = np.random.default_rng(0)
    true = [True] * 10 + [False] * 10
    covered = []
    for right in rng.random((2000, 20)) < share:
        low, high = balanced_interval(true, [t == r for t, r in zip(true, right.tolist(), strict=True)])
        covered.append(low - 1e-12 <= share <= high + 1e-12)  # type: ignore[operator]
    assert np.mean(covered) > 0.93


def test_scores_are_of_the_same_excerpts() -> None:
    found = [excerpt("a", values=[v], bucket=0 if v else -1, text_id=i) for i, v in enumerate([1.0, 2.0, 0.0, 0.0])]
    found_score = score(
        found, detected=[True, True, False, False], fuzzed=[True, False, False, False], swapped=[False] * 4
    )
    assert (found_score.detection, found_score.fuzzing, found_score.swapped, found_score.n) == (1.0, 0.75, 0.5, 4)
    assert found_score.ci_low is not None and found_score.ci_low < 1 and found_score.ci_high == pytest.approx(1.0)
    assert score(found, detected=None, fuzzed=None) == Score(n=4)
    assert score([], detected=[], fuzzed=[]) == Score()
