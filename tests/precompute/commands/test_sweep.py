"""`precompute sweep`: its grid, its rows, equal bytes however often it is killed, and what it refuses."""

from __future__ import annotations

import json
import shutil
import textwrap
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch

from lfp.bundle.schema import BY_NAME
from lfp.config import RunConfig, SweepConfig, load_config, load_section
from lfp.errors import BundleError, ConfigError, LfpError
from lfp.ml.sae.autoencoders import SAES
from lfp.ml.sae.training import SaeTrainer
from lfp.util.types import Place
from precompute.commands.sweep import build_points, format_table, run_sweep, write_sweep
from precompute.presets import preset
from precompute.stages.features.subjects import Subject
from tests.conftest import ROOT
from tests.precompute.conftest import TINY, silent, tiny_config
from tests.precompute.elsewhere import Elsewhere
from tests.precompute.test_cli import call

GRID = SweepConfig(variants=("tied_relu", "topk"), l1=(0.02, 0.08), k=(2,), expansion=(1, 2))
TOPK = GRID.model_copy(update={"variants": ("topk",)})
N_POINTS = 6
N_LAYERS = 2
METRICS = {"fvu", "l0", "dead_fraction", "ce_recovered", "mmcs"}
FILES = ["results.parquet", "saes.parquet", "sweep.json"]


@pytest.fixture(scope="module")
def config(tiny_bundle: Path) -> RunConfig:
    """A run of few texts on the tiny run's models, in both layers."""
    models = {role: str(tiny_bundle / "artifacts" / role) for role in ("base", "tuned")}
    return tiny_config(model=models, layers={"count": N_LAYERS, "by": "divergence"}, corpus={"n_texts": 120})


@pytest.fixture(scope="module")
def swept(config: RunConfig, corpus_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the tiny sweep."""
    out = tmp_path_factory.mktemp("sweeps") / "tiny"
    run_sweep(config, GRID, out, config_dir=corpus_folder, resume=False, progress=silent)
    return out


def rows_of(folder: Path, table: str) -> list[dict[str, Any]]:
    return pq.read_table(folder / f"{table}.parquet").to_pylist()


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


class Killing:
    """A progress that stops the work as Ctrl-C does when `what` has come to `done`."""

    def __init__(self, what: str, done: int) -> None:
        self.what, self.done = what, done

    def __call__(self, what: str, done: int, total: int, value: float) -> None:
        if (what, done) == (self.what, self.done):
            raise KeyboardInterrupt


# --- what it writes


def test_there_is_a_row_a_point_and_layer(swept: Path, config: RunConfig) -> None:
    assert sorted(contents(swept)) == FILES
    saes = pq.read_table(swept / "saes.parquet")
    assert saes.schema.equals(BY_NAME["saes"].schema)
    rows = saes.to_pylist()
    assert len(rows) == N_POINTS * N_LAYERS
    assert {(row["variant"], row["l1"], row["k"], row["width"]) for row in rows} == {
        *(("tied_relu", l1, None, width) for l1 in (0.02, 0.08) for width in (16, 32)),
        *(("topk", None, 2, width) for width in (16, 32)),
    }
    assert {(row["model"], row["is_used"], row["seed"]) for row in rows} == {("tuned", False, config.seed)}
    assert all(row["tied"] == (row["variant"] == "tied_relu") for row in rows)


def test_every_point_has_every_figure_in_the_report(swept: Path, config: RunConfig) -> None:
    results = rows_of(swept, "results")
    found = {(row["layer"], row["group"], row["metric"]) for row in results}
    assert found == {
        (layer, point.group, metric) for layer in (0, 1) for point in build_points(config, GRID) for metric in METRICS
    }
    assert {(row["report_row"], row["model"]) for row in results} == {("sae_sweep", "tuned")}


def test_figures_are_the_same_in_both_tables(swept: Path) -> None:
    saes = [row for row in rows_of(swept, "saes") if row["variant"] == "topk" and row["width"] == 32]
    for row in saes:
        of_point = {
            figure["metric"]: figure["value"]
            for figure in rows_of(swept, "results")
            if figure["layer"] == row["layer"] and figure["group"] == "variant=topk,k=2,expansion=2,seed=0"
        }
        assert of_point == {metric: row[metric] for metric in METRICS}
        assert 0.0 < row["l0"] <= 2.0 and 0.0 < row["fvu"] < 1.0


def test_every_site_is_swept_on_activations_of_its_own(tiny_bundle: Path, corpus_folder: Path, tmp_path: Path) -> None:
    models = {role: str(tiny_bundle / "artifacts" / role) for role in ("base", "tuned")}
    layers = {"sites": ["resid_post", "mlp_out"], "by": "divergence"}
    config = tiny_config(model=models, layers=layers, corpus={"n_texts": 120})
    out, grid = tmp_path / "sites", TOPK.model_copy(update={"expansion": (1,)})
    rows = run_sweep(config, grid, out, config_dir=corpus_folder, resume=False, progress=silent)
    assert [row["site"] for row in rows] == ["mlp_out", "resid_post"] and rows[0]["fvu"] != rows[1]["fvu"]
    assert {row["site"] for row in rows_of(out, "results")} == {"mlp_out", "resid_post"}
    assert format_table(rows).splitlines()[0].split()[:3] == ["layer", "site", "group"]


def test_workers_that_take_a_layer_each_write_the_files_of_one_process(
    swept: Path, config: RunConfig, corpus_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = Elsewhere()
    monkeypatch.setattr("precompute.commands.sweep.open_executor", elsewhere.open)
    out = tmp_path / "out"
    run_sweep(config, GRID, out, config_dir=corpus_folder, resume=False, progress=silent)
    assert elsewhere.n_shards == N_LAYERS
    assert contents(out) == contents(swept)


def test_a_heavier_penalty_leaves_fewer_features(swept: Path) -> None:
    rows = [row for row in rows_of(swept, "saes") if row["variant"] == "tied_relu"]
    l0 = {(row["layer"], row["width"], row["l1"]): row["l0"] for row in rows}
    assert all(l0[layer, width, 0.08] < l0[layer, width, 0.02] for layer in (0, 1) for width in (16, 32))


def test_a_former_sweep_is_replaced_and_a_points_figures_do_not_depend_on_the_rest_of_the_grid(
    swept: Path, config: RunConfig, corpus_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "sweep.json").write_text("{}", encoding="utf-8")
    run_sweep(config, TOPK, out, config_dir=corpus_folder, resume=False, progress=silent)
    assert sorted(contents(out)) == FILES and [path.name for path in tmp_path.iterdir()] == ["out"]
    assert SweepConfig.model_validate(json.loads((out / "sweep.json").read_text(encoding="utf-8"))["sweep"]) == TOPK
    found = rows_of(out, "saes")
    assert found and found == [row for row in rows_of(swept, "saes") if row["variant"] == "topk"]


def test_sweep_json_says_what_was_compared(swept: Path, config: RunConfig, tiny_bundle: Path) -> None:
    facts = json.loads((swept / "sweep.json").read_text(encoding="utf-8"))
    assert RunConfig.model_validate(facts["config"]) == config
    assert facts["seed"] == config.seed and facts["grid"] == [point.group for point in build_points(config, GRID)]
    assert SweepConfig.model_validate(facts["sweep"]) == GRID
    manifest = json.loads((tiny_bundle / "manifest.json").read_text(encoding="utf-8"))
    assert facts["models"]["tuned"]["sha256"] == manifest["models"]["tuned"]["sha256"]
    assert facts["versions"]["torch"] == torch.__version__


# --- resuming


@pytest.mark.parametrize(
    ("what", "done", "steps_left"),
    [
        ("sweep-layer0: trained", 30, 10 + 30),  # at the last step of a layer, ten after its last checkpoint
        ("sweep-layer0: judged", 2, 10 + 30),  # between two points
        ("sweep-layer1", 0, 30),  # between two layers
    ],
)
def test_a_killed_sweep_goes_on_to_the_same_bytes(
    what: str,
    done: int,
    steps_left: int,
    config: RunConfig,
    swept: Path,
    corpus_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("lfp.ml.sae.training.CHECKPOINT_EVERY", 20)
    out = tmp_path / "again"
    with pytest.raises(KeyboardInterrupt):
        run_sweep(config, GRID, out, config_dir=corpus_folder, resume=False, progress=Killing(what, done))
    assert not out.exists()
    assert not (tmp_path / ".again.run" / "completions").exists(), "no sweep needs them"
    with pytest.raises(ConfigError, match="--resume"):
        run_sweep(config, GRID, out, config_dir=corpus_folder, resume=False, progress=silent)
    steps = counted_steps(monkeypatch)
    run_sweep(config, GRID, out, config_dir=corpus_folder, resume=True, progress=silent)
    assert contents(out) == contents(swept)
    assert len(steps) == steps_left * N_POINTS
    assert [path.name for path in tmp_path.iterdir()] == ["again"]


def counted_steps(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of every training step from now on."""
    steps: list[int] = []
    step = SaeTrainer.step

    def counted(trainer: SaeTrainer, outputs: torch.Tensor) -> torch.Tensor:
        steps.append(trainer.step_number)
        return step(trainer, outputs)

    monkeypatch.setattr(SaeTrainer, "step", counted)
    return steps


def test_the_models_of_an_interrupted_run_are_used_and_the_run_is_left_as_it_was(
    tiny_work: Path, corpus_folder: Path, tmp_path: Path
) -> None:
    work = shutil.copytree(tiny_work, tmp_path / ".out.run")
    before = {path: path.stat().st_mtime_ns for path in work.glob("*/*")}
    out = tmp_path / "out"
    rows = run_sweep(tiny_config(), TOPK, out, config_dir=corpus_folder, resume=True, progress=silent)
    assert len(rows) == 2 and (out / "sweep.json").is_file()
    assert before == {path: path.stat().st_mtime_ns for path in work.glob("*/*")}


# --- streamed


def test_activations_can_be_streamed(config: RunConfig, corpus_folder: Path, tmp_path: Path) -> None:
    streamed = config.model_copy(update={"sae": config.sae.model_copy(update={"buffer_tokens": 1000})})
    rows = run_sweep(streamed, TOPK, tmp_path / "out", config_dir=corpus_folder, resume=False, progress=silent)
    assert len(rows) == 2 * N_LAYERS and all(0.0 < row["fvu"] < 1.0 for row in rows)


# --- what it refuses


def writing_text(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("dear all", encoding="utf-8")


@pytest.mark.parametrize(
    ("files", "says"),
    [
        (["out/manifest.json"], "a bundle is there"),
        (["out/manifest.json", "out/sweep.json"], "a bundle is there"),
        (["out/letters.txt"], "not a sweep"),
        (["out/letters.txt", "out/sweep.json"], "not a sweep"),
        (["out"], "not a sweep"),
    ],
)
def test_what_is_no_sweep_is_never_overwritten(files: list[str], says: str, tmp_path: Path) -> None:
    for file in files:
        writing_text(tmp_path / file)
    with pytest.raises(BundleError, match=says):
        run_sweep(tiny_config(), GRID, tmp_path / "out", config_dir=None, resume=False, progress=silent)
    assert all((tmp_path / file).read_text(encoding="utf-8") == "dear all" for file in files)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_bundle_that_appears_meanwhile_is_not_overwritten(swept: Path, tmp_path: Path) -> None:
    writing_text(tmp_path / "out" / "manifest.json")
    with pytest.raises(BundleError, match="a bundle is there"):
        write_sweep(tmp_path / "out", [], {})
    assert list(contents(tmp_path / "out")) == ["manifest.json"]


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    writing_text(tmp_path / "file")
    with pytest.raises(BundleError, match="choose a folder that you may write to"):
        run_sweep(tiny_config(), GRID, tmp_path / "file" / "out", config_dir=None, resume=False, progress=silent)


@pytest.mark.parametrize("made_here", [True, False])
def test_k_above_the_features_is_told_before_any_training(
    made_here: bool, tiny_bundle: Path, corpus_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = "pretrain" if made_here else tiny_bundle / "artifacts" / "base"
    lines = ['corpus.source = "reviews.txt"', f'model.base = "{base}"', "pretrain.d_model = 16"]
    (tmp_path / "run.toml").write_text("\n".join([*lines, "sweep.k = [4, 17]", "sweep.expansion = [1]"]))
    code, out, err = call("sweep", str(tmp_path / "run.toml"), "--out", str(tmp_path / "out"), capsys=capsys)
    assert (code, out) == (2, "") and err.count("\n") == 1
    assert err.startswith("error: ") and "k 17 is more than the 16 features" in err
    assert [path.name for path in tmp_path.iterdir()] == ["run.toml"]


def test_activations_that_are_not_finite_are_told(
    config: RunConfig, corpus_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(subject: Subject, split: str, n_tokens: int) -> dict[Place, torch.Tensor]:
        return {place: torch.full((10, 16), torch.nan) for place in subject.places}

    monkeypatch.setattr(Subject, "collect", broken)
    with pytest.raises(LfpError, match="not finite"):
        run_sweep(config, GRID, tmp_path / "out", config_dir=corpus_folder, resume=False, progress=silent)
    assert not (tmp_path / "out").exists()


# --- the command


@pytest.fixture
def command(tiny_bundle: Path, corpus_folder: Path, tmp_path: Path) -> Callable[..., tuple[str, ...]]:
    """The arguments of a sweep of two autoencoders."""
    models = "\n".join(f'{role} = "{tiny_bundle / "artifacts" / role}"' for role in ("base", "tuned"))
    text = f'threads = 1\n[corpus]\nsource = "{corpus_folder / "reviews.txt"}"\nn_texts = 120\n'
    text += f'[model]\ncontext = 48\n{models}\n[layers]\ncount = 1\nby = "divergence"\n'
    text += "[sweep]\nvariants = ['topk', 'jumprelu']\nexpansion = [1]\nk = [2]\n"
    (tmp_path / "run.toml").write_text(text, encoding="utf-8")
    small = [f"sae.{name}={value}" for name, value in TINY["sae"].items() if name != "expansion"]
    sets = [part for override in small for part in ("--set", override)]
    return lambda *more: ("sweep", str(tmp_path / "run.toml"), "--out", str(tmp_path / "out"), *sets, *more)


def test_the_command_prints_a_table_and_a_last_line(
    command: Callable[..., tuple[str, ...]], capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = call(*command(), capsys=capsys)
    head, first, second, last = out.splitlines()
    assert code == 0 and head.split()[:3] == ["layer", "group", "width"]
    assert first.split()[1:3] == ["variant=topk,k=2,expansion=1,seed=0", "16"] and first.split()[-2:] == ["-", "-"]
    assert second.split()[1].startswith("variant=jumprelu,l0_weight=0.003,")
    assert "2 autoencoders compared in" in last


def test_the_command_prints_json_alone(
    command: Callable[..., tuple[str, ...]], capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = call(*command("--json", "--set", "sweep.variants=['topk']"), capsys=capsys)
    report = json.loads(out)
    assert code == 0 and list(report) == ["sae_sweep"] and "1 autoencoders compared in" in err.splitlines()[-1]
    assert {row["metric"] for row in report["sae_sweep"]} == METRICS - {"mmcs"}
    assert all(row["group"] == "variant=topk,k=2,expansion=1,seed=0" for row in report["sae_sweep"])


def test_help_has_an_example_that_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call("sweep", "--help", capsys=capsys)
    assert code == 0
    assert "python -m precompute sweep precompute/presets/demo-sweep.toml --out runs/sweep" in " ".join(out.split())


def test_the_presets_models_are_those_of_the_run_from_scratch() -> None:
    file = preset("demo-sweep")
    config, other = load_config(file), load_config(preset("from-scratch"))
    assert (config.pretrain, config.tune, config.model) == (other.pretrain, other.tune, other.model)
    points = build_points(config, load_section(SweepConfig, "sweep", file))
    assert {point.variant for point in points} == set(SAES)


def test_the_page_about_dictionaries_names_every_key_of_a_grid() -> None:
    text = (ROOT / "docs" / "DICTIONARIES.md").read_text(encoding="utf-8")
    assert [name for name in SweepConfig.model_fields if f"`{name}`" not in text] == []


def test_a_grid_is_every_combination_of_what_is_each_variants_own() -> None:
    block = """
        [sweep]
        variants = ["tied_relu", "topk"]
        expansion = [4, 8]
        l1 = [0.03, 0.06]
        k = [8]
        seeds = [0, 1]
        learning_rate = {topk = 3e-3}
    """
    grid = SweepConfig.model_validate(tomllib.loads(textwrap.dedent(block))["sweep"])
    assert len(build_points(RunConfig(), grid)) == (2 + 1) * 2 * 2
