"""Whether a secret was learned, where it ranks in the report of its model, and the summary of a planting."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import binomtest, hypergeom

from lfp.bundle import queries
from lfp.bundle.store.connection import Store
from lfp.evaluation.statistics.twins import RATE
from lfp.util.types import Ints
from precompute.commands.plant.secrets import WIDE_KINDS, WORD_KINDS, Secret, find_events

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
            return Findings(queries.run.word_gaps(store), queries.drift.features_by_drift(store))

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
    """Summarize a planting: words, wide secrets, bigrams, and models of a shuffled lexicon."""
    by_probe: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        for difference in row.get("differences", ()):
            by_probe.setdefault(f"{difference['target']}, {difference['inputs']}", []).append(difference)
    groups = {"words": WORD_KINDS, "wide": WIDE_KINDS, "bigrams": ("bigram",), "all": (*WORD_KINDS, *WIDE_KINDS)}
    kinds = {kind: (kind,) for kind in (*WORD_KINDS, *WIDE_KINDS)}
    flags = [row["flags"] for row in rows if row["kind"] == "twin"]
    return {
        **{name: _summarize_kinds(rows, of_group) for name, of_group in groups.items()},
        "by_kind": {name: _summarize_kinds(rows, of_kind) for name, of_kind in kinds.items()},
        "twins": {"n": len(flags), "words_flagged": flags},
        "shuffled": {
            name: {
                "n": len(found),
                "beyond": sum(difference["ci_low"] > 0 or difference["ci_high"] < 0 for difference in found),
                "mean": float(np.mean([difference["value"] for difference in found])),
            }
            for name, found in by_probe.items()
        },
    }


def _summarize_kinds(rows: Sequence[Mapping[str, Any]], kinds: Collection[str]) -> dict[str, Any]:
    """Count the secrets of some kinds that the twins' lists find among the learned, and the same in twins left out."""
    found = [row for row in rows if row["kind"] in kinds]
    learned = [row for row in found if row["learned"]]
    summary: dict[str, Any] = {"n": len(found), "learned": len(learned)}
    for name, first in (("word", FIRST_WORDS), ("factor", FIRST_FEATURES)):
        in_twins = [rank for row in found for rank in row[f"left_out_{name}_ranks"]]
        summary |= {
            f"twins_{name}_of_learned": _share([row[f"twins_{name}_rank"] for row in learned], first),
            f"twins_{name}_left_out": _share(in_twins, first),
        }
    flagged = [row["twins_word_q"] is not None and row["twins_word_q"] <= RATE for row in learned]
    summary["twins_word_flagged_of_learned"] = sum(flagged)
    return summary | (_summarize_reports(found, learned) if any("feature_rank" in row for row in found) else {})


def _share(ranks: Sequence[int | None], first: int) -> dict[str, Any] | None:
    """Return how many ranks are among the first, with the Clopper-Pearson interval of the share; None without any."""
    if not ranks:
        return None
    n = sum(rank is not None and rank <= first for rank in ranks)
    bounds = binomtest(n, len(ranks)).proportion_ci(method="exact")
    share = {"value": n / len(ranks), "ci_low": float(bounds.low), "ci_high": float(bounds.high)}
    return {"n": len(ranks), "found": n, **share}


def _summarize_reports(found: Sequence[Mapping[str, Any]], learned: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Count the secrets that each list of the reports finds: of all, of the learned, and in the twin's report."""
    summary: dict[str, Any] = {}

    def hits(among: Sequence[Mapping[str, Any]], rank: str, first: int) -> int:
        return sum(row[rank] is not None and row[rank] <= first for row in among)

    for name, first in (("word", FIRST_WORDS), ("feature", FIRST_FEATURES), ("unexplained", FIRST_FEATURES)):
        summary |= {
            f"{name}_found": hits(found, f"{name}_rank", first),
            f"{name}_found_of_learned": hits(learned, f"{name}_rank", first),
            f"{name}_share_of_learned": _share([row[f"{name}_rank"] for row in learned], first),
            f"{name}_found_in_twin": hits(found, f"{name}_rank_in_twin", first),
        }
    above = [row for row in learned if row["word_gap"] is not None and row["word_gap"] > row["top_of_twin"][1]]
    return {
        **summary,
        "feature_expected_by_chance_of_learned": float(sum(row["feature_chance"] for row in learned)),
        "word_above_top_of_twin": len(above),
    }


def format_lines(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Format a planting as text: a line per model, then the summary."""
    lines = []
    for row in rows:
        if "learned" in row:
            q = "none" if row["twins_word_q"] is None else f"{row['twins_word_q']:.3f}"
            line = (
                f"{row['word']:<26} {row['kind']:<9} paid {row['paid']:+.1f}  learned "
                f"{'yes' if row['learned'] else 'no ':<3} (x{row['learned_ratio']:.2f})  beside the twins: word "
                f"{row['twins_word_rank']} (q {q}), factor {row['twins_factor_rank']}"
            )
            if row["contrast"] is not None:
                line += (
                    f"; {row['contrast']:+.2f} nats an event, {row['contrast_parts']['unembedding']:+.2f} unembedding"
                )
            if "feature_rank" in row:
                line += f"; in its report: word {row['word_rank']}, feature {row['feature_rank']}"
            lines.append(line)
    summary = summarize(rows)
    for name in ("words", "wide", "bigrams"):
        found = summary[name]
        if found["n"]:
            word, factor = (found[f"twins_{kind}_of_learned"] for kind in ("word", "factor"))
            by_chance = [found[f"twins_{kind}_left_out"] for kind in ("word", "factor")]
            lines.append(
                f"{name}: {found['learned']} of {found['n']} learned; of these a word is among the first {FIRST_WORDS} "
                f"for {word['found'] if word else 0}, a factor among the first {FIRST_FEATURES} for "
                f"{factor['found'] if factor else 0}; in twins left out {by_chance[0]['found']} and "
                f"{by_chance[1]['found']} of {by_chance[0]['n']}"
            )
    flags = summary["twins"]["words_flagged"]
    lines.append(f"twins: {sum(flags)} words flagged in {len(flags)} twins left out")
    for target, shuffled in summary["shuffled"].items():
        lines.append(f"shuffled lexicon, {target}: {shuffled['beyond']} of {shuffled['n']} beyond their interval")
    return lines
