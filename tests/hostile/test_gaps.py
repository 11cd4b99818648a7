"""Values that may be null, but not by themselves, and a few of the gaps that the schema allows."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pyarrow as pa
import pytest

from lfp.bundle.validation import validate
from tests.hostile import bundles
from tests.hostile.gaps import gaps


@pytest.mark.parametrize(
    ("table", "column", "fault"),
    [
        ("ablations", "contrast_high", "table ablations: one of contrast_low and contrast_high is null (1 rows)"),
        ("ablations", "contrast", "table ablations: contrast is null and has an interval (1 rows)"),
        ("texts", "credit_reward", "credits do not sum to texts.credit_reward within credit_error"),
    ],
)
def test_a_null_that_leaves_the_rest_without_meaning_is_a_fault(
    copied_bundle: Path, table: str, column: str, fault: str
) -> None:
    rows = bundles.read(copied_bundle, table)
    values = rows[column].to_pylist()
    first = next(at for at, value in enumerate(values) if value is not None)
    at, field = rows.schema.get_field_index(column), rows.schema.field(column)
    changed = pa.array([None if number == first else value for number, value in enumerate(values)], field.type)
    bundles.write(copied_bundle, table, rows.set_column(at, field, changed))
    assert any(fault in each for each in validate(copied_bundle))


def test_gaps_that_the_schema_allows_crash_nothing(tmp_path: Path) -> None:
    plain, _ = bundles.sources(tmp_path)
    found = bundles.run(islice(gaps(plain, tmp_path / "gaps"), 0, None, 60))
    assert found["bundles"] > 5 and found["faults"] == []
