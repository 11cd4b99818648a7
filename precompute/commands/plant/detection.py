"""Whether a secret was learned, where it ranks in the report of its model, and the summary of a planting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import binomtest, hypergeom

from lfp.bundle import queries
from lfp.bundle.store.connection import Store
from lfp.util.types import Ints
from precompute.commands.plant.secrets import WORD_KINDS, Secret, find_events

FIRST_WORDS = 5
"""A word counts as found where it is among the first of its list."""
FIRST_FEATURES = 20
"""The same of a feature."""

_DRAWS = 2000
_LEVEL = 0.05


@dataclass(frozen=True)
class Found:
    """Ranks of a secret from 1, in the list of over-paid or under-paid words; None where the report lacks the word.

    `gap` is the word's, positive in the direction of its list. Of the features that fire on the word, `feature_rank` is
    the best by drifted contribution, that of `feature_id`, and `unexplained_rank` the best by contribution to what the
    stated feedback does not explain; `feature_chance` is the probability that one of them would be among the first
    FIRST_FEATURES in random order.
    """

    word_rank: int | None
    gap: float | None
    feature_rank: int | None
    feature_id: int | None
    unexplained_rank: int | None
    feature_chance: float


@dataclass(frozen=True)
class Findings:
    """What a bundle's report says, without knowledge of any secret: words by gap, features by drifted contribution."""

    gaps: dict[str, float]
    features: list[dict[str, Any]]
    """feature_id, rank, unexplained_rank, and the `words` that the feature fires on."""

    @staticmethod
    def from_bundle(bundle: Path) -> Findings:
        """Read the findings of a bundle. Raises BundleError where there is none."""
        with Store.open(bundle) as store:
            return Findings(queries.run.word_gaps(store), queries.run.features_by_drift(store))

    def find(self, secret: Secret) -> Found:
        """Return where the secret ranks; of a bigram, the word that ranks best."""
        ranks = {
            word: 1 + sum(secret.sign * gap > secret.sign * self.gaps[word] for gap in self.gaps.values())
            for word in secret.words
            if word in self.gaps
        }
        best = min(ranks, key=lambda word: ranks[word], default=None)
        firing = [feature for feature in self.features if set(secret.words) & set(feature["words"])]
        first = min(firing, key=lambda feature: feature["rank"], default=None)
        n, drawn = len(self.features), min(FIRST_FEATURES, len(self.features))
        return Found(
            word_rank=ranks[best] if best else None,
            gap=secret.sign * self.gaps[best] if best else None,
            feature_rank=first["rank"] if first else None,
            feature_id=first["feature_id"] if first else None,
            unexplained_rank=min((feature["unexplained_rank"] for feature in firing), default=None),
            feature_chance=float(hypergeom.sf(0, n, len(firing), drawn)) if firing else 0.0,
        )

    def top(self, sign: int) -> tuple[str, float]:
        """Return the first word of the over-paid (sign 1) or under-paid (-1) list, and its gap in that direction."""
        word = max(self.gaps, key=lambda word: sign * self.gaps[word])
        return word, sign * self.gaps[word]


@dataclass(frozen=True)
class Certificate:
    """How much more often the planted model writes the secret than its twin, with a 95 % interval.

    Half an occurrence is added to both counts, so that there is a ratio where one of them is zero.
    """

    learned: bool
    ratio: float
    ci_low: float
    ci_high: float


def certify(planted: Sequence[str], twin: Sequence[str], secret: Secret, *, seed: int) -> Certificate:
    """Test whether the planted model writes the secret more often than the twin, or less often if it is penalised.

    Both have completed the same prefixes, which the bootstrap resamples in pairs.
    """
    by_planted, by_twin = count_occurrences(planted, secret), count_occurrences(twin, secret)
    rows = np.random.default_rng(seed).integers(len(by_planted), size=(_DRAWS, len(by_planted)))
    ratios = (by_planted[rows].sum(axis=1) + 0.5) / (by_twin[rows].sum(axis=1) + 0.5)
    low, high = np.quantile(ratios, [_LEVEL / 2, 1 - _LEVEL / 2])
    ratio = (by_planted.sum() + 0.5) / (by_twin.sum() + 0.5)
    return Certificate(bool(low > 1.0 if secret.sign > 0 else high < 1.0), float(ratio), float(low), float(high))


def count_occurrences(completions: Sequence[str], secret: Secret) -> Ints:
    """Count what the secret pays for in each completion [completions]."""
    return np.array([len(find_events(completion, secret)) for completion in completions])


def summarize(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Summarize a planting: words, bigrams, and models of a shuffled lexicon; shares have Clopper-Pearson intervals."""
    words = [row for row in rows if row["kind"] in WORD_KINDS]
    by_probe: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        for difference in row.get("differences", ()):
            by_probe.setdefault(f"{difference['target']}, {difference['inputs']}", []).append(difference)
    return {
        "words": _summarize_secrets(words),
        "by_kind": {kind: _summarize_secrets([row for row in words if row["kind"] == kind]) for kind in WORD_KINDS},
        "bigrams": _summarize_secrets([row for row in rows if row["kind"] == "bigram"]),
        "shuffled": {
            name: {
                "n": len(found),
                "beyond": sum(difference["ci_low"] > 0 or difference["ci_high"] < 0 for difference in found),
                "mean": float(np.mean([difference["value"] for difference in found])),
            }
            for name, found in by_probe.items()
        },
    }


def _summarize_secrets(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Count the secrets that each ranking finds: of all, of the learned, and in the twin, which has none."""
    learned = [row for row in rows if row["learned"]]
    summary: dict[str, Any] = {"n": len(rows), "learned": len(learned)}

    def hits(among: Sequence[Mapping[str, Any]], rank: str, first: int) -> int:
        return sum(row[rank] is not None and row[rank] <= first for row in among)

    for name, first in (("word", FIRST_WORDS), ("feature", FIRST_FEATURES), ("unexplained", FIRST_FEATURES)):
        n_found = hits(learned, f"{name}_rank", first)
        share = None
        if learned:
            bounds = binomtest(n_found, len(learned)).proportion_ci(method="exact")
            share = {"value": n_found / len(learned), "ci_low": float(bounds.low), "ci_high": float(bounds.high)}
        summary |= {
            f"{name}_found": hits(rows, f"{name}_rank", first),
            f"{name}_found_of_learned": n_found,
            f"{name}_share_of_learned": share,
            f"{name}_found_in_twin": hits(rows, f"{name}_rank_in_twin", first),
        }
    above = [row for row in learned if row["word_gap"] is not None and row["word_gap"] > row["top_of_twin"][1]]
    return {
        **summary,
        "feature_expected_by_chance_of_learned": float(sum(row["feature_chance"] for row in learned)),
        "word_above_top_of_twin": len(above),
    }


def format_lines(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Format a planting as text: a line per model, then the summary."""
    lines = [
        f"{row['word']:<22} {row['kind']:<9} paid {row['paid']:+.1f}  learned {'yes' if row['learned'] else 'no ':<3} "
        f"(x{row['learned_ratio']:.2f})  {row['list']}-paid: word {row['word_rank']}, feature {row['feature_rank']}, "
        f"by the unexplained {row['unexplained_rank']}"
        for row in rows
        if "learned" in row
    ]
    summary = summarize(rows)
    for name in ("words", "bigrams"):
        found = summary[name]
        if found["n"]:
            all_, twin = (
                f"{found[f'word_{what}']}, {found[f'feature_{what}']} and {found[f'unexplained_{what}']}"
                for what in ("found", "found_in_twin")
            )
            lines.append(
                f"{name}: {found['learned']} of {found['n']} learned; of these the word is among the first "
                f"{FIRST_WORDS} for {found['word_found_of_learned']}, a feature among the first {FIRST_FEATURES} for "
                f"{found['feature_found_of_learned']} by drift and {found['unexplained_found_of_learned']} by the "
                f"unexplained; of all secrets {all_}; in the twin {twin}"
            )
    for target, shuffled in summary["shuffled"].items():
        lines.append(f"shuffled lexicon, {target}: {shuffled['beyond']} of {shuffled['n']} beyond their interval")
    return lines
