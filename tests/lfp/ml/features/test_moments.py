"""Histogram bins by the bits of a number against the edges themselves."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lfp.ml.features.active import active
from lfp.ml.features.statistics import Moments, histogram_edges


@pytest.mark.parametrize("bins", [4, 8, 40, 512])
def test_edges_are_log_spaced_and_rise(bins: int) -> None:
    edges = histogram_edges(bins)
    assert (np.diff(edges) > 0).all() and edges[0] == 2.0**-10 and edges[-1] == 2.0**4
    np.testing.assert_allclose(edges, np.geomspace(2.0**-10, 2.0**4, bins + 1), rtol=2.0**-8)


@pytest.mark.parametrize("bins", [4, 40, 512])
def test_bins_are_where_the_edges_say_at_every_edge_and_beside_it(bins: int) -> None:
    edges = histogram_edges(bins).astype(np.float32)
    beside = np.concatenate([np.nextafter(edges, np.float32(0)), edges, np.nextafter(edges, np.float32(99))])
    values = np.concatenate([beside, np.float32([1e-38, 1e-9, 15.999, 16, 1e9])])
    moments = Moments(1, bins)
    moments.update(len(values), active(torch.from_numpy(values)[:, None]).by_feature)
    expected = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, bins - 1)
    assert moments.counts[0].tolist() == np.bincount(expected, minlength=bins).tolist()
    assert moments.n_active.tolist() == [len(values)]
