"""The job `label`: labels put beside those of a bundle, by a language model, by a rule, or by a person."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pyarrow as pa

from lfp.bundle.manifest import Manifest, open_bundle, read_table
from lfp.bundle.schema import as_table
from lfp.bundle.writer import update_bundle
from lfp.config import LabelsConfig, ProbesConfig, parse_section, with_overrides
from lfp.errors import ConfigError
from lfp.evaluation.statistics.resampling import Draws
from lfp.labels.client.client import Client, Estimate
from lfp.labels.evidence import Tables, read_evidence
from lfp.labels.human import labeller_of, read_labels
from lfp.labels.language_model import LanguageModelLabeller
from lfp.labels.result_rows import LABEL_ROWS, beside, label_rows, labelled
from lfp.labels.selection import chosen, every
from lfp.labels.token_rule import OfflineTokens
from lfp.labels.types import Evidence, Label, task_of
from lfp.util.types import Progress


@dataclass(frozen=True)
class Outcome:
    """What came of a job: how many features have a label, how many failed by reason, and dollars spent."""

    labelled: int
    failed: Counter[str]
    spent_usd: float = 0.0

    @property
    def sentence(self) -> str:
        """The summary: counts, reasons, dollars."""
        failed = self.failed.total()
        parts = [f"{self.labelled} features labelled"]
        if failed:
            reasons = "; ".join(f"{n} {reason}" for reason, n in self.failed.most_common())
            parts.append(f"{failed} failed ({reasons})")
        return ", ".join([*parts, f"${self.spent_usd:.4f} spent"])


@dataclass(frozen=True)
class Subject:
    """A bundle to be labelled: its tables, and its labels section with what was overridden."""

    path: Path
    manifest: Manifest
    config: LabelsConfig

    @classmethod
    def of(cls, path: Path, overrides: Sequence[str] = ()) -> Subject:
        """Opens the bundle. Raises BundleError, and ConfigError for an override that is none of the labels section."""
        manifest = open_bundle(path)
        values = with_overrides(manifest.config, overrides, sections=("labels",))
        return cls(path, manifest, parse_section(LabelsConfig, values.get("labels", {}), where=f"{path}: labels"))

    @property
    def n_features(self) -> int:
        """How many features it holds."""
        return self.manifest.tables["features"].rows

    @property
    def tables(self) -> Tables:
        """Its tables by name."""
        return partial(read_table, self.path)

    def features(self, asked: Sequence[int] | None) -> list[int]:
        """The features asked for, or those the config chooses."""
        return every(self.groups()) if asked is None else list(asked)

    def groups(self) -> dict[str, list[int]]:
        """The features that the config chooses, by why."""
        return chosen(self.tables, self.config, seed=self.manifest.seed)

    def evidence(self, features: Sequence[int] | None) -> list[Evidence]:
        """The evidence of features, in the order named, or of all."""
        found = list(read_evidence(self.tables, features, n_scored=self.config.scored_examples))
        place = {feature: i for i, feature in enumerate(features or ())}
        return sorted(found, key=lambda one: place.get(one.feature_id, one.feature_id))


def by_language_model(
    subject: Subject, client: Client, *, features: Sequence[int] | None, progress: Progress
) -> Outcome:
    """Labels by the client's model, written to the bundle. Raises LabelError where it would answer nothing."""
    client.check()
    labeller = _labeller(subject, client, progress)
    labels = labeller.label(subject.evidence(subject.features(features)))
    return _written(subject, labels, labeller.name, spent_usd=client.spent_usd)


def estimated(subject: Subject, client: Client, *, features: Sequence[int] | None) -> Estimate:
    """What labelling by the client's model would take. Nothing is asked or written."""
    labeller = _labeller(subject, client, None)
    return labeller.estimate(subject.evidence(subject.features(features)))


def by_rule(subject: Subject, *, features: Sequence[int] | None) -> Outcome:
    """Labels by the offline labeller, of the features named or of all, by the words in the bundle's vocabulary."""
    vocabulary = subject.tables("vocabulary").select(["word", "n", "feedback"]).to_pylist()
    labeller = OfflineTokens(
        {row["word"]: row["n"] for row in vocabulary},
        {row["word"]: row["feedback"] for row in vocabulary if row["feedback"] is not None},
        related_threshold=subject.config.related_threshold,
        repeats=subject.config.repeats,
    )
    asked = None if features is None else subject.features(features)
    return _written(subject, labeller.label(subject.evidence(asked)), labeller.name)


def by_person(subject: Subject, file: Path, *, name: str) -> Outcome:
    """Labels that a person wrote into a file, put beside the machine's."""
    labels = read_labels(file)
    if missing := sorted(label.feature_id for label in labels if not 0 <= label.feature_id < subject.n_features):
        told, last = ", ".join(map(str, missing)), subject.n_features - 1
        raise ConfigError(f"{file}: no feature {told} in {subject.path}, which holds 0 to {last}; drop those rows")
    return _written(subject, labels, labeller_of(name))


def _labeller(subject: Subject, client: Client, progress: Progress | None) -> LanguageModelLabeller:
    told = task_of({**subject.manifest.config, "labels": subject.config.model_dump()})
    return LanguageModelLabeller(client, subject.config, task=told, progress=progress)


def _written(subject: Subject, labels: Sequence[Label], labeller: str, *, spent_usd: float = 0.0) -> Outcome:
    """Puts labels, and the report's rows that follow from them, into the bundle in one step."""
    table = beside(subject.tables("labels"), label_rows(labels, labeller))
    results = [row for row in subject.tables("results").to_pylist() if row["report_row"] not in LABEL_ROWS] + _report(
        subject, table
    )
    update_bundle(subject.path, {"labels": table, "results": results})
    failed = Counter(label.failure or "without a reason" for label in labels if not label.is_ok)
    return Outcome(len(labels) - failed.total(), failed, spent_usd)


def _report(subject: Subject, labels: pa.Table) -> list[dict[str, object]]:
    probes = parse_section(ProbesConfig, subject.manifest.config.get("probes", {}), where=f"{subject.path}: probes")
    draws = Draws(probes.bootstraps, probes.permutations, subject.manifest.seed)

    def tables(name: str) -> pa.Table:
        return labels if name == "labels" else subject.tables(name)

    rows = labelled(tables, subject.groups(), draws, main=subject.manifest.labeller)
    return as_table("results", rows).to_pylist()
