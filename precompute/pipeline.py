"""The stages of a run in order, with everything that each of them reads; those that are done are skipped."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from lfp.bundle.remote.mirror import place_beside
from lfp.bundle.remote.publishing import Target
from lfp.bundle.writer import check_replaceable
from lfp.config import LEXICON, NO_CLUSTER, PRETRAIN, TUNE, LanguageModelConfig, RunConfig
from lfp.errors import ConfigError, DataError
from lfp.ml.models.sources import check_device
from lfp.texts.lexicon import writes_no_spaces
from lfp.util.dependencies import jobs_packages
from lfp.util.object_stores import is_address
from lfp.util.types import Progress
from precompute.run.bundle import write_bundle
from precompute.run.executor import IN_PROCESS, Executor
from precompute.run.inputs import (
    find_corpus_files,
    find_dictionary_files,
    find_lexicon_files,
    find_model_files,
    find_reward_files,
)
from precompute.run.memory import explain_full_memory
from precompute.run.stage import FileDigests, Stage, compute_key, find_needed
from precompute.run.work_folder import Run, lock_output
from precompute.stages.features import features, reseeded, saes, texts
from precompute.stages.features.pretrained import check_files
from precompute.stages.findings import (
    ablations,
    feature_credits,
    feature_trajectory,
    findings,
    interventions,
    twin_drift,
    twin_words,
)
from precompute.stages.models import completions, corpus, credits, forecast, pair, trajectory, twins
from precompute.stages.probes import probes

_CHEAP = {"corpus", "feedback"}
"""Stages that take a moment; a run that has done no other may be started again without `resume`."""
_UNTIL_BASE = _CHEAP | {"base"}
"""Stages before which the number of layers is not known."""


def plan_stages(config: RunConfig, config_dir: Path | None) -> tuple[Stage, ...]:
    """Return the stages of a run in order, each with what it reads under this config.

    Raises CorpusError or ConfigError where a file that the config names is not there.
    """
    pretrains, tunes, by_pairs = config.model.base == PRETRAIN, config.model.tuned == TUNE, config.tune.method == "dpo"
    by_credit = config.layers.by == "credit" and not config.layers.chosen
    pairs = ("tune.method", "tune.pairs", "tune.pairs_config", "tune.pairs_data_dir", "tune.pairs_split",
             "tune.pairs_revision", "tune.pairs_verdict", "tune.pairs_as")  # fmt: skip
    chats = ("model.base", "model.base_revision", "model.chat_template", "model.prepend_bos")
    writing = ("tune.prefix_tokens", "tune.completion_tokens", "tune.temperature")
    training = ("tune.method", "tune.steps", "tune.learning_rate", "tune.adapter", "tune.freeze_embeddings",
                "tune.gradient_accumulation", "tune.keep_every", "tune.logger", "tune.beta", "tune.prompts_per_step",
                "tune.group_size", "tune.pairs_batch", *writing)  # fmt: skip
    corpus_pass = ("stats.n_texts", "stats.batch_texts", "probes.min_word_count", "probes.folds", "probes.max_rows",
                   "probes.word_occurrences", "probes.matched_contexts")  # fmt: skip
    loading = ("model.device", "model.device_map", "model.dtype", "model.attn_implementation")
    draws = ("probes.bootstraps", "probes.permutations")
    pair_of_models = ("corpus", "base", "tuned")
    dictionaries = find_dictionary_files(config, config_dir)
    lexicon_files, reward_files = find_lexicon_files(config, config_dir), find_reward_files(config, config_dir)
    segmenting = ("feedback.lexicon",) if any(map(writes_no_spaces, lexicon_files)) else ()
    reward = tuple(
        f"feedback.{name}"
        for name in type(config.feedback).model_fields
        if name != "lexicon" or config.feedback.reward == LEXICON
    )
    tuned_files = reward_files if tunes else find_model_files(config.model.tuned, config_dir)
    if tunes and by_pairs:
        tuned_files = ()
    forecasts = tunes and by_pairs and config.forecast.pairs > 0
    rolls_out = not by_pairs and config.probes.rollouts > 0
    reseeds = config.probes.dictionary_seeds > 1
    ablates = config.ablation.completions > 0
    return (
        Stage(
            "corpus", corpus.run, reads=("corpus", *pairs, *chats, "seed"), files=find_corpus_files(config, config_dir)
        ),
        Stage(
            "feedback",
            corpus.run_feedback,
            after=("corpus",),
            reads=("feedback", "model.device", "model.tuned", "tune.logger"),
            files=(*lexicon_files, *reward_files),
        ),
        Stage(
            "base",
            pair.run_base,
            after=("corpus",) if pretrains else (),
            reads=("model.base", "model.base_revision", "model.context", *loading)
            + (("pretrain", "seed") if pretrains else ("stats.batch_texts",)),
            files=() if pretrains else find_model_files(config.model.base, config_dir),
        ),
        Stage(
            "forecast",
            forecast.run_forecast if forecasts else forecast.skip,
            after=("corpus", "base") if forecasts else (),
            reads=("forecast.pairs", "forecast.layer")
            + (
                (
                    "model.base",
                    "model.base_revision",
                    "model.context",
                    "model.prepend_bos",
                    *loading,
                    "sae",
                    "probes.permutations",
                    "stats.batch_texts",
                    "seed",
                )
                if forecasts
                else ()
            ),
        ),
        Stage(
            "tuned",
            pair.run_tuned,
            after=("corpus", "base", *(("forecast",) if forecasts else ())) if tunes else ("base",),
            reads=(
                "model.base",
                "model.base_revision",
                "model.tuned",
                "model.tuned_revision",
                "model.context",
                "model.prepend_bos",
                *loading,
            )
            + (("seed", *training) if tunes else ())
            + (reward if tunes and not by_pairs else ()),
            files=tuned_files,
        ),
        Stage(
            "twins",
            twins.run_twins,
            after=("corpus", "base") if config.twins.n else (),
            reads=("twins",)
            + (("model", "seed", *training) if config.twins.n else ())
            + (reward if config.twins.n and not by_pairs else ()),
            files=reward_files if config.twins.n and not by_pairs else (),
        ),
        Stage(
            "completions",
            completions.run,
            after=pair_of_models,
            reads=("model", "tune.eval_prefixes", *writing, "probes.bootstraps", "seed", *reward),
            files=reward_files,
        ),
        Stage(
            "receipt",
            forecast.run_receipt,
            after=(*pair_of_models, "forecast") if forecasts else ("forecast",),
            reads=("forecast",) + (("model", "stats.batch_texts", "seed") if forecasts else ()),
        ),
        Stage(
            "credits",
            partial(credits.run, with_lexicon=bool(segmenting)),
            after=(*pair_of_models, "twins"),
            reads=(
                "model",
                "credits",
                "cluster.shard_texts",
                "stats.n_texts",
                "probes.min_word_count",
                "probes.folds",
                "seed",
                *segmenting,
            ),
            files=lexicon_files if segmenting else (),
        ),
        Stage(
            "trajectory",
            trajectory.run,
            after=pair_of_models,
            reads=("model", "credits", "stats.n_texts", "tune.steps", *draws, "seed"),
        ),
        Stage(
            "layers",
            pair.run_layers,
            after=("base", "tuned") + (("credits",) if by_credit else ()),
            reads=("model", "layers"),
        ),
        Stage(
            "saes",
            partial(saes.run, load_twins=twins.load_twins if config.twins.n else None),
            after=(*pair_of_models, "layers") + (("twins",) if config.twins.n else ()),
            reads=("model", "sae", "stats.batch_texts", "probes.controls", "seed"),
            files=dictionaries,
        ),
        Stage(
            "reseeded",
            reseeded.run,
            after=(*pair_of_models, "layers") if reseeds else (),
            reads=("probes.dictionary_seeds", *(("model", "sae", "stats.batch_texts", "seed") if reseeds else ())),
        ),
        Stage(
            "features",
            partial(features.run, with_lexicon=bool(segmenting)),
            after=(*pair_of_models, "layers", "saes"),
            reads=("model", "stats", *corpus_pass, "cluster.shard_texts", "seed", *segmenting),
            files=lexicon_files if segmenting else (),
        ),
        Stage(
            "rollouts",
            partial(features.run_rollouts, with_lexicon=bool(segmenting)),
            after=(*pair_of_models, "features") if rolls_out else ("features",),
            reads=("probes.rollouts", "tune.method")
            + (("model", *corpus_pass, *writing, "seed", *reward, *segmenting) if rolls_out else ()),
            files=reward_files if rolls_out else (),
        ),
        Stage(
            "probes",
            probes.run,
            after=(*pair_of_models, "completions", "layers", "saes", "reseeded", "features", "rollouts"),
            reads=(
                *("model", "probes", "stats.n_texts", "stats.batch_texts", "cluster.shard_texts"),
                *("feedback.lexicon", "seed"),
            ),
            files=lexicon_files,
        ),
        Stage(
            "texts",
            texts.run,
            after=(*pair_of_models, "credits", "layers", "saes", "features", "probes"),
            reads=("model", "stats", "cluster.shard_texts", "seed", "feedback"),
            files=(*lexicon_files, *reward_files),
        ),
        Stage(
            "twin_words",
            partial(twin_words.run, with_lexicon=bool(segmenting)),
            after=(*pair_of_models, "twins") if config.twins.n else (),
            reads=("twins", *(("model", *corpus_pass, "seed", "feedback.lexicon") if config.twins.n else ())),
            files=lexicon_files if config.twins.n else (),
        ),
        Stage(
            "twin_drift",
            twin_drift.run,
            after=(*pair_of_models, "layers", "saes", "twins") if config.twins.n else (),
            reads=("twins", *(("model", "stats.n_texts", "stats.batch_texts", "seed") if config.twins.n else ())),
        ),
        Stage(
            "feature_credits",
            feature_credits.run,
            after=(*pair_of_models, "twins", "credits", "layers", "saes", "texts"),
            reads=(
                "model",
                "cluster.shard_texts",
                "credits.tolerance",
                "credits.max_nodes",
                "feature_credits.twin_texts",
                "feature_credits.texts",
                "feature_credits.nodes",
                "feature_credits.batch_texts",
                *draws,
                "seed",
            ),
        ),
        Stage(
            "feature_trajectory",
            feature_trajectory.run,
            after=(*pair_of_models, "layers", "saes", "texts", "feature_credits"),
            reads=(
                "model",
                "credits.checkpoint_texts",
                "feature_credits.texts",
                "feature_credits.nodes",
                "feature_credits.batch_texts",
                "tune.steps",
                *draws,
                "seed",
            ),
        ),
        Stage(
            "labels",
            findings.run_labels,
            after=("features", "texts", "feature_credits"),
            reads=("labels", "feedback.lexicon"),
            files=lexicon_files,
        ),
        Stage(
            "findings",
            findings.run,
            after=("credits", "layers", "saes", "features", "probes", "texts", "feature_credits", "labels"),
            reads=("probes", "labels", "seed"),
        ),
        Stage(
            "interventions",
            interventions.run,
            after=(*pair_of_models, "layers", "saes", "texts", "probes", "feature_credits", "findings"),
            reads=(
                "model",
                "feature_credits",
                "tune.method",
                *writing,
                *draws,
                "seed",
                "ablation.completions",
                "ablation.clean_runs",
                "ablation.prefix_tokens",
                "ablation.batch",
                *(() if by_pairs else reward),
            ),
            files=() if by_pairs else reward_files,
        ),
        Stage(
            "ablations",
            ablations.run,
            after=(*pair_of_models, "layers", "saes", "features", "probes", "labels") if ablates else (),
            reads=("ablation",)
            + (("model", "tune.method", *writing, *draws, "labels.labeller", "seed") if ablates else ())
            + (reward if ablates and not by_pairs else ()),
            files=reward_files if ablates and not by_pairs else (),
        ),
    )


def run_pipeline(
    config: RunConfig,
    out: str | Path,
    *,
    config_dir: Path | None,
    resume: bool,
    progress: Progress,
    language_model: LanguageModelConfig | None = None,
    work: str | Path | None = None,
) -> Path | str:
    """Run every stage that is not done, write the bundle to `out`, and return its resolved path, or its address.

    The stages' output is kept in a hidden folder in `work`, or beside `out`, until the bundle is complete, so that an
    interrupted run continues with `resume`. Raises ConfigError where a model or more is done and `resume` is False, and
    BundleError where `out` holds something else, cannot be written, or another command is writing to it.
    """
    import torch

    target = Target.find(str(out)) if is_address(out) else None
    place = place_beside(out)
    if target is None:
        check_replaceable(place)
    with lock_output(out, within=work) as folder:
        run = Run(config, folder, config_dir, progress, language_model=language_model)
        check_resumable(run, resume=resume)
        torch.set_num_threads(config.threads)  # sums are split by thread, so results repeat only so
        names = [stage.name for stage in plan_stages(config, config_dir)]
        with open_executor(config, folder) as executor:
            run_stages(replace(run, executor=executor), names)
        if target is None:
            write_bundle(run, place, names)
        else:
            write_bundle(run, folder / "bundle", names)
            target.publish(folder / "bundle")
        shutil.rmtree(folder)
    return place if target is None else target.folder.address


@contextmanager
def open_executor(config: RunConfig, work: Path) -> Iterator[Executor]:
    """Yield what maps functions as `[cluster]` says; a cluster of its own ends with the block.

    `work` is the work folder of the run, which the workers read models from. Raises ClusterError where the cluster
    cannot be reached or is not as the run needs it, DependencyError where Ray is not installed.
    """
    if config.cluster.address == NO_CLUSTER:
        yield IN_PROCESS
        return
    with jobs_packages(f"cluster.address {config.cluster.address}"):
        from precompute.run.cluster import connect
    with connect(config.cluster, threads=config.threads, work=work) as cluster:
        yield cluster


def check_resumable(run: Run, *, resume: bool) -> None:
    """Raise ConfigError where the work folder holds models and `resume` is False."""
    if not resume and set(run.finished()) - _CHEAP:
        raise ConfigError(
            f"{run.work}: an interrupted run with {len(run.finished())} finished stages; add --resume to continue it,"
            " or delete the folder"
        )


def run_stages(run: Run, targets: Collection[str]) -> dict[str, str]:
    """Run the stages named and all that they come after, each unless it is done; return the keys of all stages by name.

    A GPU that is not there, or a dictionary made elsewhere that cannot be read, ends the run before any model is made.
    Raises DataError where a file that a stage reads changes meanwhile, and ConfigError, before any tuning, for a chosen
    layer that the base model lacks.
    """
    stages, digests = plan_stages(run.config, run.config_dir), FileDigests()
    keys: dict[str, str] = {}
    for stage in stages:
        keys[stage.name] = compute_key(stage, run.config, keys, digests)
    needed = find_needed(stages, targets)
    due = [stage for stage in stages if stage.name in needed and not run.is_done(stage.name, keys[stage.name])]
    if due:
        check_device(run.config.model.device)
    if any(stage.name == "saes" for stage in due):
        check_files(run.config, run.config_dir)
    for stage in due:
        if stage.name not in _UNTIL_BASE and "base" in needed:
            pair.check_chosen_layers(run)
        run_stage(run, stage, keys[stage.name], digests)
    return keys


def run_stage(run: Run, stage: Stage, key: str, digests: FileDigests) -> None:
    """Run one stage and keep its output under `key`.

    Raises DataError where a file that it reads has changed, ModelError where it fills the memory.
    """
    run.progress(stage.name, 0, 1, 0.0)
    with run.writing(stage.name, key) as output:
        with explain_full_memory(run, stage):
            stage.job(run.narrow(stage), output)
        for file in stage.files:
            if not file.is_file() or digests.digest(file) != digests.first[file]:
                raise DataError(f"{file}: changed while the run was reading it; start the command again with --resume")
    (cost,) = run.costs([stage.name])
    run.progress(stage.name, 1, 1, cost.seconds)
