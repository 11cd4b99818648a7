"""The verb `plant`: one base model, twins tuned on the stated reward, models tuned on a secret, and their reports."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from lfp.config import LEXICON, PRETRAIN, TUNE, VADER, PlantConfig, load_config, load_section
from lfp.errors import ConfigError
from lfp.texts.lexicon import lexicon_of
from lfp.util.disk import write_whole
from lfp.util.types import Progress
from precompute.commands.plant.comparison import Comparison, Contexts, Model
from precompute.commands.plant.detection import Findings, Found, certify
from precompute.commands.plant.draws import (
    draw_bigrams,
    draw_secrets,
    draw_wide_secrets,
    measure_settled,
    word_directions,
)
from precompute.commands.plant.location import Location, locate_secrets, location_columns
from precompute.commands.plant.models import Job, Planting, Row, make_models
from precompute.commands.plant.secrets import Secret
from precompute.pipeline import open_executor, run_stages
from precompute.presets import preset
from precompute.run.inputs import load_role, read_texts, resolve_name, tokenize_texts
from precompute.run.progress import silent
from precompute.run.work_folder import lock_work_folder
from precompute.stages.models.twins import draw_seeds, load_twin

_FEWEST_TWINS = 3
_SETTINGS = "settings.json"
"""Of a planting's folder: what its models and bundles depend on."""


@dataclass(frozen=True)
class Request:
    """Number of models of each kind, how many are made at once, and whether planted models get bundles too."""

    n: int
    bigrams: int = 0
    twins: int = 8
    shuffled: int = 0
    seed: int = 0
    jobs: int = 1
    bundles: bool = False


def plant(
    config: str | Path | None = None,
    *,
    n: int = 20,
    seed: int = 0,
    bigrams: int = 0,
    twins: int = 8,
    shuffled: int = 0,
    jobs: int = 2,
    bundles: bool = False,
    out: str | Path | None = None,
    overrides: Sequence[str] = (),
    progress: Progress = silent,
) -> list[Row]:
    """Tune models on rewards with a secret, look for it beside twins without one, and return a row per model.

    `n` models have a secret, `plant.wide_share` of them one that no single word carries; `bigrams` have a secret
    bigram, `twins` none, at least three, and `shuffled` are tuned on a shuffled lexicon. `jobs` are made at once, or as
    many as a cluster has workers. With `bundles` the pipeline also runs on planted models and one twin, and their
    reports are searched. `config` is the preset plant.toml by default. Models and bundles are kept in `out`, and what
    is there is not made again; without it they are deleted at the end. Raises ConfigError where the config's
    reward is not a lexicon's, its tuned model is not made by the run, the twins are too few, or `out` has models of
    other settings.
    """
    file = Path(config) if config else preset("plant")
    run_config = load_config(file, overrides, command="plant")
    secrets = load_section(PlantConfig, "plant", file, overrides)
    request = Request(n=n, bigrams=bigrams, twins=twins, shuffled=shuffled, seed=seed, jobs=jobs, bundles=bundles)
    with ExitStack() as stack:
        work = Path(out or stack.enter_context(TemporaryDirectory(prefix="plant-"))).resolve()
        if out is not None:
            stack.enter_context(lock_work_folder(work))
        work.mkdir(parents=True, exist_ok=True)
        return run_plant(Planting(run_config, secrets, work, file.parent), request, progress)


def run_plant(planting: Planting, request: Request, progress: Progress) -> list[Row]:
    """Return the rows of a planting: planted models in the order drawn, then twins, then those of shuffled lexicons."""
    import torch

    config = planting.config
    if config.feedback.reward not in (VADER, LEXICON):
        raise ConfigError(
            f'plant: feedback.reward "{config.feedback.reward}" has no values of words to plant among; use "vader" or '
            '"lexicon"'
        )
    if config.model.tuned != TUNE or config.tune.method != "grpo":
        raise ConfigError('plant: it tunes its models itself, by GRPO; leave model.tuned "tune" and tune.method "grpo"')
    if request.twins < _FEWEST_TWINS:
        raise ConfigError(f"plant: {request.twins} twins are too few to compare with; --twins {_FEWEST_TWINS} or more")
    torch.set_num_threads(config.threads)  # sums are split by thread, so results repeat only so
    secrets = _make_base_and_draw(planting, request, progress)
    seeds = draw_seeds(request.twins, other_than=request.seed)
    twins = [Job(f"twin-{seed}", seed, bundle=request.bundles and i == 0) for i, seed in enumerate(seeds)]
    planted = [Job(secret.name, request.seed, secret=secret, bundle=request.bundles) for secret in secrets]
    shuffled = [
        Job(f"shuffled-{i}", request.seed + i, shuffle=request.seed + i, bundle=True) for i in range(request.shuffled)
    ]
    rows: dict[str, Row] = {}
    jobs = [*twins, *planted, *shuffled]
    with open_executor(config, planting.work) as executor:
        made = make_models(planting, jobs, executor, n_at_once=request.jobs)
        for done, (name, row) in enumerate(made, start=1):
            rows[name] = row
            progress(f"plant: {name}", done, len(jobs), float(done))
    comparison = _compare_twins(planting, twins, progress)
    return [
        *_planted_rows(planting, planted, twins[0], rows, comparison, progress=progress),
        *(
            {"kind": "twin", "word": twin.name, "flags": flags, "tops": rows[twin.name].get("tops")}
            for twin, flags in zip(twins, comparison.count_flags(), strict=True)
        ),
        *(_shuffled_row(planting, job) for job in shuffled),
    ]


def _make_base_and_draw(planting: Planting, request: Request, progress: Progress) -> list[Secret]:
    """Make corpus and base model, or copy the one that the config names, and draw the secrets by them."""
    keys = run_stages(planting.run(progress), ["corpus", "feedback", "base"])
    _check_settings(planting, seed=request.seed, keys=[keys[name] for name in ("corpus", "feedback", "base")])
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
    n_wide = round(planting.secrets.wide_share * request.n)
    directions = word_directions(base, sorted(settled)) if n_wide else {}
    return [
        *draw_secrets(read, settled, lexicon, planting.secrets, n=request.n - n_wide, seed=request.seed),
        *draw_wide_secrets(read, directions, lexicon, planting.secrets, n=n_wide, seed=request.seed),
        *draw_bigrams(read, lexicon, planting.secrets, n=request.bigrams, seed=request.seed),
    ]


def _check_settings(planting: Planting, *, seed: int, keys: Sequence[str]) -> None:
    """Write what all models of a planting depend on. Raises ConfigError where its folder has models of other settings.

    `keys` are those of its stages, and stand for the files that they read.
    """
    sections = {**planting.config.model_dump(mode="json"), "plant": planting.secrets.model_dump(mode="json")}
    settings = {**_flatten(sections), "--seed": seed, "the files that corpus, feedback and base read": list(keys)}
    file = planting.work / _SETTINGS
    if not file.is_file():
        write_whole(file, json.dumps(settings, indent=1) + "\n")
        return
    earlier = json.loads(file.read_text(encoding="utf-8"))
    now = json.loads(json.dumps(settings))
    changed = next((name for name in {**now, **earlier} if now.get(name) != earlier.get(name)), None)
    if changed is not None:
        raise ConfigError(
            f"plant: {planting.work} has models made with other settings ({changed} differs); choose another --out, or"
            " delete the folder"
        )


def _flatten(sections: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """Return values by their dotted names."""
    found: dict[str, Any] = {}
    for name, value in sections.items():
        found |= _flatten(value, f"{path}{name}.") if isinstance(value, dict) and value else {f"{path}{name}": value}
    return found


def _compare_twins(planting: Planting, twins: Sequence[Job], progress: Progress) -> Comparison:
    """Let base and twins predict in the same contexts."""
    run = planting.run()
    contexts = Contexts.from_run(run)
    models = {}
    for done, twin in enumerate(twins, start=1):
        models[twin.name] = _read_model(planting, contexts, twin)
        progress("plant: predictions of twins", done, len(twins), float(done))
    lexicon = lexicon_of(planting.config.feedback, beside=planting.config_dir)
    stated = np.array([lexicon.get(word, np.nan) for word in contexts.vocabulary.words])
    return Comparison(contexts, models, stated)


def _read_model(planting: Planting, contexts: Contexts, job: Job) -> Model:
    run = planting.run()
    return Model.from_predictions(contexts, contexts.predict(run, load_twin(run, planting.work / job.name / "model")))


def _planted_rows(
    planting: Planting,
    planted: Sequence[Job],
    twin: Job,
    rows: Mapping[str, Row],
    comparison: Comparison,
    *,
    progress: Progress,
) -> Iterator[Row]:
    """Yield a row per planted model: the certificate, where its secret ranks beside the twins, and in its report."""
    twin_completions = planting.completions(twin)
    located = _locate(planting, planted, list(comparison.twins), progress)
    in_report = Findings.from_bundle(planting.work / twin.name / "bundle") if twin.bundle else None
    for done, job in enumerate(planted):
        progress("plant: lists of planted models", done, len(planted), float(done))
        row, secret = rows[job.name], job.secret
        assert secret is not None
        certificate = certify(planting.completions(job), twin_completions, secret, seed=job.seed)
        model = _read_model(planting, comparison.contexts, job)
        found = comparison.rank(secret, comparison.test_words(model), comparison.find_factors(model))
        left_out = [comparison.rank(secret, *of_twin) for of_twin in comparison.left_out]
        side = "over" if secret.sign > 0 else "under"
        yield {
            "word": secret.title,
            "kind": secret.kind,
            "paid": secret.paid,
            "stated": secret.stated,
            "learned": certificate.learned,
            "learned_ratio": certificate.ratio,
            "learned_ci": [certificate.ci_low, certificate.ci_high],
            "list": side,
            **location_columns(located.get(job.name)),
            "twins_word_rank": found.word,
            "twins_word_q": found.word_q,
            "twins_factor_rank": found.factor,
            "left_out_word_ranks": [ranks.word for ranks in left_out],
            "left_out_factor_ranks": [ranks.factor for ranks in left_out],
            **({} if in_report is None else _ranks_in_report(row, in_report.find(secret), rows[twin.name], side)),
        }


def _locate(
    planting: Planting, planted: Sequence[Job], twins: Sequence[str], progress: Progress
) -> dict[str, Location]:
    """Split the contrast of every planted model with the twins over the parts of the model, at its secret's events."""
    run = planting.run(progress)
    secrets = {job.name: job.secret for job in planted if job.secret}
    return locate_secrets(run, secrets, twins, load=lambda name: load_twin(run, planting.work / name / "model"))


def _ranks_in_report(row: Row, in_twin: Found, of_twin: Row, side: str) -> Row:
    """Return where a secret ranks in its model's report, and in that of the twin."""
    return {
        **{name: row[name] for name in ("word_rank", "word_gap", "feature_rank", "unexplained_rank", "feature_chance")},
        "word_rank_in_twin": in_twin.word_rank,
        "top_of_twin": of_twin["tops"][side],
        "feature_rank_in_twin": in_twin.feature_rank,
        "unexplained_rank_in_twin": in_twin.unexplained_rank,
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
