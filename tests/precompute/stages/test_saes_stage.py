"""Stage `saes`: dictionaries of every variant, streamed or held, read from folders, and never trained twice."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from lfp.bundle.manifest import read_manifest
from lfp.bundle.store.connection import Store
from lfp.bundle.validation import validate
from lfp.errors import ConfigError, ModelError
from lfp.ml.models.loading import load_model
from lfp.ml.sae.autoencoders import SAES, SaeInfo
from lfp.ml.sae.fit import Fit
from lfp.ml.sae.formats import load_sae, write_sae
from lfp.ml.sae.quality import quality
from lfp.util.types import SITES, Site
from precompute.pipeline import run_pipeline, run_stages
from precompute.run.work_folder import Run
from precompute.stages.features.saes import check_changed
from precompute.stages.features.subjects import PairSubject
from tests.precompute.conftest import Resume, brief_config, silent, tiny_config
from tests.precompute.stages.test_shards import read_folder


@pytest.fixture
def pair(tiny_bundle: Path) -> dict[str, Any]:
    """The tiny run's models, as the section of a config."""
    return {role: str(tiny_bundle / "artifacts" / role) for role in ("base", "tuned")}


def saes_of(bundle: Path) -> list[dict[str, Any]]:
    with Store.open(bundle) as store:
        return store.rows("SELECT * FROM saes")


def good_sae(
    folder: Path, *, layer: int, site: Site = "mlp_out", d_in: int = 16, width: int = 24, bias: float = 0.0
) -> Path:
    """A dictionary of the axes and half of their opposites, which rebuilds most of any activation."""
    info = SaeInfo(layer, width, d_in, 1.0, None, 0, "tuned", "jumprelu", site=site)
    sae = SAES["jumprelu"](info).requires_grad_(False)
    axes = torch.cat([torch.eye(d_in), -torch.eye(d_in)])[:width]
    sae.encoder.copy_(axes)
    sae.W_dec.copy_(axes)
    sae.b_enc.fill_(bias)
    write_sae(sae, folder)
    return folder


def chosen_layer(bundle: Path) -> int:
    return next(row["layer"] for row in saes_of(bundle))


def test_the_row_of_a_dictionary_has_every_figure(tiny_bundle: Path) -> None:
    rows = saes_of(tiny_bundle)
    assert [(row["model"], row["width"], row["is_used"]) for row in rows] == [
        ("base", 16, False), ("tuned", 16, True), ("tuned", 32, False)
    ]  # fmt: skip
    for row in rows:
        assert row["variant"] == "tied_relu" and row["tied"] and row["source"] == "trained"
        assert row["ce_recovered"] is not None and row["ce_recovered"] <= 1.0
        assert (row["mmcs"] is None) == (row["model"] == "base")


@pytest.mark.parametrize("variant", ["relu", "topk", "batchtopk", "jumprelu"])
def test_dictionaries_of_every_variant_are_trained(
    variant: str, tiny_work: Path, corpus_folder: Path, tmp_path: Path
) -> None:
    """`relu` and `topk` go the whole way below, `jumprelu` with a dictionary made elsewhere, `batchtopk` by kind."""
    work = shutil.copytree(tiny_work, tmp_path / "work")
    run = Run(tiny_config(sae={"variant": variant, "k": 3, "expansion": [1, 1]}), work, corpus_folder, silent)
    run_stages(run, ["saes"])
    rows = run.json("saes", "saes")
    assert {row["variant"] for row in rows} == {variant} and not any(row["tied"] for row in rows)
    assert sorted(row["seed"] for row in rows if row["model"] == "tuned") == [0, 1]
    assert all((row["k"] == 3) == (variant in ("topk", "batchtopk")) for row in rows)
    assert all((row["l1"] is None) == (variant != "relu") for row in rows)
    assert all((row["l0_weight"] is None) == (variant != "jumprelu") for row in rows)
    if variant == "topk":
        assert all(0 < row["l0"] <= 3 for row in rows)


@pytest.mark.parametrize(
    "sae", [{"variant": "topk", "k": 3}, {"variant": "relu", "buffer_tokens": 1000, "batch_tokens": 128}]
)
def test_other_variants_go_the_whole_way_and_activations_may_be_streamed(
    sae: dict[str, Any], resume_tiny: Resume, tmp_path: Path
) -> None:
    out = resume_tiny(brief_config(sae=sae), tmp_path / "out")
    assert validate(out) == []
    assert all(row["fvu"] < 1.5 and row["variant"] == sae["variant"] for row in saes_of(out))


def test_a_dictionary_made_elsewhere_takes_the_place_of_training(
    tiny_bundle: Path, resume_tiny: Resume, tmp_path: Path
) -> None:
    layer = chosen_layer(tiny_bundle)
    folder = good_sae(tmp_path / "downloaded", layer=layer, width=32)
    other = good_sae(tmp_path / "of-attention", layer=layer, site="attn_out", width=32)
    pretrained = [{"layer": layer, "folder": str(folder)}, {"layer": layer, "folder": str(other), "site": "attn_out"}]
    sites = ["mlp_out", "resid_post", "attn_out"]
    out = resume_tiny(brief_config(layers={"sites": sites}, sae={"pretrained": pretrained}), tmp_path / "out")
    assert validate(out) == []
    used = {row["site"]: row for row in saes_of(out) if row["is_used"]}
    for site, width, source in (("mlp_out", 32, "downloaded"), ("attn_out", 32, "of-attention")):
        row = used[site]
        assert (row["variant"], row["width"], row["source"], row["mmcs"]) == ("jumprelu", width, source, None)
    assert used["resid_post"]["source"] == "trained"
    kept = load_sae(out / "artifacts" / "saes" / f"tuned-layer{layer}")
    assert torch.equal(kept.encoder, load_sae(folder).encoder)
    assert {row["source"] for row in saes_of(out) if row["model"] == "base"} == {"trained"}
    with Store.open(out) as store:
        checked = store.rows("SELECT * FROM results WHERE report_row = 'sae_check'")
    assert {row["metric"] for row in checked} == {"fvu", "l0", "dead_fraction", "input_scale"}
    assert {(row["layer"], row["site"], row["group"]) for row in checked} == {
        (layer, "mlp_out", "downloaded"), (layer, "attn_out", "of-attention")
    }  # fmt: skip
    assert all(0 <= row["value"] < 0.7 for row in checked if row["metric"] == "fvu")
    assert "% of its features active per token on mlp_out of layer" in read_manifest(out).notes


@pytest.mark.parametrize(
    ("bias", "words"),
    [(-1e9, r"silent: no feature of layer \d fires: wrong scale, site or model"), (1e9, "silent: its reconstructions")],
)
def test_a_dictionary_that_cannot_be_of_its_place_ends_the_run_before_anything_is_trained(
    bias: float,
    words: str,
    pair: dict[str, Any],
    tiny_bundle: Path,
    corpus_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("lfp.ml.sae.training.train_saes", lambda *_, **__: pytest.fail("trained"))
    layer = chosen_layer(tiny_bundle)
    folder = good_sae(tmp_path / "silent", layer=layer, bias=bias)
    for model in ("tuned", "base"):
        config = tiny_config(model=pair, sae={"pretrained": [{"layer": layer, "folder": str(folder), "model": model}]})
        with pytest.raises(ModelError, match=words):
            run_pipeline(config, tmp_path / "out", config_dir=corpus_folder, resume=True, progress=silent)


def test_a_dictionary_that_never_fires_crashes_no_later_stage(
    tiny_bundle: Path, resume_tiny: Resume, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All its features are constant, and so is every input of the probes."""
    monkeypatch.setattr("lfp.ml.sae.fit.check_fit", lambda sae, x, **_: Fit(quality(sae, x), None))
    layer = chosen_layer(tiny_bundle)
    folders = [good_sae(tmp_path / f"silent{i}", layer=i, bias=-1e9) for i in range(2)]
    entries = [{"layer": i, "folder": str(folders[i]), "model": m} for i in (0, 1) for m in ("tuned", "base")]
    config = tiny_config(
        sae={"pretrained": [entry for entry in entries if entry["layer"] == layer]}, probes={"rollouts": 0}
    )
    assert validate(resume_tiny(config, tmp_path / "out")) == []


def test_a_dictionary_that_cannot_be_read_ends_the_run_before_any_model_is_made(
    corpus_folder: Path, tmp_path: Path
) -> None:
    folder = good_sae(tmp_path / "pruned", layer=1)
    (folder / "sae_weights.safetensors").write_bytes(b"cut short")
    stages: list[str] = []
    for entry, said in (({"layer": 1}, "cannot be read"), ({"layer": 0}, "cannot be read|made for blocks")):
        config = tiny_config(sae={"pretrained": [{"folder": str(folder), **entry}]})
        with pytest.raises(ModelError, match=said):
            run_pipeline(
                config,
                tmp_path / "out",
                config_dir=corpus_folder,
                resume=True,
                progress=lambda what, *_: stages.append(what),
            )
        good_sae(folder, layer=1)
    assert stages == []


def test_a_dictionary_of_another_width_ends_the_run_before_any_model_is_made(
    pair: dict[str, Any], corpus_folder: Path, tmp_path: Path
) -> None:
    folder, stages = good_sae(tmp_path / "wide", layer=1, d_in=20), list[str]()
    for changes in ({"model": pair}, {}):
        config = tiny_config(sae={"pretrained": [{"layer": 1, "folder": str(folder)}]}, **changes)
        with pytest.raises(ModelError, match="made for activations of width 20, but this model's have width 16"):
            run_pipeline(
                config,
                tmp_path / "out",
                config_dir=corpus_folder,
                resume=True,
                progress=lambda what, *_: stages.append(what),
            )
    assert stages == []


def test_a_dictionary_that_does_not_fit_is_named(
    pair: dict[str, Any], tiny_bundle: Path, corpus_folder: Path, tmp_path: Path
) -> None:
    layer = chosen_layer(tiny_bundle)
    wide = good_sae(tmp_path / "wide", layer=layer, d_in=17)
    elsewhere = good_sae(tmp_path / "elsewhere", layer=1 - layer)
    residual = good_sae(tmp_path / "residual", layer=layer, site="resid_post")
    for entry, error, said in (
        ({"layer": layer, "folder": str(wide)}, ModelError, "17"),
        ({"layer": 1 - layer, "folder": str(elsewhere)}, ConfigError, f"sae.pretrained names layer {1 - layer}"),
        ({"layer": layer, "folder": "no/such"}, ModelError, "no/such"),
        ({"layer": layer, "folder": "./no/such"}, ConfigError, "there is no such folder"),
        ({"layer": layer, "release": "no-such", "sae_id": "x"}, ModelError, "no-such: "),
        ({"layer": layer, "folder": str(residual), "site": "resid_post"}, ConfigError, "site resid_post"),
        ({"layer": layer, "folder": str(wide), "site": "resid_post"}, ModelError, "which is not resid_post of layer"),
    ):
        config = tiny_config(model=pair, sae={"pretrained": [entry]})
        with pytest.raises(error, match=said):
            run_pipeline(config, tmp_path / "out", config_dir=corpus_folder, resume=True, progress=silent)


def test_training_killed_at_any_step_goes_on_to_the_same_dictionaries(
    tiny_work: Path, corpus_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lfp.ml.sae.training.CHECKPOINT_EVERY", 20)
    steps: list[int] = []

    def killed(what: str, done: int, total: int, value: float) -> None:
        if what.startswith("layer"):
            steps.append(done)
            if len(steps) in (2, 3, 5):
                raise KeyboardInterrupt

    config = tiny_config(sae={"steps": 120})
    whole, run = (
        Run(config, shutil.copytree(tiny_work, tmp_path / name), corpus_folder, progress)
        for name, progress in (("whole", silent), ("killed", killed))
    )
    run_stages(whole, ["saes"])
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            run_stages(run, ["saes"])
    run_stages(run, ["saes"])
    found = [read_folder(each.folder("saes")) for each in (whole, run)]
    assert found[0] == found[1] and sum(name.endswith(".safetensors") for name in found[0]) == 3
    assert len(steps) < 3 * 3 * 3, "nothing was begun from scratch"
    assert [path.name for path in run.work.iterdir() if path.name.startswith(".")] == []


def read_unchanged(tiny_bundle: Path, folder: Path, changed: str, trained_on: str, sites: list[Site]) -> list[str]:
    """What the stage says of a base model and the same with some of its weights changed, all layers read."""
    base, tuned = (load_model(str(tiny_bundle / "artifacts" / "base")) for _ in range(2))
    for name, value in tuned.parameters.items():
        if re.search(changed, name):
            value += 0.1
    run = Run(tiny_config(), folder, None, silent)
    (folder / "layers").mkdir()
    places = [[layer, site] for layer in range(base.n_layers) for site in sites]
    (folder / "layers" / "places.json").write_text(json.dumps(places))
    return check_changed(PairSubject(run, "tuned", trained_on=trained_on, given=(tuned, base)))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changed", "sites", "says"),
    [
        (r"attention\.", ["mlp_out"], r"layer 0 mlp_out, layer 1 mlp_out[;:].*set layers.sites to attn_out,"),
        (r"mlp\.", ["attn_out"], r"layer 0 attn_out, layer 1 attn_out[;:].*set layers.sites to mlp_out,"),
        (r"layers\.1\.mlp", ["mlp_out"], r"layer 0 mlp_out[;:].*lower layers.count"),
        (r"layers\.1\.mlp", ["resid_post"], r"layer 0 resid_post[;:].*set layers.sites to mlp_out,"),
        ("embed_in", ["mlp_out"], r"layer 1 mlp_out[;:].*set layers.sites to resid_post,"),
        ("$^", ["mlp_out"], r"base and tuned model are equal.*all credits are 0"),
    ],
)
def test_a_site_where_tuning_changed_nothing_is_named_before_training(
    changed: str, sites: list[Site], says: str, tiny_bundle: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=says):
        read_unchanged(tiny_bundle, tmp_path, changed, "change", sites)
    for kind in ("tuned", "shared", "crosscoder", "base_finetuned"):
        (tmp_path / kind).mkdir()
        notes = read_unchanged(tiny_bundle, tmp_path / kind, changed, kind, sites)
        if changed == "$^":
            assert notes == []  # the stage `credits` has said it
        else:
            (note,) = notes
            assert re.search(says, note) and "no feature there has a credit" in note


def test_what_tuning_changed_everywhere_is_read_without_a_note(tiny_bundle: Path, tmp_path: Path) -> None:
    assert read_unchanged(tiny_bundle, tmp_path, ".", "change", list(SITES)) == []


def test_equal_models_have_no_dictionary_of_changes(tiny_bundle: Path, corpus_folder: Path, tmp_path: Path) -> None:
    models = {role: str(tiny_bundle / "artifacts" / "base") for role in ("base", "tuned")}
    run = Run(tiny_config(model=models, sae={"trained_on": "change"}), tmp_path / "work", corpus_folder, silent)
    with pytest.raises(ConfigError, match=r"base and tuned model are equal"):
        run_stages(run, ["saes"])
