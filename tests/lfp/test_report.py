"""The report: rows of figures, grouped for JSON with none lost, laid out for people."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given

from lfp.metrics import Estimate
from lfp.report import ROWS, ablation_rows, grouped, lines, result, whole
from lfp.report_sentences import ABSENT, headline, sentence
from lfp.report_tables import number, tables
from tests.lfp.result_rows import result_rows

FULL = Estimate(0.5, 40, 0.25, 0.75, null_mean=0.0, null_high=0.125, null_p=0.004)


def test_a_plain_figure_has_no_interval() -> None:
    assert result("reward", "reward", 2, model="base", n=9) == {
        "report_row": "reward", "metric": "reward", "value": 2.0, "model": "base", "n": 9,
    }  # fmt: skip


def test_an_estimate_brings_all_it_knows() -> None:
    row = result("kendall_tau", "tau", FULL, words="all")
    assert row == {
        "report_row": "kendall_tau", "metric": "tau", "words": "all", "value": 0.5, "n": 40,
        "ci_low": 0.25, "ci_high": 0.75, "null_mean": 0.0, "null_high": 0.125, "null_p": 0.004,
    }  # fmt: skip


def test_rows_are_grouped_in_reading_order_without_nulls() -> None:
    rows = [
        result("invented_row", "x", 1.0),
        result("kendall_tau", "tau", Estimate(0.0, 3), words="all", layer=None),
        result("reward", "reward", 1.0, model="tuned"),
        result("kendall_tau", "tau", FULL, words="positive", layer=0),
    ]
    report = grouped(rows)
    assert list(report) == ["reward", "kendall_tau", "invented_row"]
    assert report["kendall_tau"][0] == {"metric": "tau", "words": "all", "value": 0.0, "n": 3}
    assert report["kendall_tau"][1]["layer"] == 0
    assert "report_row" in rows[0]


@given(result_rows())
def test_the_whole_report_keeps_every_figure_and_every_row_of_the_report(rows: list[dict[str, object]]) -> None:
    report = json.loads(json.dumps(whole(rows), allow_nan=False))
    assert list(report)[: len(ROWS)] == list(ROWS)
    assert sum(map(len, report.values())) == len(rows)
    for name, figures in report.items():
        given_ = [row["value"] for row in rows if row["report_row"] == name]
        assert [f["value"] for f in figures] == [v if np.isfinite(v) else None for v in given_]


@given(result_rows())
def test_tables_show_every_figure_once(rows: list[dict[str, object]]) -> None:
    """A cell a figure, whatever the layout: told by values that nothing else has."""
    for i, row in enumerate(rows):
        row["value"] = 1000.25 + i
    for name, figures in whole(rows).items():
        shown = [cell.split(" [")[0] for table in tables(name, figures) for line in table.rows for cell in line]
        wanted = [number(figure["value"]) for figure in figures]
        assert all(shown.count(value) >= 1 for value in wanted)
        assert all(len(line) == len(table.heads) == len(table.are_figures) for table in tables(name, figures)
                   for line in table.rows)  # fmt: skip


@given(result_rows())
def test_any_figures_can_be_read_as_lines(rows: list[dict[str, object]]) -> None:
    report = whole(rows)
    text = lines(report)
    assert [line for line in text if line and not line.startswith(" ")] == list(report)
    assert all(line == line.rstrip() for line in text)


def test_people_read_a_sentence_and_an_aligned_table() -> None:
    rows = [result("kendall_tau", "tau", FULL, words="all", model="tuned", inputs="sae", target="delta")]
    report = {"kendall_tau": whole(rows)["kendall_tau"]}
    text = lines(report)
    assert text[0] == "kendall_tau" and "1 of 1 probes pass" in " ".join(text)
    heads, figures = text[-2:]
    assert figures.split() == ["delta", "sae", "tuned", "0.500", "[0.250,", "0.750]", "0", "0.125", "0.0040", "40"]
    assert heads.index("tau") + 3 == figures.index("0.500") + 5 and heads.endswith("   n")


def test_rows_stand_tuned_before_base_before_difference() -> None:
    rows = [result("reward", "reward", FULL, model=model) for model in ("base", "difference", "tuned")]
    (table,) = tables("reward", whole(rows)["reward"])
    assert [line[1] for line in table.rows] == ["tuned", "base", "difference"]


def test_bins_of_counts_stand_by_size() -> None:
    rows = [result("error_by_frequency", "error", 1.0, group=group) for group in ("10-20", "0", "4-9", "1-3")]
    (table,) = tables("error_by_frequency", whole(rows)["error_by_frequency"])
    assert [line[0] for line in table.rows] == ["0", "1-3", "4-9", "10-20"]


def test_a_row_without_figures_says_so_and_an_empty_report_has_every_row() -> None:
    report = whole([])
    assert list(report) == list(ROWS) and not any(report.values())
    assert all(sentence(name, figures) == ABSENT for name, figures in report.items())


@pytest.mark.parametrize(("low", "high", "says"), [(0.1, 0.3, "say more than the base"), (-0.1, 0.1, "zero is within"),
                                                   (-0.3, -0.1, "which no feedback reached")])  # fmt: skip
def test_the_headline_says_what_the_interval_allows(low: float, high: float, says: str) -> None:
    keys = {"words": "all", "target": "delta", "split": "held_out_words"}
    rows = [
        result("kendall_tau", "tau", FULL, model="tuned", inputs="sae", **keys),
        result("kendall_tau", "tau", FULL, model="base", inputs="base_sae", **keys),
        result("kendall_tau", "tau", Estimate(0.0, 40, low, high), model="difference", inputs="sae", **keys),
    ]
    (told,) = headline(whole(rows), "delta")
    assert says in told and "Shuffled feedback reaches 0.125" in told and "is above it" in told


def test_ablations_become_before_after_and_control() -> None:
    group = {"group": "related", "kind": "related", "control_of": None, "layer": None, "n_completions": 50,
             "reward_before": 1.0, "reward_after": 0.4, "effect": -0.6, "ci_low": -0.7, "ci_high": -0.5,
             "null_high": 0.2}  # fmt: skip
    controls = [
        {**group, "group": f"control {i}", "kind": "control", "control_of": "related", "effect": effect}
        for i, effect in enumerate((-0.1, 0.3))
    ]
    figures = {row["metric"]: row for row in ablation_rows([group, *controls])}
    assert {name: row["value"] for name, row in figures.items()} == {
        "before": 1.0, "after": 0.4, "effect": -0.6, "control": pytest.approx(0.1),
    }  # fmt: skip
    assert figures["effect"]["ci_low"] == -0.7 and figures["effect"]["null_high"] == 0.2
    assert "1 groups" in sentence("ablation", whole([], [group, *controls])["ablation"])
