"""Reads a whole bundle and says what is wrong with it, a line a fault."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lfp.bundle.manifest import ARTIFACTS, Manifest, file_sha256, read_manifest, table_faults
from lfp.bundle.queries.common import EVERY, active, headline, pooled, pooling
from lfp.bundle.schema import TABLES, Table
from lfp.bundle.store.connection import Store
from lfp.errors import BundleError

TOLERANCE = 1e-5
"""How far contributions and intercept may be from the prediction stated (relative to it where it is above 1)."""


_REFERENCES = (
    ("features", "layer", "layers", "layer"), ("decoders", "feature_id", "features", "feature_id"),
    ("histograms", "feature_id", "features", "feature_id"), ("examples", "feature_id", "features", "feature_id"),
    ("examples", "text_id", "texts", "text_id"), ("token_scores", "text_id", "texts", "text_id"),
    ("activations", "text_id", "texts", "text_id"), ("activations", "feature_ids", "features", "feature_id"),
    ("weights", "probe_id", "probes", "probe_id"), ("weights", "feature_id", "features", "feature_id"),
    ("results", "probe_id", "probes", "probe_id"), ("neighbours", "feature_id", "features", "feature_id"),
    ("neighbours", "neighbour_id", "features", "feature_id"), ("labels", "feature_id", "features", "feature_id"),
    ("ablations", "features", "features", "feature_id"),
)  # fmt: skip
"""Column of a table (a number or a list of them), and where each value must be found."""


_CONDITIONS = (
    ("features", "feature_id = rn", "feature_id does not count up from 0"),
    ("texts", "len(token_starts) = len(token_ids)", "token_starts is not as long as token_ids"),
    ("texts", "list_sort(token_starts) = token_starts", "token_starts does not rise"),
    ("texts", "coalesce(list_max(token_starts), 0) <= length(\"text\")", "a token starts past the end of the text"),
    ("activations", "len(feature_ids) = len(positions) AND len(\"values\") = len(positions)",
     "positions, feature_ids and values differ in length"),
    ("activations", "list_sort(positions) = positions", "positions do not rise"),
    ("histograms", "len(edges) = len(counts) + 1 AND len(base_counts) = len(counts)", "bins and edges do not match"),
    ("probes", "pooling IN ('last', 'mean', 'sum', 'response', 'max')", "pooling is none that the schema names"),
    ("examples", "position BETWEEN window_start AND window_start + len(window_values) - 1",
     "the position is outside the window"),
    ("examples", "bucket >= 0 OR activation = 0", "an example of silence is active"),
    ("examples", "bucket != -2 OR list_max(window_values) = 0", "the window of a near miss is not silent"),
)  # fmt: skip
"""Table, what must hold in each of its rows, and the fault where it does not. `rn` is the row's number from 0."""


_BY_TEXT = (
    ("token_scores", "len(t.predicted) = n AND len(t.feedback) = n AND len(t.implicit_reward) = n "
     "AND len(t.implicit_advantage) = n AND coalesce(len(t.sae_miss), n) = n",
     "a list is not as long as the text has tokens"),
    ("activations", "coalesce(list_max(t.positions), -1) < n", "a position is past the text's last token"),
    ("examples", "t.position < n", "the position is past the text's last token"),
)  # fmt: skip


def validate(path: Path) -> list[str]:
    """Every fault of the bundle at `path`, a line each; an empty list where it is as the schema says."""
    try:
        manifest = read_manifest(path)
    except BundleError as error:
        return [str(error)]
    faults = list(table_faults(path, manifest, with_hashes=True))
    faults += _artifact_faults(path, manifest)
    shape = [fault for table in TABLES for fault in _shape_faults(path, table, manifest)]
    faults += shape
    if not shape:
        with Store.unchecked(path, manifest) as store:
            faults += _content_faults(store)
    return faults


def _artifact_faults(path: Path, manifest: Manifest) -> Iterator[str]:
    for name, info in manifest.artifacts.items():
        file = path / name
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            yield f"artifact {name} lies outside the bundle"
        elif not file.is_file():
            yield f"artifact {name} is missing"
        elif file.stat().st_size != info.bytes or file_sha256(file) != info.sha256:
            yield f"artifact {name} was changed after it was written (its sha256 differs)"
    for file in sorted((path / ARTIFACTS).rglob("*")):
        if file.is_file() and str(file.relative_to(path)) not in manifest.artifacts:
            yield f"artifact {file.relative_to(path)} is not in the manifest"


def _shape_faults(path: Path, table: Table, manifest: Manifest) -> list[str]:
    """Unreadable, missing columns, other types, nulls, other number of rows, not sorted."""
    file = path / f"{table.name}.parquet"
    if not file.is_file():
        return [f"table {table.name} cannot be read"] if table.name in manifest.tables else []
    try:
        schema = pq.read_schema(file)
        wrong = list(_column_faults(table, schema))
        return wrong or list(_row_faults(pq.ParquetFile(file), table, manifest))
    except (pa.ArrowException, OSError) as error:
        return [f"table {table.name} cannot be read ({str(error).splitlines()[0]})"]


def _column_faults(table: Table, schema: pa.Schema) -> Iterator[str]:
    for column in table.columns:
        if column.name not in schema.names and column.nullable:
            continue  # it came after the bundle was made, and reads as null
        if column.name not in schema.names:
            yield f"table {table.name}: column {column.name} is missing"
        elif schema.field(column.name).type != column.type:
            found = schema.field(column.name).type
            yield f"table {table.name}: column {column.name} is {found} and must be {column.type}"


def _row_faults(file: pq.ParquetFile, table: Table, manifest: Manifest) -> Iterator[str]:
    stated = manifest.tables[table.name].rows if table.name in manifest.tables else 0
    if file.metadata.num_rows != stated:
        yield f"table {table.name} has {file.metadata.num_rows} rows where the manifest says {stated}"
    for column in table.columns:
        if not column.nullable and file.read([column.name])[column.name].null_count:
            yield f"table {table.name}: column {column.name} is null in a row and must not be"
    keys = file.read(list(table.sorted_by))
    order = pc.sort_indices(keys, sort_keys=[(key, "ascending") for key in table.sorted_by])
    if not order.equals(pa.array(range(len(order)), pa.uint64())):
        yield f"table {table.name} is not sorted by {', '.join(table.sorted_by)}"


def _content_faults(store: Store) -> Iterator[str]:
    """What does not agree between tables, and predictions that do not add up."""
    for table, column, other, key in _REFERENCES:
        yield from _dangling(store, table, column, other=other, key=key)
    for table, condition, fault in _CONDITIONS:
        where = f"FROM (SELECT *, row_number() OVER () - 1 AS rn FROM {table}) WHERE NOT ({condition})"
        yield from _counted(store, f"SELECT count(*) AS n {where}", f"table {table}: {fault}")
    for table, condition, fault in _BY_TEXT:
        sizes = "(SELECT text_id, len(token_ids) AS n FROM texts) s"
        where = f"FROM {table} t JOIN {sizes} ON s.text_id = t.text_id WHERE NOT ({condition})"
        yield from _counted(store, f"SELECT count(*) AS n {where}", f"table {table}: {fault}")
    yield from _repeated_keys(store)
    yield from _headline_faults(store)
    yield from _exactness_faults(store)


def _dangling(store: Store, table: str, column: str, *, other: str, key: str) -> Iterator[str]:
    is_list = pa.types.is_list(next(t for t in TABLES if t.name == table).schema.field(column).type)
    value = f'unnest("{column}")' if is_list else f'"{column}"'
    rows = store.rows(
        f"SELECT count(*) AS n, min(id) AS low FROM (SELECT {value} AS id FROM {table}) "
        f'WHERE id IS NOT NULL AND id NOT IN (SELECT "{key}" FROM {other})'
    )
    if rows[0]["n"]:
        yield f"table {table}: {rows[0]['n']} of {column} are not in {other}, such as {rows[0]['low']}"


def _counted(store: Store, sql: str, fault: str) -> Iterator[str]:
    n = store.rows(sql)[0]["n"]
    if n:
        yield f"{fault} ({n} rows)"


def _repeated_keys(store: Store) -> Iterator[str]:
    for table in TABLES:
        keys = ", ".join(f'"{key}"' for key in table.sorted_by)
        sql = f"SELECT count(*) AS n FROM (SELECT 1 FROM {table.name} GROUP BY {keys} HAVING count(*) > 1)"
        yield from _counted(store, sql, f"table {table.name}: {', '.join(table.sorted_by)} occur twice")


def _headline_faults(store: Store) -> Iterator[str]:
    n = store.rows("SELECT count(*) AS n, count(*) FILTER (is_headline) AS headlines FROM probes")[0]
    if n["n"] and n["headlines"] != 1:
        yield f"table probes: {n['headlines']} rows are the headline, and one must be"


def _exactness_faults(store: Store) -> Iterator[str]:
    """Contributions and intercept against `texts.predicted` and `token_scores.predicted`; then the second ledger."""
    texts = prediction_errors(store, tolerance=TOLERANCE)
    if texts:
        first = texts[0]
        yield (
            f"table texts: predicted is not the sum of contributions and intercept in {len(texts)} texts, "
            f"such as {first['text_id']} ({first['predicted']:.6g} stated, {first['total']:.6g} summed)"
        )
    tokens = token_prediction_errors(store, tolerance=TOLERANCE)
    if tokens:
        first = tokens[0]
        yield (
            f"table token_scores: predicted is not the sum of contributions and intercept in {len(tokens)} texts, "
            f"such as {first['text_id']} at token {first['position']}"
        )
    yield from _raw_faults(store)


def _raw_faults(store: Store) -> Iterator[str]:
    """The second ledger against `texts.predicted_raw`, and the tokens' misses against the text's.

    Its parts may be large and cancel, and are stored in single precision: rounding leaves less than 1e-7 of the sum of
    their sizes, so the tolerance is relative to that.
    """
    texts = raw_prediction_errors(store, tolerance=TOLERANCE)
    if texts:
        first = texts[0]
        yield (
            "table texts: predicted_raw is not the sum of raw contributions, raw_bias, raw_intercept and sae_miss in "
            f"{len(texts)} texts, such as {first['text_id']} ({first['predicted']:.6g} stated, {first['total']})"
        )
    misses = miss_errors(store, tolerance=TOLERANCE)
    if misses:
        first = misses[0]
        yield (
            f"table token_scores: sae_miss does not pool to the text's in {len(misses)} texts, such as "
            f"{first['text_id']} ({first['sae_miss']:.6g} stated, {first['total']})"
        )


def prediction_errors(store: Store, *, tolerance: float) -> list[dict[str, Any]]:
    """Texts whose contributions and intercept do not make the prediction stated: text_id, predicted, total."""
    probe = headline(store)
    if probe is None:
        return []
    values = {"intercept": probe.intercept, "tolerance": tolerance}
    return store.rows(_PREDICTION_ERRORS, {**pooling(probe), **values})


def raw_prediction_errors(store: Store, *, tolerance: float) -> list[dict[str, Any]]:
    """Texts whose second ledger does not make the raw estimate stated: text_id, predicted, total.

    The tolerance is relative to the sum of the sizes of the parts where that is above 1.
    """
    probe = headline(store)
    if probe is None:
        return []
    return store.rows(_RAW_PREDICTION_ERRORS, {**pooling(probe), "tolerance": tolerance})


def miss_errors(store: Store, *, tolerance: float) -> list[dict[str, Any]]:
    """Texts whose tokens' misses do not pool to the text's: text_id, sae_miss, total. Max pooling is not looked at."""
    probe = headline(store)
    if probe is None or probe.pooling == "max":
        return []
    return store.rows(_MISS_ERRORS, {"pooling": probe.pooling, "tolerance": tolerance})


def token_prediction_errors(store: Store, *, tolerance: float) -> list[dict[str, Any]]:
    """Texts with tokens whose contributions do not make the prediction stated: text_id, first position, n_tokens."""
    probe = headline(store)
    if probe is None:
        return []
    values = {"probe": probe.probe_id, "intercept": probe.intercept, "tolerance": tolerance}
    return store.rows(_TOKEN_PREDICTION_ERRORS, values)


_PREDICTION_ERRORS = f"""
SELECT t.text_id, t.predicted, coalesce(total, 0) + $intercept AS total
FROM texts t JOIN (SELECT text_id FROM activations) a ON a.text_id = t.text_id
LEFT JOIN (
    SELECT p.text_id, sum(w.weight::DOUBLE * pooled) AS total
    FROM ({pooled(EVERY)}) p JOIN (SELECT * FROM weights WHERE probe_id = $probe) w ON w.feature_id = p.feature_id
    GROUP BY p.text_id
) sums ON sums.text_id = t.text_id
WHERE NOT abs(coalesce(total, 0) + $intercept - t.predicted) <= $tolerance * greatest(1, abs(t.predicted))
ORDER BY t.text_id
"""


_RAW_PREDICTION_ERRORS = f"""
WITH sums AS (
    SELECT p.text_id, sum(w.raw_weight::DOUBLE * pooled) AS total, sum(abs(w.raw_weight::DOUBLE * pooled)) AS size
    FROM ({pooled(EVERY)}) p JOIN (SELECT * FROM weights WHERE probe_id = $probe) w ON w.feature_id = p.feature_id
    GROUP BY p.text_id
), parts AS (
    SELECT text_id, predicted_raw::DOUBLE AS predicted, coalesce(total, 0) AS kept, coalesce(size, 0) AS size,
        raw_intercept AS intercept, sae_miss::DOUBLE AS miss,
        raw_bias * CASE $pooling WHEN 'sum' THEN len(token_starts) ELSE 1 END AS bias
    FROM texts SEMI JOIN activations USING (text_id) LEFT JOIN sums USING (text_id)
    JOIN (SELECT raw_intercept, raw_bias FROM probes WHERE probe_id = $probe) ON true
    WHERE predicted_raw IS NOT NULL AND sae_miss IS NOT NULL AND raw_bias IS NOT NULL
)
SELECT text_id, predicted, kept + bias + intercept + miss AS total FROM parts
WHERE NOT coalesce(abs(kept + bias + intercept + miss - predicted)
    <= $tolerance * greatest(1, size + abs(bias) + abs(intercept) + abs(miss)), false)
ORDER BY text_id
"""


_MISS_ERRORS = """
WITH tokens AS (
    SELECT text_id, t.sae_miss::DOUBLE AS sae_miss, len(token_starts) AS n_tokens,
        CASE WHEN response_start < len(token_starts) THEN response_start ELSE 0 END AS first_pooled,
        generate_subscripts(s.sae_miss, 1) - 1 AS position, unnest(s.sae_miss)::DOUBLE AS miss
    FROM texts t JOIN (SELECT text_id, sae_miss FROM token_scores) s USING (text_id)
    WHERE t.sae_miss IS NOT NULL AND s.sae_miss IS NOT NULL
), parts AS (
    SELECT text_id, sae_miss, CASE $pooling
        WHEN 'sum' THEN miss
        WHEN 'last' THEN miss * (position = n_tokens - 1)::INTEGER
        WHEN 'response' THEN miss * (position >= first_pooled)::INTEGER / (n_tokens - first_pooled)
        ELSE miss / n_tokens END AS part
    FROM tokens
)
SELECT text_id, first(sae_miss) AS sae_miss, sum(part) AS total FROM parts GROUP BY text_id
HAVING NOT coalesce(abs(sum(part) - first(sae_miss)) <= $tolerance * greatest(1, sum(abs(part))), false)
ORDER BY text_id
"""


_TOKEN_PREDICTION_ERRORS = f"""
WITH sums AS (
    SELECT active.text_id, active.position, sum(w.weight::DOUBLE * value) AS total
    FROM ({active(EVERY)}) active
    JOIN (SELECT * FROM weights WHERE probe_id = $probe) w ON w.feature_id = active.feature_id
    GROUP BY active.text_id, active.position
), stated AS (
    SELECT text_id, generate_subscripts(predicted, 1) - 1 AS position, unnest(predicted) AS predicted
    FROM token_scores WHERE text_id IN (SELECT text_id FROM activations)
)
SELECT stated.text_id, first(stated.position ORDER BY stated.position) AS position, count(*) AS n_tokens
FROM stated LEFT JOIN sums USING (text_id, position)
WHERE predicted IS NOT NULL
  AND NOT abs(coalesce(total, 0) + $intercept - predicted) <= $tolerance * greatest(1, abs(predicted))
GROUP BY stated.text_id ORDER BY stated.text_id
"""
