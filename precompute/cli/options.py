"""The application of the command line, the options that several commands have, and how a command is interrupted."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Annotated

import typer

from lfp.errors import ConfigError
from precompute.commands.bench import app as bench

app = typer.Typer(
    help="From a base and a tuned language model to a bundle that the explorer opens.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(bench, name="bench")

BundlePath = Annotated[str, typer.Argument(metavar="BUNDLE", help="Folder or address (s3://...) of the bundle.")]
ConfigPath = Annotated[Path, typer.Argument(metavar="CONFIG.toml", help="Config of the run; see precompute/presets.")]
Out = Annotated[str, typer.Option("--out", help="Folder or address (s3://...) the bundle is written to.")]
Work = Annotated[
    Path | None,
    typer.Option("--work", help="Folder for stages under way; that of --out, or the current one for an address."),
]
Set = Annotated[list[str] | None, typer.Option("--set", help="Change a key of the config: section.key=value.")]
Resume = Annotated[bool, typer.Option("--resume", help="Continue an interrupted run; finished stages are kept.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
Features = Annotated[str | None, typer.Option("--features", help="Ids of features, separated by commas: 3,17.")]


class Interrupted(BaseException):
    """Ctrl-C or SIGTERM. Not a KeyboardInterrupt, which typer would handle itself."""


def terminal_width() -> int | None:
    """Return the columns of the terminal, None where output goes to a file or another program."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def parse_ids(features: str | None) -> list[int] | None:
    """Parse ids such as 3,17. Raises ConfigError for anything else."""
    if features is None:
        return None
    names = [name.strip() for name in features.split(",")]
    wrong = [name for name in names if not name.isdecimal() or len(name) > 9]
    if wrong:
        named = ", ".join(f'"{name}"' for name in wrong)
        raise ConfigError(f"--features: {named} is not the id of a feature; separate ids by commas, as in 3,17")
    return [int(name) for name in names]
