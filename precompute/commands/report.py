"""The verb `report`: a bundle's figures as rows, as a page, and as SVG files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lfp.bundle import queries
from lfp.bundle.queries.run import Sample, report_ablations
from lfp.bundle.store.connection import Store
from lfp.evaluation.results import ResultRow
from lfp.report.figures.catalogue import write_figures
from lfp.report.html import prepare, write_page
from lfp.report.rows import build_report
from lfp.report.summary import cost_rows


@dataclass(frozen=True)
class Report:
    """A bundle's report."""

    rows: dict[str, list[ResultRow]]
    """The rows of every section, an empty list where the run has none; `report_as_json` of them can be written."""
    samples: list[Sample]
    """What both models wrote after the first held-out prefixes, as many as were requested."""
    figures: list[Path]
    """The SVG files written."""


def report(
    bundle: str | Path, *, html: str | Path | None = None, figures: str | Path | None = None, samples: int | None = None
) -> Report:
    """Return the report of a bundle; also write it as one self-contained page and its figures as SVG where named.

    `samples` is the number of prefixes whose completions are returned; none by default.
    Raises BundleError where there is no such bundle, ConfigError where a file cannot be written.
    """
    with Store.open(Path(bundle)) as store:
        rows = build_report(queries.run.figures(store), report_ablations(store), cost_rows(store.manifest))
        files: list[Path] = []
        if html or figures:
            prepared = prepare(store)
            if html:
                write_page(prepared, Path(html))
            if figures:
                files = write_figures(prepared.drawn, Path(figures))
        return Report(rows, queries.run.samples(store, limit=samples or 0), files)
