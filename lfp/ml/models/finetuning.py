"""Tune a model on feedback with TRL: GRPO on a reward, DPO on preference pairs."""

from __future__ import annotations

import math
import random
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from lfp.config import TuneConfig
from lfp.errors import ModelError, TrainingError
from lfp.ml.models.sources import failure_reason, from_pretrained, quiet_files
from lfp.texts.rewards import checked
from lfp.util.types import Progress

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from lfp.texts.lexicon import Reward
    from lfp.texts.preferences import PreferencePair


@dataclass(frozen=True)
class TuneReport:
    """How the tuning went."""

    steps: int
    loss_curve: tuple[tuple[int, float], ...]
    """(step, loss)"""
    reward_curve: tuple[tuple[int, float], ...]
    """(step, mean reward of its completions) for GRPO; for DPO the mean margin of chosen over rejected, which is
    beta times the difference of their summed implicit rewards."""
    dropped: int
    """Preference pairs left out because the prompt alone fills the model's positions."""
    seconds: float


def tune_grpo(
    base_folder: Path,
    prefixes: Sequence[str],
    reward: Reward,
    config: TuneConfig,
    *,
    seed: int,
    folder: Path,
    device: str = "cpu",
    progress: Progress | None = None,
) -> TuneReport:
    """Tune the base model on a reward of its completions of `prefixes` (GRPO, Shao et al. 2024); save it to `folder`.

    Each step draws `prompts_per_step` prefixes and `group_size` completions of each. `reward` gets completions only,
    without special tokens. Raises TrainingError when the reward fails or never changes, or the loss is not finite.
    """
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    if len(prefixes) < config.prompts_per_step:
        raise TrainingError(
            f"tune: {len(prefixes)} prefixes are too few for a step of"
            f" {config.prompts_per_step}; lower tune.prompts_per_step"
        )

    class Trainer(GRPOTrainer):
        def _send_telemetry(self) -> None:
            """Report nothing to anyone."""

    check_rewards = checked(reward, name="of the tuning")
    extremes: set[float] = set()

    def reward_completions(completions: list[str], **_: Any) -> list[float]:
        rewards = check_rewards(completions)
        seen = {*extremes, *rewards}
        extremes.clear()
        extremes.update((min(seen), max(seen)))
        return rewards

    with _isolated_trainer() as output_dir:
        model, tokenizer = _load_base(base_folder)
        prompts = [_bos_text(tokenizer) + prefix for prefix in prefixes]
        longest, n_ctx = max(map(len, tokenizer(prompts)["input_ids"])), model.config.max_position_embeddings
        if longest + config.completion_tokens > n_ctx:
            raise TrainingError(
                f"tune: a prefix of {longest} tokens and {config.completion_tokens} more do not fit the model's"
                f" {n_ctx} positions; lower tune.completion_tokens or tune.prefix_tokens"
            )
        arguments = GRPOConfig(
            **_common_arguments(config, seed=seed, output_dir=output_dir, device=device),
            per_device_train_batch_size=config.prompts_per_step * config.group_size,
            num_generations=config.group_size,
            max_completion_length=config.completion_tokens,
            temperature=config.temperature,
        )
        trainer = Trainer(
            model=model,
            reward_funcs=reward_completions,
            args=arguments,
            train_dataset=Dataset.from_dict({"prompt": prompts}),
            processing_class=tokenizer,
        )
        for network in filter(None, (model, trainer.ref_model)):
            network.base_model.register_forward_pre_hook(_number_positions, with_kwargs=True)
        report = _run(trainer, config, folder=folder, figure="reward", progress=progress)
    if len(extremes) == 1:
        raise TrainingError(
            f"tune: the reward is {extremes.pop()} for every completion of {config.steps} steps, so nothing was"
            " learned; give a reward that differs between texts, or raise tune.completion_tokens"
        )
    return report


def tune_dpo(
    base_folder: Path,
    pairs: Sequence[PreferencePair],
    config: TuneConfig,
    *,
    seed: int,
    folder: Path,
    device: str = "cpu",
    progress: Progress | None = None,
) -> TuneReport:
    """Tune the base model on preference pairs (DPO, Rafailov et al. 2023) and save it to `folder`.

    Each step takes `pairs_batch` pairs; what does not fit the model's positions is truncated. Raises TrainingError
    without pairs or when the loss is not finite.
    """
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    if not pairs:
        raise TrainingError("tune: no preference pairs to learn from; set tune.pairs to a file that has some")

    class Trainer(DPOTrainer):
        def _send_telemetry(self) -> None:
            """Report nothing to anyone."""

    with _isolated_trainer() as output_dir:
        model, tokenizer = _load_base(base_folder)
        bos = _bos_text(tokenizer)
        arguments = DPOConfig(
            **_common_arguments(config, seed=seed, output_dir=output_dir, device=device),
            per_device_train_batch_size=min(config.pairs_batch, len(pairs)),
            max_length=model.config.max_position_embeddings,
        )
        rows = [{"prompt": bos + pair.prompt, "chosen": pair.chosen, "rejected": pair.rejected} for pair in pairs]
        trainer = Trainer(
            model=model, args=arguments, train_dataset=Dataset.from_list(rows), processing_class=tokenizer
        )
        dropped = len(pairs) - len(trainer.train_dataset)
        if dropped == len(pairs):
            raise TrainingError(
                f"tune: every pair's prompt alone fills the model's {arguments.max_length} positions;"
                " give shorter dialogues or a model of longer context"
            )
        report = _run(trainer, config, folder=folder, figure="rewards/margins", progress=progress)
        return replace(report, dropped=dropped)


def _common_arguments(config: TuneConfig, *, seed: int, output_dir: str, device: str) -> dict[str, Any]:
    return {
        "output_dir": output_dir,
        "seed": seed,
        "max_steps": config.steps,
        "learning_rate": config.learning_rate,
        "lr_scheduler_type": "constant_with_warmup",
        "warmup_steps": min(5, config.steps - 1),
        "beta": config.beta,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "disable_dropout": True,
        "activation_checkpointing": False,
        "use_cpu": device == "cpu",
        "bf16": False,
        "report_to": "none",
        "save_strategy": "no",
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
    }


def _run(trainer: Any, config: TuneConfig, *, folder: Path, figure: str, progress: Progress | None) -> TuneReport:
    """Train and save; `figure` names the log entry that becomes the reward curve."""
    from transformers import AutoTokenizer, PrinterCallback, TrainerCallback

    class Watcher(TrainerCallback):
        def on_log(self, _: Any, state: Any, __: Any, logs: dict[str, float], **___: Any) -> None:
            if not math.isfinite(logs.get("loss", 0.0)):
                raise TrainingError(
                    f"tune: the loss is {logs['loss']} at step {state.global_step}; lower tune.learning_rate"
                )
            if progress is not None and figure in logs:
                progress("tune", state.global_step, config.steps, logs[figure])

    started = time.perf_counter()
    source = trainer.model.config._name_or_path
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(Watcher())
    with warnings.catch_warnings():
        # TRL 1.16 reads this property of transformers 5.23 by its old name
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        trainer.train()
    with quiet_files():
        trainer.model.save_pretrained(folder)
    from_pretrained(AutoTokenizer, source).save_pretrained(folder)
    log = [entry for entry in trainer.state.log_history if figure in entry]
    return TuneReport(
        steps=trainer.state.global_step,
        loss_curve=tuple((entry["step"], entry["loss"]) for entry in log),
        reward_curve=tuple((entry["step"], entry[figure]) for entry in log),
        dropped=0,
        seconds=time.perf_counter() - started,
    )


def _load_base(folder: Path) -> tuple[Any, PreTrainedTokenizerBase]:
    """Load model and tokenizer; TRL loads its reference model from the same folder."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if not (folder / "config.json").is_file():
        raise ModelError(f"{folder}: no config.json in this folder; pass one that save_pretrained wrote")
    try:
        model = from_pretrained(AutoModelForCausalLM, folder, dtype=torch.float32)
        return model, from_pretrained(AutoTokenizer, folder, padding_side="left")
    except (OSError, ValueError) as error:
        reason = failure_reason(error)
        raise ModelError(f"{folder}: cannot load a model to tune from this folder ({reason}); save it again") from error


def _bos_text(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return what to write before a prompt so that exactly one beginning-of-sequence token precedes it."""
    bos_id = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    if bos_id is None or tokenizer("a")["input_ids"][0] == bos_id:
        return ""
    return str(tokenizer.convert_ids_to_tokens(bos_id))


def _number_positions(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], Any]:
    """Number positions from each row's first token, as generation does; TRL's own passes count the padding too.

    Rotary embeddings depend on differences only, but learned positions (GPT-Neo) would come out wrong.
    """
    mask, ids = kwargs.get("attention_mask"), args[0] if args else kwargs.get("input_ids")
    if kwargs.get("position_ids") is None and mask is not None and ids is not None and mask.shape == ids.shape:
        kwargs["position_ids"] = (mask.cumsum(dim=-1) - 1).clamp(min=0)
    return args, kwargs


@contextmanager
def _isolated_trainer() -> Iterator[str]:
    """Give the trainer a temporary folder; undo its seeding of global generators and hide its progress bars."""
    import datasets

    python_state, numpy_state = random.getstate(), np.random.get_state()
    hidden = datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        with tempfile.TemporaryDirectory() as folder, torch.random.fork_rng(), quiet_files():
            yield folder
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)
        if not hidden:
            datasets.enable_progress_bars()
