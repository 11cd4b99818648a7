"""Labels that a person gives, read from a file; they stand beside a machine's, never over them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lfp.errors import DataError
from lfp.labels.types import HUMAN, Label
from lfp.texts.corpus import read_rows
from lfp.util.sanitize import bare

_VERSION = "human-1"
_TRUE, _FALSE = ("true", "yes", "1"), ("false", "no", "0")


def labeller_of(name: str) -> str:
    """What labels.labeller says of a person."""
    return f"{HUMAN}{name}"


def read_labels(path: Path) -> list[Label]:
    """Labels from a file with the columns feature_id, description and related, and reason where there is one.

    An apostrophe that the explorer's CSV put before a formula is taken off.
    Raises CorpusError where it cannot be read, and DataError naming the row that is wrong.
    """
    rows = read_rows(path, columns=("feature_id", "description", "related"), optional=("reason",))
    labels = [_label(path, number, row) for number, row in enumerate(rows)]
    seen: dict[int, int] = {}
    for number, label in enumerate(labels):
        if label.feature_id in seen:
            raise DataError(
                f"{path}: row {number} labels feature {label.feature_id} again, after row {seen[label.feature_id]};"
                " keep one row a feature"
            )
        seen[label.feature_id] = number
    return labels


def _label(path: Path, number: int, row: dict[str, Any]) -> Label:
    try:
        feature_id = int(row["feature_id"])
    except (TypeError, ValueError):
        raise DataError(
            f"{path}: row {number} has the feature_id {row['feature_id']!r}; write a feature's number"
        ) from None
    text = bare if path.suffix.lower() == ".csv" else str
    description = text(str(row["description"] or "")).strip()
    if not description:
        raise DataError(f"{path}: row {number}, feature {feature_id}, has no description; write what it fires on")
    reason = text(str(row.get("reason") or "")).strip() or None
    return Label(feature_id, description, _flag(path, number, row["related"]), None, reason, (), _VERSION)


def _flag(path: Path, number: int, value: Any) -> bool:
    told = str(value).strip().casefold()
    if told not in (*_TRUE, *_FALSE):
        raise DataError(f"{path}: row {number} says {value!r} of related; write true or false")
    return told in _TRUE
