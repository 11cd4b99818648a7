"""A labeller without a network: describes a feature by a rule of its tokens, relates it to feedback by the lexicon."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lfp.evaluation.statistics.discoveries import RATE, adaptive_q
from lfp.labels.evidence import Tables
from lfp.labels.rules import Rule, find_rule
from lfp.labels.scoring import score
from lfp.labels.traits import Place, TraitReader
from lfp.labels.types import Evidence, Label, Score
from lfp.texts.words import is_word
from lfp.util.types import UNLABELLED

OFFLINE = "offline-tokens"
"""Value of `labels.labeller`."""

_VERSION = "offline-tokens-4"
_CHANCE = 0.5
_EFFECTS = 2  # tokens named that a feature promotes or demotes
_EVERYWHERE = 0.9  # density from which examples say nothing of where a feature fires
_STEM, _FORMS = 4, 3  # letters that forms of one word share, and how many forms are more than chance


@dataclass(frozen=True)
class Effects:
    """Next tokens that a feature promotes and demotes, most first."""

    promotes: tuple[str, ...] = ()
    demotes: tuple[str, ...] = ()

    def describe(self) -> str:
        """Write the effects in words; empty where there are none."""
        parts = (
            f"{verb} {', '.join(f'“{token}”' for token in tokens)}"
            for verb, tokens in (("promotes", self.promotes), ("demotes", self.demotes))
            if tokens
        )
        return ", ".join(parts)


def read_effects(tables: Tables) -> dict[int, Effects]:
    """Read what features promote and demote: by their credits, else by their decoder rows through the unembedding.

    Of credits the tokens count that are words. A decoder row raises some tokens most in any case, so that of these
    only words count of which the row raises several forms.
    """
    effects = {
        row["feature_id"]: Effects(*(_repeated_words(row[name]) for name in ("pos_logits", "neg_logits")))
        for row in tables("features").select(["feature_id", "pos_logits", "neg_logits"]).to_pylist()
    }
    for row in tables("credits").select(["feature_id", "promotes", "demotes"]).to_pylist():
        credited = Effects(*(_words(row[name]) for name in ("promotes", "demotes")))
        if credited != Effects():
            effects[row["feature_id"]] = credited
    return effects


def read_densities(tables: Tables) -> dict[int, float]:
    """Read the share of tokens on which features fire, by their ids."""
    rows = tables("features").select(["feature_id", "density"]).to_pylist()
    return {row["feature_id"]: row["density"] for row in rows}


class OfflineTokens:
    """Describes features by rules of what they fire on, found in the examples shown: see `rules.find_rule`.

    `lexicon` holds the words that the feedback scores. A feature is related if at least `related_threshold` of its
    shown activation falls on scored words; the confidence is the distance from that threshold. The agreement is over
    `repeats` - 1 random halves of what is shown. The score tests the description as the rule that it is, and another
    feature's rule on the same held-out excerpts. A feature whose rule predicts these no better than chance, by its
    interval and at a false discovery rate over all features, is called unlabelled, with tokens it fires on; of one that
    fires nearly everywhere, by its density, that is said in place of tokens.
    """

    name = OFFLINE

    def __init__(
        self,
        lexicon: Mapping[str, float],
        *,
        related_threshold: float,
        repeats: int = 1,
        effects: Mapping[int, Effects] | None = None,
        densities: Mapping[int, float] | None = None,
    ) -> None:
        self._lexicon, self._threshold, self._repeats = lexicon, related_threshold, repeats
        self._effects, self._densities = effects or {}, densities or {}
        self._reader = TraitReader(lexicon)

    def label(self, evidence: Sequence[Evidence]) -> list[Label]:
        """Label each feature, in order."""
        rules = [self._find_rule(feature) for feature in evidence]
        half = len(rules) // 2
        others = [*rules[half:], *rules[:half]] if half else [None] * len(rules)
        scores = [
            Score() if rule is None else self._score(feature, rule, other)
            for feature, rule, other in zip(evidence, rules, others, strict=True)
        ]
        q = adaptive_q(np.array([np.nan if each.p is None else each.p for each in scores]))
        beats = q <= RATE
        return [
            self._build_label(feature, rule, found, is_chance=not beyond or (found.ci_low or 0.0) <= _CHANCE)
            for feature, rule, found, beyond in zip(evidence, rules, scores, beats.tolist(), strict=True)
        ]

    def _find_rule(self, feature: Evidence) -> Rule | None:
        """Find the rule of a feature; None for a feature that fires on nothing."""
        if not feature.firing:
            return None
        read = self._reader.read
        firing = [read(excerpt) for excerpt in feature.firing]
        tops = [reading for reading, excerpt in zip(firing, feature.firing, strict=True) if excerpt.bucket == 0]
        silent = [read(excerpt) for excerpt in (*feature.look_alikes, *feature.silent)]
        return find_rule(firing, tops or firing, silent)

    def _score(self, feature: Evidence, rule: Rule, other: Rule | None) -> Score:
        held_out = [self._reader.read(excerpt) for excerpt in feature.held_out]
        places = [excerpt.at for excerpt in feature.held_out]
        return score(
            feature.held_out,
            detected=[rule.fires_in(each) for each in held_out],
            fuzzed=[rule.fires_on(each[at]) for each, at in zip(held_out, places, strict=True)],
            swapped=[other.fires_in(each) for each in held_out] if other else None,
        )

    def _build_label(self, feature: Evidence, rule: Rule | None, found: Score, *, is_chance: bool) -> Label:
        # the sample of active contexts says what the feature is about; the largest activations if there is no sample
        shown = tuple(each for each in feature.firing if each.bucket > 0) or feature.firing
        if rule is None:
            reason = "it fires on no token"
            return Label(feature.feature_id, "never active", False, 1.0, reason, (), _VERSION)
        peaks = [self._reader.read(excerpt)[excerpt.at] for excerpt in shown]
        share = self._scored_share(peaks)
        related = share >= self._threshold
        confidence = (share - self._threshold) / (1 - self._threshold) if related else 1 - share / self._threshold
        effects = self._effects.get(feature.feature_id, Effects()).describe()
        says = rule.describe()
        if is_chance or not rule.found:
            is_everywhere = self._densities.get(feature.feature_id, 0.0) >= _EVERYWHERE
            says = f"{UNLABELLED}{'nearly every token' if is_everywhere else says}"
        return Label(
            feature.feature_id,
            f"{says}; {effects}" if effects else says,
            related,
            confidence,
            f"{share:.0%} of its shown activation falls on words that the lexicon scores",
            tuple(excerpt.key for excerpt in (*feature.firing, *feature.look_alikes, *feature.silent)),
            _VERSION,
            agreement=self._agreement(feature.feature_id, peaks, related),
            score=found,
        )

    def _scored_share(self, peaks: Sequence[Place]) -> float:
        """Share of the activation on words that the lexicon scores."""
        total = sum(place.activation for place in peaks) or 1.0
        return sum(place.activation for place in peaks if place.name in self._lexicon) / total

    def _agreement(self, feature_id: int, peaks: Sequence[Place], related: bool) -> float | None:
        """Share of random halves of the excerpts that give the same `related`; None without repeats."""
        if self._repeats < 2:
            return None
        rng, half = random.Random(feature_id), -(-len(peaks) // 2)
        halves = [rng.sample(peaks, half) for _ in range(self._repeats - 1)]
        return sum((self._scored_share(part) >= self._threshold) == related for part in halves) / len(halves)


def _words(tokens: Iterable[Mapping[str, Any]]) -> tuple[str, ...]:
    """List the first tokens that are whole words."""
    spelled = (row["token"].strip() for row in tokens)
    return tuple(dict.fromkeys(text for text in spelled if len(text) > 1 and is_word(text)))[:_EFFECTS]


def _repeated_words(tokens: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """List the first words of which several forms are among the tokens, such as “film”, “films” and “Film”."""
    forms: dict[str, set[str]] = defaultdict(set)
    for row in tokens:
        text = row["token"].strip()
        if len(text) >= _STEM and is_word(text):
            forms[text.casefold()[:_STEM]].add(row["token"])
    several = [texts for texts in forms.values() if len(texts) >= _FORMS]
    return tuple(min(texts, key=lambda text: (len(text.strip()), text)).strip() for texts in several[:_EFFECTS])
