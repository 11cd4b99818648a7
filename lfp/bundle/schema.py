"""The schema of a bundle: its tables in order, and the page data/README.md that is generated from them."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from lfp.bundle.tables.columns import Table
from lfp.bundle.tables.credits import (
    CREDIT_SUMS,
    CREDITS,
    FEATURE_CREDITS,
    FEATURE_TRAJECTORY,
    INTERVENTIONS,
    MODULE_CREDITS,
    TRAJECTORY,
    WORD_CREDITS,
)
from lfp.bundle.tables.features import ABLATIONS, DECODERS, EXAMPLES, FEATURES, HISTOGRAMS, LABELS, NEIGHBOURS
from lfp.bundle.tables.models import COMPLETIONS, DIFFERENCES, FORECAST, LAYERS, SAES, TUNING, TWINS
from lfp.bundle.tables.probes import DRIFT, PROBES, RESULTS, WEIGHTS
from lfp.bundle.tables.texts import ACTIVATIONS, TEXTS, TOKEN_SCORES, TRIPLES, VOCABULARY, WORD_FEATURES
from lfp.config_page import write_page

SCHEMA_VERSION = 1
"""Increased when a column changes its meaning or is removed; new columns and tables do not change it."""

# fmt: off
TABLES: tuple[Table, ...] = (
    LAYERS, SAES, FEATURES, DECODERS, HISTOGRAMS, EXAMPLES, TEXTS, TOKEN_SCORES, MODULE_CREDITS, WORD_CREDITS,
    ACTIVATIONS, TRIPLES,
    VOCABULARY, WORD_FEATURES, PROBES, WEIGHTS, DRIFT, RESULTS, NEIGHBOURS, LABELS, ABLATIONS, COMPLETIONS,
    TUNING, TRAJECTORY, FEATURE_TRAJECTORY, TWINS, FEATURE_CREDITS, CREDIT_SUMS, CREDITS, INTERVENTIONS, FORECAST,
    DIFFERENCES,
)
# fmt: on
BY_NAME: dict[str, Table] = {table.name: table for table in TABLES}


def as_table(name: str, values: Sequence[Mapping[str, Any]] | Mapping[str, Any]) -> pa.Table:
    """Build an Arrow table of that schema from rows (mappings) or columns (a mapping to arrays or lists)."""
    schema = BY_NAME[name].schema
    if not isinstance(values, Mapping):
        return pa.Table.from_pylist(list(values), schema=schema)
    arrays = []
    for field in schema:
        column = values[field.name]
        arrays.append(column.cast(field.type) if isinstance(column, pa.Array) else pa.array(column, type=field.type))
    return pa.Table.from_arrays(arrays, schema=schema)


def markdown() -> str:
    """Write the schema as a page, data/README.md."""
    parts = [_PREFACE]
    for table in TABLES:
        parts.append(f"## {table.name}\n\nA row is {table.row}. Sorted by {', '.join(table.sorted_by)}.\n")
        parts.append("| column | type | unit | null | meaning |\n| --- | --- | --- | --- | --- |")
        for column in table.columns:
            type_ = str(column.type).replace("element: ", "").replace("halffloat", "float16").replace("child 0, ", "")
            null, meaning = "yes" if column.nullable else "", column.meaning.replace("|", "\\|")
            parts.append(f"| `{column.name}` | {type_} | {column.unit} | {null} | {meaning} |")
        parts.append("")
    return "\n".join(parts)


_PREFACE = f"""# Bundles: the tables and their columns

A bundle is one folder that holds one run: `manifest.json`, a Parquet file per table, and `artifacts/` (the models and
autoencoders, where the run kept them). This page is made from `lfp/bundle/tables/` by `make docs`; change it there.
`demo/` beside this page is the bundle that the explorer opens by itself. Schema version {SCHEMA_VERSION}.

The manifest says what was run (`config`, `seed`, `models`: `bundle_id` is their hash), what
is here (`tables`, `artifacts`), and what it took: `stages`, a list of name, seconds, cpu_seconds and peak_rss_mb
(megabytes of 10^6 bytes; null where the system does not tell), and `hardware` (processor, cores, memory_gb, gpu), which
older bundles lack. Nothing in a table depends on the clock.

A feature is read from a layer at a site: the MLP's output, the residual stream after the layer, or the attention's
output. A bundle without the column `site` reads MLP outputs alone. A scaled activation is a feature's value after the
activations of its layer and site were scaled to unit mean square norm (`saes.scale`, in older bundles `layers.scale`).
`predicted` is the headline probe's: contributions (weight times activation, over the tokens pooled)
and the intercept sum to it within 1e-5. Pooling (`probes.pooling`) says what a token counts for: `mean` 1 / n of the n
tokens, `response` the same among the tokens of the response (all of them where there is none), `sum` 1, `last` 1 for
the last token alone; `max` gives a feature's largest activation to the first token that has it. Padding and
beginning-of-sequence count for nothing. `token_scores.predicted` is, whatever the pooling, weight times activation on
one token, plus the intercept: its mean is the text's prediction under `mean`, its last value under `last`.

The second ledger splits `texts.predicted_raw`, the estimate of the probe `v` that reads the activations themselves, the
same way: `raw_weight` times activation over the tokens pooled, `raw_bias` (once per token under `sum`),
`raw_intercept`, and `sae_miss`. They sum to it within 1e-5 of the sum of their sizes. Where an autoencoder normalises
its inputs no constant weight per feature exists: `raw_weight` and `raw_bias` are null, and `sae_miss` stands alone.
"""


if __name__ == "__main__":
    sys.exit(write_page(markdown(), sys.argv[1:], source="lfp/bundle/tables"))
