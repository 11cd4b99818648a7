"""Rules integrate polynomials exactly, and Kronrod's use the nodes of Gauss's again."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from lfp.ml.implicit_reward.quadrature import FirstRule, gauss, kronrod, refine


@pytest.mark.parametrize("n", [1, 2, 3, 4, 7, 15, 31])
def test_rules_are_exact_to_their_degree(n: int) -> None:
    for rule, degree in ((gauss(n), 2 * n - 1), (kronrod(n), 3 * n + 1)):
        powers = rule.nodes[:, None] ** np.arange(degree + 1)
        np.testing.assert_allclose(rule.weights @ powers, 1.0 / np.arange(1, degree + 2), rtol=1e-10)
        assert (rule.weights > 0).all() and rule.nodes.min() > 0.0 and rule.nodes.max() < 1.0
    np.testing.assert_array_equal(kronrod(n).nodes[:n], gauss(n).nodes)


def test_kronrods_seven_nodes_are_those_of_tables() -> None:
    """Of Laurie (1997) and QUADPACK: the extension of the rule with seven nodes, on [-1, 1]."""
    known = [0.991455371120812639, 0.864864423359769073, 0.586087235467691130, 0.207784955007898468]
    new = np.sort(np.abs(2.0 * kronrod(7).nodes[7:] - 1.0))[::-2]
    np.testing.assert_allclose(new, known, rtol=1e-12)


@pytest.mark.parametrize(("first", "nodes"), [(1, [1, 3, 7, 15, 31]), (2, [2, 5, 11, 23]), (4, [4, 9, 19])])
def test_finer_rules_have_the_nodes_of_those_they_extend(first: int, nodes: list[int]) -> None:
    steps = list(refine(first, 31))
    assert [len(step.rule.nodes) for step in steps] == nodes
    known = [0, 1, 3, 0] if first == 1 else [0, first, 0, nodes[2]]
    assert [step.n_known for step in steps[:4]] == known[: len(steps)]
    for before, step in pairwise(steps):
        assert len(step.new) == len(step.rule.nodes) - step.n_known
        np.testing.assert_allclose(step.rule.nodes[: step.n_known], before.rule.nodes[: step.n_known], atol=1e-12)
        np.testing.assert_allclose(step.rule.weights @ step.rule.nodes**4, 0.2, rtol=1e-10)


def test_texts_start_with_more_nodes_when_many_before_them_needed_more() -> None:
    first = FirstRule(most=2)
    for failed, n in ((4, 1), (5, 2), (10, 2)):
        first.note(10, failed)
        assert first.n == n
