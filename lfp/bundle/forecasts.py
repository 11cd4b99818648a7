"""The hash of a forecast: it is made before the model is tuned, kept in the manifest, and checked by `validate`."""

from __future__ import annotations

import hashlib
import json

import pyarrow as pa

FORECAST_COLUMNS = (
    "feature_id", "layer", "site", "density", "spread", "in_data", "in_data_low", "in_data_high", "in_data_q"
)  # fmt: skip
"""Columns of the table `forecast` that are known before tuning."""


def hash_forecast(table: pa.Table) -> str:
    """Return the SHA-256 of what the table `forecast` said before tuning: FORECAST_COLUMNS, in order, as JSON."""
    values = {name: table[name].to_pylist() for name in FORECAST_COLUMNS}
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()
