"""Publishing to an object store: the old bundle or the new one, whatever happens, and sentences without secrets."""

import hashlib
import itertools
import json
import os
import signal
import subprocess
import sys

import pytest

import lfp
from lfp.bundle.manifest import read_manifest, read_table
from lfp.bundle.remote import publishing
from lfp.bundle.remote.mirror import Mirror, locate_files
from lfp.bundle.remote.publishing import Target, hold_address, update_bundle
from lfp.bundle.validation import validate
from lfp.errors import BundleChangedError, BundleError
from tests.conftest import ROOT


class KilledError(BaseException):
    """The process ends here."""


def hashes_in(files, root):
    """The manifest of a bundle in a store, after every file that it lists was compared with its hash."""
    content = files.cat_file(f"{root}/manifest.json")
    manifest = Mirror.open(f"memory://{root}").manifest
    for name, place in locate_files(content, manifest, where=root).items():
        assert hashlib.sha256(files.cat_file(f"{root}/{place}")).hexdigest() == manifest.files[name].sha256, name
    return manifest.key


def killed_at(files, monkeypatch, nth):
    """Let the nth write or deletion and all after it never happen."""
    done = itertools.count(1)

    def until_killed(act):
        def act_until_killed(*args, **kwargs):
            if next(done) >= nth:
                raise KilledError
            return act(*args, **kwargs)

        return act_until_killed

    for name in ("put_file", "pipe_file", "rm_file"):
        monkeypatch.setattr(type(files), name, until_killed(getattr(type(files), name)))


def test_a_bundle_in_a_bucket_is_the_one_that_was_written(bucket, small, other, s3):
    import fsspec

    address, files = f"{bucket}/runs/small", fsspec.filesystem("s3")
    Target.find(address).publish(small)
    assert validate(address) == []
    with lfp.open_bundle(address) as run:
        assert run.manifest == read_manifest(small) and address in repr(run)
        assert run.table("labels", arrow=True).equals(read_table(small, "labels"))
    Target.find(address).publish(other)
    assert validate(address) == []
    kept = files.find(address)
    assert len(kept) == len(read_manifest(other).files) + 1, "files of the first bundle are left"
    with lfp.open_bundle(address) as run:
        assert run.manifest.key == read_manifest(other).key


def test_killed_at_any_file_the_old_bundle_or_the_new_one_is_there(memory, small, other, monkeypatch):
    old, new = (read_manifest(path).key for path in (small, other))
    Target.find("memory://run").publish(small)
    before, seen = dict(memory.store), set()
    for nth in range(1, 1000):
        memory.store.clear()
        memory.store.update(before)
        with monkeypatch.context() as patch:
            killed_at(memory, patch, nth)
            try:
                Target.find("memory://run").publish(other)
            except KilledError:
                pass
            else:
                break
        seen.add(hashes_in(memory, "/run"))
    assert seen == {old, new} and nth > 2 * len(read_manifest(small).files)
    assert hashes_in(memory, "/run") == new
    memory.store.clear()
    memory.store.update(before)
    with monkeypatch.context() as patch:
        killed_at(memory, patch, 20)
        with pytest.raises(KilledError):
            Target.find("memory://run").publish(other)
    Target.find("memory://run").publish(other)
    assert hashes_in(memory, "/run") == new, "a killed publication must not be in the way of the next"


def test_a_process_that_is_killed_while_it_uploads_leaves_the_old_bundle(bucket, small, other, s3):
    Target.find(f"{bucket}/run").publish(small)
    code = "import sys; from pathlib import Path; from lfp.bundle.remote.publishing import Target\n" \
        "Target.find(sys.argv[1]).publish(Path(sys.argv[2]))"  # fmt: skip
    command = [sys.executable, "-c", code, f"{bucket}/run", str(other)]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
    s3.requests.clear()

    def kill(method, path):
        if method == "PUT" and s3.requests["PUT"] == 15:
            os.kill(process.pid, signal.SIGKILL)

    s3.before = kill
    assert process.wait(timeout=120) == -signal.SIGKILL
    s3.reset()
    assert validate(f"{bucket}/run") == [] and Mirror.open(f"{bucket}/run").manifest == read_manifest(small)


def test_of_two_writers_the_first_to_finish_is_kept(bucket, small, other, s3):
    address = f"{bucket}/run"
    for _ in range(2):  # where nothing is, and where a bundle is
        first, second = Target.find(address), Target.find(address)
        first.publish(small)
        with pytest.raises(BundleChangedError, match="another command wrote there meanwhile; its bundle was kept"):
            second.publish(other)
        assert Mirror.open(address).manifest == read_manifest(small) and validate(address) == []


def test_an_address_is_held_by_one_command_and_a_lock_that_was_left_behind_is_taken_over(bucket, s3, monkeypatch):
    import fsspec

    address, files = f"{bucket}/runs/held", fsspec.filesystem("s3")
    path = f"{address.removeprefix('s3://')}/objects/lock"
    with hold_address(address):
        owner = json.loads(files.cat_file(path))
        with pytest.raises(BundleError, match=rf"\(process {owner['process']} on .*\) is writing there"):
            hold_address(address).__enter__()
        assert json.loads(files.cat_file(path)) == owner
    assert not files.exists(path)
    process = subprocess.Popen(["true"])
    process.wait()
    files.pipe_file(path, json.dumps(owner | {"process": process.pid, "key": "gone"}).encode())
    with hold_address(address):  # the process on this machine has ended
        assert json.loads(files.cat_file(path))["process"] == owner["process"]
    for content in (json.dumps(owner | {"host": "elsewhere"}).encode(), b"no JSON"):
        files.pipe_file(path, content)
        with pytest.raises(BundleError, match="is writing there; wait until it ends or choose another address"):
            hold_address(address).__enter__()
        with monkeypatch.context() as patch:  # as long after it was renewed as it takes to count as left behind
            patch.setattr(publishing, "_STALE_S", -60.0)
            with hold_address(address):
                assert json.loads(files.cat_file(path))["host"] == owner["host"]


def test_the_store_itself_refuses_the_second_manifest(bucket, small, other, s3, monkeypatch):
    """Both writers compare the manifest at the same moment: S3 takes one of the two."""
    address, read = f"{bucket}/run", publishing.read_content
    for expected in (other, small):
        late = Target.find(address)
        monkeypatch.setattr(publishing, "read_content", lambda folder, content=late.content: content)
        Target.find(address).publish(expected)
        with pytest.raises(BundleChangedError):
            late.publish(small)
        monkeypatch.setattr(publishing, "read_content", read)
        assert Mirror.open(address).manifest == read_manifest(expected)


def test_labels_are_replaced_alone(bucket, small, s3):
    address = f"{bucket}/run"
    Target.find(address).publish(small)
    labels = read_table(small, "labels").slice(1)
    s3.requests.clear()
    update_bundle(address, {"labels": labels})
    assert s3.requests["PUT"] == 3, "the table, the manifest and the probe of whether writing is allowed"
    with lfp.open_bundle(address) as run:
        assert run.table("labels", arrow=True).equals(labels)
    assert validate(address) == []


def test_a_store_that_fails_while_it_is_written_keeps_the_old_bundle(bucket, small, other, s3):
    address = f"{bucket}/run"
    Target.find(address).publish(small)
    target = Target.find(address)
    secret = "https://host/x?X-Amz-Signature=abc AKIATESTTESTTESTTEST"
    s3.requests.clear()
    s3.before = lambda method, path: (
        ("500 Internal Error", "InternalError", secret) if method == "PUT" and s3.requests["PUT"] > 7 else None
    )
    with pytest.raises(BundleError, match=r"parquet cannot be written \(.*\); try again") as raised:
        target.publish(other)
    assert "Signature" not in str(raised.value) and "AKIA" not in str(raised.value) and raised.value.__cause__ is None
    s3.reset()
    assert validate(address) == [] and Mirror.open(address).manifest == read_manifest(small)


def test_what_cannot_be_written_is_one_sentence_at_the_start(bucket, s3, monkeypatch):
    import fsspec
    import s3fs

    fsspec.filesystem("s3").pipe_file(f"{bucket}/texts/a.jsonl", b"{}")
    with pytest.raises(BundleError, match="something that is not a bundle is there"):
        Target.find(f"{bucket}/texts")
    with pytest.raises(BundleError, match="a bucket alone; add a name"):
        Target.find(bucket)
    with pytest.raises(BundleError, match=r"s3://no-such-bucket/run: cannot be opened \(no such bucket or file\)"):
        Target.find("s3://no-such-bucket/run")
    s3.before = lambda method, path: (
        ("403 Forbidden", "AccessDenied", "AKIATESTTESTTESTTEST may not") if method == "PUT" else None
    )
    with pytest.raises(BundleError, match=r"cannot be written \(the store refuses the credentials\)") as raised:
        Target.find(f"{bucket}/run")
    assert "AKIA" not in str(raised.value)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", "/nonexistent")
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(BundleError, match=r"there are no credentials for the store\); set them .* AWS_ACCESS_KEY_ID"):
        Target.find(f"{bucket}/run")


def test_files_of_killed_publications_go_after_a_day(memory, small, other):
    memory.pipe("/run/objects/20200101T000000Z-0badcafe/labels.parquet", b"x")
    memory.pipe("/run/objects/own/kept.txt", b"x")
    Target.find("memory://run").publish(small)
    names = {path.split("/")[3] for path in memory.find("/run/objects")}
    assert "20200101T000000Z-0badcafe" not in names and "own" in names and len(names) == 2


def test_a_manifest_that_leads_out_of_the_bundle_is_refused(memory, small):
    Target.find("memory://run").publish(small)
    values = json.loads(memory.cat_file("/run/manifest.json"))
    values["objects"]["labels.parquet"] = "../secret"
    memory.pipe_file("/run/manifest.json", json.dumps(values).encode())
    with pytest.raises(BundleError, match=r"its manifest names \.\./secret, which is outside"):
        Mirror.open("memory://run")
