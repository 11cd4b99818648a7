"""What this machine can do and what a process took of it: the ceilings that benchmarks are quoted against."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Ceiling:
    """GFLOP/s of a float32 matrix product of 2048 x 2048, with the threads torch has."""

    matmul: float
    """As `a @ b` has it, which is what other tools' figures are quoted against."""
    best: float
    """By the faster of the two libraries that torch has for it."""


def gemm_ceiling(device: str = "cpu", *, n: int = 2048, seconds: float = 1.0) -> Ceiling:
    """What matrix products reach on this machine right now."""
    import torch

    from lfp.ml.product import affine

    left, right = torch.randn(2, n, n, device=device).unbind()
    with torch.no_grad():
        matmul, other = (_rate(product, n, seconds) for product in (lambda: left @ right, lambda: affine(left, right)))
    return Ceiling(matmul, max(matmul, other))


def _rate(product: Callable[[], Tensor], n: int, seconds: float) -> float:
    float(product()[0, 0])
    done, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        float(product()[0, 0])  # waits, where the product is another device's
        done += 1
    return done * 2 * n**3 / (time.perf_counter() - started) / 1e9


def peak_rss_mb() -> float:
    """The most memory this process has held, in megabytes of 10^6 bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024) / 1e6
