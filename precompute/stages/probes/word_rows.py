"""Results of word probes: every probe against the lexicon, with controls and differences between models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lfp.evaluation.results import ResultRow
from lfp.evaluation.words import ScoredWords, difference_row, seed_rows, variance_row, word_rows
from lfp.util.types import Floats
from precompute.stages.probes.fitting import WordProbe
from precompute.stages.probes.inputs import COMPARED, probe_keys
from precompute.stages.probes.targets import WORD_TARGETS, Words

_FEWEST = 10

Key = tuple[str, str]
"""Target and inputs of a probe."""


def held_out_rows(probes: Mapping[Key, WordProbe], ids: Mapping[Key, int], scored: ScoredWords) -> list[ResultRow]:
    """Judge every probe on words that it never saw."""
    rows: list[ResultRow] = []
    for (target, inputs), fitted in probes.items():
        keys = probe_keys(target, inputs, "held_out_words") | {"probe_id": ids[target, inputs]}
        rows += _judge(target, fitted.predicted[scored.rows], fitted.nulls, scored, keys)
        rows.append(variance_row(fitted.tokens, scored.config, seed=scored.seed, **keys))
    return rows


def random_rows(predicted: Mapping[Key, Floats], scored: ScoredWords) -> list[ResultRow]:
    """Judge the paper's split of rows, from predictions [words, 1 + nulls]; words without a row are left out."""
    rows: list[ResultRow] = []
    for (target, inputs), values in predicted.items():
        has_rows = ~np.isnan(values[scored.rows, 0])
        some = _select(scored, has_rows)
        judged, nulls = values[some.rows, 0], values[some.rows, 1:].T if values.shape[1] > 1 else None
        rows += _judge(target, judged, nulls, some, probe_keys(target, inputs, "random_rows"))
    return rows


def before_rows(predicted: Mapping[str, Floats], scored: ScoredWords) -> list[ResultRow]:
    """Judge the implicit reward as read at the token before, by model: what is known before the word is written."""
    rows: list[ResultRow] = []
    for model, values in predicted.items():
        some = _select(scored, ~np.isnan(values[scored.rows, 0]))
        keys = {"model": model, "target": "implicit_reward", "inputs": "sae_before", "split": "held_out_words"}
        rows += _judge("implicit_reward", values[some.rows, 0], None, some, keys)
    return rows


Again = Mapping[str, Sequence[tuple[Floats, Floats]]]
"""Predictions of words [words] of the tuned and the base model by further dictionaries, by target."""


def difference_rows(probes: Mapping[Key, WordProbe], again: Again, scored: ScoredWords) -> list[ResultRow]:
    """Compare tuned and base model, each with its own dictionary (and those of other seeds), and on raw activations."""
    rows: list[ResultRow] = []
    for target in WORD_TARGETS:
        for inputs, base_inputs in COMPARED.items():
            tuned, base = probes[target, inputs], probes[target, base_inputs]
            nulls = None if tuned.nulls is None or base.nulls is None else (tuned.nulls, base.nulls)
            predicted = tuned.predicted[scored.rows], base.predicted[scored.rows]
            others = [(a[scored.rows], b[scored.rows]) for a, b in (again[target] if inputs == "sae" else ())]
            keys: dict[str, Any] = {"target": target, "inputs": inputs, "split": "held_out_words"}
            rows.append(difference_row(scored, *predicted, nulls=nulls, others=others, **keys))
            rows += seed_rows(scored, [predicted, *others], **keys)
    return rows


def measured_rows(words: Words, scored: ScoredWords) -> list[ResultRow]:
    """Judge the implicit reward itself: as it is, centred on its context, and in matched contexts.

    What is defined for fewer than ten scored words has no row.
    """
    rows: list[ResultRow] = []
    for target, name in (
        ("implicit_reward", "reward"),
        ("implicit_advantage", "advantage"),
        ("implicit_matched", "matched"),
    ):
        values = words.means[name][scored.rows]
        known = ~np.isnan(values)
        if known.sum() < _FEWEST:
            continue
        rows += word_rows(
            _select(scored, known), values[known], None, "implicit_reward", model="difference", target=target
        )
    return rows


def _judge(
    target: str, predicted: Floats, nulls: Floats | None, scored: ScoredWords, keys: dict[str, Any]
) -> list[ResultRow]:
    return word_rows(scored, predicted, nulls, "kendall_tau", same_unit=target == "feedback", **keys)


def _select(scored: ScoredWords, kept: NDArray[np.bool_]) -> ScoredWords:
    """Select some of the scored words; shuffles stay those of all of them."""
    return replace(
        scored, rows=scored.rows[kept], true=scored.true[kept], shuffled=np.ascontiguousarray(scored.shuffled[:, kept])
    )
