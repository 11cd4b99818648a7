"""Columns of the list of features as they are read: heading, kind, digits, width, and what the schema says of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import pyarrow as pa

from lfp.bundle.schema import BY_NAME
from lfp.util.sanitize import shortened, token_text

SIGNED = frozenset({
    "weight", "ci_low", "ci_high", "mean_contribution", "drifted_contribution", "weight_base",
    "unexplained_contribution", "shift",
})  # fmt: skip
"""Columns whose sign matters: their map is blue to orange about zero."""


class Column(NamedTuple):
    """How a column is shown. `kind` is number, share, words, tokens or flag; `format` is of numbers."""

    title: str
    kind: str
    format: str | None = None
    width: int = 90


COLUMNS: Mapping[str, Column] = {
    "feature_id": Column("Feature", "number", "#%d", 70),
    "layer": Column("Layer", "number", "%d", 55),
    "index": Column("Row", "number", "%d", 65),
    "description": Column("Description", "words", width=182),
    "related": Column("Related", "flag", width=72),
    "weight": Column("Weight", "number", "%+.3f", 72),
    "mean_abs_contribution": Column("Contribution", "number", "%.5f", 98),
    "beats_null": Column("Beats null", "flag", width=82),
    "top_tokens": Column("Top tokens", "tokens", width=180),
    "confidence": Column("Confidence", "number", "%.2f"),
    "agreement": Column("Agreement", "share", "percent"),
    "score_detection": Column("Detection", "number", "%.2f"),
    "score_fuzzing": Column("Fuzzing", "number", "%.2f"),
    "labeller": Column("Labeller", "words", width=120),
    "ci_low": Column("95 % low", "number", "%+.3f"),
    "ci_high": Column("95 % high", "number", "%+.3f"),
    "null_high": Column("Null", "number", "%.3f", 75),
    "mean_contribution": Column("Adds a token", "number", "%+.5f", 105),
    "share": Column("Share", "share", "percent", 80),
    "rank": Column("Rank", "number", "%d", 70),
    "status": Column("Drift", "words", width=105),
    "drifted_contribution": Column("Drifted by", "number", "%+.5f", 100),
    "drift_rank": Column("Drift rank", "number", "%d", 85),
    "sign_flipped": Column("Sign flipped", "flag", width=100),
    "weight_base": Column("Weight, base", "number", "%+.3f", 105),
    "unexplained_contribution": Column("Unexplained", "number", "%+.5f", 105),
    "density": Column("Density", "share", "percent", 80),
    "base_density": Column("Density, base", "share", "percent", 110),
    "n_active": Column("Active tokens", "number", "localized", 110),
    "mean_activation": Column("Mean", "number", "%.2f", 70),
    "base_mean_activation": Column("Mean, base", "number", "%.2f"),
    "max_activation": Column("Max", "number", "%.2f", 70),
    "shift": Column("Shift", "number", "%+.4f", 80),
    "stability": Column("Stability", "number", "%.2f", 85),
    "decoder_norm": Column("Decoder norm", "number", "%.2f", 110),
    "pos_logits": Column("Raises", "tokens", width=180),
    "neg_logits": Column("Lowers", "tokens", width=180),
    "x": Column("Map x", "number", "%.3f", 75),
    "y": Column("Map y", "number", "%.3f", 75),
}
"""By the column's name, in the order they are read. Ranks are from 1; contributions are a token."""

ALWAYS = ("feature_id", "layer")
"""What a row is known by."""


def meaning(name: str) -> str:
    """What the schema says of a column, with its unit."""
    table, column = {"status": ("drift", "status"), "drift_rank": ("drift", "rank")}.get(name, ("", name))
    tables = [table] if table else ["features", "weights", "labels", "drift"]
    found = next(one for key in tables for one in BY_NAME[key].columns if one.name == column)
    return f"{found.meaning} Unit: {found.unit}." if found.unit else found.meaning


def for_screen(rows: pa.Table, shown: tuple[str, ...]) -> pa.Table:
    """The chosen columns in the order they are read: flags as marks, spaces of tokens shown, words shortened."""
    return pa.table({name: _column(rows[name], COLUMNS[name].kind) for name in in_order(shown)})


def in_order(shown: Iterable[str]) -> tuple[str, ...]:
    """The chosen columns and those that a row is known by, in the order they are read."""
    return tuple(name for name in COLUMNS if name in (*ALWAYS, *shown))


def _column(values: pa.ChunkedArray, kind: str) -> pa.ChunkedArray | pa.Array:
    if kind == "flag":
        return pa.array([{True: "✓", False: "", None: "–"}[flag] for flag in values.to_pylist()], pa.string())
    if kind == "tokens":
        tokens = [[token_text(token) for token in row or []] for row in values.to_pylist()]
        return pa.array(tokens, pa.list_(pa.string()))
    if kind == "words":
        return pa.array([shortened(text or "", 120) for text in values.to_pylist()], pa.string())
    return values
