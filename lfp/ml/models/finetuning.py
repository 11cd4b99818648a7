"""Tuning on feedback with TRL: GRPO on a reward, DPO on preference pairs."""

from __future__ import annotations

import math
import random
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from lfp.config import TuneConfig
from lfp.errors import ModelError, TrainingError
from lfp.ml.models.loading import quiet_files
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
    """Tunes the base on a reward of its completions of `prefixes` (GRPO, Shao et al. 2024) and saves it to `folder`.

    Each step draws `prompts_per_step` prefixes and `group_size` completions of each. `reward` sees completions only,
    special tokens left out. Raises TrainingError when it fails, never changes, or the loss is not a number.
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
            """Nothing is reported to anyone."""

    seen: set[float] = set()
    with _workplace() as output_dir:
        model, tokenizer = _load_base(base_folder)
        prompts = [_lead(tokenizer) + prefix for prefix in prefixes]
        _check_room(model, tokenizer, prompts, config.completion_tokens)
        arguments = GRPOConfig(
            **_common_arguments(config, seed=seed, output_dir=output_dir, device=device),
            per_device_train_batch_size=config.prompts_per_step * config.group_size,
            num_generations=config.group_size,
            max_completion_length=config.completion_tokens,
            temperature=config.temperature,
        )
        trainer = Trainer(
            model=model,
            reward_funcs=_recording(reward, seen),
            args=arguments,
            train_dataset=Dataset.from_dict({"prompt": prompts}),
            processing_class=tokenizer,
        )
        for each in filter(None, (model, trainer.ref_model)):
            each.base_model.register_forward_pre_hook(_positions_from_mask, with_kwargs=True)
        report = _run(trainer, config, folder=folder, figure="reward", progress=progress)
    _check_told_apart(seen, config.steps)
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
    """Tunes the base on preference pairs (DPO, Rafailov et al. 2023) and saves it to `folder`.

    Each step takes `pairs_batch` pairs; what does not fit the model's positions is cut off at the end. Raises
    TrainingError without pairs or when the loss is not a number.
    """
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    if not pairs:
        raise TrainingError("tune: no preference pairs to learn from; set tune.pairs to a file that has some")

    class Trainer(DPOTrainer):
        def _send_telemetry(self) -> None:
            """Nothing is reported to anyone."""

    with _workplace() as output_dir:
        model, tokenizer = _load_base(base_folder)
        lead = _lead(tokenizer)
        arguments = DPOConfig(
            **_common_arguments(config, seed=seed, output_dir=output_dir, device=device),
            per_device_train_batch_size=min(config.pairs_batch, len(pairs)),
            max_length=model.config.max_position_embeddings,
        )
        rows = [{"prompt": lead + pair.prompt, "chosen": pair.chosen, "rejected": pair.rejected} for pair in pairs]
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
    """Trains and saves; `figure` names the log entry that becomes the reward curve."""
    from transformers import AutoTokenizer, PrinterCallback

    started = time.perf_counter()
    source = trainer.model.config._name_or_path
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(_watcher(config.steps, figure, progress))
    with warnings.catch_warnings():
        # TRL 1.16 asks transformers 5.23 for this property under its old name
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        trainer.train()
    with quiet_files():
        trainer.model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(source).save_pretrained(folder)
    log = [entry for entry in trainer.state.log_history if figure in entry]
    return TuneReport(
        steps=trainer.state.global_step,
        loss_curve=tuple((entry["step"], entry["loss"]) for entry in log),
        reward_curve=tuple((entry["step"], entry[figure]) for entry in log),
        dropped=0,
        seconds=time.perf_counter() - started,
    )


def _load_base(folder: Path) -> tuple[Any, PreTrainedTokenizerBase]:
    """Model and tokenizer; TRL loads its reference model once more from the same folder."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if not (folder / "config.json").is_file():
        raise ModelError(f"{folder}: no config.json in this folder; pass one that save_pretrained wrote")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return model, AutoTokenizer.from_pretrained(folder, padding_side="left")


def _lead(tokenizer: PreTrainedTokenizerBase) -> str:
    """What to write before a prompt so that one beginning-of-sequence token leads it, as everywhere else here."""
    bos_id = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    if bos_id is None or tokenizer("a")["input_ids"][0] == bos_id:
        return ""
    return str(tokenizer.convert_ids_to_tokens(bos_id))


def _check_room(model: Any, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str], n_tokens: int) -> None:
    longest, n_ctx = max(map(len, tokenizer(list(prompts))["input_ids"])), model.config.max_position_embeddings
    if longest + n_tokens > n_ctx:
        raise TrainingError(
            f"tune: a prefix of {longest} tokens and {n_tokens} more do not fit the model's {n_ctx} positions;"
            " lower tune.completion_tokens or tune.prefix_tokens"
        )


def _positions_from_mask(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], Any]:
    """Counts positions from each row's first token, as generation does; TRL's own passes count the padding too.

    To rotary embeddings, which see differences only, it is all one; learned positions (GPT-Neo) come out wrong.
    """
    mask, ids = kwargs.get("attention_mask"), args[0] if args else kwargs.get("input_ids")
    if kwargs.get("position_ids") is None and mask is not None and ids is not None and mask.shape == ids.shape:
        kwargs["position_ids"] = (mask.cumsum(dim=-1) - 1).clamp(min=0)
    return args, kwargs


def _recording(reward: Reward, seen: set[float]) -> Callable[..., list[float]]:
    """The reward as TRL calls it, checked; `seen` gets its least and greatest value."""
    answer = checked(reward, name="of the tuning")

    def rewards(completions: list[str], **_: Any) -> list[float]:
        values = answer(completions)
        extremes = {*seen, *values}
        seen.clear()
        seen.update((min(extremes), max(extremes)))
        return values

    return rewards


def _check_told_apart(seen: set[float], steps: int) -> None:
    if len(seen) == 1:
        raise TrainingError(
            f"tune: the reward is {seen.pop()} for every completion of {steps} steps, so nothing was learned; give a"
            " reward that tells texts apart, or raise tune.completion_tokens"
        )


def _watcher(steps: int, figure: str, progress: Progress | None) -> Any:
    """Tells of progress at every step, and stops a training whose loss is not a number."""
    from transformers import TrainerCallback

    class Watcher(TrainerCallback):
        def on_log(self, _: Any, state: Any, __: Any, logs: dict[str, float], **___: Any) -> None:
            if not math.isfinite(logs.get("loss", 0.0)):
                raise TrainingError(
                    f"tune: the loss is {logs['loss']} at step {state.global_step}; lower tune.learning_rate"
                )
            if progress is not None and figure in logs:
                progress("tune", state.global_step, steps, logs[figure])

    return Watcher()


@contextmanager
def _workplace() -> Iterator[str]:
    """A temporary folder for the trainer; its seeding of global generators and its progress bars are undone."""
    import datasets

    states = random.getstate(), np.random.get_state()
    bars = datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        with tempfile.TemporaryDirectory() as folder, torch.random.fork_rng(), quiet_files():
            yield folder
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        if not bars:
            datasets.enable_progress_bars()
