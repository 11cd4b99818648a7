"""Ledgers: bars of features and of the rest, the check of their sum, and all parts as a table."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from app.components.html import panels, tables
from lfp.bundle.queries.ledgers import Contrast, Contribution, Difference, Ledger, RawLedger
from lfp.bundle.queries.texts import TokenLedger
from lfp.report.figures.frame import Bar
from lfp.report.formatting import signed
from lfp.util.sanitize import escaped, shortened

SIGNED_COLUMNS = ("contribution", "here", "there", "difference", "running_total")
"""Columns of `all_parts` in the units of the estimate."""


@dataclass(frozen=True)
class Account:
    """A ledger to draw: features with their `values`, `others` that belong to no feature, and the check of its sum."""

    ids: list[int]
    descriptions: list[str | None]
    values: list[float]
    others: list[Bar]
    check: str


def from_estimate(ledger: Ledger) -> Account:
    """Build the account of an estimate: features and intercept."""
    values = [part.contribution for part in ledger.shown]
    n_rest = ledger.n_features - len(values)
    check = panels.sum_check(
        shown=sum(values),
        n_shown=len(values),
        rest=ledger.rest,
        n_rest=n_rest,
        predicted=ledger.predicted,
        intercept=ledger.intercept,
    )
    return _account(ledger.shown, values, [*_rest(n_rest, ledger.rest), Bar("intercept", ledger.intercept)], check)


def from_raw(ledger: RawLedger) -> Account:
    """Build the account of a raw probe's estimate: features, SAE biases, the intercept, and the SAE error."""
    values = [part.contribution for part in ledger.shown]
    n_rest = ledger.n_features - len(values)
    sums = {"biases": ledger.bias, "intercept": ledger.intercept, "SAE error": ledger.miss}
    size = sum(map(abs, [*values, ledger.rest, *sums.values()]))
    if values:
        kept = _rest(n_rest, ledger.rest)
    else:
        kept = [Bar("SAE reconstruction", ledger.rest)]
        sums = {"SAE reconstruction": ledger.rest, **sums}
    check = panels.sum_check(
        shown=sum(values),
        n_shown=len(values),
        rest=ledger.rest if values else 0.0,
        n_rest=n_rest,
        predicted=ledger.predicted,
        size=size,
        source="stated in the bundle",
        **sums,
    )
    bars = [Bar("SAE biases", ledger.bias), Bar("intercept", ledger.intercept)]
    return _account(ledger.shown, values, [*kept, *bars, Bar("SAE error", ledger.miss, is_missed=True)], check)


def from_contrast(contrast: Contrast) -> Account:
    """Build the account of a difference of two estimates, in which intercepts cancel."""
    values = [part.difference for part in contrast.shown]
    n_rest = contrast.n_features - len(values)
    check = panels.sum_check(
        shown=sum(values),
        n_shown=len(values),
        rest=contrast.rest,
        n_rest=n_rest,
        predicted=contrast.predicted,
        size=abs(contrast.reference) + abs(contrast.predicted + contrast.reference),
    )
    return _account(contrast.shown, values, _rest(n_rest, contrast.rest), check)


def all_parts(parts: Sequence[Contribution | Difference]) -> pa.Table:
    """Return every part of a ledger, one row per feature, largest first, with the running total."""
    table = tables.of_rows(type(parts[0]) if parts else Contribution, parts)
    values = table.columns[-1].to_pylist() if parts else []
    return table.append_column("running_total", pa.array(list(itertools.accumulate(values)), pa.float64()))


def token_tip(ledger: TokenLedger) -> str:
    """Write a token's contribution to its text's estimate, split by feature, as HTML for its tooltip."""
    n_rest = ledger.n_features - len(ledger.shown)
    rest = ledger.total - sum(part.part for part in ledger.shown)
    parts = [(f"#{part.feature_id}", part.description or "no label", part.part) for part in ledger.shown]
    if n_rest:
        parts.append(("", f"{n_rest} other feature{'s' if n_rest != 1 else ''}", rest))
    rows = "".join(
        f"<li><code>{number}</code><span>{escaped(shortened(name, 80))}</span>"
        f'<span class="{"up" if value >= 0 else "down"}">{signed(value, 5)}</span></li>'
        for number, name, value in parts
    )
    return f'<p>contributes {signed(ledger.total, 5)} to the estimate</p><ul class="lfp-parts">{rows}</ul>'


def _rest(n: int, value: float) -> list[Bar]:
    return [Bar(f"{n:,} other feature{'s' if n != 1 else ''}", value)] if n else []


def _account(shown: Sequence[Contribution | Difference], values: list[float], others: list[Bar], check: str) -> Account:
    return Account([part.feature_id for part in shown], [part.description for part in shown], values, others, check)
