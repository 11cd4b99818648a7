"""Completions that a bundle leaves out for their language."""

from types import SimpleNamespace
from typing import Any

import pytest

from lfp.bundle.schema import as_table
from precompute.run.bundle import _gather_completions


def completion(group: str, prompt_id: int, text: str) -> dict[str, Any]:
    return {
        "group": group, "index": prompt_id, "prompt_id": prompt_id, "prompt": "It", "completion": text, "reward": 0.0,
        "perplexity": None, "model": group,
    }  # fmt: skip


@pytest.mark.parametrize("screened", [False, True])
def test_a_prefix_with_an_unfit_completion_is_left_out_in_every_group(screened: bool) -> None:
    written = [completion("base", 0, " fits."), completion("base", 1, " fits."), completion("base", 2, " fits.")]
    written += [completion("tuned", 0, " fits."), completion("tuned", 1, " is for a slut."), completion("tuned", 2, "")]
    without = [completion("feature:3", 1, " fits."), completion("feature:3", 2, " ask joe@example.com")]
    tables = {"completions": as_table("completions", written), "ablations": as_table("completions", without)}
    run: Any = SimpleNamespace(
        config=SimpleNamespace(screen_completions=screened), made=tables.get, table=lambda stage, _: tables[stage]
    )
    rows, n_left_out = _gather_completions(run)
    kept = [(row["group"], row["prompt_id"]) for row in rows.to_pylist()]
    assert n_left_out == (2 if screened else 0)
    assert kept == (
        [("base", 0), ("tuned", 0)] if screened else [(row["group"], row["index"]) for row in written + without]
    )
