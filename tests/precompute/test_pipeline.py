"""The pipeline: a valid bundle, the same twice, the same after an interruption, nothing half-written."""

from __future__ import annotations

import inspect
import json
import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import lfp
from lfp.bundle.manifest import check_bundle, read_manifest
from lfp.bundle.schema import TABLES
from lfp.bundle.validation import validate
from lfp.errors import BundleError, ConfigError, CorpusError, ModelError
from precompute.pipeline import plan_stages, run_pipeline
from precompute.run.bundle import find_versions
from precompute.run.memory import advise_on_memory
from tests.precompute.conftest import STAGES, brief_config, interrupt, replace_jobs, reviews, silent, tiny_config


def table_hashes(bundle: Path) -> dict[str, str]:
    return {name: info.sha256 for name, info in read_manifest(bundle).tables.items()}


def test_the_bundle_is_valid_and_keeps_its_models(tiny_bundle: Path) -> None:
    assert validate(tiny_bundle) == []
    manifest = check_bundle(tiny_bundle)
    assert {"base", "tuned"} == set(manifest.models)
    assert any(name.startswith("artifacts/tuned/") and name.endswith(".safetensors") for name in manifest.artifacts)
    assert any(name.startswith("artifacts/saes/") for name in manifest.artifacts)


def test_every_report_row_of_the_pipeline_is_there(tiny_bundle: Path) -> None:
    from lfp.bundle.queries.run import figures
    from lfp.bundle.store.connection import Store
    from lfp.evaluation.results import ROWS

    with Store.open(tiny_bundle) as store:
        found = {row.report_row for row in figures(store)}
    elsewhere = {"preference_accuracy", "sae_check", "tuning", "cost"}  # pairs, SAEs from elsewhere, other tables
    elsewhere |= {"forecast", "twins", "trajectory", "labellers"}  # of pairs, twins, checkpoints, further labellers
    assert found == set(ROWS) - elsewhere


def test_the_same_seed_gives_the_same_tables_and_an_interrupted_run_goes_on_to_them(
    tiny_bundle: Path, corpus_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed before every stage in turn, resumed each time: one whole second run, and equal hashes at its end."""
    out = tmp_path / "again"
    for last, stage in enumerate(STAGES[1:]):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            replace_jobs(patch, **{stage: interrupt})
            run_pipeline(tiny_config(), out, config_dir=corpus_folder, resume=last > 0, progress=silent)
        assert not out.exists(), f"half a bundle before {stage}"
    run_pipeline(tiny_config(), out, config_dir=corpus_folder, resume=True, progress=silent)
    assert table_hashes(out) == table_hashes(tiny_bundle)
    assert [path.name for path in tmp_path.iterdir()] == ["again"]


def test_an_interrupted_run_is_not_thrown_away_unasked(
    corpus_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace_jobs(monkeypatch, base=lambda run, output: None, tuned=interrupt)
    with pytest.raises(KeyboardInterrupt):
        run_pipeline(tiny_config(), tmp_path / "out", config_dir=corpus_folder, resume=False, progress=silent)
    with pytest.raises(ConfigError, match=r"--resume"):
        run_pipeline(tiny_config(), tmp_path / "out", config_dir=corpus_folder, resume=False, progress=silent)


def test_a_run_that_failed_before_its_first_model_can_just_be_started_again(
    corpus_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace_jobs(monkeypatch, base=interrupt)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            run_pipeline(tiny_config(), tmp_path / "out", config_dir=corpus_folder, resume=False, progress=silent)


def test_something_that_is_no_bundle_is_never_overwritten(corpus_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "letters.txt").write_text("dear all", encoding="utf-8")
    with pytest.raises(BundleError, match="not a bundle"):
        run_pipeline(tiny_config(), tmp_path, config_dir=corpus_folder, resume=False, progress=silent)
    assert (tmp_path / "letters.txt").read_text(encoding="utf-8") == "dear all"


@pytest.mark.parametrize(
    ("sections", "error", "named"),
    [
        ({"corpus": {"source": "nowhere.jsonl"}}, CorpusError, "nowhere.jsonl"),
        ({"model": {"base": "no/such/folder"}}, ModelError, "no/such/folder"),
        ({"model": {"context": 4096, "base": "artifacts/base"}}, ModelError, "model.context"),
    ],
)
def test_what_cannot_work_is_named_and_leaves_nothing(
    sections: dict, error: type[Exception], named: str, tiny_bundle: Path, corpus_folder: Path, tmp_path: Path
) -> None:
    if sections.get("model", {}).get("base") == "artifacts/base":
        sections = {"model": {**sections["model"], "base": str(tiny_bundle / "artifacts" / "base")}}
    with pytest.raises(error, match=named):
        run_pipeline(tiny_config(**sections), tmp_path / "out", config_dir=corpus_folder, resume=False, progress=silent)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_run_of_an_adapter_is_a_valid_bundle_with_its_checkpoints(
    dtype: str, corpus_folder: Path, tmp_path: Path
) -> None:
    tune = {"adapter": {"r": 2}, "keep_every": 2, "learning_rate": 1e-2, "gradient_accumulation": 2}
    config = brief_config(tune=tune, model={"dtype": dtype}, ablation={"completions": 0})
    out = run_pipeline(config, tmp_path / "out", config_dir=corpus_folder, resume=False, progress=silent)
    assert validate(out) == []
    files = {name.removeprefix("artifacts/") for name in read_manifest(out).artifacts}
    for folder in ("tuned", "checkpoints/step-2", "checkpoints/step-4"):
        assert {f"{folder}/adapter_config.json", f"{folder}/adapter_model.safetensors"} <= files
    assert not any(name.startswith(("tuned/model", "tuned/tokenizer")) for name in files)  # the base has them
    assert "base/tokenizer.json" in files
    rows = pq.read_table(out / "tuning.parquet").to_pylist()
    assert {row["metric"] for row in rows} == {"reward", "kl", "entropy", "loss"}
    kl = {row["step"]: row["value"] for row in rows if row["metric"] == "kl"}
    assert sorted(kl) == [1, 2, 3, 4] and abs(kl[1]) < 1e-4 < kl[4]


def test_models_in_local_folders_need_no_training(tiny_bundle: Path, corpus_folder: Path, tmp_path: Path) -> None:
    folders = {role: str(tiny_bundle / "artifacts" / role) for role in ("base", "tuned")}
    config = tiny_config(model=folders)
    out = run_pipeline(config, tmp_path / "loaded", config_dir=corpus_folder, resume=False, progress=silent)
    manifest, made = read_manifest(out), read_manifest(tiny_bundle)
    assert manifest.models["tuned"].sha256 == made.models["tuned"].sha256
    hashes, others = table_hashes(out), table_hashes(tiny_bundle)
    assert hashes.pop("results") != others.pop("results")  # how the base model learned is known only where it did
    assert hashes.pop("tuning") != others.pop("tuning")  # nor is how the tuned model was tuned
    assert hashes == others
    figures = [pq.read_table(bundle / "results.parquet").to_pylist() for bundle in (out, tiny_bundle)]
    assert figures[0] == [row for row in figures[1] if row["report_row"] != "base_model"]
    assert str(tiny_bundle) not in json.dumps(manifest.model_dump()["models"])


def test_preference_pairs_go_the_whole_way(tmp_path: Path) -> None:
    texts = [review.text for review in reviews(240)]
    rows = [
        {"chosen": f"\n\nHuman: So?\n\nAssistant: {a}", "rejected": f"\n\nHuman: So?\n\nAssistant: {b}"}
        for a, b in zip(texts[::2], texts[1::2], strict=True)
    ]
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    config = brief_config(tune={"method": "dpo", "pairs": "pairs.jsonl", "pairs_batch": 4}, corpus={"n_texts": None})
    out = run_pipeline(config, tmp_path / "out", config_dir=tmp_path, resume=False, progress=silent)
    assert validate(out) == []
    from lfp.bundle.queries.texts import TextFilter, count_texts
    from lfp.bundle.store.connection import Store

    with Store.open(out) as store:
        rows = store.rows("SELECT role, min(response_start) AS first FROM texts GROUP BY role ORDER BY role")
        assert [row["role"] for row in rows] == ["chosen", "rejected"] and all(row["first"] > 0 for row in rows)
        assert count_texts(store, TextFilter()) > 0


def test_every_table_of_the_contract_is_written(tiny_bundle: Path) -> None:
    assert {table.name for table in TABLES} == set(read_manifest(tiny_bundle).tables)


def test_a_checkout_that_is_not_installed_knows_its_version(monkeypatch: pytest.MonkeyPatch) -> None:
    def find(name: str) -> str:
        if name.startswith("lfp"):
            raise PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr("precompute.run.bundle.version", find)
    assert find_versions(("numpy",)) == {"lfp-explorer": lfp.__version__, "numpy": version("numpy")}


@pytest.mark.parametrize(
    ("stage", "sections", "advice"),
    [
        (
            "features",
            {},
            r"lower stats.batch_texts \(now 32\) or model.context \(now 48\), or set model.dtype=bfloat16",
        ),
        (
            "features",
            {"model": {"dtype": "bfloat16"}},
            r"lower stats.batch_texts \(now 32\) or model.context \(now 48\)",
        ),
        ("saes", {"sae": {"trained_on": "change"}}, r"lower stats.batch_texts .* or sae.batch_tokens .* \(now 48\)"),
        ("credits", {}, r"lower credits.batch_texts \(now 16\) or model.context \(now 48\)"),
        ("feature_credits", {}, r"lower feature_credits.batch_texts \(now 16\) or model.context \(now 48\)"),
        ("interventions", {}, r"lower feature_credits.batch_texts .* or ablation.batch .* or model.context \(now 48\)"),
        ("twin_words", {"twins": {"n": 3}}, r"lower stats.batch_texts \(now 32\) or model.context \(now 48\)"),
        ("labels", {}, "use a machine with more memory"),
    ],
)
def test_full_memory_names_what_the_stage_reads(
    stage: str, sections: dict[str, Any], advice: str, corpus_folder: Path
) -> None:
    config = tiny_config(**sections)
    (planned,) = [each for each in plan_stages(config, corpus_folder) if each.name == stage]
    assert re.fullmatch(advice, advise_on_memory(planned, config))


def test_stages_that_load_models_exactly_are_not_advised_to_use_bfloat16(corpus_folder: Path) -> None:
    config = tiny_config(twins={"n": 3})
    for stage in plan_stages(config, corpus_folder):
        job = getattr(stage.job, "func", stage.job)
        if "exact=True" in inspect.getsource(inspect.getmodule(job)) and stage.name != "twins":  # tuned in its own type
            assert "bfloat16" not in advise_on_memory(stage, config), stage.name
