"""Preference data sets that are known by their columns: where each keeps the prompt, both answers and the verdict."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lfp.texts.reading.rows import RowError

_PROMPTS = ("prompt", "question", "instruction", "conversations")
"""Columns that may hold what both answers follow, where they are `chosen` and `rejected`; the first that does."""
_WINNERS = {"model_a": 0, "a": 0, "response_a": 0, "model_b": 1, "b": 1, "response_b": 1}


@dataclass(frozen=True)
class Judged:
    """A prompt, which may be None, and two answers, of which the first was preferred; both the same where it is a tie.

    All are texts or messages, as the row has them.
    """

    prompt: Any
    chosen: Any
    rejected: Any


@dataclass(frozen=True)
class Form:
    """A form of rows: the columns that it needs, those that it may have, and how a row is read.

    `verdict` names the column that says which answer is better, where there is one.
    """

    name: str
    needs: tuple[str, ...]
    read: Callable[[Mapping[str, Any], str], Judged]
    may_have: tuple[str, ...] = ()
    verdict: str = ""

    @property
    def columns(self) -> tuple[str, ...]:
        """Every column that it reads."""
        return (*self.needs, *self.may_have, *([self.verdict] if self.verdict else []))


def _pair(row: Mapping[str, Any], _: str) -> Judged:
    prompt = next((row[name] for name in _PROMPTS if row.get(name) is not None), None)
    return Judged(prompt, row["chosen"], row["rejected"])


def _by_id(row: Mapping[str, Any], verdict: str) -> Judged:
    """PKU-SafeRLHF: the number of the better answer."""
    better = _whole(row.get(verdict), verdict)
    if better not in (0, 1):
        raise RowError(f"{verdict} {better}, which is no answer's number")
    return Judged(row["prompt"], row[f"response_{better}"], row[f"response_{1 - better}"])


def _by_sign(first: str, second: str, prompt: str) -> Callable[[Mapping[str, Any], str], Judged]:
    """HelpSteer: below 0 the first answer is better, above 0 the second."""

    def read(row: Mapping[str, Any], verdict: str) -> Judged:
        preference = _number(row.get(verdict), verdict)
        chosen, rejected = (second, first) if preference > 0 else (first, second)
        return Judged(row[prompt], row[chosen], row[chosen if preference == 0 else rejected])

    return read


def _by_winner(first: str, second: str, prompt: str | None) -> Callable[[Mapping[str, Any], str], Judged]:
    """Chatbot Arena: the name of the winner, or a tie."""

    def read(row: Mapping[str, Any], verdict: str) -> Judged:
        winner = str(row.get(verdict)).strip().lower()
        if not winner.startswith("tie") and winner not in _WINNERS and winner != "both_bad":
            raise RowError(f"the {verdict} {row.get(verdict)!r}, which is neither of both nor a tie")
        chosen, rejected = (second, first) if _WINNERS.get(winner) == 1 else (first, second)
        is_tie = winner not in _WINNERS
        return Judged(row[prompt] if prompt else None, row[chosen], row[chosen if is_tie else rejected])

    return read


def _by_label(row: Mapping[str, Any], verdict: str) -> Judged:
    """SHP: 1 where the first answer is better, 0 where the second is."""
    label = _whole(row.get(verdict), verdict)
    if label not in (0, 1):
        raise RowError(f"the label {label}, which is neither 0 nor 1")
    better, worse = ("human_ref_A", "human_ref_B") if label else ("human_ref_B", "human_ref_A")
    return Judged(row["history"], row[better], row[worse])


def _rated_completions(row: Mapping[str, Any], _: str) -> Judged:
    """UltraFeedback as published: several completions, each with an overall score."""
    rated = []
    for completion in row["completions"] or ():
        score = completion.get("overall_score")
        score = completion.get("fine-grained_score") if _is_missing(score) else score
        rated.append((None if _is_missing(score) else float(score), completion.get("response")))
    return _best_and_worst(row["instruction"], rated)


def _rated_generations(row: Mapping[str, Any], _: str) -> Judged:
    """UltraFeedback as distilabel stores it: answers and ratings in lists side by side."""
    answers, ratings = row["generations"] or (), row["ratings"] or ()
    if len(answers) != len(ratings):
        raise RowError(f"{len(answers)} generations and {len(ratings)} ratings")
    rated = [
        (None if _is_missing(rating) else float(rating), answer)
        for answer, rating in zip(answers, ratings, strict=True)
    ]
    prompt = row.get("instruction") if row.get("instruction") is not None else row.get("prompt")
    return _best_and_worst(prompt, rated)


def _best_and_worst(prompt: Any, rated: Sequence[tuple[float | None, Any]]) -> Judged:
    known = [(score, answer) for score, answer in rated if score is not None and answer is not None]
    if len(known) < 2:
        raise RowError("fewer than two rated answers")
    best = max(known, key=lambda item: item[0])
    worst = min(known, key=lambda item: item[0])
    return Judged(prompt, best[1], best[1] if best[0] == worst[0] else worst[1])


PAIRED = Form("chosen and rejected", ("chosen", "rejected"), _pair, _PROMPTS)
FORMS = (
    PAIRED,
    Form("PKU-SafeRLHF", ("prompt", "response_0", "response_1"), _by_id, verdict="better_response_id"),
    Form("PKU-SafeRLHF", ("prompt", "response_0", "response_1"), _by_id, verdict="safer_response_id"),
    Form(
        "HelpSteer3",
        ("context", "response1", "response2"),
        _by_sign("response1", "response2", "context"),
        verdict="overall_preference",
    ),
    Form(
        "HelpSteer2-Preference",
        ("prompt", "response_1", "response_2"),
        _by_sign("response_1", "response_2", "prompt"),
        verdict="preference_strength",
    ),
    Form("UltraFeedback", ("instruction", "completions"), _rated_completions),
    Form("UltraFeedback by distilabel", ("generations", "ratings"), _rated_generations, ("instruction", "prompt")),
    Form(
        "Chatbot Arena",
        ("conversation_a", "conversation_b"),
        _by_winner("conversation_a", "conversation_b", None),
        verdict="winner",
    ),
    Form(
        "Chatbot Arena by turns",
        ("prompt", "response_a", "response_b"),
        _by_winner("response_a", "response_b", "prompt"),
        verdict="winner",
    ),
    Form("SHP", ("history", "human_ref_A", "human_ref_B"), _by_label, verdict="labels"),
)
UNPAIRED = ("prompt", "completion", "label")
"""TRL's rows of single answers, each liked or not; those of a prompt are paired with each other."""
COLUMNS = tuple(dict.fromkeys([*(column for form in FORMS for column in form.columns), *UNPAIRED]))
"""Every column that any form reads."""


def find_form(row: Mapping[str, Any], verdict: str | None) -> Form | None:
    """Find the form of a row by its columns; `verdict` selects one where a data set has several verdicts."""
    for form in FORMS:
        needed = (*form.needs, *([form.verdict] if form.verdict else []))
        if verdict in (None, form.verdict) and all(column in row for column in needed):
            return form
    return None


def is_liked(label: Any) -> bool:
    """Read the label of an unpaired answer. Raises RowError where it is neither true nor false."""
    text = str(label).strip().lower()
    if text in ("true", "1", "1.0", "yes"):
        return True
    if text in ("false", "0", "0.0", "no", "-1", "-1.0"):
        return False
    raise RowError(f"the label {label!r}, which is neither true nor false")


def _is_missing(value: Any) -> bool:
    try:
        return value is None or math.isnan(float(value))
    except (TypeError, ValueError):
        return True


def _number(value: Any, column: str) -> float:
    if _is_missing(value):
        raise RowError(f"no number in {column} ({value!r})")
    return float(value)


def _whole(value: Any, column: str) -> int:
    return int(_number(value, column))
