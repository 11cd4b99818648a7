"""Labellers compared two by two, on the features that both labelled."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import pyarrow as pa

from lfp.evaluation.findings.labels import label_agreement
from lfp.evaluation.results import Estimate, ResultRow
from lfp.evaluation.statistics.resampling import Draws, mean_interval, with_null
from lfp.texts.words import words_of
from lfp.util.types import Floats

_COMPARED = ("kappa", "accuracy", "shared_word", "detection_difference")
_LETTERS = 3  # that a word has which says something
_EMPTY_WORDS = """
the and any all such with that this for are was has have not from into its their them they like one most often token
tokens word words fires after before start sentence text many ending promotes demotes unlabelled whose which where when
especially feature
"""
_EMPTY = frozenset(_EMPTY_WORDS.split())
"""Function words, and words that describe what any feature does."""


def compare_labellers(labels: pa.Table, draws: Draws) -> Iterator[ResultRow]:
    """Compare labellers two by two on the features that both labelled: `related`, wording, and detection."""
    by_labeller: dict[str, dict[int, dict[str, Any]]] = defaultdict(dict)
    for row in labels.select(["feature_id", "labeller", "related", "description", "score_detection"]).to_pylist():
        by_labeller[row["labeller"]][row["feature_id"]] = row
    for first, second in combinations(sorted(by_labeller), 2):
        common = sorted(by_labeller[first].keys() & by_labeller[second].keys())
        if len(common) < 2:
            continue
        pairs = [[by_labeller[name][feature] for feature in common] for name in (first, second)]
        related = [np.array([row["related"] for row in rows], bool) for rows in pairs]
        texts = [[row["description"] or "" for row in rows] for rows in pairs]
        detection = [np.array([row["score_detection"] for row in rows], np.float64) for rows in pairs]
        found = [
            *label_agreement(first, related[0], {second: related[1]}, draws),
            *_compare_wording(first, second, texts[0], texts[1], draws),
            *_compare_detection(first, second, detection[0] - detection[1], draws),
        ]
        yield from (replace(row, report_row="labellers") for row in found if row.metric in _COMPARED)


def _compare_wording(
    first: str, second: str, descriptions: Sequence[str], others: Sequence[str], draws: Draws
) -> list[ResultRow]:
    """Share of features whose two descriptions have a word in common, of three letters or more and no function word.

    Intervals are over features; the null gives each feature the second description of another.
    """
    one, other = ([_content_words(text) for text in texts] for texts in (descriptions, others))

    def share(paired: Sequence[frozenset[str]]) -> Floats:
        return np.array([float(bool(a & b)) for a, b in zip(one, paired, strict=True)])

    shared, rng = share(other), draws.rng()
    low, high = mean_interval(shared, n=draws.bootstraps, rng=rng)
    orders = (rng.permutation(len(other)) for _ in range(draws.permutations))
    nulls = np.array([share([other[i] for i in order]).mean() for order in orders])
    estimate = with_null(Estimate(float(shared.mean()), len(shared), low, high), nulls)
    group = f"labeller={first},against={second}"
    return [ResultRow.from_estimate("labellers", "shared_word", estimate, group=group)]


def _compare_detection(first: str, second: str, differences: Floats, draws: Draws) -> list[ResultRow]:
    """Mean difference of detection on the same held-out examples, first less second; NaN where one has no score."""
    known = differences[~np.isnan(differences)]
    if not len(known):
        return []
    low, high = mean_interval(known, n=draws.bootstraps, rng=draws.rng())
    estimate = Estimate(float(known.mean()), len(known), low, high)
    group = f"labeller={first},against={second}"
    return [ResultRow.from_estimate("labellers", "detection_difference", estimate, group=group)]


def _content_words(text: str) -> frozenset[str]:
    """List the words of a description that say something: no function word, and no word that describes rules."""
    found = {word.word for word in words_of(text) if len(word.word) >= _LETTERS}
    return frozenset(found - _EMPTY)
