"""Words that the tuned model prefers otherwise than its twins, which were tuned on the same stated feedback."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import t as student

from lfp.evaluation.results import Estimate, ResultRow
from lfp.evaluation.statistics.twins import TwinTest, compare_with_twins, count_flags, leave_one_out
from lfp.util.types import Floats

SECTION = "twins"
PARTS = ("unembedding", "embedding", "attention", "mlp", "norms")
"""Of a model, between which a word's difference is split."""
_LENGTH = 10
"""Words listed on each side."""


@dataclass(frozen=True)
class TwinWords:
    """Preferences for words less what the stated feedback explains, and the test of the tuned model against its twins.

    `tuned` [words] and `twins` [twins, words] are in nats; `left_out` has the test of each twin against the others.
    """

    tuned: Floats
    twins: Floats
    test: TwinTest
    left_out: Sequence[TwinTest]

    @staticmethod
    def compare(tuned: Floats, twins: Floats, *, stated: Floats, information: Floats) -> TwinWords:
        """Compare a tuned model with its twins: preferences [words] and [twins, words] for words of a stated value.

        `information` [words] is what the contexts say of each word (`column_preferences`).
        """
        rest = remove_stated(np.vstack([tuned, twins]), stated=stated, information=information)
        return TwinWords(
            rest[0], rest[1:], compare_with_twins(rest[0], rest[1:], information), leave_one_out(rest[1:], information)
        )

    def rows(self, words: Sequence[str]) -> list[ResultRow]:
        """Return the report's rows: how many words differ, beside the twins left out, and the first on each side."""
        known = np.flatnonzero(~np.isnan(self.test.p))
        count = count_flags(self.test, self.left_out)
        rows = [
            ResultRow.from_estimate(SECTION, "twins", float(len(self.twins))),
            ResultRow.from_estimate(SECTION, "words_differing", count, model="difference"),
        ]
        reach = float(student.ppf(0.975, self.test.df))
        for metric, sign in (("preferred_more", 1.0), ("preferred_less", -1.0)):
            order = known[np.argsort(-sign * self.test.t[known], kind="stable")][:_LENGTH]
            for i in order[sign * self.test.t[order] > 0]:
                value, half = self.test.contrast[i], reach * self.test.error[i]
                estimate = Estimate(float(value), len(known), value - half, value + half, null_p=float(self.test.p[i]))
                rows.append(
                    ResultRow.from_estimate(SECTION, metric, estimate, model="difference", group=f"word:{words[i]}")
                )
        return rows


def remove_stated(preferences: Floats, *, stated: Floats, information: Floats) -> Floats:
    """Subtract from preferences [models, words] what the words' stated value and its size explain in each model.

    Least squares with weights by the root of `information`; the same projection for every model, so that models stay
    exchangeable. A stated value that is NaN counts as 0; a word without information stays as it is.
    """
    value = np.nan_to_num(stated)
    known = (information > 0) & np.isfinite(preferences).all(axis=0)
    inputs = np.column_stack([np.ones(len(value)), value, np.abs(value)])
    weights = information[known, None] ** 0.25  # squared below
    coefficients = np.linalg.lstsq(inputs[known] * weights, preferences[:, known].T * weights, rcond=None)[0]
    return preferences - np.where(known, (inputs @ coefficients).T, 0.0)
