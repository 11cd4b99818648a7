from __future__ import annotations

import dataclasses
import json
import pickle
import shutil
import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import dispatch_model
from accelerate.hooks import AlignDevicesHook, add_hook_to_module
from transformers import AutoModelForCausalLM

from lfp.config import FeedbackConfig, TuneConfig
from lfp.errors import ModelError
from lfp.ml.models import runtime
from lfp.ml.models.activations import stream_pair
from lfp.ml.models.divergence import LayerDivergence, layer_divergence, most_moved
from lfp.ml.models.finetuning.dpo import tune_dpo
from lfp.ml.models.loading import (
    LanguageModel,
    check_context,
    check_token_ids,
    load_model,
)
from lfp.ml.models.pairs import Vocabulary, check_same_shape, share_vocabulary
from lfp.ml.models.reward_model import load_reward_model
from lfp.ml.models.sources import check_device
from lfp.ml.models.tokenization import batches, tokenize
from lfp.texts.preferences import PreferencePair
from lfp.util import dependencies
from lfp.util.dependencies import hub_reachable
from lfp.util.types import SITES, Place

MLP_OUTPUTS = {
    "gpt_neox": "gpt_neox.layers.1.mlp",
    "gpt_neo": "transformer.h.1.mlp",
    "gemma": "model.layers.1.mlp",
    "gemma2": "model.layers.1.post_feedforward_layernorm",
    "llama": "model.layers.1.mlp",
}
Pair = tuple[LanguageModel, LanguageModel]
ModelBuilder = Callable[..., Path]


def divergence(layer: int, value: float) -> LayerDivergence:
    return LayerDivergence(layer, value, 0.0, {}, 0.0)


def test_loading_states_what_the_model_is(pair: Pair) -> None:
    model = pair[0]
    assert model.d_model == 32 and model.n_ctx == 64
    assert model.n_layers == model.network.config.num_hidden_layers
    assert model.d_vocab == len(model.tokenizer)
    assert model.bos_id == model.tokenizer.eos_token_id
    assert model.folder == Path(model.name)
    assert not model.network.training
    assert not any(value.requires_grad for value in model.network.parameters())
    assert all(value.dtype == torch.float32 for value in model.parameters.values())


def test_every_architecture_loads(every_pair: Pair) -> None:
    base, tuned = every_pair
    check_same_shape(base, tuned)
    sizes = {(model.n_layers, model.d_model, model.d_vocab) for model in every_pair}
    assert sizes == {(base.network.config.num_hidden_layers, 32, len(base.tokenizer))}
    assert base.n_ctx >= 64 and base.sha256 != tuned.sha256


def test_the_hash_is_of_the_weights(pair: Pair, tmp_path: Path) -> None:
    base, tuned = pair
    copy = shutil.copytree(base.name, tmp_path / "copy")
    assert load_model(str(copy)).sha256 == base.sha256 != tuned.sha256


def test_a_folder_has_no_revision_whatever_is_pinned(folders: dict[str, tuple[Path, Path]]) -> None:
    assert load_model(str(folders["llama"][0]), revision="a39f36b100fe8a5377810d56c3f4789b9c53ac42").revision is None


def test_a_local_folder_never_touches_the_network(
    folders: dict[str, tuple[Path, Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("the network was tried")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    assert load_model(str(folders["llama"][0])).n_layers == 2


def test_the_mlp_hook_sees_what_a_plain_forward_hook_sees(pair: Pair, sentences: list[str]) -> None:
    model = pair[0]
    hf_model = AutoModelForCausalLM.from_pretrained(model.name, attn_implementation="eager").eval()
    texts = tokenize(model.tokenizer, sentences, context=20)
    (batch,) = batches(texts, bos_id=model.bos_id, pad_id=model.pad_id, batch_texts=8)
    seen: list[torch.Tensor] = []
    mlp = hf_model.get_submodule(MLP_OUTPUTS[hf_model.config.model_type])
    mlp.register_forward_hook(lambda _, __, output: seen.append(output))
    kept: list[torch.Tensor] = []
    with torch.no_grad():
        plain = hf_model(batch.input_ids, attention_mask=batch.attention_mask).logits
        with model.hooks({Place(1): kept.append}):
            logits = model.forward(batch.input_ids, batch.attention_mask).logits
    real = batch.attention_mask.bool()
    assert kept[0].shape == (*batch.input_ids.shape, model.d_model)
    torch.testing.assert_close(kept[0][real], seen[0][real], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(logits[real], plain[real], atol=1e-4, rtol=1e-4)


def test_divergence_matches_a_naive_loop(pair: Pair) -> None:
    base, tuned = pair
    before, after = (AutoModelForCausalLM.from_pretrained(model.name) for model in pair)
    found = layer_divergence(base, tuned)
    assert [each.layer for each in found] == list(range(base.n_layers))
    for each in found:
        total = size = mlp = 0.0
        for (key, old), (_, new) in zip(before.named_parameters(), after.named_parameters(), strict=True):
            if f".{each.layer}." in key:
                total += (new - old).pow(2).sum().sqrt().item()
                size += old.pow(2).sum().sqrt().item()
                mlp += (new - old).pow(2).sum().sqrt().item() if f".{each.layer}.mlp." in key else 0.0
        assert each.divergence == pytest.approx(total, rel=1e-5)
        assert each.relative_divergence == pytest.approx(total / size, rel=1e-5)
        assert each.divergence_mlp == each.divergence_by_group["mlp"] == pytest.approx(mlp, rel=1e-5)
        assert sum(each.divergence_by_group.values()) == pytest.approx(each.divergence)
        assert set(each.divergence_by_group) == {"attention", "mlp", "norm"}


def test_a_model_does_not_diverge_from_itself(pair: Pair) -> None:
    assert all(each.divergence == 0.0 for each in layer_divergence(pair[0], pair[0]))


def test_the_layers_that_moved_most_come_in_order_of_depth() -> None:
    sizes = [1.0, 3.0, 1.0, 2.0]
    assert most_moved(sizes, 2) == [1, 3]
    assert most_moved(sizes, 3) == [0, 1, 3]
    assert most_moved(sizes, 9) == [0, 1, 2, 3]


def test_a_pair_is_of_one_shape(pair: Pair) -> None:
    check_same_shape(*pair)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"num_hidden_layers": 2}, "layers 2 against 3"),
        ({"hidden_size": 16}, "residual width 16 against 32"),
        ({"intermediate_size": 32}, "mlp.dense_h_to_4h.weight is of another shape"),
    ],
)
def test_unlike_models_are_no_pair(
    neox: LanguageModel, tmp_path: Path, model_builder: ModelBuilder, changes: dict[str, Any], match: str
) -> None:
    other = load_model(str(model_builder(tmp_path, **changes)))
    with pytest.raises(ModelError, match=match):
        check_same_shape(neox, other)


def test_unlike_tokenizers_are_no_pair(neox: LanguageModel, tmp_path: Path, model_builder: ModelBuilder) -> None:
    other = load_model(str(model_builder(tmp_path)))
    renamed = Vocabulary(_with_renamed_token(Path(other.name)), other.d_vocab)
    with pytest.raises(ModelError, match="other tokens"):
        share_vocabulary(Vocabulary(neox.tokenizer, neox.d_vocab), renamed)


def _with_renamed_token(folder: Path) -> Any:
    from transformers import AutoTokenizer

    file = folder / "tokenizer.json"
    text = json.loads(file.read_text())
    vocab = text["model"]["vocab"]
    vocab["ã"], vocab["ä"] = vocab["ä"], vocab["ã"]
    file.write_text(json.dumps(text))
    return AutoTokenizer.from_pretrained(folder)


def test_the_context_must_fit(neox: LanguageModel) -> None:
    check_context(neox, 63)
    check_context(neox, 64, prepend_bos=False)
    with pytest.raises(ModelError, match=r"model\.context 64 .* set model\.context to 63 or less"):
        check_context(neox, 64)


def test_token_ids_must_have_embeddings(neox: LanguageModel) -> None:
    check_token_ids(neox, [[0, neox.d_vocab - 1], []])
    for bad in (neox.d_vocab, -1):
        with pytest.raises(ModelError, match=f"text 1 has token id {bad}"):
            check_token_ids(neox, [[0], [0, bad]])


@pytest.mark.parametrize("name", ["/no/such/folder", "./nowhere", "a/b/c"])
def test_a_missing_folder_is_named(name: str) -> None:
    with pytest.raises(ModelError, match=f"{name}: no such folder"):
        load_model(name)


def test_a_folder_without_a_config(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no config\.json"):
        load_model(str(tmp_path))


def test_a_hub_name_without_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dependencies, "hub_reachable", lambda: False)
    with pytest.raises(ModelError, match=r"nobody/nothing.*cannot be reached.*--set model\.base=FOLDER.*=pretrain"):
        load_model("nobody/nothing")
    with pytest.raises(ModelError, match=r"^model\.tuned nobody/nothing.*--set model\.tuned=FOLDER") as caught:
        load_model("nobody/nothing", key="model.tuned")
    assert "model.base" not in str(caught.value)


def test_a_hub_model_with_a_local_copy_needs_no_network(
    tmp_path: Path, model_builder: ModelBuilder, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = model_builder(tmp_path / "models--somebody--tiny" / "snapshots" / "abc")
    (tmp_path / "models--somebody--tiny" / "refs").mkdir()
    (tmp_path / "models--somebody--tiny" / "refs" / "main").write_text("abc")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(dependencies, "hub_reachable", lambda: False)
    model = load_model("somebody/tiny")
    assert (model.name, model.folder) == ("somebody/tiny", snapshot)


def test_no_network_is_noticed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError("no network")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    assert not hub_reachable()


def test_a_folder_without_a_tokenizer(tmp_path: Path, model_builder: ModelBuilder) -> None:
    folder = model_builder(tmp_path)
    for file in folder.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(ModelError, match="tokenizer has 2 tokens but the model embeds"):
        load_model(str(folder))


def test_an_architecture_without_hooks(tmp_path: Path, model_builder: ModelBuilder) -> None:
    folder = model_builder(tmp_path, architecture="gpt_neox")
    config = {"model_type": "t5", "architectures": ["T5ForConditionalGeneration"]}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="cannot load a causal language model"):
        load_model(str(folder))


def test_a_place_that_the_network_does_not_have(tmp_path: Path, model_builder: ModelBuilder) -> None:
    model = load_model(str(model_builder(tmp_path, architecture="gpt_neox")))
    with pytest.raises(ModelError, match="layer 9: the model has layers 0 to"), model.hooks({Place(9): print}):
        pass
    del model.network.gpt_neox.layers[0].mlp
    with pytest.raises(ModelError, match="gpt_neox: layer 0 has no module for mlp_out"), model.hooks({Place(0): print}):
        pass


def test_sites_are_those_of_transformer_lens(folders: dict[str, tuple[Path, Path]]) -> None:
    from transformer_lens.model_bridge import TransformerBridge

    model = load_model(str(folders["llama"][0]))
    network = AutoModelForCausalLM.from_pretrained(model.name, attn_implementation="eager")
    bridge = TransformerBridge.boot_transformers(model.name, hf_model=network, tokenizer=model.tokenizer, device="cpu")
    names = {"mlp_out": "mlp.hook_out", "attn_out": "attn.hook_out", "resid_post": "hook_out"}
    ids = torch.tensor([[1, 5, 9, 40, 7]])
    kept: dict[Place, torch.Tensor] = {}
    with torch.no_grad(), model.hooks({Place(1, site): partial(kept.__setitem__, Place(1, site)) for site in SITES}):
        model.forward(ids, torch.ones_like(ids))
        _, cache = bridge.run_with_cache(ids)
    for site in SITES:
        torch.testing.assert_close(kept[Place(1, site)], cache[f"blocks.1.{names[site]}"], atol=1e-5, rtol=1e-4)


def test_broken_weights(tmp_path: Path, model_builder: ModelBuilder) -> None:
    folder = model_builder(tmp_path)
    (folder / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises(ModelError, match=r"/model\.safetensors: cannot load a causal language model"):
        load_model(str(folder))


@pytest.mark.parametrize("file", ["config.json", "tokenizer.json"])
def test_a_broken_file_is_named(file: str, tmp_path: Path, model_builder: ModelBuilder) -> None:
    folder = model_builder(tmp_path)
    (folder / file).write_text("{", encoding="utf-8")
    with pytest.raises(ModelError, match=rf"^{folder}/{file}: .*save it again, or --set model\.tuned=FOLDER"):
        load_model(str(folder), key="model.tuned")


CODE_OF_A_MODEL = """
from pathlib import Path
Path(__file__).with_name("ran").touch()
"""


@pytest.fixture
def folder_with_code(tmp_path: Path, model_builder: ModelBuilder, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model that needs code of its own, and so does its tokenizer; on a terminal transformers would ask to run it."""
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked whether to run the code"))
    folder = model_builder(tmp_path)
    (folder / "evil.py").write_text(CODE_OF_A_MODEL, encoding="utf-8")
    classes = ("AutoConfig", "AutoModelForCausalLM", "AutoModelForSequenceClassification")
    for file, changes in {
        "config.json": {"model_type": "evil", "auto_map": dict.fromkeys(classes, "evil.Evil")},
        "tokenizer_config.json": {"tokenizer_class": "Evil", "auto_map": {"AutoTokenizer": ["evil.Evil", "evil.Evil"]}},
    }.items():
        (folder / file).write_text(json.dumps(json.loads((folder / file).read_text()) | changes), encoding="utf-8")
    return folder


@pytest.mark.parametrize("load", ["language model", "reward model", "model to tune"])
def test_code_of_a_model_is_never_run_and_nobody_is_asked(load: str, folder_with_code: Path, tmp_path: Path) -> None:
    folder = folder_with_code
    with pytest.raises(ModelError, match=rf"^[^\n]*{folder}[^\n]*needs code that comes with it, .* never run[^\n]*$"):
        if load == "language model":
            load_model(str(folder))
        elif load == "reward model":
            load_reward_model(str(folder), FeedbackConfig(reward="classifier", classifier=str(folder)))
        else:
            tune_dpo(folder, [PreferencePair("a", "b", "c")], TuneConfig(), seed=0, folder=tmp_path / "tuned")
    assert not (folder / "ran").exists()


def test_code_of_a_tokenizer_is_never_run_and_nobody_is_asked(
    folder_with_code: Path, model_builder: ModelBuilder, tmp_path: Path
) -> None:
    config = model_builder(tmp_path / "plain") / "config.json"
    shutil.copy(config, folder_with_code / "config.json")
    assert load_model(str(folder_with_code)).tokenizer.is_fast
    assert not (folder_with_code / "ran").exists()


def test_pickled_code_is_not_run_either(tmp_path: Path, model_builder: ModelBuilder) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "ran",)

    folder = model_builder(tmp_path)
    (folder / "model.safetensors").unlink()
    torch.save({"weight": Evil()}, folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match="cannot load a causal language model"):
        load_model(str(folder))
    torch.save({"weight": Evil()}, tmp_path / "checkpoint.pt")
    with pytest.raises(pickle.UnpicklingError):
        runtime.load(tmp_path / "checkpoint.pt")
    assert not (tmp_path / "ran").exists()


def test_missing_weights_are_not_made_up(tmp_path: Path, model_builder: ModelBuilder) -> None:
    from safetensors.torch import load_file, save_file

    folder = model_builder(tmp_path)
    weights = load_file(folder / "model.safetensors")
    del weights["gpt_neox.layers.0.mlp.dense_h_to_4h.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"lack gpt_neox\.layers\.0\.mlp"):
        load_model(str(folder))


def test_a_device_that_is_not_there(folders: dict[str, tuple[Path, Path]]) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    with pytest.raises(ModelError, match=r"model\.device cuda"):
        load_model(str(folders["llama"][0]), device="cuda")
    with pytest.raises(ModelError, match=r"finds no CUDA card here; --set model\.device=cpu"):
        check_device("cuda:0")


@torch.no_grad()
def test_a_model_spread_over_devices_gives_the_same(pair: Pair, sentences: list[str]) -> None:
    """Every part with the hooks by which accelerate moves activations between cards, here from the CPU to the CPU."""
    plain = pair[0]
    whole = load_model(plain.name, device_map="auto")
    assert whole.devices == {torch.device("cpu")} and whole.sha256 == plain.sha256
    network = dispatch_model(whole.network, {"": "cpu"}, main_device="cpu", force_hooks=True)
    for module in network.modules():
        add_hook_to_module(module, AlignDevicesHook("cpu", io_same_device=True), append=True)
    spread = dataclasses.replace(whole, network=network)
    texts = tokenize(plain.tokenizer, sentences, context=12)
    for found, expected in zip(
        *(
            stream_pair(model, plain, texts, places=[Place(0)], batch_texts=3, prepend_bos=True)
            for model in (spread, plain)
        ),
        strict=True,
    ):
        torch.testing.assert_close(found.tuned.outputs, expected.tuned.outputs, rtol=0, atol=0)
        torch.testing.assert_close(found.implicit_reward, expected.implicit_reward, rtol=0, atol=0, equal_nan=True)
