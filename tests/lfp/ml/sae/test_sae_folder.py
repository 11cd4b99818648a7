"""Autoencoders on disk: nothing lost, read as SAELens reads them and readable by it, bad ones refused."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from lfp.errors import ModelError
from lfp.ml.sae.autoencoders import Sae, Variant
from lfp.ml.sae.formats import find_place, load_sae, locate_sae, read_sae, write_sae
from lfp.util.types import Place
from tests.lfp.builders import tiny_sae

CONFIG, WEIGHTS = "cfg.json", "sae_weights.safetensors"
OUTPUTS = torch.randn(40, 6, generator=torch.Generator().manual_seed(9)) * 3
FIXTURES = Path(__file__).parent / "fixtures" / "saelens"
FOREIGN = sorted(path.name for path in FIXTURES.iterdir())
every_variant = pytest.mark.parametrize("variant", get_args(Variant))


def read(folder: Path, **changes: Any) -> Sae:
    return read_sae(folder, **({"layer": 0, "model": "tuned", "scale": 0.5, "d_in": 6} | changes))


def edit_config(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    config = json.loads((folder / CONFIG).read_text())
    change(config)
    (folder / CONFIG).write_text(json.dumps(config))


def edit_weights(folder: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file(tensors, folder / WEIGHTS)


def copied(name: str, folder: Path) -> Path:
    """A fixture that may be changed."""
    folder.mkdir(exist_ok=True)
    for file in (CONFIG, WEIGHTS):
        (folder / file).write_bytes((FIXTURES / name / file).read_bytes())
    return folder


def assert_same(one: Sae, other: Sae) -> None:
    assert one.info == other.info and type(one) is type(other)
    for name, tensor in one.state_dict().items():
        assert torch.equal(other.state_dict()[name], tensor)


@every_variant
@pytest.mark.parametrize("width", [12, 6])
def test_saving_keeps_every_field_and_every_bit(tmp_path: Path, variant: Variant, width: int) -> None:
    """Of any shape: square weights too, whose shape does not tell which way they lie."""
    sae = tiny_sae(variant=variant, scale=1 / 3, layer=4, seed=11, width=width)
    write_sae(sae, tmp_path / "deep" / "er")
    again = load_sae(tmp_path / "deep" / "er")
    assert_same(sae, again)
    assert torch.equal(again.encode(OUTPUTS), sae.encode(OUTPUTS))
    assert (again.W_dec is again.encoder) == (variant == "tied_relu")
    assert not any(parameter.requires_grad for parameter in again.parameters())


@every_variant
def test_cfg_json_says_it_in_saelens_words(tmp_path: Path, variant: Variant) -> None:
    sae = tiny_sae(variant=variant, layer=4)
    write_sae(sae, tmp_path)
    config = json.loads((tmp_path / CONFIG).read_text())
    assert (config["d_in"], config["d_sae"], config["dtype"]) == (6, 12, "float32")
    architectures = {"tied_relu": "standard", "relu": "standard", "batchtopk": "jumprelu"}
    assert config["architecture"] == architectures.get(variant, variant)
    assert config["metadata"]["hook_name"] == "blocks.4.mlp.hook_out"
    assert config["metadata"]["lfp"] == asdict(sae.info)
    tensors = load_file(tmp_path / WEIGHTS)
    assert torch.equal(tensors["W_enc"], sae.encoder.T) and torch.equal(tensors["W_dec"], sae.W_dec)


def test_saving_twice_writes_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_sae(tiny_sae(), tmp_path / name)
    for file in (CONFIG, WEIGHTS):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


@every_variant
def test_an_autoencoder_saved_here_can_be_read_for_another_run(tmp_path: Path, variant: Variant) -> None:
    sae = tiny_sae(variant=variant)
    write_sae(sae, tmp_path)
    again = read(tmp_path, model="base", scale=0.25, source="org/repo/one")
    sae.info = replace(sae.info, model="base", scale=0.25, source="org/repo/one")
    assert_same(sae, again)


@pytest.mark.parametrize("name", FOREIGN)
def test_saelens_folders_give_here_what_they_give_there(name: str) -> None:
    expected = load_file(FIXTURES / name / "expected.safetensors")
    sae = read(FIXTURES / name)
    features, rebuilt = sae(expected["inputs"])
    torch.testing.assert_close(features, expected["features"], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(rebuilt, expected["rebuilt"], rtol=1e-5, atol=1e-5)
    assert 0.05 < (features > 0).float().mean() < 0.95
    assert all(tensor.dtype == torch.float32 for tensor in sae.state_dict().values())


@pytest.mark.parametrize("name", FOREIGN)
def test_what_was_read_elsewhere_survives_saving_here(tmp_path: Path, name: str) -> None:
    sae = read(FIXTURES / name, source="org/repo")
    write_sae(sae, tmp_path)
    assert_same(sae, load_sae(tmp_path))


def test_a_foreign_folder_is_told_its_facts() -> None:
    info = read(FIXTURES / "topk_rescaled", model="base").info
    assert (info.variant, info.k, info.model, info.scale, info.l1) == ("topk", 3, "base", 0.5, None)
    assert info.source == str(FIXTURES / "topk_rescaled")
    assert read(FIXTURES / "standard_layer_norm").info.normalize == "layer_norm"
    assert read(FIXTURES / "batchtopk").info.k is None  # 2.5 on average
    assert read(FIXTURES / "batchtopk_plain").info.k == 3


def test_rescaling_is_folded_into_unit_decoder_rows_and_survives_a_row_of_zeros(tmp_path: Path) -> None:
    folder = copied("topk_rescaled", tmp_path)
    edit_weights(folder, lambda tensors: tensors["W_dec"][4].zero_())
    sae = read(folder)
    assert bool(torch.isfinite(sae.reconstruct(OUTPUTS)).all())
    norms = sae.W_dec.norm(dim=1)
    torch.testing.assert_close(norms, torch.ones(12).index_fill(0, torch.tensor(4), 0.0))


def test_load_sae_wants_a_folder_written_here() -> None:
    with pytest.raises(ModelError, match="read_sae"):
        load_sae(FIXTURES / "topk")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c.update(architecture="gated"), "lacks b_gate, b_mag, r_mag and has no place for b_enc"),
        (
            lambda c: c.update(architecture="transcoder"),
            "transcoder is not supported; .* jumprelu or matryoshka_batchtopk",
        ),
        (lambda c: c.pop("architecture"), "architecture None"),
        (
            lambda c: c.update(normalize_activations="covariance_whitening"),
            "covariance_whitening .* layer_norm or none",
        ),
        (lambda c: c.update(reshape_activations="hook_z"), "reshape_activations hook_z"),
        (lambda c: c.update(k=13), "k is 13, .* 12 features"),
        (lambda c: c.update(k=0), "k is 0"),
        (lambda c: c.update(k=2.5), "k is 2.5"),
        (lambda c: c.pop("k"), "k is None"),
        (lambda c: c.update(d_sae="12"), "d_sae is 12, not a whole number"),
        (lambda c: c.update(d_in=0), "d_in is 0"),
        (lambda c: c.update(d_in=8), r"W_enc is \[6, 12\], but \[8, 12\]"),
        (lambda c: c.update(d_sae=11), r"W_enc is \[6, 12\], but \[6, 11\]"),
        (lambda c: c["metadata"].update(hook_name="blocks.0.hook_resid_post"), "made for blocks.0.hook_resid_post"),
        (lambda c: c["metadata"].update(hook_name="blocks.1.hook_mlp_out"), "not mlp_out of layer 0"),
        (lambda c: c["metadata"].update(hook_name="blocks.0.mlp.hook_post"), "made for blocks.0.mlp.hook_post"),
    ],
)
def test_a_config_that_is_not_read_is_refused(tmp_path: Path, change: Any, words: str) -> None:
    folder = copied("topk", tmp_path)
    edit_config(folder, change)
    with pytest.raises(ModelError, match=words):
        read(folder)


@pytest.mark.parametrize(
    ("hook", "place"),
    [
        (None, Place(0)),
        ("blocks.0.mlp.hook_out", Place(0)),
        ("blocks.0.hook_mlp_out", Place(0)),
        ("gpt_neox.layers.0.mlp", Place(0)),
        ("transformer.h.0.mlp.c_proj", Place(0)),
        ("model.layers.0.mlp.down_proj", Place(0)),
        ("blocks.12.hook_resid_post", Place(12, "resid_post")),
        ("blocks.13.hook_resid_pre", Place(12, "resid_post")),
        ("model.layers.12", Place(12, "resid_post")),
        ("transformer.h.3", Place(3, "resid_post")),
        ("blocks.3.hook_attn_out", Place(3, "attn_out")),
        ("blocks.3.attn.hook_out", Place(3, "attn_out")),
        ("model.layers.3.self_attn.o_proj", Place(3, "attn_out")),
        ("gpt_neox.layers.3.attention.dense", Place(3, "attn_out")),
        ("transformer.h.3.attn", Place(3, "attn_out")),
    ],
)
def test_names_of_a_place_are_known(tmp_path: Path, hook: str | None, place: Place) -> None:
    folder = copied("topk", tmp_path)
    edit_config(folder, lambda config: config["metadata"].update(hook_name=hook))
    info = read(folder, layer=place.layer, site=place.site).info
    assert (info.layer, info.site) == place
    write_sae(read(folder, layer=place.layer, site=place.site), tmp_path / "again")
    assert load_sae(tmp_path / "again").info == info


@pytest.mark.parametrize(
    "hook",
    ["blocks.0.hook_resid_pre", "blocks.0.mlp.hook_post", "blocks.0.attn.hook_z", "blocks.0.hook_resid_mid", "x"],
)
def test_names_that_no_run_reads_are_no_place(hook: str) -> None:
    assert find_place(hook) is None


def test_a_folder_written_before_sites_is_of_the_mlps_output(tmp_path: Path) -> None:
    sae = tiny_sae()
    write_sae(sae, tmp_path)
    edit_config(tmp_path, lambda config: config["metadata"]["lfp"].pop("site"))
    assert load_sae(tmp_path).info == sae.info and sae.info.site == "mlp_out"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.pop("b_enc"), "lacks b_enc; its tensors must be W_dec, W_enc, b_dec, b_enc, threshold"),
        (lambda t: t.update(log_sparsity=torch.zeros(12)), "has no place for log_sparsity"),
        (lambda t: t.update(b_dec=torch.zeros(7)), r"b_dec is \[7\], but \[6\]"),
        (lambda t: t.update(W_enc=t["W_enc"][:, :11].contiguous()), r"W_enc is \[6, 11\], but \[6, 12\]"),
        (lambda t: t["W_dec"][3].fill_(float("nan")), "W_dec has values"),
        (lambda t: t["b_enc"][3].fill_(float("inf")), "b_enc has values"),
        (lambda t: t.update(b_dec=torch.zeros(6, dtype=torch.int64)), "b_dec has values"),
        (lambda t: t.update(scaling_factor=torch.full((12,), 2.0)), "has no place for scaling_factor"),
    ],
    ids=["missing", "extra", "wrong width", "too narrow", "nan", "inf", "integers", "unfolded"],
)
def test_weights_that_do_not_fit_are_refused(tmp_path: Path, change: Any, words: str) -> None:
    folder = copied("jumprelu", tmp_path)
    edit_weights(folder, change)
    with pytest.raises(ModelError, match=f"{WEIGHTS}: {words}"):
        read(folder)


@pytest.mark.parametrize(
    ("variant", "change", "words"),
    [
        ("tied_relu", lambda t: t["W_dec"][0].mul_(2), "tied"),
        ("batchtopk", lambda t: t["threshold"][1].add_(1), "one threshold"),
        ("tied_relu", lambda t: t.pop("b_enc"), "lacks b_enc"),
    ],
)
def test_weights_that_belie_what_was_saved_are_refused(
    tmp_path: Path, variant: Variant, change: Any, words: str
) -> None:
    write_sae(tiny_sae(variant=variant), tmp_path)
    edit_weights(tmp_path, change)
    with pytest.raises(ModelError, match=f"{WEIGHTS}: .*{words}"):
        load_sae(tmp_path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c["metadata"]["lfp"].update(threshold=1), "threshold"),
        (lambda c: c["metadata"]["lfp"].pop("seed"), "seed"),
        (lambda c: c["metadata"]["lfp"].update(variant="gated"), "gated"),
        (lambda c: c["metadata"]["lfp"].update(variant="jumprelu"), "architecture is standard, but jumprelu"),
        (lambda c: c["metadata"]["lfp"].update(width=24), "d_sae is 12, but 24"),
        (lambda c: c["metadata"].update(lfp=[1]), "metadata.lfp"),
        (lambda c: c.update(apply_b_dec_to_input=True), "apply_b_dec_to_input is True, but False"),
    ],
)
def test_a_config_that_contradicts_itself_is_refused(tmp_path: Path, change: Any, words: str) -> None:
    write_sae(tiny_sae(), tmp_path)
    edit_config(tmp_path, change)
    with pytest.raises(ModelError, match=words):
        load_sae(tmp_path)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        (CONFIG, None),
        (WEIGHTS, None),
        (CONFIG, b"{"),
        (CONFIG, b"[1]"),
        (CONFIG, b"\xff"),
        (CONFIG, b'{"layer": 0}'),
        (WEIGHTS, b"cut short"),
        (WEIGHTS, b""),
    ],
)
def test_a_folder_that_is_no_autoencoder_is_named(tmp_path: Path, file: str, content: bytes | None) -> None:
    write_sae(tiny_sae(), tmp_path)
    (tmp_path / file).unlink()
    if content is not None:
        (tmp_path / file).write_bytes(content)
    for reader in (load_sae, read):
        with pytest.raises(ModelError, match=tmp_path.name):
            reader(tmp_path)


def test_saving_again_elsewhere_in_another_precision_makes_no_stranger_of_it(tmp_path: Path) -> None:
    sae = tiny_sae(variant="jumprelu")
    write_sae(sae, tmp_path)
    edit_config(tmp_path, lambda config: config.update(dtype="bfloat16", device="cuda"))
    edit_weights(tmp_path, lambda tensors: tensors.update({name: one.bfloat16() for name, one in tensors.items()}))
    again = load_sae(tmp_path)
    assert again.info == sae.info
    assert torch.equal(again.encoder, sae.encoder.bfloat16().float())


def test_a_folder_here_is_found_without_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: pytest.fail("asked the hub"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "org" / "repo").mkdir(parents=True)
    assert locate_sae(str(tmp_path / "org")) == tmp_path / "org"
    assert locate_sae("org/repo") == Path("org/repo")
    for name in ("nothing", "./no/folder", "~/no/folder", str(tmp_path / "gone")):
        with pytest.raises(ModelError, match="no such folder"):
            locate_sae(name)


def test_a_folder_on_the_hub_is_fetched_and_no_more_than_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def snapshot_download(repository: str, **how: Any) -> str:
        asked.append((repository, how))
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    monkeypatch.setattr("lfp.ml.sae.readers.hub.hub_reachable", lambda: True)
    write_sae(tiny_sae(), tmp_path / "layer_3" / "l1")
    assert locate_sae("org/repo/layer_3/l1", "v2") == tmp_path / "layer_3" / "l1"
    [(repository, how)] = asked
    patterns = how.pop("allow_patterns")
    assert (repository, how) == ("org/repo", {"revision": "v2", "local_files_only": False})
    assert {"layer_3/l1/cfg.json", "layer_3/l1/params.npz", "layer_3/l1/checkpoints/final.safetensors"} < set(patterns)
    assert all(pattern.startswith("layer_3/l1/") and "*" not in pattern for pattern in patterns)
    with pytest.raises(ModelError, match=r"org/repo/layer_4: no such folder in that repository; check its name"):
        locate_sae("org/repo/layer_4")


@pytest.mark.parametrize("error", [OSError("no route\nmore"), ValueError("no route"), RuntimeError("no route.")])
def test_a_hub_out_of_reach_is_told_in_one_sentence(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def snapshot_download(repository: str, **how: Any) -> str:
        raise error

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    monkeypatch.setattr("lfp.ml.sae.readers.hub.hub_reachable", lambda: True)
    with pytest.raises(ModelError, match=r"^org/repo/x: no such folder here, .* \(no route\); pass a local folder$"):
        locate_sae("org/repo/x")


@every_variant
def test_saelens_reads_what_is_written_here(tmp_path: Path, variant: Variant) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        saelens = pytest.importorskip("sae_lens")
        sae = tiny_sae(variant=variant)
        write_sae(sae, tmp_path)
        saelens_sae = saelens.SAE.load_from_disk(tmp_path)
    features, rebuilt = sae(OUTPUTS)
    with torch.no_grad():
        torch.testing.assert_close(saelens_sae.encode(OUTPUTS), features, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(saelens_sae.decode(features), rebuilt, rtol=1e-5, atol=1e-5)
    assert saelens_sae.cfg.metadata.lfp == asdict(sae.info)
