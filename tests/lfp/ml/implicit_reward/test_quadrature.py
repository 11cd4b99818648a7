"""Rules integrate polynomials exactly, and Kronrod's use the nodes of Gauss's again."""

from __future__ import annotations

import numpy as np
import pytest

from lfp.ml.implicit_reward.quadrature import gauss, kronrod


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
