"""The names that claims use: phrases for the keys of facts, found in a sentence longest first."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from lfp.agents.facts import REFERENCES, Fact, phrase

Key = tuple[str, str]
"""A key of a fact and its value."""


@dataclass(frozen=True)
class Named:
    """Something that a claim names: any of `keys`, by the phrase between two characters of the claim."""

    keys: frozenset[Key]
    start: int
    stop: int

    @property
    def families(self) -> frozenset[str]:
        """What the keys are about: a later phrase about the same replaces this one."""
        return frozenset(_FAMILIES.get(key, key) for key, _ in self.keys)

    def names(self, fact: Fact) -> int:
        """Count the keys of the fact that this names."""
        return sum(fact.keys.get(key) == value for key, value in self.keys)

    def misses(self, fact: Fact) -> bool:
        """Whether the fact is about something else."""
        if self.names(fact) or "metric" in self.families:
            return False  # of several metrics in a sentence most facts have only some
        return not self.families <= _MAY_LACK or any(key in fact.keys for key, _ in self.keys)


_FAMILIES: Mapping[str, str] = {"section": "metric", "metric": "metric", "table": "metric"}
"""The family of a key, where that is not the key itself."""
_MAY_LACK = frozenset({"model", "split", "target", "inputs"})
"""What a fact may lack although a claim names it: “KL of the tuned model from the base model”."""

_SYNONYMS: Mapping[str, tuple[Key, ...]] = {
    "kendall's tau": (("metric", "tau"),),
    "kendall tau": (("metric", "tau"), ("section", "kendall_tau")),
    "τ": (("metric", "tau"),),
    "kendall's τ": (("metric", "tau"),),
    "spearman's rho": (("metric", "spearman"),),
    "rank correlation": (("metric", "rank_correlation"), ("metric", "spearman")),
    "r²": (("metric", "r2"), ("metric", "r2_linear")),
    "kl": (("metric", "kl_per_token"), ("metric", "kl")),
    "kl divergence": (("metric", "kl_per_token"),),
    "mean reward": (("section", "reward"), ("metric", "reward")),
    "sign accuracy": (("section", "sign_accuracy"),),
    "pair accuracy": (("section", "preference_accuracy"),),
    "variance unexplained": (("metric", "fvu"),),
    "dead features": (("metric", "dead_fraction"),),
    "active features": (("metric", "l0"),),
    "cross entropy recovered": (("metric", "ce_recovered"),),
    "credit": (("metric", "nats"), ("metric", "credit")),
    "contribution": (("metric", "mean_abs_contribution"), ("metric", "contribution")),
    "mean absolute contribution": (("metric", "mean_abs_contribution"),),
    "absolute credit": (("metric", "absolute_credit"),),
    "error": (("metric", "mean_absolute_error"), ("section", "error_by_frequency")),
    "stated feedback": (("metric", "feedback"), ("metric", "true"), ("target", "feedback")),
    "true feedback": (("metric", "feedback"), ("metric", "true"), ("target", "feedback")),
    "occurs": (("metric", "occurrences"),),
    "occurrence": (("metric", "occurrences"),),
    "detection score": (("metric", "detection"),),
    "tuned": (("model", "tuned"),),
    "after tuning": (("model", "tuned"),),
    "base": (("model", "base"),),
    "before tuning": (("model", "base"),),
    "untuned": (("model", "base"),),
    "raw activations": (("inputs", "raw"), ("inputs", "base_raw")),
    "random directions": (("inputs", "random_sae"),),
    "random dictionary": (("inputs", "random_sae"),),
    "token ids": (("inputs", "token_identity"),),
    "matched contexts": (("target", "implicit_matched"), ("metric", "implicit_matched")),
    "preferences": (("target", "preference"),),
    "held out": (("split", "held_out"), ("split", "held_out_words")),
    "mlps": (("group", "mlp"),),
    "the mlp": (("group", "mlp"),),
    "the unembedding": (("group", "unembedding"),),
    "the embedding": (("group", "embedding"),),
    "the dictionaries": (("group", "dictionaries"),),
}
_READ_BARE = frozenset({"attention", "mlp", "unembedding", "embedding", "final_norm", "reward", "drift", "ablation"})
"""Groups and sections of one word that are read as they stand; others need “group” or “section” before them."""


def excludes(names: Iterable[Named], fact: Fact) -> bool:
    """Whether what is named leaves a fact out; of several names about the same, one is enough."""
    names = list(names)
    held = frozenset[str]().union(*(name.families for name in names if name.names(fact)))
    return any(name.misses(fact) and not name.families & held for name in names)


class Lexicon:
    """All phrases that name keys of some facts."""

    def __init__(self, facts: Iterable[Fact]) -> None:
        phrases: defaultdict[str, set[Key]] = defaultdict(set)
        known: set[Key] = set()
        for fact in facts:
            known |= {(key, value) for key, value in fact.keys.items()}
        for key, value in known:
            if key in REFERENCES or key == "word":
                continue  # read as references and quotations
            phrases[normalise(phrase(key, value))].add((key, value))
            is_plain = key == "target" or (key == "section" and "_" in value and value != "base_model")
            is_code = key == "group" and re.search(r"[a-z]\d|[a-z][_=]", value)
            if is_plain or is_code or (key in ("section", "group") and value in _READ_BARE):
                phrases[normalise(value)].add((key, value))
        for written, keys in _SYNONYMS.items():
            phrases[normalise(written)] |= {key for key in keys if key in known}
        self._keys = {written: frozenset(keys) for written, keys in phrases.items() if keys and written.strip()}
        longest_first = sorted(self._keys, key=lambda written: (-len(written), written))
        self._pattern = re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, longest_first))})(?:s|'s)?(?!\w)")

    def read(self, text: str) -> list[Named]:
        """Find what a normalised text names, longest phrase first at each place."""
        found = []
        for match in self._pattern.finditer(text):
            written = match.group()
            keys = self._keys.get(written) or self._keys.get(re.sub(r"'?s$", "", written), frozenset())
            found.append(Named(keys, match.start(), match.end()))
        return found


_SAME = str.maketrans(
    {"’": "'", "‘": "'", "−": "-", "–": "-", "_": " ", "\n": " ", "\t": " ", "\xa0": " ", "\u202f": " "}
)


def normalise(text: str) -> str:
    """Return a text in small letters with plain signs and spaces, each character at its place."""
    lowered = "".join(letter.lower() if len(letter.lower()) == 1 else letter for letter in text)
    return re.sub(r"(?<=[a-z])-(?=[a-z])", " ", lowered.translate(_SAME))
