"""Keep verdicts and lists: every write is one transaction, and no verdict is ever overwritten."""

from __future__ import annotations

import datetime
import json
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from sqlalchemy import ColumnElement, Connection, Table, delete, func, insert, inspect, select
from sqlalchemy.exc import IntegrityError

from lfp.audit import database
from lfp.audit.database import AWAY_S, SERVER_WAIT_S, WAIT_S, engine_at, failing
from lfp.audit.records import AuditList, BundleKey, Verdict, checked, checked_list
from lfp.audit.remarks import Remark, checked_remark
from lfp.errors import AuditError

AUDIT_URL = "LFP_AUDIT_URL"
_CHUNK = 500
_TRIES = 5
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
    """An open audit database. Threads and processes may share it; all methods raise AuditError."""

    def __init__(self, url: str, *, read_only: bool = False) -> None:
        """Open the database at an SQLAlchemy address; create its tables where there are none."""
        self._engine, self.place = engine_at(url, read_only=read_only)
        self.read_only = read_only
        self._away_until = 0.0
        self._turn = threading.Lock()

    def add(self, bundle: BundleKey, verdict: Verdict) -> Verdict:
        """Add a verdict after the reviewer's last one on that feature. Returns it as it was stored.

        A uid that is stored already is not added again, so a write whose outcome is unknown may be repeated. Writers
        wait for each other; one that would still supersede what another did is refused by the database and looks again.
        """
        verdict = checked(verdict)
        for _ in range(_TRIES - 1):
            try:
                return self._add(bundle, verdict)
            except AuditError as error:
                if not isinstance(error.__cause__, IntegrityError):
                    raise
        return self._add(bundle, verdict)

    def _add(self, bundle: BundleKey, verdict: Verdict) -> Verdict:
        held = database.verdicts
        same = {"feature_id": verdict.feature_id, "reviewer": verdict.reviewer}
        with self._writing(bundle) as connection:
            before, now = _last(connection, held, bundle, *(held.c[name] == value for name, value in same.items()))
            kept = replace(verdict, created_at=now, supersedes=before)
            if not _known(connection, held, [kept.uid]):
                link = {"bundle": bundle.name, **same, "supersedes": before or ""}
                connection.execute(insert(database.successions), [link])
                connection.execute(insert(held), [_row(bundle, kept)])
        return kept

    def bring(self, bundle: BundleKey, verdicts: Sequence[Verdict]) -> int:
        """Add verdicts from elsewhere, all or none; those with a known uid stay. Returns how many are new."""
        given = {verdict.uid: verdict for verdict in map(checked, verdicts)}
        with self._writing(bundle) as connection:
            known = _known(connection, database.verdicts, list(given))
            new = [
                _row(bundle, verdict if verdict.created_at else replace(verdict, created_at=_now()))
                for uid, verdict in given.items()
                if uid not in known
            ]
            for start in range(0, len(new), _CHUNK):
                connection.execute(insert(database.verdicts), new[start : start + _CHUNK])
        return len(new)

    def history(self, bundle: BundleKey, feature_id: int | None = None) -> list[Verdict]:
        """Return every verdict on a bundle, or on one of its features, oldest first."""
        held = database.verdicts
        question = select(held).where(held.c.bundle == bundle.name).order_by(held.c.created_at, held.c.row_id)
        if feature_id is not None:
            question = question.where(held.c.feature_id == feature_id)
        with self._transaction() as connection:
            rows = [dict(row) for row in connection.execute(question).mappings()]
        names = [field.name for field in fields(Verdict) if field.name != "tags"]
        return [Verdict(**{name: row[name] for name in names}, tags=tuple(json.loads(row["tags"]))) for row in rows]

    def version(self, bundle: BundleKey) -> int:
        """Return a number that grows with every verdict on a bundle: while it stays, so does `history`."""
        held = database.verdicts
        question = select(func.max(held.c.row_id)).where(held.c.bundle == bundle.name)
        with self._transaction() as connection:
            return int(connection.execute(question).scalar() or 0)

    def noted(self, bundle: BundleKey) -> frozenset[int]:
        """Return the features with a verdict or a note."""
        held = database.verdicts
        question = select(held.c.feature_id).where(held.c.bundle == bundle.name).distinct()
        with self._transaction() as connection:
            return frozenset(connection.execute(question).scalars())

    def add_remark(self, bundle: BundleKey, remark: Remark) -> Remark:
        """Add a remark; earlier ones stay. Returns it as it was stored."""
        remark, held = checked_remark(remark), database.remarks
        same = (
            held.c.kind == remark.kind,
            held.c.subject == remark.subject,
            held.c.reviewer == remark.reviewer,
        )
        with self._writing(bundle) as connection:
            kept = replace(remark, created_at=_last(connection, held, bundle, *same)[1])
            connection.execute(insert(held), [{**asdict(kept), "bundle": bundle.name}])
        return kept

    def bring_remarks(self, bundle: BundleKey, remarks: Sequence[Remark]) -> int:
        """Add remarks from elsewhere, all or none; those with a known uid stay. Returns how many are new."""
        given = {remark.uid: remark for remark in map(checked_remark, remarks)}
        with self._writing(bundle) as connection:
            known = _known(connection, database.remarks, list(given))
            new = [
                {**asdict(remark), "bundle": bundle.name, "created_at": remark.created_at or _now()}
                for uid, remark in given.items()
                if uid not in known
            ]
            if new:
                connection.execute(insert(database.remarks), new)
        return len(new)

    def remarks(self, bundle: BundleKey) -> list[Remark]:
        """Return every remark on a bundle, oldest first; none where an older database is only read."""
        held = database.remarks
        question = select(held).where(held.c.bundle == bundle.name).order_by(held.c.created_at, held.c.row_id)
        with self._transaction() as connection:
            if self.read_only and not inspect(connection).has_table(held.name):
                return []
            rows = list(connection.execute(question).mappings())
        return [Remark(**{field.name: row[field.name] for field in fields(Remark)}) for row in rows]

    def add_list(self, bundle: BundleKey, found: AuditList) -> AuditList:
        """Add a list of features. Raises AuditError where the bundle has one of that name."""
        made = checked_list(found)
        made = replace(made, created_at=made.created_at or _now())
        columns = {name: value for name, value in asdict(made).items() if name != "feature_ids"}
        rows = [{"list_uid": made.uid, "position": at, "feature_id": id_} for at, id_ in enumerate(made.feature_ids)]
        try:
            with self._writing(bundle) as connection:
                connection.execute(insert(database.lists), [{"bundle": bundle.name, **columns}])
                connection.execute(insert(database.items), rows)
        except AuditError as error:
            if isinstance(error.__cause__, IntegrityError):
                raise AuditError(f"there is a list called {made.name} already; choose another name") from error
            raise
        return made

    def remove_list(self, bundle: BundleKey, name: str) -> None:
        """Delete a list; the verdicts on its features stay."""
        held = database.lists
        with self._writing(bundle) as connection:
            uids = select(held.c.uid).where(held.c.bundle == bundle.name, held.c.name == name)
            connection.execute(delete(database.items).where(database.items.c.list_uid.in_(uids)))
            connection.execute(delete(held).where(held.c.bundle == bundle.name, held.c.name == name))

    def lists(self, bundle: BundleKey) -> list[AuditList]:
        """Return the bundle's lists, oldest first."""
        held, items = database.lists, database.items
        chosen = select(held).where(held.c.bundle == bundle.name).order_by(held.c.created_at, held.c.name)
        inside = select(items).join(held).where(held.c.bundle == bundle.name).order_by(items.c.position)
        with self._transaction() as connection:
            rows = list(connection.execute(chosen).mappings())
            ids: dict[str, list[int]] = {row["uid"]: [] for row in rows}
            for item in connection.execute(inside).mappings():
                ids.setdefault(item["list_uid"], []).append(item["feature_id"])
        names = ("name", "origin", "created_by", "created_at", "uid")
        return [AuditList(feature_ids=tuple(ids[row["uid"]]), **{name: row[name] for name in names}) for row in rows]

    def close(self) -> None:
        """Close the database."""
        self._engine.dispose()

    @contextmanager
    def _transaction(self, *, writes: bool = False) -> Iterator[Connection]:
        """Begin a transaction. A server that was silent for too long counts as away for a while."""
        if time.monotonic() < self._away_until:
            raise AuditError(f"{self.place}: did not answer a moment ago; see that the database runs, then try again")
        started, engine = time.monotonic(), self._engine
        try:
            with failing(self.place), engine.execution_options(writes=writes).begin() as connection:
                yield connection
        except AuditError:
            if engine.dialect.name != "sqlite" and time.monotonic() - started >= SERVER_WAIT_S:
                self._away_until = time.monotonic() + AWAY_S
            raise

    @contextmanager
    def _writing(self, bundle: BundleKey) -> Iterator[Connection]:
        if self.read_only:
            raise AuditError(READ_ONLY)
        held = database.bundles
        known = select(held.c.bundle).where(held.c.bundle == bundle.name).with_for_update()  # one writer at a time
        turn = self._take_turn() if self._engine.dialect.name == "sqlite" else nullcontext()
        with turn, self._transaction(writes=True) as connection:
            if not connection.execute(known).first():
                row = {"bundle": bundle.name, **asdict(bundle), "first_seen": _now()}
                try:
                    with connection.begin_nested():
                        connection.execute(insert(held), [row])
                except IntegrityError:  # another writer entered the bundle at the same time
                    if not connection.execute(known).first():
                        raise
            yield connection

    @contextmanager
    def _take_turn(self) -> Iterator[None]:
        """Let threads that write to a file wait here: SQLite admits whoever asks next, so that some would wait long."""
        if not self._turn.acquire(timeout=WAIT_S):
            raise AuditError(f"{self.place}: another program holds it; wait a moment, then save again")
        try:
            yield
        finally:
            self._turn.release()


def _known(connection: Connection, held: Table, uids: Sequence[str]) -> set[str]:
    chunks = [uids[start : start + _CHUNK] for start in range(0, len(uids), _CHUNK)]
    return {
        uid for chunk in chunks for uid in connection.execute(select(held.c.uid).where(held.c.uid.in_(chunk))).scalars()
    }


def _last(connection: Connection, held: Table, bundle: BundleKey, *same: ColumnElement[bool]) -> tuple[str | None, str]:
    """Return the uid of the last row that is the `same`, and the time of the next: now, but never before the last."""
    rows = select(held.c.uid, held.c.created_at).where(held.c.bundle == bundle.name, *same)
    last = rows.order_by(held.c.created_at.desc(), held.c.row_id.desc()).limit(1)
    before, now = connection.execute(last).mappings().first(), _now()
    if before is None:
        return None, now
    least = datetime.datetime.strptime(before["created_at"], _TIME) + datetime.timedelta(microseconds=1)
    return before["uid"], max(now, least.strftime(_TIME))  # a clock may have been set back


def _row(bundle: BundleKey, verdict: Verdict) -> dict[str, Any]:
    return {**asdict(verdict), "bundle": bundle.name, "tags": json.dumps(verdict.tags, ensure_ascii=False)}


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).strftime(_TIME)
