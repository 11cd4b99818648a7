"""A change of level at once against smooth courses: how often it is found where there is none, and where there is."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest

from lfp.evaluation.statistics.change_points import Courses, find_step, judge_step

EDGES = np.arange(0, 61, 6)
COURSES = Courses.between(EDGES)
AT = (EDGES[1:] + EDGES[:-1]) / 120
N = len(AT)


def _white(rng: np.random.Generator) -> np.ndarray:
    return rng.normal(size=N)


def _correlated(rng: np.random.Generator) -> np.ndarray:
    noise = rng.normal(size=N)
    for i in range(1, N):
        noise[i] = 0.6 * noise[i - 1] + 0.8 * noise[i]
    return noise


SMOOTH = {
    "even": np.ones(N),
    "exponential": np.exp(-AT / 0.3),
    "linear": 1.0 - 0.8 * AT,
    "up and down": AT * np.exp(-AT / 0.1) / 0.037,
    "sigmoid": 1 / (1 + np.exp((AT - 0.5) / 0.1)),
}


def reject(course: np.ndarray, noise: Callable[[np.random.Generator], np.ndarray], size: float, *, n: int) -> float:
    rng = np.random.default_rng(0)
    found = [judge_step(course + size * noise(rng), COURSES, n=99, rng=rng) for _ in range(n)]
    return float(np.mean(np.array(found) <= 0.05))


@pytest.mark.parametrize("name", SMOOTH)
def test_a_smooth_course_is_seldom_taken_for_a_step(name: str) -> None:
    assert reject(SMOOTH[name], _white, 0.05, n=150) <= 0.08


def test_noise_that_lasts_is_seldom_taken_for_a_step() -> None:
    assert reject(SMOOTH["even"], _correlated, 0.1, n=300) <= 0.13  # exchanging the values: 0.22


@pytest.mark.parametrize(
    ("noise", "size", "least"), [(_white, 0.1, 0.7), (_white, 0.05, 0.97), (_correlated, 0.05, 0.9)]
)
def test_a_step_to_half_is_found(noise: Callable[[np.random.Generator], np.ndarray], size: float, least: float) -> None:
    assert reject(np.where(AT < 0.4, 1.0, 0.5), noise, size, n=100) >= least


def test_the_step_is_where_two_means_fit_best() -> None:
    values = np.random.default_rng(1).normal(size=(5, N))
    places, errors = find_step(values)
    for row, place, error in zip(values, places, errors, strict=True):
        splits = [((row[:k] - row[:k].mean()) ** 2).sum() + ((row[k:] - row[k:].mean()) ** 2).sum()
                  for k in range(1, N)]  # fmt: skip
        assert place == 1 + int(np.argmin(splits)) and error == pytest.approx(min(splits))


def test_courses_hold_means_over_intervals_of_any_length() -> None:
    edges = np.array([0, 2, 10, 20, 25, 40, 41, 60])
    courses = Courses.between(edges)
    rates = np.geomspace(0.25, 3.0 * 7, 12)
    fine = [np.linspace(a, b, 20001) / 60 for a, b in pairwise(edges.tolist())]
    for rate in rates[[0, 5, 9]]:
        for sign in (1.0, -1.0):
            means = np.array([np.trapezoid(np.exp(-sign * rate * at), at) / (at[-1] - at[0]) for at in fine])
            means /= means.max()
            assert courses.errors(3.0 - 2.0 * means).min() < 1e-8
