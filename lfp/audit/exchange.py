"""Export and import audits as CSV, Parquet or JSON, so that another machine has the same verdicts."""

from __future__ import annotations

import csv
import datetime
import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lfp.audit.records import AuditList, BundleKey, Verdict, checked
from lfp.audit.store import AuditStore
from lfp.errors import AuditError
from lfp.util.sanitize import bare

_TEXT, _TAGS = pa.string(), pa.list_(pa.string())
_VERDICTS = pa.schema(
    [
        ("bundle_id", _TEXT), ("features_hash", _TEXT), ("feature_id", pa.int64()), ("reviewer", _TEXT),
        ("verdict", _TEXT), ("related", _TEXT), ("confidence", pa.float64()), ("tags", _TAGS), ("note", _TEXT),
        ("description", _TEXT), ("labeller", _TEXT), ("label", _TEXT), ("is_blind", pa.bool_()),
        ("created_at", _TEXT), ("uid", _TEXT), ("supersedes", _TEXT),
    ]
)  # fmt: skip
_LISTS = pa.schema(
    [
        ("bundle_id", _TEXT), ("features_hash", _TEXT), ("list", _TEXT), ("position", pa.int64()),
        ("feature_id", pa.int64()), ("origin", _TEXT), ("created_by", _TEXT), ("created_at", _TEXT),
    ]
)  # fmt: skip
_HUMAN = pa.schema([("feature_id", pa.int64()), ("description", _TEXT), ("related", pa.bool_()), ("reason", _TEXT)])


@dataclass(frozen=True)
class Imported:
    """Counts of an import: new verdicts, known verdicts, rows of other bundles that were left out, new lists."""

    n_new: int
    n_known: int
    n_other: int
    n_lists: int


def verdict_table(bundle: BundleKey, verdicts: Iterable[Verdict]) -> pa.Table:
    """Return verdicts as rows that name their bundle."""
    key = {"bundle_id": bundle.bundle_id, "features_hash": bundle.features_hash}
    rows = [{**vars(verdict), **key, "tags": list(verdict.tags)} for verdict in verdicts]
    return pa.Table.from_pylist(rows, schema=_VERDICTS)


def list_table(bundle: BundleKey, lists: Iterable[AuditList]) -> pa.Table:
    """Return lists as rows, one per feature of a list; positions count from 0."""
    key = {"bundle_id": bundle.bundle_id, "features_hash": bundle.features_hash}
    rows = [
        {**vars(audit_list), **key, "list": audit_list.name, "position": position, "feature_id": feature_id}
        for audit_list in lists
        for position, feature_id in enumerate(audit_list.feature_ids)
    ]
    return pa.Table.from_pylist(rows, schema=_LISTS)


def human_table(verdicts: Iterable[Verdict], reviewer: str) -> pa.Table:
    """Return a reviewer's own descriptions, as `lfp label --labeller human --from` reads them.

    `verdicts` are the newest. Only features with a description and a yes or no are kept: a label needs both.
    """
    rows = [
        {
            "feature_id": verdict.feature_id,
            "description": verdict.description,
            "related": verdict.related == "yes",
            "reason": verdict.note or None,
        }
        for verdict in sorted(verdicts, key=lambda verdict: verdict.feature_id)
        if verdict.reviewer == reviewer and verdict.description and verdict.related in ("yes", "no")
    ]
    return pa.Table.from_pylist(rows, schema=_HUMAN)


def read_file(store: AuditStore, bundle: BundleKey, *, name: str, content: bytes, n_features: int) -> Imported:
    """Import the verdicts or lists of a file, all or none. Raises AuditError that names the row at fault.

    Rows that name no bundle count as this bundle's. An apostrophe that the export put before a formula is removed.
    """
    rows = _rows(name, content)
    if not rows or "feature_id" not in rows[0]:
        raise AuditError(f"{name}: no column feature_id; give a file that was exported here, or one like it")
    key = {"bundle_id": bundle.bundle_id, "features_hash": bundle.features_hash}
    kept = [(at, row) for at, row in enumerate(rows) if all((row.get(part) or key[part]) == key[part] for part in key)]
    n_other = len(rows) - len(kept)
    if "list" in rows[0]:
        return Imported(0, 0, n_other, _import_lists(store, bundle, name, kept, n_features))
    verdicts = [_read(name, at, row, n_features, _verdict) for at, row in kept]
    n_new = store.bring(bundle, verdicts)
    return Imported(n_new, len(verdicts) - n_new, n_other, 0)


def _import_lists(
    store: AuditStore, bundle: BundleKey, name: str, rows: Sequence[tuple[int, Mapping[str, Any]]], n_features: int
) -> int:
    found: dict[str, list[tuple[int, int]]] = {}
    firsts: dict[str, Mapping[str, Any]] = {}
    for at, row in rows:
        called = str(row["list"] or "").strip()
        place = _read(name, at, row, n_features, lambda row, id_: (int(row.get("position") or 0), id_))
        found.setdefault(called, []).append(place)
        firsts.setdefault(called, row)
    held = {audit_list.name: audit_list.feature_ids for audit_list in store.lists(bundle)}
    new = []
    for called, places in found.items():
        feature_ids = tuple(feature_id for _, feature_id in sorted(places))
        origin, created_by = (str(firsts[called].get(key) or "") for key in ("origin", "created_by"))
        if held.get(called) == feature_ids:
            continue
        if called in held:
            raise AuditError(f"{name}: there is another list called {called} here; rename one of them")
        new.append(AuditList(called, feature_ids, origin, created_by))
    for audit_list in new:
        store.add_list(bundle, audit_list)
    return len(new)


def _rows(name: str, content: bytes) -> list[dict[str, Any]]:
    kind = name.rsplit(".", 1)[-1].lower()
    try:
        if kind == "parquet":
            return pq.read_table(pa.BufferReader(content)).to_pylist()
        if kind == "json":
            rows = json.loads(content.decode("utf-8-sig"))
            if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
                raise AuditError(f"{name}: not a list of rows; give a file that was exported here")
            return rows
        if kind == "csv":
            csv.field_size_limit(10_000_000)
            reader = csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline=""), strict=True)
            return [{key: value and bare(value) for key, value in row.items() if key} for row in reader]
    except (ValueError, pa.ArrowException, csv.Error, OSError, RecursionError) as error:
        raise AuditError(f"{name}: cannot be read as {kind}; export it again") from error
    raise AuditError(f"{name}: ends in neither .csv, .parquet nor .json; give one of those")


def _read(name: str, at: int, row: Mapping[str, Any], n_features: int, take: Callable[..., Any]) -> Any:
    """Read a row by `take`; its errors name the row's number."""
    try:
        feature_id = int(row["feature_id"])
        if not 0 <= feature_id < n_features:
            raise AuditError(f"there is no feature {feature_id}; this bundle holds {n_features}")
        return take(row, feature_id)
    except AuditError as error:
        raise AuditError(f"{name}, row {at}: {error}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise AuditError(f"{name}, row {at}: cannot be read ({error}); correct it") from error


def _verdict(row: Mapping[str, Any], feature_id: int) -> Verdict:
    words = {name: str(row[name]) for name in _WORDS if row.get(name) not in (None, "")}
    if len(words.get("uid", "")) > 36:
        raise AuditError("its uid is longer than 36 characters; leave it out")
    if "created_at" in words:
        moment = datetime.datetime.fromisoformat(words["created_at"])
        words["created_at"] = moment.astimezone(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    tags = row.get("tags") or ()
    if isinstance(tags, str):  # a list as JSON, or words between commas
        tags = json.loads(tags) if tags.startswith("[") else tags.split(",")
    return checked(
        Verdict(
            feature_id=feature_id,
            confidence=None if row.get("confidence") in (None, "") else float(row["confidence"]),
            tags=tuple(str(tag) for tag in tags),
            is_blind=str(row.get("is_blind")).lower() in ("true", "1"),
            **{"reviewer": "", **words},
        )
    )


_WORDS = (
    "reviewer", "verdict", "related", "note", "description", "labeller", "label", "uid", "created_at", "supersedes",
)  # fmt: skip
"""Columns of text; those that are empty are left at the default."""
