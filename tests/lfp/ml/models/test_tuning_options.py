"""Adapters, frozen embeddings, bfloat16, a batch in parts, full memory, kept checkpoints, resuming and trackers."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from pydantic import ValidationError
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM
from trl import GRPOTrainer

from lfp.config import AdapterConfig, TuneConfig
from lfp.errors import ConfigError, DependencyError, TrainingError
from lfp.ml.models.finetuning import training
from lfp.ml.models.finetuning.dpo import tune_dpo
from lfp.ml.models.finetuning.grpo import tune_grpo
from lfp.ml.models.finetuning.network import find_plain_folder
from lfp.ml.models.finetuning.training import TuneReport
from lfp.ml.models.loading import load_model
from tests.lfp.ml.conftest import build_model
from tests.lfp.ml.models.test_finetuning import PAIRS, PREFIXES, SMALL, letters

Models = dict[str, tuple[Path, Path]]
ADAPTER = AdapterConfig(r=4, alpha=8)


def tune(method: str, base: Path, folder: Path, options: dict[str, Any] | None = None, **changes: Any) -> TuneReport:
    config = TuneConfig(**(SMALL | {"steps": 3} | changes))
    if method == "dpo":
        return tune_dpo(base, PAIRS, config, seed=0, folder=folder, **(options or {}))
    return tune_grpo(base, PREFIXES, letters, config, seed=0, folder=folder, **(options or {}))


def weights(folder: Path) -> dict[str, torch.Tensor]:
    (file,) = folder.glob("*.safetensors")
    return load_file(file)


# Adapters and frozen embeddings


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # PEFT reads it
@pytest.mark.parametrize("method", ["grpo", "dpo"])
def test_an_adapter_is_saved_alone_and_names_its_base(folders: Models, tmp_path: Path, method: str) -> None:
    base = folders["llama"][0]
    tune(method, base, tmp_path / "tuned", {"base_name": "org/base"}, adapter=ADAPTER)
    assert {file.name for file in (tmp_path / "tuned").iterdir()} == {
        "adapter_config.json", "adapter_model.safetensors", "tokenizer.json", "tokenizer_config.json",
    }  # fmt: skip
    settings = json.loads((tmp_path / "tuned" / "adapter_config.json").read_text())
    assert settings["base_model_name_or_path"] == "org/base" and (settings["r"], settings["lora_alpha"]) == (4, 8.0)
    linear = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    assert {name.rpartition(".")[2] for name in settings["target_modules"]} == set(linear)
    network = AutoModelForCausalLM.from_pretrained(base)
    ids = torch.arange(5, 15)[None]
    with torch.no_grad():
        before = network(ids).logits
        adapted = PeftModel.from_pretrained(network, tmp_path / "tuned")
        assert (adapted(ids).logits - before).abs().max() > 1e-3
        with adapted.disable_adapter():
            torch.testing.assert_close(adapted(ids).logits, before)


def test_the_reference_of_an_adapter_is_the_base_model(
    folders: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[dict[str, torch.Tensor]] = []
    compute = GRPOTrainer._compute_loss

    def record(self: Any, model: Any, inputs: dict[str, torch.Tensor]) -> Any:
        seen.append({name: value for name, value in inputs.items() if isinstance(value, torch.Tensor)})
        return compute(self, model, inputs)

    monkeypatch.setattr(GRPOTrainer, "_compute_loss", record)
    base = folders["llama"][0]
    report = tune("grpo", base, tmp_path, adapter=ADAPTER, steps=4, temperature=0.7)
    network, last = AutoModelForCausalLM.from_pretrained(base).eval(), seen[-1]
    ids = torch.cat([last["prompt_ids"], last["completion_ids"]], dim=1)
    mask = torch.cat([last["prompt_mask"], last["completion_mask"]], dim=1)
    with torch.no_grad():
        logits = network(ids, attention_mask=mask).logits / 0.7
    scores = logits[:, :-1].log_softmax(-1).gather(-1, ids[:, 1:, None])[..., 0][:, -last["completion_ids"].shape[1] :]
    written = last["completion_mask"].bool()
    torch.testing.assert_close(last["ref_per_token_logps"][written], scores[written], atol=1e-4, rtol=1e-4)
    kl = [value for _, value in report.curves["kl"]]
    assert kl[0] == 0.0 < kl[-1] < 1.0


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"target_modules": ["query"]}, r"no module query; its linear layers are .*q_proj"),
        ({"target_modules": ["q_proj", "lm_head"]}, "lm_head is the unembedding"),
        ({"target_modules": ["embed_tokens"]}, r"embed_tokens is the embedding, which tune\.freeze_embeddings"),
    ],
)
def test_modules_that_cannot_be_adapted(folders: Models, tmp_path: Path, changes: dict[str, Any], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        tune("grpo", folders["llama"][0], tmp_path, adapter=AdapterConfig(**changes), freeze_embeddings=True)


def test_named_modules_get_adapters_alone(folders: Models, tmp_path: Path) -> None:
    tune("dpo", folders["llama"][0], tmp_path, adapter=AdapterConfig(target_modules=["q_proj"], dropout=0.5))
    assert weights(tmp_path) and all(".q_proj.lora_" in name for name in weights(tmp_path))


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("method", ["grpo", "dpo"])
def test_frozen_embeddings_stay_as_they_are(tmp_path: Path, method: str, tied: bool) -> None:
    base = build_model(tmp_path / "base", architecture="llama", tie_word_embeddings=tied)
    tune(method, base, tmp_path / "tuned", freeze_embeddings=True)
    before, after = weights(base), weights(tmp_path / "tuned")
    same = {name for name in before if torch.equal(before[name], after[name])}
    assert same == {"model.embed_tokens.weight"} | (set() if tied else {"lm_head.weight"})


# Numbers, memory and parts


def test_small_rates_are_learned_in_bfloat16(folders: Models, tmp_path: Path) -> None:
    base = folders["llama"][0]
    half: dict[str, Any] = {"dtype": "bfloat16"}
    tune("grpo", base, tmp_path / "full", half, learning_rate=1e-6)
    before, after = weights(base), weights(tmp_path / "full")
    moved = [(after[name] - before[name]).abs().max().item() for name in before]
    assert all(value.dtype == torch.float32 for value in after.values())
    assert min(moved) > 1e-7 and max(moved) < 1e-5  # a bfloat16 of 0.2 moves by 1e-3 at least
    report = tune("grpo", base, tmp_path / "adapter", half, learning_rate=1e-6, adapter=ADAPTER)
    grown = weights(tmp_path / "adapter")
    assert all(value.dtype == torch.float32 for value in grown.values())
    assert all(0 < value.abs().max() < 1e-5 for name, value in grown.items() if ".lora_B." in name)
    assert all(math.isfinite(value) for curve in report.curves.values() for _, value in curve)


@pytest.mark.parametrize("method", ["grpo", "dpo"])
def test_a_batch_in_parts_makes_the_same_step(folders: Models, tmp_path: Path, method: str) -> None:
    base = folders["gpt_neox"][0]
    whole = tune(method, base, tmp_path / "whole", adapter=ADAPTER, steps=2)
    parts = tune(method, base, tmp_path / "parts", adapter=ADAPTER, steps=2, gradient_accumulation=4)
    curve = "reward" if method == "grpo" else "accuracy"
    assert [value for _, value in parts.curves[curve]] == pytest.approx([value for _, value in whole.curves[curve]])
    for name, value in weights(tmp_path / "whole").items():
        torch.testing.assert_close(weights(tmp_path / "parts")[name], value, atol=2e-4, rtol=0)


def test_parts_divide_a_batch() -> None:
    with pytest.raises(ValidationError, match="gradient_accumulation 3 does not divide prompts_per_step x group_size"):
        TuneConfig(gradient_accumulation=3)
    with pytest.raises(ValidationError, match="gradient_accumulation 3 does not divide pairs_batch, 16"):
        TuneConfig(method="dpo", pairs="pairs.jsonl", gradient_accumulation=3)


def fill_memory(completions: Sequence[str]) -> list[float]:
    torch.empty(1 << 60, dtype=torch.uint8)
    return []


def fill_gpu(completions: Sequence[str]) -> list[float]:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")


@pytest.mark.parametrize("fill", [fill_memory, fill_gpu])
def test_full_memory_says_what_to_lower(
    folders: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fill: Callable[[Sequence[str]], list[float]]
) -> None:
    compute = GRPOTrainer._compute_loss

    def overflow(self: Any, model: Any, inputs: Any) -> Any:
        fill([])
        return compute(self, model, inputs)

    monkeypatch.setattr(GRPOTrainer, "_compute_loss", overflow)
    with pytest.raises(
        TrainingError,
        match=r"out of memory with 4 x 4 completions per step in 1 parts \(.*llocate.*\); raise"
        r" tune\.gradient_accumulation, lower tune\.prompts_per_step or tune\.group_size, or set tune\.adapter$",
    ):
        tune("grpo", folders["gpt_neox"][0], tmp_path)


# Checkpoints and trackers


@pytest.mark.parametrize("adapter", [None, ADAPTER])
def test_checkpoints_are_kept(folders: Models, tmp_path: Path, adapter: AdapterConfig | None) -> None:
    changes = {"keep_every": 2, "steps": 4, "adapter": adapter}
    tune("grpo", folders["gpt_neox"][0], tmp_path / "model", {"base_name": "mine"}, **changes)
    kept = tmp_path / "checkpoints"
    assert sorted(folder.name for folder in kept.iterdir()) == ["step-2", "step-4"]
    for name, value in weights(tmp_path / "model").items():
        torch.testing.assert_close(weights(kept / "step-4")[name], value, atol=0, rtol=0)
        assert value.numel() < 2 or not torch.equal(weights(kept / "step-2")[name], value)
    if adapter:
        assert json.loads((kept / "step-2" / "adapter_config.json").read_text())["base_model_name_or_path"] == "mine"


@pytest.mark.parametrize("adapter", [None, ADAPTER])
@pytest.mark.parametrize("method", ["grpo", "dpo"])
def test_an_interrupted_tuning_ends_with_the_same_weights(
    folders: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, adapter: AdapterConfig | None
) -> None:
    monkeypatch.setattr(training, "_CHECKPOINT_S", 0.0)
    base, small = folders["gpt_neox"][0], {"steps": 2, "prompts_per_step": 2, "pairs_batch": 2, "keep_every": 1}

    def interrupt(_: str, done: int, total: int, value: float) -> None:
        if done == 2:
            raise KeyboardInterrupt

    changes = small | {"steps": 4, "adapter": adapter}
    whole = tune(method, base, tmp_path / "whole" / "model", **changes)
    options: dict[str, Any] = {"scratch": tmp_path / "scratch"}
    with pytest.raises(KeyboardInterrupt):
        tune(method, base, tmp_path / "model", options | {"progress": interrupt}, **changes)
    again: list[int] = []
    report = tune(
        method, base, tmp_path / "model", options | {"progress": lambda *what: again.append(what[1])}, **changes
    )
    assert again == [2, 3, 4]
    assert report.curves == whole.curves
    for part in ("model", "checkpoints/step-1", "checkpoints/step-3"):
        expected, found = weights(tmp_path / "whole" / part), weights(tmp_path / part)
        assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_a_tracker_that_is_not_installed(folders: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lfp.util.dependencies.importlib.util.find_spec", lambda name: None)
    with pytest.raises(DependencyError, match=r"tune\.logger mlflow: .* run pip install mlflow"):
        tune("grpo", folders["gpt_neox"][0], tmp_path, logger="mlflow")


def read_wandb_log(file: Path) -> bytes:
    """Read a log without what its format puts between: a head of 7 bytes, and one before every part of a block."""
    log, at, block, parts = file.read_bytes(), 7, 32_768, []
    while at + 7 <= len(log):
        if block - at % block < 7:  # the rest of a block that holds no head
            at += block - at % block
            continue
        length = int.from_bytes(log[at + 4 : at + 6], "little")
        parts.append(log[at + 7 : at + 7 + length])
        at += 7 + length
    return b"".join(parts)


def test_a_tracker_gets_the_figures_of_every_tuning(
    folders: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb")
    for name, value in {"MODE": "offline", "DIR": str(tmp_path), "SILENT": "true"}.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    for method in ("grpo", "dpo"):
        tune(method, folders["gpt_neox"][0], tmp_path / method, logger="wandb", steps=2)
    logs = [read_wandb_log(file) for file in tmp_path.glob("wandb/offline-run-*/*.wandb")]
    assert len(logs) == 2, "a run of its own for each tuning"
    for name in (b"train/reward", b"train/kl", b"train/rewards/margins", b"train/rewards/accuracies"):
        assert sum(name in log for log in logs) >= 1


def test_a_tracker_that_refuses_ends_the_tuning_with_its_reason(
    folders: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wandb = pytest.importorskip("wandb")

    def refuse(**_: Any) -> None:
        raise wandb.errors.UsageError("No API key configured.")

    monkeypatch.setattr(wandb, "init", refuse)
    with pytest.raises(TrainingError, match=r"^tune\.logger wandb: No API key configured; fix its settings, or --set "):
        tune("grpo", folders["gpt_neox"][0], tmp_path / "refused", logger="wandb", steps=2)


# Bases in other formats


def test_a_base_without_a_folder_of_its_own_is_saved_as_one(folders: Models, tmp_path: Path) -> None:
    model = load_model(str(folders["llama"][0]))
    assert find_plain_folder(model, tmp_path / "unused") == folders["llama"][0] and not (tmp_path / "unused").exists()
    plain = find_plain_folder(replace(model, folder=None), tmp_path / "plain")
    before, after = weights(folders["llama"][0]), weights(plain)
    assert before.keys() == after.keys() and all(torch.equal(after[name], before[name]) for name in before)
    tune("grpo", plain, tmp_path / "tuned")
