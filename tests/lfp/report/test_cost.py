"""What stages took: rows of the report from the manifest alone, and what is said of them."""

from __future__ import annotations

from lfp.bundle.manifest import Hardware, Manifest, ModelInfo, StageCost
from lfp.report.rows import build_report
from lfp.report.sentences.common import ABSENT
from lfp.report.sentences.sections import sentence
from lfp.report.summary import cost_rows, stage_costs, total_cost
from lfp.report.text import format_report

STAGES = [
    StageCost(name="corpus", seconds=6.0),
    StageCost(name="base", seconds=900.0, cpu_seconds=1500.0, peak_rss_mb=1800.0),
    StageCost(name="tuned", seconds=300.0, cpu_seconds=600.0, peak_rss_mb=2100.5),
]
MODEL = ModelInfo(name="m", revision=None, parameters=1, sha256="ab" * 32)
MACHINE = Hardware(processor="Abacus 9", cores=2, memory_gb=24.5, gpu="Slate 100")


def manifest(stages: list[StageCost], hardware: Hardware | None = None) -> Manifest:
    return Manifest(
        title="A run", config={}, seed=0, models={"base": MODEL, "tuned": MODEL}, hook_points=[], labeller="",
        versions={}, licence="", notes="", schema_version=1, bundle_id="f00d", created_at="2026-01-02T00:00:00",
        tables={}, stages=stages, hardware=hardware,
    )  # fmt: skip


def test_a_stage_brings_what_is_known_of_it() -> None:
    rows = cost_rows(manifest(STAGES, MACHINE))
    values = {(row.group, row.metric): row.value for row in rows}
    assert values == {
        ("corpus", "minutes"): 0.1,
        ("base", "minutes"): 15.0, ("base", "cpu_minutes"): 25.0,
        ("base", "peak_rss_mb"): 1800.0,
        ("tuned", "minutes"): 5.0, ("tuned", "cpu_minutes"): 10.0, ("tuned", "peak_rss_mb"): 2100.5,
        ("Abacus 9", "cores"): 2.0, ("Abacus 9", "memory_gb"): 24.5, ("Slate 100", "gpus"): 1.0,
    }  # fmt: skip
    assert {row.report_row for row in rows} == {"cost"}


def test_all_stages_add_up_where_each_is_known() -> None:
    total = total_cost(stage_costs(manifest(STAGES)))
    assert total.minutes == 20.1 and total.peak_rss_mb == 2100.5
    assert total.cpu_minutes is None
    whole_ = total_cost(stage_costs(manifest(STAGES[1:])))
    assert whole_.cpu_minutes == 35.0


def test_the_sentence_adds_up() -> None:
    said = sentence("cost", cost_rows(manifest(STAGES, MACHINE)))
    assert "3 stages took 20.1 minutes" in said and "2,100 MB" in said
    assert "on 2 cores of Abacus 9, 24.5 GB, Slate 100." in said


def test_cost_is_the_last_section_and_has_a_line_a_stage_in_their_order() -> None:
    report = build_report([], [], cost_rows(manifest(STAGES, MACHINE)))
    assert list(report)[-1] == "cost"
    text = format_report(report).split("\n")
    words = [line.split() for line in text[text.index("cost") :]]
    heads = next(i for i, line in enumerate(words) if line[:1] == ["stage"])
    assert words[heads + 1 : heads + 4] == [
        ["corpus", "0.100"], ["base", "15", "25", "1,800"], ["tuned", "5", "10", "2,100"],
    ]  # fmt: skip


def test_a_bundle_that_does_not_say_has_no_figure() -> None:
    assert cost_rows(manifest([])) == [] and sentence("cost", build_report([])["cost"]) == ABSENT
