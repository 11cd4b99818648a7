"""Interventions against what predicts them: rank correlations with intervals and nulls, and sizes beside controls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from lfp.evaluation.findings.interventions import CleanRuns, Measured, intervention_results, intervention_rows
from lfp.evaluation.results import ResultRow
from lfp.evaluation.statistics.resampling import Draws
from lfp.util.types import Floats, Place

DRAWS = Draws(200, 200, 0)
N_FEATURES, N_TEXTS = 30, 12


@pytest.fixture(scope="module")
def rows() -> list[dict[str, object]]:
    """Effects are twice what credits predict, in random order for weights; controls do a tenth."""
    rng = np.random.default_rng(0)
    credit = rng.normal(size=N_FEATURES)
    n_tokens = rng.integers(5, 20, N_TEXTS)
    predictions = {"credit": credit, "weight": rng.permutation(credit), "drift": np.full(N_FEATURES, np.nan)}
    measured = []
    for feature in range(20):
        effects = 2.0 * credit[feature] * n_tokens * (1.0 + 0.1 * rng.normal(size=N_TEXTS))
        scores = credit[feature] + rng.normal(size=16) if feature < 10 else None
        measured.append(Measured(feature, None, effects, scores))
        measured.append(Measured(20 + feature % 10, feature, 0.1 * effects))
    return intervention_rows(
        measured,
        predictions,
        n_tokens=n_tokens,
        groups=np.arange(N_TEXTS),
        clean=CleanRuns(rng.normal(size=(4, 16)), np.arange(16)),
        places=[Place(feature % 3) for feature in range(N_FEATURES)],
        energy=np.ones(N_FEATURES),
        draws=DRAWS,
    )


def pick(found: list[ResultRow], metric: str, group: str | None) -> ResultRow:
    (row,) = [row for row in found if row.metric == metric and row.group == group]
    return row


def test_rows_hold_effects_per_token_and_their_intervals(rows: list[dict[str, object]]) -> None:
    assert [row["kind"] for row in rows] == ["control"] * 20 + ["feature"] * 20
    for row in rows[20:]:
        assert row["effect"] == pytest.approx(2.0 * row["by_credit"], rel=0.2)
        low, high = sorted((row["ci_low"], row["ci_high"]))
        assert low <= row["effect"] <= high and row["layer"] == row["feature_id"] % 3
        assert ("reward_effect" in row) == (row["feature_id"] < 10) and row["by_drift"] is None


def test_credits_predict_and_permuted_weights_do_not(rows: list[dict[str, object]]) -> None:
    found = intervention_results(rows, DRAWS)
    credit, weight = (pick(found, "rank_correlation", name) for name in ("credit", "weight"))
    assert credit.value > 0.95 and credit.null_p == pytest.approx(1 / 201) and credit.ci_low > 0.9 and credit.n == 20
    assert abs(weight.value) < 0.6 and weight.null_p > 0.01
    assert not [row for row in found if row.group == "drift"], "nothing is predicted by it"
    assert pick(found, "sign_agreement", None).value == 1.0
    sizes = [pick(found, "size", kind).value for kind in ("feature", "control")]
    assert sizes[0] == pytest.approx(10 * sizes[1], rel=0.15)  # of ten features, each of which stands for two
    assert pick(found, "reward_rank_correlation", "credit").value > 0.5


def test_a_negative_correlation_is_beyond_chance_too(rows: list[dict[str, object]]) -> None:
    opposed = [row | {"by_credit": -row["by_credit"]} for row in rows]  # type: ignore[operator]
    found = pick(intervention_results(opposed, DRAWS), "rank_correlation", "credit")
    assert found.value < -0.95 and found.null_p == pytest.approx(1 / 201)


N_COMPLETIONS = 200


def rows_of_scores(scores: Sequence[Floats], n_controls: int, runs: Floats) -> list[dict[str, Any]]:
    """Rows of features whose completions have such scores, the last of them controls."""
    n, n_features = len(scores), len(scores) - n_controls
    measured = [
        Measured(i, None if i < n_features else i - n_features, np.ones(3), of_one) for i, of_one in enumerate(scores)
    ]
    return intervention_rows(
        measured,
        dict.fromkeys(("credit", "weight", "drift"), np.zeros(n)),
        n_tokens=np.full(3, 5),
        groups=np.arange(3),
        clean=CleanRuns(runs, np.arange(N_COMPLETIONS)),
        places=[Place(0)] * n,
        energy=np.ones(n),
        draws=Draws(200, 20, 0),
    )


@pytest.mark.parametrize("changed", [0.0, 0.3, 1.0])  # share of the completions that are written otherwise
def test_effects_on_rewards_are_no_less_exact_than_against_one_run_or_the_mean_of_all(changed: float) -> None:
    rng, prefix = np.random.default_rng(3), np.random.default_rng(4).normal(size=N_COMPLETIONS)
    found, paired, averaged, covered = [], [], [], []
    for _ in range(150):
        runs = prefix + rng.normal(size=(4, N_COMPLETIONS))
        otherwise = rng.random(N_COMPLETIONS) < changed
        after = np.where(otherwise, prefix + rng.normal(size=N_COMPLETIONS) + 0.2, runs[0])
        (row,) = rows_of_scores([after], 0, runs)
        found.append(row["reward_effect"])
        covered.append(row["reward_ci_low"] <= 0.2 * changed <= row["reward_ci_high"])
        paired.append(np.mean(after - runs[0]))
        averaged.append(np.mean(after - runs.mean(axis=0)))
    if not changed:
        assert set(found) == {0.0}, "whatever the luck of the first run"
        return
    assert np.mean(found) == pytest.approx(0.2 * changed, abs=0.03) and 0.88 < np.mean(covered) < 0.99
    assert np.std(found) < 1.05 * min(np.std(paired), np.std(averaged))
    assert np.std(found) < 0.9 * max(np.std(paired), np.std(averaged))


def test_contrasts_are_with_the_controls_at_the_same_prefixes_whatever_the_clean_runs() -> None:
    rng, prefix = np.random.default_rng(5), 10.0 * np.random.default_rng(6).normal(size=N_COMPLETIONS)
    scores = [prefix + 0.3 * (i == 0) + rng.normal(size=N_COMPLETIONS) for i in range(12)]
    quiet, lucky = (
        rows_of_scores(scores, 6, prefix + luck + rng.normal(size=(runs, N_COMPLETIONS)))
        for luck, runs in ((0.0, 4), (1.0, 1))
    )
    columns = ("reward_contrast", "reward_contrast_low", "reward_contrast_high")
    assert [[row[name] for name in columns] for row in quiet] == [[row[name] for name in columns] for row in lucky]
    strong, control = (next(row for row in quiet if row["feature_id"] == feature) for feature in (0, 6))
    assert strong["reward_contrast"] == pytest.approx((scores[0] - np.mean(scores[6:], axis=0)).mean())
    assert control["reward_contrast"] == pytest.approx((scores[6] - np.mean(scores[7:], axis=0)).mean())
    assert 0.0 < strong["reward_contrast_low"] < 0.3 < strong["reward_contrast_high"] < 0.6  # prefixes cancel
    results = intervention_results(quiet, DRAWS)
    for kind, n in (("feature", 6), ("control", 6)):
        sizes = [abs(row["reward_contrast"]) for row in quiet if row["kind"] == kind]
        size = pick(results, "reward_size", kind)
        assert size.value == pytest.approx(np.mean(sizes)) and size.n == n


def test_intervals_of_effects_cover_where_sides_of_pairs_are_alike() -> None:
    rng, n_features = np.random.default_rng(1), 300
    pairs, n_tokens = np.repeat(np.arange(30), 2), np.full(60, 5)
    measured = []
    for feature in range(n_features):
        shared, own = rng.normal(size=30), rng.normal(size=60)
        effects = 5 * (0.3 + 0.2 * (np.sqrt(0.8) * shared[pairs] + np.sqrt(0.2) * own))
        measured.append(Measured(feature, None, effects))
    found = intervention_rows(
        measured,
        dict.fromkeys(("credit", "weight", "drift"), np.zeros(n_features)),
        n_tokens=n_tokens,
        groups=pairs,
        clean=None,
        places=[Place(0)] * n_features,
        energy=np.ones(n_features),
        draws=Draws(200, 2, 0),
    )
    assert 0.91 < np.mean([row["ci_low"] <= 0.3 <= row["ci_high"] for row in found]) < 0.985
