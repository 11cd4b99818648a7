"""The short verbs: `run`, `demo`, `config` make a bundle; `explore`, `report`, `mcp` show it; `fake_openai` serves."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import lfp
from lfp.bundle.manifest import check_bundle, read_manifest, read_table
from lfp.bundle.remote.mirror import Mirror, local_folder
from lfp.config import LabelsConfig, LanguageModelConfig, load_config, load_section, parse_section
from lfp.errors import ConfigError, DependencyError
from lfp.labels.types import Behaviour
from lfp.testing.fake_openai.quirks import Quirk
from lfp.util.dependencies import jobs_packages
from lfp.util.object_stores import is_address
from lfp.util.types import Progress
from precompute import presets
from precompute.run.progress import silent

if TYPE_CHECKING:
    from lfp.bundle.queries.run import Sample
    from lfp.evaluation.results import ResultRow
    from lfp.report.checks import Check
    from lfp.testing.fake_openai.answers import KnowsFeatures
    from lfp.testing.fake_openai.server import FakeServer


def run(
    config: str | Path,
    *,
    out: str | Path,
    overrides: Sequence[str] = (),
    resume: bool = False,
    work: str | Path | None = None,
    progress: Progress = silent,
) -> Path | str:
    """Run the whole pipeline of a TOML config and return the folder of the bundle, or its address.

    `out` is a folder, or an address in an object store such as s3://bucket/run; the stages' output is kept on this
    machine, in a hidden folder in `work`, which is by default the folder of `out` or, for an address, the current one.
    `overrides` are `section.key=value`, as after `--set`. With `resume` the finished stages of an interrupted run are
    kept. Raises ConfigError for a wrong config and another LfpError where a stage fails.
    """
    from precompute.pipeline import run_pipeline

    file = Path(config)
    run_config = load_config(file, overrides, command="run")
    server = load_section(LanguageModelConfig, "language_model", file, overrides)
    return run_pipeline(
        run_config, out, config_dir=file.parent, resume=resume, work=work, progress=progress, language_model=server
    )


def demo(
    *,
    out: str | Path,
    fast: bool = False,
    seed: int = 0,
    overrides: Sequence[str] = (),
    resume: bool = False,
    work: str | Path | None = None,
    progress: Progress = silent,
) -> Path | str:
    """Make the demo bundle: SmolLM2-135M tuned to please VADER, on texts that it wrote itself; return its folder.

    With `fast` it is the whole pipeline on a tiny model pretrained on generated reviews, for a check that everything
    works. `overrides` are `section.key=value`, as after `--set`; `out` and `work` are those of `run`. Raises
    DependencyError where the package of the model is not installed.
    """
    from precompute.pipeline import run_pipeline

    file = presets.preset("demo-fast" if fast else "demo")
    run_config = load_config(file, [f"seed={seed}", *overrides], command="run")
    return run_pipeline(run_config, out, config_dir=file.parent, resume=resume, work=work, progress=progress)


def config(preset: str | None = None) -> str:
    """Return a commented TOML config to start from: every key at its default, or as a preset sets it.

    Raises ConfigError where there is no such preset.
    """
    from lfp.config_page import build_toml

    values = tomllib.loads(presets.preset(preset).read_text(encoding="utf-8")) if preset else {}
    return build_toml(values)


@dataclass(frozen=True)
class Report:
    """A bundle's report."""

    checks: Sequence[Check]
    """Did the reward move, is it in the model, is it new, do labels and interventions hold."""
    rows: dict[str, list[ResultRow]]
    """The rows of every section, an empty list where the run has none; `report_as_json` of them can be written."""
    samples: list[Sample]
    """What both models wrote after the first held-out prefixes, as many as were requested."""
    writing: str
    """Which words the tuned model writes in more, and in fewer, of all continuations."""
    figures: list[Path]
    """The SVG files written."""


def report(
    bundle: str | Path, *, html: str | Path | None = None, figures: str | Path | None = None, samples: int | None = None
) -> Report:
    """Return the report of a bundle; also write it as one self-contained page and its figures as SVG where named.

    `samples` is the number of prefixes whose completions are returned; none by default.
    Raises BundleError where there is no such bundle, ConfigError where a file cannot be written.
    """
    from lfp.bundle import queries
    from lfp.bundle.store.connection import Store
    from lfp.report.checks import read_checks
    from lfp.report.figures.catalogue import write_figures
    from lfp.report.html import prepare, write_page
    from lfp.report.rows import read_report
    from lfp.report.sentences.words import writing_sentence

    with Store.open(bundle) as store:
        rows = read_report(store)
        files: list[Path] = []
        if html or figures:
            prepared = prepare(store)
            if html:
                write_page(prepared, Path(html))
            if figures:
                files = write_figures(prepared.drawn, Path(figures))
        writing = (
            writing_sentence(queries.run.written_words(store), queries.run.count_samples(store)) if samples else ""
        )
        return Report(read_checks(store, rows), rows, queries.run.samples(store, limit=samples or 0), writing, files)


def explore(
    bundle: str | Path | Sequence[str | Path], *, port: int = 8501, address: str | None = None, headless: bool = False
) -> None:
    """Serve the explorer on one bundle or several until it is interrupted.

    A browser opens, unless `headless`. `address` is the network address to listen on; all of them by default. Raises
    BundleError where there is no bundle, DependencyError without Streamlit, ConfigError where the server ends at once.
    """
    paths = [bundle] if isinstance(bundle, str | Path) else list(bundle)
    places = [str(path) if is_address(path) else Path(path).expanduser().resolve() for path in paths]
    for place in places:
        Mirror.open(place) if isinstance(place, str) else read_manifest(place)
    main = Path(lfp.__file__).resolve().parents[1] / "app" / "main.py"
    if not main.is_file():
        raise DependencyError(f"{main}: the explorer is not installed with this package; install lfp-explorer again")
    options = {"server.port": port, "server.headless": str(headless).lower(), "server.fileWatcherType": "none"}
    if address is not None:
        options["server.address"] = address
    flags = [f"--{name}={value}" for name, value in options.items()]
    # -P keeps a folder named `app` in the current folder from being imported in place of the explorer.
    command = [sys.executable, "-P", "-m", "streamlit", "run", str(main), *flags]
    environment = {**os.environ, "LFP_BUNDLES": os.pathsep.join(map(str, places))}
    code = subprocess.run(command, env=environment, check=False).returncode
    if code > 0:
        raise ConfigError(f"the explorer's server ended with exit code {code}; see its message above")


def mcp(bundle: str | Path, *, http: bool = False, port: int = 8765) -> None:
    """Serve a bundle to agents, by the Model Context Protocol, until the client or Ctrl-C ends it.

    By default it speaks over stdin and stdout, to the client that started it; with `http` at
    http://127.0.0.1:PORT/mcp. Raises BundleError where there is no bundle, DependencyError without the package mcp,
    ConfigError where the port is taken.
    """
    with jobs_packages("lfp mcp"):
        from lfp.agents.server import serve
    serve(bundle if is_address(bundle) else Path(bundle).expanduser(), http=http, port=port)


def fake_openai(
    *, port: int = 0, behave: Behaviour = "right", bundle: str | Path | None = None, quirk: Quirk | None = None
) -> FakeServer:
    """Return a fake server, a context manager that serves while it is entered; port 0 takes a free port.

    With a bundle it knows what that bundle's features fire on; otherwise it answers from the words of the prompt.
    Raises ConfigError where the port cannot be opened, BundleError where there is no such bundle.
    """
    from lfp.testing.fake_openai.answers import ReadsPrompts, Responder, SwapWords
    from lfp.testing.fake_openai.server import FakeConfig, FakeServer
    from lfp.texts.lexicon import vader_lexicon

    responders: list[Responder] = [SwapWords(vader_lexicon()), ReadsPrompts(vader_lexicon())]
    if bundle is not None:
        responders.insert(0, knows(local_folder(bundle, tables_only=True)))
    return FakeServer(FakeConfig(behave, quirk=quirk), responders, port=port)


def knows(bundle: Path) -> KnowsFeatures:
    """Return the responder that knows a bundle's features, and which of them its own labeller calls related."""
    from lfp.labels.evidence import read_evidence
    from lfp.testing.fake_openai.answers import KnowsFeatures

    manifest, tables = check_bundle(bundle), partial(read_table, bundle)
    config = parse_section(LabelsConfig, manifest.config.get("labels", {}), where=f"{bundle}: labels")
    labels = [row for row in tables("labels").to_pylist() if row["labeller"] == manifest.labeller]
    related = {row["feature_id"]: row["related"] for row in labels}
    return KnowsFeatures(read_evidence(tables, n_scored=config.scored_examples), related)
