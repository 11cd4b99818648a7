"""Types that many modules share: arrays by what they hold, and how a job reports its progress."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


Floats32 = NDArray[np.float32]


Ints = NDArray[np.int64]


Indices = NDArray[np.intp]
"""Indices of rows, as numpy's own sorts give them."""


Hashes = NDArray[np.uint64]


Flags = NDArray[np.bool_]


Progress = Callable[[str, int, int, float], None]
"""Called as progress(what, done, total, value); value is the job's own figure, such as a loss."""
