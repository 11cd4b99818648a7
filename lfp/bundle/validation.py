"""Read a whole bundle and list what is wrong with it, one line per fault."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lfp.bundle.exactness import credit_faults, exactness_faults, module_credit_faults
from lfp.bundle.forecasts import hash_forecast
from lfp.bundle.manifest import ARTIFACTS, Manifest, file_sha256, read_manifest, read_table, table_faults
from lfp.bundle.remote.mirror import local_folder
from lfp.bundle.schema import BY_NAME, TABLES
from lfp.bundle.store.connection import Store
from lfp.bundle.tables.columns import Table
from lfp.errors import BundleError
from lfp.util.types import SITES

_LISTS_WITH_NULLS = "token_scores"
"""The table whose lists have a null for each token without a score; elsewhere a list holds no null."""
_NAME_LENGTH = 120
"""Characters of an artifact's name that a message quotes."""

_REFERENCES = (
    ("features", "layer", "layers", "layer"), ("decoders", "feature_id", "features", "feature_id"),
    ("histograms", "feature_id", "features", "feature_id"), ("examples", "feature_id", "features", "feature_id"),
    ("examples", "text_id", "texts", "text_id"), ("token_scores", "text_id", "texts", "text_id"),
    ("activations", "text_id", "texts", "text_id"), ("activations", "feature_ids", "features", "feature_id"),
    ("module_credits", "text_id", "texts", "text_id"), ("word_credits", "word", "vocabulary", "word"),
    ("weights", "probe_id", "probes", "probe_id"), ("weights", "feature_id", "features", "feature_id"),
    ("results", "probe_id", "probes", "probe_id"), ("neighbours", "feature_id", "features", "feature_id"),
    ("neighbours", "neighbour_id", "features", "feature_id"), ("labels", "feature_id", "features", "feature_id"),
    ("ablations", "features", "features", "feature_id"), ("credits", "feature_id", "features", "feature_id"),
    ("interventions", "feature_id", "features", "feature_id"),
    ("feature_credits", "text_id", "texts", "text_id"), ("feature_credits", "feature_ids", "features", "feature_id"),
    ("credit_sums", "text_id", "texts", "text_id"),
    ("feature_trajectory", "feature_id", "features", "feature_id"), ("credits", "example_text_ids", "texts", "text_id"),
)  # fmt: skip
"""Column of a table (a number or a list of them), and where each value must be found."""

_CONDITIONS = (
    ("features", "feature_id = rn", "feature_id does not count up from 0"),
    *((table, f"site IN {SITES}", "site is not a value that the schema names") for table in ("saes", "features")),
    ("texts", "len(token_starts) = len(token_ids)", "token_starts is not as long as token_ids"),
    ("texts", "list_sort(token_starts) = token_starts", "token_starts does not rise"),
    ("texts", "coalesce(list_max(token_starts), 0) <= length(\"text\")", "a token starts past the end of the text"),
    ("activations", "len(feature_ids) = len(positions) AND len(\"values\") = len(positions)",
     "positions, feature_ids and values differ in length"),
    ("activations", "list_sort(positions) = positions", "positions do not rise"),
    ("feature_credits", "len(feature_ids) = len(positions) AND len(credits) = len(positions) AND "
     "len(next_credits) = len(positions)", "positions, feature_ids and credits differ in length"),
    ("feature_credits", "list_sort(positions) = positions", "positions do not rise"),
    ("credit_sums", "path IN ('full', 'same_position')", "path is not a value that the schema names"),
    ("histograms", "len(edges) = len(counts) + 1 AND len(base_counts) = len(counts)", "bins and edges do not match"),
    ("probes", "pooling IN ('last', 'mean', 'sum', 'response', 'max')", "pooling is not a value that the schema names"),
    ("examples", "position BETWEEN window_start AND window_start + len(window_values) - 1",
     "the position is outside the window"),
    ("examples", "bucket >= 0 OR activation = 0", "an example of silence is active"),
    ("examples", "bucket != -2 OR list_max(window_values) = 0", "the window of a near miss is not silent"),
)  # fmt: skip
"""Table, what must hold in each of its rows, and the fault where it does not. `rn` is the row's number from 0."""

_UNIQUE = (("saes", "is_used", ("layer", "site")), ("features", "true", ("layer", "site", "index")))
"""Table, the rows meant, and the columns that no two of them share; the columns a table is sorted by are such too."""

_BY_TEXT = (
    ("token_scores", "len(t.predicted) = n AND len(t.feedback) = n AND len(t.implicit_reward) = n "
     "AND len(t.implicit_advantage) = n AND coalesce(len(t.sae_miss), n) = n",
     "a list is not as long as the text has tokens"),
    ("activations", "coalesce(list_max(t.positions), -1) < n", "a position is past the text's last token"),
    ("feature_credits", "coalesce(list_max(t.positions), -1) < n", "a position is past the text's last token"),
    ("examples", "t.position < n", "the position is past the text's last token"),
)  # fmt: skip


def validate(path: str | Path) -> list[str]:
    """List every fault of the bundle in a folder or at an address, one line each; empty where it is as it should be."""
    try:
        path = local_folder(path)
        manifest = read_manifest(path)
    except BundleError as error:
        return [str(error)]
    faults = list(table_faults(path, manifest, with_hashes=True))
    faults += _artifact_faults(path, manifest)
    shape = [fault for table in TABLES for fault in _shape_faults(path, table, manifest)]
    faults += shape
    if not shape:
        faults += _forecast_faults(path, manifest)
        with Store(path, manifest) as store:
            faults += _content_faults(store)
    return faults


def _forecast_faults(path: Path, manifest: Manifest) -> Iterator[str]:
    """Compare the table `forecast` with the hash that was made before the model was tuned."""
    table = read_table(path, "forecast")
    if not table.num_rows and manifest.forecast_sha256 is None:
        return
    if manifest.forecast_sha256 != hash_forecast(table):
        yield "table forecast is not what was forecast before the tuning (its hash in the manifest differs)"


def _artifact_faults(path: Path, manifest: Manifest) -> Iterator[str]:
    for name, info in manifest.artifacts.items():
        file, called = path / name, name if len(name) <= _NAME_LENGTH else f"{name[:_NAME_LENGTH]}…"
        try:
            if ".." in PurePosixPath(name).parts or not file.resolve().is_relative_to(path.resolve()):
                yield f"artifact {called} lies outside the bundle"
            elif not file.is_file():
                yield f"artifact {called} is missing"
            elif file.stat().st_size != info.bytes or file_sha256(file) != info.sha256:
                yield f"artifact {called} was changed after it was written (its sha256 differs)"
        except (OSError, ValueError):  # a name too long for the file system, or with a zero byte
            yield f"artifact {called} cannot be read"
    for file in sorted((path / ARTIFACTS).rglob("*")):
        if file.is_file() and str(file.relative_to(path)) not in manifest.artifacts:
            yield f"artifact {file.relative_to(path)} is not in the manifest"


def _shape_faults(path: Path, table: Table, manifest: Manifest) -> list[str]:
    """Check a table by itself: readable, columns and types, values, number of rows, order."""
    file = path / f"{table.name}.parquet"
    if not file.is_file():
        return [f"table {table.name} cannot be read"] if table.name in manifest.tables else []
    try:
        with pq.ParquetFile(file) as opened:
            wrong = list(_column_faults(table, opened.schema_arrow))
            return wrong or [*_row_faults(opened, table, manifest), *_value_faults(opened, table)]
    except (pa.ArrowException, OSError) as error:
        return [f"table {table.name} cannot be read ({str(error).splitlines()[0]})"]


def _column_faults(table: Table, schema: pa.Schema) -> Iterator[str]:
    for column in table.columns:
        found = [field.type for field in schema if field.name == column.name]
        if not found and (column.nullable or column.default is not None):
            continue  # added to the schema after the bundle was made; it reads as null or its default
        if not found:
            yield f"table {table.name}: column {column.name} is missing"
        elif len(found) > 1:
            yield f"table {table.name}: column {column.name} occurs {len(found)} times"
        elif found[0] != column.type:
            yield f"table {table.name}: column {column.name} is {found[0]} and must be {column.type}"


def _row_faults(file: pq.ParquetFile, table: Table, manifest: Manifest) -> Iterator[str]:
    stated = manifest.tables[table.name].rows if table.name in manifest.tables else 0
    if file.metadata.num_rows != stated:
        yield f"table {table.name} has {file.metadata.num_rows} rows where the manifest says {stated}"
    names = [key for key in table.sorted_by if key in file.schema_arrow.names]
    keys = file.read(names)
    order = pc.sort_indices(keys, sort_keys=[(key, "ascending") for key in names])
    if not order.equals(pa.array(range(len(order)), pa.uint64())):
        yield f"table {table.name} is not sorted by {', '.join(table.sorted_by)}"


def _value_faults(file: pq.ParquetFile, table: Table) -> Iterator[str]:
    """Look for nulls where none may be, and for numbers that are NaN or infinite, also inside lists.

    One column of one row group is in memory at a time.
    """
    for column in table.columns:
        if column.name not in file.schema_arrow.names:
            continue
        groups = (file.read_row_group(group, [column.name])[0] for group in range(file.num_row_groups))
        n_null, n_inside, n_infinite = 0, 0, 0
        for values in groups:
            n_null += values.null_count
            for leaf in _leaves(values):
                n_inside += leaf.null_count if leaf is not values else 0
                if pa.types.is_floating(leaf.type):
                    n_infinite += pc.sum(pc.invert(pc.is_finite(leaf))).as_py() or 0
        if n_null and not column.nullable:
            yield f"table {table.name}: column {column.name} is null in {n_null} rows and must not be"
        if n_inside and table.name != _LISTS_WITH_NULLS:
            yield f"table {table.name}: column {column.name} has {n_inside} nulls inside its lists and must not"
        if n_infinite:
            yield f"table {table.name}: column {column.name} has {n_infinite} values that are NaN or infinite"


def _leaves(values: pa.ChunkedArray) -> Iterator[pa.ChunkedArray]:
    """Yield the column itself, or the values inside its lists and structs; nulls of a list itself are left out."""
    if pa.types.is_list(values.type):
        yield from _leaves(pc.list_flatten(values))
    elif pa.types.is_struct(values.type):
        for field in values.type:
            yield from _leaves(pc.struct_field(values, field.name))
    else:
        yield values


def _content_faults(store: Store) -> Iterator[str]:
    """Check tables against each other, and predictions against the sums that make them."""
    for table, column, other, key in _REFERENCES:
        is_list = pa.types.is_list(BY_NAME[table].schema.field(column).type)
        value = f'unnest("{column}")' if is_list else f'"{column}"'
        found = store.rows(
            f"SELECT count(*) AS n, min(id) AS low FROM (SELECT {value} AS id FROM {table}) "
            f'WHERE id IS NOT NULL AND id NOT IN (SELECT "{key}" FROM {other})'
        )[0]
        if found["n"]:
            yield f"table {table}: {found['n']} of {column} are not in {other}, such as {found['low']}"
    faulty = [
        (f"(SELECT *, row_number() OVER () - 1 AS rn FROM {table}) WHERE NOT ({condition})", f"table {table}: {fault}")
        for table, condition, fault in _CONDITIONS
    ]
    sizes = "(SELECT text_id, len(token_ids) AS n FROM texts) s"
    for table, condition, fault in _BY_TEXT:
        rows = f"{table} t JOIN {sizes} ON s.text_id = t.text_id WHERE NOT ({condition})"
        faulty.append((rows, f"table {table}: {fault}"))
    keys_of = [(spec.name, "true", spec.sorted_by) for spec in TABLES]
    for table, condition, keys in (*keys_of, *_UNIQUE):
        named = ", ".join(f'"{key}"' for key in keys)
        twice = f"(SELECT 1 FROM {table} WHERE {condition} GROUP BY {named} HAVING count(*) > 1)"
        whose = "" if condition == "true" else f" where {condition}"
        faulty.append((twice, f"table {table}: {', '.join(keys)} occur twice{whose}"))
    for rows, fault in faulty:
        if n := store.rows(f"SELECT count(*) AS n FROM {rows}")[0]["n"]:
            yield f"{fault} ({n} rows)"
    yield from module_credit_faults(store)
    probes = store.rows("SELECT count(*) AS n, count(*) FILTER (is_headline) AS headlines FROM probes")[0]
    if probes["n"] and probes["headlines"] != 1:
        yield f"table probes: {probes['headlines']} rows are the headline, and one must be"
    yield from exactness_faults(store)
    yield from credit_faults(store)
