"""The report: rows of figures, grouped for JSON, laid out for people."""

from __future__ import annotations

import json

from lfp.metrics import Estimate
from lfp.report import grouped, lines, result

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
    assert json.loads(json.dumps(report)) == report
    assert "report_row" in rows[0]


def test_people_read_a_block_a_row_and_a_line_a_figure() -> None:
    rows = [result("kendall_tau", "tau", FULL, words="all"), result("reward", "reward", 0.5, model="base", layer=0)]
    first, second, blank, third, fourth = lines(rows)
    assert (first, blank, third) == ("reward", "", "kendall_tau")
    assert second.split() == ["reward", "0.5000", "model=base", "layer=0"]
    assert "0.5000  [0.2500, 0.7500]  null 0.0000, 95 % 0.1250, p 0.0040  n=40  words=all" in fourth


def test_no_rows_make_an_empty_report() -> None:
    assert grouped([]) == {} and lines([]) == []
