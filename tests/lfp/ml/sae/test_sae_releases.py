"""Autoencoders by SAELens's names of releases, from the hub's cache, and folders as people have them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import lfp
from lfp.errors import ModelError
from lfp.ml.sae.formats import load_sae, locate_release, locate_sae, open_sae, read_sae, write_sae
from tests.lfp.builders import tiny_sae
from tests.lfp.ml.sae.test_foreign_formats import FOREIGN, GEMMA, saelens_folder

TABLE = """
tiny-res-canonical:
  conversion_func: gemma_2
  model: tiny
  repo_id: google/gemma-scope-2b-pt-res
  saes:
  - {id: layer_3/width_16k/canonical, path: layer_3/width_16k/average_l0_5}
  - {id: layer_4/width_16k/canonical, path: layer_4/width_16k/average_l0_7}
tiny-scaled:
  model: tiny
  repo_id: org/scaled
  config_overrides: {dataset_path: texts}
  saes:
  - {id: blocks.4.hook_resid_pre, path: first, norm_scaling_factor: 2.5}
tiny-qwen:
  conversion_func: qwen_scope
  model: tiny
  repo_id: org/qwen
  saes:
  - {id: layer0, path: layer0.sae.pt}
"""


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub's cache with two repositories, and no hub."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("lfp.ml.sae.readers.hub.hub_reachable", lambda: False)
    repository, _, inside = GEMMA.partition("/")
    shutil.copytree(FOREIGN / GEMMA, snapshot(tmp_path, f"google/{repository}") / inside)
    folder = snapshot(tmp_path, "org/scaled") / "first"
    folder.mkdir()
    saelens_folder(folder, normalize_activations="expected_average_only_in")
    return tmp_path / "cache"


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SAELens's table as its package holds it, in a package that must not be imported."""
    package = tmp_path / "packages" / "sae_lens"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise AssertionError('imported')")
    (package / "pretrained_saes.yaml").write_text(TABLE)
    monkeypatch.syspath_prepend(str(package.parent))


def snapshot(root: Path, repository: str) -> Path:
    """Make the folder of a repository's one commit in the cache."""
    home, commit = root / "cache" / f"models--{repository.replace('/', '--')}", "0" * 40
    (home / "refs").mkdir(parents=True)
    (home / "refs" / "main").write_text(commit)
    (home / "snapshots" / commit).mkdir(parents=True)
    return home / "snapshots" / commit


def test_a_repository_in_the_cache_is_read_without_the_hub(cache: Path) -> None:
    info = lfp.load_sae(f"google/{GEMMA}").info
    assert (info.layer, info.site, info.source) == (3, "resid_post", f"google/{GEMMA}")
    with pytest.raises(ModelError, match=r"org/absent/x: .*there is no local copy\); pass a local folder"):
        locate_sae("org/absent/x")
    with pytest.raises(ModelError, match="no such folder in that repository in the local cache"):
        locate_sae("google/gemma-scope-2b-pt-res/layer_9")


def test_a_release_of_saelens_table_is_found(cache: Path, table: None) -> None:
    located = locate_release("tiny-res-canonical", "layer_3/width_16k/canonical")
    assert located.folder.name == "average_l0_5" and located.overrides == {}
    info = lfp.load_sae("tiny-res-canonical", sae_id="layer_3/width_16k/canonical").info
    assert (info.layer, info.source) == (3, "tiny-res-canonical/layer_3/width_16k/canonical")


def test_a_releases_factor_reaches_the_weights(cache: Path, table: None) -> None:
    located = locate_release("tiny-scaled", "blocks.4.hook_resid_pre")
    assert located.overrides == {"dataset_path": "texts", "norm_scaling_factor": 2.5}
    scaled, plain = open_sae(located.folder, located.overrides), open_sae(located.folder)
    torch.testing.assert_close(scaled.weights.b_enc * 2.5, plain.weights.b_enc)


def test_a_repository_may_stand_for_a_release(cache: Path) -> None:
    located = locate_release("google/gemma-scope-2b-pt-res", "layer_3/width_16k/average_l0_5")
    assert located.folder == locate_sae(f"google/{GEMMA}")


@pytest.mark.parametrize(
    ("release", "sae_id", "words"),
    [
        ("tiny-res-canonical", "layer_3/width_16k/canonicl", "has no sae_id .*; it has layer_3/width_16k/canonical"),
        ("tiny-res-canonical", "?", "has no sae_id .*; it has layer_3/width_16k/canonical and others"),
        ("tiny-qwen", "layer0", "stored in the format qwen_scope, which is not read"),
        ("tiny-rez", "x", "tiny-rez: is not in SAELens's table; .* as org/name"),
        ("org/repo/x", "x", "org/repo/x: is not in SAELens's table"),
    ],
)
def test_a_name_that_is_no_release_is_refused(table: None, release: str, sae_id: str, words: str) -> None:
    with pytest.raises(ModelError, match=words):
        locate_release(release, sae_id)


def test_a_release_without_saelens_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ModelError, match="can be looked up only where sae-lens is installed"):
        locate_release("gemma-scope-2b-pt-res-canonical", "layer_3/width_16k/canonical")


# --- folders as people have them ------------------------------------------------------------------------------------


def folder_of(tmp_path: Path, weights: dict[str, Any], **config: Any) -> Path:
    folder, stored = saelens_folder(tmp_path, hook_name="blocks.0.hook_mlp_out", **config)
    save_file({**stored, **weights}, folder / "sae_weights.safetensors")
    return folder


def test_every_feature_below_zero_is_read_and_never_fires(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, {"b_enc": torch.full((12,), -1e4)}, apply_b_dec_to_input=False)
    sae = read_sae(folder, layer=0, model="base", scale=1.0, d_in=6)
    assert not bool((sae.encode(torch.randn(50, 6)) > 0).any())


def test_a_decoder_row_of_zeros_stays_finite(tmp_path: Path) -> None:
    w_dec = torch.randn(12, 6)
    w_dec[3] = 0
    folder = folder_of(
        tmp_path, {"W_dec": w_dec}, architecture="topk", k=3, rescale_acts_by_decoder_norm=True, metadata={}
    )
    sae = read_sae(folder, layer=0, model="base", scale=1.0, d_in=6)
    assert bool(torch.isfinite(sae.reconstruct(torch.randn(50, 6))).all())


@pytest.mark.parametrize(
    ("weights", "config", "words"),
    [
        ({"scaling_factor": torch.full((12,), 1.5)}, {}, "has no place for scaling_factor"),
        ({}, {"architecture": "gated"}, "lacks b_gate, b_mag, r_mag"),
        ({}, {"architecture": "matryoshka_batchtopk", "k": 3, "metadata": {}}, "lacks topk_threshold"),
        ({}, {"architecture": "matching_pursuit"}, "architecture matching_pursuit is not supported"),
    ],
)
def test_half_an_autoencoder_is_refused(tmp_path: Path, weights: dict[str, Any], config: Any, words: str) -> None:
    with pytest.raises(ModelError, match=words):
        read_sae(folder_of(tmp_path, weights, **config), layer=0, model="base", scale=1.0, d_in=6)


def test_a_folder_of_folders_names_what_is_read(tmp_path: Path) -> None:
    write_sae(tiny_sae(), tmp_path / "layers.0")
    with pytest.raises(ModelError, match=r"not an autoencoder's folder; pass one with .* params\.npz .* ae\.pt"):
        load_sae(tmp_path)
