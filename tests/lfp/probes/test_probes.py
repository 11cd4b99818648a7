"""The front of probes: layers scaled alike, and everything that is fitted named in one place."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

from lfp import probes
from lfp.probes.ridge import layer_scales
from tests.lfp.builders import sparse_features


def test_every_layer_gets_unit_mean_square_norm() -> None:
    features = sparse_features(240, 30)
    layer_of = np.array([2] * 10 + [5] * 15 + [7] * 5)
    uneven = sp.csr_array(features.multiply(np.where(layer_of == 5, 1e3, 1.0)))
    scales = layer_scales(uneven, layer_of)
    scaled = uneven.toarray() * scales
    for layer in (2, 5, 7):
        assert (scaled[:, layer_of == layer] ** 2).sum(1).mean() == pytest.approx(1.0)
        assert np.ptp(scales[layer_of == layer]) == 0


def test_a_silent_layer_stays_finite() -> None:
    scales = layer_scales(sp.csr_array(np.array([[1.0, 0.0], [2.0, 0.0]])), np.array([0, 1]))
    assert np.isfinite(scales).all()


def test_the_front_names_what_it_has() -> None:
    assert all(hasattr(probes, name) for name in probes.__all__)
