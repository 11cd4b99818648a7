"""Controls of interventions: matched, and no feature twice; and what completions begin with."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from lfp.bundle.manifest import read_table
from lfp.ml.models.tokenization import TokenizedText
from lfp.util.types import Place
from precompute.stages.findings.interventions import _match_controls
from precompute.stages.findings.rewarded_writing import Writer
from tests.precompute.conftest import tiny_config


def test_controls_are_other_features_of_the_same_place_and_each_is_used_once() -> None:
    rng, n = np.random.default_rng(0), 60
    dictionary = SimpleNamespace(n_features=n, places=(Place(0), Place(1)), place_of=np.arange(n) % 2)
    bench: Any = SimpleNamespace(dictionary=dictionary, density=rng.uniform(0.01, 0.2, n), energy=rng.uniform(1, 2, n))
    run: Any = SimpleNamespace(config=SimpleNamespace(seed=0, feature_credits=SimpleNamespace(controls=20)))
    order = list(range(20))
    controls = _match_controls(bench, order, run)
    assert list(controls) == order and len(set(controls.values())) == 20
    assert all(control >= 20 and control % 2 == feature % 2 for feature, control in controls.items())


def test_completions_are_compared_with_several_clean_runs_and_with_controls(tiny_bundle: Path) -> None:
    rows = read_table(tiny_bundle, "interventions").to_pylist()
    written = [row for row in rows if row["reward_effect"] is not None]
    assert {row["kind"] for row in written} == {"feature", "control"}
    for row in written:
        assert row["clean_runs"] == 2 and row["n_completions"] == 12
        assert row["reward_contrast_low"] <= row["reward_contrast"] <= row["reward_contrast_high"]
    assert any(row["reward_effect"] is None for row in rows), "only features.rewarded are"


def test_completions_begin_where_a_texts_prompt_ends_and_after_as_many_tokens_where_it_has_none() -> None:
    texts = [
        TokenizedText("", tuple(range(10 * i, 10 * i + n)), (), truncated=False) for i, n in enumerate((9, 4, 9, 3))
    ]
    tuned: Any = SimpleNamespace(bos_id=99, device="cpu")
    config = tiny_config(ablation={"prefix_tokens": 5, "completions": 40})
    writer = Writer.open(config, tuned, tuned, texts, prompts=[None, None, 7, 3], reward=None, seed=0)
    cut_short, without_response = 1, 3
    assert {prefix[1] // 10 for prefix in writer.prefixes} == {0, 1, 2, 3} - {cut_short, without_response}
    assert set(writer.prefixes) == {(99, 0, 1, 2, 3, 4), (99, *range(20, 27))}
