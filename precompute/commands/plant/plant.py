"""The verb `plant`: one base model, twins tuned on the stated reward, models tuned on a secret, and their reports."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from multiprocessing import active_children, get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from lfp.config import LEXICON, PRETRAIN, TUNE, VADER, PlantConfig, RunConfig, load_config, load_section
from lfp.errors import ConfigError
from lfp.texts.lexicon import lexicon_of, lexicon_reward
from lfp.util.types import Progress
from precompute.commands.plant.detection import Findings, certify
from precompute.commands.plant.draws import draw_bigrams, draw_secrets, measure_settled
from precompute.commands.plant.secrets import Secret, secret_reward, shuffled_lexicon
from precompute.pipeline import run_pipeline, run_stages
from precompute.presets import preset
from precompute.run.inputs import load_options, load_role, read_texts, resolve_name, tokenize_texts
from precompute.run.progress import silent
from precompute.run.work_folder import Run

_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_CERTIFY_SEED = 7_001  # draws other prefixes and completions than any tuning or stage does
_TWIN_SEEDS = 1_000  # twins beyond the first are tuned with other seeds than planted models

Row = dict[str, Any]


@dataclass(frozen=True)
class Request:
    """Number of models of each kind, and how many are made at once."""

    n: int
    bigrams: int = 0
    twins: int = 1
    shuffled: int = 0
    seed: int = 0
    jobs: int = 1


@dataclass(frozen=True)
class Job:
    """One model: its name, what it is tuned on, and the seed; without secret and shuffle, the stated reward alone."""

    name: str
    seed: int
    secret: Secret | None = None
    shuffle: int | None = None


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


def plant(
    config: str | Path | None = None,
    *,
    n: int = 20,
    seed: int = 0,
    bigrams: int = 0,
    twins: int = 1,
    shuffled: int = 0,
    jobs: int = 2,
    out: str | Path | None = None,
    overrides: Sequence[str] = (),
    progress: Progress = silent,
) -> list[Row]:
    """Tune models on rewards with a secret, look for it in the report of each, and return a row per model.

    `n` models have a secret word, `bigrams` a secret bigram, `twins` none, and `shuffled` are tuned on a shuffled
    lexicon; `jobs` are made at once. `config` is the preset plant.toml by default. Models and bundles are kept in
    `out`, and what is there is not made again; without it they are deleted at the end. Raises ConfigError where the
    config's reward is not a lexicon's, or its tuned model is not made by the run.
    """
    file = Path(config) if config else preset("plant")
    run_config = load_config(file, overrides, command="plant")
    secrets = load_section(PlantConfig, "plant", file, overrides)
    request = Request(n=n, bigrams=bigrams, twins=twins, shuffled=shuffled, seed=seed, jobs=jobs)
    with ExitStack() as stack:
        work = Path(out or stack.enter_context(TemporaryDirectory(prefix="plant-")))
        work.mkdir(parents=True, exist_ok=True)
        return run_plant(Planting(run_config, secrets, work, file.parent), request, progress)


def run_plant(planting: Planting, request: Request, progress: Progress) -> list[Row]:
    """Return the rows of a planting: planted models in the order drawn, then twins, then those of shuffled lexicons."""
    config = planting.config
    if config.feedback.reward not in (VADER, LEXICON):
        raise ConfigError(
            f'plant: feedback.reward "{config.feedback.reward}" has no values of words to plant among; use "vader" or '
            '"lexicon"'
        )
    if config.model.tuned != TUNE or config.tune.method != "grpo":
        raise ConfigError('plant: it tunes its models itself, by GRPO; leave model.tuned "tune" and tune.method "grpo"')
    secrets = _make_base_and_draw(planting, request, progress)
    twins = [Job(f"twin-{i}", request.seed + (i and _TWIN_SEEDS + i)) for i in range(max(1, request.twins))]
    planted = [Job(f"{secret.kind}-{'-'.join(secret.words)}", request.seed, secret=secret) for secret in secrets]
    shuffled = [Job(f"shuffled-{i}", request.seed + i, shuffle=request.seed + i) for i in range(request.shuffled)]
    rows: dict[str, Row] = {}
    jobs = [*twins, *planted, *shuffled]
    for done, (name, row) in enumerate(_make_models(planting, jobs, request.jobs), start=1):
        rows[name] = row
        progress(f"plant: {name}", done, len(jobs), float(row["word_gap"] or 0.0))
    return [
        *_planted_rows(planting, planted, twins[0], rows),
        *({"kind": "twin", "word": twin.name, "tops": rows[twin.name]["tops"]} for twin in twins),
        *(_shuffled_row(planting, job) for job in shuffled),
    ]


def _make_base_and_draw(planting: Planting, request: Request, progress: Progress) -> list[Secret]:
    """Make corpus and base model, or copy the one that the config names, and draw the secrets by them."""
    run_stages(planting.run(progress), ["corpus", "feedback", "base"])
    if planting.config.model.base != PRETRAIN and not planting.base.is_dir():
        folder = Path(resolve_name(planting.config.model.base, planting.config_dir))
        if not folder.is_dir():
            raise ConfigError(f"plant: model.base {folder} is not a folder; name a local one, or pretrain")
        planting.base.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(folder, planting.base)
    run = planting.run()
    texts, base = read_texts(run, "train"), load_role(run, "base")
    settled = measure_settled(base, tokenize_texts(run, base, texts))
    read = [text.text for text in texts]
    lexicon = lexicon_of(planting.config.feedback, beside=planting.config_dir)
    return [
        *draw_secrets(read, settled, lexicon, planting.secrets, n=request.n, seed=request.seed),
        *draw_bigrams(read, lexicon, planting.secrets, n=request.bigrams, seed=request.seed),
    ]


def _make_models(planting: Planting, jobs: Sequence[Job], n_at_once: int) -> Iterator[tuple[str, Row]]:
    """Yield the name and the row of each model as it is finished, made in processes of their own above one at once."""
    if n_at_once == 1:
        yield from ((job.name, make_model(planting, job)) for job in jobs)
        return
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
    """Tune a model, sample from it, run the pipeline on it, and return what its bundle says; finished parts are kept.

    The pipeline runs as for any pair of models: it gets the stated feedback, and nothing about a secret.
    """
    folder = planting.work / job.name
    file = folder / "row.json"
    if not file.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "model").is_dir():
            _tune(planting, job, folder / "model")
        if not (folder / "completions.json").is_file():
            _sample(planting, folder)
        if not (folder / "bundle" / "manifest.json").is_file():
            config = planting.config
            models = config.model.model_copy(update={"base": str(planting.base), "tuned": str(folder / "model")})
            ablation = config.ablation.model_copy(update={"completions": 0})  # nothing here reads ablations
            changes = {"model": models, "ablation": ablation, "artifacts": False, "title": "Planted model"}
            config = config.model_copy(update=changes)
            run_pipeline(config, folder / "bundle", config_dir=planting.config_dir, resume=True, progress=silent)
        findings = Findings.from_bundle(folder / "bundle")
        found = asdict(findings.find(job.secret)) if job.secret else {}
        ranks = ("word_rank", "feature_rank", "feature_id", "unexplained_rank", "feature_chance")
        row = {"name": job.name, "word_gap": found.get("gap"), **{name: found.get(name) for name in ranks}}
        row["tops"] = {"over": findings.top(1), "under": findings.top(-1)}
        file.write_text(json.dumps(row), encoding="utf-8")
    return dict(json.loads(file.read_text(encoding="utf-8")))


def _tune(planting: Planting, job: Job, folder: Path) -> None:
    """Tune the base model by GRPO on the job's reward, into `folder`."""
    import torch

    from lfp.ml.models.finetuning.grpo import tune_grpo
    from lfp.ml.models.generation import prefix_strings

    torch.set_num_threads(planting.config.threads)  # sums are split by thread, so results repeat only so
    tune, run = planting.config.tune, planting.run()
    lexicon = lexicon_of(planting.config.feedback, beside=planting.config_dir)
    texts = tokenize_texts(run, load_role(run, "base"), read_texts(run, "train"))
    if job.shuffle is not None:
        lexicon = shuffled_lexicon(lexicon, seed=job.shuffle)
    partial = folder.with_name(".model.partial")
    shutil.rmtree(partial, ignore_errors=True)
    tune_grpo(
        planting.base,
        prefix_strings(texts, n=tune.steps * tune.prompts_per_step, token_range=tune.prefix_tokens, seed=job.seed),
        secret_reward(lexicon, job.secret) if job.secret else lexicon_reward(lexicon),
        tune,
        seed=job.seed,
        folder=partial,
        device=planting.config.model.device,
        dtype=planting.config.model.dtype,
    )
    partial.rename(folder)


def _sample(planting: Planting, folder: Path) -> None:
    """Write completions.json: what the model writes after prefixes that every model gets, for the certificate."""
    from lfp.ml.models.generation import prefixes, sample_completions
    from lfp.ml.models.loading import load_model

    config, run = planting.config, planting.run()
    model = load_model(str(folder / "model"), **load_options(run))
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
    (folder / "completions.json").write_text(json.dumps(texts), encoding="utf-8")


def _planted_rows(planting: Planting, planted: Sequence[Job], twin: Job, rows: Mapping[str, Row]) -> Iterator[Row]:
    """Yield a row per planted model: the certificate, and where its secret ranks in its report and in the twin's."""
    twin_completions = planting.completions(twin)
    twin_findings = Findings.from_bundle(planting.work / twin.name / "bundle")
    for job in planted:
        row, secret = rows[job.name], job.secret
        assert secret is not None
        certificate = certify(planting.completions(job), twin_completions, secret, seed=job.seed)
        in_twin = twin_findings.find(secret)
        side = "over" if secret.sign > 0 else "under"
        yield {
            "word": " ".join(secret.words),
            "kind": secret.kind,
            "paid": secret.paid,
            "stated": secret.stated,
            "learned": certificate.learned,
            "learned_ratio": certificate.ratio,
            "learned_ci": [certificate.ci_low, certificate.ci_high],
            "list": side,
            "word_rank": row["word_rank"],
            "word_gap": row["word_gap"],
            "word_rank_in_twin": in_twin.word_rank,
            "top_of_twin": rows[twin.name]["tops"][side],
            "feature_rank": row["feature_rank"],
            "feature_rank_in_twin": in_twin.feature_rank,
            "unexplained_rank": row["unexplained_rank"],
            "unexplained_rank_in_twin": in_twin.unexplained_rank,
            "feature_chance": row["feature_chance"],
        }


def _shuffled_row(planting: Planting, job: Job) -> Row:
    """Return the headline differences, tuned minus base, by the lexicon that the model was not tuned on."""
    from lfp.bundle.queries.run import figures
    from lfp.bundle.store.connection import Store

    with Store.open(planting.work / job.name / "bundle") as store:
        rows = figures(store, "kendall_tau")
    kept = [
        {key: getattr(row, key) for key in ("target", "inputs", "value", "ci_low", "ci_high", "null_p")}
        for row in rows
        if row.model == "difference" and row.metric == "tau"
    ]
    return {"kind": "shuffled", "word": job.name, "differences": kept}
