"""Quadrature on [0, 1]: Gauss-Legendre rules, and the Kronrod extensions that use their nodes again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
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


class Step(NamedTuple):
    """A rule of a sequence of finer and finer ones; its first `n_known` nodes are all nodes of the rule before."""

    rule: Rule
    n_known: int

    @property
    def new(self) -> list[float]:
        """The nodes that no rule before had."""
        found: list[float] = self.rule.nodes[self.n_known :].tolist()
        return found


def refine(first: int, most: int) -> Iterator[Step]:
    """Yield rules of `first` nodes and on, each with twice as many and one, up to `most` nodes.

    Gauss's rules alternate with Kronrod's extensions of them. That of the midpoint is Gauss's rule with three nodes, so
    that it can be extended again.
    """
    n, is_gauss = first, True
    step = Step(gauss(n), 0)
    yield step
    while 2 * n + 1 <= most:
        rule = kronrod(n) if is_gauss else gauss(2 * n + 1)
        step = _put_known_first(rule, step.rule.nodes) if is_gauss else Step(rule, 0)
        n, is_gauss = 2 * n + 1, not is_gauss or n == 1
        yield step


def _put_known_first(rule: Rule, known: Floats) -> Step:
    """Order the nodes of a rule like the known ones, which are all among them; new ones follow."""
    order = np.abs(rule.nodes - known[:, None]).argmin(1)
    order = np.concatenate([order, np.setdiff1d(np.arange(len(rule.nodes)), order)])
    return Step(Rule(rule.nodes[order], rule.weights[order]), len(known))


_FEW = 0.4
"""Share of texts that may need more nodes than they started with before later texts start with one more."""


@dataclass(eq=False)
class FirstRule:
    """How many nodes texts start with: as few as enough texts before them needed."""

    most: int
    n: int = 1
    tried: int = 0
    failed: int = 0

    def note(self, tried: int, failed: int) -> None:
        """Take note of how many texts started with `n` nodes, and how many of them needed more."""
        self.tried, self.failed = self.tried + tried, self.failed + failed
        if self.failed > _FEW * self.tried and self.n < self.most:
            self.n, self.tried, self.failed = self.n + 1, 0, 0
