"""When modules learned: credits at the checkpoints of a tuning, when half was reached, and changes of pace."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from lfp.evaluation.module_credits import Key
from lfp.evaluation.results import KINDS, Estimate, ResultRow
from lfp.evaluation.statistics.change_points import FEWEST, Courses, find_step, judge_step
from lfp.evaluation.statistics.resampling import Draws, interval_of_sums
from lfp.util.types import Floats, Ints

SECTION = "trajectory"


@dataclass(frozen=True, eq=False)
class Trajectory:
    """Credits [checkpoints, texts, modules] in nats at steps, rising, of texts with `n_tokens` tokens each [texts].

    Texts of one of the `groups` [texts] depend on each other.
    """

    steps: Ints
    modules: tuple[Key, ...]
    values: Floats
    n_tokens: Ints
    groups: Ints

    def of_kind(self, kind: str) -> Floats:
        """Sum the credits of the modules of a kind [checkpoints, texts]."""
        members = np.array([of == kind for _, of in self.modules], bool)
        return np.asarray(self.values[:, :, members].sum(2))


@dataclass(frozen=True, eq=False)
class Growth:
    """Credits [checkpoints, texts] of one thing in nats at steps, rising; `name` is its group in the report."""

    steps: Ints
    values: Floats
    n_tokens: Ints
    groups: Ints
    name: str

    def report_half(self, metric: str, draws: Draws) -> ResultRow:
        """Report the step at which half of the final credit was reached, with an interval over texts.

        Its null is that of growth by equal steps.
        """
        columns = np.column_stack([self.values.T, self.n_tokens.astype(np.float64)])

        def halves(sums: Floats) -> Floats:
            return np.array([[find_half(self.steps, series)] for series in _per_token(sums)])

        half = float(halves(columns.sum(0)[None])[0, 0])
        low, high = interval_of_sums(halves, columns, n=draws.bootstraps, rng=draws.rng(), groups=self.groups)
        linear = float(self.steps[-1]) / 2.0
        estimate = Estimate(half, len(self.n_tokens), float(low[0]), float(high[0]), null_mean=linear)
        return ResultRow.from_estimate(SECTION, metric, estimate, model="tuned", group=self.name)

    def report_change(self, metric: str, draws: Draws) -> ResultRow:
        """Report the step after which the pace, credit per step, differs most from before, with an interval over texts.

        Its null are paces that change smoothly (`judge_step`).
        """
        columns = np.column_stack([self.values.T, self.n_tokens.astype(np.float64)])

        def paces(sums: Floats) -> Floats:
            return np.asarray(np.diff(_per_token(sums), prepend=0.0, axis=1) / np.diff(self.steps, prepend=0))

        def changes(sums: Floats) -> Floats:
            return self.steps[find_step(paces(sums))[0] - 1][:, None].astype(np.float64)

        whole = columns.sum(0)[None]
        low, high = interval_of_sums(changes, columns, n=draws.bootstraps, rng=draws.rng(), groups=self.groups)
        courses = Courses.between(np.concatenate([[0], self.steps]))
        p = judge_step(paces(whole)[0], courses, n=draws.permutations, rng=draws.rng())
        estimate = Estimate(float(changes(whole)[0, 0]), len(columns), float(low[0]), float(high[0]), null_p=p)
        return ResultRow.from_estimate(SECTION, metric, estimate, model="tuned", group=self.name)


def trajectory_columns(trajectory: Trajectory, draws: Draws) -> list[dict[str, Any]]:
    """Return the rows of the table `trajectory`: credits per token of every module at every checkpoint."""
    rows = []
    for step, values in zip(trajectory.steps.tolist(), trajectory.values, strict=True):
        mean, low, high = rate_columns(values, trajectory.n_tokens, trajectory.groups, draws)
        for place, (layer, kind) in enumerate(trajectory.modules):
            figures = {"nats": mean[place], "ci_low": low[place], "ci_high": high[place]}
            rows.append({"step": step, "layer": layer, "module": kind, "n": len(values), **figures})
    return rows


def rate_columns(values: Floats, n_tokens: Ints, groups: Ints, draws: Draws) -> tuple[Floats, Floats, Floats]:
    """Return the credits per token [columns] of values [texts, columns], with 95 % intervals over texts."""
    tokens = n_tokens.astype(np.float64)
    columns = np.column_stack([values, tokens])
    low, high = interval_of_sums(_per_token, columns, n=draws.bootstraps, rng=draws.rng(), groups=groups)
    return values.sum(0) / max(tokens.sum(), 1.0), low, high


def _per_token(sums: Floats) -> Floats:
    return np.asarray(sums[:, :-1] / np.maximum(sums[:, -1:], 1.0))


def trajectory_rows(trajectory: Trajectory, draws: Draws) -> Iterator[ResultRow]:
    """Report for every kind of module when half of its final credit was reached, and its largest change of pace.

    The change needs six checkpoints.
    """
    for kind in KINDS:
        values = trajectory.of_kind(kind)
        if not values.any():
            continue
        growth = Growth(trajectory.steps, values, trajectory.n_tokens, trajectory.groups, kind)
        yield growth.report_half("half", draws)
        if len(trajectory.steps) >= FEWEST:
            yield growth.report_change("change", draws)


def find_half(steps: Ints, series: Floats) -> float:
    """Return the first step at which a series, 0 at step 0 and linear between steps, reaches half of its last value."""
    at, values = np.concatenate([[0.0], steps]), np.concatenate([[0.0], series])
    goal = values[-1] / 2.0
    reached = np.flatnonzero(values * np.sign(goal) >= abs(goal))
    place = max(int(reached[0]), 1)
    before, after = values[place - 1], values[place]
    part = (goal - before) / (after - before) if after != before else 1.0
    return float(at[place - 1] + part * (at[place] - at[place - 1]))
