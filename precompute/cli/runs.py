"""Commands that make a bundle, check it, report what it says and open it."""

from __future__ import annotations

import contextlib
import json
import time
from pathlib import Path
from typing import Annotated

import typer

from precompute.cli.options import (
    BundlePath,
    ConfigPath,
    Interrupted,
    Json,
    Out,
    Resume,
    Set,
    Work,
    app,
    terminal_width,
)
from precompute.run.progress import progress_to_stderr


@app.command()
def demo(
    out: Out,
    fast: Annotated[bool, typer.Option("--fast", help="The whole pipeline on a tiny model, under a minute.")] = False,
    seed: Annotated[int, typer.Option(help="Seed of the whole run.")] = 0,
    resume: Resume = False,
    work: Work = None,
    set_: Set = None,
) -> None:
    """Make the demo bundle: SmolLM2-135M, from an installed package, tuned to please VADER on texts that it wrote.

    The second demo is the run of a preset: python -m precompute run precompute/presets/demo-helpful.toml --out
    data/demo-helpful.

    Example: python -m precompute demo --out data/demo --resume
    """
    from precompute.commands import basic as verbs

    started = time.perf_counter()
    with progress_to_stderr() as progress:
        bundle = verbs.demo(
            out=out, fast=fast, seed=seed, overrides=set_ or (), resume=resume, work=work, progress=progress
        )
    _print_bundle(bundle, started)


@app.command()
def run(config: ConfigPath, out: Out, resume: Resume = False, work: Work = None, set_: Set = None) -> None:
    """Run the whole pipeline of a config.

    Example: python -m precompute run precompute/presets/imdb.toml --out runs/imdb --set tune.steps=40
    """
    from precompute.commands import basic as verbs

    started = time.perf_counter()
    with progress_to_stderr() as progress:
        bundle = verbs.run(config, out=out, overrides=set_ or (), resume=resume, work=work, progress=progress)
    _print_bundle(bundle, started)


@app.command()
def config(
    preset: Annotated[str | None, typer.Option("--for", metavar="PRESET", help="Take a preset's values.")] = None,
) -> None:
    """Print a commented config with every key, to save as a file and edit.

    Example: python -m precompute config --for imdb > my-run.toml
    """
    from precompute.commands import basic as verbs

    typer.echo(verbs.config(preset), nl=False)


@app.command()
def validate(bundle: BundlePath) -> None:
    """Check a bundle: hashes, columns, ids, and that contributions sum to predictions. Prints one line per fault.

    Two runs with the same bundle id had the same config, seed and models; with the same tables id, the same results.

    Example: python -m precompute validate data/demo
    """
    from lfp.bundle import validation
    from lfp.bundle.manifest import read_manifest
    from lfp.bundle.remote.mirror import local_folder

    faults = validation.validate(bundle)
    for fault in faults:
        typer.echo(fault if fault.startswith(bundle) else f"{bundle}: {fault}")
    if faults:
        raise typer.Exit(1)
    manifest = read_manifest(local_folder(bundle))
    typer.echo(f"{bundle}: valid, bundle {manifest.bundle_id}, tables {manifest.tables_id}")


@app.command()
def explore(
    bundle: Annotated[list[str], typer.Argument(metavar="BUNDLE...", help="Folders or addresses of bundles to show.")],
    port: Annotated[int, typer.Option("--port", min=1, max=65535, help="Port to serve on.")] = 8501,
    address: Annotated[str | None, typer.Option("--address", help="Network address; all of them by default.")] = None,
    headless: Annotated[bool, typer.Option("--headless", help="Open no browser.")] = False,
) -> None:
    """Serve the explorer on bundles until Ctrl-C.

    Example: lfp explore data/demo --port 8600
    """
    from precompute.commands.basic import explore

    with contextlib.suppress(Interrupted):
        explore(bundle, port=port, address=address, headless=headless)


@app.command()
def mcp(
    bundle: BundlePath,
    http: Annotated[bool, typer.Option("--http", help="Serve over HTTP on 127.0.0.1, not stdin and stdout.")] = False,
    port: Annotated[int, typer.Option("--port", min=1, max=65535, help="Port for --http.")] = 8765,
) -> None:
    """Let an agent query a bundle, by the Model Context Protocol; see docs/AGENTS.md.

    Example: python -m precompute mcp data/demo --http
    """
    from precompute.commands import basic as verbs

    if http:
        typer.echo(f"{bundle}: served at http://127.0.0.1:{port}/mcp until Ctrl-C", err=True)
    with contextlib.suppress(Interrupted):
        verbs.mcp(bundle, http=http, port=port)


@app.command()
def report(
    bundle: BundlePath,
    as_json: Json = False,
    html: Annotated[Path | None, typer.Option("--html", help="Write one self-contained page to this file.")] = None,
    figures: Annotated[Path | None, typer.Option("--figures", help="Write each figure to this folder, as SVG.")] = None,
    samples: Annotated[
        int | None, typer.Option("--samples", min=1, help="Print so many completions of both models instead.")
    ] = None,
) -> None:
    """Print a bundle's report, four checks and every figure with its interval and null, or write it as a page.

    Example: python -m precompute report data/demo --html report.html
    """
    from lfp.evaluation.results import report_as_json
    from lfp.report.text import format_checks, format_report, format_samples
    from precompute.commands import basic as verbs

    found = verbs.report(bundle, html=html, figures=figures, samples=samples)
    if samples is not None:
        typer.echo(format_samples(found.samples, found.writing))
    elif as_json:
        typer.echo(json.dumps(report_as_json(found.rows), indent=1, allow_nan=False))
    elif html is None and figures is None:
        typer.echo(f"{format_checks(found.checks)}\n")
        typer.echo(format_report(found.rows, width=terminal_width()))
    if html is not None:
        typer.echo(f"{html}: report written, {html.stat().st_size / 1e6:.1f} MB", err=as_json)
    if figures is not None:
        typer.echo(f"{figures}: {len(found.figures)} figures written", err=as_json)


def _print_bundle(bundle: Path | str, started: float) -> None:
    from lfp.bundle.remote.mirror import count_bytes

    size_mb = count_bytes(bundle) / 1e6
    typer.echo(f"{bundle}: bundle written in {time.perf_counter() - started:.0f} s, {size_mb:.1f} MB")
