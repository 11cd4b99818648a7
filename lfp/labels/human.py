"""Labels that a person gives in a file; they are added beside a machine's labels and never replace them."""

from __future__ import annotations

from pathlib import Path

from lfp.errors import DataError
from lfp.labels.types import Label
from lfp.texts.corpus import read_rows
from lfp.util.sanitize import bare

_VERSION = "human-1"
_RELATED = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def read_labels(path: Path) -> list[Label]:
    """Read labels from a file with the columns feature_id, description and related, and optionally reason.

    An apostrophe that the explorer's CSV export put before a formula is removed. Raises CorpusError if the file cannot
    be read, and DataError with the number of the first wrong row.
    """
    text = bare if path.suffix.lower() == ".csv" else str
    rows_of: dict[int, int] = {}
    labels = []
    rows = read_rows(path, columns=("feature_id", "description", "related"), optional=("reason",))
    for number, row in enumerate(rows):
        where = f"{path}: row {number}"
        try:
            feature_id = int(row["feature_id"])
        except (TypeError, ValueError):
            raise DataError(f"{where} has the feature_id {row['feature_id']!r}; write a feature's number") from None
        description = text(str(row["description"] or "")).strip()
        if not description:
            raise DataError(f"{where}, feature {feature_id}, has no description; write what it fires on")
        related = _RELATED.get(str(row["related"]).strip().casefold())
        if related is None:
            raise DataError(f"{where} says {row['related']!r} of related; write true or false")
        if feature_id in rows_of:
            raise DataError(
                f"{where} labels feature {feature_id} again, after row {rows_of[feature_id]}; keep one row per feature"
            )
        rows_of[feature_id] = number
        reason = text(str(row.get("reason") or "")).strip() or None
        labels.append(Label(feature_id, description, related, None, reason, (), _VERSION))
    return labels
