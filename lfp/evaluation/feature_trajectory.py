"""When features learned what they carry: their credits at the checkpoints of a tuning."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from lfp.evaluation.results import ResultRow
from lfp.evaluation.statistics.change_points import FEWEST
from lfp.evaluation.statistics.resampling import Draws
from lfp.evaluation.trajectory import Growth, rate_columns
from lfp.util.types import Floats, Ints


@dataclass(frozen=True, eq=False)
class FeatureTrajectory:
    """Credits [checkpoints, texts, features] in nats at steps, rising, of texts with `n_tokens` tokens each [texts].

    `features` [features] are the feature ids, those of the largest final credit first. Texts of one of the `groups`
    [texts] depend on each other.
    """

    steps: Ints
    features: Ints
    values: Floats
    n_tokens: Ints
    groups: Ints

    def columns(self, draws: Draws) -> list[dict[str, Any]]:
        """Return the rows of the table `feature_trajectory`: credits per token of every feature at every checkpoint."""
        rows = []
        for step, values in zip(self.steps.tolist(), self.values, strict=True):
            mean, low, high = rate_columns(values, self.n_tokens, self.groups, draws)
            for place, feature in enumerate(self.features.tolist()):
                figures = {"nats": mean[place], "ci_low": low[place], "ci_high": high[place]}
                rows.append({"feature_id": feature, "step": step, "n": len(values), **figures})
        return sorted(rows, key=lambda row: (row["feature_id"], row["step"]))

    def rows(self, draws: Draws) -> Iterator[ResultRow]:
        """Report of every feature what is reported of kinds of modules: when it had half, and its change of pace."""
        for place, feature in enumerate(self.features.tolist()):
            growth = Growth(self.steps, self.values[:, :, place], self.n_tokens, self.groups, f"feature:{feature}")
            if not growth.values[-1].sum():
                continue
            yield growth.report_half("feature_half", draws)
            if len(self.steps) >= FEWEST:
                yield growth.report_change("feature_change", draws)
