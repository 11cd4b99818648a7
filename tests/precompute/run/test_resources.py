"""What a process took of its machine: seconds, and the peak memory of a piece of work alone."""

from __future__ import annotations

import math
import subprocess
import sys
import time
from mmap import PAGESIZE, mmap
from pathlib import Path

import pytest

from precompute.run import resources
from precompute.run.resources import Cost, Meter, hardware

needs_linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a peak can be reset on Linux only")


@needs_linux
def test_the_peak_is_of_the_work_and_not_of_what_was_before() -> None:
    first = Meter()
    with mmap(-1, 320_000_000) as held:  # not of an allocator, which may have and keep as much
        for page in range(0, len(held), PAGESIZE):
            held[page] = 1
        large = first.cost().peak_rss_mb
    second = Meter()
    small = second.cost().peak_rss_mb
    assert large is not None and small is not None and large - small > 250


def test_without_a_kernel_that_lets_the_peak_is_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(path: Path, *_: object, **__: object) -> int:
        raise PermissionError(path)

    monkeypatch.setattr(Path, "write_text", refused)
    cost = Meter().cost()
    assert cost.peak_rss_mb is None and cost.seconds >= 0


def test_seconds_are_of_the_clock_and_of_the_processor_with_its_children() -> None:
    meter = Meter()
    time.sleep(0.3)
    slept = meter.cost()
    assert slept.seconds >= 0.3 and slept.cpu_seconds is not None and slept.cpu_seconds < 0.25
    subprocess.run([sys.executable, "-c", "import time\nwhile time.process_time() < 0.4: pass"], check=True)
    worked = meter.cost()
    assert worked.cpu_seconds is not None and worked.cpu_seconds - slept.cpu_seconds >= 0.35


def test_costs_add_up_and_peaks_do_not() -> None:
    assert Cost(2.0, 3.0, 50.0).after(Cost(1.0, 1.0, 80.0)) == Cost(3.0, 4.0, 80.0)
    assert Cost(2.0, 3.0, None).after(Cost(1.0, None, 80.0)) == Cost(3.0, None, None)


def test_the_machine_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    here = hardware()
    assert here.processor and here.cores and here.cores >= 1 and here.gpu is None
    assert here.memory_gb is not None and math.isfinite(here.memory_gb) and here.memory_gb > 0
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"Slate {device}")
    assert hardware("cuda:0").gpu == "Slate cuda:0" and hardware("cpu").gpu is None


def test_a_file_of_proc_that_is_not_there_says_nothing() -> None:
    assert resources._read_proc_field("/proc/self/none", "VmHWM") is None
