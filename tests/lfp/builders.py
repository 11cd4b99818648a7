"""Small things that several tests build: real data where there is any, files, features, sentences, autoencoders."""

from __future__ import annotations

import csv
import gzip
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scipy.sparse as sp

if TYPE_CHECKING:
    from lfp.ml.sae.autoencoders import Sae, Variant

ROOT = Path(__file__).parents[2]


def data_file(name: str) -> Path:
    """A file of the real data; skips the test where it is absent."""
    path = Path(os.environ.get("LFP_DATA", ROOT / ".." / "shared" / "data")) / name
    if not path.is_file():
        pytest.skip(f"no real data at {path}")
    return path


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Writes rows in the format that the file is named for; other names than these hold texts between empty lines."""
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    if path.name.endswith(".gz"):
        path.write_bytes(gzip.compress(lines.encode()))
    elif path.suffix == ".jsonl":
        path.write_text(lines, encoding="utf-8")
    elif path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".csv":
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
    else:
        path.write_text("".join(f"{row['text']}\n\n" for row in rows), encoding="utf-8")
    return path


def sparse_features(rows: int, features: int, *, seed: int = 0, density: float = 0.4) -> sp.csr_array:
    """Non-negative features, most of them zero."""
    rng = np.random.default_rng(seed)
    return sp.csr_array(rng.exponential(size=(rows, features)) * (rng.random((rows, features)) < density))


def tiny_sae(
    *,
    variant: Variant = "tied_relu",
    width: int = 12,
    d_in: int = 6,
    layer: int = 0,
    scale: float = 0.37,
    seed: int = 0,
) -> Sae:
    """An autoencoder with random weights, biases too; topk keeps 3 features, tied rows are of unit length."""
    import torch

    from lfp.ml.sae.autoencoders import SAES, SaeInfo

    k = 3 if variant in ("topk", "batchtopk") else None
    sae = SAES[variant](SaeInfo(layer, width, d_in, scale, 0.06, seed, "tuned", variant, k)).requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in sae.state_dict().items():
        noise = torch.randn(tensor.shape, generator=generator)
        tensor.copy_(noise.abs() if name == "threshold" else noise)
    if sae.tied:
        sae.W_dec.div_(sae.W_dec.norm(dim=1, keepdim=True))
    return sae
