"""Audits as tables and files, out and in: CSV, Parquet or JSON, on another machine the same verdicts."""

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
    """What a file brought: verdicts that are new, verdicts known before, rows of other bundles left out, new lists."""

    n_new: int
    n_known: int
    n_other: int
    n_lists: int


def verdict_table(bundle: BundleKey, verdicts: Iterable[Verdict]) -> pa.Table:
    """Verdicts as rows, with the bundle they are of."""
    of = {"bundle_id": bundle.bundle_id, "features_hash": bundle.features_hash}
    return pa.Table.from_pylist([{**vars(one), **of, "tags": list(one.tags)} for one in verdicts], schema=_VERDICTS)


def list_table(bundle: BundleKey, lists: Iterable[AuditList]) -> pa.Table:
    """Lists as rows, one a feature of a list; positions count from 0."""
    of = {"bundle_id": bundle.bundle_id, "features_hash": bundle.features_hash}
    rows = [
        {**vars(one), **of, "list": one.name, "position": at, "feature_id": feature_id}
        for one in lists
        for at, feature_id in enumerate(one.feature_ids)
    ]
    return pa.Table.from_pylist(rows, schema=_LISTS)


def human_table(verdicts: Iterable[Verdict], reviewer: str) -> pa.Table:
    """A reviewer's own descriptions, as `precompute label --labeller human --from` reads them.

    `verdicts` are the newest. Only features with words and a yes or no on the feedback: a label needs both.
    """
    rows = [
        {
            "feature_id": one.feature_id,
            "description": one.description,
            "related": one.related == "yes",
            "reason": one.note or None,
        }
        for one in sorted(verdicts, key=lambda one: one.feature_id)
        if one.reviewer == reviewer and one.description and one.related in ("yes", "no")
    ]
    return pa.Table.from_pylist(rows, schema=_HUMAN)


def read_file(store: AuditStore, bundle: BundleKey, *, name: str, content: bytes, n_features: int) -> Imported:
    """Brings the verdicts or lists of a file into a store, all or none. Raises AuditError naming the row at fault.

    Rows that name no bundle are taken to be of this one. An apostrophe that the CSV put before a formula is taken off.
    """
    rows = _rows(name, content)
    if not rows or "feature_id" not in rows[0]:
        raise AuditError(f"{name}: no column feature_id; give a file that was exported here, or one like it")
    mine = [(at, row) for at, row in enumerate(rows) if _is_of(row, bundle)]
    n_other = len(rows) - len(mine)
    if "list" in rows[0]:
        return Imported(0, 0, n_other, _bring_lists(store, bundle, name, mine, n_features))
    verdicts = [_read(name, at, row, n_features, _verdict) for at, row in mine]
    n_new = store.bring(bundle, verdicts)
    return Imported(n_new, len(verdicts) - n_new, n_other, 0)


def _bring_lists(
    store: AuditStore, bundle: BundleKey, name: str, rows: Sequence[tuple[int, Mapping[str, Any]]], n_features: int
) -> int:
    found: dict[str, list[tuple[int, int]]] = {}
    firsts: dict[str, Mapping[str, Any]] = {}
    for at, row in rows:
        called = str(row["list"] or "").strip()
        place = _read(name, at, row, n_features, lambda row, id_: (int(row.get("position") or 0), id_))
        found.setdefault(called, []).append(place)
        firsts.setdefault(called, row)
    held = {one.name: one.feature_ids for one in store.lists(bundle)}
    made = [
        AuditList(
            called, tuple(id_ for _, id_ in sorted(places)), *(str(firsts[called].get(key) or "") for key in _MADE)
        )
        for called, places in found.items()
    ]
    new = [one for one in made if held.get(one.name) != one.feature_ids]
    if clash := next((one.name for one in new if one.name in held), None):
        raise AuditError(f"{name}: there is another list called {clash} here; rename one of them")
    for one in new:
        store.add_list(bundle, one)
    return len(new)


_MADE = ("origin", "created_by")


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


def _is_of(row: Mapping[str, Any], bundle: BundleKey) -> bool:
    named = row.get("bundle_id") or bundle.bundle_id, row.get("features_hash") or bundle.features_hash
    return named == (bundle.bundle_id, bundle.features_hash)


def _read(name: str, at: int, row: Mapping[str, Any], n_features: int, take: Callable[..., Any]) -> Any:
    """A row as `take` reads it, its errors with the row's number."""
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
    sure = row.get("confidence")
    return checked(
        Verdict(
            feature_id,
            str(row.get("reviewer") or ""),
            _text(row, "verdict"),
            _text(row, "related"),
            None if sure in (None, "") else float(sure),
            _tags(row.get("tags")),
            str(row.get("note") or ""),
            str(row.get("description") or ""),
            _text(row, "labeller"),
            _text(row, "label"),
            str(row.get("is_blind")).lower() in ("true", "1"),
            _uid(row),
            _moment(row.get("created_at")),
            _text(row, "supersedes"),
        )
    )


def _text(row: Mapping[str, Any], name: str) -> str | None:
    return str(row[name]) if row.get(name) not in (None, "") else None


def _tags(value: Any) -> tuple[str, ...]:
    """A list, or a list as JSON, or words between commas."""
    if isinstance(value, str):
        value = json.loads(value) if value.startswith("[") else value.split(",")
    return tuple(str(tag) for tag in value or ())


def _uid(row: Mapping[str, Any]) -> str:
    uid = str(row.get("uid") or "")
    if len(uid) > 36:
        raise AuditError("its uid is longer than 36 characters; leave it out")
    return uid


def _moment(value: Any) -> str:
    if value in (None, ""):
        return ""
    moment = datetime.datetime.fromisoformat(str(value))
    return moment.astimezone(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
