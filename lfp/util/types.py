"""Types that many modules share, arrays by what they hold, and columns of Arrow tables as arrays."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple, get_args

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Floats32 = NDArray[np.float32]
Ints = NDArray[np.int64]
Indices = NDArray[np.intp]
"""Indices of rows, as numpy's own sorts give them."""
Hashes = NDArray[np.uint64]
Flags = NDArray[np.bool_]
CHECKPOINTS = "checkpoints"
"""Folder of the models that a tuning kept on its way, as step-N: in its stage's output and in a bundle's artifacts."""
Progress = Callable[[str, int, int, float], None]
"""Called as progress(what, done, total, value); value is the job's own figure, such as a loss."""
Site = Literal["mlp_out", "resid_post", "attn_out"]
"""Where in a layer activations are read: the MLP's output, the residual stream after the layer, attention's output."""
SITES: tuple[Site, ...] = get_args(Site)
SITE_NAMES: Mapping[str, str] = {
    "mlp_out": "MLP output",
    "resid_post": "residual stream",
    "attn_out": "attention output",
}
"""Each site as people read it."""
UNLABELLED = "unlabelled: fires on "
"""Beginning of a feature's name that lists what it fires on where no label predicts this better than chance."""

Role = Literal["tuned", "base"]
"""A model of the pair."""
ROLES: tuple[Role, ...] = get_args(Role)
Reads = Literal["activations", "change", "pair"]
"""What a dictionary reads at a token: a model's activations, what tuning changed of them, or those of both models."""


class Place(NamedTuple):
    """A site of a layer. Places sort in the order of the forward pass."""

    layer: int
    site: Site = "mlp_out"

    def __str__(self) -> str:
        return f"layer {self.layer}" + (f", {SITE_NAMES[self.site]}" if self.site != "mlp_out" else "")


def floats(table: pa.Table, name: str) -> Floats:
    """A column of numbers or flags as float64 [rows], NaN where it is null. Raises KeyError where there is none."""
    return np.asarray(table[name].cast(pa.float64()).to_numpy(zero_copy_only=False), np.float64)
