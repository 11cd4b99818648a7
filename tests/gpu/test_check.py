"""The script for a card, run small on the CPU: every check holds against itself, and a missing card is a sentence."""

from __future__ import annotations

import sys

import pytest
import torch

from tests.gpu import check as script


def test_the_script_runs_on_a_cpu() -> None:
    rows = list(script.check("cpu"))
    checks = [row for row in rows if "check" in row]
    assert len(checks) == 7 and all(row["ok"] for row in checks)
    speeds = {row["speed"]: row for row in rows if "speed" in row}
    assert {"pass of a pair", "encode to active features", "training, topk", "training, sparsify"} <= set(speeds)
    assert all(row["share"] > 0 for row in rows if "share" in row)


def test_a_difference_beyond_the_tolerance_fails() -> None:
    row = script.compared("x", torch.tensor([1.0, float("nan")]), torch.tensor([1.1, float("nan")]), 0.01)
    assert not row["ok"] and row["largest_difference"] == pytest.approx(0.1, rel=1e-3)


def test_a_card_that_is_not_there_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(sys, "argv", ["check"])
    assert script.main() == 2
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.startswith("--device cuda: torch") and printed.err.count("\n") == 1
