"""docs/SCALE.md has the tables that the arithmetic gives, of constants that BENCHMARKS.md has rows for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.benchmarks.scale import CONSTANTS, Scenario, list_times, render

DOCS = Path(__file__).resolve().parents[1] / "docs"


def test_the_tables_are_those_of_the_script() -> None:
    page = (DOCS / "SCALE.md").read_text(encoding="utf-8")
    missing = [table.splitlines()[0] for table in render(Scenario()).split("\n\n") if table not in page]
    assert not missing, "copy what python -m tests.benchmarks.scale prints"


def test_every_constant_names_a_section_of_the_benchmarks() -> None:
    sections = (DOCS / "BENCHMARKS.md").read_text(encoding="utf-8")
    assert {f"## {constant.row.partition(',')[0]}" for constant in CONSTANTS.values()} <= set(sections.splitlines())


def test_work_grows_as_stated() -> None:
    once = {what: gpu or core for what, _, gpu, core in list_times(Scenario())}
    twice = {what: gpu or core for what, _, gpu, core in list_times(replace(Scenario(), features=2e6))}
    grown = {what: (twice[what] or 0.0) / (value or 1.0) for what, value in once.items()}
    assert grown["encode both, bf16"] == pytest.approx(2) and grown["neighbours within layers"] == pytest.approx(4)
    assert grown["forward pass of both models, bf16"] == 1
