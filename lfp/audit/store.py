"""Keeps verdicts and lists: every write is one transaction, and what was said stays said."""

from __future__ import annotations

import datetime
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, RowMapping, delete, func, insert, select
from sqlalchemy.engine import make_url
from sqlalchemy.exc import IntegrityError

from lfp.audit import database
from lfp.audit.database import engine_at, failing, place_of, writing
from lfp.audit.records import AuditList, BundleKey, Verdict, checked, checked_list
from lfp.errors import AuditError

AUDIT_URL = "LFP_AUDIT_URL"
_CHUNK = 500
_TIME = "%Y-%m-%dT%H:%M:%S.%fZ"
READ_ONLY = "this explorer is open to the public, so its audits can only be read; run your own to review"


def default_url(environment: Mapping[str, str] | None = None) -> str:
    """LFP_AUDIT_URL, else a SQLite file in the user's data folder."""
    environment = os.environ if environment is None else environment
    if url := environment.get(AUDIT_URL, "").strip():
        return url
    folder = environment.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return f"sqlite:///{Path(folder) / 'lfp-explorer' / 'audits.sqlite'}"


class AuditStore:
    """An open audit database. Threads and processes may share one; all methods raise AuditError."""

    def __init__(self, engine: Engine, *, place: str, read_only: bool) -> None:
        self._engine = engine
        self.place = place
        self.read_only = read_only

    @classmethod
    def open(cls, url: str, *, read_only: bool = False) -> AuditStore:
        """Opens the database at an SQLAlchemy address, making its tables where there are none."""
        engine = engine_at(url, read_only=read_only)
        return cls(engine, place=place_of(make_url(url), read_only=read_only), read_only=read_only)

    def add(self, bundle: BundleKey, verdict: Verdict) -> Verdict:
        """Keeps a verdict, after the reviewer's last of that feature. Returns it as it was kept.

        A uid that is kept already is not kept again: who is not sure that a write went through may repeat it.
        """
        said = checked(verdict)
        with self._writing(bundle) as connection:
            before = _last(connection, bundle, said)
            now = _now() if before is None else max(_now(), _just_after(before["created_at"]))
            kept = replace(said, created_at=now, supersedes=None if before is None else before["uid"])
            if not _known(connection, [kept.uid]):
                connection.execute(insert(database.verdicts), [_row(bundle, kept)])
        return kept

    def bring(self, bundle: BundleKey, verdicts: Sequence[Verdict]) -> int:
        """Keeps verdicts said elsewhere, all or none; those known by their uid stay. Returns how many are new."""
        said = {one.uid: one for one in map(checked, verdicts)}
        with self._writing(bundle) as connection:
            known = _known(connection, list(said))
            rows = [_row(bundle, one if one.created_at else replace(one, created_at=_now())) for one in said.values()]
            new = [row for row in rows if row["uid"] not in known]
            for start in range(0, len(new), _CHUNK):
                connection.execute(insert(database.verdicts), new[start : start + _CHUNK])
        return len(new)

    def history(self, bundle: BundleKey, feature_id: int | None = None) -> list[Verdict]:
        """All that was ever said of a bundle, or of one of its features, oldest first."""
        held = database.verdicts
        question = select(held).where(held.c.bundle == bundle.name).order_by(held.c.created_at, held.c.row_id)
        if feature_id is not None:
            question = question.where(held.c.feature_id == feature_id)
        with failing(self.place), self._engine.begin() as connection:
            return [_verdict(row) for row in connection.execute(question).mappings()]

    def version(self, bundle: BundleKey) -> int:
        """A number that grows with every verdict on a bundle: while it stays, so does `history`."""
        held = database.verdicts
        question = select(func.max(held.c.row_id)).where(held.c.bundle == bundle.name)
        with failing(self.place), self._engine.begin() as connection:
            return int(connection.execute(question).scalar() or 0)

    def noted(self, bundle: BundleKey) -> frozenset[int]:
        """Features with a verdict or a note."""
        held = database.verdicts
        question = select(held.c.feature_id).where(held.c.bundle == bundle.name).distinct()
        with failing(self.place), self._engine.begin() as connection:
            return frozenset(connection.execute(question).scalars())

    def add_list(self, bundle: BundleKey, found: AuditList) -> AuditList:
        """Keeps a list of features. Raises AuditError where the bundle has one of that name."""
        made = checked_list(found)
        made = replace(made, created_at=made.created_at or _now())
        told = {name: value for name, value in asdict(made).items() if name != "feature_ids"}
        rows = [{"list_uid": made.uid, "position": at, "feature_id": id_} for at, id_ in enumerate(made.feature_ids)]
        try:
            with self._writing(bundle) as connection:
                connection.execute(insert(database.lists), [{"bundle": bundle.name, **told}])
                connection.execute(insert(database.items), rows)
        except AuditError as error:
            if isinstance(error.__cause__, IntegrityError):
                raise AuditError(f"there is a list called {made.name} already; choose another name") from error
            raise
        return made

    def remove_list(self, bundle: BundleKey, name: str) -> None:
        """Forgets a list; the verdicts on its features stay."""
        held = database.lists
        with self._writing(bundle) as connection:
            uids = select(held.c.uid).where(held.c.bundle == bundle.name, held.c.name == name)
            connection.execute(delete(database.items).where(database.items.c.list_uid.in_(uids)))
            connection.execute(delete(held).where(held.c.bundle == bundle.name, held.c.name == name))

    def lists(self, bundle: BundleKey) -> list[AuditList]:
        """The bundle's lists, oldest first."""
        held, items = database.lists, database.items
        chosen = select(held).where(held.c.bundle == bundle.name).order_by(held.c.created_at, held.c.name)
        inside = select(items).join(held).where(held.c.bundle == bundle.name).order_by(items.c.position)
        with failing(self.place), self._engine.begin() as connection:
            rows = list(connection.execute(chosen).mappings())
            ids: dict[str, list[int]] = {row["uid"]: [] for row in rows}
            for item in connection.execute(inside).mappings():
                ids.setdefault(item["list_uid"], []).append(item["feature_id"])
        fields = ("origin", "created_by", "created_at", "uid")
        return [AuditList(row["name"], tuple(ids[row["uid"]]), *(row[name] for name in fields)) for row in rows]

    def close(self) -> None:
        """Lets the database go."""
        self._engine.dispose()

    @contextmanager
    def _writing(self, bundle: BundleKey) -> Iterator[Connection]:
        if self.read_only:
            raise AuditError(READ_ONLY)
        with failing(self.place), writing(self._engine) as connection:
            _enter(connection, bundle)
            yield connection


def _enter(connection: Connection, bundle: BundleKey) -> None:
    """Enters the bundle where it is not known; another writer may do so at the same time."""
    held = database.bundles
    if connection.execute(select(held.c.bundle).where(held.c.bundle == bundle.name)).first():
        return
    row = {"bundle": bundle.name, **asdict(bundle), "first_seen": _now()}
    try:
        with connection.begin_nested():
            connection.execute(insert(held), [row])
    except IntegrityError:
        if not connection.execute(select(held.c.bundle).where(held.c.bundle == bundle.name)).first():
            raise


def _last(connection: Connection, bundle: BundleKey, said: Verdict) -> RowMapping | None:
    held = database.verdicts
    question = (
        select(held.c.uid, held.c.created_at)
        .where(held.c.bundle == bundle.name, held.c.feature_id == said.feature_id, held.c.reviewer == said.reviewer)
        .order_by(held.c.created_at.desc(), held.c.row_id.desc())
        .limit(1)
    )
    return connection.execute(question).mappings().first()


def _known(connection: Connection, uids: Sequence[str]) -> set[str]:
    held = database.verdicts.c.uid
    chunks = [uids[start : start + _CHUNK] for start in range(0, len(uids), _CHUNK)]
    return {uid for chunk in chunks for uid in connection.execute(select(held).where(held.in_(chunk))).scalars()}


def _row(bundle: BundleKey, verdict: Verdict) -> dict[str, Any]:
    return {**asdict(verdict), "bundle": bundle.name, "tags": json.dumps(verdict.tags, ensure_ascii=False)}


def _verdict(row: RowMapping) -> Verdict:
    told = {name: value for name, value in row.items() if name not in ("row_id", "bundle", "tags")}
    return Verdict(**told, tags=tuple(json.loads(row["tags"])))


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).strftime(_TIME)


def _just_after(moment: str) -> str:
    """A microsecond later: a clock that was set back must not put a new verdict before an old one."""
    return (datetime.datetime.strptime(moment, _TIME) + datetime.timedelta(microseconds=1)).strftime(_TIME)
