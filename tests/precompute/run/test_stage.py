"""Stage keys: what each change of the config or of a file makes `--resume` repeat, and what a stage may read."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lfp.config import RunConfig, parse_config, with_overrides
from lfp.errors import DataError
from lfp.ml.sae.formats import write_sae
from lfp.texts.lexicon import vader_lexicon
from precompute.pipeline import plan_stages, run_stages
from precompute.run.stage import FileDigests, Stage, UndeclaredReadError
from precompute.run.work_folder import Output, Run
from tests.lfp.builders import tiny_sae
from tests.precompute.conftest import STAGES, brief_config, replace_jobs, silent, tiny_config

LEXICON = "word,value\ngood,2\nbad,-2\nfilm,1\nplot,-1\n"
FROM_TUNED = ("tuned", "completions", "credits", "trajectory", "layers", "saes", "features", "rollouts", "probes",
              "texts", "feature_credits", "feature_trajectory", "labels", "findings", "interventions",
              "ablations")  # fmt: skip
ONE_SEED = tuple(name for name in STAGES if name != "reseeded")
"""A run with one dictionary of each model reads nothing for others."""
FROM_PAIRS = tuple(name for name in ONE_SEED if name not in ("twins", "twin_words", "twin_drift"))
"""A run without twins reads nothing for them."""
FROM_CORPUS = tuple(name for name in FROM_PAIRS if name not in ("forecast", "receipt"))
"""A run that tunes on no pairs forecasts nothing."""
FROM_SAES = FROM_TUNED[FROM_TUNED.index("saes") :]
BY_LEXICON = (
    "feedback",
    "probes",
    "texts",
    "feature_credits",
    "feature_trajectory",
    "labels",
    "findings",
    "interventions",
    "ablations",
)
"""Stages that read the stated values of words, and those after them."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with one file of every kind that a run can read."""
    (tmp_path / "texts.txt").write_text("A good film.\nA bad film.\n", encoding="utf-8")
    (tmp_path / "pairs.jsonl").write_text('{"chosen": "good", "rejected": "bad"}\n', encoding="utf-8")
    (tmp_path / "lexicon.csv").write_text(LEXICON, encoding="utf-8")
    (tmp_path / "pays.py").write_text("def score(texts):\n    return [1.0] * len(texts)\n", encoding="utf-8")
    write_sae(tiny_sae(layer=1, d_in=16), tmp_path / "dictionary")
    for name in ("base", "tuned", "judge"):
        (tmp_path / name).mkdir()
        for file in ("config.json", "model.safetensors", "tokenizer.json", "README.md"):
            (tmp_path / name / file).write_text("{}", encoding="utf-8")
    return tmp_path


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the stages that ran, whose jobs do nothing else."""
    names: list[str] = []

    def record(name: str) -> Callable[[Run, Output], None]:
        return lambda run, output: names.append(name)

    replace_jobs(monkeypatch, **{name: record(name) for name in STAGES})
    return names


GIVEN = {"base": "base", "tuned": "tuned"}
MODULE = {"feedback": {"reward": "pays:score"}}
JUDGE = {"feedback": {"reward": "classifier", "classifier": "judge"}}
CASES: dict[str, tuple[dict[str, Any], str, tuple[str, ...]]] = {
    "corpus": ({}, "texts.txt", FROM_CORPUS),
    "corpus, with twins and further dictionaries": (
        {"twins": {"n": 3}, "probes": {"dictionary_seeds": 2}}, "texts.txt",
        tuple(name for name in STAGES if name not in ("forecast", "receipt")),
    ),
    "corpus, models given": (
        {"model": GIVEN}, "texts.txt", tuple(name for name in FROM_CORPUS if name not in ("base", "tuned")),
    ),
    "preference pairs": ({"tune": {"method": "dpo", "pairs": "pairs.jsonl"}}, "pairs.jsonl", FROM_PAIRS),
    "lexicon": ({"feedback": {"lexicon": "lexicon.csv"}}, "lexicon.csv", BY_LEXICON),
    "lexicon as reward": (
        {"feedback": {"reward": "lexicon", "lexicon": "lexicon.csv"}}, "lexicon.csv", ("feedback", *FROM_TUNED),
    ),
    "module of the reward": (MODULE, "pays.py", ("feedback", *FROM_TUNED)),
    "module of the reward, with twins": (
        {**MODULE, "twins": {"n": 3}}, "pays.py",
        tuple(name for name in ONE_SEED if name not in ("corpus", "base", "forecast", "receipt")),
    ),
    "classifier": (JUDGE, "judge/model.safetensors", ("feedback", *FROM_TUNED)),
    "classifier, models given": (
        {"model": GIVEN, **JUDGE}, "judge/config.json",
        ("feedback", "completions", "rollouts", *BY_LEXICON[1:]),
    ),
    "base model": ({"model": {"base": "base"}}, "base/model.safetensors", ("base", *FROM_TUNED)),
    "tokenizer of the tuned model": ({"model": GIVEN}, "tuned/tokenizer.json", FROM_TUNED),
    "pretrained dictionary": (
        {"sae": {"pretrained": [{"layer": 1, "folder": "dictionary"}]}}, "dictionary/cfg.json", FROM_SAES,
    ),
    "a file that no model is read from": ({"model": GIVEN}, "tuned/README.md", ()),
}  # fmt: skip
"""By kind of input file: the sections that name it, the file, and the stages that read it or come after."""


@pytest.mark.parametrize("kind", CASES)
def test_a_changed_file_repeats_the_stages_that_depend_on_it(kind: str, folder: Path, ran: list[str]) -> None:
    sections, file, expected = CASES[kind]
    config = tiny_config(**{"corpus": {"source": "texts.txt"}, **sections})
    run = Run(config, folder / "work", folder, silent)
    run_stages(run, STAGES)
    assert tuple(ran) == STAGES
    run_stages(run, STAGES)
    os.utime(folder / file)  # touched, with the contents it had
    run_stages(run, STAGES)
    assert tuple(ran) == STAGES, "nothing has changed"
    (folder / file).write_text((folder / file).read_text(encoding="utf-8") + " \n", encoding="utf-8")
    run_stages(run, STAGES)
    assert tuple(ran[len(STAGES) :]) == expected


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("threads=2", STAGES),
        ("corpus.n_texts=9", FROM_CORPUS),
        ("tune.pairs_split=test", FROM_CORPUS),
        ("tune.steps=3", FROM_TUNED),
        ("twins.n=3", ("twins", "credits", *ONE_SEED[ONE_SEED.index("layers") :])),
        ("credits.n_texts=13", FROM_TUNED[FROM_TUNED.index("credits") :]),
        ("tune.eval_prefixes=11", ("completions", *BY_LEXICON[1:])),
        ("layers.count=2", FROM_TUNED[FROM_TUNED.index("layers") :]),
        ("sae.steps=31", FROM_SAES),
        ("cluster.address=local", ()),
        ("cluster.workers=5", ()),
        ("cluster.shard_texts=64", ("credits", *FROM_TUNED[FROM_TUNED.index("layers") :])),
        ("stats.batch_texts=8", FROM_SAES),
        (
            "probes.dictionary_seeds=2",
            (
                "reseeded",
                "probes",
                "texts",
                "feature_credits",
                "feature_trajectory",
                "labels",
                "findings",
                "interventions",
                "ablations",
            ),
        ),
        (
            "probes.triples=61",
            (
                "probes",
                "texts",
                "feature_credits",
                "feature_trajectory",
                "labels",
                "findings",
                "interventions",
                "ablations",
            ),
        ),
        ("labels.random=1", ("labels", "findings", "interventions", "ablations")),
        ("ablation.scale=2.0", ("ablations",)),
        (
            "probes.triples_model=other",
            (
                "probes",
                "texts",
                "feature_credits",
                "feature_trajectory",
                "labels",
                "findings",
                "interventions",
                "ablations",
            ),
        ),
        ("title=Another", ()),
    ],
)
def test_a_changed_key_repeats_the_stages_that_depend_on_it(
    override: str, expected: tuple[str, ...], folder: Path, ran: list[str]
) -> None:
    before = tiny_config(corpus={"source": "texts.txt"}).model_dump(mode="json")
    for config in (before, with_overrides(before, [override])):
        ran.clear()
        run_stages(Run(parse_config(config), folder / "work", folder, silent), STAGES)
    assert tuple(ran) == expected


def test_an_edited_lexicon_gives_the_tables_of_a_new_run(corpus_folder: Path, tiny_work: Path, tmp_path: Path) -> None:
    """The real stages: those that are kept do not know the lexicon that they were made under."""
    shutil.copy(corpus_folder / "reviews.txt", tmp_path)
    lexicon, values = tmp_path / "lexicon.json", dict(vader_lexicon())
    lexicon.write_text(json.dumps(values), encoding="utf-8")
    config = brief_config(feedback={"lexicon": "lexicon.json"}, ablation={"completions": 0})
    resumed, new = (Run(config, tmp_path / name, tmp_path, silent) for name in ("resumed", "new"))
    shutil.copytree(tiny_work, resumed.work)
    run_stages(resumed, ["findings"])
    kept = {name: (resumed.folder(name) / "stage.json").stat().st_mtime_ns for name in resumed.finished()}
    lexicon.write_text(json.dumps({word: -value for word, value in values.items()}), encoding="utf-8")
    run_stages(resumed, ["feedback", "findings"])
    repeated = {name for name, time in kept.items() if (resumed.folder(name) / "stage.json").stat().st_mtime_ns != time}
    assert repeated == {"feedback", "probes", "texts", "feature_credits", "labels", "findings"}
    run_stages(new, ["findings"])
    for stage, table in (("probes", "vocabulary"), ("texts", "texts"), ("labels", "labels"), ("findings", "drift")):
        assert resumed.table(stage, table).equals(new.table(stage, table)), table


def test_a_stage_that_reads_an_undeclared_section_or_stage_fails(tmp_path: Path) -> None:
    run = Run(tiny_config(), tmp_path, None, silent).narrow(
        Stage("custom", lambda run, output: None, after=("base",), reads=("sae", "tune.pairs"))
    )
    assert run.config.sae.steps == 30 and run.config.tune.pairs is None and run.config.threads == 1
    for read, named in (
        (lambda: run.config.stats.batch_texts, "custom reads stats"),
        (lambda: run.config.tune.steps, r"custom reads tune\.steps"),
        (lambda: run.config.model_dump(), "custom reads model_dump"),
        (lambda: run.json("layers", "places"), "stage layers"),
    ):
        with pytest.raises(UndeclaredReadError, match=named):
            read()


def test_a_file_that_changes_while_a_stage_reads_it_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def edit(run: Run, output: Output) -> None:
        (folder / "texts.txt").write_text("Another film.\n", encoding="utf-8")

    replace_jobs(monkeypatch, corpus=edit)
    run = Run(tiny_config(corpus={"source": "texts.txt"}), folder / "work", folder, silent)
    with pytest.raises(DataError, match=r"texts\.txt: changed while the run was reading it"):
        run_stages(run, ["corpus"])
    assert run.finished() == []


def test_a_large_file_is_read_once_for_all_stages(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []
    monkeypatch.setattr("precompute.run.stage.file_sha256", lambda file: str(read.append(file)))
    digests = FileDigests()
    for _ in range(3):
        digests.digest(folder / "texts.txt")
    assert read == [folder / "texts.txt"]


def test_every_stage_comes_after_stages_before_it() -> None:
    seen: set[str] = set()
    for stage in plan_stages(RunConfig(), None):
        assert set(stage.after) <= seen
        seen.add(stage.name)
