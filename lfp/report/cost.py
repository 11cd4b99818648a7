"""What the stages of a run took: from the manifest, since no table depends on the clock."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from lfp.bundle.manifest import Hardware, Manifest
from lfp.evaluation.results import ResultRow


@dataclass(frozen=True)
class Spent:
    """A stage, or all of them, in minutes and megabytes of 10^6 bytes; None where something is not known."""

    stage: str
    minutes: float
    cpu_minutes: float | None
    peak_rss_mb: float | None


def spent(manifest: Manifest) -> list[Spent]:
    """A line a stage, in the order they ran; none where the bundle does not say."""
    return [
        Spent(
            one.name,
            one.seconds / 60,
            None if one.cpu_seconds is None else one.cpu_seconds / 60,
            one.peak_rss_mb,
        )
        for one in manifest.stages
    ]


def in_all(stages: Iterable[Spent]) -> Spent:
    """All stages as one: minutes add up, where each is known, and the peak is the largest."""
    lines = list(stages)
    return Spent(
        "all",
        sum(one.minutes for one in lines),
        _sum([one.cpu_minutes for one in lines]),
        max((one.peak_rss_mb for one in lines if one.peak_rss_mb is not None), default=None),
    )


def _sum(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known and len(known) == len(values) else None


def cost_rows(manifest: Manifest) -> list[ResultRow]:
    """Row `cost` of the report: by stage minutes, cpu_minutes and peak_rss_mb, then the machine.

    `group` is the stage, or the processor with its cores and memory_gb, or the GPU with their number.
    """
    told = [
        ResultRow.from_estimate("cost", metric, value, group=one.stage)
        for one in spent(manifest)
        for metric in _STAGE_METRICS
        if (value := getattr(one, metric)) is not None
    ]
    return told + (_machine_rows(manifest.hardware) if manifest.hardware else [])


_STAGE_METRICS = ("minutes", "cpu_minutes", "peak_rss_mb")
"""Figures of a stage, as fields of Spent."""


def _machine_rows(hardware: Hardware) -> list[ResultRow]:
    processor = hardware.processor or "processor"
    figures = {"cores": hardware.cores, "memory_gb": hardware.memory_gb}
    rows = [
        ResultRow.from_estimate("cost", name, value, group=processor)
        for name, value in figures.items()
        if value is not None
    ]
    return rows + ([ResultRow.from_estimate("cost", "gpus", 1, group=hardware.gpu)] if hardware.gpu else [])
