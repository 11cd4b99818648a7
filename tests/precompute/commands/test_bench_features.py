"""The benchmark of feature statistics at a size that takes a moment: what it says of itself adds up."""

from __future__ import annotations

import json

import pytest
import torch

from lfp.errors import ConfigError
from precompute.commands.bench import bench_features
from tests.precompute.test_cli import call

TINY = {"layers": 2, "d_model": 64, "d_sae": 48, "sequences": 6, "seq_len": 9, "vocab": 50, "threads": 1}


@pytest.fixture(autouse=True)
def threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_rates_follow_from_tokens_features_and_seconds() -> None:
    found = bench_features(**TINY)
    assert found["tokens"] == 54 and found["features"] == 48
    assert found["token_features_per_s"] == pytest.approx(54 * 48 / found["seconds"], rel=0.2)
    assert sum(found["parts"].values()) == pytest.approx(found["seconds"], abs=0.01)
    assert {"models", "encode", "statistics", "examples", "coactivation", "logits"} <= set(found["parts"])
    assert 0.0 < found["density"] < 0.1 and 0.0 < found["gemm_share"] < 1.0 and found["peak_rss_mb"] > 0


def test_the_command_prints_one_json_line_of_the_dictionary_cut(capsys: pytest.CaptureFixture[str]) -> None:
    sizes = "--layers 1 --d-model 64 --d-sae 48 --features 16 --sequences 3 --seq-len 5 --vocab 40 --threads 1"
    code, out, err = call("bench", "features", *sizes.split(), capsys=capsys)
    assert code == 0, err
    found = json.loads(out)
    assert out.count("\n") == 1 and found["features"] == 16 and found["d_sae"] == 48


@pytest.mark.parametrize(("change", "named"), [({"d_model": 100}, "--d-model"), ({"features": 99}, "--features")])
def test_sizes_that_make_no_model_are_named(change: dict[str, int], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        bench_features(**TINY | change)
