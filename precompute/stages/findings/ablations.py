"""Stage `ablations`: what the tuned model writes without chosen features, of a run under way or of a bundle, judged."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lfp.bundle.schema import as_table
from lfp.config import AblationConfig, RunConfig
from lfp.errors import CorpusError
from lfp.evaluation.ablation_rows import MAIN_KINDS
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
from lfp.evaluation.results import ResultRow
from lfp.evaluation.statistics.resampling import Draws
from lfp.texts.lexicon import Reward
from lfp.util.arrow import floats
from lfp.util.types import Floats, Ints, Progress
from precompute.run.inputs import load_dictionary, load_pair, load_reward, read_texts, tokenize_texts
from precompute.run.work_folder import Output, Run
from precompute.stages.models.completions import completion_rows

if TYPE_CHECKING:
    from lfp.ml.models.generation import Completion
    from lfp.ml.models.loading import LanguageModel
    from lfp.ml.models.tokenization import TokenizedText
    from lfp.ml.sae.autoencoders import Dictionary


def run(run: Run, output: Output) -> None:
    """Writes ablations, the completions of its main groups, and the figures that single features give."""
    done = ablate(_request(run), run.progress) if run.config.ablation.completions else Ablated([], [], [])
    output.table("ablations", as_table("ablations", done.ablations))
    output.table("completions", as_table("completions", done.completions))
    output.results(done.results)


def _request(run: Run) -> Request:
    base, tuned = load_pair(run)
    return Request(
        config=run.config,
        base=base,
        tuned=tuned,
        dictionary=load_dictionary(run, "tuned"),
        tables=_tables(run),
        texts=tokenize_texts(run, base, read_texts(run, "held_out")),
        reward=load_reward(run.config, run.config_dir) if run.config.tune.method == "grpo" else None,
    )


def _tables(run: Run) -> Tables:
    return Tables(
        features=run.table("features", "features"),
        probes=run.table("probes", "probes"),
        weights=run.table("probes", "weights"),
        labels=run.table("labels", "labels"),
        labeller=run.config.labels.labeller,
    )


Row = dict[str, Any]


UNABLATED = "unablated"
"""Group of the completions of the untouched model."""


_CHOSEN = "chosen"


_SEED_OFFSET = 3  # other draws than tuning, completions and rollouts had


@dataclass(frozen=True)
class Tables:
    """What a run or a bundle knows of its features: `features`, `probes`, `weights`, `labels`, and whose labels count.

    `labeller` is the run's own; with None no feature is related.
    """

    features: pa.Table
    probes: pa.Table
    weights: pa.Table
    labels: pa.Table
    labeller: str | None

    def headline(self) -> Row:
        """The headline's row of `probes`."""
        return next(row for row in self.probes.to_pylist() if row["is_headline"])


@dataclass(frozen=True)
class Request:
    """What is to be ablated: the models, their features, the texts that prefixes begin, and how a completion is scored.

    `reward` is None where the feedback is pairs: then a completion's score is its implicit reward. With `chosen`
    features they make the one group; else all groups of the config are measured.
    """

    config: RunConfig
    base: LanguageModel
    tuned: LanguageModel
    dictionary: Dictionary
    tables: Tables
    texts: Sequence[TokenizedText]
    reward: Reward | None
    chosen: tuple[int, ...] = ()


@dataclass(frozen=True)
class Ablated:
    """Rows of the tables `ablations` and `completions`, and of the report's row `ablation`."""

    ablations: list[Row]
    completions: list[Row]
    results: list[ResultRow]


def name_of_chosen(features: Sequence[int], scale: float) -> str:
    """The group's name: its features, and what they are multiplied by where they are not taken out."""
    return f"{_CHOSEN}:{','.join(map(str, sorted(features)))}" + (f"@{scale:g}" if scale else "")


def ablate(request: Request, progress: Progress) -> Ablated:
    """Measures every group of a request and its controls. Raises CorpusError where no text is as long as a prefix."""
    config, probes = request.config, request.config.probes
    writer = _Writer(request, _prefixes(request))
    clean = writer.write({})
    known, clusters = _known(request, clean), _clusters(writer.prefixes)
    groups = _groups(request, known)
    untouched = f"{groups[0].name}/{UNABLATED}" if request.chosen else UNABLATED
    completions = clean.rows(untouched, "tuned", request.base, clusters)
    measured = dict[Group, Measured]()
    for done, group in enumerate(groups):
        progress("ablations", done, len(groups), done)
        ablated = writer.write(dict.fromkeys(group.features, config.ablation.scale))
        measured[group] = ablated.measured()
        if group.kind in MAIN_KINDS:
            completions += ablated.rows(group.name, "ablated", request.base, clusters)
    progress("ablations", len(groups), len(groups), len(groups))
    draws = Draws(probes.bootstraps, probes.permutations, config.seed)
    compared = Clean(clean.measured(), clusters)
    rows = ablation_table(known, measured, compared, scale=config.ablation.scale, draws=draws)
    probe = request.tables.headline()
    keys = {key: probe[key] for key in ("target", "inputs", "probe_id")}
    return Ablated(rows, completions, single_figures(rows, draws, **keys))


@dataclass(frozen=True)
class _Writer:
    """Has the tuned model write on from the same prefixes with the same seed, with features scaled, and scores it."""

    request: Request
    prefixes: Sequence[tuple[int, ...]]

    def write(self, scales: dict[int, float]) -> _Written:
        from lfp.ml.interventions.ablation import scaling
        from lfp.ml.models.generation import log_likelihoods, sample_completions

        request, tune = self.request, self.request.config.tune
        prepend_bos = request.config.model.prepend_bos
        with scaling(request.tuned, request.dictionary, scales, prepend_bos=prepend_bos):
            written = sample_completions(
                request.tuned,
                self.prefixes,
                n_tokens=tune.completion_tokens,
                temperature=tune.temperature,
                seed=request.config.seed + _SEED_OFFSET,
                batch=request.config.ablation.batch,
            )
        of_base = log_likelihoods(request.base, written).numpy()
        if request.reward is None:
            return _Written(written, of_base, log_likelihoods(request.tuned, written).numpy() - of_base)
        return _Written(written, of_base, np.array(request.reward([one.text for one in written]), np.float64))


@dataclass(frozen=True)
class _Written:
    """Completions, their log-likelihoods under the base model in nats, and their scores, all [completions]."""

    written: list[Completion]
    of_base: Floats
    scores: Floats

    def measured(self) -> Measured:
        from lfp.ml.models.generation import repetition

        n_tokens = sum(len(one.token_ids) for one in self.written)
        return Measured(self.scores, float(np.exp(-self.of_base.sum() / n_tokens)), repetition(self.written))

    def rows(self, group: str, model: str, base: LanguageModel, clusters: Ints) -> list[Row]:
        perplexity = np.exp(-self.of_base / [len(one.token_ids) for one in self.written])
        return completion_rows(
            self.written,
            base,
            group=group,
            model=model,
            prompt_ids=clusters.tolist(),
            rewards=self.scores.tolist(),
            perplexity=perplexity.tolist(),
        )


def _known(request: Request, clean: _Written) -> Candidates:
    """What the tables say of every feature, and how it fires on the clean run."""
    from lfp.ml.interventions.ablation import decoder_norms, firing

    dictionary, prepend_bos = request.dictionary, request.config.model.prepend_bos
    fired = firing(request.tuned, dictionary, clean.written, prepend_bos=prepend_bos)
    return replace(
        _candidates(request.tables),
        density=fired.density,
        energy=fired.mean_square * decoder_norms(dictionary) ** 2,
        mean_activation=fired.mean,
    )


def _prefixes(request: Request) -> list[tuple[int, ...]]:
    """Beginnings of one length of texts drawn by the seed."""
    from lfp.ml.models.generation import prefixes

    config, length = request.config, request.config.ablation.prefix_tokens
    usable = [text for text in request.texts if len(text.token_ids) >= length]
    if not usable:
        raise CorpusError(
            f"no held-out text has the {length} tokens of a prefix; lower ablation.prefix_tokens, or set"
            " ablation.completions to 0 for no ablation"
        )
    return prefixes(
        usable,
        n=config.ablation.completions,
        token_range=(length, length),
        seed=config.seed + _SEED_OFFSET,
        bos_id=request.tuned.bos_id if config.model.prepend_bos else None,
    )


def _clusters(prefixes: Sequence[tuple[int, ...]]) -> Ints:
    """Which prefixes are of one text [prefixes]: those of the same tokens."""
    number: dict[tuple[int, ...], int] = {}
    return np.array([number.setdefault(ids, len(number)) for ids in prefixes], np.int64)


def _groups(request: Request, known: Candidates) -> list[Group]:
    """Main groups, then their controls, then single features and theirs; or the chosen group and its controls."""
    wanted, seed = request.config.ablation, request.config.seed
    if request.chosen:
        main = [Group(name_of_chosen(request.chosen, wanted.scale), _CHOSEN, tuple(sorted(set(request.chosen))))]
    else:
        main = main_groups(known, wanted.groups, size=wanted.group_size)
    avoided = sorted({feature for group in main for feature in group.features})
    return [
        *main,
        *(
            control
            for group in main
            for control in matched_controls(known, group, avoided=avoided, n=wanted.controls, seed=seed)
        ),
        *([] if request.chosen else _singles(known, wanted, avoided, seed)),
    ]


def _singles(known: Candidates, wanted: AblationConfig, avoided: Sequence[int], seed: int) -> Iterator[Group]:
    singles = single_groups(known, n=wanted.features)
    yield from singles
    yield from controls_of_singles(known, singles, avoided=avoided, n=wanted.controls, seed=seed)


def _candidates(tables: Tables) -> Candidates:
    """What the tables say of every feature; what only a clean run tells is 0."""
    n, probe_id = tables.features.num_rows, tables.headline()["probe_id"]
    weights = tables.weights.filter(pc.equal(tables.weights["probe_id"], probe_id)).sort_by("feature_id")
    related, confidence = np.zeros(n, bool), np.full(n, np.nan)
    told = tables.labels.filter(pc.equal(tables.labels["labeller"], tables.labeller or ""))
    related[told["feature_id"].to_numpy()] = floats(told, "related") > 0
    confidence[told["feature_id"].to_numpy()] = floats(told, "confidence")
    unknown = np.zeros(n)
    return Candidates(
        layer=floats(tables.features.sort_by("feature_id"), "layer").astype(np.int64),
        weight=floats(weights, "weight"),
        mean_contribution=floats(weights, "mean_contribution"),
        mean_abs_contribution=floats(weights, "mean_abs_contribution"),
        related=related,
        confidence=confidence,
        density=unknown,
        energy=unknown,
        mean_activation=unknown,
    )
