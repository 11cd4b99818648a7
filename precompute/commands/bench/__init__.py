"""The benchmarks of the offline jobs: `python -m precompute bench sae|features`, a JSON line each."""

from __future__ import annotations

import typer

from precompute.commands.bench.features import features_command
from precompute.commands.bench.sae import sae_command

app = typer.Typer(help="Measure the jobs beside this machine's matrix product: a JSON line each.", no_args_is_help=True)
app.command("sae")(sae_command)
app.command("features")(features_command)
