"""Columns of the report's tables, the layouts that they stand in, and how a column writes a row."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from lfp.evaluation.results import ResultRow
from lfp.report import formatting
from lfp.report.formatting import digits_for, number, plain

Order = Callable[[ResultRow], Any]
"""What lines are sorted by, from the first row of each."""


@dataclass(frozen=True)
class Column:
    """A column that shows something of the first row of a line with the keys in `where`."""

    head: str
    show: Callable[[ResultRow], str]
    where: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Layout:
    """One table: a line for each combination of `keys`, which are given the heads of their columns, and its columns.

    `metrics` and `accepts` say which rows it takes, all where there are none.
    """

    keys: Mapping[str, str]
    columns: tuple[Column, ...]
    metrics: frozenset[str] = frozenset()
    order: Order | None = None
    accepts: Callable[[ResultRow], bool] | None = None


def show_value(row: ResultRow) -> str:
    """The value, with the decimals that its interval deserves."""
    if row.ci_low is None or row.ci_high is None or float(row.value).is_integer():
        return number(row.value)
    return plain(row.value, digits_for(row.ci_low, row.ci_high))


def show_interval(row: ResultRow) -> str:
    """The interval; empty where there is none."""
    if row.ci_low is None or row.ci_high is None:
        return ""
    if abs(row.value) > 1 and float(row.value).is_integer():  # a count
        return f"{number(row.ci_low)} to {number(row.ci_high)}"
    return formatting.interval(row.ci_low, row.ci_high)


def show_field(name: str) -> Callable[[ResultRow], str]:
    """Return what shows a field of a row; empty where the row has none."""
    return lambda row: "" if getattr(row, name) is None else number(getattr(row, name))


def full(head: str, **where: str) -> tuple[Column, ...]:
    """Everything known of one row: value, interval, null and what is behind it."""
    return (
        Column(head, show_value, where),
        Column("95 % interval", show_interval, where),
        Column("null mean", show_field("null_mean"), where),
        Column("null 95 %", show_field("null_high"), where),
        Column("p", show_field("null_p"), where),
        Column("n", show_field("n"), where),
    )


def values(heads: Mapping[str, str]) -> tuple[Column, ...]:
    """A column per metric under its head, the value alone."""
    return tuple(Column(head, show_value, {"metric": metric}) for metric, head in heads.items())


def only(*metrics: str) -> tuple[Column, ...]:
    """A column per metric, the value alone or with its interval."""
    return tuple(Column(metric, formatting.estimate, {"metric": metric}) for metric in metrics)
