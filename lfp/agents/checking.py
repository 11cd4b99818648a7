"""Claims checked against stored rows: supported, contradicted or not found, and never a guess."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from lfp.agents import facts as stored
from lfp.agents.answers import Check, Checked, Verdict
from lfp.agents.facts import SUBJECTS, Fact
from lfp.agents.lexicon import Lexicon, Named, excludes
from lfp.agents.statements import Statement, read, read_names
from lfp.bundle import queries
from lfp.bundle.store.connection import Store
from lfp.errors import NotInBundleError
from lfp.report.formatting import interval, number

_SHOWN = 5
_ABOUT = 0.1
_TABLES = {"words": "vocabulary", "dictionaries": "saes"}
"""Tables whose rows are counted by another noun than their name."""


def check(store: Store, claim: str) -> Checked:
    """Check every statement of a claim; one that no row decides is not found, with the rows that come nearest."""
    try:
        subjects = _subject_facts(store, claim)
    except NotInBundleError as error:
        return _answer(claim, [Check(part=claim.strip(), verdict="not found", says=f"{error}.", rows=[])])
    pool = subjects or stored.all_facts(store)
    about = {key for fact in subjects for key in fact.keys if key in SUBJECTS}
    found = [fact for fact in pool if about or not any(key in fact.keys for key in SUBJECTS)]
    statements = read(claim, Lexicon(found))
    checks = [_decide(store, statement, found) for statement in statements]
    if not checks:
        says = "There is no figure here to check; state a number, “beyond chance” or a change, and what it is of."
        checks = [Check(part=claim.strip(), verdict="not found", says=says, rows=[])]
    return _answer(claim, checks)


def _answer(claim: str, checks: list[Check]) -> Checked:
    verdicts = {check.verdict for check in checks}
    verdict: Verdict = "supported" if verdicts == {"supported"} else "not found"
    return Checked(claim=claim, verdict="contradicted" if "contradicted" in verdicts else verdict, checks=checks)


def _subject_facts(store: Store, claim: str) -> list[Fact]:
    """Return the facts of the features, words and texts that a claim names, those of the report included."""
    named = {key for name in read_names(claim) for key in name.keys if key[0] in SUBJECTS}
    found: list[Fact] = []
    for kind, name in sorted(named):
        if kind == "feature":
            found += stored.feature_facts(store, int(name))
        elif kind == "text":
            found += stored.text_facts(store, int(name))
        elif kind == "word":
            found += stored.word_facts(store, name)
    return found + [
        fact for fact in stored.all_facts(store) if any(fact.keys.get(kind) == name for kind, name in named)
    ]


@dataclass(frozen=True)
class _Candidates:
    """The facts that a statement may be about, and whether its names leave several."""

    facts: tuple[Fact, ...]
    near: tuple[Fact, ...]


def _candidates(statement: Statement, facts: Sequence[Fact], target: str | None) -> _Candidates:
    """Choose the facts that most of the names fit; what a claim does not name takes its usual value."""
    metrics = [name for name in statement.names if "metric" in name.families]
    if not metrics:
        return _Candidates((), ())
    scored = []
    for fact in facts:
        if any(name.names(fact) for name in metrics):
            fits = [name.names(fact) for name in statement.names]
            excluded = excludes(statement.names, fact)
            scored.append((excluded, (sum(n > 0 for n in fits), sum(fits)), fact))
    scored.sort(key=lambda row: (row[0], (-row[1][0], -row[1][1])))
    near = tuple(fact for _, _, fact in scored[:_SHOWN])
    fitting = [(score, fact) for excluded, score, fact in scored if not excluded]
    if not fitting:
        return _Candidates((), near)
    best = max(score for score, _ in fitting)
    chosen = [fact for score, fact in fitting if score == best]
    named = {key for name in statement.names for key, _ in name.keys}
    for key, usual in _usual(target):
        if key in named:
            continue
        for value in usual:
            kept = [fact for fact in chosen if fact.keys.get(key) == value]
            if kept:
                chosen = kept
                break
    return _Candidates(tuple(chosen), near)


def _usual(target: str | None) -> tuple[tuple[str, tuple[str | None, ...]], ...]:
    """Return what an unnamed key is taken to be, the first that there is."""
    return (
        ("group", (None, "all")),
        ("layer", (None,)),
        ("model", ("tuned", None, "difference")),
        ("words", (None, "all")),
        ("split", (None, "held_out_words", "held_out")),
        ("target", (target, None)),
        ("inputs", (None, "sae")),
        ("site", (None,)),
    )


def _decide(store: Store, statement: Statement, facts: Sequence[Fact]) -> Check:
    if statement.kind == "fires on":
        return _fires_on(store, statement, facts)
    if statement.noun and not any("metric" in name.families and _is_written(name) for name in statement.names):
        return _count(statement, facts)
    headline = queries.common.headline(store)
    candidates = _candidates(statement, facts, headline.target if headline else None)
    test = _counts_behind(statement) if statement.noun else _TESTS[statement.kind](statement)
    judged = [(fact, test(fact)) for fact in candidates.facts]
    known = [(fact, holds) for fact, holds in judged if holds is not None]
    if not candidates.facts:
        return _not_found(statement, candidates.near)
    if not known:
        says = f"The row has nothing to decide that by: {_describe(candidates.facts[0])}."
        return _check(statement, "not found", says, candidates.facts)
    holding = [fact for fact, holds in known if holds]
    if len(holding) == len(known):
        return _check(statement, "supported", _describe_all(holding), holding)
    if not holding and len({fact.value for fact, _ in known}) == 1:
        return _check(statement, "contradicted", _describe_all([fact for fact, _ in known]), candidates.facts)
    agree = "not all" if holding else "none"
    says = f"{len(known)} rows fit these words and {agree} agree with it; name {_open_keys(candidates.facts)}."
    return _check(statement, "not found", says, [*holding[:2], *(fact for fact, holds in known if not holds)])


def _is_written(name: Named) -> bool:
    return name.start >= 0


Test = Callable[[Fact], bool | None]
"""Whether a fact bears a statement out; None where it has not what that takes."""


def _value(statement: Statement) -> Test:
    return lambda fact: statement.figures[0].fits(fact.value)


def _about(statement: Statement) -> Test:
    stated = statement.figures[0].value

    def test(fact: Fact) -> bool:
        if fact.ci_low is not None and fact.ci_high is not None and fact.ci_low <= stated <= fact.ci_high:
            return True
        return abs(fact.value - stated) <= _ABOUT * abs(stated) or statement.figures[0].fits(fact.value)

    return test


def _interval(statement: Statement) -> Test:
    low, high = statement.figures
    return lambda fact: None if fact.ci_low is None else low.fits(fact.ci_low) and high.fits(fact.ci_high)


def _null(statement: Statement) -> Test:
    def test(fact: Fact) -> bool | None:
        if fact.null_high is None and fact.null_mean is None:
            return None
        return statement.figures[0].fits(fact.null_high) or statement.figures[0].fits(fact.null_mean)

    return test


def is_beyond_chance(fact: Fact) -> bool | None:
    """Whether a figure is beyond its null; a difference without one, whether its interval excludes 0."""
    if fact.is_beyond is None and fact.keys.get("model") == "difference" and None not in (fact.ci_low, fact.ci_high):
        return not (fact.ci_low or 0.0) <= 0.0 <= (fact.ci_high or 0.0)
    return fact.is_beyond


def _direction(sign: int) -> Callable[[Statement], Test]:
    def test(fact: Fact) -> bool | None:
        if is_beyond_chance(fact) is not True:
            return None
        return math.copysign(1, fact.value) == sign

    return lambda _statement: test


_TESTS: dict[str, Callable[[Statement], Test]] = {
    "value": _value,
    "about": _about,
    "above": lambda statement: lambda fact: fact.value > statement.figures[0].value,
    "below": lambda statement: lambda fact: fact.value < statement.figures[0].value,
    "between": lambda statement: lambda fact: statement.figures[0].value <= fact.value <= statement.figures[1].value,
    "interval": _interval,
    "p": lambda statement: lambda fact: None if fact.null_p is None else statement.figures[0].fits(fact.null_p),
    "p below": lambda statement: (
        lambda fact: None if fact.null_p is None else fact.null_p <= statement.figures[0].value
    ),
    "null": _null,
    "n": lambda statement: lambda fact: None if fact.n is None else statement.figures[0].fits(fact.n),
    "beyond chance": lambda _: is_beyond_chance,
    "within chance": lambda _: lambda fact: None if (beyond := is_beyond_chance(fact)) is None else not beyond,
    "up": _direction(1),
    "down": _direction(-1),
}


def _counts_behind(statement: Statement) -> Test:
    """Test a count that stands beside a figure, such as “over 500 completions”: it is the row's n."""

    def test(fact: Fact) -> bool | None:
        stated = statement.figures[0]
        if fact.n is None:
            return None
        if statement.kind in ("above", "below"):
            return fact.n != stated.value and (fact.n > stated.value) == (statement.kind == "above")
        return stated.fits(fact.n)

    return test


def _count(statement: Statement, facts: Sequence[Fact]) -> Check:
    """Check how many features, texts and so on there are, against the table's rows."""
    table = _TABLES.get(statement.noun, statement.noun)
    found = [fact for fact in facts if fact.keys.get("table") == table or _is_size(fact, statement.noun)]
    if not found:
        return _not_found(statement, ())
    holds = all(_TESTS[statement.kind](statement)(fact) for fact in found)
    return _check(statement, "supported" if holds else "contradicted", _describe_all(found), found)


def _is_size(fact: Fact, noun: str) -> bool:
    """Whether a text's fact is how many of these it has."""
    return "text" in fact.keys and fact.keys["metric"] == noun


def _fires_on(store: Store, statement: Statement, facts: Sequence[Fact]) -> Check:
    numbers = {int(fact.keys["feature"]) for fact in facts if "feature" in fact.keys}
    if len(numbers) != 1:
        return _not_found(statement, ())
    (feature_id,) = numbers
    tokens = [item["token"].strip() for item in queries.feature.feature(store, feature_id).top_tokens]
    listed = ", ".join(f"“{token}”" for token in tokens)
    rows = [fact for fact in facts if fact.keys["metric"] == "max_activation"]
    holds = statement.noun.casefold() in [token.casefold() for token in tokens]
    says = f"The tokens that feature {feature_id} fires on most are {listed}."
    return _check(statement, "supported" if holds else "contradicted", says, rows)


def _not_found(statement: Statement, near: Iterable[Fact]) -> Check:
    near = list(near)
    if near:
        says = "No row fits all that is named here; the nearest are listed, with the words that name them."
    else:
        says = "Nothing here names a stored figure; use the names that `report`, `feature`, `word` and `text` give."
    return _check(statement, "not found", says, near)


def _check(statement: Statement, verdict: Verdict, says: str, rows: Iterable[Fact]) -> Check:
    figures = [fact.as_figure() for fact in list(rows)[:_SHOWN]]
    return Check(part=statement.part, verdict=verdict, says=says, rows=figures)


def _describe_all(facts: Sequence[Fact]) -> str:
    more = f" and {len(facts) - 1} more rows" if len(facts) > 1 else ""
    return f"{_describe(facts[0])}{more}."


def _describe(fact: Fact) -> str:
    """Say what is stored: the value, its interval and its null."""
    ends = interval(fact.ci_low, fact.ci_high)
    parts = [f"Stored: {fact.name}: {number(fact.value)}" + (f" [{ends}]" if ends else "")]
    if fact.null_high is not None:
        parts.append(f"chance reaches {number(fact.null_high)}")
    if fact.null_p is not None:
        parts.append(f"p {number(fact.null_p)}")
    beyond = is_beyond_chance(fact)
    parts.append("no null" if beyond is None else "beyond chance" if beyond else "within chance")
    return "; ".join(parts)


def _open_keys(facts: Sequence[Fact]) -> str:
    """Name the keys that tell the facts apart."""
    keys = {key for fact in facts for key in fact.keys}
    return ", ".join(sorted(key for key in keys if len({fact.keys.get(key) for fact in facts}) > 1)) or "the row"
