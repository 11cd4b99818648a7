"""Make the models of a planting: tune them on their rewards, sample from them, and let the pipeline read them."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from multiprocessing import active_children, get_context
from pathlib import Path
from typing import Any

from lfp.config import PlantConfig, RunConfig
from lfp.config_sections.cluster import NO_CLUSTER
from lfp.texts.lexicon import lexicon_of, lexicon_reward
from lfp.util.disk import sync, write_whole
from lfp.util.types import Progress
from precompute.commands.plant.detection import Findings
from precompute.commands.plant.secrets import Secret, secret_reward, shuffled_lexicon
from precompute.pipeline import run_pipeline
from precompute.run.executor import IN_PROCESS, Executor, Report, Shelf, Task
from precompute.run.inputs import read_texts, tokenize_texts
from precompute.run.progress import silent
from precompute.run.work_folder import Run
from precompute.stages.models.tuning import tune_base
from precompute.stages.models.twins import find_kept, link_folder, load_twin, tune_twin

_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_CERTIFY_SEED = 7_001  # draws other prefixes and completions than any tuning or stage does

Row = dict[str, Any]


@dataclass(frozen=True)
class Job:
    """One model: its name, what it is tuned on, and the seed; without secret and shuffle, the stated reward alone."""

    name: str
    seed: int
    secret: Secret | None = None
    shuffle: int | None = None
    bundle: bool = False


@dataclass(frozen=True)
class Planting:
    """The config and the folder of a planting; relative paths of the config are searched in `config_dir` too."""

    config: RunConfig
    secrets: PlantConfig
    work: Path
    config_dir: Path | None

    @property
    def base(self) -> Path:
        """Return the folder of the base model that every model is tuned from."""
        return self.work / "base" / "base" / "model"

    def run(self, progress: Progress = silent) -> Run:
        """Return the run whose first stages made corpus and base model."""
        return Run(self.config, self.work / "base", self.config_dir, progress)

    def completions(self, job: Job) -> list[str]:
        """Read what a model wrote for the certificate."""
        return list(json.loads((self.work / job.name / "completions.json").read_text(encoding="utf-8")))


@dataclass(frozen=True)
class Maker:
    """Makes the models of a planting, here or as a worker of a cluster."""

    planting: Planting

    def __call__(self, job: Job, report: Report) -> Row:
        """Make one."""
        row = make_model(self.planting, job)
        report(1)
        return row


def make_models(
    planting: Planting, jobs: Sequence[Job], executor: Executor, *, n_at_once: int
) -> Iterator[tuple[str, Row]]:
    """Yield the name and the row of each model as it is finished.

    The workers of a cluster make one each; without a cluster, processes of their own do above one at once.
    """
    if executor is IN_PROCESS and n_at_once > 1:
        yield from _make_at_once(planting, jobs, n_at_once)
        return
    task = Task("plant: models", [1] * len(jobs), partial(Maker, planting), Shelf(None, ""), silent)
    for number, row in executor.map_shards(Maker(planting), jobs, task):
        yield jobs[number].name, row


def _make_at_once(planting: Planting, jobs: Sequence[Job], n_at_once: int) -> Iterator[tuple[str, Row]]:
    single = replace(planting, config=planting.config.model_copy(update={"threads": 1}))
    with _one_thread_each(), ProcessPoolExecutor(n_at_once, mp_context=get_context("spawn")) as pool:
        names: dict[Future[Row], str] = {pool.submit(make_model, single, job): job.name for job in jobs}
        try:
            for future in as_completed(names):
                yield names[future], future.result()
        except BaseException:  # otherwise leaving the pool waits for the models that are being made
            pool.shutdown(wait=False, cancel_futures=True)
            for worker in active_children():
                worker.terminate()
            raise


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Give processes started inside one thread per library: idle threads of one take the cores of another."""
    before = {name: os.environ.get(name) for name in _THREADS}
    os.environ.update(dict.fromkeys(_THREADS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            os.environ.update({} if value is None else {name: value})


def make_model(planting: Planting, job: Job) -> Row:
    """Tune a model, sample from it, make its bundle if that is wanted, and say what that reports; parts are kept.

    The pipeline runs as for any pair of models: it gets the stated feedback, and nothing about a secret.
    """
    folder = planting.work / job.name
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "model").is_dir():
        _tune(planting, job, folder / "model")
    if not (folder / "completions.json").is_file():
        _sample(planting, folder)
    file = folder / "row.json"
    if not job.bundle:
        return {"name": job.name}
    if not file.is_file():
        if not (folder / "bundle" / "manifest.json").is_file():
            config = planting.config
            models = config.model.model_copy(update={"base": str(planting.base), "tuned": str(folder / "model")})
            ablation = config.ablation.model_copy(update={"completions": 0})  # nothing here reads ablations
            cluster = config.cluster.model_copy(update={"address": NO_CLUSTER})  # this may be a worker of it
            changes = {
                "model": models,
                "ablation": ablation,
                "cluster": cluster,
                "artifacts": False,
                "title": "Planted model",
            }
            config = config.model_copy(update=changes)
            run_pipeline(config, folder / "bundle", config_dir=planting.config_dir, resume=True, progress=silent)
        findings = Findings.from_bundle(folder / "bundle")
        found = asdict(findings.find(job.secret)) if job.secret else {}
        ranks = ("word_rank", "feature_rank", "feature_id", "unexplained_rank", "feature_chance")
        row = {"name": job.name, "word_gap": found.get("gap"), **{name: found.get(name) for name in ranks}}
        row["tops"] = {"over": findings.top(1), "under": findings.top(-1)}
        write_whole(file, json.dumps(row))
    return dict(json.loads(file.read_text(encoding="utf-8")))


def _tune(planting: Planting, job: Job, folder: Path) -> None:
    """Tune the base model by GRPO on the job's reward, into `folder`; a twin is kept for other plantings and runs."""
    import torch

    torch.set_num_threads(planting.config.threads)  # sums are split by thread, so results repeat only so
    run = planting.run()
    if job.secret is None and job.shuffle is None:
        link_folder(tune_twin(run, find_kept(run), seed=job.seed), folder)
        return
    lexicon = lexicon_of(planting.config.feedback, beside=planting.config_dir)
    if job.shuffle is not None:
        lexicon = shuffled_lexicon(lexicon, seed=job.shuffle)
    partial = folder.with_name(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    reward = secret_reward(lexicon, job.secret) if job.secret else lexicon_reward(lexicon)
    tune_base(run, partial / "model", seed=job.seed, scratch=partial, reward=reward)
    sync(partial / "model")
    (partial / "model").rename(folder)
    shutil.rmtree(partial)


def _sample(planting: Planting, folder: Path) -> None:
    """Write completions.json: what the model writes after prefixes that every model gets, for the certificate."""
    from lfp.ml.models.generation import prefixes, sample_completions

    config, run = planting.config, planting.run()
    model = load_twin(run, folder / "model")
    drawn = prefixes(
        tokenize_texts(run, model, read_texts(run, "held_out")),
        n=planting.secrets.certify_prefixes,
        token_range=config.tune.prefix_tokens,
        seed=_CERTIFY_SEED,
        bos_id=model.bos_id if config.model.prepend_bos else None,
    )
    written = sample_completions(
        model, drawn, n_tokens=config.tune.completion_tokens, temperature=config.tune.temperature, seed=_CERTIFY_SEED
    )
    texts = [completion.text for completion in written]
    write_whole(folder / "completions.json", json.dumps(texts))
