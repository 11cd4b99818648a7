"""DPO: tune a model on preference pairs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Unpack

from lfp.config import TuneConfig
from lfp.errors import TrainingError
from lfp.ml.models.finetuning.network import bos_text, count_positions, load_network, prepare_network
from lfp.ml.models.finetuning.training import (
    QuietTrainer,
    TuneJob,
    TuneOptions,
    TuneReport,
    isolate_trainer,
    run_trainer,
)

if TYPE_CHECKING:
    from lfp.texts.preferences import PreferencePair


def tune_dpo(
    base_folder: Path,
    pairs: Sequence[PreferencePair],
    config: TuneConfig,
    *,
    seed: int,
    folder: Path,
    **options: Unpack[TuneOptions],
) -> TuneReport:
    """Tune the base model on preference pairs (DPO, Rafailov et al. 2023) and save it to `folder`.

    Each step takes `pairs_batch` pairs; what does not fit the model's positions is truncated. Raises TrainingError
    without pairs or when the loss is not finite.
    """
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    if not pairs:
        raise TrainingError("tune: no preference pairs to learn from; set tune.pairs to a file that has some")

    class Trainer(QuietTrainer, DPOTrainer):
        _tokenizer: Any

        def _prepare_dataset(self, *args: Any) -> Any:
            """Add no end to a response where the tokenizer has no token for it: every text ends with ""."""
            own = self._tokenizer
            if own.eos_token is None:
                self._tokenizer = SimpleNamespace(eos_token="")
            try:
                return super()._prepare_dataset(*args)
            finally:
                self._tokenizer = own

    job = TuneJob(config=config, seed=seed, folder=folder, **options)
    with isolate_trainer(job) as output_dir:
        network, tokenizer = load_network(base_folder, dtype=job.weights_dtype)
        bos, n_positions = bos_text(tokenizer), count_positions(network)
        adapter = prepare_network(network, config)
        parts = config.gradient_accumulation
        arguments = DPOConfig(
            **job.arguments(output_dir),
            per_device_train_batch_size=min(config.pairs_batch // parts, len(pairs)),
            max_length=n_positions,
        )
        rows = [{"prompt": bos + pair.prompt, "chosen": pair.chosen, "rejected": pair.rejected} for pair in pairs]
        trainer = Trainer(
            model=network,
            args=arguments,
            train_dataset=Dataset.from_list(rows),
            processing_class=tokenizer,
            peft_config=adapter,
        )
        dropped = len(pairs) - len(trainer.train_dataset)
        if dropped == len(pairs):
            raise TrainingError(
                f"tune: every pair's prompt alone fills the model's {arguments.max_length} positions;"
                " give shorter dialogues or a model of longer context"
            )
        figures = {"margin": ("rewards/margins", 1.0), "accuracy": ("rewards/accuracies", 1.0)}
        if config.beta:
            figures |= {side: (f"rewards/{side}", 1.0 / config.beta) for side in ("chosen", "rejected")}
        figures |= {"entropy": ("entropy", 1.0), "loss": ("loss", 1.0)}
        report = run_trainer(trainer, job, figures, watched="margin")
        return replace(report, dropped=dropped)
