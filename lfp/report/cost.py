"""What the stages of a run cost in time and memory: from the manifest, since no table depends on the clock."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lfp.bundle.manifest import Manifest
from lfp.evaluation.results import ResultRow


@dataclass(frozen=True)
class StageCost:
    """A stage, or all of them, in minutes and megabytes of 10^6 bytes; None where something is not known."""

    stage: str
    minutes: float
    cpu_minutes: float | None
    peak_rss_mb: float | None


def stage_costs(manifest: Manifest) -> list[StageCost]:
    """Return the cost of each stage, in the order they ran; empty where the bundle does not say."""
    return [
        StageCost(
            stage.name,
            stage.seconds / 60,
            None if stage.cpu_seconds is None else stage.cpu_seconds / 60,
            stage.peak_rss_mb,
        )
        for stage in manifest.stages
    ]


def total_cost(stages: Sequence[StageCost]) -> StageCost:
    """Return all stages as one: minutes are summed where every stage has them, and the peak is the largest."""
    cpu_minutes = [stage.cpu_minutes for stage in stages if stage.cpu_minutes is not None]
    peaks = [stage.peak_rss_mb for stage in stages if stage.peak_rss_mb is not None]
    return StageCost(
        "all",
        sum(stage.minutes for stage in stages),
        sum(cpu_minutes) if cpu_minutes and len(cpu_minutes) == len(stages) else None,
        max(peaks, default=None),
    )


def cost_rows(manifest: Manifest) -> list[ResultRow]:
    """Return section `cost` of the report: minutes, cpu_minutes and peak_rss_mb of each stage, then the machine.

    `group` is the stage, or the processor with its cores and memory_gb, or the GPU with their number.
    """
    figures = [
        (stage.stage, metric, getattr(stage, metric))
        for stage in stage_costs(manifest)
        for metric in ("minutes", "cpu_minutes", "peak_rss_mb")
    ]
    if machine := manifest.hardware:
        processor = machine.processor or "processor"
        figures += [(processor, "cores", machine.cores), (processor, "memory_gb", machine.memory_gb)]
        figures += [(machine.gpu, "gpus", 1)] if machine.gpu else []
    return [
        ResultRow.from_estimate("cost", metric, value, group=group)
        for group, metric, value in figures
        if value is not None
    ]
