"""What several queries share: the headline probe, the main labeller, orders, pooled activations, gaps of ranks."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from difflib import get_close_matches
from itertools import takewhile
from typing import Any, TypeVar

from lfp.bundle.store import views
from lfp.bundle.store.connection import Store
from lfp.errors import ConfigError, NotInBundleError

T = TypeVar("T")

_LEAST_SHARED = 24
"""Characters of what texts begin with that are left out where only beginnings are shown."""


@dataclass(frozen=True)
class Probe:
    """A row of `probes`."""

    probe_id: int
    target: str
    inputs: str
    model: str
    layers: list[int]
    kind: str
    pooling: str
    alpha: float
    intercept: float
    display_slope: float
    display_offset: float
    n_train: int
    n_test: int


@dataclass(frozen=True)
class Order:
    """How rows are sorted: a name from a table of sorts, such as FEATURE_SORTS, and a direction."""

    by: str
    descending: bool = True


def headline(store: Store) -> Probe | None:
    """Return the probe behind `texts.predicted`; None in a bundle without probes."""
    sql = f"SELECT {columns(Probe)} FROM probes WHERE is_headline ORDER BY probe_id LIMIT 1"
    rows = store.once("headline", lambda: store.rows(sql))
    return Probe(**rows[0]) if rows else None


def main_labeller(store: Store) -> str | None:
    """Return the labeller whose descriptions tables show: the manifest's, else the one with the most labels."""
    order = "labeller = $named DESC, count(*) DESC, labeller"
    sql = f"SELECT labeller FROM labels GROUP BY labeller ORDER BY {order} LIMIT 1"
    rows = store.once("main_labeller", lambda: store.rows(sql, {"named": store.manifest.labeller}))
    return rows[0]["labeller"] if rows else None


def columns(kind: type[Any]) -> str:
    """List the fields of a dataclass as columns of a SELECT; they have the same names."""
    return ", ".join(f'"{field.name}"' for field in fields(kind))


def look_up(choices: Mapping[str, T], name: str) -> T:
    """Return what is behind a name, such as a name of a sort. Raises ConfigError, naming the nearest, for another."""
    if name not in choices:
        nearest = get_close_matches(name, choices, n=1)
        hint = f"did you mean {nearest[0]}?" if nearest else f"choose one of {', '.join(choices)}"
        raise ConfigError(f"{name}: no column or list of that name here; {hint}")
    return choices[name]


def shared_start(store: Store, rows: str, column: str) -> str:
    """Return what nearly all texts of a column begin with, such as a system message; nothing where that is short.

    `rows` is SQL. It ends with a whole word. What two texts begin with, all between them in order do.
    """

    def find() -> str:
        ends = f"quantile_disc({column}, 0.05) AS low, quantile_disc({column}, 0.95) AS high"
        found = store.rows(f"SELECT {ends} FROM {rows}")[0]
        low, high = found["low"] or "", found["high"] or ""
        if low == high:
            return ""
        same = takewhile(lambda pair: pair[0] == pair[1], zip(low, high, strict=False))
        n = max((at for at, (letter, _) in enumerate(same, 1) if letter.isspace()), default=0)
        return low[:n] if n >= _LEAST_SHARED else ""

    return store.once(f"shared_start {rows} {column}", find)


def each_of(numbers: Sequence[int]) -> tuple[str, dict[str, int]]:
    """Write at least one number as an SQL list for IN; return it with the values that it binds.

    Each number is bound by itself, because DuckDB uses an index only then.
    """
    bound = {f"number{at}": number for at, number in enumerate(numbers)}
    return f"({', '.join(f'${name}' for name in bound)})", bound


def direction(order: Order) -> str:
    """Return an order's direction as SQL."""
    return "DESC" if order.descending else "ASC"


def headline_id(store: Store) -> int | None:
    """Return the headline probe's number; None in a bundle without probes."""
    probe = headline(store)
    return probe.probe_id if probe else None


def pooling(probe: Probe) -> dict[str, Any]:
    """Return the values that the SQL of pooled activations binds."""
    return {"probe": probe.probe_id, "pooling": probe.pooling}


def no_such(store: Store, what: str, number: int) -> NotInBundleError:
    """Build the error for a missing feature or text: its number, and the numbers that exist."""
    held = store.rows(f"SELECT min({what}_id) AS low, max({what}_id) AS high FROM {what}s")[0]
    range_ = "none at all" if held["low"] is None else f"numbers {held['low']} to {held['high']}"
    return NotInBundleError(f"there is no {what} {number} in this bundle; it holds {range_}")


EVERY, ONE, OTHER = "true", "text_id = $text_id", "text_id = $other_id"


def active(which: str) -> str:
    """Return SQL for activations, one row each; `which` is EVERY, ONE or OTHER."""
    return f"{views.UNNESTED} WHERE {which}"


def pooled(which: str) -> str:
    """Return SQL for features pooled over tokens, one row per text and feature."""
    return views.pooled(active(which), pooling="$pooling")


TEXT_GAPS: Mapping[str, tuple[str, str]] = {
    "gap": ("predicted", "feedback"),
    "implicit gap": ("implicit_reward", "feedback"),
    "rating gap": ("feedback", "rating"),
}
"""The three disagreements about texts by name: the two columns of `texts` whose ranks are compared."""


def ranked(rows: str, first: str, second: str) -> str:
    """Add `first_rank` and `second_rank`, from 0 to 1, and `gap`, their difference, to the rows of a SELECT.

    Only rows with both values are ranked, ties at the middle of their ranks; other rows get nulls.
    """
    known = f"({first} IS NOT NULL AND {second} IS NOT NULL)"
    ranks = []
    for column in (first, second):
        over = f"cume_dist() OVER (PARTITION BY {known} ORDER BY {column}"
        ranks.append(f"CASE WHEN {known} THEN (1 + {over}) - {over} DESC)) / 2 END")
    return (
        f"SELECT *, first_rank - second_rank AS gap FROM (SELECT *, {ranks[0]} AS first_rank, "
        f"{ranks[1]} AS second_rank FROM ({rows}))"
    )


def between_words(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row whose `before` and `after` begin and end between words, with an ellipsis where the text continues.

    Its `starts` and `ends`, which say that they reach the text's, are left out.
    """
    row, starts, ends = dict(row), row["starts"], row["ends"]
    del row["starts"], row["ends"]
    if not starts:
        row["before"] = "…" + re.sub(r"^\S*\s+(?=\S)", "", row["before"])
    if not ends:
        row["after"] = re.sub(r"\s+\S*$", "", row["after"]) + "…"
    return row
