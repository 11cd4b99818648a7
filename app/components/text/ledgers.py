"""Ledgers as they are drawn: bars of features, bars of the rest, the check of their sum, and the whole as a table."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from app.components.charts.charts import Bar
from app.components.html import panels, tables
from app.components.html.numbers import signed
from lfp.bundle.queries.ledgers import Contrast, Contribution, Difference, Ledger, RawLedger
from lfp.bundle.queries.texts import TokenLedger
from lfp.util.sanitize import escaped, shortened

ADDED = ("contribution", "here", "there", "difference", "running_total")
"""Columns of `listed` in the units of the estimate."""

_MISSED = "what the autoencoders miss"


@dataclass(frozen=True)
class Account:
    """A ledger to draw: its features and their `values`, `others` that are no feature's, and its sum as HTML."""

    ids: list[int]
    descriptions: list[str | None]
    values: list[float]
    others: list[Bar]
    check: str


def of_estimate(ledger: Ledger) -> Account:
    """The estimate: features and intercept."""
    values = [part.contribution for part in ledger.shown]
    n_rest = ledger.n_features - len(values)
    check = panels.sum_check(
        shown=sum(values), n_shown=len(values), rest=ledger.rest, n_rest=n_rest, predicted=ledger.predicted,
        intercept=ledger.intercept,
    )  # fmt: skip
    return _account(ledger.shown, values, [*_rest(n_rest, ledger.rest), Bar("intercept", ledger.intercept)], check)


def of_raw(ledger: RawLedger) -> Account:
    """The raw probe's estimate: what it gives the features, their biases, the intercept, and what they miss."""
    values = [part.contribution for part in ledger.shown]
    n_rest = ledger.n_features - len(values)
    others = {"biases": ledger.bias, "intercept": ledger.intercept, "missed": ledger.miss}
    size = sum(map(abs, [*values, ledger.rest, *others.values()]))
    if not values:
        others = {"kept": ledger.rest, **others}
    check = panels.sum_check(
        shown=sum(values), n_shown=len(values), rest=ledger.rest if values else 0.0, n_rest=n_rest, size=size,
        predicted=ledger.predicted, **others,
    )  # fmt: skip
    kept = _rest(n_rest, ledger.rest) if values else [Bar("all that the autoencoders keep", ledger.rest)]
    bars = [Bar("the autoencoders’ biases", ledger.bias), Bar("intercept", ledger.intercept)]
    return _account(ledger.shown, values, [*kept, *bars, Bar(_MISSED, ledger.miss, is_missed=True)], check)


def of_contrast(contrast: Contrast) -> Account:
    """A difference of two estimates; intercepts cancel."""
    values = [part.difference for part in contrast.shown]
    n_rest = contrast.n_features - len(values)
    size = abs(contrast.reference) + abs(contrast.predicted + contrast.reference)
    check = panels.sum_check(
        shown=sum(values), n_shown=len(values), rest=contrast.rest, n_rest=n_rest, predicted=contrast.predicted,
        size=size,
    )  # fmt: skip
    return _account(contrast.shown, values, _rest(n_rest, contrast.rest), check)


def listed(parts: Sequence[Contribution | Difference]) -> pa.Table:
    """Every part of a ledger, a row a feature, largest first, with the running total."""
    table = tables.of_rows(type(parts[0]) if parts else Contribution, parts)
    values = table.columns[-1].to_pylist() if parts else []
    return table.append_column("running_total", pa.array(list(itertools.accumulate(values)), pa.float64()))


def tip(ledger: TokenLedger) -> str:
    """What a token adds to its text's estimate, and by which features, as HTML for its tip."""
    n_rest = ledger.n_features - len(ledger.shown)
    rest = ledger.total - sum(part.part for part in ledger.shown)
    parts = [(f"#{part.feature_id}", part.description or "not described", part.part) for part in ledger.shown]
    if n_rest:
        parts.append(("", f"{n_rest} other feature{'s' if n_rest != 1 else ''}", rest))
    rows = "".join(
        f"<li><code>{number}</code><span>{escaped(shortened(name, 80))}</span>"
        f'<span class="{"up" if value >= 0 else "down"}">{signed(value, 5)}</span></li>'
        for number, name, value in parts
    )
    return f'<p>adds {signed(ledger.total, 5)} to the text’s estimate</p><ul class="lfp-parts">{rows}</ul>'


def _rest(n: int, value: float) -> list[Bar]:
    return [Bar(f"{n:,} other feature{'s' if n != 1 else ''}", value)] if n else []


def _account(shown: Sequence[Contribution | Difference], values: list[float], others: list[Bar], check: str) -> Account:
    return Account([part.feature_id for part in shown], [part.description for part in shown], values, others, check)
