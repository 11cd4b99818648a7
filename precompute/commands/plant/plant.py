"""A planting: one base model, twins tuned on the stated reward, models tuned on a secret, and what we find in each."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from multiprocessing import active_children, get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from lfp.config import LEXICON, PRETRAIN, TUNE, VADER, RunConfig, load_config
from lfp.errors import ConfigError
from lfp.texts.lexicon import Reward, lexicon_of, lexicon_reward
from lfp.util.types import Progress
from precompute.commands.plant.detection import Findings, certify
from precompute.commands.plant.secrets import (
    Secret,
    draw_bigrams,
    draw_secrets,
    measure_settled,
    secret_reward,
    shuffled_lexicon,
)
from precompute.pipeline import run_pipeline, run_stages
from precompute.presets import preset
from precompute.run.inputs import load_role, read_texts, resolve_folder, tokenize_texts
from precompute.run.progress import silent
from precompute.run.work_folder import Run

_FOUND = ("word_rank", "gap", "feature_rank", "feature_id", "unexplained_rank", "feature_chance")
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_CERTIFY_SEED = 7_001  # other prefixes and other draws than any tuning or stage has
_TWIN_SEEDS = 1_000  # twins beyond the first are tuned by other seeds than planted models


@dataclass(frozen=True)
class Request:
    """How many models of each kind are wanted, and how many are made at once."""

    n: int
    bigrams: int = 0
    twins: int = 1
    shuffled: int = 0
    seed: int = 0
    jobs: int = 1


@dataclass(frozen=True)
class Planting:
    """The config and the folder of a planting; `beside` is where relative paths of the config are looked for."""

    config: RunConfig
    work: Path
    beside: Path | None

    @property
    def base(self) -> Path:
        """The folder of the base model that every model is tuned from."""
        return self.work / "base" / "base" / "model"

    def lexicon(self) -> Mapping[str, float]:
        """The stated values of words."""
        return lexicon_of(self.config.feedback, beside=self.beside)


@dataclass(frozen=True)
class _Job:
    """One model: its name, what it is tuned on, and by which seed. None as secret: the stated reward alone."""

    name: str
    seed: int
    secret: Secret | None = None
    shuffle: int | None = None


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
) -> list[dict[str, Any]]:
    """Tune models on rewards with a secret, look for it in the report of each, and return a row per model.

    `n` models have a secret word, `bigrams` a secret bigram, `twins` none, and `shuffled` are tuned on a shuffled
    lexicon; `jobs` are made at once. `config` is the preset plant.toml by default. Models and bundles are kept in
    `out`, and what is there is not made again; without it they are deleted at the end.
    """
    file = Path(config) if config else preset("plant")
    request = Request(n=n, bigrams=bigrams, twins=twins, shuffled=shuffled, seed=seed, jobs=jobs)
    with ExitStack() as stack:
        work = Path(out or stack.enter_context(TemporaryDirectory(prefix="plant-")))
        work.mkdir(parents=True, exist_ok=True)
        config_dir = file.parent if config else None
        return run_plant(load_config(file, overrides), request, work, beside=config_dir, progress=progress)


def run_plant(
    config: RunConfig, request: Request, work: Path, *, beside: Path | None, progress: Progress
) -> list[dict[str, Any]]:
    """A row a model: planted ones first, in the order drawn, then twins, then models of a shuffled lexicon.

    Everything made is kept in `work`, and what is there is not made again. Raises ConfigError where the config's reward
    is not a lexicon's, or its models are not made here.
    """
    _check(config)
    planting = Planting(config, work, beside)
    _make_base(planting, progress)
    secrets = _secrets(planting, request)
    twins = [_Job(f"twin-{i}", request.seed + (i and _TWIN_SEEDS + i)) for i in range(max(1, request.twins))]
    planted = [_Job(f"{one.kind}-{'-'.join(one.words)}", request.seed, secret=one) for one in secrets]
    shuffled = [_Job(f"shuffled-{i}", request.seed + i, shuffle=request.seed + i) for i in range(request.shuffled)]
    rows = _in_turn(planting, [*twins, *planted, *shuffled], request.jobs, progress)
    twin = _Twin.of(planting, twins[0], rows[twins[0].name])
    return [
        *(_planted_row(planting, job, rows[job.name], twin) for job in planted),
        *(_twin_row(rows[job.name], job) for job in twins),
        *(_shuffled_row(planting, job) for job in shuffled),
    ]


def _check(config: RunConfig) -> None:
    if config.feedback.reward not in (VADER, LEXICON):
        raise ConfigError(
            f'plant: feedback.reward "{config.feedback.reward}" has no values of words to plant among; use "vader" or '
            '"lexicon"'
        )
    if config.model.tuned != TUNE or config.tune.method != "grpo":
        raise ConfigError('plant: it tunes its models itself, by GRPO; leave model.tuned "tune" and tune.method "grpo"')


def _make_base(planting: Planting, progress: Progress) -> None:
    run_stages(Run(planting.config, planting.work / "base", planting.beside, progress), ["corpus", "feedback", "base"])
    if planting.config.model.base != PRETRAIN and not planting.base.is_dir():
        named = Path(resolve_folder(planting.config.model.base, planting.beside))
        if not named.is_dir():
            raise ConfigError(f"plant: model.base {named} is no folder; name a local one, or pretrain")
        planting.base.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(named, planting.base)


def _secrets(planting: Planting, request: Request) -> list[Secret]:
    run = Run(planting.config, planting.work / "base", planting.beside, silent)
    texts = read_texts(run, "train")
    base, read = load_role(run, "base"), [text.text for text in texts]
    settled = measure_settled(base, tokenize_texts(run, base, texts))
    lexicon, config = planting.lexicon(), planting.config.plant
    return [
        *draw_secrets(read, settled, lexicon, config, n=request.n, seed=request.seed),
        *draw_bigrams(read, lexicon, config, n=request.bigrams, seed=request.seed),
    ]


def _in_turn(planting: Planting, jobs: Sequence[_Job], at_once: int, progress: Progress) -> dict[str, dict[str, Any]]:
    """Every model's own row by name, some models made at once in processes of their own."""
    rows: dict[str, dict[str, Any]] = {}
    for done, (name, row) in enumerate(_made(planting, jobs, at_once), start=1):
        rows[name] = row
        progress(f"plant: {name}", done, len(jobs), float(row["word_gap"] or 0.0))
    return rows


def _made(planting: Planting, jobs: Sequence[_Job], at_once: int) -> Iterator[tuple[str, dict[str, Any]]]:
    if at_once == 1:
        yield from ((job.name, _make(planting, job)) for job in jobs)
        return
    single = Planting(planting.config.model_copy(update={"threads": 1}), planting.work, planting.beside)
    with _one_thread_each(), ProcessPoolExecutor(at_once, mp_context=get_context("spawn")) as pool:
        names: dict[Future[dict[str, Any]], str] = {pool.submit(_make, single, job): job.name for job in jobs}
        try:
            for future in as_completed(names):
                yield names[future], future.result()
        except BaseException:  # else leaving the pool waits for models that nobody wants any more
            pool.shutdown(wait=False, cancel_futures=True)
            for worker in active_children():
                worker.terminate()
            raise


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Processes begun inside have one thread each, of every library: idle ones of one take the cores of another."""
    before = {name: os.environ.get(name) for name in _THREADS}
    os.environ.update(dict.fromkeys(_THREADS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            os.environ.update({} if value is None else {name: value})


def _make(planting: Planting, job: _Job) -> dict[str, Any]:
    """Tunes a model, has it write, runs the pipeline on it and asks the bundle; what is there is not made again."""
    folder = planting.work / job.name
    made = folder / "row.json"
    if not made.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        _tune(planting, job, folder / "model")
        _write(planting, folder)
        _make_bundle(planting, folder)
        findings = Findings.from_bundle(folder / "bundle")
        row = asdict(findings.find(job.secret)) if job.secret else {}
        tops = {"over": findings.top(1), "under": findings.top(-1)}
        made.write_text(json.dumps({"name": job.name, **_renamed(row), "tops": tops}), encoding="utf-8")
    return dict(json.loads(made.read_text(encoding="utf-8")))


def _renamed(found: Mapping[str, Any]) -> dict[str, Any]:
    return {("word_gap" if name == "gap" else name): found.get(name) for name in _FOUND}


def _tune(planting: Planting, job: _Job, folder: Path) -> None:
    if (folder / "config.json").is_file():
        return
    from lfp.ml.models.finetuning import tune_grpo
    from lfp.ml.models.generation import prefix_strings
    from lfp.ml.models.runtime import set_threads

    set_threads(planting.config.threads)
    config, run = planting.config.tune, Run(planting.config, planting.work / "base", planting.beside, silent)
    base = load_role(run, "base")
    texts = tokenize_texts(run, base, read_texts(run, "train"))
    partial_folder = folder.with_name(".model.partial")
    shutil.rmtree(partial_folder, ignore_errors=True)
    tune_grpo(
        planting.base,
        prefix_strings(
            texts, n=config.steps * config.prompts_per_step, token_range=config.prefix_tokens, seed=job.seed
        ),
        _reward(planting, job),
        config,
        seed=job.seed,
        folder=partial_folder,
        device=planting.config.model.device,
    )
    partial_folder.rename(folder)


def _reward(planting: Planting, job: _Job) -> Reward:
    lexicon = planting.lexicon()
    if job.shuffle is not None:
        return lexicon_reward(shuffled_lexicon(lexicon, seed=job.shuffle))
    return secret_reward(lexicon, job.secret) if job.secret else lexicon_reward(lexicon)


def _write(planting: Planting, folder: Path) -> None:
    """Has the model write after prefixes that every model gets, for the certificate: completions.json."""
    from lfp.ml.models.generation import prefixes, sample_completions
    from lfp.ml.models.loading import load_model

    if (folder / "completions.json").is_file():
        return
    config, run = planting.config, Run(planting.config, planting.work / "base", planting.beside, silent)
    model = load_model(str(folder / "model"), device=config.model.device)
    drawn = prefixes(
        tokenize_texts(run, model, read_texts(run, "held_out")),
        n=config.plant.certify_prefixes,
        token_range=config.tune.prefix_tokens,
        seed=_CERTIFY_SEED,
        bos_id=model.bos_id if config.model.prepend_bos else None,
    )
    written = sample_completions(
        model, drawn, n_tokens=config.tune.completion_tokens, temperature=config.tune.temperature, seed=_CERTIFY_SEED
    )
    (folder / "completions.json").write_text(json.dumps([one.text for one in written]), encoding="utf-8")


def _make_bundle(planting: Planting, folder: Path) -> None:
    """The pipeline as anyone would run it on this pair: it is told the stated feedback, and of a secret nothing.

    Nothing is ablated: of what is asked of the bundle here, ablations tell nothing, and they take the longest.
    """
    if (folder / "bundle" / "manifest.json").is_file():
        return
    config = planting.config
    models = config.model.model_copy(update={"base": str(planting.base), "tuned": str(folder / "model")})
    ablation = config.ablation.model_copy(update={"completions": 0})
    changes = {"model": models, "ablation": ablation, "artifacts": False, "title": "Planted model"}
    config = config.model_copy(update=changes)
    run_pipeline(config, folder / "bundle", config_dir=planting.beside, resume=True, progress=silent)


def _completions(planting: Planting, job: _Job) -> list[str]:
    return list(json.loads((planting.work / job.name / "completions.json").read_text(encoding="utf-8")))


@dataclass(frozen=True)
class _Twin:
    """What planted models are compared with, read once: what the twin wrote, its findings, the first of its lists."""

    completions: list[str]
    findings: Findings
    tops: Mapping[str, Any]

    @staticmethod
    def of(planting: Planting, job: _Job, row: Mapping[str, Any]) -> _Twin:
        findings = Findings.from_bundle(planting.work / job.name / "bundle")
        return _Twin(_completions(planting, job), findings, row["tops"])


def _planted_row(planting: Planting, job: _Job, row: Mapping[str, Any], twin: _Twin) -> dict[str, Any]:
    assert job.secret is not None
    certificate = certify(_completions(planting, job), twin.completions, job.secret, seed=job.seed)
    in_twin = twin.findings.find(job.secret)
    side = "over" if job.secret.sign > 0 else "under"
    return {
        "word": job.secret.name,
        "kind": job.secret.kind,
        "paid": job.secret.paid,
        "stated": job.secret.stated,
        "learned": certificate.learned,
        "learned_ratio": certificate.ratio,
        "learned_ci": [certificate.ci_low, certificate.ci_high],
        "list": side,
        "word_rank": row["word_rank"],
        "word_gap": row["word_gap"],
        "word_rank_in_twin": in_twin.word_rank,
        "top_of_twin": twin.tops[side],
        "feature_rank": row["feature_rank"],
        "feature_rank_in_twin": in_twin.feature_rank,
        "unexplained_rank": row["unexplained_rank"],
        "unexplained_rank_in_twin": in_twin.unexplained_rank,
        "feature_chance": row["feature_chance"],
    }


def _twin_row(row: Mapping[str, Any], job: _Job) -> dict[str, Any]:
    return {"kind": "twin", "word": job.name, "tops": row["tops"]}


def _shuffled_row(planting: Planting, job: _Job) -> dict[str, Any]:
    """The headline difference, tuned minus base, against the lexicon that the model was not tuned on."""
    from lfp.bundle.queries.run import report_rows
    from lfp.bundle.store.connection import Store

    with Store.open(planting.work / job.name / "bundle") as store:
        rows = [row for row in report_rows(store) if row.report_row == "kendall_tau"]
    kept = [
        {key: getattr(row, key) for key in ("target", "inputs", "value", "ci_low", "ci_high", "null_p")}
        for row in rows
        if row.model == "difference" and row.metric == "tau"
    ]
    return {"kind": "shuffled", "word": job.name, "differences": kept}
