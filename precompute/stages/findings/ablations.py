"""Stage `ablations`: the reward of what the tuned model writes without some features, in a run or from a bundle."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lfp.bundle.schema import as_table
from lfp.config import RunConfig
from lfp.errors import CorpusError
from lfp.evaluation.findings.ablation import (
    Candidates,
    Clean,
    Group,
    Measured,
    ablation_table,
    controls_of_singles,
    main_groups,
    matched_controls,
    single_figures,
    single_groups,
)
from lfp.evaluation.results import MAIN_KINDS, ResultRow
from lfp.evaluation.statistics.resampling import Draws
from lfp.texts.lexicon import Reward
from lfp.util.types import Floats, Ints, Progress, floats
from precompute.run.executor import IN_PROCESS, Executor, Report, Shelf, Task, map_in_order
from precompute.run.inputs import (
    count_prompt_tokens,
    load_dictionary,
    load_pair,
    load_reward,
    read_texts,
    tokenize_texts,
)
from precompute.run.work_folder import Output, Run
from precompute.stages.findings.rewarded_writing import Writer
from precompute.stages.models.completions import completion_rows, number_prefixes

if TYPE_CHECKING:
    from lfp.ml.models.generation import Completion
    from lfp.ml.models.loading import LanguageModel
    from lfp.ml.models.tokenization import TokenizedText
    from lfp.ml.sae.autoencoders import Dictionary

Row = dict[str, Any]

UNABLATED = "unablated"
"""Group of the completions of the untouched model."""

_CHOSEN = "chosen"
_SEED_OFFSET = 3  # other samples than tuning, completions and rollouts had


def run(run: Run, output: Output) -> None:
    """Write the table `ablations`, the completions of its main groups, and the results of single features."""
    done = Ablated([], [], [])
    if run.config.ablation.completions:
        load = _LoadWriting(run.for_worker())
        work = Mapped(run.executor, load, Shelf(output.scratch, "groups"))
        done = ablate(_read_request(run), run.progress, work)
    output.table("ablations", as_table("ablations", done.ablations))
    output.table("completions", as_table("completions", done.completions))
    output.results(done.results)


def _read_request(run: Run) -> Request:
    """Load what a run's ablations need."""
    base, tuned = load_pair(run)
    held_out = read_texts(run, "held_out")
    texts = tokenize_texts(run, base, held_out)
    return Request(
        config=run.config,
        base=base,
        tuned=tuned,
        dictionary=load_dictionary(run, "tuned"),
        tables=Tables(
            features=run.table("features", "features"),
            probes=run.table("probes", "probes"),
            weights=run.table("probes", "weights"),
            labels=run.table("labels", "labels"),
            labeller=run.config.labels.labeller,
        ),
        texts=texts,
        prompts=count_prompt_tokens(held_out, texts),
        reward=load_reward(run.config, run.config_dir) if run.config.tune.method == "grpo" else None,
    )


@dataclass(frozen=True)
class Tables:
    """The tables of a run or bundle that describe its features, and the labeller whose labels count.

    `labeller` is the run's own; with None no feature is related.
    """

    features: pa.Table
    probes: pa.Table
    weights: pa.Table
    labels: pa.Table
    labeller: str | None


@dataclass(frozen=True)
class Request:
    """What to ablate: the models, their features, the texts that prefixes are taken from, and the reward.

    `reward` is None where the feedback is pairs: then a completion's score is its implicit reward. `chosen` features
    make a group of their own; without them all groups of the config are measured.
    """

    config: RunConfig
    base: LanguageModel
    tuned: LanguageModel
    dictionary: Dictionary
    tables: Tables
    texts: Sequence[TokenizedText]
    prompts: Sequence[int | None]
    """Tokens of each text that are its prompt; None where it has none."""
    reward: Reward | None
    chosen: tuple[int, ...] = ()


@dataclass(frozen=True)
class Ablated:
    """Rows of the tables `ablations` and `completions`, and of the report's row `ablation`."""

    ablations: list[Row]
    completions: list[Row]
    results: list[ResultRow]


def name_of_chosen(features: Sequence[int], scale: float) -> str:
    """Name the group of chosen features, and the factor of their activations where that is not 0."""
    return f"{_CHOSEN}:{','.join(map(str, sorted(features)))}" + (f"@{scale:g}" if scale else "")


class Mapped(NamedTuple):
    """What maps the writing over groups, what loads it in another process, and where results are kept until then."""

    executor: Executor
    load: Callable[[], _Writing]
    shelf: Shelf


def ablate(request: Request, progress: Progress, mapped: Mapped | None = None) -> Ablated:
    """Measure every group of a request and its controls, in this process unless `mapped` says otherwise.

    Raises CorpusError where no text is as long as a prefix.
    """
    config, probes = request.config, request.config.probes
    writing = _Writing(_open_writer(request), request)
    writer, clean = writing.writer, writing.write()
    others = [writer.score(writer.write(run=i)).mean() for i in range(1, config.ablation.clean_runs)]
    clusters = number_prefixes(writer.prefixes)
    headline = next(row for row in request.tables.probes.to_pylist() if row["is_headline"])
    known = _describe_features(request, clean, headline["probe_id"])
    groups = _select_groups(request, known)
    untouched = f"{groups[0].name}/{UNABLATED}" if request.chosen else UNABLATED
    completions = clean.rows(untouched, "tuned", request.base, clusters)
    executor, load, shelf = mapped or Mapped(IN_PROCESS, lambda: writing, Shelf(None, ""))
    task = Task("ablations", [1] * len(groups), load, shelf, progress)
    measured = dict[Group, Measured]()
    for group, written in zip(groups, map_in_order(executor, writing, groups, task), strict=True):
        measured[group] = written.measured()
        if group.kind in MAIN_KINDS:
            completions += written.rows(group.name, "ablated", request.base, clusters)
    draws = Draws(probes.bootstraps, probes.permutations, config.seed)
    compared = Clean(clean.measured(), clusters, tuple(map(float, (clean.scores.mean(), *others))))
    rows = ablation_table(known, measured, compared, scale=config.ablation.scale, draws=draws)
    keys = {key: headline[key] for key in ("target", "inputs", "probe_id")}
    return Ablated(rows, completions, single_figures(rows, draws, **keys))


def _open_writer(request: Request) -> Writer:
    config = request.config
    writer = Writer.open(
        config,
        request.base,
        request.tuned,
        request.texts,
        prompts=request.prompts,
        reward=request.reward,
        seed=config.seed + _SEED_OFFSET,
    )
    if not writer.prefixes:
        raise CorpusError(
            f"no held-out text has the {config.ablation.prefix_tokens} tokens of a prefix, or a response within the"
            " context; lower ablation.prefix_tokens, raise model.context, or set ablation.completions to 0 for no"
            " ablation"
        )
    return writer


@dataclass(frozen=True)
class _Writing:
    """Writes with features scaled, and scores what is written."""

    writer: Writer
    request: Request

    def __call__(self, group: Group, report: Report) -> _Written:
        """Write without a group, or with it scaled as the config says."""
        written = self.write(dict.fromkeys(group.features, self.request.config.ablation.scale))
        report(1)
        return written

    def write(self, scales: Mapping[int, float] | None = None) -> _Written:
        """Write with the activations of features times these factors."""
        from lfp.ml.interventions.ablation import scaling
        from lfp.ml.models.generation import log_likelihoods

        request, prepend_bos = self.request, self.request.config.model.prepend_bos
        written = self.writer.write(
            scaling(request.tuned, request.dictionary, scales or {}, prepend_bos=prepend_bos, other=request.base)
        )
        of_base = log_likelihoods(request.base, written).numpy()
        return _Written(written, of_base, self.writer.score(written, of_base=of_base))


@dataclass(frozen=True)
class _LoadWriting:
    """Loads in another process what ablations are written by."""

    run: Run

    def __call__(self) -> _Writing:
        """Load models, dictionary and prefixes."""
        request = _read_request(self.run)
        return _Writing(_open_writer(request), request)


@dataclass(frozen=True)
class _Written:
    """Completions, their log-likelihoods under the base model in nats, and their scores, all [completions]."""

    written: list[Completion]
    of_base: Floats
    scores: Floats

    def measured(self) -> Measured:
        from lfp.ml.models.generation import repetition

        n_tokens = sum(len(completion.token_ids) for completion in self.written)
        return Measured(self.scores, float(np.exp(-self.of_base.sum() / n_tokens)), repetition(self.written))

    def rows(self, group: str, model: str, base: LanguageModel, clusters: Ints) -> list[Row]:
        perplexity = np.exp(-self.of_base / [len(completion.token_ids) for completion in self.written])
        return completion_rows(
            self.written,
            base,
            group=group,
            model=model,
            prompt_ids=clusters.tolist(),
            rewards=self.scores.tolist(),
            perplexity=perplexity.tolist(),
        )


def _describe_features(request: Request, clean: _Written, probe_id: int) -> Candidates:
    """Describe every feature by the tables, and by how it fires on the clean run."""
    from lfp.ml.interventions.ablation import firing

    dictionary, tables = request.dictionary, request.tables
    n = tables.features.num_rows
    weights = tables.weights.filter(pc.equal(tables.weights["probe_id"], probe_id)).sort_by("feature_id")
    related, confidence = np.zeros(n, bool), np.full(n, np.nan)
    labels = tables.labels.filter(pc.equal(tables.labels["labeller"], tables.labeller or ""))
    related[labels["feature_id"].to_numpy()] = floats(labels, "related") > 0
    confidence[labels["feature_id"].to_numpy()] = floats(labels, "confidence")
    norms = np.concatenate([rows.norm(dim=1).double().cpu().numpy() for rows in dictionary.decoders])
    prepend_bos = request.config.model.prepend_bos
    fired = firing(request.tuned, dictionary, clean.written, prepend_bos=prepend_bos, base=request.base)
    return Candidates(
        places=dictionary.places,
        place=dictionary.place_of,
        weight=floats(weights, "weight"),
        mean_contribution=floats(weights, "mean_contribution"),
        mean_abs_contribution=floats(weights, "mean_abs_contribution"),
        related=related,
        confidence=confidence,
        density=fired.density,
        energy=fired.mean_square * norms**2,
        mean_activation=fired.mean,
    )


def _select_groups(request: Request, known: Candidates) -> list[Group]:
    """List main groups, their controls, single features and their controls; or the chosen group and its controls."""
    wanted, seed = request.config.ablation, request.config.seed
    if request.chosen:
        main = [Group(name_of_chosen(request.chosen, wanted.scale), _CHOSEN, tuple(sorted(set(request.chosen))))]
    else:
        main = main_groups(known, wanted.groups, size=wanted.group_size)
    avoided = sorted({feature for group in main for feature in group.features})
    groups = list(main)
    for group in main:
        groups += matched_controls(known, group, avoided=avoided, n=wanted.controls, seed=seed)
    if not request.chosen:
        singles = single_groups(known, n=wanted.features)
        groups += singles
        groups += controls_of_singles(known, singles, avoided=avoided, n=wanted.controls, seed=seed)
    return groups
