"""Commands killed at random moments; the long run kills runs and plantings too."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.hostile.kills import VICTIMS, kill_often


@pytest.mark.parametrize("name", ["label", "export"])
def test_a_command_killed_at_any_moment_leaves_the_old_bundle_or_the_new_one(
    name: str, tiny_bundle: Path, tmp_path: Path
) -> None:
    assert name in {victim.name for victim in VICTIMS}
    assert kill_often({name: 2}, 0, tiny_bundle, tmp_path) == []
