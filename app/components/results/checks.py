"""The four checks of a run as a box: each question with its answer, its figures, and links to the evidence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from app.components.html import panels
from lfp.report.checks import MARKS, Check, Finding, Outcome, name_finding
from lfp.util.sanitize import escaped

_KINDS: Mapping[Outcome, str] = {"yes": "yes", "no": "no", "in part": "part", "not measured": "none"}
"""CSS classes."""


def box(checks: Sequence[Check], where: Mapping[str, str]) -> str:
    """Return the checks side by side; `where` has the address of the evidence by section of the report."""
    return f'<div class="lfp-checks">{"".join(_card(check, where) for check in checks)}</div>'


def _card(check: Check, where: Mapping[str, str]) -> str:
    outcome = check.outcome
    says = "".join(_paragraph(check, finding, where) for finding in check.findings)
    return (
        f'<section class="{_KINDS[outcome]}"><h4><b>{MARKS[outcome]}</b> {escaped(check.question)} '
        f"<span>{outcome.capitalize()}</span></h4>{says}</section>"
    )


def _paragraph(check: Check, finding: Finding, where: Mapping[str, str]) -> str:
    name = name_finding(check, finding)
    link = panels.anchor(where[finding.section], name) if finding.section in where else escaped(name)
    return f"<p>{link}: {escaped(finding.says)}</p>"
