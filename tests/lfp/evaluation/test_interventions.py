"""Interventions against what predicts them: rank correlations with intervals and nulls, and sizes beside controls."""

from __future__ import annotations

import numpy as np
import pytest

from lfp.evaluation.findings.interventions import Measured, intervention_results, intervention_rows
from lfp.evaluation.results import ResultRow
from lfp.evaluation.statistics.resampling import Draws
from lfp.util.types import Place

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
        rewards = credit[feature] + rng.normal(size=16) if feature < 10 else None
        measured.append(Measured(feature, None, effects, rewards))
        measured.append(Measured(20 + feature % 10, feature, 0.1 * effects))
    return intervention_rows(
        measured,
        predictions,
        n_tokens=n_tokens,
        groups=np.arange(N_TEXTS),
        clusters=np.arange(16),
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


def test_the_luck_of_the_clean_run_and_repeated_controls_add_nothing(rows: list[dict[str, object]]) -> None:
    rewards = np.random.default_rng(2).normal(size=len(rows))

    def sizes(luck: float) -> dict[str, ResultRow]:
        found = intervention_results(
            [row | {"reward_effect": luck + rewards[row["feature_id"]]} for row in rows],  # type: ignore[call-overload, operator]
            DRAWS,
        )
        return {kind: pick(found, "reward_size", kind) for kind in ("feature", "control")}

    quiet, lucky = sizes(0.0), sizes(100.0)
    for kind, n in (("feature", 20), ("control", 10)):  # each control stands for two features
        assert lucky[kind].value == pytest.approx(quiet[kind].value) and quiet[kind].n == n
        assert lucky[kind].ci_high == pytest.approx(quiet[kind].ci_high)
    others = [np.abs(rewards[i] - np.delete(rewards[20:30], i - 20).mean()) for i in range(20, 30)]
    assert quiet["control"].value == pytest.approx(np.mean(others))


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
        clusters=None,
        places=[Place(0)] * n_features,
        energy=np.ones(n_features),
        draws=Draws(200, 2, 0),
    )
    assert 0.91 < np.mean([row["ci_low"] <= 0.3 <= row["ci_high"] for row in found]) < 0.985
