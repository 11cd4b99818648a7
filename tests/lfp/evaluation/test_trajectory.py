"""When half was learned, changes of pace against smooth growth, and intervals over texts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from lfp.evaluation.feature_trajectory import FeatureTrajectory
from lfp.evaluation.statistics.resampling import Draws
from lfp.evaluation.trajectory import Trajectory, find_half, trajectory_columns, trajectory_rows
from lfp.report.credits import trajectory_sentence

STEPS = np.arange(10, 101, 10)
DRAWS = Draws(200, 400, 0)


def made(attention: np.ndarray, mlp: np.ndarray) -> Trajectory:
    rng = np.random.default_rng(0)
    of_texts = 1.0 + 0.2 * rng.normal(size=30)
    values = np.stack([np.outer(attention, of_texts), np.outer(mlp, -of_texts)], axis=2)
    return Trajectory(STEPS, ((0, "attention"), (1, "mlp")), values, np.full(30, 8), np.arange(30))


def test_half_is_between_the_steps_around_it() -> None:
    assert find_half(np.array([10, 20]), np.array([1.0, 4.0])) == pytest.approx(10 + 10 / 3)
    assert find_half(np.array([10, 20]), np.array([-3.0, -4.0])) == pytest.approx(20 / 3)


def test_a_change_of_pace_is_found_beyond_chance_and_even_growth_is_not() -> None:
    noise = 0.001 * np.random.default_rng(1).normal(size=10)
    early = np.cumsum(np.where(STEPS <= 30, 1.0, 0.01) + noise)
    rows = list(trajectory_rows(made(early, np.cumsum(1.0 + noise)), DRAWS))
    found = {(row.metric, row.group): row for row in rows}
    change = found["change", "attention"]
    assert change.value == change.ci_low == change.ci_high == 30 and (change.null_p or 1) < 0.02
    assert (found["change", "mlp"].null_p or 0) > 0.05
    half = found["half", "attention"]
    assert 10 < half.value < 20 and half.null_mean == 50.0 and half.ci_low <= half.value <= half.ci_high  # type: ignore[operator]
    assert found["half", "mlp"].value == pytest.approx(50.0, abs=1.0)


@pytest.mark.parametrize("tau", [5, 20, 40, 80, 200, 1e5])
def test_growth_that_only_slows_down_has_no_change_of_pace(tau: float) -> None:
    grown = 1 - np.exp(-STEPS / tau)
    rows = [row for row in trajectory_rows(made(grown, 1.0 * STEPS), DRAWS) if row.metric == "change"]
    assert [row.null_p for row in rows] == [1.0, 1.0]


def test_few_checkpoints_show_no_change_of_pace() -> None:
    trajectory = made(np.cumsum(STEPS < 30), 1.0 * STEPS)
    few = replace(trajectory, steps=STEPS[:5], values=trajectory.values[:5])
    assert {row.metric for row in trajectory_rows(few, DRAWS)} == {"half"}


def test_features_have_figures_as_modules_have() -> None:
    noise = 0.001 * np.random.default_rng(1).normal(size=10)
    early, even = np.cumsum(np.where(STEPS <= 30, 1.0, 0.01) + noise), np.cumsum(1.0 + noise)
    of_texts = 1.0 + 0.2 * np.random.default_rng(0).normal(size=30)
    values = np.stack([np.outer(early, -of_texts), np.outer(even, of_texts), np.zeros((10, 30))], axis=2)
    trajectory = FeatureTrajectory(STEPS, np.array([7, 3, 5]), values, np.full(30, 8), np.arange(30))
    rows = list(trajectory.rows(DRAWS))
    found = {(row.metric, row.group): row for row in rows}
    assert len(found) == 4  # a feature without credit has none
    assert found["feature_change", "feature:7"].value == 30 and found["feature_change", "feature:7"].null_p < 0.02  # type: ignore[operator]
    assert found["feature_half", "feature:3"].value == pytest.approx(50.0, abs=1.0)
    table = trajectory.columns(DRAWS)
    assert [row["feature_id"] for row in table] == np.repeat([3, 5, 7], 10).tolist()
    assert table[-1]["nats"] == pytest.approx(values[-1, :, 0].sum() / 240) and table[-1]["ci_low"] < table[-1]["nats"]
    says = trajectory_sentence([*trajectory_rows(made(early, even), DRAWS), *rows])
    assert "Of the 2 features of largest credit, half had half of their credit by step" in says
    assert "1 changed their pace beyond smooth growth (false discovery rate 5.0 %)" in says


def test_the_table_has_every_module_at_every_step() -> None:
    trajectory = made(np.linspace(0.1, 1.0, 10), np.linspace(0.1, 1.0, 10))
    rows = trajectory_columns(trajectory, DRAWS)
    assert len(rows) == 20 and {row["step"] for row in rows} == set(STEPS.tolist())
    last = next(row for row in rows if row["step"] == 100 and row["module"] == "mlp")
    assert last["nats"] == pytest.approx(trajectory.values[-1, :, 1].sum() / (30 * 8))
    assert last["ci_low"] < last["nats"] < last["ci_high"]
