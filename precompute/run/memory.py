"""What to lower where a stage of a run fills the memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from lfp.config import RunConfig
from lfp.errors import ModelError, first_line
from precompute.run.stage import Stage
from precompute.run.work_folder import Run

_BATCHES = (
    "stats.batch_texts", "credits.batch_texts", "feature_credits.batch_texts", "sae.batch_tokens", "pretrain.batch",
    "ablation.batch",
)  # fmt: skip
"""Keys of the config that set how much is in memory at a time; those that a stage reads are named."""
_EXACT = {
    "credits", "trajectory", "feature_credits", "feature_trajectory", "interventions", "twin_words", "twin_drift"
}  # fmt: skip
"""Stages that compute in float32 whatever `model.dtype` is."""


@contextmanager
def explain_full_memory(run: Run, stage: Stage) -> Iterator[None]:
    """Say in a sentence what to lower where a stage fills the memory."""
    from lfp.ml.models.runtime import is_out_of_memory

    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise ModelError(
            f"stage {stage.name}: out of memory on {run.config.model.device} ({first_line(error)});"
            f" {advise_on_memory(stage, run.config)}, then add --resume"
        ) from error


def advise_on_memory(stage: Stage, config: RunConfig) -> str:
    """Say what lowers the memory that a stage takes, among what it reads."""
    declared = {*stage.reads}
    read = [key for key in (*_BATCHES, "model.context") if declared & {key, key.partition(".")[0]}]
    values = config.model_dump()
    lower = [f"{key} (now {values[section][name]})" for key in read for section, _, name in [key.partition(".")]]
    ways = [f"lower {' or '.join(lower)}"] if lower else []
    is_free = config.model.dtype == "float32" and config.sae.trained_on != "change" and stage.name not in _EXACT
    if is_free and declared & {"model", "model.dtype"}:
        ways.append("set model.dtype=bfloat16")
    return ", or ".join(ways) or "use a machine with more memory"
