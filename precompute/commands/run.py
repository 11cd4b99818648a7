"""The verbs `run`, `demo` and `config`: a config, and the bundle made from it."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path

from lfp.config import LanguageModelConfig, load_config, load_section
from lfp.config_page import build_toml
from lfp.util.types import Progress
from precompute import presets
from precompute.pipeline import run_pipeline
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
    run_config = load_config(file, overrides, command="run")
    server = load_section(LanguageModelConfig, "language_model", file, overrides)
    return run_pipeline(
        run_config, Path(out), config_dir=file.parent, resume=resume, progress=progress, language_model=server
    )


def demo(
    *, out: str | Path, fast: bool = False, seed: int = 0, resume: bool = False, progress: Progress = silent
) -> Path:
    """Make the demo bundle: film reviews, a small model pretrained and tuned on them; return its folder.

    With `fast` every size is small, for a check that everything works.
    """
    file = presets.preset("demo-fast" if fast else "demo")
    run_config = load_config(file, [f"seed={seed}"])
    return run_pipeline(run_config, Path(out), config_dir=file.parent, resume=resume, progress=progress)


def config(preset: str | None = None) -> str:
    """Return a commented TOML config to start from: every key at its default, or as a preset sets it.

    Raises ConfigError where there is no such preset.
    """
    values = tomllib.loads(presets.preset(preset).read_text(encoding="utf-8")) if preset else {}
    return build_toml(values)
