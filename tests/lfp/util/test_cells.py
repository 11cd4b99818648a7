import pytest
from hypothesis import given
from hypothesis import strategies as st

from lfp.util.sanitize import bare, guarded

TEXT = st.text(max_size=6) | st.text("'=+-@\t\ra ", max_size=6)


@given(text=TEXT)
def test_what_is_guarded_comes_back_and_is_no_formula(text):
    assert bare(guarded(text)) == text
    assert not guarded(text).startswith(("=", "+", "-", "@", "\t", "\r"))


@given(one=TEXT, other=TEXT)
def test_two_texts_make_two_cells(one, other):
    assert (guarded(one) == guarded(other)) == (one == other)


@pytest.mark.parametrize(
    ("text", "cell"),
    [("=1+1", "'=1+1"), ("'=1+1", "''=1+1"), ("''-x", "'''-x"), ("'tis", "'tis"), ("", ""), ("'", "'"), ("a=b", "a=b")],
)
def test_only_formulas_and_what_looks_like_a_guarded_one_are_guarded(text, cell):
    assert (guarded(text), bare(cell)) == (cell, text)
