"""The report as one page of HTML: plotly.js inlined once, nothing fetched, light and dark, narrow and wide."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from plotly.offline import get_plotlyjs

from lfp.bundle import queries
from lfp.bundle.manifest import Manifest
from lfp.bundle.store.connection import Store
from lfp.errors import ConfigError
from lfp.evaluation.results import Report, ResultRow
from lfp.report.cost import cost_rows
from lfp.report.figures import Drawn, Material, draw_all
from lfp.report.rows import build_report
from lfp.report.sentences import headline, sentence
from lfp.report.tables import Shown, tables
from lfp.util.sanitize import escaped

_OPEN_ROWS = 14  # a longer table waits to be opened
_CHART = {"displayModeBar": False, "responsive": True, "scrollZoom": False}
_ESSENTIALS = (
    "corpus.source", "tune.method", "tune.steps", "tune.beta", "feedback.reward", "layers.count", "sae.variant",
    "sae.expansion", "sae.l1", "sae.k", "sae.l0_weight", "probes.folds", "probes.permutations", "probes.bootstraps",
)  # fmt: skip
"""Keys of the config that a reader of the report asks for first; those a run does not have are passed over."""

_TITLES = {
    "kendall_tau": "Kendall's tau",
    "pca_explained": "Variance of texts explained",
    "sae_quality": "Autoencoders",
    "sae_sweep": "Autoencoders compared",
}
"""Titles of the rows whose names do not read as one."""


@dataclass(frozen=True)
class Written:
    """A bundle's report, ready to be written: manifest, figures as rows, sentences on top, and drawings."""

    manifest: Manifest
    report: Report
    headlines: Sequence[str]
    drawn: Sequence[Drawn]


def prepare(store: Store) -> Written:
    """Everything that the page shows, read from a bundle."""
    probe = queries.common.headline(store)
    report = build_report(
        queries.run.report_rows(store), queries.run.report_ablations(store), cost_rows(store.manifest)
    )
    words = [word | {"shown": _shown(word["predicted"], probe)} for word in queries.run.scored_words(store).to_pylist()]
    material = Material(report, words, queries.run.report_texts(store), queries.run.drifted_features(store))
    return Written(store.manifest, report, headline(report, probe.target if probe else None), draw_all(material))


def _shown(predicted: float | None, probe: queries.common.Probe | None) -> float | None:
    """An estimate on the lexicon's range."""
    return None if predicted is None or probe is None else probe.display_slope * predicted + probe.display_offset


def write_page(written: Written, file: Path) -> None:
    """Writes the whole report as one self-contained page. Raises ConfigError where it cannot be written."""
    _write(file, page(written))


def page(written: Written) -> str:
    """The report as HTML."""
    sections = (_section(name, figures, written.drawn) for name, figures in written.report.items())
    return _document(
        f"{written.manifest.title} - report",
        _head(written),
        *(section for section in sections),
        _foot(written.manifest),
    )


def _write(file: Path, text: str) -> None:
    if not file.parent.is_dir():
        raise ConfigError(f"{file}: there is no folder {file.parent}; make it first or name another file")
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{file}: cannot be written ({error.strerror}); name a file you may write to") from error


def _document(title: str, *parts: str) -> str:
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escaped(title)}</title>\n<style>{_STYLE}</style>\n<script>{get_plotlyjs()}</script>\n</head>\n"
        f"<body>\n<main>\n{''.join(parts)}</main>\n<script>{_SCRIPT}</script>\n</body>\n</html>\n"
    )


def _head(written: Written) -> str:
    manifest = written.manifest
    says = "".join(f"<p>{escaped(text)}</p>\n" for text in written.headlines)
    notes = f'<p class="quiet">{escaped(manifest.notes)}</p>\n' if manifest.notes else ""
    return (
        f"<header>\n<h1>{escaped(manifest.title)}</h1>\n"
        f'<p class="quiet">What a language model learned from its feedback: the report of one run.</p>\n'
        f'<section class="headline">\n{says}</section>\n{notes}{_facts(manifest)}</header>\n'
    )


def _facts(manifest: Manifest) -> str:
    """The models and the config's essentials, as a table that opens."""
    models = {
        f"{role} model": f"{one.name}{f' at {one.revision}' if one.revision else ''}, {one.parameters:,} parameters"
        for role, one in sorted(manifest.models.items())
    }
    facts = models | {"seed": str(manifest.seed)} | _essentials(manifest.config) | {"labeller": manifest.labeller}
    rows = tuple((name, str(value)) for name, value in facts.items())
    return _folded("The run", _table(Shown(("of the run", ""), rows, (False, False))), is_open=False)


def _essentials(config: Mapping[str, Any]) -> dict[str, Any]:
    found = {}
    for key in _ESSENTIALS:
        section, _, name = key.partition(".")
        value = config.get(section, {}).get(name)
        if value is not None:
            found[key] = ", ".join(map(str, value)) if isinstance(value, list) else value
    return found


def _section(name: str, figures: Sequence[ResultRow], drawn: Sequence[Drawn]) -> str:
    charts = "".join(_figure(one) for one in drawn if one.report_row == name)
    shown = tables(name, figures)
    is_open = sum(len(table.rows) for table in shown) <= _OPEN_ROWS
    listed = _folded("Figures", "".join(map(_table, shown)), is_open=is_open) if shown else ""
    title = _TITLES.get(name, name.replace("_", " ").capitalize())
    return (
        f'<section id="{escaped(name)}">\n<h2>{escaped(title)}</h2>\n<p>{escaped(sentence(name, figures))}</p>\n'
        f"{charts}{listed}</section>\n"
    )


def _figure(one: Drawn) -> str:
    chart = one.chart.to_html(
        full_html=False, include_plotlyjs=False, div_id=f"figure-{one.name}", config=_CHART, default_width="100%"
    )
    return f"<figure>\n<figcaption>{escaped(one.title)}</figcaption>\n{chart}\n</figure>\n"


def _folded(title: str, content: str, *, is_open: bool) -> str:
    return f"<details{' open' if is_open else ''}>\n<summary>{escaped(title)}</summary>\n{content}</details>\n"


def _table(shown: Shown) -> str:
    kinds = ["figure" if is_figure else "name" for is_figure in shown.are_figures]
    heads = "".join(f'<th class="{kind}">{escaped(head)}</th>' for head, kind in zip(shown.heads, kinds, strict=True))
    rows = "".join(f"<tr>{_cells(row, kinds)}</tr>\n" for row in shown.rows)
    return f'<div class="wide"><table>\n<thead><tr>{heads}</tr></thead>\n<tbody>\n{rows}</tbody>\n</table></div>\n'


def _cells(row: Sequence[str], kinds: Sequence[str]) -> str:
    return "".join(f'<td class="{kind}">{escaped(cell)}</td>' for cell, kind in zip(row, kinds, strict=True))


def _foot(manifest: Manifest) -> str:
    return (
        '<footer class="quiet">\n<p>Intervals are 95 % bootstrap intervals over words, pairs, texts or features. A '
        "null is what the same figure is worth where there is nothing to know; p is the share of nulls that reach the "
        f"figure.</p>\n<p>Bundle {escaped(manifest.bundle_id)}, made {escaped(manifest.created_at)}; licence of the "
        f"texts: {escaped(manifest.licence)}. Drawn with plotly.js (MIT), version {escaped(version('plotly'))} of its "
        "Python package.</p>\n</footer>\n"
    )


_STYLE = """
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
