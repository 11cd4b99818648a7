"""Autoencoders of other tools: encoded as those tools encode them, and what no run can use is refused by name."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import lfp
from lfp.errors import ModelError
from lfp.ml.sae.autoencoders import Sae
from lfp.ml.sae.formats import adopt_sae, load_sae, open_sae, read_sae, write_sae
from lfp.util.types import Place

FOREIGN = Path(__file__).parent / "fixtures" / "foreign"
FOLDERS = sorted(str(path.parent.relative_to(FOREIGN)) for path in FOREIGN.rglob("expected.safetensors"))
SITES = {"mlp": "mlp_out", "L3M": "mlp_out", "L3A": "attn_out"}
GEMMA = "gemma-scope-2b-pt-res/layer_3/width_16k/average_l0_5"
GEMMA_2 = "gemma-scope-2-270m-it/resid_post/layer_3_width_16k_l0_small"
LLAMA = "llama_scope/Llama3_1-8B-Base-L3R-8x"
LEARNING = "dictionary_learning/topk"
SPARSIFY = "sparsify/layers.3"
HEADS = "model.layers.3.self_attn.o_proj.input"
RESID_POST = Place(3, "resid_post")
every_folder = pytest.mark.parametrize("name", FOLDERS)


def place_of(name: str) -> Place:
    site = next((site for word, site in SITES.items() if word in name), "resid_post")
    return Place(3, site)  # type: ignore[arg-type]


def read(folder: Path, place: Place = RESID_POST, **changes: Any) -> Sae:
    how = {"layer": place.layer, "site": place.site, "model": "base", "scale": 0.5, "d_in": 6}
    return read_sae(folder, **(how | changes))


def copied(name: str, folder: Path) -> Path:
    """Copy a fixture, with the names in its path, to where it may be changed."""
    return Path(shutil.copytree(FOREIGN / name, folder / name))


def edit_json(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@every_folder
def test_folders_give_here_what_they_give_in_their_own_tool(name: str) -> None:
    expected = load_file(FOREIGN / name / "expected.safetensors")
    sae = read(FOREIGN / name, place_of(name))
    features, rebuilt = sae(expected["inputs"])
    torch.testing.assert_close(features, expected["features"], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(rebuilt, expected["rebuilt"], rtol=1e-5, atol=1e-5)
    assert all(tensor.dtype == torch.float32 for tensor in sae.state_dict().values())


@every_folder
def test_what_another_tool_wrote_survives_saving_here(tmp_path: Path, name: str) -> None:
    sae = read(FOREIGN / name, place_of(name))
    write_sae(sae, tmp_path)
    again = load_sae(tmp_path)
    assert again.info == sae.info
    assert all(torch.equal(tensor, again.state_dict()[key]) for key, tensor in sae.state_dict().items())


@every_folder
def test_load_sae_reads_a_folder_without_being_given_its_place(name: str) -> None:
    if name == "dictionary_learning/new":  # says the layer alone
        assert lfp.load_sae(FOREIGN / name, site="resid_post").info.layer == 3
        return
    info = lfp.load_sae(FOREIGN / name).info
    assert (info.layer, info.site) == place_of(name) and info.scale == 1.0


@every_folder
def test_another_layer_or_site_than_the_folder_names_is_refused(name: str) -> None:
    place = place_of(name)
    with pytest.raises(ModelError, match=r"made for .*(layer 3|\b3\b)"):
        read(FOREIGN / name, Place(2, place.site))
    if name != "dictionary_learning/new":
        with pytest.raises(ModelError, match="which is not"):
            read(FOREIGN / name, Place(3, "mlp_out" if place.site != "mlp_out" else "attn_out"))


@every_folder
def test_another_width_than_the_models_is_refused(name: str) -> None:
    with pytest.raises(ModelError, match="of width 6, but this model's have width 8"):
        read(FOREIGN / name, place_of(name), d_in=8)


@pytest.mark.parametrize(
    ("name", "model"),
    [
        (GEMMA, "gemma-2-2b"),
        (GEMMA_2, "google/gemma-3-270m-it"),
        (LLAMA, "Llama-3.1-8B"),
        (LEARNING, "org/tiny"),
        (SPARSIFY, None),
    ],
)
def test_the_model_that_a_folder_names_is_known(name: str, model: str | None) -> None:
    assert open_sae(FOREIGN / name).model == model


@pytest.mark.parametrize(
    ("name", "file", "change", "words"),
    [
        (SPARSIFY, "cfg.json", lambda c: c.update(transcode=True), "transcode is true: a transcoder"),
        (SPARSIFY, "cfg.json", lambda c: c.update(skip_connection=True), "skip_connection"),
        (SPARSIFY, "cfg.json", lambda c: c.update(signed=True), "signed is true"),
        (SPARSIFY, "cfg.json", lambda c: c.update(activation="groupmax"), "activation groupmax is not supported"),
        (SPARSIFY, "cfg.json", lambda c: c.update(k=0), "k is 0"),
        (SPARSIFY, "cfg.json", lambda c: c.update(num_latents=13), r"encoder.weight is \[12, 6\], but \[13, 6\]"),
        (GEMMA_2, "config.json", lambda c: c.update(type="crosscoder"), "a crosscoder"),
        (GEMMA_2, "config.json", lambda c: c.update(hf_hook_point_out="model.layers.4.output"), "a transcoder"),
        (GEMMA_2, "config.json", lambda c: c.update(affine_connection=True), "a transcoder"),
        (GEMMA_2, "config.json", lambda c: c.update(architecture="topk"), "architecture topk is not supported"),
        (GEMMA_2, "config.json", lambda c: c.update(dict.fromkeys(("hf_hook_point_in", "hf_hook_point_out"), HEADS)),
         f"made for {HEADS}, which is not"),
        (LLAMA, "hyperparams.json", lambda c: c.update(hook_point_out="blocks.3.hook_mlp_out"), "a transcoder"),
        (LLAMA, "hyperparams.json", lambda c: c.update(use_glu_encoder=True), "use_glu_encoder"),
        (LLAMA, "hyperparams.json", lambda c: c.update(norm_activation="batch-wise"), "norm_activation batch-wise"),
        (LLAMA, "hyperparams.json", lambda c: c.update(act_fn="gelu"), "act_fn gelu is not supported"),
        (LLAMA, "hyperparams.json", lambda c: c.update(jump_relu_threshold=None), "jump_relu_threshold is None"),
        (LLAMA, "hyperparams.json", lambda c: c.pop("dataset_average_activation_norm"),
         "no dataset_average_activation_norm"),
        (LEARNING, "config.json", lambda c: c["trainer"].update(dict_class="CrossCoder"),
         "dict_class CrossCoder is not supported; .* AutoEncoderTopK or BatchTopKSAE"),
        (LEARNING, "config.json", lambda c: c.pop("trainer"), "no object trainer"),
        (LEARNING, "config.json", lambda c: c["buffer"].update(io="in_and_out"), "buffer.io in_and_out"),
        (LEARNING, "config.json", lambda c: c["trainer"].update(activation_dim="6"), "activation_dim is 6, not a"),
    ],
)  # fmt: skip
def test_what_no_run_can_use_is_refused_by_name(
    tmp_path: Path, name: str, file: str, change: Callable[[dict[str, Any]], object], words: str
) -> None:
    folder = copied(name, tmp_path)
    edit_json(folder / file, change)
    with pytest.raises(ModelError, match=words) as caught:
        read(folder)
    assert str(tmp_path) in str(caught.value) and str(caught.value).count(". ") == 0


@pytest.mark.parametrize("word", ["transcoders", "att", "embedding"])
def test_a_folder_of_gemma_scope_that_no_run_can_use_is_known_by_its_path(tmp_path: Path, word: str) -> None:
    inside = "embedding/width_4k" if word == "embedding" else "layer_3/width_16k/average_l0_5"
    folder = tmp_path / f"models--google--gemma-scope-2b-pt-{'res' if word == 'embedding' else word}" / inside
    shutil.copytree(FOREIGN / GEMMA, folder)
    with pytest.raises(ModelError, match=r"transcoder|hook_z, which is not|token embeddings"):
        read(folder)


def test_a_folder_whose_path_says_nothing_is_read_for_the_place_that_is_asked_for(tmp_path: Path) -> None:
    for name, place in ((GEMMA, Place(7, "attn_out")), (SPARSIFY, Place(1, "mlp_out"))):
        folder = Path(shutil.copytree(FOREIGN / name, tmp_path / name.split("/")[0] / "downloaded"))
        info = read(folder, place).info
        assert (info.layer, info.site) == place
        with pytest.raises(ModelError, match="pass layer="):
            lfp.load_sae(folder)


@pytest.mark.parametrize(
    ("act_fn", "threshold", "variant"), [("topk", 0.0, "topk"), ("topk", 0.4, "jumprelu"), ("relu", 0.0, "relu")]
)
def test_llama_scope_turns_topk_with_a_threshold_into_jumprelu(
    tmp_path: Path, act_fn: str, threshold: float, variant: str
) -> None:
    folder = copied(LLAMA, tmp_path)
    edit_json(folder / "hyperparams.json", lambda c: c.update(act_fn=act_fn, jump_relu_threshold=threshold))
    info = read(folder).info
    assert (info.variant, info.k) == (variant, 3 if variant == "topk" else None)


def test_a_batch_topk_autoencoder_without_a_threshold_yet_is_a_relu(tmp_path: Path) -> None:
    folder = copied("dictionary_learning/batch_topk", tmp_path)
    state = torch.load(folder / "ae.pt", weights_only=True)
    torch.save(state | {"threshold": torch.tensor(-1.0)}, folder / "ae.pt")  # as it is before its start step
    sae, inputs = read(folder), load_file(folder / "expected.safetensors")["inputs"]
    pre = torch.nn.functional.linear(inputs - state["b_dec"], state["encoder.weight"], state["encoder.bias"])
    torch.testing.assert_close(sae.encode(inputs), pre.relu(), rtol=1e-5, atol=1e-5)


# --- SAELens's table and the model it was trained on ----------------------------------------------------------------


def saelens_folder(tmp_path: Path, **config: Any) -> tuple[Path, dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(2)
    shapes = {"W_enc": (6, 12), "W_dec": (12, 6), "b_enc": (12,), "b_dec": (6,)}
    weights = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    content = {"architecture": "standard", "d_in": 6, "d_sae": 12, "hook_name": "blocks.4.hook_resid_pre", **config}
    (tmp_path / "cfg.json").write_text(json.dumps(content))
    save_file(weights, tmp_path / "sae_weights.safetensors")
    return tmp_path, weights


def test_a_factor_of_saelens_table_is_folded(tmp_path: Path) -> None:
    folder, w = saelens_folder(tmp_path, normalize_activations="expected_average_only_in")
    stored = open_sae(folder, {"norm_scaling_factor": 2.5})
    sae = adopt_sae(stored, layer=3, site="resid_post", model="base", scale=1.0, d_in=6)
    x = torch.randn(20, 6, generator=torch.Generator().manual_seed(3))
    features = ((2.5 * x - w["b_dec"]) @ w["W_enc"] + w["b_enc"]).relu()
    torch.testing.assert_close(sae.encode(x), features / 2.5, rtol=1e-5, atol=1e-5)
    rebuilt = (features @ w["W_dec"] + w["b_dec"]) / 2.5
    torch.testing.assert_close(sae.reconstruct(x), rebuilt, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("where", ["config", "table"])
def test_weights_for_a_centred_model_read_the_model_as_it_is(tmp_path: Path, where: str) -> None:
    centred = {"model_from_pretrained_kwargs": {"center_writing_weights": True}}
    folder, w = saelens_folder(tmp_path, **(centred if where == "config" else {}))
    stored = open_sae(folder, centred if where == "table" else None)
    sae = adopt_sae(stored, layer=3, site="resid_post", model="base", scale=1.0, d_in=6)
    x = 3 + torch.randn(20, 6, generator=torch.Generator().manual_seed(3))
    features = ((x - x.mean(1, keepdim=True) - w["b_dec"]) @ w["W_enc"] + w["b_enc"]).relu()
    torch.testing.assert_close(sae.encode(x), features, rtol=1e-5, atol=1e-5)


def test_input_scale_multiplies_inputs_and_divides_outputs(tmp_path: Path) -> None:
    folder, _ = saelens_folder(tmp_path)
    how: dict[str, Any] = {"layer": 3, "site": "resid_post", "model": "base", "scale": 1.0, "d_in": 6}
    plain, scaled = (adopt_sae(open_sae(folder), input_scale=factor, **how) for factor in (1.0, 4.0))
    x = torch.randn(20, 6, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(scaled.encode(x), plain.encode(4 * x) / 4, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(scaled.reconstruct(x), plain.reconstruct(4 * x) / 4, rtol=1e-5, atol=1e-5)
    normalising, _ = saelens_folder(tmp_path, normalize_activations="layer_norm")
    with pytest.raises(ModelError, match="input_scale has no effect"):
        adopt_sae(open_sae(normalising), input_scale=4.0, **how)


# --- files that are broken, or worse --------------------------------------------------------------------------------

WEIGHTS = {
    GEMMA: "params.npz",
    GEMMA_2: "params.safetensors",
    LLAMA: "checkpoints/final.safetensors",
    LEARNING: "ae.pt",
    SPARSIFY: "sae.safetensors",
}


@pytest.mark.parametrize("name", WEIGHTS)
@pytest.mark.parametrize("part", [0.0, 0.3, 0.9, 0.999])
def test_a_file_that_is_cut_short_is_named(tmp_path: Path, name: str, part: float) -> None:
    path = copied(name, tmp_path) / WEIGHTS[name]
    content = path.read_bytes()
    path.write_bytes(content[: int(part * len(content))])
    with pytest.raises(ModelError, match=path.name):
        read(tmp_path / name)


@pytest.mark.parametrize("name", WEIGHTS)
def test_a_folder_without_its_weights_says_which_file_it_lacks(tmp_path: Path, name: str) -> None:
    folder = copied(name, tmp_path)
    (folder / WEIGHTS[name]).unlink()
    with pytest.raises(ModelError, match=r"has no \S+, which|not an autoencoder's folder; pass one with"):
        read(folder)


class Malicious:
    """Unpickled, it would write a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.write_text, (self.path, "executed"))


@pytest.mark.parametrize("how", ["tensors", "bare", "legacy", "module"])
def test_code_in_a_pickle_is_refused_and_never_run(tmp_path: Path, how: str) -> None:
    folder, mark = copied(LEARNING, tmp_path), tmp_path / "executed"
    state = torch.load(folder / "ae.pt", weights_only=True)
    if how == "tensors":
        torch.save(state | {"b_dec": Malicious(mark)}, folder / "ae.pt")
    elif how == "bare":
        (folder / "ae.pt").write_bytes(pickle.dumps(Malicious(mark)))
    elif how == "legacy":
        torch.save(Malicious(mark), folder / "ae.pt", _use_new_zipfile_serialization=False)
    else:
        torch.save(torch.nn.Linear(2, 2), folder / "ae.pt")
    with pytest.raises(ModelError, match=r"ae\.pt: .*never run here"):
        read(folder)
    assert not mark.exists()


def test_arrays_of_objects_in_an_npz_are_refused_and_never_run(tmp_path: Path) -> None:
    folder, mark = copied(GEMMA, tmp_path), tmp_path / "executed"
    arrays = dict(np.load(folder / "params.npz"))
    np.savez(folder / "params.npz", **(arrays | {"b_dec": np.array([Malicious(mark)], object)}))
    with pytest.raises(ModelError, match=r"params\.npz: cannot be read"):
        read(folder)
    assert not mark.exists()


@pytest.mark.parametrize("content", [[1, 2], {"b_dec": [0.0]}, "text"])
def test_a_pickle_of_something_else_is_refused(tmp_path: Path, content: Any) -> None:
    folder = copied(LEARNING, tmp_path)
    torch.save(content, folder / "ae.pt")
    with pytest.raises(ModelError, match="not a dictionary of tensors"):
        read(folder)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_weights_in_another_precision_become_float32(tmp_path: Path, dtype: torch.dtype) -> None:
    folder = copied(GEMMA_2, tmp_path)
    path = folder / "params.safetensors"
    tensors = load_file(path)
    save_file({name: tensor.to(dtype) for name, tensor in tensors.items()}, path)
    sae = read(folder)
    assert torch.equal(sae.encoder, tensors["w_enc"].to(dtype).float().T)
    assert all(tensor.dtype == torch.float32 for tensor in sae.state_dict().values())


@pytest.mark.parametrize("names", [("W_enc",), ("W_dec",), ("W_enc", "W_dec")])
def test_transposed_weights_are_known_by_their_shape(tmp_path: Path, names: tuple[str, ...]) -> None:
    folder = copied(GEMMA, tmp_path)
    arrays = dict(np.load(folder / "params.npz"))
    np.savez(folder / "params.npz", **(arrays | {name: arrays[name].T for name in names}))
    sae, original = read(folder), read(FOREIGN / GEMMA)
    assert torch.equal(sae.encoder, original.encoder) and torch.equal(sae.W_dec, original.W_dec)


def test_square_weights_are_taken_as_the_format_has_them(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(6)
    weights = {name: torch.randn(6, 6, generator=generator) for name in ("W_enc", "W_dec")}
    weights |= {name: torch.randn(6, generator=generator) for name in ("b_enc", "b_dec")}
    np.savez(tmp_path / "params.npz", **{name: value.numpy() for name, value in weights.items()}, threshold=np.ones(6))
    sae = read(tmp_path)
    assert torch.equal(sae.encoder, weights["W_enc"].T) and torch.equal(sae.W_dec, weights["W_dec"])


def test_a_bias_with_a_dimension_of_one_is_read(tmp_path: Path) -> None:
    folder = copied(GEMMA, tmp_path)
    arrays = dict(np.load(folder / "params.npz"))
    np.savez(folder / "params.npz", **(arrays | {"b_dec": arrays["b_dec"][None]}))
    assert torch.equal(read(folder).b_dec, torch.from_numpy(arrays["b_dec"]))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda a: a.update(W_enc=a["W_enc"].astype(np.int64)), "no finite numbers"),
        (lambda a: a["W_dec"].__setitem__((0, 0), np.nan), "no finite numbers"),
        (lambda a: a.pop("threshold"), "lacks threshold"),
        (lambda a: a.pop("b_dec"), "lacks b_dec"),
        (lambda a: a.update(b_skip=np.zeros(6, np.float32)), "has no place for b_skip"),
        (lambda a: a.update(threshold=np.zeros(11, np.float32)), r"threshold is \[11\], but \[12\]"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(tmp_path: Path, change: Any, words: str) -> None:
    folder = copied(GEMMA, tmp_path)
    arrays = dict(np.load(folder / "params.npz"))
    change(arrays)
    np.savez(folder / "params.npz", **arrays)
    with pytest.raises(ModelError, match=words):
        read(folder)
