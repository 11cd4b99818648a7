"""The verbs `run`, `demo` and `config`: a config, and the bundle made from it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lfp.config import load_config
from lfp.util.types import Progress
from precompute.pipeline import run_pipeline
from precompute.presets import preset
from precompute.run.progress import silent


def run(
    config: str | Path,
    *,
    out: str | Path,
    overrides: Sequence[str] = (),
    resume: bool = False,
    progress: Progress = silent,
) -> Path:
    """Run the whole pipeline of a TOML config and return the folder of the bundle.

    `overrides` are `section.key=value`, as after `--set`. With `resume` the finished stages of an interrupted run are
    kept. Raises ConfigError for a wrong config and another LfpError where a stage fails.
    """
    file = Path(config)
    run_config = load_config(file, overrides)
    return run_pipeline(run_config, Path(out), beside=file.parent, resume=resume, progress=progress)


def demo(
    *, out: str | Path, fast: bool = False, seed: int = 0, resume: bool = False, progress: Progress = silent
) -> Path:
    """Make the demo bundle: film reviews, a small model pretrained and tuned on them; return its folder.

    With `fast` every size is small, for a check that everything works.
    """
    run_config = load_config(preset("demo-fast" if fast else "demo"), [f"seed={seed}"])
    return run_pipeline(run_config, Path(out), beside=None, resume=resume, progress=progress)


def config(preset_name: str | None = None) -> str:
    """Return a commented TOML config to start from: every key at its default, or as a preset sets it."""
    raise NotImplementedError
