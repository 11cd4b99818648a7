"""Progress as plain lines: what, how far, and between the first and the last line the rate and the time left."""

from __future__ import annotations

import pytest

from precompute.run import progress


def test_lines_between_have_the_rate_and_the_time_left(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 100.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    print_line = progress._print_lines()
    for done, at in (
        (0, 100.0),
        (0, 101.0),  # less than ten seconds after the last line
        (1, 104.0),
        (2, 120.0),
        (3, 125.0),
        (4, 140.0),
        (0, 141.0),  # begun again
        (2, 161.0),
    ):
        now = at
        print_line("fits", done, 4, float(done))
    assert capsys.readouterr().err.splitlines() == [
        "    0.0 s  fits  0/4  0",
        "   20.0 s  fits  2/4  2  0.1/s, 20 s left",
        "   40.0 s  fits  4/4  4",
        "   41.0 s  fits  0/4  0",
        "   61.0 s  fits  2/4  2  0.1/s, 20 s left",
    ]
