"""How well a description tells where its feature fires: balanced accuracy on held-out excerpts, with an interval."""

from __future__ import annotations

import math
from collections.abc import Sequence

from lfp.labels.types import Excerpt, Score

_Z95 = 1.959964


def score(
    excerpts: Sequence[Excerpt],
    *,
    detected: Sequence[bool] | None,
    fuzzed: Sequence[bool] | None,
    swapped: Sequence[bool] | None = None,
) -> Score:
    """Scores of what was said of the excerpts, one answer each: whether they fire, whether their marked token does.

    `swapped` are answers by another feature's description. None stands for no answers.
    """
    true = [one.fires for one in excerpts]
    low, high = (None, None) if detected is None else balanced_interval(true, detected)
    return Score(
        detection=None if detected is None else balanced_accuracy(true, detected),
        fuzzing=None if fuzzed is None else balanced_accuracy(true, fuzzed),
        ci_low=low,
        ci_high=high,
        n=len(excerpts),
        swapped=None if swapped is None else balanced_accuracy(true, swapped),
    )


def balanced_accuracy(true: Sequence[bool], said: Sequence[bool]) -> float | None:
    """Mean of the shares of firing and of silent excerpts that were told right; None where one kind is missing."""
    shares = _shares(true, said)
    return None if shares is None else (shares[0][0] + shares[1][0]) / 2


def balanced_interval(true: Sequence[bool], said: Sequence[bool]) -> tuple[float | None, float | None]:
    """The 95 % interval of that mean: the two shares' Wilson intervals, combined.

    Of a mean of independent shares p, q with intervals (l, u): m - sqrt((p - l_p)^2 + (q - l_q)^2) / 2 and likewise
    above (Newcombe 1998's square-and-add). Unlike a bootstrap it does not shrink to nothing where all is right.
    """
    shares = _shares(true, said)
    if shares is None:
        return None, None
    (p, n_p), (q, n_q) = shares
    (low_p, high_p), (low_q, high_q) = _wilson(p, n_p), _wilson(q, n_q)
    middle = (p + q) / 2
    return middle - math.hypot(p - low_p, q - low_q) / 2, middle + math.hypot(high_p - p, high_q - q) / 2


def _shares(true: Sequence[bool], said: Sequence[bool]) -> tuple[tuple[float, int], tuple[float, int]] | None:
    """The share told right, and how many there are, of the firing ones and of the others."""
    right = {side: [told == side for fires, told in zip(true, said, strict=True) if fires == side] for side in (1, 0)}
    if not right[1] or not right[0]:
        return None
    firing, silent = ((sum(side) / len(side), len(side)) for side in (right[1], right[0]))
    return firing, silent


def _wilson(share: float, n: int) -> tuple[float, float]:
    """The 95 % score interval of a share (Wilson 1927)."""
    z2 = _Z95**2 / n
    middle = (share + z2 / 2) / (1 + z2)
    half = math.sqrt(share * (1 - share) * z2 + z2**2 / 4) / (1 + z2)
    return middle - half, middle + half
