"""Conjugate gradients for many right-hand sides side by side, each stopping on its own."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from lfp.util.types import Flags, Floats

Linear = Callable[[Floats], Floats]
"""A linear map of vectors [features, targets], column by column."""

_MAX_PRODUCTS = 10_000


def conjugate_gradients(
    product: Linear, residual: Floats, *, precondition: Linear, is_small: Callable[[Floats, Floats], Flags]
) -> Floats:
    """The x [features, targets] of product(x) = residual, from x = 0 (Hestenes and Stiefel 1952; preconditioned).

    A target stays as it is once `is_small(residual, x)` [targets] says so, or after 10,000 products: it is the caller
    who knows whether that is near enough.
    """
    solution, residual = np.zeros_like(residual), residual.copy()
    direction = preconditioned = precondition(residual)
    square = dots(residual, preconditioned)
    for _ in range(_MAX_PRODUCTS):
        live = ~is_small(residual, solution)
        if not live.any():
            break
        image = product(direction)
        length = np.where(live, _ratio(square, dots(direction, image)), 0.0)
        solution += length * direction
        image *= length
        residual -= image
        preconditioned = precondition(residual)
        square, before = dots(residual, preconditioned), square
        direction = preconditioned + _ratio(square, before) * direction
    return solution


def dots(a: Floats, b: Floats) -> Floats:
    """Inner products [targets] of the columns of two arrays."""
    return np.einsum("rt,rt->t", a, b)


def norms(a: Floats) -> Floats:
    """Euclidean norms [targets] of the columns."""
    return np.sqrt(dots(a, a))


def _ratio(top: Floats, bottom: Floats) -> Floats:
    """Quotients, 0 where there is nothing to divide by: a target that is solved to the last bit."""
    return np.divide(top, bottom, out=np.zeros_like(top), where=bottom != 0)
