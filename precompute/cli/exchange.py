"""Commands that write a bundle in the formats of other tools, and read what those write."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from lfp.exports import CREATOR_ID, ExportKind
from precompute.cli.options import BundlePath, Features, app, parse_ids
from precompute.run.progress import progress_to_stderr


@app.command()
def export(
    bundle: BundlePath,
    target: Annotated[
        str, typer.Argument(metavar="TARGET", help="New folder; with --push a repository, as owner/name.")
    ],
    to: Annotated[ExportKind, typer.Option("--to", help="What to write.")],
    features: Features = None,
    name: Annotated[str | None, typer.Option("--name", help="Name to publish under; default by the title.")] = None,
    creator_id: Annotated[
        str, typer.Option("--creator-id", help="neuronpedia: id of the user who owns what is imported.")
    ] = CREATOR_ID,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List the files and write none.")] = False,
    push: Annotated[bool, typer.Option("--push", help="hub: upload to private repositories.")] = False,
) -> None:
    """Write a bundle as files for Neuronpedia, as repositories of the hub, or as a static page per feature.

    Example: python -m precompute export data/demo pages --to html
    """
    from precompute.commands import export as verbs

    started = time.perf_counter()
    with progress_to_stderr() as progress:
        found = verbs.export(
            bundle,
            target,
            to=to,
            features=parse_ids(features),
            name=name,
            creator_id=creator_id,
            dry_run=dry_run,
            push=push,
            progress=progress,
        )
    if dry_run:
        for file, size in found.files.items():
            typer.echo(f"{size:>12,}  {file}")
    did = "would be written" if dry_run else "uploaded" if push else "written"
    seconds = time.perf_counter() - started
    typer.echo(f"{target}: {len(found.files):,} files {did}, {found.bytes / 1e6:.1f} MB, in {seconds:.1f} s")
    for address in found.addresses:
        typer.echo(address)


@app.command(name="import")
def import_labels(
    bundle: BundlePath,
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Explanations that Neuronpedia exported.")],
) -> None:
    """Add Neuronpedia's explanations to a bundle as labels of the labeller neuronpedia, without scores.

    Example: python -m precompute import runs/imdb explanations/batch-0.jsonl.gz
    """
    from precompute.commands import import_labels as verbs

    found = verbs.import_labels(bundle, files)
    typer.echo(f"{bundle}: {found.labelled:,} of {found.features:,} features labelled by Neuronpedia's explanations")
