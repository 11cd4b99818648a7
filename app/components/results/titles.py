"""Titles of the panels of Summary: each says what the panel shows of this run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lfp.evaluation.results import MAIN_KINDS, Report, passes
from lfp.evaluation.written_words import WrittenWord, split_words
from lfp.report.figures.lines import TARGETS
from lfp.report.formatting import count, estimate, percent
from lfp.report.summary import compare_models


def writing(words: Sequence[WrittenWord], n: int) -> str:
    """Say how many words the tuned model writes in more, and in fewer, of `n` continuations than the base model."""
    risen, fallen = split_words(words)
    if not risen and not fallen:
        return f"No word is in more or fewer of the tuned model’s {count(n)} continuations beyond chance"
    more, fewer = (count(len(found)) if found else "no" for found in (risen, fallen))
    return (
        f"In {count(n)} continuations the tuned model writes {_words(more)} more often than the base model, and "
        f"{_words(fewer)} less often"
    )


def _words(n: str) -> str:
    return f"{n} word{'' if n == '1' else 's'}"


def probe(report: Report, target: str | None) -> str:
    """Say whether a probe reads the reward better from the tuned model than from the base model."""
    found = compare_models(report, target)
    if found is None:
        return "How well a probe reads the reward, tuned and base"
    low, high = found.difference.ci_low, found.difference.ci_high
    does = "better from" if low is not None and low > 0.0 else "worse from" if high is not None and high < 0.0 else ""
    how = f"{does} the tuned model than" if does else "no better from the tuned model than"
    what = TARGETS.get(found.target, found.target)
    return f"A probe of {what} does {how} from the base: {estimate(found.difference, is_signed=True)} in {found.score}"


def ablations(rows: Sequence[Mapping[str, Any]]) -> str:
    """Say how many groups of features change the reward beyond their controls when they are removed."""
    judged = [row for row in rows if row["kind"] in MAIN_KINDS and row["contrast_p"] is not None]
    if not judged:
        return "Ablation: reward without these features"
    found = sum(passes(row) for row in judged)
    verb = "changes" if found == 1 else "change"
    return f"{found} of {len(judged)} removed groups of features {verb} the reward beyond controls"


def dictionaries(rows: Sequence[Mapping[str, Any]]) -> str:
    """Say how much variance the dictionaries in use leave unexplained."""
    shares = sorted(row["fvu"] for row in rows if row["is_used"] and row["fvu"] is not None)
    if not shares:
        return "How well dictionaries reconstruct activations"
    low, high = percent(shares[0]), percent(shares[-1])
    span = low if low == high else f"{low.removesuffix(' %')} to {high}"
    return f"The dictionaries in use leave {span} of the variance unexplained"
