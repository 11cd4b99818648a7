"""Columns of the list of features: heading, kind, format, width, and what the schema says of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import pyarrow as pa

from app.components.feature.drift import LONGEST, STATUS_NAMES
from lfp.bundle.schema import BY_NAME
from lfp.report.formatting import place_name
from lfp.util.sanitize import shortened, token_text
from lfp.util.types import SITE_NAMES

SIGNED = frozenset({
    "weight", "ci_low", "ci_high", "mean_contribution", "drifted_contribution", "weight_base",
    "unexplained_contribution", "shift", "credit", "twin_difference",
})  # fmt: skip
"""Columns whose sign matters: the map colours them from orange to blue, with zero in the middle."""


class Column(NamedTuple):
    """How a column is shown. `kind` is number, share, words, tokens or flag; `format` is for numbers."""

    title: str
    kind: str
    format: str | None = None
    width: int = 90


COLUMNS: Mapping[str, Column] = {
    "feature_id": Column("Feature", "number", "#%d", 62),
    "layer": Column("Layer", "number", "%d", 55),
    "site": Column("Site", "words", width=120),
    "index": Column("SAE index", "number", "%d", 85),
    "description": Column("Label", "words", width=220),
    "related": Column("Related", "flag", width=72),
    "weight": Column("Weight", "number", "%+.3g", 72),
    "mean_abs_contribution": Column("Contribution", "number", "%.3g", 105),
    "beats_null": Column("Beyond chance", "flag", width=112),
    "top_tokens": Column("Top tokens", "tokens", width=180),
    "confidence": Column("Confidence", "number", "%.3g"),
    "agreement": Column("Agreement", "share", "%.3g %%"),
    "score_detection": Column("Detection", "number", "%.3g"),
    "score_fuzzing": Column("Fuzzing", "number", "%.3g"),
    "labeller": Column("Labeller", "words", width=120),
    "ci_low": Column("95 % low", "number", "%+.3g"),
    "ci_high": Column("95 % high", "number", "%+.3g"),
    "null_high": Column("Chance", "number", "%.3g", 75),
    "q": Column("False discovery rate", "number", "%.3g", 150),
    "mean_contribution": Column("Mean contribution", "number", "%+.3g", 135),
    "share": Column("Share", "share", "%.3g %%", 80),
    "rank": Column("Rank", "number", "%d", 70),
    "status": Column("Change", "words", width=105),
    "drifted_contribution": Column("Contribution change", "number", "%+.3g", 150),
    "drift_rank": Column("Change rank", "number", "%d", 100),
    "sign_flipped": Column("Sign flipped", "flag", width=100),
    "weight_base": Column("Weight, base", "number", "%+.3g", 105),
    "unexplained_contribution": Column("Unexplained", "number", "%+.3g", 105),
    "credit": Column("Credit", "number", "%+.3g", 75),
    "credit_rank": Column("Credit rank", "number", "%d", 95),
    "abs_credit": Column("Credit, absolute", "number", "%.3g", 120),
    "unexplained_credit": Column("Credit, unexplained", "number", "%.3g", 145),
    "twin_difference": Column("Credit less twins’", "number", "%+.3g", 130),
    "twin_q": Column("Twins’ false discovery rate", "number", "%.3g", 185),
    "beyond_twins": Column("Beyond twins", "flag", width=105),
    "promotes": Column("Promotes", "tokens", width=180),
    "demotes": Column("Demotes", "tokens", width=180),
    "scale_tuned": Column("Latent scale", "number", "%.3g", 105),
    "scale_base": Column("Latent scale, base", "number", "%.3g", 140),
    "scale_tuned_error": Column("Latent scale, error", "number", "%.3g", 145),
    "scale_base_error": Column("Latent scale, error, base", "number", "%.3g", 180),
    "is_tuned_only": Column("Tuned only", "flag", width=90),
    "base_cosine": Column("Decoder cosine, base", "number", "%.3g", 155),
    "base_norm_share": Column("Decoder norm, base share", "number", "%.3g", 185),
    "density": Column("Density", "share", "%.3g %%", 80),
    "base_density": Column("Density, base", "share", "%.3g %%", 110),
    "n_active": Column("Active tokens", "number", "localized", 110),
    "mean_activation": Column("Mean activation", "number", "%.3g", 120),
    "base_mean_activation": Column("Mean activation, base", "number", "%.3g", 160),
    "max_activation": Column("Max activation", "number", "%.3g", 120),
    "shift": Column("Activation shift", "number", "%+.3g", 120),
    "stability": Column("Stability", "number", "%.3g", 85),
    "decoder_norm": Column("Decoder norm", "number", "%.3g", 110),
    "pos_logits": Column("Raises", "tokens", width=180),
    "neg_logits": Column("Lowers", "tokens", width=180),
    "x": Column("Map x", "number", "%.3g", 75),
    "y": Column("Map y", "number", "%.3g", 75),
}
"""Columns by name, in the order they are shown. Ranks start at 1; contributions are per token."""

ALWAYS = ("feature_id", "layer")
"""Columns that identify a row, and are always shown."""
SORTED_COLUMNS: Mapping[str, str] = {
    "contribution": "mean_abs_contribution", "strength": "weight", "drift": "drifted_contribution",
    "credit_size": "credit", "id": "feature_id", "top_token": "top_tokens", "raised_token": "pos_logits",
    "lowered_token": "neg_logits",
}  # fmt: skip
"""The column behind a sort of the list, where it has another name."""


def meaning(name: str) -> str:
    """Return what the schema says of a column, with its unit."""
    of_other = {"status": ("drift", "status"), "drift_rank": ("drift", "rank"), "credit_rank": ("credits", "rank")}
    table, column = of_other.get(name, ("", name))
    tables = [table] if table else ["features", "weights", "labels", "drift", "credits"]
    found = next(entry for key in tables for entry in BY_NAME[key].columns if entry.name == column)
    return f"{found.meaning} Unit: {found.unit}." if found.unit else found.meaning


def sorted_column(sort: str) -> str:
    """Return the column that a sort of the list is by."""
    return SORTED_COLUMNS.get(sort, sort)


def in_order(shown: Iterable[str], *, sort: str = "id") -> tuple[str, ...]:
    """Return the chosen columns and those of ALWAYS in the order they are shown: number, name, the sorted column first.

    The sorted column is shown whether it is chosen or not, where even a phone shows it.
    """
    by = sorted_column(sort)
    wanted = [name for name in COLUMNS if name in (*ALWAYS, *shown, by)]
    first = [name for name in ("feature_id", "description", by) if name in wanted]
    return tuple(dict.fromkeys([*first, *wanted]))


def for_screen(rows: pa.Table, shown: Iterable[str]) -> pa.Table:
    """Return these columns for the screen: flags as marks, spaces of tokens visible, long text cut, shares in per cent.

    Numbers stay numbers, so that a heading sorts them.
    """
    marks = {True: "✓", False: "", None: "–"}
    table = {}
    for name in shown:
        column, kind = rows[name], COLUMNS[name].kind
        if name == "status":
            column = pa.array([STATUS_NAMES.get(status, status) for status in column.to_pylist()], pa.string())
        elif name == "site":
            column = pa.array([SITE_NAMES.get(site, site) for site in column.to_pylist()], pa.string())
        elif kind == "flag":
            column = pa.array([marks[flag] for flag in column.to_pylist()], pa.string())
        elif kind == "tokens":
            tokens = [[token_text(token) for token in row or []] for row in column.to_pylist()]
            column = pa.array(tokens, pa.list_(pa.string()))
        elif kind == "share":
            column = pa.array([None if share is None else 100 * share for share in column.to_pylist()], pa.float64())
        elif kind == "words":
            column = pa.array([shortened(text or "", LONGEST) for text in column.to_pylist()], pa.string())
        table[name] = column
    return pa.table(table)


def names(rows: pa.Table) -> dict[str, int]:
    """Return names to choose a feature by, and the feature of each."""
    columns = zip(*(rows[name].to_pylist() for name in ("feature_id", "layer", "site", "description")), strict=True)
    return {
        f"#{id_} · {place_name(layer, site)} · {shortened(text or 'no label', 120)}": id_
        for id_, layer, site, text in columns
    }
