"""One feature of an open bundle, and what all readers of a bundle share: answers for pandas or Arrow."""

from __future__ import annotations

from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any, TypeAlias

import pyarrow as pa

from lfp.bundle import queries
from lfp.bundle.schema import BY_NAME
from lfp.bundle.store.connection import Store
from lfp.report.formatting import place_name

if TYPE_CHECKING:
    import pandas as pd

    Frame: TypeAlias = pd.DataFrame | pa.Table


class Tables:
    """Answers as pandas.DataFrame, or as pyarrow.Table where `arrow` is true."""

    _store: Store

    def _answer(self, table: pa.Table, arrow: bool, **attrs: Any) -> Frame:
        if arrow:
            metadata = {name: str(value) for name, value in attrs.items()}
            return table.replace_schema_metadata(metadata) if attrs else table
        frame = table.to_pandas()
        frame.attrs.update(attrs)
        return frame


class Feature(Tables):
    """One feature of an open bundle. `values` holds its numbers; methods return tables as those of Bundle do."""

    def __init__(self, store: Store, feature_id: int) -> None:
        self._store = store
        self.values = queries.feature.feature(store, feature_id)
        self.feature_id = feature_id

    def examples(self, *, bucket: int | None = None, limit: int | None = None, arrow: bool = False) -> Frame:
        """Return where it fires: text, token, activation, and the activations of the tokens around it.

        Buckets are 0 for the largest activations, 1 and up for intervals from low to high, -1 where it is silent, and
        -2 for near misses; all of them by default, in that order.
        """
        rows = [row for row in queries.excerpts.feature_excerpts(self._store, self.feature_id)
                if bucket is None or row["bucket"] == bucket]  # fmt: skip
        rows.sort(key=lambda row: (row["bucket"] < 0, abs(row["bucket"]), row["rank"]))
        for row in rows:
            starts = [*row["token_starts"], len(row["text"])]
            row["token"] = row["text"][starts[row["position"]] : starts[row["position"] + 1]]
        return self._answer(pa.Table.from_pylist(rows[:limit], schema=_EXAMPLES), arrow)

    def labels(self, *, arrow: bool = False) -> Frame:
        """Return what each labeller says of it, the label that names it first."""
        rows = [asdict(label) for label in queries.feature.labels(self._store, self.feature_id)]
        return self._answer(pa.Table.from_pylist(rows, schema=_LABELS), arrow)

    def neighbours(self, *, arrow: bool = False) -> Frame:
        """Return the features near it, by decoder cosine and by coactivation, nearest first."""
        rows = [asdict(neighbour) for neighbour in queries.feature.neighbours(self._store, self.feature_id)]
        return self._answer(pa.Table.from_pylist(rows, schema=_NEIGHBOURS), arrow)

    def histogram(self, *, arrow: bool = False) -> Frame:
        """Return how many tokens activate it by strength, one row per bin: low, high, tuned, base.

        Empty where it was never counted.
        """
        found = queries.feature.histogram(self._store, self.feature_id)
        edges = found.edges if found else [0.0]
        columns = {
            "low": pa.array(edges[:-1], pa.float64()),
            "high": pa.array(edges[1:], pa.float64()),
            "tuned": pa.array(found.counts if found else [], pa.int64()),
            "base": pa.array(found.base_counts if found else [], pa.int64()),
        }
        return self._answer(pa.table(columns), arrow)

    def __repr__(self) -> str:
        labels = queries.feature.labels(self._store, self.feature_id)
        described = labels[0].description if labels and labels[0].description else "no description"
        weight = "no weight" if self.values.weight is None else f"weight {self.values.weight:+.3g}"
        return f"<Feature {self.feature_id}: {place_name(self.values.layer, self.values.site)}, {described}; {weight}>"


_TEXT, _REAL = pa.string(), pa.float64()
_EXAMPLES = pa.schema([
    ("bucket", pa.int32()), ("rank", pa.int32()), ("text_id", pa.int64()), ("position", pa.int32()), ("token", _TEXT),
    ("activation", _REAL), ("window_start", pa.int32()), ("window_values", pa.list_(_REAL)), ("text", _TEXT),
    ("feedback", _REAL),
])  # fmt: skip
_NEIGHBOURS = pa.schema([
    ("kind", _TEXT), ("rank", pa.int32()), ("neighbour_id", pa.int32()), ("value", _REAL), ("layer", pa.int32()),
    ("site", _TEXT), ("description", _TEXT), ("top_token", _TEXT), ("weight", _REAL),
])  # fmt: skip
_LABELS = pa.schema([
    BY_NAME["labels"].schema.field(field.name).with_nullable(True) for field in fields(queries.feature.Label)
])  # fmt: skip
