"""Commands that study models and bundles further: ablations, sweeps, planted secrets, labels; and that make texts."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import typer

from lfp.labels.types import Behaviour
from lfp.testing.fake_openai.quirks import Quirk
from precompute.cli.options import (
    BundlePath,
    ConfigPath,
    Features,
    Interrupted,
    Json,
    Resume,
    Set,
    app,
    parse_ids,
    terminal_width,
)  # fmt: skip
from precompute.run.progress import progress_to_stderr

LabellerKind = Literal["openai", "offline-tokens", "human"]


@app.command()
def ablate(
    bundle: BundlePath,
    features: Features = None,
    completions: Annotated[
        int | None, typer.Option("--completions", min=1, help="Completions per group; the config's by default.")
    ] = None,
    scale: Annotated[
        float | None, typer.Option("--scale", min=0.0, help="Factor on the activations; 0 removes the features.")
    ] = None,
    trust_reward: Annotated[
        str | None,
        typer.Option("--trust-reward", metavar="MODULE", help="Python module that a bundle's reward may run."),
    ] = None,
    set_: Set = None,
) -> None:
    """Remove features from the tuned model while it writes, compare with matched controls, and update the bundle.

    With --features those are removed together, as one group that joins the others in the bundle. Without it every group
    of the config is measured again.

    Example: python -m precompute ablate data/demo --features 3,17 --completions 200
    """
    from lfp.report.rows import ablation_rows
    from lfp.report.text import format_report
    from precompute.commands import ablate as verbs

    started = time.perf_counter()
    try:
        with progress_to_stderr() as progress:
            rows = verbs.ablate(
                bundle,
                features=parse_ids(features),
                completions=completions,
                scale=scale,
                overrides=set_ or (),
                trust_reward=trust_reward,
                progress=progress,
            )
    except Interrupted:
        typer.echo("interrupted; the bundle is unchanged", err=True)
        raise typer.Exit(1) from None
    typer.echo(format_report({"ablation": ablation_rows(rows)}, width=terminal_width()))
    typer.echo(f"{bundle}: {len(rows)} groups measured in {time.perf_counter() - started:.0f} s")


@app.command()
def sweep(
    config: ConfigPath,
    out: Annotated[Path, typer.Option("--out", help="Folder the tables are written to.")],
    resume: Resume = False,
    set_: Set = None,
    as_json: Json = False,
) -> None:
    """Compare autoencoders on a run's tuned model: the variants, sizes, seeds and penalties that the config lists.

    Example: python -m precompute sweep precompute/presets/demo-sweep.toml --out runs/sweep
    """
    from lfp.evaluation.results import group_by_section, report_as_json
    from precompute.commands import sweep as verbs

    started = time.perf_counter()
    with progress_to_stderr() as progress:
        rows = verbs.sweep(config, out=out, overrides=set_ or (), resume=resume, progress=progress)
    report = report_as_json(group_by_section(verbs.result_rows(rows)))
    typer.echo(json.dumps(report, indent=1) if as_json else verbs.format_table(rows))
    typer.echo(f"{out}: {len(rows)} autoencoders compared in {time.perf_counter() - started:.0f} s", err=as_json)


@app.command()
def plant(
    config: Annotated[Path | None, typer.Option("--config", help="Config to plant in; default plant.toml.")] = None,
    n: Annotated[int, typer.Option("--n", min=0, help="Models with a secret word.")] = 20,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the secrets and of tuning.")] = 0,
    bigrams: Annotated[int, typer.Option("--bigrams", min=0, help="Models with a secret bigram.")] = 0,
    twins: Annotated[int, typer.Option("--twins", min=3, help="Models tuned on the stated reward alone.")] = 8,
    shuffled: Annotated[int, typer.Option("--shuffled", min=0, help="Models tuned on a shuffled lexicon.")] = 0,
    jobs: Annotated[
        int, typer.Option("--jobs", min=1, help="Models made at once without a cluster; above one, a thread each.")
    ] = 2,
    bundles: Annotated[bool, typer.Option("--bundles", help="Also search the reports of planted models.")] = False,
    out: Annotated[Path | None, typer.Option("--out", help="Keep models and bundles here, and continue.")] = None,
    set_: Set = None,
    as_json: Json = False,
) -> None:
    """Test the method where the truth is known: models whose reward has a secret, to be found beside twins.

    Example: python -m precompute plant --n 20 --seed 0 --json --out runs/plant
    """
    from precompute.commands.plant import plant as verbs
    from precompute.commands.plant.detection import format_lines, summarize

    started = time.perf_counter()
    with progress_to_stderr() as progress:
        rows = verbs.plant(
            config,
            n=n,
            seed=seed,
            bigrams=bigrams,
            twins=twins,
            bundles=bundles,
            shuffled=shuffled,
            jobs=jobs,
            out=out,
            overrides=set_ or (),
            progress=progress,
        )
    planting = {"summary": summarize(rows), "rows": rows}
    typer.echo(json.dumps(planting, indent=1) if as_json else "\n".join(format_lines(rows)))
    typer.echo(f"plant: {len(rows)} models in {time.perf_counter() - started:.0f} s", err=as_json)


@app.command()
def write(
    openings: Annotated[
        Path, typer.Argument(metavar="OPENINGS.toml", help="Openings, and the model to continue them.")
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder the texts are written to.")],
    train: Annotated[int, typer.Option("--train", min=1, help="Texts to train on.")] = 2000,
    held_out: Annotated[int, typer.Option("--held-out", min=1, help="Texts held out, with other openings.")] = 600,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of openings and sampling.")] = 0,
) -> None:
    """Let a language model write the texts of a corpus, which may then be published with the run.

    Example: python -m precompute write precompute/presets/written/openings.toml --out precompute/presets/written
    """
    from precompute.commands import write as verbs

    with progress_to_stderr() as progress:
        found = verbs.write(openings, out=out, train=train, held_out=held_out, seed=seed, progress=progress)
    typer.echo(f"{out}: {found.kept:,} texts written; left out: {_listed(found.left_out)}")


@app.command()
def screen(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="File of texts or pairs, as a config names it.")],
    out: Annotated[Path, typer.Option("--out", help="File to write: .jsonl or .jsonl.gz.")],
    columns: Annotated[
        list[str] | None, typer.Option("--column", help="Column to read and keep; default text, prompt and sides.")
    ] = None,
    longest: Annotated[int | None, typer.Option("--longest", min=1, help="Most words of a text.")] = None,
    n: Annotated[int | None, typer.Option("--n", min=1, help="Most rows, drawn by the seed.")] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the draw.")] = 0,
) -> None:
    """Keep the rows that may be published: without slurs, sexual language, profanity, harm and personal data.

    Example: python -m precompute screen hh-rlhf/helpful-base.test.jsonl.gz --out pairs.jsonl.gz --longest 110
    """
    from precompute.commands import screen as verbs

    found = verbs.screen(source, out=out, columns=columns or (), longest=longest, n=n, seed=seed)
    typer.echo(f"{out}: {found.kept:,} of {found.rows:,} rows written; left out: {_listed(found.left_out)}")


def _listed(counts: Mapping[str, int]) -> str:
    """List counts by what they are of, the largest first."""
    largest = sorted(counts.items(), key=lambda item: -item[1])
    return ", ".join(f"{what} {count:,}" for what, count in largest) or "nothing"


@app.command(name="fake-openai")
def fake_openai(
    port: Annotated[int, typer.Option("--port", help="Port on this machine; 0 for a free one.", min=0, max=65535)] = 0,
    behave: Annotated[Behaviour, typer.Option("--behave", help="What its answers are like.")] = "right",
    bundle: Annotated[Path | None, typer.Option("--bundle", help="A bundle whose features it knows.")] = None,
    quirk: Annotated[Quirk | None, typer.Option("--quirk", help="A departure from the protocol.")] = None,
) -> None:
    """Serve a fake language model until Ctrl-C, to try without a key what needs a language model.

    With --bundle it knows what that bundle's features fire on, and labels them correctly or, with --behave wrong, each
    as another.

    Example: python -m precompute fake-openai --port 8399 --behave flaky
    """
    from precompute.commands import basic as verbs

    server = verbs.fake_openai(port=port, behave=behave, bundle=bundle, quirk=quirk)
    with contextlib.suppress(Interrupted), server:
        typer.echo(f"{server.base_url}: a fake server ({behave}), until Ctrl-C")
        threading.Event().wait()
    typer.echo(", ".join(f"{name} {count}" for name, count in server.counts.as_json().items()))


@app.command()
def label(
    bundle: BundlePath,
    labeller: Annotated[LabellerKind, typer.Option("--labeller", help="Who labels.")] = "openai",
    features: Features = None,
    model: Annotated[str | None, typer.Option("--model", help="Language model, by the server's name.")] = None,
    base_url: Annotated[str | None, typer.Option("--base-url", help="A compatible server; default OpenAI.")] = None,
    budget_usd: Annotated[float, typer.Option("--budget-usd", min=0.0, help="Dollars, never exceeded.")] = 1.0,
    price_in: Annotated[float | None, typer.Option("--price-in", min=0.0, help="Dollars per million read.")] = None,
    price_out: Annotated[float | None, typer.Option("--price-out", min=0.0, help="The same, written.")] = None,
    task: Annotated[str | None, typer.Option("--task", help="What the feedback is about; default by config.")] = None,
    concurrency: Annotated[int, typer.Option("--concurrency", min=1, help="Most calls made at the same time.")] = 16,
    timeout_s: Annotated[float, typer.Option("--timeout-s", min=0.1, help="Seconds that a call may take.")] = 60.0,
    cache: Annotated[Path | None, typer.Option("--cache", help="Folder of cached answers.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Estimate the cost and call nothing.")] = False,
    labels_file: Annotated[Path | None, typer.Option("--from", help="human: CSV file of a person's labels.")] = None,
    export_prompts: Annotated[
        Path | None, typer.Option("--export-prompts", help="human: file for the questions, as JSON lines.")
    ] = None,
    answers: Annotated[
        Path | None, typer.Option("--answers", help="human: file of answers to them, as JSON lines.")
    ] = None,
    reviewer: Annotated[str, typer.Option("--reviewer", help="human: name of the person who labelled.")] = "reviewer",
    set_: Set = None,
) -> None:
    """Describe features, score the descriptions on held-out examples, and add the labels to the bundle.

    The key is read from OPENAI_API_KEY and stored nowhere. After an interruption the same command continues, and makes
    no call twice. Prices are per million tokens. A file of labels has columns feature_id, description and related.

    Example: python -m precompute label runs/imdb --model gpt-x --budget-usd 2 --price-in 0.4 --price-out 1.6 --dry-run
    """
    from precompute.commands import label as verbs

    with progress_to_stderr() as progress:
        outcome = verbs.label(
            bundle,
            labeller=labeller,
            features=parse_ids(features),
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
            labels_file=labels_file,
            export_prompts=export_prompts,
            answers=answers,
            reviewer=reviewer,
            overrides=set_ or (),
            progress=progress,
        )
    typer.echo(f"{bundle}: {outcome.sentence}")
    for note in outcome.notes:
        typer.echo(f"label: {note}", err=True)
    if outcome.failed and not outcome.labelled:
        raise typer.Exit(1)
