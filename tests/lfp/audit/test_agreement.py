import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn.metrics import cohen_kappa_score

from lfp.audit import ANSWERS, agreement, cohens_kappa, share_interval

PAIRS = st.lists(st.tuples(st.sampled_from(ANSWERS), st.sampled_from(ANSWERS)), min_size=1, max_size=60)


@given(PAIRS)
def test_kappa_is_scikit_learns(pairs):
    first, second = zip(*pairs, strict=True)
    found = agreement(first, second, answers=ANSWERS)
    if len({*first, *second}) == 1:
        assert found.kappa is None and found.agreed == 1
        return
    assert found.kappa == pytest.approx(cohen_kappa_score(first, second), abs=1e-12)
    assert found.low <= found.kappa <= found.high and 0 < found.null_p <= 1
    assert found.agreed == np.mean([a == b for a, b in pairs]) and found.table.sum() == found.n == len(pairs)


def large_sample_error(table):
    """The standard error of Fleiss, Cohen and Everitt (1969), for tables of many items."""
    p = table / table.sum()
    rows, columns, k = p.sum(1), p.sum(0), float(cohens_kappa(table))
    expected = rows @ columns
    a = sum(p[i, i] * (1 - (rows[i] + columns[i]) * (1 - k)) ** 2 for i in range(len(p)))
    b = (1 - k) ** 2 * sum(
        p[i, j] * (columns[i] + rows[j]) ** 2 for i in range(len(p)) for j in range(len(p)) if i != j
    )
    return np.sqrt((a + b - (k - expected * (1 - k)) ** 2) / table.sum()) / (1 - expected)


def test_the_interval_is_the_large_samples_where_there_is_much():
    table = np.array([[300, 40, 10], [60, 250, 20], [15, 25, 80]])
    first, second = (np.repeat(axis.ravel(), table.ravel()) for axis in np.indices(table.shape))
    found = agreement([ANSWERS[i] for i in first], [ANSWERS[i] for i in second], answers=ANSWERS)
    half = 1.96 * large_sample_error(table)
    assert (found.low, found.high) == pytest.approx((found.kappa - half, found.kappa + half), abs=0.012)


def test_the_interval_covers_on_few_items():
    rng = np.random.default_rng(0)
    p = np.array([[0.4, 0.1], [0.1, 0.4]])
    truth, n_covered, n_runs = float(cohens_kappa(p)), 0, 60
    for _ in range(n_runs):
        drawn = rng.choice(4, size=25, p=p.ravel())
        found = agreement([ANSWERS[i // 2] for i in drawn], [ANSWERS[i % 2] for i in drawn], answers=ANSWERS[:2])
        n_covered += found.low <= truth <= found.high
    assert n_covered / n_runs > 0.88


def test_full_agreement_on_few_items_is_not_certain():
    found = agreement(["yes", "no", "yes", "no"], ["yes", "no", "yes", "no"], answers=ANSWERS)
    assert found.kappa == found.high == 1 and found.low < 0.7


def test_chance_does_not_look_like_agreement():
    rng = np.random.default_rng(1)
    first, second = rng.choice(ANSWERS, 300), rng.choice(ANSWERS, 300)
    found = agreement(list(first), list(second), answers=ANSWERS)
    assert found.low < 0 < found.high and found.kappa < found.null_high + 0.05 and found.null_p > 0.01


def test_nothing_in_common_is_no_agreement():
    assert agreement([], [], answers=ANSWERS) is None
    with pytest.raises(ValueError, match="same items"):
        agreement(["yes"], [], answers=ANSWERS)


def test_wilsons_interval_is_scipys():
    for k, n in [(0, 10), (7, 10), (50, 50), (3, 1000)]:
        found = binomtest(k, n).proportion_ci(method="wilson")
        assert share_interval(k, n) == pytest.approx((found.low, found.high), abs=1e-9)
    assert share_interval(0, 0) is None
