"""The report as one page of HTML: plotly.js inlined once, nothing fetched, light and dark, narrow and wide."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from plotly.offline import get_plotlyjs

from lfp.bundle import queries
from lfp.bundle.manifest import Manifest
from lfp.bundle.store.connection import Store
from lfp.errors import ConfigError
from lfp.evaluation.results import Report, ResultRow
from lfp.report.checks import read_checks, write_check
from lfp.report.figures.catalogue import Drawn, Material, draw_all
from lfp.report.figures.frame import CONFIG
from lfp.report.rows import read_report
from lfp.report.sentences.sections import sentence
from lfp.report.summary import summarise, what_was_tuned
from lfp.report.tables import TextTable, tables
from lfp.util.sanitize import escaped

_OPEN_ROWS = 14  # a longer table waits to be opened
_ESSENTIALS = (
    "corpus.source", "tune.method", "tune.steps", "tune.beta", "feedback.reward", "layers.count", "layers.sites",
    "sae.variant", "sae.expansion", "sae.l1", "sae.k", "sae.l0_weight", "probes.folds", "probes.permutations",
    "probes.bootstraps",
)  # fmt: skip
"""Keys of the config that readers ask for first; those a run does not have are left out."""

_TITLES = {
    "kendall_tau": "Kendall's tau",
    "trajectory": "When it was learned",
    "module_credits": "Where the implicit reward comes from",
    "pca_explained": "Variance of texts explained",
    "sae_check": "Dictionaries made elsewhere, checked first",
    "sae_quality": "Dictionaries",
    "differences": "Change of activations without a dictionary",
    "latent_scaling": "Features of one model alone",
    "sae_sweep": "Dictionaries compared",
}
"""Titles of the sections whose names do not read as one."""


@dataclass(frozen=True)
class Written:
    """A bundle's report, ready to be written: manifest, rows by section, sentences on top, and figures."""

    manifest: Manifest
    report: Report
    headlines: Sequence[str]
    drawn: Sequence[Drawn]


def prepare(store: Store) -> Written:
    """Read everything that the page shows from a bundle."""
    probe, manifest = queries.common.headline(store), store.manifest
    report = read_report(store)
    target = probe.target if probe else None
    says = [what_was_tuned(manifest), *map(write_check, read_checks(store, report)), *summarise(report, target)]
    return Written(manifest, report, says, draw_all(Material.from_store(store, report)))


def write_page(written: Written, file: Path) -> None:
    """Write the whole report as one self-contained page. Raises ConfigError where it cannot be written."""
    if not file.parent.is_dir():
        raise ConfigError(f"{file}: there is no folder {file.parent}; make it first or name another file")
    try:
        file.write_text(page(written), encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{file}: cannot be written ({error.strerror}); name a file you may write to") from error


def page(written: Written) -> str:
    """Return the report as HTML."""
    manifest = written.manifest
    sections = [_section(name, rows, written.drawn) for name, rows in written.report.items()]
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escaped(manifest.title)} - report</title>\n<style>{STYLE}</style>\n"
        f"<script>{get_plotlyjs()}</script>\n</head>\n<body>\n<main>\n{_head(written)}{''.join(sections)}"
        '<footer class="quiet">\n<p>Intervals are 95 % bootstrap intervals over words, pairs, texts or features. A '
        "null is what the same figure comes to where there is nothing to find; p is the share of nulls at least as "
        f"large.</p>\n<p>Bundle {escaped(manifest.bundle_id)}, made {escaped(manifest.created_at)}; licence of the "
        f"texts: {escaped(manifest.licence)}. Drawn with plotly.js (MIT), version "
        f"{escaped(version('plotly'))} of its Python package.</p>\n</footer>\n</main>\n"
        f"<script>{_SCRIPT}</script>\n</body>\n</html>\n"
    )


def _head(written: Written) -> str:
    """The title, what the run says in short, and its models and main settings as a table that opens."""
    manifest = written.manifest
    facts = {
        f"{role} model": f"{model.name}{f' at {model.revision}' if model.revision else ''}, "
        f"{model.parameters:,} parameters"
        for role, model in sorted(manifest.models.items())
    }
    facts |= {"seed": str(manifest.seed)}
    for key in _ESSENTIALS:
        section, _, name = key.partition(".")
        value = manifest.config.get(section, {}).get(name)
        if value is not None:
            facts[key] = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    rows = (*facts.items(), ("labeller", manifest.labeller))
    says = "".join(f"<p>{escaped(text)}</p>\n" for text in written.headlines)
    notes = f'<p class="quiet">{escaped(manifest.notes)}</p>\n' if manifest.notes else ""
    return (
        f"<header>\n<h1>{escaped(manifest.title)}</h1>\n"
        '<p class="quiet">What a language model learned from its feedback: the report of one run.</p>\n'
        f'<section class="headline">\n{says}</section>\n{notes}'
        f"{folded('The run', draw_table(TextTable(('setting', ''), rows, (False, False))), is_open=False)}</header>\n"
    )


def _section(name: str, rows: Sequence[ResultRow], drawn: Sequence[Drawn]) -> str:
    charts = ""
    for figure in [figure for figure in drawn if figure.section == name]:
        chart = figure.chart.to_html(
            full_html=False, include_plotlyjs=False, div_id=f"figure-{figure.name}", config=CONFIG,
            default_width="100%",
        )  # fmt: skip
        charts += f"<figure>\n<figcaption>{escaped(figure.title)}</figcaption>\n{chart}\n</figure>\n"
    shown = tables(name, rows)
    is_open = sum(len(table.rows) for table in shown) <= _OPEN_ROWS
    listed = folded("Figures", "".join(map(draw_table, shown)), is_open=is_open) if shown else ""
    title = _TITLES.get(name, name.replace("_", " ").capitalize())
    return (
        f'<section id="{escaped(name)}">\n<h2>{escaped(title)}</h2>\n<p>{escaped(sentence(name, rows))}</p>\n'
        f"{charts}{listed}</section>\n"
    )


def folded(title: str, content: str, *, is_open: bool) -> str:
    """Return a part of a page that opens and closes; `content` is HTML."""
    return f"<details{' open' if is_open else ''}>\n<summary>{escaped(title)}</summary>\n{content}</details>\n"


def draw_table(table: TextTable) -> str:
    """Return a table of text as HTML."""
    kinds = ["figure" if is_figure else "name" for is_figure in table.are_figures]

    def line(tag: str, cells: Sequence[str]) -> str:
        return "".join(
            f'<{tag} class="{kind}">{escaped(cell)}</{tag}>' for cell, kind in zip(cells, kinds, strict=True)
        )

    rows = "".join(f"<tr>{line('td', row)}</tr>\n" for row in table.rows)
    heads = line("th", table.heads)
    return f'<div class="wide"><table>\n<thead><tr>{heads}</tr></thead>\n<tbody>\n{rows}</tbody>\n</table></div>\n'


STYLE = """
:root {
  color-scheme: light dark;
  --ink: #1f2328; --quiet: #5c636d; --ground: #ffffff; --card: #f5f6f8; --line: #d9dce1;
}
@media (prefers-color-scheme: dark) {
  :root { --ink: #e3e6ea; --quiet: #9aa2ad; --ground: #14171b; --card: #1d2127; --line: #343a43 }
}
* { box-sizing: border-box }
body { margin: 0; background: var(--ground); color: var(--ink); font: 16px/1.5 system-ui, sans-serif }
main { max-width: 1080px; margin: 0 auto; padding: 24px 16px 48px }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 4px }
h2 { font-size: 1.2rem; margin: 40px 0 4px }
p { margin: 6px 0; max-width: 78ch; overflow-wrap: anywhere }
.quiet { color: var(--quiet); font-size: 0.92rem }
.headline { background: var(--card); border-left: 4px solid #1a9c8e; padding: 8px 16px; margin: 16px 0 }
figure { margin: 16px 0 }
figcaption { font-weight: 600; font-size: 0.95rem }
details { margin: 10px 0 }
summary { cursor: pointer; color: var(--quiet); font-size: 0.92rem }
.wide { overflow-x: auto; margin: 8px 0 16px }
table { border-collapse: collapse; font-size: 0.86rem; font-variant-numeric: tabular-nums }
th, td { padding: 3px 12px 3px 0; border-bottom: 1px solid var(--line); white-space: nowrap; text-align: left }
th { color: var(--quiet); font-weight: 600 }
.figure { text-align: right }
footer { margin-top: 48px; border-top: 1px solid var(--line); padding-top: 12px }
"""

_SCRIPT = """
const dark = window.matchMedia("(prefers-color-scheme: dark)");
function paint() {
  const ink = getComputedStyle(document.body).color;
  for (const chart of document.querySelectorAll(".plotly-graph-div")) Plotly.relayout(chart, {"font.color": ink});
}
dark.addEventListener("change", paint);
paint();
"""
