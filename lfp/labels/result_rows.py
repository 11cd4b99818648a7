"""Labels as rows: read from a person's file, of the table `labels`, and what `results` says of every labeller."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lfp.bundle.schema import as_table
from lfp.errors import DataError
from lfp.evaluation.findings.labels import (
    Inputs,
    activation_frequency,
    label_agreement,
    label_correlation,
    label_scores,
    references,
)
from lfp.evaluation.findings.texts import TextFeatures
from lfp.evaluation.results import ResultRow
from lfp.evaluation.statistics.discoveries import adaptive_q
from lfp.evaluation.statistics.resampling import Draws
from lfp.labels.comparison import compare_labellers
from lfp.labels.evidence import Tables
from lfp.labels.types import Label
from lfp.texts.reading.rows import read_rows
from lfp.util.sanitize import bare
from lfp.util.types import Flags, floats

LABEL_ROWS = ("label_agreement", "labellers", "label_scores", "activation_frequency")
"""Values of `results.report_row` that `label_results` makes."""

_HUMAN_VERSION = "human-1"
_RELATED = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
_LABEL_COLUMNS = (
    "feature_id", "model", "description", "related", "confidence", "reason", "agreement", "failure", "prompt_version",
    "prompt_sha256", "task", "cost_usd",
)  # fmt: skip
"""Columns of the table `labels` that a Label has under the same name."""
_SCORES = {"detection": "score_detection", "fuzzing": "score_fuzzing", "agreement": "agreement"}


def read_labels(path: Path) -> list[Label]:
    """Read labels from a file with the columns feature_id, description and related, and optionally reason.

    An apostrophe that the explorer's CSV export put before a formula is removed. Raises CorpusError if the file cannot
    be read, and DataError with the number of the first wrong row.
    """
    text = bare if path.suffix.lower() == ".csv" else str
    rows_of: dict[int, int] = {}
    labels = []
    rows = read_rows(path, columns=("feature_id", "description", "related"), optional=("reason",))
    for number, row in enumerate(rows):
        where = f"{path}: row {number}"
        try:
            feature_id = int(row["feature_id"])
        except (TypeError, ValueError):
            raise DataError(f"{where} has the feature_id {row['feature_id']!r}; write a feature's number") from None
        description = text(str(row["description"] or "")).strip()
        if not description:
            raise DataError(f"{where}, feature {feature_id}, has no description; write what it fires on")
        related = _RELATED.get(str(row["related"]).strip().casefold())
        if related is None:
            raise DataError(f"{where} says {row['related']!r} of related; write true or false")
        if feature_id in rows_of:
            raise DataError(
                f"{where} labels feature {feature_id} again, after row {rows_of[feature_id]}; keep one row per feature"
            )
        rows_of[feature_id] = number
        reason = text(str(row.get("reason") or "")).strip() or None
        labels.append(Label(feature_id, description, related, None, reason, (), _HUMAN_VERSION))
    return labels


def label_rows(labels: Sequence[Label], labeller: str) -> pa.Table:
    """Build rows of the table `labels`, each with the false discovery rate of its detection among these."""
    rows = [
        {
            **{name: getattr(label, name) for name in _LABEL_COLUMNS},
            "labeller": labeller,
            "score_detection": label.score.detection,
            "score_fuzzing": label.score.fuzzing,
            "score_ci_low": label.score.ci_low,
            "score_ci_high": label.score.ci_high,
            "score_n": label.score.n,
            "score_swapped": label.score.swapped,
            "score_p": label.score.p,
            "status": "ok" if label.is_ok else "failed",
            "examples_used": list(label.examples_used),
            "created_at": label.answered_at,
        }
        for label in labels
    ]
    return _add_discoveries(as_table("labels", rows), [labeller])


def merge_labels(stored: pa.Table, new: pa.Table) -> pa.Table:
    """Replace the rows of the same labellers and features by new ones, and keep all others.

    A failed label does not replace one that succeeded. The false discovery rates of the labellers of new rows are those
    among their merged labels.
    """

    def keys(labels: pa.Table) -> list[tuple[str, int]]:
        return list(zip(labels["labeller"].to_pylist(), labels["feature_id"].to_pylist(), strict=True))

    succeeded = {key for key, status in zip(keys(stored), stored["status"].to_pylist(), strict=True) if status == "ok"}
    statuses = zip(keys(new), new["status"].to_pylist(), strict=True)
    new = new.filter(pa.array([status != "failed" or key not in succeeded for key, status in statuses], pa.bool_()))
    replaced = set(keys(new))
    kept = stored.filter(pa.array([key not in replaced for key in keys(stored)], pa.bool_()))
    return _add_discoveries(pa.concat_tables([kept, new]), set(new["labeller"].to_pylist()))


def _add_discoveries(labels: pa.Table, changed: Iterable[str]) -> pa.Table:
    """Fill `score_q` of the labellers whose labels changed, among all labels of each."""
    labellers, p = np.array(labels["labeller"].to_pylist(), object), floats(labels, "score_p")
    q = floats(labels, "score_q").copy()
    for labeller in changed:
        q[labellers == labeller] = adaptive_q(p[labellers == labeller])
    at = labels.schema.get_field_index("score_q")
    return labels.set_column(at, labels.schema.field(at), pa.array(q, pa.float64(), mask=np.isnan(q)))


def label_results(tables: Tables, groups: Mapping[str, Sequence[int]], draws: Draws, *, main: str) -> list[ResultRow]:
    """Build the result rows of every labeller: its scores, its agreement with weights, and activation frequencies.

    Scores are averaged over all labelled features and over those of each group. Agreement is with the weights of the
    headline probe. Activation frequencies compare texts of high estimate with the rest. Those of `main`, the run's own
    labeller, have plain group names and compare with all live features; other labellers are compared with the features
    that they labelled. Labellers are also compared with each other, on the features that both labelled. Labels whose
    `related` is null are ignored.
    """
    probe = next(row for row in tables("probes").to_pylist() if row["is_headline"])
    weights = tables("weights")
    weights = weights.filter(pc.equal(weights["probe_id"], probe["probe_id"])).sort_by("feature_id")
    live = floats(tables("features").sort_by("feature_id"), "n_active") > 0
    activations, texts = tables("activations").sort_by("text_id"), tables("texts").sort_by("text_id")
    sampled = texts.filter(pc.is_in(texts["text_id"], activations["text_id"]))
    features = TextFeatures.from_tables(activations, sampled, n_features=len(live))
    inputs = Inputs(features.active, features.n_tokens, floats(sampled, "predicted"))
    keys, rows = {name: probe[name] for name in ("target", "inputs", "probe_id")}, []
    labels = tables("labels")
    labels = labels.filter(pc.is_valid(labels["related"])).sort_by("feature_id")
    for labeller in sorted(set(labels["labeller"].to_pylist())):
        given = labels.filter(pc.equal(labels["labeller"], labeller))
        ids = given["feature_id"].to_numpy()
        judged, related = np.zeros(len(live), bool), np.zeros(len(live), bool)
        judged[ids] = live[ids]
        related[ids] = floats(given, "related") > 0
        rows += [replace(row, **keys) for row in _agreement_rows(labeller, given, judged, related, weights, draws)]
        for name, members in {"all": ids.tolist(), **groups}.items():
            part = given.filter(pc.is_in(given["feature_id"], pa.array(list(members), pa.int32())))
            scores = {metric: floats(part, column) for metric, column in _SCORES.items()}
            group = f"labeller={labeller},features={name}"
            rows += label_scores(scores, floats(part, "score_swapped"), draws, group=group)
        frequencies = activation_frequency(inputs, related, live if labeller == main else judged, draws)
        prefix = "" if labeller == main else f"labeller={labeller},"
        rows += [replace(row, group=f"{prefix}{row.group}") for row in frequencies]
    return [*rows, *(replace(row, **keys) for row in compare_labellers(labels, draws))]


def _agreement_rows(
    labeller: str, labels: pa.Table, judged: Flags, related: Flags, weights: pa.Table, draws: Draws
) -> list[ResultRow]:
    """Compare `related` [features] with the headline's weights, on judged features; needs at least two of them."""
    weight = floats(weights, "weight")[judged]
    if len(weight) < 2:
        return []
    # belief [features]: from -1, surely unrelated, to 1, surely related; without a confidence a person counts as sure
    ids, belief = labels["feature_id"].to_numpy(), np.zeros(len(judged))
    confidence = np.nan_to_num(floats(labels, "confidence"), nan=1.0)
    belief[ids] = np.where(related[ids], confidence, -confidence)
    beats_null = weights["beats_null"].filter(pa.array(judged))
    known = None if beats_null.null_count else np.asarray(beats_null.to_numpy(zero_copy_only=False), bool)
    return [
        *label_agreement(labeller, related[judged], references(weight, known), draws),
        label_correlation(labeller, belief[judged], np.abs(weight), draws),
    ]
