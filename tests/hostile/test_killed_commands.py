"""Commands killed at random moments; the long run kills runs, ablations and plantings too."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.hostile.kills import kill_often


@pytest.mark.parametrize("name", ["label", "export"])
def test_a_command_killed_at_any_moment_leaves_the_old_bundle_or_the_new_one(
    name: str, bundle: Path, tmp_path: Path
) -> None:
    assert kill_often({name: 3}, 0, bundle, tmp_path) == []
