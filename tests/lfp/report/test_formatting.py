"""Numbers as people read them."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lfp.report import formatting


@pytest.mark.parametrize(
    ("function", "value", "says"),
    [
        (formatting.plain, None, "–"), (formatting.plain, math.nan, "–"), (formatting.plain, -0.5, "−0.50"),
        (formatting.plain, 0.00012, "0.00012"), (formatting.plain, 0.0, "0.00"), (formatting.signed, 0.25, "+0.25"),
        (formatting.signed, 0.0, "0.00"), (formatting.signed, None, "–"), (formatting.short, 0.01, "0"),
        (formatting.short, -1.26, "−1.3"),
        (formatting.count, 1234, "1,234"), (formatting.count, 2_500_000, "2.5 million"), (formatting.count, None, "–"),
        (formatting.percent, 0.0, "0 %"), (formatting.percent, 0.123, "12 %"), (formatting.percent, 0.0123, "1.2 %"),
        (formatting.percent, 0.00001, "0.0010 %"), (formatting.percent, 1.0, "100 %"),
    ],
)  # fmt: skip
def test_numbers_as_people_read_them(function, value, says):
    assert function(value) == says


@pytest.mark.parametrize(
    ("low", "high", "digits"),
    [(None, 1.0, 2), (0.3, 0.42, 2), (-0.015, 0.003, 3), (0.01, 0.07, 2), (0.0001, 0.0004, 5)],
)
def test_a_narrow_interval_has_more_digits(low, high, digits):
    assert formatting.digits_for(low, high) == digits


@given(value=st.floats(allow_nan=True, allow_infinity=True))
def test_every_number_can_be_written(value):
    for function in (formatting.plain, formatting.signed, formatting.percent):
        assert function(value)


def test_told_numbers_have_the_digits_of_their_interval():
    assert formatting.with_interval(0.123, None, None) == "0.12"
    assert formatting.with_interval(-0.0123, -0.02, -0.005) == "−0.012 [−0.020, −0.005]"
    assert formatting.with_interval(0.5, 0.4, 0.6, is_signed=True) == "+0.50 [0.40, 0.60]"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (13_543_251.0, "13,543,251"), (6534.04, "6,534"), (103.04, "103.0"), (45.0, "45"), (1.6249, "1.625"),
        (0.00048, "0.00048"), (3.2e-8, "3.2e−08"), (-1e-13, "0"), (None, "–"), (float("nan"), "–"),
    ],
)  # fmt: skip
def test_a_number_of_any_unit_has_about_three_digits(value: float | None, shown: str) -> None:
    assert formatting.number(value) == shown


def test_what_rounds_to_zero_has_no_sign() -> None:
    assert formatting.interval(-0.001, 0.5) == "0.00 to 0.50" and formatting.plain(-1e-15) == "0.00"


@pytest.mark.parametrize(
    ("value", "says"),
    [(0.25, "+0.25"), (0.0, "0.00"), (-1e-310, "0.00"), (1.7e-6, "+1.70 · 10⁻⁶"), (3e-308, "+3.00 · 10⁻³⁰⁸")],
)
def test_small_values_have_a_power_of_ten_as_far_as_there_is_one(value: float, says: str) -> None:
    assert formatting.with_power(value) == says


def test_the_smallest_number_can_be_written_with_its_interval() -> None:
    assert formatting.with_power(5e-324, -5e-324, 5e-324).endswith("]")
