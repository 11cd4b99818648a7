"""A tiny run, made once a session: every stage, seconds long, its figures mean nothing."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from lfp.config import RunConfig, parse_config
from precompute import pipeline
from precompute.pipeline import run_pipeline, run_stages
from precompute.run.work_folder import Output, Run
from tests.conftest import ROOT

TINY = {
    "title": "Tiny run",
    "licence": "MIT",
    "threads": 1,
    "corpus": {"source": "reviews.txt", "n_texts": 240},
    "model": {"context": 48},
    "pretrain": {"vocab_size": 600, "d_model": 16, "n_layers": 2, "n_heads": 2, "steps": 12, "batch": 16},
    "tune": {"steps": 4, "prompts_per_step": 4, "group_size": 4, "completion_tokens": 8, "eval_prefixes": 12},
    "credits": {"n_texts": 12, "by_token": 6},
    "layers": {"count": 1},
    "sae": {"expansion": [1, 2], "steps": 30, "batch_tokens": 256, "train_tokens": 4000},
    "stats": {"top_examples": 4, "examples_per_interval": 2, "sampled_activations": 16, "store_texts": 60},
    "feature_credits": {"texts": 20, "interventions": 4, "controls": 4, "intervention_texts": 8, "rewarded": 2},
    "ablation": {"completions": 12, "prefix_tokens": 6, "group_size": 3, "controls": 3, "features": 5, "clean_runs": 2},
    "probes": {
        "triples": 60,
        "folds": 3,
        "alphas": [0.1, 1.0, 10.0, 100.0],
        "permutations": 20,
        "bootstraps": 20,
        "max_rows": 3000,
        "min_word_count": 2,
        "rollouts": 3,
        "weight_permutations": 20,
        "controls": ["random_sae", "token_identity"],
    },
}
"""The sections of a run of about ten seconds."""
PLANTED = [
    "plant.most_share=0.05",
    "plant.certify_prefixes=100",
    "tune.steps=2",
    "tune.completion_tokens=32",  # enough that a word of the lexicon is among them, whatever the machine draws
    "sae.expansion=[1]",
    "probes.controls=[]",
]
"""Overrides that make a planting one of seconds."""


BRIEF = {
    "probes": {"controls": [], "rollouts": 0, "max_rows": 500},
    "feature_credits": {"texts": 8, "interventions": 1, "controls": 1, "intervention_texts": 4, "rewarded": 1},
    "ablation": {"completions": 4, "controls": 1, "features": 1, "groups": ["weighted"]},
}
"""Sections of a run of every stage, with little of the last ones, for tests of the others."""


Resume = Callable[[RunConfig, Path], Path]
"""A function that makes the bundle of a config, without the stages that the tiny run has done under equal keys."""


def tiny_config(**sections: dict[str, object]) -> RunConfig:
    """The tiny run with keys of some sections changed."""
    return parse_config({**TINY, **{name: {**TINY.get(name, {}), **keys} for name, keys in sections.items()}})


def brief_config(**sections: dict[str, object]) -> RunConfig:
    """The tiny run with little of its last stages, and with keys of some sections changed."""
    return tiny_config(**{name: {**BRIEF.get(name, {}), **sections.get(name, {})} for name in BRIEF | sections})


class Review(NamedTuple):
    """A film review of the demo's corpus, with its stars from 1 to 5."""

    text: str
    rating: int


def reviews(n: int, *, start: int = 0, corpus: str = "demo") -> list[Review]:
    """Return n reviews of the corpus that the presets `demo` or `plant` train on."""
    file = ROOT / "precompute" / "presets" / "reviews" / f"{corpus}-train.jsonl.gz"
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines][start : start + n]
    assert len(rows) == n
    return [Review(row["text"], row["rating"]) for row in rows]


def silent(what: str, done: int, total: int, value: float) -> None:
    """Tells nobody."""


def replace_jobs(patch: pytest.MonkeyPatch, **jobs: Callable[[Run, Output], None]) -> None:
    """Put other jobs in place of those of some stages, for runs made from now on."""
    plan = pipeline.plan_stages

    def plan_others(config: RunConfig, config_dir: Path | None) -> tuple[pipeline.Stage, ...]:
        return tuple(replace(stage, job=jobs.get(stage.name, stage.job)) for stage in plan(config, config_dir))

    patch.setattr(pipeline, "plan_stages", plan_others)


def interrupt(run: Run, output: Output) -> None:
    """A job that is interrupted at once."""
    raise KeyboardInterrupt


STAGES = tuple(stage.name for stage in pipeline.plan_stages(RunConfig(), None))
"""Names of the stages in order."""


def write_reviews(folder: Path) -> Path:
    """Write reviews.txt, a generated review a line, into a folder, and return it."""
    lines = [review.text for review in reviews(260, start=1000)]
    (folder / "reviews.txt").write_text("\n".join(lines), encoding="utf-8")
    return folder


def make_tiny_work(corpus: Path, work: Path) -> None:
    """Make the work folder of the tiny run, every stage done."""
    torch.set_num_threads(1)
    run_stages(Run(tiny_config(), work, write_reviews(corpus), silent), STAGES)


def resume(config: RunConfig, out: Path, *, work: Path, corpus: Path) -> Path:
    """Make a bundle as `run_pipeline` does, without the stages that are done in `work` under equal keys."""
    shutil.copytree(work, out.parent / f".{out.name}.run")
    return Path(run_pipeline(config, out, config_dir=corpus, resume=True, progress=silent))


@pytest.fixture(scope="session")
def resume_tiny(tiny_work: Path, corpus_folder: Path) -> Resume:
    """Makes the bundle of a config from the work of the tiny run."""
    return partial(resume, work=tiny_work, corpus=corpus_folder)


@pytest.fixture
def coarse_factors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Train the factors of plantings for few steps, in a quarter of the contexts."""
    monkeypatch.setattr("lfp.ml.implicit_reward.contrast_factors._STEPS", 10)
    monkeypatch.setattr("precompute.commands.plant.comparison._CONTEXTS", 2000)


@pytest.fixture(scope="session")
def corpus_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with reviews.txt, a generated review a line."""
    return write_reviews(tmp_path_factory.mktemp("corpus"))
