"""What a run expects of its features, read off their tables."""

from __future__ import annotations

import pyarrow as pa
import pytest

from lfp.bundle.tables.columns import TOKEN_VALUES
from precompute.stages.features.near_misses import top_token_ids

SPELLED = ["a", "b", "\ufffd", "c", "b", "", "d", "e", "f", "\ufffd"]


def column(*rows: list[tuple[str, float]]) -> pa.ChunkedArray:
    values = [[{"token": token, "value": value} for token, value in row] for row in rows]
    return pa.chunked_array([pa.array(values[:1], TOKEN_VALUES), pa.array(values[1:], TOKEN_VALUES)])


@pytest.mark.parametrize(
    ("top", "ids"),
    [
        ([("a", 0.9), ("c", 0.1)], [0, 3]),
        ([("b", 0.5)], [1, 4]),
        ([("", 0.5)], [5]),
        ([("\ufffd", 0.5), ("a", 0.4)], [0]),
        ([("a", 0.5), ("c", 0.019)], [0]),
        ([(token, 0.1) for token in "acdef"] + [("b", 0.1)], [0, 3, 6, 7, 8]),
        ([], []),
    ],
    ids=["two", "spelled alike", "empty", "a piece of a character", "a small share", "six", "none"],
)
def test_top_tokens_are_named_by_every_id_spelled_so(top: list[tuple[str, float]], ids: list[int]) -> None:
    owners, found = top_token_ids(column([("d", 0.3)], top, [("e", 0.3)]), SPELLED)
    assert list(zip(owners.tolist(), found.tolist(), strict=True)) == [
        (0, 6),
        *((1, token_id) for token_id in ids),
        (2, 7),
    ]


def test_features_without_any_top_token_expect_nothing() -> None:
    owners, found = top_token_ids(column([], []), SPELLED)
    assert len(owners) == len(found) == 0
