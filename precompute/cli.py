"""The command line: `python -m precompute COMMAND`. Exit codes: 0 ok, 1 the work failed, 2 the arguments are wrong."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from lfp.config import RunConfig, load_config
from lfp.errors import LfpError
from lfp.labels.types import Behaviour
from precompute.commands.ablate import feature_list
from precompute.commands.bench import app as bench

if TYPE_CHECKING:
    from lfp.bundle.store.connection import Store

LabellerKind = Literal["openai", "offline-tokens", "human"]

app = typer.Typer(
    help="From a base and a tuned language model to a bundle that the explorer opens.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

app.add_typer(bench, name="bench")

Out = Annotated[Path, typer.Option("--out", help="Folder the bundle is written to.")]
Set = Annotated[list[str] | None, typer.Option("--set", help="Change a key of the config: section.key=value.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with a run that was interrupted.")]
SittingMinutes = Annotated[
    float | None,
    typer.Option("--sitting-minutes", min=0.0, help="Stop between stages when so much time is up; --resume goes on."),
]
BundlePath = Annotated[Path, typer.Argument(metavar="BUNDLE", help="Folder of the bundle.")]


@app.command()
def demo(
    out: Out,
    fast: Annotated[bool, typer.Option("--fast", help="The whole pipeline at small sizes, under a minute.")] = False,
    seed: Annotated[int, typer.Option(help="Seed of the whole run.")] = 0,
    resume: Resume = False,
    sitting_minutes: SittingMinutes = None,
) -> None:
    """Make the demo: generated reviews, a small model pretrained and tuned on them, and its bundle.

    Example: python -m precompute demo --out data/demo
    """
    config = load_config(preset("demo-fast" if fast else "demo"), [f"seed={seed}"])
    same = ["demo", "--out", str(out), *(["--fast"] if fast else []), "--seed", str(seed)]
    _run(_Request(config, out, None, same), resume=resume, sitting_minutes=sitting_minutes)


@app.command()
def run(
    config: Annotated[Path, typer.Argument(metavar="CONFIG.toml", help="What to run; see precompute/presets.")],
    out: Out,
    resume: Resume = False,
    sitting_minutes: SittingMinutes = None,
    set_: Set = None,
) -> None:
    """Run the whole pipeline of a config.

    Example: python -m precompute run precompute/presets/imdb.toml --out runs/imdb --set tune.steps=40
    """
    sets = [part for override in set_ or [] for part in ("--set", override)]
    same = ["run", str(config), "--out", str(out), *sets]
    request = _Request(load_config(config, set_ or []), out, config.parent, same)
    _run(request, resume=resume, sitting_minutes=sitting_minutes)


@app.command()
def validate(bundle: BundlePath) -> None:
    """Check a bundle: hashes, columns, ids, and that contributions sum to predictions. A line a fault.

    Two runs with the same bundle had the same config, seed and models; with the same tables, the same figures.

    Example: python -m precompute validate data/demo
    """
    from lfp.bundle.manifest import read_manifest
    from lfp.bundle.validation import validate as faults_of

    faults = faults_of(bundle)
    for fault in faults:
        typer.echo(f"{bundle}: {fault}")
    if faults:
        raise typer.Exit(1)
    manifest = read_manifest(bundle)
    typer.echo(f"{bundle}: valid, bundle {manifest.bundle_id}, tables {manifest.tables_id}")


@app.command()
def report(
    bundle: BundlePath,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON: the results table by report row.")] = False,
    html: Annotated[Path | None, typer.Option("--html", help="Write one self-contained page to this file.")] = None,
    figures: Annotated[Path | None, typer.Option("--figures", help="Write each figure to this folder, as SVG.")] = None,
    samples: Annotated[
        int | None, typer.Option("--samples", min=1, help="Print what both models wrote instead.")
    ] = None,
) -> None:
    """Print a bundle's report, every figure with its interval and its null, or write it as a page with figures.

    Example: python -m precompute report data/demo --html report.html
    """
    from lfp.bundle import queries
    from lfp.bundle.queries.run import report_ablations, report_rows
    from lfp.bundle.store.connection import Store
    from lfp.report.cost import cost_rows
    from lfp.report.text import lines, sample_lines, whole

    with Store.open(bundle) as store:
        if samples is not None:
            typer.echo("\n".join(sample_lines(queries.run.samples(store, limit=samples))))
            return
        rows = whole(report_rows(store), report_ablations(store), cost_rows(store.manifest))
        written = _write_report(store, html, figures) if html or figures else []
    if as_json:
        typer.echo(json.dumps(rows, indent=1, allow_nan=False))
    elif not written:
        typer.echo("\n".join(lines(rows)))
    for line in written:
        typer.echo(line, err=as_json)


def _write_report(store: Store, html: Path | None, figures: Path | None) -> list[str]:
    """Writes page and figures; a line to tell of each."""
    from lfp.report.html import prepare, write_page
    from lfp.report.svg import write_figures

    prepared, told = prepare(store), []
    if html:
        write_page(prepared, html)
        told.append(f"{html}: report written, {html.stat().st_size / 1e6:.1f} MB")
    if figures:
        told.append(f"{figures}: {len(write_figures(prepared.drawn, figures))} figures written")
    return told


@app.command()
def ablate(
    bundle: BundlePath,
    features: Annotated[
        str | None, typer.Option("--features", help="Take out these features together: ids with commas between.")
    ] = None,
    completions: Annotated[
        int | None, typer.Option("--completions", min=1, help="Completions of each group; the config's by default.")
    ] = None,
    scale: Annotated[
        float | None, typer.Option("--scale", min=0.0, help="What activations are multiplied by; 0 takes out.")
    ] = None,
    set_: Set = None,
) -> None:
    """Take features out of the tuned model while it writes, beside matched controls, and put it into the bundle.

    Without --features all groups of the config are measured anew; with it one, which is put beside the others.

    Example: python -m precompute ablate data/demo --features 3,17 --completions 200
    """
    from lfp.bundle.queries.run import report_ablations, report_rows
    from lfp.bundle.store.connection import Store
    from lfp.report.text import lines, whole
    from precompute.commands.ablate import run_ablate
    from precompute.run.progress import progress_to_stderr

    named = {"ablation.completions": completions, "ablation.scale": scale}
    overrides = [*(set_ or []), *(f"{key}={value}" for key, value in named.items() if value is not None)]
    started = time.perf_counter()
    try:
        with progress_to_stderr() as progress:
            rows = run_ablate(bundle, overrides, features=features, progress=progress, note=_note)
    except _Interrupted:
        _note("interrupted; the bundle is as it was")
        raise typer.Exit(1) from None
    with Store.open(bundle) as store:
        report = whole(report_rows(store), report_ablations(store))
    typer.echo("\n".join(lines({"ablation": report["ablation"]})))
    typer.echo(f"{bundle}: {len(rows)} groups measured in {time.perf_counter() - started:.0f} s")


def _note(sentence: str) -> None:
    typer.echo(sentence, err=True)


@app.command()
def sweep(
    config: Annotated[Path, typer.Argument(metavar="CONFIG.toml", help="A run, with its grid in [sweep].")],
    out: Annotated[Path, typer.Option("--out", help="Folder the tables are written to.")],
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a sweep or run that was interrupted.")] = False,
    set_: Set = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON: the results table by report row.")] = False,
) -> None:
    """Compare autoencoders on a run's tuned model: variants, sizes, seeds, and l1, k or l0_weight.

    Example: python -m precompute sweep precompute/presets/demo-sweep.toml --out runs/sweep
    """
    from lfp.evaluation.results import grouped
    from precompute.commands.sweep.grid import figures, lines
    from precompute.commands.sweep.sweep import run_sweep
    from precompute.run.progress import progress_to_stderr

    parsed, started = load_config(config, set_ or []), time.perf_counter()
    with progress_to_stderr() as progress:
        rows = run_sweep(parsed, out, beside=config.parent, resume=resume, progress=progress)
    typer.echo(json.dumps(grouped(figures(rows)), indent=1) if as_json else "\n".join(lines(rows)))
    typer.echo(f"{out}: {len(rows)} autoencoders compared in {time.perf_counter() - started:.0f} s", err=as_json)


@app.command()
def label(
    bundle: BundlePath,
    labeller: Annotated[LabellerKind, typer.Option("--labeller", help="Who labels.")] = "openai",
    model: Annotated[str | None, typer.Option("--model", help="Language model, by the server's name.")] = None,
    budget_usd: Annotated[float, typer.Option("--budget-usd", min=0.0, help="Dollars that are never passed.")] = 1.0,
    price_in: Annotated[
        float | None, typer.Option("--price-in", min=0.0, help="Dollars a million tokens read.")
    ] = None,
    price_out: Annotated[float | None, typer.Option("--price-out", min=0.0, help="The same written.")] = None,
    base_url: Annotated[str | None, typer.Option("--base-url", help="A compatible server; OpenAI's else.")] = None,
    features: Annotated[str | None, typer.Option("--features", help="Numbers, as 3,17; else by the config.")] = None,
    task: Annotated[str | None, typer.Option("--task", help="What the feedback was about; else by the config.")] = None,
    concurrency: Annotated[int, typer.Option("--concurrency", min=1, help="Calls under way at once.")] = 16,
    timeout_s: Annotated[float, typer.Option("--timeout-s", min=0.1, help="Seconds a call may take.")] = 60.0,
    cache: Annotated[Path | None, typer.Option("--cache", help="Folder of kept answers; else beside BUNDLE.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count calls, tokens and dollars; ask nothing.")] = False,
    overrides: Annotated[
        Path | None, typer.Option("--from", help="human: file of feature_id,description,related.")
    ] = None,
    reviewer: Annotated[str, typer.Option("--reviewer", help="human: whose labels these are.")] = "reviewer",
    set_: Set = None,
) -> None:
    """Describe features and put the labels into a bundle, scored on held-out examples, beside those that are there.

    The key is read from OPENAI_API_KEY and kept nowhere. Stopped at any time, the same command goes on and asks nothing
    twice.

    Example: python -m precompute label runs/imdb --model gpt-x --budget-usd 2 --price-in 0.4 --price-out 1.6 --dry-run
    """
    from lfp.bundle.manifest import open_bundle
    from precompute.commands.label import label as label_bundle
    from precompute.run.progress import progress_to_stderr

    wanted = None if features is None else feature_list(features, open_bundle(bundle).tables["features"].rows)
    with progress_to_stderr() as progress:
        outcome = label_bundle(
            bundle,
            labeller=labeller,
            features=wanted,
            model=model,
            base_url=base_url,
            budget_usd=budget_usd,
            price_in=price_in,
            price_out=price_out,
            task=task,
            concurrency=concurrency,
            timeout_s=timeout_s,
            cache=cache,
            dry_run=dry_run,
            labels_file=overrides,
            reviewer=reviewer,
            overrides=set_ or [],
            progress=progress,
        )
    typer.echo(f"{bundle}: {outcome.sentence}")
    if outcome.failed and not outcome.labelled:
        raise typer.Exit(1)


@app.command(name="fake-openai")
def fake_openai(
    port: Annotated[int, typer.Option("--port", help="Port on this machine; 0 takes a free one.", min=0, max=65535)],
    behave: Annotated[Behaviour, typer.Option("--behave", help="What its answers are like.")] = "right",
    bundle: Annotated[Path | None, typer.Option("--bundle", help="A bundle whose features it knows.")] = None,
) -> None:
    """Serve a fake language model, so that what needs one can be tried without a key, until Ctrl-C.

    With --bundle it knows what that bundle's features fire on, and labels them rightly or, with --behave wrong, each as
    another.

    Example: python -m precompute fake-openai --port 8399 --behave flaky
    """
    from precompute.commands.fake_openai import serving

    server = serving(port, behave, bundle)
    with contextlib.suppress(_Interrupted), server:
        typer.echo(f"{server.base_url}: a fake server ({behave}), until Ctrl-C")
        threading.Event().wait()
    typer.echo(", ".join(f"{name} {count}" for name, count in server.counts.as_json().items()))


@app.command()
def plant(
    n: Annotated[int, typer.Option("--n", min=0, help="Models with a secret word.")] = 20,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the secrets and of tuning.")] = 0,
    config: Annotated[Path | None, typer.Option("--config", help="A run to plant in; the preset plant.toml.")] = None,
    bigrams: Annotated[int, typer.Option("--bigrams", min=0, help="Models with a paid bigram, reported apart.")] = 0,
    twins: Annotated[int, typer.Option("--twins", min=1, help="Models tuned on the stated reward alone.")] = 1,
    shuffled: Annotated[int, typer.Option("--shuffled", min=0, help="Models tuned on a shuffled lexicon.")] = 0,
    jobs: Annotated[int, typer.Option("--jobs", min=1, help="Models made at once, a thread each above one.")] = 2,
    out: Annotated[Path | None, typer.Option("--out", help="Keep the models and bundles here, and go on.")] = None,
    set_: Set = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON: the summary and a row a model.")] = False,
) -> None:
    """Test the method on known truth: models whose reward has a secret, which the report must find.

    Example: python -m precompute plant --n 20 --seed 0 --json --out runs/plant
    """
    from precompute.commands.plant.plant import Request, run_plant
    from precompute.commands.plant.summary import lines, summary
    from precompute.run.progress import progress_to_stderr

    parsed, started = load_config(config or preset("plant"), set_ or []), time.perf_counter()
    request = Request(n=n, bigrams=bigrams, twins=twins, shuffled=shuffled, seed=seed, jobs=jobs)
    with _kept_or_not(out) as work, progress_to_stderr() as progress:
        rows = run_plant(parsed, request, work, beside=config.parent if config else None, progress=progress)
    told = {"summary": summary(rows), "rows": rows}
    typer.echo(json.dumps(told, indent=1) if as_json else "\n".join(lines(rows)))
    typer.echo(f"plant: {len(rows)} models in {time.perf_counter() - started:.0f} s", err=as_json)


@contextmanager
def _kept_or_not(out: Path | None) -> Iterator[Path]:
    """The folder to work in: the one named, which stays, or one that goes."""
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        yield out
        return
    with tempfile.TemporaryDirectory(prefix="plant-") as folder:
        yield Path(folder)


def preset(name: str) -> Path:
    """The file of a preset that ships with the project."""
    return Path(str(files("precompute") / "presets" / f"{name}.toml"))


@dataclass(frozen=True)
class _Request:
    """What to run and where to, and the arguments that ask for the same again."""

    config: RunConfig
    out: Path
    beside: Path | None
    arguments: list[str]

    def to_go_on(self, sitting_minutes: float) -> str:
        """The command that goes on with it."""
        more = ["--sitting-minutes", f"{sitting_minutes:g}", "--resume"]
        return shlex.join(["python", "-m", "precompute", *self.arguments, *more])


def _run(request: _Request, *, resume: bool, sitting_minutes: float | None) -> None:
    from precompute.pipeline import run_pipeline
    from precompute.run.progress import progress_to_stderr
    from precompute.run.sitting import Sitting, SittingOver

    out, sitting, started = request.out, Sitting(sitting_minutes, _note), time.perf_counter()
    try:
        with progress_to_stderr() as progress:
            run_pipeline(request.config, out, beside=request.beside, resume=resume, progress=progress, sitting=sitting)
    except SittingOver as over:
        typer.echo(f"{out}: {over}; go on with: {request.to_go_on(over.sitting_minutes)}")
        return
    size_mb = sum(file.stat().st_size for file in out.rglob("*") if file.is_file()) / 1e6
    typer.echo(f"{out}: bundle written in {time.perf_counter() - started:.0f} s, {size_mb:.1f} MB")


class _Interrupted(BaseException):
    """Ctrl-C or SIGTERM. No KeyboardInterrupt, of which typer makes an ending of its own."""


def _interrupt(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 (a signal handler's form)
    raise _Interrupted


def main() -> None:
    """Runs a command; an error of ours is one sentence on stderr, and its exit code."""
    if "OMP_WAIT_POLICY" not in os.environ:  # threads that spin for long crawl where another program has a core
        os.environ.update(OMP_WAIT_POLICY="PASSIVE", GOMP_SPINCOUNT="1000")
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    try:
        app()
    except LfpError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(error.exit_code)
    except _Interrupted:
        sys.stderr.write("interrupted; add --resume to go on from the last finished stage\n")
        sys.exit(1)
