"""The encoder's product against the plain one in double precision."""

from __future__ import annotations

import pytest
import torch

from lfp.ml.models import runtime
from lfp.ml.models.runtime import FastLinear, affine


@pytest.mark.parametrize(("n", "d_in", "width"), [(1, 1, 1), (7, 5, 33), (256, 64, 1000), (3, 0, 4), (0, 4, 3)])
def test_it_is_the_product_to_rounding_whatever_the_layout(n: int, d_in: int, width: int) -> None:
    generator = torch.Generator().manual_seed(n)
    inputs, bias = torch.randn(n, d_in, generator=generator), torch.randn(width, generator=generator)
    weight = torch.randn(width, d_in, generator=generator)
    exact = inputs.double() @ weight.double().T
    with torch.no_grad():
        for given in (inputs, inputs.T.contiguous().T):
            for rows in (weight, weight.T.contiguous().T):
                torch.testing.assert_close(affine(given, rows).double(), exact, rtol=1e-5, atol=1e-5)
                torch.testing.assert_close(affine(given, rows, bias).double(), exact + bias, rtol=1e-5, atol=1e-5)


def test_other_kinds_of_number_go_the_plain_way() -> None:
    ones = torch.ones(2, 3, dtype=torch.float64)
    with torch.no_grad():
        assert affine(ones, ones, ones[0, :2]).tolist() == [[4.0, 4.0]] * 2


def test_gradients_pass_where_they_are_wanted() -> None:
    weight = torch.ones(2, 3, requires_grad=True)
    affine(torch.ones(1, 3), weight).sum().backward()
    assert weight.grad is not None and weight.grad.tolist() == [[1.0] * 3] * 2


def test_linear_layers_take_the_fast_way_inside_and_their_own_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, inputs = torch.nn.Linear(3, 2), torch.ones(4, 5, 3)
    with torch.no_grad():
        expected = layer(inputs)
        with FastLinear():
            torch.testing.assert_close(layer(inputs), expected)
            monkeypatch.setattr(runtime, "affine", lambda *args: "fast")
            assert layer(inputs) == "fast" and torch.ones(2).sum() == 2
        assert isinstance(layer(inputs), torch.Tensor)
