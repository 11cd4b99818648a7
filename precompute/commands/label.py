"""`label`: add labels to a bundle, by a language model, by the offline rule, or from a person's file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import pyarrow as pa

from lfp.bundle.manifest import check_bundle, read_table
from lfp.bundle.remote.mirror import local_folder, place_beside
from lfp.bundle.remote.publishing import update_bundle
from lfp.config import LabelsConfig, ProbesConfig, parse_section, with_overrides
from lfp.errors import ConfigError
from lfp.evaluation.statistics.resampling import Draws
from lfp.labels.client.answer_file import AnswerFile
from lfp.labels.client.client import Client, ClientConfig, Estimate
from lfp.labels.evidence import read_evidence
from lfp.labels.language_model import LanguageModelLabeller
from lfp.labels.result_rows import LABEL_ROWS, label_results, label_rows, merge_labels, read_labels
from lfp.labels.selection import interleave_groups, select_features
from lfp.labels.token_rule import OfflineTokens, read_densities, read_effects
from lfp.labels.types import HUMAN, Evidence, Label, describe_task
from lfp.util.types import Progress
from precompute.run.work_folder import writes_bundle

LabellerKind = Literal["openai", "offline-tokens", "human"]


@dataclass(frozen=True)
class LabelOutcome:
    """Result of `label`: features labelled, failures counted by reason, and dollars spent.

    After a dry run `estimate` holds what labelling would take, and nothing was labelled. `notes` say of the server,
    a sentence each, what was not as requested.
    """

    labelled: int
    failed: Counter[str]
    spent_usd: float = 0.0
    estimate: Estimate | None = None
    notes: tuple[str, ...] = ()

    @property
    def sentence(self) -> str:
        """The summary that the command prints."""
        if self.estimate is not None:
            return self.estimate.sentence
        parts = [f"{self.labelled} features labelled"]
        if self.failed:
            reasons = "; ".join(f"{n} {reason}" for reason, n in self.failed.most_common())
            parts.append(f"{self.failed.total()} failed ({reasons})")
        return ", ".join([*parts, f"${self.spent_usd:.4f} spent"])


@writes_bundle
def label(
    bundle: str | Path,
    *,
    labeller: LabellerKind = "openai",
    features: Sequence[int] | None = None,
    model: str | None = None,
    base_url: str | None = None,
    budget_usd: float = 1.0,
    price_in: float | None = None,
    price_out: float | None = None,
    task: str | None = None,
    concurrency: int = 16,
    timeout_s: float = 60.0,
    cache: str | Path | None = None,
    dry_run: bool = False,
    labels_file: str | Path | None = None,
    export_prompts: str | Path | None = None,
    answers: str | Path | None = None,
    reviewer: str = "reviewer",
    overrides: Sequence[str] = (),
    progress: Progress | None = None,
) -> LabelOutcome:
    """Describe features and write the labels into a bundle, beside the labels that it holds.

    `openai` asks a language model and scores its descriptions on held-out examples. Answers are cached on disk, so
    that a call repeated after an interruption pays for no answer twice. The API key is read from the environment.
    `offline-tokens` labels by rules of what a feature fires on. `human` reads a person's labels from a file; or it
    puts the questions that a language model would get into a file, `export_prompts`, and reads a person's answers to
    them from another, which are scored in the same way. What follows from answers (whether held-out examples match a
    description) is asked in the next export; a label is written once its description and relation are answered.

    Args:
        bundle: Folder of the bundle.
        labeller: Who labels: `openai`, `offline-tokens` or `human`.
        features: Feature ids. By default a language model labels the groups that the config selects, and the rule
            labels all features.
        model: `openai`: the model's name on the server.
        base_url: `openai`: address of a compatible server; OpenAI's API by default.
        budget_usd: `openai`: dollars that are never exceeded.
        price_in: `openai`: dollars per million prompt tokens; needed without `base_url`.
        price_out: `openai`: dollars per million answer tokens; needed without `base_url`.
        task: `openai`: what the feedback was about; by default as the bundle's config says.
        concurrency: `openai`: most calls in flight at once; fewer where the server queues them.
        timeout_s: `openai`: seconds that a call waits for the server.
        cache: `openai`: folder of cached answers; by default a hidden folder beside the bundle.
        dry_run: `openai`: estimate calls, tokens and dollars without any call.
        labels_file: `human`: file with the columns feature_id, description and related.
        export_prompts: `human`: file that the questions are written to, as JSON lines.
        answers: `human`: file of answers to them, as JSON lines with the keys question and answer.
        reviewer: `human`: name of the person.
        overrides: Changes of the bundle's config as `labels.key=value`.
        progress: Called as answers arrive.

    Raises:
        ConfigError: An argument is missing or wrong, or there is neither a key nor a server that needs none.
        BundleError: There is no bundle that can be read or written.
        LabelError: The server would answer no question.
        CorpusError, DataError: `labels_file` or `answers` cannot be read, or a row of it is wrong.
    """
    path = local_folder(bundle, tables_only=True)
    manifest = check_bundle(path)
    values = with_overrides(manifest.config, overrides, sections=("labels",)).get("labels", {})
    config = parse_section(LabelsConfig, values | ({"task": task} if task else {}), where=f"{path}: labels")
    n_features, tables = manifest.tables["features"].rows, partial(read_table, path)
    if missing := [feature for feature in features or () if not 0 <= feature < n_features]:
        named = ", ".join(map(str, missing))
        raise ConfigError(f"features: {path} holds no feature {named}; name features from 0 to {n_features - 1}")
    groups = select_features(tables, config, seed=manifest.seed)

    def find_evidence(wanted: Sequence[int] | None) -> list[Evidence]:
        """The evidence of the features in the order given, or of all features."""
        place = {feature: i for i, feature in enumerate(wanted or ())}
        found = read_evidence(tables, wanted, n_scored=config.scored_examples)
        return sorted(found, key=lambda evidence: place.get(evidence.feature_id, evidence.feature_id))

    name, spent_usd, notes = "", 0.0, tuple[str, ...]()
    task_text = describe_task({**manifest.config, "labels": config.model_dump()})
    wanted = list(features) if features is not None else interleave_groups(groups)
    if labeller == "human" and (export_prompts is not None or answers is not None):
        person = AnswerFile(reviewer, Path(answers) if answers else None)
        once = config.model_copy(update={"repeats": 1})
        found = LanguageModelLabeller(person, once, task=task_text).label(find_evidence(wanted))
        if export_prompts is not None:
            person.write_questions(Path(export_prompts))
        notes = _note_questions(person, export_prompts)
        labels, name = [each for each in found if each.is_ok and each.examples_used], person.name
        if not labels:
            return LabelOutcome(0, Counter(), notes=notes)
    elif labeller == "human":
        if labels_file is None:
            raise ConfigError(
                "--from: no file is named; name one with the columns feature_id, description and related, or write the "
                "questions to a file with --export-prompts"
            )
        labels, name = read_labels(Path(labels_file)), f"{HUMAN}{reviewer}"
        if missing := sorted(each.feature_id for each in labels if not 0 <= each.feature_id < n_features):
            named = ", ".join(map(str, missing))
            raise ConfigError(
                f"{labels_file}: no feature {named} in {path}, which holds 0 to {n_features - 1}; drop those rows"
            )
    elif labeller == "offline-tokens":
        scored = tables("vocabulary").select(["word", "feedback"]).to_pylist()
        rule = OfflineTokens(
            {row["word"]: row["feedback"] for row in scored if row["feedback"] is not None},
            related_threshold=config.related_threshold,
            repeats=config.repeats,
            effects=read_effects(tables),
            densities=read_densities(tables),
        )
        chosen = None if features is None else frozenset(features)
        labels = [each for each in rule.label(find_evidence(None)) if chosen is None or each.feature_id in chosen]
        name = rule.name
    else:
        if model is None:
            raise ConfigError("--model: no model is named; name one that the server lists")
        if base_url is None and (price_in is None or price_out is None):
            raise ConfigError(
                "--price-in and --price-out: a budget needs both; look them up for the model and pass them"
            )
        beside = place_beside(bundle)
        settings = ClientConfig(
            model,
            base_url,
            Path(cache) if cache else beside.parent / f".{beside.name}.answers",
            concurrency=concurrency,
            budget_usd=budget_usd,
            price_in=price_in or 0.0,
            price_out=price_out or 0.0,
            timeout_s=timeout_s,
        )
        client = Client(settings)
        by_model = LanguageModelLabeller(client, config, task=task_text, progress=progress)
        if dry_run:
            return LabelOutcome(0, Counter(), estimate=by_model.estimate(find_evidence(wanted)))
        client.check_key()
        labels, name = by_model.label(find_evidence(wanted)), by_model.name
        spent_usd, notes = client.budget.spent_usd, tuple(client.notes)

    _write_labels(bundle, labels, name, groups=groups)
    failed = Counter(each.failure or "without a reason" for each in labels if not each.is_ok)
    return LabelOutcome(len(labels) - failed.total(), failed, spent_usd, notes=notes)


def _note_questions(person: AnswerFile, file: str | Path | None) -> tuple[str, ...]:
    """Say how many questions are open, and whether some answers fit no question."""
    n_open, n_unused = len(person.open_questions), len(person.unused)
    notes = [f"{len(person.asked)} questions, {n_open} of them open" + (f", in {file}" if file is not None else "")]
    if n_unused:
        notes.append(f"{n_unused} answers fit none of the questions: the examples, features or descriptions changed")
    return tuple(notes)


def _write_labels(bundle: str | Path, labels: Sequence[Label], labeller: str, *, groups: dict[str, list[int]]) -> None:
    """Write labels, and the result rows that follow from all labels, into the bundle in one step."""
    path = local_folder(bundle, tables_only=True)
    manifest, tables = check_bundle(path), partial(read_table, path)
    merged = merge_labels(tables("labels"), label_rows(labels, labeller))
    probes = parse_section(ProbesConfig, manifest.config.get("probes", {}), where=f"{path}: probes")
    draws = Draws(probes.bootstraps, probes.permutations, manifest.seed)

    def with_labels(name: str) -> pa.Table:
        return merged if name == "labels" else tables(name)

    rows = [row.as_dict() for row in label_results(with_labels, groups, draws, main=manifest.labeller)]
    others = [row for row in tables("results").to_pylist() if row["report_row"] not in LABEL_ROWS]
    update_bundle(bundle, {"labels": merged, "results": others + rows})
