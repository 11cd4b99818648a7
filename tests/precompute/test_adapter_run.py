"""A run whose base is in an installed package and whose tuned model is an adapter."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from lfp.bundle.manifest import check_bundle, read_table
from lfp.bundle.validation import validate
from lfp.config import parse_config
from lfp.errors import BundleError, DependencyError, ModelError
from lfp.ml.interventions.bundle_models import Live
from lfp.ml.models.activations import stream_pair
from lfp.ml.models.loading import load_model
from lfp.ml.models.tokenization import tokenize
from lfp.util.types import Place
from precompute.pipeline import plan_stages, run_pipeline
from precompute.run.work_folder import Output, Run
from tests.lfp.ml.conftest import build_model, save_adapter
from tests.precompute.conftest import brief_config, replace_jobs, silent, tiny_config

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
BASE = "package:tiny_base/weights"


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packages")
    build_model(folder / "tiny_base" / "weights", architecture="llama")
    return folder


@pytest.fixture
def installed(packages: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(packages), *sys.path])


@pytest.fixture(scope="module")
def made(packages: Path, corpus_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("adapter run")
    for file in corpus_folder.iterdir():
        shutil.copy(file, folder)
    save_adapter(packages / "tiny_base" / "weights", folder / "adapter", target_modules=["q_proj", "down_proj"])
    settings = folder / "adapter" / "adapter_config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"base_model_name_or_path": BASE}))
    config = brief_config(
        model={"base": BASE, "tuned": "adapter", "context": 48},
        ablation={"completions": 0},
        sae={"expansion": [1], "steps": 10},
    ).model_copy(update={"artifacts_dtype": "float16", "keep_decoders": False})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [str(packages), *sys.path])
        return run_pipeline(config, folder / "bundle", config_dir=folder, resume=False, progress=silent)


def test_the_bundle_keeps_the_adapter_and_the_name_of_its_base(made: Path, installed: None) -> None:
    assert validate(made) == []
    manifest = check_bundle(made)
    base, tuned = manifest.models["base"], manifest.models["tuned"]
    assert (base.name, base.by_name, base.adapter) == (BASE, True, None)
    assert (tuned.name, tuned.by_name, tuned.adapter) == ("adapter", False, "LORA")
    assert base.parameters == tuned.parameters and base.sha256 != tuned.sha256
    kept = {Path(name).name for name in manifest.artifacts if "/base/" in name or "/tuned/" in name}
    assert {"adapter_config.json", "adapter_model.safetensors"} <= kept and "config.json" not in kept
    live = Live.load(made, manifest)
    assert live.base.network is live.tuned.network and live.base.sha256 == base.sha256
    found, (cut,) = live.read("The plot was dull.", "tuned"), tokenize(live.tuned.tokenizer, ["The plot was dull."],
                                                                       context=48)  # fmt: skip
    pair = load_model(str(made / "artifacts" / "tuned")), load_model(BASE)
    (tokens,) = stream_pair(*pair, [cut], places=[Place(0)], batch_texts=1, prepend_bos=True)
    np.testing.assert_allclose(found.implicit_reward, tokens.implicit_reward, atol=1e-5)


def test_a_bundle_in_half_precision_holds_halves_that_give_the_same_figures(made: Path, installed: None) -> None:
    with safe_open(made / "artifacts" / "tuned" / "adapter_model.safetensors", "pt") as half:
        assert {half.get_tensor(name).dtype for name in half.keys()} == {torch.float16}  # noqa: SIM118
    assert read_table(made, "decoders").num_rows == 0 and read_table(made, "features").num_rows > 0
    stored = read_table(made, "token_scores")["implicit_reward"].to_pylist()
    texts = read_table(made, "texts")["text"].to_pylist()
    live = Live.load(made, check_bundle(made))
    found = [live.read(text, "tuned").implicit_reward for text in texts[:20]]
    for before, after in zip(stored[:20], found, strict=True):
        np.testing.assert_allclose(after, before, atol=1e-3)


def test_a_base_that_is_missing_or_another_is_named(
    made: Path, packages: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = check_bundle(made)
    with pytest.raises(DependencyError, match=r"not installed; run pip install --no-deps tiny-base$"):
        Live.load(made, manifest)
    build_model(tmp_path / "tiny_base" / "weights", architecture="llama", seed=5)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    with pytest.raises(BundleError, match=f"{BASE} has other weights here than the run's base model had"):
        Live.load(made, manifest)


def test_stages_are_keyed_by_the_contents_of_models(made: Path, installed: None) -> None:
    config = parse_config({"corpus": {"source": "reviews.txt"}, "model": {"base": BASE, "tuned": "adapter"}})
    stages = {stage.name: stage for stage in plan_stages(config, made.parent)}
    assert {file.name for file in stages["base"].files} >= {"config.json", "model.safetensors", "tokenizer.json"}
    assert {file.name for file in stages["tuned"].files} >= {"adapter_config.json", "adapter_model.safetensors"}
    assert "model.base" in stages["tuned"].reads


@pytest.mark.parametrize(
    "error",
    [torch.OutOfMemoryError("CUDA out of memory"), MemoryError(), RuntimeError("[enforce] can't allocate memory")],
)
def test_full_memory_is_a_sentence(
    error: Exception, corpus_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill(run: Run, output: Output) -> None:
        raise error

    replace_jobs(monkeypatch, corpus=fill)
    with pytest.raises(
        ModelError,
        match=r"^stage corpus: out of memory on cpu \(.*\); use a machine with more memory, then add --resume",
    ):
        run_pipeline(tiny_config(), tmp_path / "out", config_dir=corpus_folder, resume=False, progress=silent)
