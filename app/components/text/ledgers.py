"""Ledgers: bars of features and of the rest, the check of their sum, and all parts as a table."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import pyarrow as pa

from app.components.html import exports, panels
from lfp.bundle.queries.ledgers import Contrast, Contribution, Difference, Ledger, RawLedger
from lfp.bundle.queries.texts import TokenLedger
from lfp.report.figures.frame import Bar
from lfp.report.formatting import plain, signed
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
    says: str
    """What the bars are."""


def from_estimate(ledger: Ledger) -> Account:
    """Build the account of an estimate: features and intercept."""
    says = "Weight times activation of each feature, over the text’s tokens. Click a bar to see it on the tokens."
    return _account(ledger, [Bar("intercept", ledger.intercept)], says, intercept=ledger.intercept)


def from_raw(ledger: RawLedger) -> Account:
    """Build the account of a raw probe's estimate: features, SAE biases, the intercept, and the SAE error."""
    says = "The probe on raw activations, split by SAE feature. Hatched: SAE error."
    sums = {"biases": ledger.bias, "intercept": ledger.intercept, "SAE error": ledger.miss}
    values = [part.contribution for part in ledger.shown]
    size = sum(map(abs, [*values, ledger.rest, *sums.values()]))
    bars = [Bar("SAE biases", ledger.bias), Bar("intercept", ledger.intercept)]
    bars.append(Bar("SAE error", ledger.miss, is_missed=True))
    if not values:  # the ledger of the SAE's reconstruction as a whole
        bars = [Bar("SAE reconstruction", ledger.rest), *bars]
        sums = {"SAE reconstruction": ledger.rest, **sums}
        ledger = replace(ledger, rest=0.0)
    return _account(ledger, bars, says, size=size, **sums)


def from_contrast(contrast: Contrast) -> Account:
    """Build the account of a difference of two estimates, in which intercepts cancel."""
    says = (
        "Contribution of each feature, compared with the average sampled text (estimate "
        f"{plain(contrast.reference, 4)})."
    )
    size = abs(contrast.reference) + abs(contrast.predicted + contrast.reference)
    return _account(contrast, [], says, size=size)


def _account(
    ledger: Ledger | RawLedger | Contrast, bars: list[Bar], says: str, *, size: float = 1.0, **sums: float
) -> Account:
    values = [part.difference if isinstance(part, Difference) else part.contribution for part in ledger.shown]
    n_rest = ledger.n_features - len(values)
    check = panels.sum_check(
        shown=sum(values), n_shown=len(values), rest=ledger.rest, n_rest=n_rest, predicted=ledger.predicted,
        size=size, source="stated in the bundle", **sums,
    )  # fmt: skip
    if n_rest and (values or not isinstance(ledger, RawLedger)):
        bars = [Bar(f"{n_rest:,} other feature{'s' if n_rest != 1 else ''}", ledger.rest), *bars]
    ids, labels = [part.feature_id for part in ledger.shown], [part.description for part in ledger.shown]
    return Account(ids, labels, values, bars, check, says)


def all_parts(parts: Sequence[Contribution | Difference]) -> pa.Table:
    """Return every part of a ledger, one row per feature, largest first, with the running total."""
    table = exports.as_table(type(parts[0]) if parts else Contribution, parts)
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
        f'<span class="{panels.direction(value)}">{signed(value, 5)}</span></li>'
        for number, name, value in parts
    )
    return f'<p>contributes {signed(ledger.total, 5)} to the estimate</p><ul class="lfp-parts">{rows}</ul>'
