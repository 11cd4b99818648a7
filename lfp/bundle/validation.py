"""Read a whole bundle and list what is wrong with it, one line per fault."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lfp.bundle.exactness import credit_faults, exactness_faults, module_credit_faults
from lfp.bundle.forecasts import hash_forecast
from lfp.bundle.manifest import (
    Manifest,
    artifact_faults,
    foreign_faults,
    quoted_name,
    read_manifest,
    read_table,
    table_faults,
)
from lfp.bundle.remote.mirror import local_folder
from lfp.bundle.schema import BY_NAME, TABLES
from lfp.bundle.store.connection import Limits, Store
from lfp.bundle.tables.columns import Table, column_faults
from lfp.config import drop_retired, parse_config
from lfp.errors import BundleError, ConfigError, first_line
from lfp.evaluation.results import STATUSES
from lfp.util.types import SITES

_LISTS_WITH_NULLS = "token_scores"
"""The table whose lists have a null for each token without a score; elsewhere a list holds no null."""
_MOST_BYTES = 1 << 28
"""Bytes of one column of a group of rows, when read, up to which a table is read; four times the file's if these are
more, so that a large bundle is read, and no small file fills the memory."""
_ALL_BYTES = 1 << 29
"""Bytes that checking a bundle's contents may take, or twice those of its tables where these are more."""

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
    ("credit_sums", "text_id", "texts", "text_id"), ("drift", "feature_id", "features", "feature_id"),
    ("drift", "probe_id", "probes", "probe_id"), ("word_features", "feature_id", "features", "feature_id"),
    ("saes", "layer", "layers", "layer"),
    ("interventions", "layer", "layers", "layer"), ("differences", "layer", "layers", "layer"),
    ("credit_sums", "layer", "layers", "layer"), ("module_credits", "layer", "layers", "layer"),
    ("feature_trajectory", "feature_id", "features", "feature_id"), ("credits", "example_text_ids", "texts", "text_id"),
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
    ("feature_credits", "len(feature_ids) = len(positions) AND len(credits) = len(positions) AND "
     "len(next_credits) = len(positions)", "positions, feature_ids and credits differ in length"),
    ("feature_credits", "list_sort(positions) = positions", "positions do not rise"),
    ("credits", "len(example_text_ids) = len(example_positions) AND len(example_credits) = len(example_positions)",
     "the lists of examples differ in length"),
    ("histograms", "len(edges) = len(counts) + 1 AND len(base_counts) = len(counts)", "bins and edges do not match"),
    ("examples", "position BETWEEN window_start AND window_start + len(window_values) - 1",
     "the position is outside the window"),
    ("examples", "bucket >= 0 OR activation = 0", "an example of silence is active"),
    ("examples", "bucket != -2 OR list_max(window_values) = 0", "the window of a near miss is not silent"),
)  # fmt: skip
"""Table, what must hold in each of its rows, and the fault where it does not. `rn` is the row's number from 0."""

_SITES, _ROLES = (*SITES,), ("tuned", "base")
_NAMED: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("saes", "site", _SITES), ("features", "site", _SITES), ("ablations", "site", _SITES),
    ("differences", "site", _SITES), ("results", "site", _SITES), ("credit_sums", "site", _SITES),
    ("interventions", "site", _SITES), ("saes", "model", _ROLES), ("probes", "model", _ROLES),
    ("completions", "model", (*_ROLES, "ablated")), ("texts", "split", ("train", "held_out")),
    ("ablations", "kind", ("related", "weighted", "both", "feature", "chosen", "control")),
    ("texts", "role", ("text", "chosen", "rejected")), ("labels", "status", ("ok", "failed")),
    ("drift", "status", STATUSES), ("neighbours", "kind", ("decoder_cosine", "coactivation")),
    ("interventions", "kind", ("feature", "control")), ("probes", "kind", ("ridge", "logistic", "difference_in_means")),
    ("probes", "pooling", ("last", "mean", "sum", "response", "max")),
    *((table, "path", ("full", "same_position")) for table in ("credit_sums", "module_credits", "word_credits")),
)  # fmt: skip
"""Table, column, and the values that the schema names; null is checked elsewhere."""

_CHANCES = tuple(
    (table.name, column.name)
    for table in TABLES for column in table.columns if column.name in ("p", "q") or column.name.endswith(("_p", "_q"))
)  # fmt: skip
"""Table and column of p-values and false discovery rates, which are from 0 to 1."""

_INTERVALS = tuple(
    (table.name, column.name.removesuffix("_low"))
    for table in TABLES for column in table.columns
    if column.nullable and column.name.endswith("_low")
)  # fmt: skip
"""Table and stem of the intervals that a row may lack: it has both ends, or neither."""

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
    faults = [*foreign_faults(path, manifest), *_config_faults(manifest)]
    if faults:
        return faults
    try:
        faults += [*table_faults(path, manifest, with_hashes=True), *artifact_faults(path, manifest)]
        shape = [fault for table in TABLES for fault in _shape_faults(path, table, manifest)]
    except OSError as error:
        return [*faults, f"{quoted_name(str(error.filename))} cannot be read ({error.strerror})"]
    faults += shape
    if not shape:
        faults += _forecast_faults(path, manifest)
        memory = f"{max(_ALL_BYTES, 2 * manifest.bytes) >> 20}MiB"
        try:
            with Store(path, manifest, limits=Limits(memory=memory)) as store:
                faults += _content_faults(store)
        except BundleError as error:
            faults.append(f"its tables cannot be compared ({error})")
    return faults


def _config_faults(manifest: Manifest) -> Iterator[str]:
    try:
        parse_config(drop_retired(manifest.config), where="its config")
    except ConfigError as error:
        yield quoted_name(str(error), length=400)


def _forecast_faults(path: Path, manifest: Manifest) -> Iterator[str]:
    """Compare the table `forecast` with the hash that was made before the model was tuned."""
    table = read_table(path, "forecast")
    if not table.num_rows and manifest.forecast_sha256 is None:
        return
    if manifest.forecast_sha256 != hash_forecast(table):
        yield "table forecast is not what was forecast before the tuning (its hash in the manifest differs)"


def _shape_faults(path: Path, table: Table, manifest: Manifest) -> list[str]:
    """Check a table by itself: readable, columns and types, values, number of rows, order."""
    file = path / f"{table.name}.parquet"
    if not file.is_file():
        return [f"table {table.name} cannot be read"] if table.name in manifest.tables else []
    try:
        most = max(_MOST_BYTES, 4 * file.stat().st_size)
        with pq.ParquetFile(file) as opened:
            wrong = [*column_faults(table, opened.schema_arrow), *_size_faults(opened.metadata, table, most)]
            names = [opened.schema.column(i) for i in range(len(opened.schema))]
        if wrong:
            return wrong
        strings = [column.path for column in names if column.physical_type == "BYTE_ARRAY"]
        with pq.ParquetFile(file, read_dictionary=strings) as opened:
            return [*_value_faults(opened, table, most)] or [*_row_faults(opened, table, manifest)]
    except (pa.ArrowException, OSError, ValueError) as error:
        return [f"table {table.name} cannot be read ({quoted_name(first_line(error))})"]


def _size_faults(metadata: pq.FileMetaData, table: Table, most: int) -> Iterator[str]:
    """Look for columns that take more memory to read than any table written here; of strings `_value_faults` does."""
    for group in range(metadata.num_row_groups):
        for number in range(metadata.num_columns):
            column = metadata.row_group(group).column(number)
            width = {"INT64": 8, "DOUBLE": 8, "INT96": 12, "BYTE_ARRAY": 4}.get(column.physical_type, 4)
            n_bytes = max(column.total_uncompressed_size, column.num_values * width)
            if n_bytes > most:
                yield _too_large(table, column.path_in_schema.partition(".")[0], n_bytes, most)


def _too_large(table: Table, column: str, n_bytes: int, most: int) -> str:
    return (
        f"table {table.name}: column {column} has {n_bytes / 1e6:.0f} MB in one group of rows, and up to"
        f" {most / 1e6:.0f} are read"
    )


def _row_faults(file: pq.ParquetFile, table: Table, manifest: Manifest) -> Iterator[str]:
    stated = manifest.tables[table.name].rows if table.name in manifest.tables else 0
    if file.metadata.num_rows != stated:
        yield f"table {table.name} has {file.metadata.num_rows} rows where the manifest says {stated}"
    names = [key for key in table.sorted_by if key in file.schema_arrow.names]
    if not all(map(_is_sorted, _overlapping_keys(file, names))):
        yield f"table {table.name} is not sorted by {', '.join(table.sorted_by)}"


def _overlapping_keys(file: pq.ParquetFile, names: list[str]) -> Iterator[pa.Table]:
    """Yield the keys of each group of rows, after the last row of the group before."""
    last: pa.Table | None = None
    for group in range(file.num_row_groups):
        rows = file.read_row_group(group, names)
        plain = pa.table([pc.cast(rows[name], _plain(rows[name].type)) for name in names], names)
        yield plain if last is None else pa.concat_tables([last, plain])
        last = plain.slice(len(plain) - 1) if len(plain) else last


def _plain(type_: pa.DataType) -> pa.DataType:
    return type_.value_type if pa.types.is_dictionary(type_) else type_


def _is_sorted(keys: pa.Table) -> bool:
    order = pc.sort_indices(keys, sort_keys=[(name, "ascending") for name in keys.column_names])
    return bool(order.equals(pa.array(range(len(order)), pa.uint64())))


def _value_faults(file: pq.ParquetFile, table: Table, most: int) -> Iterator[str]:
    """Look for nulls where none may be, numbers that are NaN or infinite, also inside lists, and more text than `most`.

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
                if (n_bytes := _count_bytes(leaf)) > most:
                    yield _too_large(table, column.name, n_bytes, most)
                    return
                n_inside += leaf.null_count if leaf is not values else 0
                if pa.types.is_floating(leaf.type):
                    n_infinite += pc.sum(pc.invert(pc.is_finite(leaf))).as_py() or 0
        if n_null and not column.nullable:
            yield f"table {table.name}: column {column.name} is null in {n_null} rows and must not be"
        if n_inside and table.name != _LISTS_WITH_NULLS:
            yield f"table {table.name}: column {column.name} has {n_inside} nulls inside its lists and must not"
        if n_infinite:
            yield f"table {table.name}: column {column.name} has {n_infinite} values that are NaN or infinite"


def _count_bytes(values: pa.ChunkedArray) -> int:
    """Count the bytes of strings that are read as a dictionary, each as often as it occurs; 0 of anything else."""
    if not pa.types.is_dictionary(values.type):
        return 0
    lengths = (pc.binary_length(chunk.dictionary).take(chunk.indices) for chunk in values.chunks)
    return sum(pc.sum(chunk.cast(pa.int64())).as_py() or 0 for chunk in lengths)


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
    for table, column, values in _NAMED:
        faulty.append(
            (
                f'{table} WHERE "{column}" NOT IN {values}',
                f"table {table}: {column} is not a value that the schema names",
            )
        )
    for table, column in _CHANCES:
        faulty.append((f'{table} WHERE "{column}" NOT BETWEEN 0 AND 1', f"table {table}: {column} is not from 0 to 1"))
    for table, stem in _INTERVALS:
        rows = f'{table} WHERE ("{stem}_low" IS NULL) <> ("{stem}_high" IS NULL)'
        faulty.append((rows, f"table {table}: one of {stem}_low and {stem}_high is null"))
        if stem in BY_NAME[table].schema.names:
            rows = f'{table} WHERE "{stem}" IS NULL AND "{stem}_low" IS NOT NULL'
            faulty.append((rows, f"table {table}: {stem} is null and has an interval"))
    sizes = "(SELECT text_id, len(token_ids) AS n FROM texts) s"
    placed = "(SELECT unnest(example_text_ids) AS text_id, unnest(example_positions) AS position FROM credits)"
    rows = f"{placed} t JOIN {sizes} ON s.text_id = t.text_id WHERE t.position NOT BETWEEN 0 AND n - 1"
    faulty.append((rows, "table credits: an example is no token of its text"))
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
