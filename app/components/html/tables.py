"""Tables as people read them, and as files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import pyarrow as pa

from app.components.html.panels import anchor
from lfp.util.sanitize import escaped, shortened, token_text

TEXT_ORDER = ("text_id", "text", "gap", "feedback", "predicted", "implicit_reward", "rating")


def texts(rows: pa.Table) -> pa.Table:
    """Return texts for the screen, each on one line."""
    at = rows.schema.get_field_index("text")
    lines = [shortened(text, 120) for text in rows["text"].to_pylist()]
    return rows.set_column(at, "text", pa.array(lines, pa.string())).select(list(TEXT_ORDER))


def drift(rows: pa.Table) -> pa.Table:
    """Return drift for the screen: tokens with their spaces shown, flips as marks, without nulls the run lacks."""
    table = rows.to_pydict()
    table["sign_flipped"] = [{True: "flipped", False: "", None: "–"}[flag] for flag in table["sign_flipped"]]
    table["top_tokens"] = [[token_text(token) for token in tokens] for tokens in table["top_tokens"]]
    table["description"] = [shortened(text or "", 120) for text in table["description"]]
    silent = {name for name in ("drifted_null", "unexplained_null") if set(table[name]) <= {None}}
    return pa.table({name: table[name] for name in rows.schema.names if name not in silent})


def feature_names(rows: pa.Table) -> dict[str, int]:
    """Return names to choose a feature by, and the feature of each."""
    columns = zip(*(rows[name].to_pylist() for name in ("feature_id", "layer", "description")), strict=True)
    return {f"#{id_} · layer {layer} · {shortened(text or 'no label', 70)}": id_ for id_, layer, text in columns}


def of_rows(kind: type[Any], rows: Sequence[Any]) -> pa.Table:
    """Return dataclasses of one kind as a table, a column per field; an empty column is text."""
    columns = {field.name: pa.array([getattr(row, field.name) for row in rows]) for field in fields(kind)}
    return pa.table({n: c.cast(pa.string()) if pa.types.is_null(c.type) else c for n, c in columns.items()})


@dataclass(frozen=True)
class Row:
    """Where a row leads, by what name, what is said of it, and its figures."""

    href: str
    name: str
    says: str
    cells: tuple[str, ...]


def table(heads: Sequence[str], rows: Sequence[Row]) -> str:
    """Return rows with their links in the first column, whose head is the first of `heads`."""
    top, body = "".join(f'<th scope="col">{escaped(head)}</th>' for head in heads), ""
    for row in rows:
        says = f" <span>{escaped(shortened(row.says, 64))}</span>" if row.says else ""
        cells = "".join(f"<td>{escaped(cell)}</td>" for cell in row.cells)
        body += f"<tr><td>{anchor(row.href, row.name)}{says}</td>{cells}</tr>"
    return (
        '<div class="lfp-scroll"><table class="lfp-table lfp-linked">'
        f"<thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>"
    )
