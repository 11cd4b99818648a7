"""Runs that read from and write to object stores; the stages themselves do not know."""

import shutil

import fsspec
import pytest

import lfp
from lfp.bundle.manifest import read_manifest
from lfp.bundle.remote.mirror import Mirror
from lfp.bundle.remote.publishing import Target
from lfp.errors import BundleError, ModelError
from lfp.testing.synthetic import make_bundle
from precompute import pipeline
from precompute.run.inputs import resolve_name
from precompute.run.progress import silent
from tests.precompute.conftest import tiny_config


@pytest.fixture
def run_to(monkeypatch, tmp_path):
    """Runs a pipeline whose stages and bundle are there already, and keeps its work in `tmp_path`."""
    made = make_bundle(tmp_path / "made", n_features=8, n_texts=6, n_layers=1)
    monkeypatch.setattr(pipeline, "run_stages", lambda run, names: None)
    monkeypatch.setattr(
        pipeline, "write_bundle", lambda run, out, names: shutil.copytree(made, out, dirs_exist_ok=True)
    )
    (tmp_path / "reviews.txt").write_text("good\nbad\n", encoding="utf-8")

    def run(out, **options):
        config = tiny_config(corpus={"source": str(tmp_path / "reviews.txt")})
        return pipeline.run_pipeline(config, out, config_dir=tmp_path, resume=True, progress=silent, **options)

    run.made = made
    return run


def test_a_run_publishes_its_bundle_and_keeps_its_work_on_this_machine(bucket, run_to, tmp_path, monkeypatch, s3):
    monkeypatch.chdir(tmp_path)
    assert run_to(f"{bucket}/run") == f"{bucket}/run"
    assert Mirror.open(f"{bucket}/run").manifest == read_manifest(run_to.made)
    assert not list(tmp_path.glob(".*.run")) and not (tmp_path / "s3:").exists()
    s3.before = lambda method, path: ("503 Slow", "Busy", "no") if path.endswith("texts.parquet") else None
    with pytest.raises(BundleError, match=r"texts\.parquet cannot be written"):
        run_to(f"{bucket}/new", work=tmp_path / "work")
    assert (tmp_path / "work" / ".new.run" / "bundle" / "texts.parquet").is_file(), "there is nothing to resume from"
    s3.reset()
    run_to(f"{bucket}/new", work=tmp_path / "work")
    assert not list((tmp_path / "work").iterdir())
    with pytest.raises(BundleError, match="no such bucket"):
        run_to("s3://no-such-bucket/run")


def test_labels_are_written_to_an_address(bucket, run_to, s3):
    Target.find(f"{bucket}/run").publish(run_to.made)
    outcome = lfp.label(f"{bucket}/run", labeller="offline-tokens")
    with lfp.open_bundle(f"{bucket}/run") as run:
        assert outcome.labelled == sum(run.table("labels").labeller == "offline-tokens") and run.validate() == []


def test_a_model_at_an_address_is_copied_once(bucket, s3, tmp_path):
    files = fsspec.filesystem("s3")
    files.pipe({f"{bucket}/model/config.json": b"{}", f"{bucket}/model/deep/vocab.txt": b"a", f"{bucket}/m.gguf": b"x"})
    s3.sent.clear()
    for _ in range(2):
        folder = resolve_name(f"{bucket}/model", tmp_path)
        assert (tmp_path.__class__(folder) / "deep" / "vocab.txt").read_bytes() == b"a"
    assert s3.fetched() == {"config.json": 2, "vocab.txt": 1}
    assert tmp_path.__class__(resolve_name(f"{bucket}/m.gguf", None)).name == "m.gguf"
    files.pipe_file(f"{bucket}/model/config.json", b"{} ")
    assert resolve_name(f"{bucket}/model", tmp_path) != folder
    with pytest.raises(ModelError, match=r"s3://.*/none: no such file or folder"):
        resolve_name(f"{bucket}/none", None)


def test_an_address_with_a_password_or_a_signature_is_kept_without(tmp_path):
    from lfp.util.object_stores import values_without_secrets, without_secrets

    config = {"corpus": {"source": "https://me:pw@host/a.jsonl?X-Amz-Signature=abc", "n": 3}, "x": ["gs://b/c?sig=1"]}
    assert values_without_secrets(config) == {"corpus": {"source": "https://host/a.jsonl", "n": 3}, "x": ["gs://b/c"]}
    for kept in ("az://box@account.host/a", "s3://b/part-?.jsonl"):
        assert without_secrets(kept) == kept
    assert "abc" not in without_secrets("403, url='https://host/a?X-Amz-Signature=abc'")
    assert "hush" not in without_secrets("refused: secret_access_key=hush")
