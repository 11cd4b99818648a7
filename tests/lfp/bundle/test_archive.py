import io
import shutil
import zipfile

import pytest

from lfp.bundle.manifest import FileInfo, check_bundle
from lfp.bundle.validation import validate
from lfp.bundle.writer import BundleWriter, archive_bytes, write_archive
from lfp.errors import BundleError


def archived(path, manifest):
    target = io.BytesIO()
    write_archive(path, manifest, target, name="copy")
    return target


@pytest.fixture
def with_artifact(bundle, tmp_path):
    """A bundle that carries a file besides its tables."""
    source = tmp_path / "source"
    shutil.copytree(bundle, source)
    (tmp_path / "weights").write_bytes(b"w" * 50)
    with BundleWriter(source, check_bundle(source)) as writer:
        writer.keep_rest(check_bundle(source))
        writer.add_artifact(tmp_path / "weights", "base/weights")
    return source


def test_an_unzipped_archive_is_the_bundle(with_artifact, tmp_path):
    manifest = check_bundle(with_artifact)
    (with_artifact / "notes.txt").write_text("the host's own")
    with zipfile.ZipFile(archived(with_artifact, manifest)) as archive:
        archive.extractall(tmp_path / "out")
        files = {"manifest.json", *(f"{table}.parquet" for table in manifest.tables), *manifest.artifacts}
        assert {name.removeprefix("copy/") for name in archive.namelist()} == files
        n_manifest = archive.getinfo("copy/manifest.json").file_size
        assert archive_bytes(manifest) == sum(info.file_size for info in archive.infolist()) - n_manifest
    assert check_bundle(tmp_path / "out" / "copy") == manifest
    assert not list(validate(tmp_path / "out" / "copy"))
    assert (tmp_path / "out" / "copy" / "artifacts" / "base" / "weights").read_bytes() == b"w" * 50


def test_the_same_bundle_gives_the_same_archive(bundle):
    manifest = check_bundle(bundle)
    assert archived(bundle, manifest).getvalue() == archived(bundle, manifest).getvalue()


@pytest.mark.parametrize("outside", ["../secret", "/etc/hostname", "artifacts/../../secret"])
def test_a_manifest_cannot_name_what_is_outside(copied_bundle, outside):
    (copied_bundle.parent / "secret").write_bytes(b"secret")
    manifest = check_bundle(copied_bundle)
    forged = manifest.model_copy(update={"artifacts": {outside: FileInfo(bytes=6, sha256="0" * 64)}})
    with pytest.raises(BundleError, match="outside the bundle"):
        archived(copied_bundle, forged)


def test_a_lost_file_is_named(copied_bundle):
    manifest = check_bundle(copied_bundle)
    (copied_bundle / "labels.parquet").write_bytes(b"short")
    with pytest.raises(BundleError, match=r"labels\.parquet is missing or of another size"):
        archived(copied_bundle, manifest)


def test_an_artifact_swapped_for_another_of_its_size_does_not_travel(with_artifact):
    manifest = check_bundle(with_artifact)
    (with_artifact / "artifacts" / "base" / "weights").write_bytes(b"x" * 50)
    with pytest.raises(BundleError, match="artifacts/base/weights was changed after it was written"):
        archived(with_artifact, manifest)
