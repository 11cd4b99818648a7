"""Audits in a real PostgreSQL: a chain of verdicts that never forks, and a server that stops answering."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lfp.audit import AuditStore, BundleKey, Verdict, database
from lfp.audit import store as audit_store
from lfp.errors import AuditError

KEY = BundleKey("a" * 16, "b" * 16, "A bundle")


def find_programs() -> Path | None:
    """The folder of the newest PostgreSQL that is installed."""
    found = shutil.which("initdb")
    folders = [Path(found).resolve().parent] if found else sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    return next((folder for folder in reversed(folders) if (folder / "postgres").is_file()), None)


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[str, int]]:
    """The address of a server's database, and the server's process."""
    pytest.importorskip("psycopg")
    programs = find_programs()
    if programs is None:
        pytest.skip("needs PostgreSQL: apt-get install -y postgresql")
    user: dict[str, str] = {}
    if os.geteuid() == 0:  # it refuses to run as root
        names = {entry.pw_name for entry in pwd.getpwall()}
        user = {"user": "postgres" if "postgres" in names else "nobody"}
    with tempfile.TemporaryDirectory() as folder, socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        Path(folder).chmod(0o777)
        data = Path(folder) / "data"
        made = [programs / "initdb", "-D", data, "-U", "audits", "-A", "trust", "-N", "--no-locale", "-E", "UTF8"]
        subprocess.run(made, check=True, capture_output=True, **user)  # type: ignore[call-overload]
        command = [programs / "postgres", "-D", data, "-p", str(port), "-h", "127.0.0.1", "-k", folder, "-F"]
        with subprocess.Popen(command, stderr=subprocess.DEVNULL, **user) as process:  # type: ignore[call-overload]
            _wait_for(port)
            yield f"postgresql+psycopg://audits@127.0.0.1:{port}/postgres", process.pid
            process.send_signal(signal.SIGQUIT)


def _wait_for(port: int) -> None:
    import psycopg

    until = time.monotonic() + 60
    while True:
        try:
            psycopg.connect(host="127.0.0.1", port=port, user="audits", dbname="postgres").close()
            return
        except psycopg.OperationalError:
            if time.monotonic() > until:
                raise
            time.sleep(0.05)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'audits.sqlite'}"
    return str(request.getfixturevalue("server")[0])


def test_each_verdict_supersedes_exactly_one_other(url: str) -> None:
    """Eight threads give ten verdicts each on one feature, as one reviewer, as one feature after another."""
    stores = [AuditStore(url) for _ in range(2)]
    stores[0].add(KEY, Verdict(2, "Ada", related="no"))
    faults: list[Exception] = []

    def give(store: AuditStore) -> None:
        try:
            for _ in range(10):
                store.add(KEY, Verdict(3, "Ada", related="yes"))
        except AuditError as error:
            faults.append(error)

    threads = [threading.Thread(target=give, args=(stores[n % 2],)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    history = stores[0].history(KEY, 3)
    for store in stores:
        store.close()
    assert faults == [] and len(history) == 80
    assert [verdict.supersedes for verdict in history] == [None, *(verdict.uid for verdict in history[:-1])]


def test_a_verdict_that_would_supersede_what_another_did_is_refused_and_given_again(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As from a writer that read before another wrote."""
    store, key = AuditStore(url), BundleKey("c" * 16, "d" * 16, "Another")
    first, second = (store.add(key, Verdict(3, "Ada", related=answer)) for answer in ("yes", "no"))
    read, late = audit_store._last, [(first.uid, second.created_at)]
    monkeypatch.setattr(audit_store, "_last", lambda *arguments: late.pop() if late else read(*arguments))
    third = store.add(key, Verdict(3, "Ada", related="unsure"))
    assert third.supersedes == second.uid and late == []
    assert store.history(key) == [first, second, third]
    store.close()


def test_a_server_that_stops_answering_is_a_sentence_and_not_tried_again_at_once(
    server: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "SERVER_WAIT_S", 1)
    monkeypatch.setattr("lfp.audit.store.SERVER_WAIT_S", 1)
    url, parent = server
    store = AuditStore(url)
    kept = store.add(KEY, Verdict(4, "Grace", related="no"))
    processes = [parent, *_children(parent)]
    for process in processes:
        os.kill(process, signal.SIGSTOP)
    try:
        waits = []
        for _ in range(3):
            started = time.monotonic()
            with pytest.raises(AuditError, match=r"cannot be reached|did not answer a moment ago") as caught:
                store.history(KEY, 4)
            waits.append(time.monotonic() - started)
            assert "\n" not in str(caught.value)
    finally:
        for process in processes:
            os.kill(process, signal.SIGCONT)
    assert waits[0] < 10 and max(waits[1:]) < 0.5
    store._away_until = 0.0  # as when that time has passed
    assert store.history(KEY, 4) == [kept]
    store.close()


def _children(parent: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]
