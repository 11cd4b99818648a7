"""Rules of what a feature fires on, and the search for the one that holds in the examples that may be shown."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

from lfp.labels.traits import Place, Trait

MOST_WORDS = 5
"""Words that one rule names at most."""

_NAMES = 3  # examples of a category that a description names
_PER_NAME, _PER_CATEGORY, _PER_CONTEXT = 0.5, 1.0, 1.0  # excerpts that each must win to be worth its place in a rule
_FEWEST, _CONTEXTS = 3, 4  # excerpts that a category or context needs; contexts tried together with words
_NEAR = 0.5  # share of look-alikes among the silent excerpts that a description is tested on
_MANY = 0.5  # of the activation: words with less are called examples
_NAMED = frozenset({"word", "part"})
_CATEGORIES = frozenset({"ending", "stem", "class"})
_TOPS = 0.5  # share of the strongest examples in which a rule must hold

Reading = Sequence[Place]
"""An excerpt as places."""


@dataclass(frozen=True)
class Rule:
    """A feature fires on tokens with any of the traits `on`, or on any token, where what precedes has `before`.

    `named` are tokens on which it does so in the strongest examples, and `is_all` says that they have most of the
    activation. A rule that found nothing better than a guess is `found=False` and lists tokens only.
    """

    on: tuple[Trait, ...]
    before: Trait | None = None
    named: tuple[str, ...] = ()
    is_all: bool = True
    found: bool = True

    def fires_on(self, place: Place) -> bool:
        """Whether the feature fires on a token, by the rule."""
        return (self.before is None or self.before in place.before) and (
            not self.on or any(trait in place.own for trait in self.on)
        )

    def fires_in(self, reading: Reading) -> bool:
        """Whether the feature fires on any token of an excerpt, by the rule."""
        return any(map(self.fires_on, reading))

    def describe(self) -> str:
        """Write the rule in words."""
        named, where = ", ".join(f"“{name}”" for name in self.named), _describe_before(self.before)
        such = f", such as {named}" if named else ""
        if not self.on:
            return f"any token{where}{such}"
        if self.on[0].kind in _CATEGORIES:
            return f"{_describe_category(self.on[0])}{where}{such}"
        return f"{named}{where}" if self.is_all else f"many tokens{where}{such}"


@dataclass(frozen=True)
class _Counts:
    """Where traits occur: in which shown excerpts on active tokens, on how many silent tokens, in which look-alikes.

    `words` are the different words with the trait on active tokens.
    """

    firing: dict[Trait, set[int]] = field(default_factory=lambda: defaultdict(set))
    words: dict[Trait, set[str]] = field(default_factory=lambda: defaultdict(set))
    silent: Counter[Trait] = field(default_factory=Counter)
    near: dict[Trait, set[int]] = field(default_factory=lambda: defaultdict(set))


class _Search:
    """The shown excerpts of a feature, and what a rule is worth on them.

    The worth is what a rule would add to a guess in telling firing excerpts from silent ones: the share of firing
    excerpts with an active token that it names, less what each name and condition costs, less the chance that it fires
    in a silent stretch of the same length. For the latter, silent tokens count of firing excerpts too.
    """

    def __init__(self, firing: Sequence[Reading], tops: Sequence[Reading], silent: Sequence[Reading]) -> None:
        self.firing, self.silent = firing, silent
        self.length = sum(map(len, firing)) / len(firing)
        self.active = [[place for place in reading if place.activation > 0] for reading in firing]
        self.quiet = [place for words in firing for place in _silent_words(words)]
        self.n_silent = len(self.quiet) + sum(map(len, silent))
        self.in_tops = {trait for reading in tops for place in reading if place.activation > 0 for trait in place.own}
        self.mass: dict[Trait, float] = defaultdict(float)
        for place in (place for reading in self.active for place in reading):
            self.mass[place.own[0]] += place.activation

    def count(self, before: Trait | None = None) -> _Counts:
        """Count the traits of tokens, of those that follow `before` if that is given."""
        counts = _Counts()

        def list_traits(place: Place) -> Iterable[Trait]:
            if before is None:
                return (*place.own, *place.before)
            return place.own if before in place.before else ()

        for i, reading in enumerate(self.active):
            for place in reading:
                for trait in list_traits(place):
                    counts.firing[trait].add(i)
                    counts.words[trait].add(place.name)
        known = counts.firing.keys()
        counts.silent.update(trait for place in self.quiet for trait in list_traits(place) if trait in known)
        for i, silent in enumerate(self.silent):
            for place in silent:
                for trait in list_traits(place):
                    if trait in known:
                        counts.silent[trait] += 1
                        counts.near[trait].add(i)
        return counts

    def worth(self, covered: set[int], cost: float, n_silent: int, near: set[int]) -> float:
        """What a rule adds to a guess: see the class."""
        far = 1.0 - math.exp(-self.length * n_silent / max(1, self.n_silent))
        of_near = (len(near) + far) / (len(self.silent) + 1)
        false = (1 - _NEAR) * far + _NEAR * of_near
        return (len(covered) - cost) / len(self.firing) - false

    def worth_of(self, trait: Trait, counts: _Counts, cost: float) -> float:
        """What a rule of this trait alone is worth."""
        return self.worth(counts.firing[trait], cost, counts.silent[trait], counts.near[trait])

    def list_words(self, counts: _Counts, cost: float) -> tuple[float, tuple[Trait, ...]]:
        """Choose words one by one, each the best beside those before it, until none makes the rule better."""
        candidates = [trait for trait in counts.firing if trait.kind in _NAMED and trait in self.in_tops]
        chosen: list[Trait] = []
        best, covered, n_silent, near = -math.inf, set[int](), 0, set[int]()
        while len(chosen) < MOST_WORDS:
            added = [
                (self.worth(covered | counts.firing[trait], cost + _PER_NAME * (len(chosen) + 1),
                            n_silent + counts.silent[trait], near | counts.near[trait]), trait)
                for trait in candidates
                if not counts.firing[trait] <= covered
            ]  # fmt: skip
            worth, trait = max(added, key=lambda each: (each[0], each[1].kind == "word"), default=(-math.inf, None))
            if trait is None or worth <= best:
                break
            best, chosen = worth, [*chosen, trait]
            covered, near = covered | counts.firing[trait], near | counts.near[trait]
            n_silent += counts.silent[trait]
        return best, tuple(chosen)

    def list_categories(self, counts: _Counts, cost: float) -> Iterator[tuple[float, tuple[Trait, ...]]]:
        """Yield what each category is worth, of those with several words."""
        for trait in counts.firing:
            fewest = 2 if trait.kind == "stem" else _FEWEST
            if (
                trait.kind in _CATEGORIES
                and trait in self.in_tops
                and len(counts.firing[trait]) >= _FEWEST
                and len(counts.words[trait]) >= fewest
            ):
                yield self.worth_of(trait, counts, cost + _PER_CATEGORY), (trait,)


def find_rule(firing: Sequence[Reading], tops: Sequence[Reading], silent: Sequence[Reading]) -> Rule:
    """Find the rule that is worth most on the shown excerpts; it names tokens of the strongest ones, `tops`, only.

    A rule lists words or has a category (an ending, a stem, a class), a condition on what precedes, or both. One that
    is worth no more than a guess, or fails in most of the strongest examples, gives way to a list of the tokens with
    most of the activation, with `found=False`.
    """
    search = _Search(firing, tops, silent)
    counts = search.count()
    found: list[tuple[float, tuple[Trait, ...], Trait | None]] = []
    found.append((*search.list_words(counts, 0.0), None))
    found += [(*each, None) for each in search.list_categories(counts, 0.0)]
    before = [
        trait
        for trait, excerpts in counts.firing.items()
        if trait.kind not in _NAMED | _CATEGORIES and len(excerpts) >= _FEWEST
    ]
    worth_before = partial(search.worth_of, counts=counts, cost=_PER_CONTEXT)
    found += [(worth_before(trait), (), trait) for trait in before]
    for trait in sorted(before, key=worth_before, reverse=True)[:_CONTEXTS]:
        after = search.count(trait)
        found.append((*search.list_words(after, _PER_CONTEXT), trait))
        found += [(*each, trait) for each in search.list_categories(after, _PER_CONTEXT)]
    worth, on, where = max(found, key=lambda each: each[0])
    rule = _name_tokens(Rule(on, where), search)
    held = sum(any(rule.fires_on(place) for place in reading if place.activation > 0) for reading in tops)
    if worth > 0 and rule.named and held >= _TOPS * len(tops):
        return rule
    strongest = sorted(search.mass, key=lambda trait: (-search.mass[trait], trait))
    listed = tuple(trait for trait in strongest if trait in search.in_tops)[: MOST_WORDS - 1]
    return Rule(listed, None, tuple(trait.value for trait in listed), is_all=True, found=False)


def _name_tokens(rule: Rule, search: _Search) -> Rule:
    """Name tokens of the strongest examples on which the rule fires, those with most of the activation first."""
    mass: dict[str, float] = defaultdict(float)
    for place in (place for reading in search.active for place in reading):
        if rule.fires_on(place):
            lists_words = rule.on and rule.on[0].kind in _NAMED
            trait = next(trait for trait in place.own if trait in rule.on) if lists_words else place.own[0]
            if trait in search.in_tops:
                mass[trait.value] += place.activation
    named = sorted(mass, key=lambda name: (-mass[name], name))
    is_list = bool(rule.on) and rule.on[0].kind in _NAMED
    share = sum(mass.values()) / sum(search.mass.values())
    return Rule(rule.on, rule.before, tuple(named if is_list else named[:_NAMES]), is_all=share >= _MANY)


def _silent_words(reading: Reading) -> Iterator[Place]:
    """Yield the places of the words with no active token."""
    active = {place.word for place in reading if place.activation > 0}
    return (place for place in reading if place.word not in active)


def _describe_category(trait: Trait) -> str:
    if trait.kind == "class":
        return trait.value
    return f"words ending in “-{trait.value}”" if trait.kind == "ending" else f"words with “{trait.value}-”"


def _describe_before(trait: Trait | None) -> str:
    if trait is None:
        return ""
    if trait.kind == "start":
        return f" at the start of a {trait.value}"
    return f" after “{trait.value}”" if trait.kind == "after" else f" after {trait.value}"
