"""What this machine can do, the ceilings that benchmarks are quoted against, and what a process took of it."""

from __future__ import annotations

import os
import platform
import resource
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from lfp.bundle.manifest import Hardware


@dataclass(frozen=True)
class Ceiling:
    """GFLOP/s of a float32 matrix product, 2048 x 2048 by default, with the threads that torch has."""

    matmul: float
    """Of `a @ b`, which figures of other tools are quoted against."""
    best: float
    """Of the faster of the two libraries that torch has for it."""


def gemm_ceiling(device: str = "cpu", *, n: int = 2048, seconds: float = 1.0) -> Ceiling:
    """Measure the rate of matrix products on this machine now, for about `seconds` per library."""
    import torch

    from lfp.ml.models.runtime import affine

    left, right = torch.randn(2, n, n, device=device).unbind()
    rates = []
    with torch.no_grad():
        for product in (lambda: left @ right, lambda: affine(left, right)):
            float(product()[0, 0])  # reading a value waits for the device
            done, started = 0, time.perf_counter()
            while time.perf_counter() - started < seconds:
                float(product()[0, 0])
                done += 1
            rates.append(done * 2 * n**3 / (time.perf_counter() - started) / 1e9)
    return Ceiling(rates[0], max(rates))


def peak_rss_mb() -> float:
    """Return the most memory that this process has held, in megabytes of 10^6 bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024) / 1e6


@dataclass(frozen=True)
class Cost:
    """What some work took: wall-clock seconds, processor seconds, and peak memory in megabytes of 10^6 bytes.

    Processor time and memory are of the whole process with all its threads; None where they cannot be measured.
    """

    seconds: float
    cpu_seconds: float | None
    peak_rss_mb: float | None

    def after(self, earlier: Cost) -> Cost:
        """Return the cost of both, one after the other: times add up, the peak is the larger."""
        cpu, peak = (self.cpu_seconds, earlier.cpu_seconds), (self.peak_rss_mb, earlier.peak_rss_mb)
        return Cost(
            self.seconds + earlier.seconds,
            None if cpu[0] is None or cpu[1] is None else cpu[0] + cpu[1],
            None if peak[0] is None or peak[1] is None else max(peak[0], peak[1]),
        )


class Meter:
    """Measures what this process takes, from the moment the meter is made."""

    def __init__(self) -> None:
        self._resets_peak = True
        try:  # Linux lets a process reset the peak of its resident memory
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        except OSError:
            self._resets_peak = False
        self._cpu_seconds, self._started = sum(os.times()[:4]), time.perf_counter()

    def cost(self) -> Cost:
        """Return the cost until now; processor seconds include those of child processes that have ended."""
        peak = _read_proc_field("/proc/self/status", "VmHWM") if self._resets_peak else None
        return Cost(
            time.perf_counter() - self._started,
            sum(os.times()[:4]) - self._cpu_seconds,
            None if peak is None else int(peak.split()[0]) * 1024 / 1e6,
        )


def hardware(device: str = "cpu") -> Hardware:
    """Describe the machine that this runs on, and the GPU where `device` names one."""
    gpu = None
    if device.startswith("cuda"):
        import torch

        gpu = torch.cuda.get_device_name(device) if torch.cuda.is_available() else None
    return Hardware(
        processor=_read_proc_field("/proc/cpuinfo", "model name") or platform.processor() or platform.machine() or None,
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        memory_gb=round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        gpu=gpu,
    )


def _read_proc_field(file: str, name: str) -> str | None:
    """Return the value on the first line of that name in a file of /proc; None where there is none."""
    try:
        lines = Path(file).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    return next((line.partition(":")[2].strip() for line in lines if line.partition(":")[0].strip() == name), None)
