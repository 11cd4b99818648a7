"""Export and import audits as CSV, Parquet or JSON, so that another machine has the same verdicts."""

from __future__ import annotations

import csv
import datetime
import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from lfp.audit.records import AuditList, BundleKey, Verdict, checked, checked_list
from lfp.audit.remarks import Remark, checked_remark
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
_FIRST = datetime.datetime(2000, 1, 1, tzinfo=datetime.UTC)
"""No verdict is older."""
R = TypeVar("R")
_HUMAN = pa.schema([("feature_id", pa.int64()), ("description", _TEXT), ("related", pa.bool_()), ("reason", _TEXT)])


@dataclass(frozen=True)
class Imported:
    """Counts of an import: new verdicts, known ones, rows of other bundles that were left out, new lists, remarks."""

    n_new: int
    n_known: int
    n_other: int
    n_lists: int
    n_remarks: int = 0


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


def read_file(
    store: AuditStore, bundle: BundleKey, *, name: str, content: bytes, n_features: int, n_texts: int
) -> Imported:
    """Import the verdicts, remarks or lists of a file, all or none. Raises AuditError that names the row at fault.

    Rows that name no bundle count as this bundle's. An apostrophe that the export put before a formula is removed.
    """
    rows = _rows(name, content)
    held = set(rows[0]) if rows else set()
    if not {"feature_id"} <= held and not {"kind", "subject"} <= held:
        raise AuditError(
            f"{name}: no column feature_id, nor kind and subject; give a file that was exported here, or one like it"
        )
    key = {"bundle_id": bundle.bundle_id, "features_hash": bundle.features_hash}
    kept = [(at, row) for at, row in enumerate(rows) if all((row.get(part) or key[part]) == key[part] for part in key)]
    n_other = len(rows) - len(kept)
    if "subject" in held:
        remarks = [_read(name, at, row, lambda row: _remark(row, n_texts)) for at, row in kept]
        n_new = store.bring_remarks(bundle, remarks)
        return Imported(0, len(remarks) - n_new, n_other, 0, n_remarks=n_new)
    if "list" in held:
        return Imported(0, 0, n_other, _import_lists(store, bundle, name, kept, n_features))
    verdicts = [_read(name, at, row, lambda row: _verdict(row, n_features)) for at, row in kept]
    n_new = store.bring(bundle, verdicts)
    return Imported(n_new, len(verdicts) - n_new, n_other, 0)


def _import_lists(
    store: AuditStore, bundle: BundleKey, name: str, rows: Sequence[tuple[int, Mapping[str, Any]]], n_features: int
) -> int:
    found: dict[str, list[tuple[int, int]]] = {}
    firsts: dict[str, tuple[int, Mapping[str, Any]]] = {}
    for at, row in rows:
        called = str(row.get("list") or "").strip()
        place = _read(
            name, at, row, lambda row: (int(row.get("position") or 0), _number(row, "feature_id", n_features))
        )
        found.setdefault(called, []).append(place)
        firsts.setdefault(called, (at, row))
    held = {audit_list.name: audit_list.feature_ids for audit_list in store.lists(bundle)}
    new = []
    for called, places in found.items():
        feature_ids = tuple(feature_id for _, feature_id in sorted(places))
        if held.get(called) == feature_ids:
            continue
        if called in held:
            raise AuditError(f"{name}: there is another list called {called} here; rename one of them")
        new.append(_read(name, *firsts[called], partial(_audit_list, feature_ids=feature_ids)))
    for audit_list in new:
        store.add_list(bundle, audit_list)
    return len(new)


def _audit_list(row: Mapping[str, Any], feature_ids: tuple[int, ...]) -> AuditList:
    words = _words(row, ("list", "origin", "created_by"))
    return checked_list(
        AuditList(words.get("list", ""), feature_ids, words.get("origin", ""), words.get("created_by", ""))
    )


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


def _read(name: str, at: int, row: Mapping[str, Any], take: Callable[[Mapping[str, Any]], R]) -> R:
    """Read a row by `take`; its errors name the row's number."""
    try:
        return take(row)
    except AuditError as error:
        raise AuditError(f"{name}, row {at}: {error}") from error
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise AuditError(f"{name}, row {at}: cannot be read ({error}); correct it") from error


def _number(row: Mapping[str, Any], column: str, n: int) -> int:
    """Read the number of a feature or a text, of which the bundle holds `n`."""
    number, what = int(row[column]), column.removesuffix("_id") if column != "subject" else "text"
    if not 0 <= number < n:
        raise AuditError(f"there is no {what} {number}; this bundle holds {n}")
    return number


def _words(row: Mapping[str, Any], names: Sequence[str]) -> dict[str, str]:
    """Read columns of text, those that are empty left out; a time becomes what the store writes."""
    words = {name: str(row[name]) for name in names if row.get(name) not in (None, "")}
    "".join(words.values()).encode()  # half a character, which JSON may hold and no database takes, is an error here
    if len(words.get("uid", "")) > 36:
        raise AuditError("its uid is longer than 36 characters; leave it out")
    if "created_at" in words:
        moment = datetime.datetime.fromisoformat(words["created_at"]).astimezone(datetime.UTC)
        latest = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=1)
        if not _FIRST <= moment <= latest:
            raise AuditError(f"it was made at {words['created_at']}, before 2000 or in the future; correct created_at")
        words["created_at"] = moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return words


def _is_blind(row: Mapping[str, Any]) -> bool:
    return str(row.get("is_blind")).lower() in ("true", "1")


def _remark(row: Mapping[str, Any], n_texts: int) -> Remark:
    words = _words(row, ("kind", "subject", "reviewer", "verdict", "note", "uid", "created_at"))
    if words.get("kind") == "text":
        words["subject"] = str(_number(row, "subject", n_texts))
    return checked_remark(Remark(**{"kind": "", "subject": "", "reviewer": "", **words}, is_blind=_is_blind(row)))


def _verdict(row: Mapping[str, Any], n_features: int) -> Verdict:
    tags = row.get("tags") or ()
    if isinstance(tags, str):  # a list as JSON, or words between commas
        tags = json.loads(tags) if tags.startswith("[") else tags.split(",")
    feature_id = _number(row, "feature_id", n_features)
    tags = tuple(str(tag).encode().decode() for tag in tags)
    confidence = None if row.get("confidence") in (None, "") else float(row["confidence"])
    words = {"reviewer": "", **_words(row, _WORDS)}
    return checked(Verdict(feature_id, confidence=confidence, tags=tags, is_blind=_is_blind(row), **words))


_WORDS = (
    "reviewer", "verdict", "related", "note", "description", "labeller", "label", "uid", "created_at", "supersedes",
)  # fmt: skip
"""Columns of text; those that are empty are left at the default."""
