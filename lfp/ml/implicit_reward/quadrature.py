"""Quadrature on [0, 1]: Gauss-Legendre rules, and the Kronrod extensions that use their nodes again."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.polynomial import legendre

from lfp.util.types import Floats


class Rule(NamedTuple):
    """Nodes and weights [n] of an integral over [0, 1]."""

    nodes: Floats
    weights: Floats


@cache
def gauss(n: int) -> Rule:
    """Return the Gauss-Legendre rule with `n` nodes, exact for polynomials of degree 2n - 1."""
    nodes, weights = legendre.leggauss(n)
    return Rule((1.0 + nodes) / 2.0, weights / 2.0)


@cache
def kronrod(n: int) -> Rule:
    """Return the rule with 2n + 1 nodes, the first `n` of them those of `gauss(n)`, exact to degree 3n + 1 or more.

    The new nodes are the zeros of Stieltjes' polynomial E of degree n + 1: the product of E with the Legendre
    polynomial of degree n is orthogonal to all polynomials of degree n. The weights integrate Legendre polynomials.
    """
    at, weights = legendre.leggauss(2 * n + 2)
    values = legendre.legvander(at, n + 1)  # [points, degrees]
    products = np.einsum("p,p,pk,pj->kj", weights, values[:, n], values[:, : n + 1], values)
    # that of degree n + 1 has coefficient 1; only every second degree occurs, and the products of others vanish
    below = np.linalg.lstsq(products[:, : n + 1], -products[:, n + 1], rcond=1e-12)[0]
    nodes = np.concatenate([legendre.leggauss(n)[0], np.sort(legendre.legroots([*below, 1.0]).real)])
    moments = np.zeros(2 * n + 1)
    moments[0] = 2.0
    solved = np.linalg.solve(legendre.legvander(nodes, 2 * n).T, moments)
    return Rule((1.0 + nodes) / 2.0, np.asarray(solved, np.float64) / 2.0)
