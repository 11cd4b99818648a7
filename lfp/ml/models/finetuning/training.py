"""What GRPO and DPO share: arguments of the trainer, the run with its checkpoints, and its figures by step."""

from __future__ import annotations

import math
import random
import shutil
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import torch

from lfp.config import TuneConfig
from lfp.errors import TrainingError
from lfp.ml.models.finetuning.network import save_network
from lfp.ml.models.sources import failure_reason, from_pretrained, quiet_files
from lfp.util.dependencies import check_tracker
from lfp.util.types import CHECKPOINTS, Progress

_RESUMABLE = "complete"
"""File of a checkpoint to resume from that says that the others are there in full."""
_CHECKPOINT_S = 120.0
"""Seconds between two checkpoints to resume from, so the most work a kill costs. The weights do not depend on it."""

Curve = tuple[tuple[int, float], ...]
"""(step, value)"""


class TuneOptions(TypedDict, total=False):
    """Where and how a tuning runs, for the functions that start one."""

    device: str
    dtype: str
    """`float32` or `bfloat16`: what the network computes in. Trained weights and the optimizer are always float32."""
    base_name: str
    """What an adapter calls the model it belongs to; the folder by default."""
    scratch: Path
    """Folder to resume from after an interruption, to the same weights where no prefix or pair is drawn twice."""
    progress: Progress | None


@dataclass(frozen=True, kw_only=True)
class TuneJob:
    """A tuning: its config, its seed, the folder that it writes, and the options."""

    config: TuneConfig
    seed: int
    folder: Path
    device: str = "cpu"
    dtype: str = "float32"
    base_name: str | None = None
    scratch: Path | None = None
    progress: Progress | None = None

    @property
    def weights_dtype(self) -> torch.dtype:
        """Type of the weights of the base: under an adapter, which is float32, they need not be trained."""
        is_half = self.dtype == "bfloat16" and self.config.adapter is not None
        return torch.bfloat16 if is_half else torch.float32

    def arguments(self, output_dir: str) -> dict[str, Any]:
        """Return the trainer's arguments that GRPO and DPO share."""
        config = self.config
        return {
            "output_dir": output_dir,
            "seed": self.seed,
            "max_steps": config.steps,
            "learning_rate": config.learning_rate,
            "lr_scheduler_type": "constant_with_warmup",
            "warmup_steps": min(5, config.steps - 1),
            "beta": config.beta,
            "gradient_accumulation_steps": config.gradient_accumulation,
            "logging_steps": 1,
            "logging_nan_inf_filter": False,
            "disable_dropout": False,  # `prepare_network` does it
            "activation_checkpointing": False,
            "use_cpu": self.device == "cpu",
            "bf16": self.dtype == "bfloat16" and config.adapter is None,
            "report_to": config.logger,
            "run_name": f"{config.method} seed {self.seed}",
            "project": "lfp-explorer",  # of trackio, without an environment variable for it
            "save_strategy": "no",
            "disable_tqdm": True,
            "dataloader_pin_memory": False,
        }


@dataclass(frozen=True)
class TuneReport:
    """How the tuning went."""

    steps: int
    curves: Mapping[str, Curve] = field(repr=False)
    """Figures by step. GRPO: reward (mean of the step's completions), kl (nats per token), entropy (nats per token),
    loss. DPO: margin (beta times the implicit reward of chosen over rejected), accuracy (share of pairs with a positive
    margin), chosen and rejected (implicit reward of a response, in nats), entropy, loss."""
    dropped: int
    """Preference pairs left out because the prompt alone fills the model's positions."""
    seconds: float


class QuietTrainer:
    """What is switched off in TRL's trainers: messages to their makers, model cards, and questions to the hub."""

    model: Any

    def _send_telemetry(self) -> None:
        """Report nothing to anyone."""

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """Write no model card."""

    def _save(self, output_dir: str, **_: Any) -> None:
        save_network(self.model, Path(output_dir))


@contextmanager
def isolate_trainer(job: TuneJob) -> Iterator[str]:
    """Give the trainer a folder to work in; undo its seeding of global generators and hide its progress bars.

    Raises DependencyError where the tracker's package is missing, and TrainingError where memory runs out.
    """
    import datasets

    check_tracker(job.config.logger)
    python_state, numpy_state = random.getstate(), np.random.get_state()
    hidden = datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        with (
            tempfile.TemporaryDirectory() as folder,
            torch.random.fork_rng(),
            quiet_files(),
            _ignore_warnings(),
            _explain_memory(job),
        ):
            yield folder if job.scratch is None else str(job.scratch / "trainer")
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)
        if not hidden:
            datasets.enable_progress_bars()


@contextmanager
def _ignore_warnings() -> Iterator[None]:
    """Ignore what TRL 1.16 and PEFT 0.21 say of their own doing."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        warnings.filterwarnings("ignore", "fan_in_fan_out is set to", UserWarning)  # set right for GPT-2's layers
        warnings.filterwarnings("ignore", "The following (rank|alpha)_pattern keys", RuntimeWarning)  # experts
        yield


@contextmanager
def _explain_memory(job: TuneJob) -> Iterator[None]:
    """Raise TrainingError, which says what to lower, where memory runs out."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        is_full = isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)
        if not is_full:
            raise
        config = job.config
        if config.method == "dpo":
            size, lower = f"{config.pairs_batch} pairs", "tune.pairs_batch"
        else:
            size = f"{config.prompts_per_step} x {config.group_size} completions"
            lower = "tune.prompts_per_step or tune.group_size"
        adapter = "" if config.adapter else ", or set tune.adapter"
        raise TrainingError(
            f"tune: out of memory with {size} per step in {config.gradient_accumulation} parts"
            f" ({failure_reason(error)}); raise tune.gradient_accumulation, lower {lower}{adapter}"
        ) from error


def run_trainer(trainer: Any, job: TuneJob, figures: Mapping[str, tuple[str, float]], *, watched: str) -> TuneReport:
    """Train and save to `job.folder`, from the last checkpoint where an earlier attempt left some.

    `figures` gives each curve the trainer's name for it and a factor; `watched` is the curve that progress shows.
    """
    from transformers import AutoTokenizer, PrinterCallback

    started = time.perf_counter()
    source = trainer.model.config._name_or_path
    name, factor = figures[watched]
    kept = Path(trainer.args.output_dir) / CHECKPOINTS
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(_build_watcher(trainer, job, kept=kept, watched=(name, factor)))
    checkpoint = _last_checkpoint(job.scratch)
    try:
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    except Exception as error:
        tracker = job.config.logger
        if type(error).__module__.partition(".")[0] != tracker:
            raise
        raise TrainingError(
            f"tune.logger {tracker}: {failure_reason(error)}; fix its settings, or --set tune.logger=none"
        ) from error
    save_network(trainer.model, job.folder, base_name=job.base_name)
    from_pretrained(AutoTokenizer, source).save_pretrained(job.folder)
    if kept.is_dir():
        shutil.move(kept, job.folder.parent / CHECKPOINTS)
    log = [entry for entry in trainer.state.log_history if name in entry]
    return TuneReport(
        steps=trainer.state.global_step,
        curves={
            curve: tuple((entry["step"], entry[key] * scale) for entry in log if entry.get(key) is not None)
            for curve, (key, scale) in figures.items()
        },
        dropped=0,
        seconds=time.perf_counter() - started,
    )


def _build_watcher(trainer: Any, job: TuneJob, *, kept: Path, watched: tuple[str, float]) -> Any:
    """Return what watches a run: a loss that is not finite ends it; networks and checkpoints are saved when due."""
    from transformers import TrainerCallback

    config, (name, factor) = job.config, watched
    written = time.perf_counter()

    class Watcher(TrainerCallback):
        def on_log(self, _: Any, state: Any, __: Any, logs: dict[str, float], **___: Any) -> None:
            if not math.isfinite(logs.get("loss", 0.0)):
                raise TrainingError(
                    f"tune: the loss is {logs['loss']} at step {state.global_step}; lower tune.learning_rate"
                )
            if job.progress is not None and name in logs:
                job.progress("tune", state.global_step, config.steps, logs[name] * factor)

        def on_step_end(self, _: Any, state: Any, control: Any, **__: Any) -> None:
            if config.keep_every and state.global_step % config.keep_every == 0:
                save_network(trainer.model, kept / f"step-{state.global_step}", base_name=job.base_name)
            is_due = time.perf_counter() - written >= _CHECKPOINT_S and state.global_step < config.steps
            control.should_save = job.scratch is not None and is_due

        def on_save(self, args: Any, state: Any, _: Any, **__: Any) -> None:
            nonlocal written
            written, newest = time.perf_counter(), Path(args.output_dir) / f"checkpoint-{state.global_step}"
            (newest / _RESUMABLE).touch()
            for folder in newest.parent.glob("checkpoint-*"):
                if folder != newest:
                    shutil.rmtree(folder)

        def on_train_end(self, *_: Any, **__: Any) -> None:
            if config.logger == "wandb":  # its callback leaves the run open, and a second tuning would be added to it
                import wandb

                wandb.finish()

    return Watcher()


def _last_checkpoint(scratch: Path | None) -> Path | None:
    """Return the newest checkpoint that was written in full, None where there is none."""
    if scratch is None:
        return None
    found = [file.parent for file in (scratch / "trainer").glob(f"checkpoint-*/{_RESUMABLE}")]
    return max(found, key=lambda folder: int(folder.name.rpartition("-")[2]), default=None)
