"""What this machine can do and what a process took of it: the ceilings that benchmarks are quoted against."""

from __future__ import annotations

import os
import platform
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lfp.bundle.manifest import Hardware

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

    from lfp.ml.models.runtime import affine

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


@dataclass(frozen=True)
class Cost:
    """What some work took: seconds by the clock, of the processor, and peak memory in megabytes of 10^6 bytes.

    Processor and memory are the whole process's, its other threads included; None where they cannot be told.
    """

    seconds: float
    cpu_seconds: float | None
    peak_rss_mb: float | None

    def after(self, earlier: Cost) -> Cost:
        """Both one after the other."""
        cpu, peak = (self.cpu_seconds, earlier.cpu_seconds), (self.peak_rss_mb, earlier.peak_rss_mb)
        return Cost(
            self.seconds + earlier.seconds,
            None if cpu[0] is None or cpu[1] is None else cpu[0] + cpu[1],
            None if peak[0] is None or peak[1] is None else max(peak[0], peak[1]),
        )


class Meter:
    """Measures what this process takes from when the meter is made."""

    def __init__(self) -> None:
        self._resets_peak = _reset_peak_rss()
        self._cpu_seconds, self._started = _cpu_seconds(), time.perf_counter()

    def cost(self) -> Cost:
        """What it took until now."""
        peak = _peak_rss_since_reset_mb() if self._resets_peak else None
        return Cost(time.perf_counter() - self._started, _cpu_seconds() - self._cpu_seconds, peak)


def _cpu_seconds() -> float:
    """Of all threads, and of child processes that ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _reset_peak_rss() -> bool:
    """Begins the peak of resident memory anew; whether the kernel lets (Linux's does)."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return False
    return True


def _peak_rss_since_reset_mb() -> float | None:
    peak = _proc_field("/proc/self/status", "VmHWM")
    return None if peak is None else int(peak.split()[0]) * 1024 / 1e6


def hardware(device: str = "cpu") -> Hardware:
    """The machine that this runs on, and the GPU's name where `device` is one."""
    return Hardware(
        processor=_proc_field("/proc/cpuinfo", "model name") or platform.processor() or platform.machine() or None,
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        memory_gb=round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        gpu=_gpu_name(device),
    )


def _gpu_name(device: str) -> str | None:
    if not device.startswith("cuda"):
        return None
    import torch

    return torch.cuda.get_device_name(device) if torch.cuda.is_available() else None


def _proc_field(file: str, name: str) -> str | None:
    """What the first line of that name says in a file of /proc; None where there is none."""
    try:
        lines = Path(file).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    return next((line.partition(":")[2].strip() for line in lines if line.partition(":")[0].strip() == name), None)
