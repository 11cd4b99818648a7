"""Labels as rows: of the table `labels`, and of the report, of every labeller."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lfp.bundle.schema import as_table
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
from lfp.evaluation.statistics.resampling import Draws
from lfp.labels.evidence import Tables
from lfp.labels.types import Label
from lfp.util.arrow import floats
from lfp.util.types import Flags, Floats


def label_rows(labels: Sequence[Label], labeller: str) -> pa.Table:
    """The rows of these labels."""
    return as_table("labels", [_row(label, labeller) for label in labels])


def beside(kept: pa.Table, new: pa.Table) -> pa.Table:
    """The table with new rows in place of those that the same labeller gave the same features; all others stay.

    A label that failed does not take the place of one that did not.
    """
    had = dict(zip(_keys(kept), kept["status"].to_pylist(), strict=True))
    keeps = [
        status == "failed" and had.get(key) == "ok"
        for key, status in zip(_keys(new), new["status"].to_pylist(), strict=True)
    ]
    new = new.filter(pa.array([not one for one in keeps], pa.bool_()))
    replaced = set(_keys(new))
    return pa.concat_tables([kept.filter(pa.array([key not in replaced for key in _keys(kept)], pa.bool_())), new])


def _keys(labels: pa.Table) -> list[tuple[str, int]]:
    return list(zip(labels["labeller"].to_pylist(), labels["feature_id"].to_pylist(), strict=True))


def _row(label: Label, labeller: str) -> dict[str, Any]:
    return {
        "feature_id": label.feature_id,
        "labeller": labeller,
        "model": label.model,
        "description": label.description,
        "related": label.related,
        "confidence": label.confidence,
        "reason": label.reason,
        "agreement": label.agreement,
        "score_detection": label.score.detection,
        "score_fuzzing": label.score.fuzzing,
        "score_ci_low": label.score.ci_low,
        "score_ci_high": label.score.ci_high,
        "score_n": label.score.n,
        "score_swapped": label.score.swapped,
        "status": "ok" if label.is_ok else "failed",
        "failure": label.failure,
        "prompt_version": label.prompt_version,
        "prompt_sha256": label.prompt_sha256,
        "task": label.task,
        "examples_used": list(label.examples_used),
        "created_at": label.answered_at,
        "cost_usd": label.cost_usd,
    }


LABEL_ROWS = ("label_agreement", "label_scores", "activation_frequency")
"""Rows of the report that are made here."""


_SCORES = {"detection": "score_detection", "fuzzing": "score_fuzzing", "agreement": "agreement"}


@dataclass(frozen=True)
class _Told:
    """What one labeller says, [features] each: whether it tells, what of `related`, and how surely, from -1 to 1."""

    judged: Flags
    related: Flags
    belief: Floats


def labelled(tables: Tables, groups: Mapping[str, Sequence[int]], draws: Draws, *, main: str) -> list[ResultRow]:
    """How well labels tell their features, by `groups` of them too, whether they agree with the headline's weights, and
    how often the features they relate are active where the estimate is high.

    `main` is the run's own labeller, whose activation frequencies stand under plain names; a labeller of some features
    is held against those alone. Labels without `related` are left out.
    """
    probe = next(row for row in tables("probes").to_pylist() if row["is_headline"])
    weights = tables("weights")
    weights = weights.filter(pc.equal(weights["probe_id"], probe["probe_id"])).sort_by("feature_id")
    live = floats(tables("features").sort_by("feature_id"), "n_active") > 0
    keys = {name: probe[name] for name in ("target", "inputs", "probe_id")}
    inputs, rows = _inputs(tables, len(live)), []
    for labeller, labels in _by_labeller(tables("labels")):
        told = _told(labels, live)
        rows += [replace(row, **keys) for row in _against_weights(labeller, told, weights, draws)]
        rows += _scores(labeller, labels, groups, draws)
        frequencies = activation_frequency(inputs, told.related, live if labeller == main else told.judged, draws)
        rows += (
            frequencies
            if labeller == main
            else [replace(row, group=f"labeller={labeller},{row.group}") for row in frequencies]
        )
    return rows


def _against_weights(labeller: str, told: _Told, weights: pa.Table, draws: Draws) -> list[ResultRow]:
    weight, judged = floats(weights, "weight")[told.judged], told.judged
    if len(weight) < 2:
        return []
    against = references(weight, _flags(weights["beats_null"], judged))
    return [
        *label_agreement(labeller, told.related[judged], against, draws),
        label_correlation(labeller, told.belief[judged], np.abs(weight), draws),
    ]


def _scores(labeller: str, labels: pa.Table, groups: Mapping[str, Sequence[int]], draws: Draws) -> Iterator[ResultRow]:
    """Mean scores over all features, and over those of each group."""
    for name, members in {"all": None, **groups}.items():
        mine = labels if members is None else labels.filter(pc.is_in(labels["feature_id"], _ids(members)))
        scores = {metric: floats(mine, column) for metric, column in _SCORES.items()}
        group = f"labeller={labeller},features={name}"
        yield from label_scores(scores, floats(mine, "score_swapped"), draws, group=group)


def _told(labels: pa.Table, live: Flags) -> _Told:
    ids = labels["feature_id"].to_numpy()
    judged, related, belief = np.zeros(len(live), bool), np.zeros(len(live), bool), np.zeros(len(live))
    judged[ids] = live[ids]
    related[ids] = floats(labels, "related") > 0
    confidence = np.nan_to_num(floats(labels, "confidence"), nan=1.0)  # a person who gives none is taken at their word
    belief[ids] = np.where(related[ids], confidence, -confidence)
    return _Told(judged, related, belief)


def _inputs(tables: Tables, n_features: int) -> Inputs:
    """The sampled texts, in the order of `activations`."""
    activations, texts = tables("activations").sort_by("text_id"), tables("texts").sort_by("text_id")
    sampled = texts.filter(pc.is_in(texts["text_id"], activations["text_id"]))
    features = TextFeatures.of(activations, sampled, n_features=n_features)
    return Inputs(features.active, features.n_tokens, floats(sampled, "predicted"))


def _by_labeller(labels: pa.Table) -> Iterator[tuple[str, pa.Table]]:
    """The labels that say whether their feature is related, by labeller."""
    told = labels.filter(pc.is_valid(labels["related"])).sort_by("feature_id")
    for name in sorted(set(told["labeller"].to_pylist())):
        yield name, told.filter(pc.equal(told["labeller"], name))


def _flags(column: pa.ChunkedArray, kept: Flags) -> Flags | None:
    """The kept flags, or None where any of them is unknown."""
    flags = column.filter(pa.array(kept))
    return None if flags.null_count else np.asarray(flags.to_numpy(zero_copy_only=False), bool)


def _ids(members: Sequence[int]) -> pa.Array:
    return pa.array(list(members), pa.int32())
