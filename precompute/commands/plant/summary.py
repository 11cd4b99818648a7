"""What a planting shows: how many secrets were learned, and how many of those our own output found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.stats import binomtest

from precompute.commands.plant.detection import FIRST_FEATURES

WORD_FIRST = 5
"""A word is found among so many of its list."""
_WORD_KINDS = ("unscored", "flipped")


def summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Figures of words, of bigrams, and of models without a secret; shares have 95 % Clopper-Pearson intervals."""
    words = [row for row in rows if row["kind"] in _WORD_KINDS]
    bigrams = [row for row in rows if row["kind"] == "bigram"]
    shuffled = [row for row in rows if row["kind"] == "shuffled"]
    return {
        "words": _found(words),
        "by_kind": {kind: _found([row for row in words if row["kind"] == kind]) for kind in _WORD_KINDS},
        "bigrams": _found(bigrams),
        "shuffled": _differences(shuffled),
    }


def lines(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The planting as plain text: a line a model, then what they show."""
    planted = [row for row in rows if "learned" in row]
    text = [
        f"{row['word']:<22} {row['kind']:<9} paid {row['paid']:+.1f}  learned {'yes' if row['learned'] else 'no ':<3} "
        f"(x{row['learned_ratio']:.2f})  {row['list']}-paid: word {row['word_rank']}, feature {row['feature_rank']}, "
        f"by the unexplained {row['unexplained_rank']}"
        for row in planted
    ]
    told = summary(rows)
    for name in ("words", "bigrams"):
        found = told[name]
        if found["n"]:
            text.append(
                f"{name}: {found['learned']} of {found['n']} learned; of these the word is among the first "
                f"{WORD_FIRST} for {found['word_found_of_learned']}, a feature among the first {FIRST_FEATURES} for "
                f"{found['feature_found_of_learned']} by drift and {found['unexplained_found_of_learned']} by the "
                f"unexplained; of all {_three(found, 'found')}; in the twin {_three(found, 'found_in_twin')}"
            )
    for target, shuffled in told["shuffled"].items():
        text.append(f"shuffled lexicon, {target}: {shuffled['beyond']} of {shuffled['n']} beyond their interval")
    return text


def _found(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    learned = [row for row in rows if row["learned"]]
    return {
        "n": len(rows),
        "learned": len(learned),
        **_ranked(rows, learned, "word", "word_rank", WORD_FIRST),
        **_ranked(rows, learned, "feature", "feature_rank", FIRST_FEATURES),
        **_ranked(rows, learned, "unexplained", "unexplained_rank", FIRST_FEATURES),
        "feature_expected_by_chance_of_learned": float(sum(row["feature_chance"] for row in learned)),
        "word_above_top_of_twin": sum(
            row["word_gap"] is not None and row["word_gap"] > row["top_of_twin"][1] for row in learned
        ),
    }


def _ranked(
    rows: Sequence[Mapping[str, Any]], learned: Sequence[Mapping[str, Any]], name: str, rank: str, first: int
) -> dict[str, Any]:
    """How many secrets one ranking finds: of all, of the learned, and where none was planted."""
    hits = _hits(learned, rank, first)
    return {
        f"{name}_found": _hits(rows, rank, first),
        f"{name}_found_of_learned": hits,
        f"{name}_share_of_learned": _share(hits, len(learned)),
        f"{name}_found_in_twin": _hits(rows, f"{rank}_in_twin", first),
    }


def _three(found: Mapping[str, Any], what: str) -> str:
    word, feature, unexplained = (found[f"{ranking}_{what}"] for ranking in ("word", "feature", "unexplained"))
    return f"{word}, {feature} and {unexplained}"


def _hits(rows: Sequence[Mapping[str, Any]], rank: str, first: int) -> int:
    return sum(row[rank] is not None and row[rank] <= first for row in rows)


def _share(hits: int, n: int) -> dict[str, float] | None:
    if n == 0:
        return None
    bounds = binomtest(hits, n).proportion_ci(method="exact")
    return {"value": hits / n, "ci_low": float(bounds.low), "ci_high": float(bounds.high)}


def _differences(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """By target and inputs: how many differences have an interval without zero, and their mean."""
    by_probe: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        for one in row["differences"]:
            by_probe.setdefault(f"{one['target']}, {one['inputs']}", []).append(one)
    return {
        name: {
            "n": len(found),
            "beyond": sum(one["ci_low"] > 0 or one["ci_high"] < 0 for one in found),
            "mean": float(np.mean([one["value"] for one in found])),
        }
        for name, found in by_probe.items()
    }
