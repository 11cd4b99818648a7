"""How well a description predicts where its feature fires: balanced accuracy on held-out excerpts, with an interval."""

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
    """Score judgements of the excerpts, one per excerpt: whether it fires, and whether its marked token does.

    `swapped` are judgements by another feature's description. None means that there are no judgements.
    """
    true = [excerpt.fires for excerpt in excerpts]
    low, high = (None, None) if detected is None else balanced_interval(true, detected)
    return Score(
        detection=None if detected is None else balanced_accuracy(true, detected),
        fuzzing=None if fuzzed is None else balanced_accuracy(true, fuzzed),
        ci_low=low,
        ci_high=high,
        n=len(excerpts),
        swapped=None if swapped is None else balanced_accuracy(true, swapped),
        p=None if detected is None else chance_p(true, detected),
    )


def balanced_accuracy(true: Sequence[bool], judged: Sequence[bool]) -> float | None:
    """Mean of the recalls of firing and of silent excerpts; None if there are no excerpts of one kind."""
    recalls = _recalls(true, judged)
    return (recalls[0][0] + recalls[1][0]) / 2 if recalls else None


def balanced_interval(true: Sequence[bool], judged: Sequence[bool]) -> tuple[float | None, float | None]:
    """Compute the 95 % interval of balanced accuracy from the Wilson intervals of both recalls.

    For the mean m of independent shares p, q with intervals (l, u): m - sqrt((p - l_p)^2 + (q - l_q)^2) / 2, and
    likewise above (Newcombe 1998's square-and-add). Unlike a bootstrap it does not shrink to nothing at 100 %.
    """
    recalls = _recalls(true, judged)
    if recalls is None:
        return None, None
    below = above = 0.0
    for share, n in recalls:  # Wilson 1927
        z2 = _Z95**2 / n
        middle = (share + z2 / 2) / (1 + z2)
        half = math.sqrt(share * (1 - share) * z2 + z2**2 / 4) / (1 + z2)
        below, above = math.hypot(below, share - (middle - half)), math.hypot(above, middle + half - share)
    mean = (recalls[0][0] + recalls[1][0]) / 2
    return mean - below / 2, mean + above / 2


def chance_p(true: Sequence[bool], judged: Sequence[bool]) -> float | None:
    """Compute the chance that judgements unrelated to the excerpts find more firing ones, or as many half the time.

    This is the mid-p value of Fisher's exact test, one-sided: unlike the test's own p it is not larger than the chance
    it stands for on average (Lancaster 1961). None if there are no excerpts of one kind.
    """
    if _recalls(true, judged) is None:
        return None
    n, n_firing, n_judged = len(true), sum(true), sum(judged)
    hits = sum(fires and said for fires, said in zip(true, judged, strict=True))
    as_many, *more = (
        math.comb(n_firing, found) * math.comb(n - n_firing, n_judged - found)
        for found in range(hits, min(n_firing, n_judged) + 1)
    )
    return (as_many / 2 + sum(more)) / math.comb(n, n_judged)


def _recalls(true: Sequence[bool], judged: Sequence[bool]) -> tuple[tuple[float, int], tuple[float, int]] | None:
    """Recall and number of the firing excerpts, and of the silent ones."""
    firing = [said for fires, said in zip(true, judged, strict=True) if fires]
    silent = [not said for fires, said in zip(true, judged, strict=True) if not fires]
    if not firing or not silent:
        return None
    return (sum(firing) / len(firing), len(firing)), (sum(silent) / len(silent), len(silent))
