import multiprocessing
import sqlite3
import threading
from dataclasses import replace

import pytest
from sqlalchemy import event

from lfp.audit import (
    AuditList,
    AuditStore,
    BundleKey,
    Remark,
    Verdict,
    default_url,
    key_of,
    newest,
    newest_remarks,
    open_to,
    remark_table,
)
from lfp.bundle.store.connection import Store
from lfp.errors import AuditError

KEY = BundleKey("a" * 16, "b" * 16, "A bundle")


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path / 'audits' / 'audits.sqlite'}"


@pytest.fixture
def store(url):
    return AuditStore(url)


def said(feature_id=3, reviewer="Ada", **fields):
    return Verdict(feature_id, reviewer, **{"related": "yes", **fields})


def test_what_was_said_is_read_back_as_it_was(store):
    words = "'; DROP TABLE audit_verdicts; -- \u202e <b>&</b> 漢字"
    kept = store.add(
        KEY, said(verdict="partly", confidence=0.25, tags=("Two words", "b", "b"), note=words, is_blind=True)
    )
    assert store.history(KEY) == [kept]
    assert (kept.note, kept.tags, kept.confidence, kept.is_blind) == (words, ("b", "two words"), 0.25, True)
    assert kept.created_at.endswith("Z") and len(kept.uid) == 36 and kept.supersedes is None


def test_history_grows_and_the_newest_of_each_reviewer_counts(store):
    first = store.add(KEY, said(verdict="right"))
    other = store.add(KEY, said(reviewer="Grace", related="no"))
    second = store.add(KEY, said(verdict="wrong"))
    assert second.supersedes == first.uid and other.supersedes is None
    assert store.history(KEY, 3) == [first, other, second]
    assert {verdict.uid for verdict in newest(store.history(KEY))} == {other.uid, second.uid}
    assert store.history(KEY, 4) == [] and store.history(replace(KEY, features_hash="c")) == []


def test_a_clock_set_back_does_not_bring_an_old_verdict_to_the_front(store, monkeypatch):
    store.add(KEY, said(verdict="right"))
    monkeypatch.setattr("lfp.audit.store._now", lambda: "2001-01-01T00:00:00.000000Z")
    last = store.add(KEY, said(verdict="wrong"))
    assert store.history(KEY)[-1] == last and last.created_at > "2020"


def test_a_write_that_is_repeated_is_kept_once(store):
    kept = store.add(KEY, said(uid="11111111-2222-3333-4444-555555555555"))
    store.add(KEY, kept)
    assert len(store.history(KEY)) == 1


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"verdict": "good"}, "verdict"),
        ({"related": "maybe"}, "related"),
        ({"confidence": 1.5}, "confidence"),
        ({"confidence": float("nan")}, "confidence"),
        ({"reviewer": " \t "}, "name"),
        ({"reviewer": "x" * 81}, "name"),
        ({"feature_id": -1}, "feature_id"),
        ({"note": "x" * 10_001}, "note"),
        ({"tags": tuple(map(str, range(30)))}, "tags"),
        ({"related": None}, "the verdict is empty"),
    ],
)
def test_what_is_said_wrongly_is_named_and_not_kept(store, fields, word):
    with pytest.raises(AuditError, match=word):
        store.add(KEY, said(**fields))
    assert store.history(KEY) == []


def test_lists_keep_their_order_and_their_names_are_their_own(store):
    store.add_list(KEY, AuditList(" top  ten ", (9, 2, 9, 5), "largest", "Ada"))
    (found,) = store.lists(KEY)
    assert (found.name, found.feature_ids, found.origin) == ("top ten", (9, 2, 5), "largest")
    with pytest.raises(AuditError, match="already"):
        store.add_list(KEY, AuditList("top ten", (1,)))
    with pytest.raises(AuditError, match="empty"):
        store.add_list(KEY, AuditList("none", ()))
    store.add_list(replace(KEY, features_hash="c"), AuditList("top ten", (1,)))
    store.remove_list(KEY, "top ten")
    assert store.lists(KEY) == [] and len(store.lists(replace(KEY, features_hash="c"))) == 1


def test_open_features_come_in_the_order_of_the_list():
    verdicts = [said(2), said(5, reviewer="Grace"), said(7, related=None, note="a note is no review")]
    assert open_to(verdicts, "Ada", (7, 5, 2, 1)) == [7, 5, 1]


def test_the_file_is_in_wal_mode(store, url):
    store.add(KEY, said())
    with sqlite3.connect(url.removeprefix("sqlite:///")) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()


def _write(store, reviewer):
    store = AuditStore(store) if isinstance(store, str) else store
    for feature_id in range(20):
        store.add(KEY, said(feature_id, reviewer))


def test_processes_and_threads_that_write_at_once_lose_nothing(url):
    context = multiprocessing.get_context("spawn")
    others = [context.Process(target=_write, args=(url, f"process {n}")) for n in range(2)]
    shared = AuditStore(url)  # as sessions of one server share it
    threads = [threading.Thread(target=_write, args=(shared, f"thread {n}")) for n in range(3)]
    for worker in (*others, *threads):
        worker.start()
    for worker in (*others, *threads):
        worker.join()  # without a limit: on a busy machine starting the processes takes most of a minute
    assert [worker.exitcode for worker in others] == [0, 0]
    held = AuditStore(url).history(KEY)
    assert len(held) == 100 and len({(verdict.reviewer, verdict.feature_id) for verdict in held}) == 100


def test_threads_take_turns_at_a_file_and_the_last_is_refused_in_a_sentence(store, monkeypatch):
    """SQLite itself admits whoever asks next, and a thread that writes often would keep others out."""
    monkeypatch.setattr("lfp.audit.store.WAIT_S", 0.05)
    refused = []

    def write():
        try:
            store.add(KEY, said(reviewer="Grace"))
        except AuditError as error:
            refused.append(str(error))

    with store._writing(KEY):
        other = threading.Thread(target=write)
        other.start()
        other.join()
    assert len(refused) == 1 and "another program holds it; wait a moment, then save again" in refused[0]
    write()
    assert len(refused) == 1 and [verdict.reviewer for verdict in store.history(KEY)] == ["Grace"]


def test_two_sessions_see_each_other(store, url):
    other = AuditStore(url)
    assert other.version(KEY) == 0
    store.add(KEY, said())
    assert other.noted(KEY) == {3} and other.version(KEY) == store.version(KEY) > 0
    other.add(KEY, said(4, note="x"))
    assert store.noted(KEY) == {3, 4}


def test_a_full_disk_is_said_and_nothing_is_half_kept(store):
    @event.listens_for(store._engine, "connect")
    def little(connection, _):
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {pages}")

    with pytest.raises(AuditError, match="the disk is full; make room"):
        store.bring(KEY, [said(i, note="x" * 5000) for i in range(20)])
    assert store.history(KEY) == []


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("sqlite:////proc/none/audits.sqlite", "its folder is not there and cannot be created"),
        ("sqlite:///{file}/audits.sqlite", "its folder is not there and cannot be created"),
        ("sqlite:///{file}", "not an audit database"),
        ("nothing://host/db", "no such database"),
        ("audits.sqlite", "no database address"),
    ],
)
def test_a_place_that_cannot_be_opened_is_named_with_its_fix(tmp_path, url, says):
    file = tmp_path / "a file"
    file.write_text("these are no audits, and they are long enough to be read as a header" * 20)
    with pytest.raises(AuditError, match=says) as caught:
        AuditStore(url.format(file=file))
    assert "LFP_AUDIT_URL" in str(caught.value) or "write" in str(caught.value)


def test_passwords_are_never_told():
    with pytest.raises(AuditError) as caught:
        AuditStore("nothing://ada:secret@host/db")
    assert "secret" not in str(caught.value)


def test_a_database_of_another_version_is_said_to_be_one(url, store):
    with sqlite3.connect(url.removeprefix("sqlite:///")) as connection:
        connection.execute("ALTER TABLE audit_verdicts DROP COLUMN labeller")
    connection.close()
    with pytest.raises(AuditError, match="no column labeller"):
        AuditStore(url)


def test_read_only_reads_and_refuses(store, url, tmp_path):
    kept = store.add(KEY, said())
    public = AuditStore(url, read_only=True)
    assert public.history(KEY) == [kept]
    with pytest.raises(AuditError, match="only be read"):
        public.add(KEY, said(4))
    nothing = AuditStore(f"sqlite:///{tmp_path / 'none' / 'a.sqlite'}", read_only=True)
    assert nothing.history(KEY) == [] and nothing.lists(KEY) == [] and not (tmp_path / "none").exists()
    broken = tmp_path / "broken.sqlite"
    broken.write_text("x" * 5000)
    with pytest.raises(AuditError) as caught:
        AuditStore(f"sqlite:///{broken}", read_only=True)
    assert str(tmp_path) not in str(caught.value)
    (tmp_path / "x.sqlite").write_bytes(b"")
    with pytest.raises(AuditError, match="nothing was ever kept") as caught:
        AuditStore(f"sqlite:///{tmp_path / 'x.sqlite'}", read_only=True)
    assert str(tmp_path) not in str(caught.value)


def test_where_audits_live(tmp_path):
    assert default_url({"LFP_AUDIT_URL": "sqlite:////x.sqlite"}) == "sqlite:////x.sqlite"
    assert default_url({"XDG_DATA_HOME": "/data"}) == "sqlite:////data/lfp-explorer/audits.sqlite"
    assert default_url({}).endswith("/.local/share/lfp-explorer/audits.sqlite")


def test_the_key_stays_when_labels_change_and_moves_when_features_do(bundle):
    with Store.open(bundle) as store:
        manifest = store.manifest
    other = {name: info.model_copy(update={"sha256": "0" * 64}) for name, info in manifest.tables.items()}
    relabelled = manifest.model_copy(update={"tables": {**manifest.tables, "labels": other["labels"]}})
    changed = manifest.model_copy(update={"tables": {**manifest.tables, "decoders": other["decoders"]}})
    assert key_of(relabelled) == key_of(manifest) != key_of(changed)


def test_remarks_are_kept_in_order_and_checked(store, url):
    first = store.add_remark(KEY, Remark("word", "joyful", " Ada ", "right", is_blind=True))
    second = store.add_remark(KEY, Remark("word", "joyful", "Ada", "wrong", " on '; DROP TABLE audit_remarks; -- "))
    assert store.remarks(KEY) == [first, second] and first.reviewer == "Ada" and first.is_blind
    assert newest_remarks(store.remarks(KEY)) == {("word", "joyful", "Ada"): second}
    assert remark_table(KEY, store.remarks(KEY)).to_pylist()[1]["note"] == "on '; DROP TABLE audit_remarks; --"
    assert store.remarks(replace(KEY, features_hash="c")) == []
    for wrong in (
        Remark("song", "joyful", "Ada", "right"), Remark("word", "", "Ada", "right"), Remark("word", "joyful", "Ada"),
        Remark("word", "joyful", "", "right"), Remark("word", "joyful", "Ada", "maybe"),
    ):  # fmt: skip
        with pytest.raises(AuditError):
            store.add_remark(KEY, wrong)
    assert len(store.remarks(KEY)) == 2


def test_a_database_from_before_there_were_remarks_opens(store, url, tmp_path):
    kept = store.add(KEY, said())
    with sqlite3.connect(tmp_path / "audits" / "audits.sqlite") as connection:
        connection.execute("DROP TABLE audit_remarks")
    read = AuditStore(url, read_only=True)
    assert read.history(KEY) == [kept] and read.remarks(KEY) == []
    assert AuditStore(url).add_remark(KEY, Remark("text", "3", "Ada", note="so")).note == "so"
