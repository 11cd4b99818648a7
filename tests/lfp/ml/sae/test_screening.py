"""Screening by a bfloat16 product: exactly the entries, and the values, of a float32 product."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from lfp.ml.sae import screening
from lfp.ml.sae.screening import Screen, bf16_is_fast, screened
from lfp.ml.sae.sparse_codes import SparseCode

U = 2.0**-8
"""Unit round-off of bfloat16."""
WIDTHS = [1, 7, 130, 512, 640]
"""The last two are looked at by groups of features; 130 is no multiple of 128."""
PRECISIONS = pytest.mark.parametrize("bf16", [False, True], ids=["float32", "bfloat16"])


@dataclass(frozen=True)
class Case:
    """Inputs [n, d_in], an encoder [width, d_in] and its bias."""

    inputs: Tensor
    encoder: Tensor
    b_enc: Tensor

    @torch.no_grad()
    def screen(self, *, bf16: bool) -> Screen:
        return screened(self.inputs, self.encoder, self.b_enc, bf16=bf16)

    @property
    def exact(self) -> NDArray[np.float64]:
        """Pre-activations in float64."""
        inputs, encoder, b_enc = (tensor.double().numpy() for tensor in (self.inputs, self.encoder, self.b_enc))
        return inputs @ encoder.T + b_enc

    @property
    def rounding(self) -> NDArray[np.float64]:
        """How far two float32 products may lie apart."""
        norms = self.inputs.norm(dim=1).double(), self.encoder.norm(dim=1).double()
        return 1e-6 * (torch.outer(*norms) + self.b_enc.abs()).numpy()


def whole(width: int, *, high: int = 300, n: int = 9) -> Case:
    """Whole numbers of nine bits: float32 rounds none of the products, bfloat16 most; with a low `high` many are equal.

    |pre| is at most 4 * 300^2 + 1000.
    """
    rng = np.random.default_rng([width, high, n])

    def numbers(*shape: int, high: int) -> Tensor:
        return torch.from_numpy(rng.integers(-high, high + 1, shape).astype(np.float32))

    return Case(numbers(n, 4, high=high), numbers(width, 4, high=high), numbers(width, high=min(high, 1000)))


def spread(width: int) -> Case:
    """Rows and features of norms a million times as large as others'."""
    case, rng = whole(width), np.random.default_rng(width)
    of_rows, of_features = (
        torch.from_numpy(2.0 ** rng.integers(-10, 11, (n, 1))).float() for n in (len(case.inputs), width)
    )
    return Case(case.inputs * of_rows, case.encoder * of_features, torch.zeros(width))


def biased(width: int, bias: float) -> Case:
    """Biases much larger than most products."""
    case = whole(width)
    return replace(case, b_enc=case.b_enc + bias)


def cancelled(width: int) -> Case:
    """Biases that take away nearly the whole product, all of it in the first row."""
    case = whole(width)
    inputs = case.inputs[0] + torch.arange(len(case.inputs))[:, None] % 3 * torch.tensor([1.0, -1.0, 0.0, 1.0])
    return Case(inputs, case.encoder, -(case.encoder @ inputs[0]))


def negative(width: int, *, every: int) -> Case:
    """Nothing above zero but one feature in so many."""
    case = whole(width)
    return replace(case, b_enc=torch.where(torch.arange(width) % every == every - 1, case.b_enc, -1e6))


CASES: dict[str, Callable[[int], Case]] = {
    "whole": whole,
    "spread": spread,
    "many equal": lambda width: whole(width, high=1),
    "all equal": lambda width: replace(whole(width, high=1), encoder=torch.ones(width, 4), b_enc=torch.ones(width)),
    "bias above": lambda width: biased(width, 2e6),
    "bias below": lambda width: biased(width, -2e6),
    "cancelled": cancelled,
    "few above zero": lambda width: negative(width, every=50),
    "none above zero": lambda width: negative(width, every=10**6),
    "no inputs": lambda width: replace(whole(width), inputs=torch.zeros(9, 4)),
    "one row": lambda width: whole(width, n=1),
}
of_all_cases = pytest.mark.parametrize("make", CASES.values(), ids=list(CASES))
of_all_widths = pytest.mark.parametrize("width", WIDTHS)


def ks(width: int) -> list[int]:
    return sorted({k for k in (1, 5, 128, 129, width) if k <= width})


def check(code: SparseCode, case: Case, mask: NDArray[np.bool_]) -> None:
    """The entries of the mask, and the very float32 values there."""
    rows, features = mask.nonzero()
    assert code.rows.tolist() == rows.tolist()
    assert code.features.tolist() == features.tolist()
    assert code.values.tolist() == case.exact[mask].tolist()
    assert (len(code), code.width) == mask.shape


def naive_top(exact: NDArray[np.float64], k: int) -> NDArray[np.bool_]:
    """The k largest of every row that are above zero, of equals the first."""
    mask = np.zeros(exact.shape, bool)
    np.put_along_axis(mask, np.argsort(-exact, axis=1, kind="stable")[:, :k], True, axis=1)
    return mask & (exact > 0)


@of_all_cases
@of_all_widths
def test_float32_rounds_none_of_the_cases(make: Callable[[int], Case], width: int) -> None:
    case = make(width)
    product = case.screen(bf16=False).values
    assert np.array_equal(product.double().numpy(), case.exact)


@pytest.mark.parametrize("name", ["whole", "spread", "bias above", "cancelled"])
def test_bfloat16_alone_would_be_wrong(name: str) -> None:
    """So that the tests below can fail."""
    case = CASES[name](640)
    exact, rough = case.exact, case.screen(bf16=True).values.double().numpy()
    assert not np.array_equal(naive_top(rough, 40), naive_top(exact, 40))
    assert not np.array_equal(rough > np.median(exact), exact > np.median(exact))


@PRECISIONS
@of_all_cases
@of_all_widths
def test_entries_above_a_floor(make: Callable[[int], Case], width: int, bf16: bool) -> None:
    """Of each kind of floor, among them floors that many entries just reach, and of both signs at once."""
    case = make(width)
    exact, screen = case.exact, case.screen(bf16=bf16)
    middle, low, by_row = np.median(exact), np.quantile(exact, 0.1, axis=0), np.quantile(exact, 0.9, axis=1)
    reached = exact[0].copy()  # every entry of the first row is at its floor, not above it
    for floor in (np.zeros(()), middle, -np.abs(middle), low, reached, by_row[:, None], exact[:, :1]):
        floor = np.float32(floor)
        check(screen.above(torch.as_tensor(floor)), case, exact > floor)


@PRECISIONS
@of_all_cases
@of_all_widths
def test_the_largest_of_each_row(make: Callable[[int], Case], width: int, bf16: bool) -> None:
    case = make(width)
    for k in ks(width):
        check(case.screen(bf16=bf16).top_of_rows(k), case, naive_top(case.exact, k))


@PRECISIONS
@of_all_cases
@of_all_widths
def test_the_largest_of_the_batch(make: Callable[[int], Case], width: int, bf16: bool) -> None:
    case = make(width)
    for k in ks(case.exact.size):
        mask = naive_top(case.exact.reshape(1, -1), k).reshape(case.exact.shape)
        check(case.screen(bf16=bf16).top_of_all(k), case, mask)


@st.composite
def random_cases(draw: st.DrawFn) -> Case:
    """Normal numbers, rows and features of like or of widely different norms, biases of any size."""
    n, width, d_in = draw(st.integers(1, 5)), draw(st.sampled_from(WIDTHS)), draw(st.integers(1, 40))
    rng = np.random.default_rng(draw(st.integers(0, 9999)))

    def normal(*shape: int) -> Tensor:
        numbers = rng.normal(size=shape) * 10.0 ** rng.uniform(-1, 1, (shape[0], 1)) ** draw(st.sampled_from([0, 1, 3]))
        return torch.from_numpy(numbers.astype(np.float32))

    b_enc = normal(width, 1)[:, 0] * draw(st.sampled_from([0.0, 1.0, 1e4]))
    return Case(normal(n, d_in), normal(width, d_in), b_enc)


@PRECISIONS
@given(random_cases(), st.floats(0.0, 1.0))
def test_random_entries_above_a_floor_but_for_rounding(bf16: bool, case: Case, quantile: float) -> None:
    exact, slack = case.exact, case.rounding
    floor = np.float32(np.quantile(exact, quantile, axis=1, keepdims=True))
    code = case.screen(bf16=bf16).above(torch.from_numpy(floor))
    found = np.zeros(exact.shape, bool)
    found[code.rows, code.features] = True
    assert found[exact > floor + slack].all()
    assert not found[exact < floor - slack].any()
    assert (np.abs(code.values.numpy() - exact[found]) <= slack[found]).all()


@PRECISIONS
@given(random_cases(), st.floats(0.0, 1.0))
def test_random_largest_entries_but_for_rounding(bf16: bool, case: Case, share: float) -> None:
    exact, slack = case.exact, case.rounding.max(axis=1, keepdims=True)
    k = max(1, round(share * exact.shape[1]))
    code = case.screen(bf16=bf16).top_of_rows(k)
    found = np.zeros(exact.shape, bool)
    found[code.rows, code.features] = True
    floor = np.maximum(0.0, np.sort(exact, axis=1)[:, [-k]])
    assert found[exact > floor + slack].all()
    assert not found[exact < floor - slack].any()
    assert (found.sum(1) <= k).all() and (found.sum(1) >= np.minimum(k, (exact > slack).sum(1))).all()
    assert (np.abs(code.values.numpy() - exact[found]) <= case.rounding[found]).all()


def worst_use(case: Case) -> float:
    """The largest error of the low-precision product, as a share of what is claimed to bound it."""
    screen = case.screen(bf16=True)
    values = screen.values.double().numpy()
    assert screen.margins is not None
    bound = screen.margins.double().numpy() + U * np.abs(values)
    return float((np.abs(values - case.exact) / np.maximum(bound, 1e-300)).max())


@given(random_cases())
def test_the_error_is_bounded_as_claimed(case: Case) -> None:
    assert worst_use(case) <= 1.0


@of_all_cases
def test_the_error_is_bounded_as_claimed_in_every_case(make: Callable[[int], Case]) -> None:
    assert all(worst_use(make(width)) <= 1.0 for width in WIDTHS)


@pytest.mark.parametrize("d_in", [1, 3, 64, 257, 1024])
@pytest.mark.parametrize("bias", [0.0, -1.0, 1.0])
def test_the_worst_rounding_there_is_stays_within_the_bound(d_in: int, bias: float) -> None:
    """1 + 2^-8 lies half way between two bfloat16 numbers: here it takes every factor down. At 257 the sum too."""
    half_way = torch.full((2, d_in), 1 + U)
    use = worst_use(Case(half_way, half_way, bias * (half_way @ half_way[0])))
    assert use <= 1.0
    if d_in == 257 and not bias:
        assert use > 0.98, "the bound is hardly wider than it must be"


def test_entries_rounded_the_worst_way_are_found() -> None:
    """The first feature is rounded down as far as can be, to its floor; the second, just smaller, is rounded up."""
    for d_in in range(250, 520):
        inputs, encoder = torch.ones(1, d_in), torch.zeros(2, d_in)
        encoder[0] = 1 + U
        encoder[1, : int(d_in * (1 + U) / (1 + 3 * U) - 1e-9)] = 1 + 3 * U
        case = Case(inputs, encoder, torch.zeros(2))
        largest, other = case.exact[0]
        assert largest > other
        screen = case.screen(bf16=True)
        assert screen.top_of_rows(1).features.tolist() == [0]
        assert 0 in screen.above(torch.tensor(np.nextafter(np.float32(largest), np.float32(0)))).features


@given(
    st.lists(st.floats(-100, 100, width=16), min_size=1, max_size=30),
    st.lists(st.floats(-100, 100, width=16), min_size=1, max_size=4),
)
def test_comparing_by_bits_is_comparing(values: list[float], floors: list[float]) -> None:
    """Of floors of one sign or of both, equal values among them; 0 has one sign here, as it has after a product."""
    row = (torch.tensor([*values, *floors]) + 0.0).bfloat16()
    floor = (torch.tensor(floors)[:, None] + 0.0).bfloat16()
    matrix = row.expand(len(floors), -1).contiguous()
    assert torch.equal(screening._at_least(matrix, floor), matrix >= floor)


@pytest.mark.parametrize(("found", "fast"), [({}, False), ({"avx512_bf16": True}, True), ({"amx_bf16": True}, True)])
def test_bfloat16_is_used_where_the_processor_has_it(
    monkeypatch: pytest.MonkeyPatch, found: dict[str, bool], fast: bool
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": False, "amx_bf16": False} | found)
    assert bf16_is_fast() is fast
