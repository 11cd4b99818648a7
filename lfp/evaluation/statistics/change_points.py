"""Whether a series changed its level at once, against every smooth course that as few numbers describe."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lfp.util.types import Floats, Ints

FEWEST = 6
"""Values below which nothing is tested: a course has three numbers."""
_SLOWEST, _FASTEST, _N_RATES = 0.25, 3.0, 12
"""Exponential courses: e-folds over the whole series, e-folds between two values, and how many rates between."""
_NO_NOISE = 1e-12
"""Share of the sum of squares below which a course is exact."""
_N_PARAMETERS = 3
_MOST_CORRELATED = 0.9


@dataclass(frozen=True, eq=False)
class Courses:
    """Orthonormal bases [values, 2 or 3] of smooth courses: constant plus exponential, and quadratic."""

    bases: tuple[Floats, ...]

    @staticmethod
    def between(edges: Ints | Floats) -> Courses:
        """Build the courses of means over the intervals between edges [values + 1], which rise."""
        at = (np.asarray(edges, np.float64) - edges[0]) / (edges[-1] - edges[0])
        n, middle = len(at) - 1, (at[1:] + at[:-1]) / 2.0
        shapes = [np.column_stack([middle, middle**2])]
        for rate in np.geomspace(_SLOWEST, _FASTEST * n, _N_RATES):
            for first, sign in ((at, 1.0), (1.0 - at, -1.0)):
                decayed = np.exp(-rate * first)
                shapes.append((sign * (decayed[:-1] - decayed[1:]) / np.diff(at))[:, None])
        return Courses(tuple(_orthonormal(shape / np.abs(shape).max()) for shape in shapes))

    def errors(self, values: Floats) -> Floats:
        """Return the squared error of each course [courses, ...] fitted to values [..., values]."""
        squares = (values**2).sum(-1)
        return np.maximum(np.array([squares - ((values @ basis) ** 2).sum(-1) for basis in self.bases]), 0.0)


def _orthonormal(shape: Floats) -> Floats:
    return np.asarray(np.linalg.qr(np.column_stack([np.ones(len(shape)), shape]))[0])


def find_step(series: Floats) -> tuple[Ints, Floats]:
    """Return after how many values two levels fit series [..., values] best, and their squared error, [...] each."""
    n, sums = series.shape[-1], series.cumsum(-1)
    before = np.arange(1, n)
    left, right = sums[..., :-1], sums[..., -1:] - sums[..., :-1]
    errors = (series**2).sum(-1)[..., None] - left**2 / before - right**2 / (n - before)
    place = errors.argmin(-1)
    return place + 1, np.maximum(np.take_along_axis(errors, place[..., None], -1)[..., 0], 0.0)


def judge_step(values: Floats, courses: Courses, *, n: int, rng: np.random.Generator) -> float:
    """Return the p-value of a change of level [values] at once, where two levels fit better than every smooth course.

    The null is the smooth course that fits best, drawn `n` times with noise of the size and of the correlation between
    neighbours that it leaves; as few values show too little of that, 3 / values is added to it. p is 1 where a smooth
    course fits as well as two levels.
    """
    gain = float(_gain(values, courses))
    if gain == 0.0:
        return 1.0
    basis = courses.bases[int(courses.errors(values).argmin())]
    fitted = basis @ (basis.T @ values)
    left = values - fitted
    squares = float((left**2).sum())
    of_neighbours = float((left[1:] * left[:-1]).sum()) / squares + _N_PARAMETERS / len(values)
    correlation = float(np.clip(of_neighbours, 0.0, _MOST_CORRELATED))
    size = np.sqrt(squares / (len(values) - _N_PARAMETERS))
    drawn = fitted + size * _correlated_noise((n, len(values)), correlation, rng)
    return float((1 + (_gain(drawn, courses) >= gain).sum()) / (n + 1))


def _gain(values: Floats, courses: Courses) -> Floats:
    """Return the log of the smooth courses' least error over that of two levels [...], 0 where it is no larger."""
    least = _NO_NOISE * (values**2).sum(-1) + np.finfo(float).tiny
    centred = values - values.mean(-1, keepdims=True)
    smooth, steps = courses.errors(centred).min(0) + least, find_step(centred)[1] + least
    return np.maximum(np.log(smooth / steps), 0.0)


def _correlated_noise(shape: tuple[int, int], correlation: float, rng: np.random.Generator) -> Floats:
    noise = rng.normal(size=shape)
    noise[:, 1:] *= np.sqrt(1.0 - correlation**2)
    for i in range(1, shape[1]):
        noise[:, i] += correlation * noise[:, i - 1]
    return noise
