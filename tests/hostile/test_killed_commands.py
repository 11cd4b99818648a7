"""Commands killed at random moments; the long run kills runs, ablations and plantings too."""

from __future__ import annotations

from pathlib import Path

import pytest

from lfp.testing.synthetic import make_bundle
from tests.hostile.kills import kill_often


@pytest.mark.parametrize("name", ["label", "export"])
def test_a_command_killed_at_any_moment_leaves_the_old_bundle_or_the_new_one(name: str, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle", n_features=16, n_texts=8)
    assert kill_often({name: 2}, 0, bundle, tmp_path) == []
