import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lfp.util.types import floats

NUMBERS = st.lists(st.none() | st.floats(-1e6, 1e6, width=32))


@given(NUMBERS, NUMBERS)
def test_null_is_nan_and_every_other_number_itself(first, second):
    """Over chunks as over one."""
    table = pa.table({"value": pa.chunked_array([pa.array(part, pa.float32()) for part in (first, second)])})
    expected = [np.nan if value is None else value for value in first + second]
    np.testing.assert_array_equal(floats(table, "value"), np.array(expected, np.float64))
    assert floats(table, "value").dtype == np.float64


def test_flags_and_whole_numbers_are_floats_too():
    table = pa.table({"flag": [True, None, False], "count": [3, None, 2**53]})
    np.testing.assert_array_equal(floats(table, "flag"), [1.0, np.nan, 0.0])
    np.testing.assert_array_equal(floats(table, "count"), [3.0, np.nan, 2.0**53])


def test_a_column_that_is_not_there_is_refused():
    with pytest.raises(KeyError):
        floats(pa.table({"value": [1.0]}), "weight")
