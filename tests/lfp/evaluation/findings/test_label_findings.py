"""Findings about labels: agreement as scikit-learn counts it, activity against random sets of features."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score

from lfp.evaluation.findings.labels import (
    Inputs,
    activation_frequency,
    label_agreement,
    label_correlation,
    label_scores,
    references,
)
from lfp.evaluation.statistics.resampling import Draws

DRAWS = Draws(bootstraps=200, permutations=200, seed=0)


def figures(rows: list[dict], key: str = "metric") -> dict[str, dict]:
    return {getattr(row, key): row for row in rows}


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=2, max_size=40))
def test_agreement_is_what_scikit_learn_says(pairs: list[tuple[bool, bool]]) -> None:
    related, flags = (np.array(side) for side in zip(*pairs, strict=True))
    found = figures(label_agreement("x", related, {"y": flags}, Draws(10, 10, 0)))
    assert found["accuracy"].value == pytest.approx((related == flags).mean())
    if len(set(related)) > 1 or len(set(flags)) > 1:
        assert found["kappa"].value == pytest.approx(cohen_kappa_score(related, flags), abs=1e-9)
    assert found["kappa"].group == "labeller=x,against=y" and found["kappa"].n == len(pairs)


def test_agreement_beyond_chance_passes_the_null_and_chance_does_not() -> None:
    rng = np.random.default_rng(0)
    flags = rng.random(300) < 0.2
    close = np.where(rng.random(300) < 0.9, flags, ~flags)
    kappa = figures(label_agreement("x", close, {"y": flags}, DRAWS))["kappa"]
    assert kappa.ci_low > kappa.null_high and kappa.null_p < 0.01
    chance = figures(label_agreement("x", rng.permutation(flags), {"y": flags}, DRAWS))["kappa"]
    assert chance.null_p > 0.05 and abs(chance.null_mean) < 0.03


def test_references_are_weights_that_beat_their_null_and_the_top_tenth() -> None:
    weight = np.r_[np.zeros(50), np.linspace(-1, 1, 50)]
    found = references(weight, None)
    assert list(found) == ["top_decile"] and found["top_decile"].sum() == 10
    assert np.abs(weight[found["top_decile"]]).min() > np.abs(weight[~found["top_decile"]]).max()
    assert list(references(weight, weight > 0)) == ["beats_null", "top_decile"]
    assert not references(np.zeros(5), None)["top_decile"].any()


def inputs(boost: float, *, n_texts: int = 80, n_features: int = 40, seed: int = 0) -> Inputs:
    """Ten tokens a text; features 0-4 fire `boost` times as often on the texts with the highest estimates."""
    rng = np.random.default_rng(seed)
    predicted = np.arange(n_texts, dtype=float)
    share = np.full((n_texts, n_features), 0.1)
    share[predicted >= 60, :5] *= boost
    return Inputs(sp.csr_array(rng.binomial(10, share).astype(float)), np.full(n_texts, 10), predicted)


def test_related_features_that_follow_the_estimate_are_told_from_random_ones() -> None:
    related, live = np.arange(40) < 5, np.ones(40, bool)
    rows = [row for row in activation_frequency(inputs(4.0), related, live, DRAWS) if row.metric == "per_token"]
    found = figures(rows, "group")
    assert found["related_high"].value == pytest.approx(0.4, abs=0.05)
    assert found["related_rest"].value == pytest.approx(0.1, abs=0.02)
    assert found["related_high"].n == 20 and found["related_rest"].n == 60
    contrast = found["related_high_less_rest"]
    assert contrast.ci_low > contrast.null_high and contrast.null_p < 0.01
    assert found["all_high"].null_mean is None


def test_shares_are_those_of_a_naive_count() -> None:
    given_, related, live = inputs(2.0, seed=3), np.arange(40) % 3 == 0, np.arange(40) < 30
    found = {(row.metric, row.group): row.value for row in activation_frequency(given_, related, live, DRAWS)}
    counts, high = given_.active.toarray(), given_.predicted >= np.quantile(given_.predicted, 0.75)
    of_related = counts[high][:, related & live]
    assert found["per_token", "related_high"] == pytest.approx(of_related.mean() / 10)
    assert found["per_text", "related_high"] == pytest.approx((of_related > 0).mean())
    assert found["per_token", "all_rest"] == pytest.approx(counts[~high][:, live].mean() / 10)


def test_unrelated_features_show_no_contrast() -> None:
    related, live, ps = np.arange(40) < 5, np.ones(40, bool), []
    for seed in range(30):
        rows = activation_frequency(inputs(1.0, seed=seed), related, live, DRAWS)
        ps.append(figures([r for r in rows if r.metric == "per_token"], "group")["related_high_less_rest"].null_p)
    assert 0.3 < np.mean(ps) < 0.7 and np.mean(np.array(ps) < 0.05) < 0.15


def test_related_features_are_compared_with_others_of_their_density() -> None:
    """Related features fire ten times as often as half of the others, and as often as the rest, which are drawn."""
    rng = np.random.default_rng(0)
    share = np.where(np.arange(200) < 105, 0.5, 0.05)
    active = sp.csr_array(rng.binomial(10, share, size=(80, 200)).astype(float))
    texts = Inputs(active, np.full(80, 10), np.arange(80.0))
    rows = activation_frequency(texts, np.arange(200) < 5, np.ones(200, bool), DRAWS)
    found = figures([row for row in rows if row.metric == "per_token"], "group")["related_rest"]
    assert found.value == pytest.approx(0.5, abs=0.05) and found.null_mean == pytest.approx(0.5, abs=0.05)


def test_without_related_features_or_texts_there_is_nothing_to_compare() -> None:
    rows = activation_frequency(inputs(1.0), np.zeros(40, bool), np.ones(40, bool), DRAWS)
    assert {row.group.split("_")[0] for row in rows} == {"all"}
    assert activation_frequency(inputs(1.0, n_texts=3), np.ones(40, bool), np.ones(40, bool), DRAWS) == []
    assert activation_frequency(inputs(1.0), np.ones(40, bool), np.zeros(40, bool), DRAWS) == []


def test_the_contingency_table_counts_and_its_odds_ratio_is_that_of_scipy_but_for_halves() -> None:
    rng = np.random.default_rng(1)
    flags = rng.random(400) < 0.3
    related = np.where(rng.random(400) < 0.8, flags, rng.random(400) < 0.3)
    found = figures(label_agreement("x", related, {"y": flags}, DRAWS))
    cells = [[(related & flags).sum(), (related & ~flags).sum()], [(~related & flags).sum(), (~related & ~flags).sum()]]
    names = (("related_and_weighty", "related_only"), ("weighty_only", "neither"))
    assert [[found[name].value for name in row] for row in names] == cells
    expected = scipy.stats.contingency.expected_freq(np.array(cells))
    nulls = [[found[name].null_mean for name in row] for row in names]
    assert np.array(nulls) == pytest.approx(expected, rel=0.05)
    odds = found["odds_ratio"]
    assert odds.value == pytest.approx(scipy.stats.contingency.odds_ratio(cells, kind="sample").statistic, rel=0.1)
    assert odds.ci_low > 1 and odds.value > odds.null_high and odds.null_mean == pytest.approx(1, abs=0.2)
    assert np.isfinite(figures(label_agreement("x", flags, {"y": flags}, DRAWS))["odds_ratio"].value)


def test_rank_correlation_is_scipys_and_random_labels_do_not_pass() -> None:
    rng = np.random.default_rng(2)
    sizes = rng.exponential(size=200)
    belief = sizes + rng.normal(0, 0.5, 200)
    row = label_correlation("x", belief, sizes, DRAWS)
    assert row.value == pytest.approx(scipy.stats.spearmanr(sizes, belief).statistic)
    assert row.ci_low > row.null_high and row.null_p < 0.01 and row.group == "labeller=x,against=weight"
    chance = label_correlation("x", rng.permutation(belief), sizes, DRAWS)
    assert chance.null_p > 0.02


def test_scores_stand_beside_what_another_features_label_scores() -> None:
    rng = np.random.default_rng(3)
    good = np.r_[rng.normal(0.9, 0.05, 50), np.nan]
    swapped = np.r_[rng.normal(0.5, 0.05, 30), np.full(21, np.nan)]
    rows = label_scores({"detection": good, "fuzzing": good - 0.1}, swapped, DRAWS, group="g")
    detection, fuzzing = figures(rows)["detection"], figures(rows)["fuzzing"]
    assert detection.n == 50 and detection.value == pytest.approx(np.nanmean(good))
    assert detection.ci_low > detection.null_high > detection.null_mean == pytest.approx(0.5, abs=0.03)
    assert detection.null_p < 0.01 and fuzzing.null_mean is None
    assert label_scores({"detection": np.full(3, np.nan)}, swapped, DRAWS, group="g") == []
