"""Ledgers: bars of features, of modules and of the rest, the check of their sum, and all parts as a table."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import pyarrow as pa

from app.components.html import exports, panels
from lfp.bundle.queries.implicit_ledgers import FeatureCreditPart, FeatureLedger, ModuleCredit, ModuleLedger, Path
from lfp.bundle.queries.ledgers import Contrast, Contribution, Difference, Ledger, RawLedger
from lfp.bundle.queries.texts import TokenLedger
from lfp.report.credits import NAMES, name_module, name_place
from lfp.report.figures.frame import Bar
from lfp.report.formatting import count, plain, signed

SIGNED_COLUMNS = ("contribution", "here", "there", "difference", "credit", "running_total")
"""Columns of `all_parts` in the units of the estimate, or in nats."""
_MODULES_SHOWN = 8
_PATHS: dict[Path, str] = {
    "full": "through every later layer and position",
    "same_position": "for the next token alone, keys and values held fixed",
}


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
    title: str
    """What they show."""


def from_modules(ledger: ModuleLedger, *, path: Path) -> Account:
    """Build the account of an implicit reward: the modules that carry most, and all others."""
    shown, others = ledger.modules[:_MODULES_SHOWN], ledger.modules[_MODULES_SHOWN:]
    bars = [Bar(name_module(part.module, part.layer), part.credit, is_signed=True) for part in shown]
    kinds = dict.fromkeys(part.module for part in others)
    bars += [_sum_modules(kind, [part for part in others if part.module == kind]) for kind in kinds]
    rest = sum(part.credit for part in others)
    check = panels.sum_check(
        shown=sum(part.credit for part in shown), n_shown=len(shown), rest=rest, n_rest=len(others),
        predicted=ledger.predicted, size=sum(abs(part.credit) for part in ledger.modules), unit="nats",
        tolerance=ledger.tolerance, source="implicit reward of the text",
    )  # fmt: skip
    first = bars[0]
    title = (
        f"Implicit reward {signed(ledger.predicted)} nats: {first.name} carries most, {signed(first.value)}, of "
        f"{len(ledger.modules)} modules"
    )
    return Account([], [], [], bars, check, f"What each module carries, in nats, {_PATHS[path]}.", title)


def _sum_modules(kind: str, parts: Sequence[ModuleCredit]) -> Bar:
    """Return one bar for several modules of a kind."""
    value = sum(part.credit for part in parts)
    if len(parts) == 1:
        return Bar(name_module(kind, parts[0].layer), value)
    return Bar(f"{NAMES.get(kind, kind)}, {len(parts)} other layers", value)


def from_features(ledger: FeatureLedger, *, path: Path) -> Account:
    """Build the account of modules with a dictionary: features, the dictionaries' biases, and what these miss."""
    values = [part.credit for part in ledger.shown]
    n_rest = ledger.n_features - len(values)
    sums = {"biases": ledger.bias} if ledger.bias else {}
    check = panels.sum_check(
        shown=sum(values), n_shown=len(values), rest=ledger.rest, n_rest=n_rest, predicted=ledger.predicted,
        size=sum(map(abs, [*values, ledger.rest, ledger.bias, ledger.residual])), source="credit of these modules",
        unit="nats", **sums, **{"not reconstructed": ledger.residual},
    )  # fmt: skip
    bars = [Bar(f"{count(n_rest)} other feature{'s' if n_rest != 1 else ''}", ledger.rest)] if n_rest else []
    bars += [Bar("dictionary biases", ledger.bias)] if ledger.bias else []
    bars.append(Bar("not reconstructed by the dictionaries", ledger.residual, is_missed=True))
    where = " and ".join(name_place(layer, site) for layer, site in ledger.places)
    title = (
        f"Of the {signed(ledger.predicted)} nats of {where}, {count(ledger.n_features)} features carry "
        f"{signed(sum(values) + ledger.rest, 3)} and {signed(ledger.residual, 3)} is not reconstructed"
    )
    says = (
        f"What tuning’s change of each feature carries, in nats, {_PATHS[path]}. Click a bar to see it on the tokens."
    )
    ids, labels = [part.feature_id for part in ledger.shown], [part.description for part in ledger.shown]
    return Account(ids, labels, values, bars, check, says, title)


def from_estimate(ledger: Ledger) -> Account:
    """Build the account of an estimate: features and intercept."""
    says = "Weight times activation of each feature, over the text’s tokens. Click a bar to see it on the tokens."
    title = f"Probe estimate {signed(ledger.predicted, 3)}{_name_first(ledger)}"
    return _account(ledger, [Bar("intercept", ledger.intercept)], says, title, intercept=ledger.intercept)


def _name_first(ledger: Ledger | RawLedger | Contrast) -> str:
    """Say which feature makes most of an estimate or of a difference; empty where no feature is listed."""
    if not ledger.shown:
        return ""
    first = ledger.shown[0]
    value = first.difference if isinstance(first, Difference) else first.contribution
    return f": feature {first.feature_id} makes most of it, {signed(value, 3)}, of {count(ledger.n_features)} features"


def from_raw(ledger: RawLedger) -> Account:
    """Build the account of a raw probe's estimate: features, biases, intercept, and the dictionary error."""
    says = "The probe on raw activations, split by feature. Hatched: dictionary error."
    sums = {"biases": ledger.bias, "intercept": ledger.intercept, "dictionary error": ledger.miss}
    values = [part.contribution for part in ledger.shown]
    size = sum(map(abs, [*values, ledger.rest, *sums.values()]))
    bars = [Bar("dictionary biases", ledger.bias), Bar("intercept", ledger.intercept)]
    bars.append(Bar("dictionary error", ledger.miss, is_missed=True))
    if not values:  # the ledger of the dictionary's reconstruction as a whole
        bars = [Bar("dictionary’s reconstruction", ledger.rest), *bars]
        sums = {"dictionary’s reconstruction": ledger.rest, **sums}
        ledger = replace(ledger, rest=0.0)
    title = f"Estimate from raw activations {signed(ledger.predicted, 3)}{_name_first(ledger)}"
    return _account(ledger, bars, says, title, size=size, **sums)


def from_contrast(contrast: Contrast) -> Account:
    """Build the account of a difference of two estimates, in which intercepts cancel."""
    says = (
        "Contribution of each feature, compared with the average sampled text (estimate "
        f"{plain(contrast.reference, 4)})."
    )
    size = abs(contrast.reference) + abs(contrast.predicted + contrast.reference)
    title = f"The estimates differ by {signed(contrast.predicted, 3)}{_name_first(contrast)}"
    return _account(contrast, [], says, title, size=size)


def _account(
    ledger: Ledger | RawLedger | Contrast, bars: list[Bar], says: str, title: str, *, size: float = 1.0, **sums: float
) -> Account:
    values = [part.difference if isinstance(part, Difference) else part.contribution for part in ledger.shown]
    n_rest = ledger.n_features - len(values)
    check = panels.sum_check(
        shown=sum(values), n_shown=len(values), rest=ledger.rest, n_rest=n_rest, predicted=ledger.predicted,
        size=size, source="stated in the bundle", unit="", **sums,
    )  # fmt: skip
    if n_rest and (values or not isinstance(ledger, RawLedger)):
        bars = [Bar(f"{n_rest:,} other feature{'s' if n_rest != 1 else ''}", ledger.rest), *bars]
    ids, labels = [part.feature_id for part in ledger.shown], [part.description for part in ledger.shown]
    return Account(ids, labels, values, bars, check, says, title)


def all_parts(parts: Sequence[Contribution | Difference | FeatureCreditPart]) -> pa.Table:
    """Return every part of a ledger, one row per feature, largest first, with the running total."""
    table = exports.as_table(type(parts[0]) if parts else Contribution, parts)
    values = table.columns[-1].to_pylist() if parts else []
    return table.append_column("running_total", pa.array(list(itertools.accumulate(values)), pa.float64()))


def token_tip(ledger: TokenLedger) -> str:
    """Write a token's contribution to its text's estimate, split by feature, as HTML for its tooltip."""
    return _tip(ledger, f"contributes {signed(ledger.total, 5)} to the estimate")


def credit_tip(ledger: TokenLedger, *, path: Path, reward: float | None) -> str:
    """Write what features carry at a token, as HTML for its tooltip.

    On the same position they and the rest, which no feature carries, make the token's implicit reward, `reward`.
    """
    if path == "full":
        return _tip(ledger, f"its features carry {signed(ledger.total, 4)} nats of the text’s implicit reward")
    rest = None if reward is None or not math.isfinite(reward) else reward - ledger.total
    says = f"features at the token before it carry {signed(ledger.total, 4)} nats of its implicit reward"
    return _tip(ledger, says, rest=rest)


def _tip(ledger: TokenLedger, says: str, *, rest: float | None = None) -> str:
    n_others = ledger.n_features - len(ledger.shown)
    parts = [(f"#{part.feature_id}", part.description or "no label", part.part) for part in ledger.shown]
    if n_others:
        others = ledger.total - sum(part.part for part in ledger.shown)
        parts.append(("", f"{n_others} other feature{'s' if n_others != 1 else ''}", others))
    if rest is not None:
        parts.append(("", "other modules, and what features leave", rest))
    rows = "".join(
        f"<li><code>{number}</code><span>{panels.cut(name, 80)}</span>"
        f'<span class="{panels.direction(value)}">{signed(value, 5)}</span></li>'
        for number, name, value in parts
    )
    return f'<p>{says}</p><ul class="lfp-parts">{rows}</ul>'
