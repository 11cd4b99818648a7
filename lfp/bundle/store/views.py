"""The views of a bundle in SQL: one per table over its Parquet files, and what is derived from them."""

from __future__ import annotations

import glob
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from lfp.bundle.manifest import Manifest
from lfp.bundle.schema import TABLES
from lfp.bundle.tables.columns import Table, column_faults
from lfp.errors import BundleError
from lfp.evaluation.results import RATE
from lfp.util.types import UNLABELLED

_FIRES_ON = f"""
CASE WHEN len(f.top_tokens) > 0 THEN '{UNLABELLED}' || array_to_string(
    ['“' || trim(item.token) || '”' FOR item IN f.top_tokens[:3]], ', ') END
"""
_BEYOND_CHANCE, _BY_PERSON, _OTHER, _FAILED = range(4)
BEST_FIRST = """
standing, score_ci_low DESC NULLS LAST, starts_with(labeller, 'human:') DESC, model IS NOT NULL DESC, created_at DESC,
labeller
"""
"""The order of labels that `standings` returns: see BEST_LABELS."""


def standings(where: str = "true") -> str:
    """Return SQL for the labels that pass a condition, each with how far it is to be believed, best first from 0."""
    return f"""
SELECT *, CASE WHEN status <> 'ok' OR description IS NULL THEN {_FAILED}
    WHEN score_ci_low > 0.5 AND coalesce(score_q <= {RATE}, true) THEN {_BEYOND_CHANCE}
    WHEN starts_with(labeller, 'human:') AND score_detection IS NULL THEN {_BY_PERSON}
    ELSE {_OTHER} END AS standing
FROM labels WHERE {where}
"""


BEST_LABELS = f"""
SELECT *, CASE WHEN standing IN ({_BEYOND_CHANCE}, {_BY_PERSON}) OR description = 'never active' THEN description
    ELSE max(description) FILTER (starts_with(description, '{UNLABELLED}')) OVER (PARTITION BY feature_id) END AS name
FROM ({standings()})
QUALIFY 1 = row_number() OVER (PARTITION BY feature_id ORDER BY {BEST_FIRST})
"""
"""The label that speaks for each feature, and its name. Of labels that predict held-out texts beyond chance it is the
one whose detection has the highest lower bound; a person's label that nobody scored comes after those. The name is its
description; where no label predicts anything it is what the rule says of an unlabelled feature, if it says that."""

FEATURE_TABLE = f"""
SELECT f.*, f.top_tokens[1].token AS top_token, f.pos_logits[1].token AS raised_token,
    f.neg_logits[1].token AS lowered_token,
    chr(10) || array_to_string([lower(trim(item.token)) FOR item IN f.top_tokens], chr(10)) || chr(10) AS token_words,
    w.weight, w.ci_low, w.ci_high, w.mean_contribution, w.mean_abs_contribution, w.share, w.rank, w.null_high,
    w.q, w.beats_null, d.status, d.sign_flipped, d.weight_base, d.drifted_contribution, d.rank AS drift_rank,
    d.unexplained_contribution, c.credit, c.ci_low AS credit_low, c.ci_high AS credit_high, c.abs_credit,
    c.rank AS credit_rank, c.unexplained_credit, c.twin_difference, c.twin_q, c.beyond_twins, c.promotes,
    c.demotes,
    l.labeller, coalesce(l.name, {_FIRES_ON}) AS description,
    lower(coalesce(l.name, {_FIRES_ON})) AS description_words, label_words,
    l.related, l.confidence, l.agreement, l.score_detection, l.score_fuzzing
FROM features f
LEFT JOIN (SELECT * FROM weights WHERE probe_id = (SELECT min(probe_id) FROM probes WHERE is_headline)) w
    USING (feature_id)
LEFT JOIN drift d USING (feature_id)
LEFT JOIN credits c USING (feature_id)
LEFT JOIN ({BEST_LABELS}) l USING (feature_id)
LEFT JOIN (
    SELECT feature_id, lower(string_agg(description, chr(10))) AS label_words FROM labels
    WHERE model IS NOT NULL OR starts_with(labeller, 'human:') GROUP BY feature_id
) r USING (feature_id)
"""
"""A feature's own columns, the headline weight, its drift, its credit, and the label that speaks for it: see
BEST_LABELS. The `description` is its name: without one, the tokens on which it fires most. `token_words` has its top
tokens, trimmed and in small letters, each between line ends; `description_words` is the description in small letters,
and `label_words` what people and models say: all three are there to be searched."""

UNNESTED = """
SELECT text_id, unnest(positions) AS position, unnest(feature_ids) AS feature_id, unnest("values") AS value
FROM activations
"""
"""Activations, one row per text, token and feature."""
ACTIVE_TOKENS = f"{UNNESTED} ORDER BY feature_id, text_id, position"
"""The same by feature, as a sorted copy keeps it."""
_ACTIVE_OF = f"SELECT * FROM ({UNNESTED} WHERE list_contains(feature_ids, wanted)) WHERE feature_id = wanted"
RESPONSES = """
SELECT text_id, n_tokens, is_pooled, len([1 FOR pooled IN is_pooled IF pooled]) AS n_pooled FROM (
    SELECT t.text_id, len(token_starts) AS n_tokens,
        CASE WHEN list_contains(s.in_response, true) THEN s.in_response
            ELSE [place >= (CASE WHEN response_start < len(token_starts) THEN response_start ELSE 0 END)
                  FOR place IN range(len(token_starts))] END AS is_pooled
    FROM texts t LEFT JOIN (SELECT text_id, in_response FROM token_scores) s ON s.text_id = t.text_id
)
"""
"""The tokens of each text that response pooling averages: those of its responses, or all where none was read."""
_POOLED = """
SELECT active.text_id, feature_id, CASE {pooling}
    WHEN 'sum' THEN sum(value::DOUBLE)
    WHEN 'max' THEN max(value)::DOUBLE
    WHEN 'last' THEN coalesce(sum(value::DOUBLE) FILTER (position = n_tokens - 1), 0)
    WHEN 'response' THEN coalesce(sum(value::DOUBLE) FILTER (is_pooled[position + 1]), 0) / n_pooled
    ELSE sum(value::DOUBLE) / n_tokens END AS pooled
FROM ({active}) active
JOIN responses ON responses.text_id = active.text_id
GROUP BY active.text_id, feature_id, n_tokens, n_pooled
"""


def pooled(active: str, *, pooling: str) -> str:
    """Return SQL for features pooled over the tokens that `pooling` (SQL too) names, one row per text and feature."""
    return _POOLED.format(active=active, pooling=pooling)


_HEADLINE_POOLING = "(SELECT pooling FROM probes WHERE is_headline ORDER BY probe_id LIMIT 1)"
USUAL = f"""
SELECT feature_id, sum(pooled) / (SELECT count(*) FROM activations) AS pooled
FROM ({pooled(UNNESTED, pooling=_HEADLINE_POOLING)}) GROUP BY feature_id
"""
"""Each feature, pooled as the headline probe does, in the average of the texts whose activations are kept."""
KEPT = {"responses": f"{RESPONSES} ORDER BY text_id", "active_tokens": ACTIVE_TOKENS, "usual": USUAL}
"""What a sorted copy keeps besides tables and features: by name, as SQL."""


JOINED_BYTES = 48 << 20
"""Size of tables up to which features are joined once."""
DERIVED = {
    "responses": f"CREATE VIEW responses AS {RESPONSES}",
    "active_of": f"CREATE MACRO active_of(wanted) AS TABLE {_ACTIVE_OF}",
    "usual": f"CREATE VIEW usual AS {USUAL}",
}
"""What is computed from the tables, without a sorted copy, and how it is created."""


def create(connection: duckdb.DuckDBPyConnection, path: Path, manifest: Manifest, *, kept: frozenset[str]) -> None:
    """Create views of all tables of the bundle at `path` except those `kept` elsewhere.

    Raises BundleError for a table that cannot be read, or whose columns are not those of the schema.
    """
    for table in TABLES:
        if table.name in kept:
            continue
        if table.added_later and table.name not in manifest.tables:
            connection.from_arrow(table.schema.empty_table()).create(table.name)
            continue
        file = path / f"{table.name}.parquet"
        try:
            for fault in column_faults(table, pq.read_schema(file)):
                raise BundleError(f"{path}: {fault}; make the bundle again")
            _view(connection, file, table)
        except (duckdb.Error, pa.ArrowException, OSError, ValueError) as error:
            raise BundleError(f"{path}: table {table.name} cannot be read; copy the bundle again") from error


def add_derived(connection: duckdb.DuckDBPyConnection, *, copy: str | None = None) -> None:
    """Create `responses`, `active_of(feature_id)`, the tokens that a feature is active on, and `usual`: see USUAL.

    They are read from the attached database `copy`, where a sorted copy keeps all three, and computed otherwise.
    """
    if copy is None:
        for sql in DERIVED.values():
            connection.execute(sql)
        return
    of_feature = f"SELECT * FROM {copy}.active_tokens WHERE feature_id = wanted"
    connection.execute(f"CREATE MACRO active_of(wanted) AS TABLE {of_feature}")
    for name in ("responses", "usual"):
        connection.execute(f"CREATE VIEW {name} AS FROM {copy}.{name}")


def create_feature_table(connection: duckdb.DuckDBPyConnection, manifest: Manifest) -> None:
    """Create `feature_table`: joined once where the bundle is small, by each query where it is large or faulty."""
    try:
        kind = "VIEW" if manifest.bytes >= JOINED_BYTES else "TABLE"
        connection.execute(f"CREATE {kind} feature_table AS {FEATURE_TABLE}")
    except duckdb.Error:
        connection.execute(f"CREATE VIEW feature_table AS {FEATURE_TABLE}")


def _view(connection: duckdb.DuckDBPyConnection, file: Path, table: Table) -> None:
    """Create a view of the file; columns added to the schema since it was written have their default, or are null."""
    name = glob.escape(str(file))  # read_parquet takes a pattern, and a folder may be called run[1]
    rows = connection.read_parquet(name)
    missing = [column for column in table.columns if column.name not in rows.columns]
    if not any(column.nullable or column.default is not None for column in missing):
        rows.create_view(table.name)
        return
    connection.from_arrow(table.schema.empty_table()).create(f"no_{table.name}")
    connection.read_parquet(name).create_view(f"kept_{table.name}")
    defaults = "".join(f", '{column.default}' AS {column.name}" for column in missing if column.default is not None)
    connection.sql(f"FROM no_{table.name} UNION ALL BY NAME SELECT *{defaults} FROM kept_{table.name}").create_view(
        table.name
    )
