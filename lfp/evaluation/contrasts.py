"""Compare groups of ablated features with their controls; without scipy, which the explorer does without."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lfp.evaluation.results import CONTROL, FEATURE, controls_in
from lfp.evaluation.statistics.discoveries import adjusted_p

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(64)


def add_contrasts(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Compare each group with the mean of its controls: columns `contrast` to `contrast_q` of the table `ablations`.

    All groups share one clean run, whose luck shifts every effect alike and cancels here. p is Student's: is the group
    like another control? q is its false discovery rate among the groups, or among the single features. Where a bundle
    lacks the interval of a contrast, it is the effect's, moved by the controls' mean.
    """
    made = [{**row, **_contrast(row, controls_in(row, rows))} for row in rows]
    for is_single in (True, False):
        judged = [row for row in made if row["contrast_p"] is not None and (row["kind"] == FEATURE) == is_single]
        for row, q in zip(judged, adjusted_p(np.array([row["contrast_p"] for row in judged])), strict=True):
            row["contrast_q"] = float(q)
    return made


def _contrast(row: Mapping[str, Any], controls: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    names = ("contrast", "contrast_low", "contrast_high", "contrast_reach", "contrast_p", "contrast_q")
    found: dict[str, float | None] = dict.fromkeys(names)
    if row["kind"] == CONTROL or not controls:
        return found
    effects = np.array([control["effect"] for control in controls])
    mean = float(effects.mean())
    found["contrast"] = row["effect"] - mean
    for side in ("low", "high"):
        known = row.get(f"contrast_{side}")
        found[f"contrast_{side}"] = row[f"ci_{side}"] - mean if known is None else known
    if len(effects) > 1:
        error, freedom = float(effects.std(ddof=1)) * np.sqrt(1.0 + 1.0 / len(effects)), len(effects) - 1
        size = abs(row["effect"] - mean)
        found["contrast_reach"] = float(reach_of_t(freedom) * error)
        found["contrast_p"] = float(p_of_t(size / error, freedom)) if error else float(not size)
    return found


def p_of_t(t: float, freedom: int) -> float:
    """Return the chance that the size of Student's t is `t` or more, by quadrature over arctan(t / sqrt(freedom))."""

    def integrate(start: float) -> float:
        angles = start + (np.pi / 2 - start) * (_NODES + 1.0) / 2.0
        return float((np.pi / 2 - start) / 2.0 * (_WEIGHTS @ np.cos(angles) ** (freedom - 1)))

    return integrate(float(np.arctan(abs(t) / np.sqrt(freedom)))) / integrate(0.0)


def reach_of_t(freedom: int, *, p: float = 0.05) -> float:
    """Return the size that Student's t passes with chance `p`, by bisection."""
    low, high = 0.0, 1e4
    for _ in range(100):
        middle = (low + high) / 2.0
        low, high = (middle, high) if p_of_t(middle, freedom) > p else (low, middle)
    return high
