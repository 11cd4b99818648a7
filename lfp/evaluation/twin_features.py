"""Features whose credit differs from the twins', models tuned on the same stated feedback by other seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from lfp.evaluation.feature_credits import TextCredits
from lfp.evaluation.results import Estimate, ResultRow
from lfp.evaluation.statistics.twins import (
    RATE,
    TwinTest,
    compare_with_twins,
    count_flags,
    judge_by_left_out,
    leave_one_out,
)
from lfp.util.types import Floats

TWIN_COLUMNS = ("twin_difference", "twin_error", "twin_p", "twin_q", "beyond_twins")
"""Of the table `credits`; null without twins."""
_NAMED = 10
"""Features that the report names."""


@dataclass(frozen=True)
class TwinFeatures:
    """Credits of features in a tuned model and in its twins, through one dictionary, and the tests of the difference.

    `tuned` [features] and `twins` [twins, features] are in nats per token of the same texts; `left_out` has the test of
    each twin against the others.
    """

    tuned: Floats
    twins: Floats
    test: TwinTest
    left_out: Sequence[TwinTest]

    @staticmethod
    def compare(credits: Floats, sizes: Floats) -> TwinFeatures:
        """Compare the first model with the others: credits and sizes of credits [models, features], per token.

        A feature's information is the mean size of its credits in all models. Tests are judged by the twins left out,
        each of these by the others.
        """
        information = sizes.mean(axis=0)
        alone = leave_one_out(credits[1:], information)
        test = judge_by_left_out(compare_with_twins(credits[0], credits[1:], information), alone)
        left_out = [judge_by_left_out(found, [*alone[:k], *alone[k + 1 :]]) for k, found in enumerate(alone)]
        return TwinFeatures(credits[0], credits[1:], test, left_out)

    def columns(self) -> dict[str, Any]:
        """Return the columns of the table `credits`, null where a feature is not tested."""
        figures = (self.test.contrast, self.test.error, self.test.p, self.test.q, self.test.q <= RATE)
        is_unknown = np.isnan(self.test.q)
        return {name: pa.array(values, mask=is_unknown) for name, values in zip(TWIN_COLUMNS, figures, strict=True)}

    def rows(self) -> list[ResultRow]:
        """Return rows `feature_credits`: how many features differ, beside the twins left out, and which first."""
        known = np.flatnonzero(~np.isnan(self.test.q))
        count = count_flags(self.test, self.left_out)
        rows = [
            ResultRow.from_estimate("feature_credits", "twins", float(len(self.twins))),
            ResultRow.from_estimate("feature_credits", "beyond_twins", count),
        ]
        for feature in known[np.argsort(self.test.p[known], kind="stable")][:_NAMED]:
            if self.test.q[feature] <= RATE:
                differs = Estimate(float(self.test.contrast[feature]), len(known), null_p=float(self.test.p[feature]))
                group = f"feature:{feature}"
                rows.append(ResultRow.from_estimate("feature_credits", "twin_difference", differs, group=group))
        return rows


def sum_texts(texts: Sequence[TextCredits], n_features: int) -> tuple[Floats, Floats]:
    """Sum each feature's credits and their sizes over some texts, on the full path, [features] each."""
    totals = np.zeros((2, n_features))
    for text in texts:
        for total, values in zip(totals, (text.credits[0], np.abs(text.credits[0])), strict=True):
            np.add.at(total, text.features, values)
    return totals[0], totals[1]
