"""The benchmarks at a size that takes a moment: their keys, their files, and what they refuse."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from lfp.errors import ConfigError
from lfp.testing.planted_activations import PlantedDictionary
from precompute.commands import bench
from precompute.commands.bench import bench_features
from tests.precompute.test_cli import call

SMALL = (
    "bench",
    "sae",
    "--d-in",
    "16",
    "--d-sae",
    "64",
    "--batch",
    "64",
    "--steps",
    "40",
    "--k",
    "4",
    "--threads",
    "1",
)
KEYS = {"activations_per_s", "dense_gemm_share", "fvu", "l0", "dead_fraction", "peak_rss_mb", "gemm_gflops", "seconds"}


@pytest.fixture(autouse=True)
def quick_ceiling(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rate of matrix products, which every figure is compared with, measured for moments on small ones."""
    monkeypatch.setattr(bench, "gemm_ceiling", partial(bench.gemm_ceiling, n=512, seconds=0.02))


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """Planted activations to train and to test on, as .npy files."""
    planted = PlantedDictionary(16, 24, l0=3.0)
    for name, part in (("train", 1), ("test", 2)):
        np.save(tmp_path / f"{name}.npy", planted.outputs(3000, part=part).numpy())
    return tmp_path / "train.npy", tmp_path / "test.npy"


@pytest.mark.parametrize("variant", ["tied_relu", "relu", "topk", "batchtopk", "jumprelu"])
def test_a_line_of_json_has_the_figures(variant: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = call(*SMALL, "--variant", variant, capsys=capsys)
    assert (code, err) == (0, "")
    figures = json.loads(out)
    assert KEYS | {"recovery", "found"} <= set(figures)
    assert 0 < figures["fvu"] < 1.2 and 0 <= figures["dead_fraction"] <= 1


def test_given_activations_are_trained_on_and_the_decoder_written(
    files: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ("--activations", str(files[0]), "--test", str(files[1]), "--save-decoder", str(tmp_path / "W.npy"))
    code, out, _ = call(*SMALL, *given, "--steps", "300", capsys=capsys)
    assert code == 0
    decoder = np.load(tmp_path / "W.npy")
    assert decoder.shape == (64, 16)
    np.testing.assert_allclose(np.linalg.norm(decoder, axis=1), 1.0, rtol=1e-5)
    figures = json.loads(out)
    assert figures["fvu"] < 0.3 and "recovery" not in figures


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda x: np.where(np.arange(x.size).reshape(x.shape) == 35, np.nan, x), "row 2 is not finite"),
        (lambda x: np.where(np.arange(x.size).reshape(x.shape) == 35, np.inf, x), "row 2 is not finite"),
        (lambda x: x[:, :9], "has width 9, but training has 16"),
        (lambda x: x[0], "not floats"),
        (lambda x: x.astype(int), "not floats"),
    ],
)
def test_activations_that_cannot_be_used_are_named(
    change: object, said: str, files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(files[1], change(np.load(files[1])))  # type: ignore[operator]
    code, _, err = call(*SMALL, "--activations", str(files[0]), "--test", str(files[1]), capsys=capsys)
    assert code == 1
    assert err.startswith(f"error: {files[1]}: ") and said in err and err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--k", "65"), "k 65"),
        (("--activations", "no/such.npy"), "no/such.npy"),
        (("--test", "no/such.npy"), "pass --activations too"),
    ],
)
def test_settings_that_cannot_be_are_refused(
    arguments: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = call(*SMALL, *arguments, capsys=capsys)
    assert code in (1, 2) and said in err and err.startswith("error: ") and err.count("\n") == 1


@pytest.mark.parametrize("benchmark", ["sae", "features"])
def test_help_has_an_example(benchmark: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call("bench", benchmark, "--help", capsys=capsys)
    assert code == 0
    assert f"python -m precompute bench {benchmark}" in " ".join(out.split())


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
