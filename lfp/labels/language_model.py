"""A labeller that asks a language model: describe, relate, then judge held-out excerpts by what it said."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from lfp.config import LabelsConfig
from lfp.labels import prompts
from lfp.labels.client.client import Client, Estimate
from lfp.labels.client.questions import Answer, Form, Question
from lfp.labels.evidence import shown
from lfp.labels.prompts import Description, Relation
from lfp.labels.scoring import score
from lfp.labels.types import Evidence, Excerpt, Label, Score
from lfp.util.types import Progress

_SUPPOSED = "x" * 160  # a description's length, where a price is asked before there is one

AnyForm = TypeVar("AnyForm", bound=Form)


@dataclass
class _Asked:
    """One feature: what it is described from, and all that was answered of it."""

    evidence: Evidence
    samples: tuple[tuple[Excerpt, ...], ...]
    described: list[Answer[Description]] = field(default_factory=list)
    related: dict[int, Answer[Relation]] = field(default_factory=dict)
    judged: dict[str, Answer[Any]] = field(default_factory=dict)

    @property
    def chosen(self) -> int | None:
        """The repeat whose description is the label's: the first that has one."""
        return next((i for i, answer in enumerate(self.described) if answer.value), None)

    @property
    def description(self) -> str | None:
        return None if self.chosen is None else self.described[self.chosen].value.description  # type: ignore[union-attr]

    @property
    def answers(self) -> list[Answer[Any]]:
        return [*self.described, *self.related.values(), *self.judged.values()]


class _Count:
    """One progress over all rounds of questions: answers, out of how many, and dollars."""

    def __init__(self, progress: Progress) -> None:
        self._progress, self.total = progress, 0
        self._before, self._of_round = 0, 0

    def __call__(self, what: str, done: int, total: int, value: float) -> None:  # noqa: ARG002 (a progress's form)
        self._of_round = total
        self._progress("labels: answers", self._before + done, max(self.total, self._before + total), value)

    def end_round(self) -> None:
        self._before, self._of_round = self._before + self._of_round, 0


class LanguageModelLabeller:
    """Labels by a language model that is told what the feedback was about: `task`.

    Each feature is described from several draws of examples, and each description related or not; the first is the
    label, the others its agreement. Features that fire on nothing are not asked about. What cannot be had within the
    client's budget and tries is a failure with its reason; whoever comes next is asked about all the same.
    """

    def __init__(self, client: Client, config: LabelsConfig, *, task: str, progress: Progress | None = None) -> None:
        self._client, self._config, self._task = client, config, task
        self._count = None if progress is None else _Count(progress)

    @property
    def name(self) -> str:
        """What labels.labeller says: one name a model."""
        return f"openai:{self._client.config.model}"

    def label(self, evidence: Sequence[Evidence]) -> list[Label]:
        """A label for each feature, in order. Raises LabelError where the server would answer nothing."""
        asked = [self._asked(one) for one in evidence]
        live = [one for one in asked if one.evidence.firing]
        if self._count is not None:
            estimate = self.estimate(evidence)
            self._count.total = estimate.calls + estimate.cached
        for block, swap in self._blocks(live):
            self._ask_of(block, swap=swap)
        return [self._label(one) for one in asked]

    def estimate(self, evidence: Sequence[Evidence]) -> Estimate:
        """What labelling would take; nothing is asked. Descriptions that are not known yet are supposed to be long."""
        live = [one for one in map(self._asked, evidence) if one.evidence.firing]
        total = Estimate(0, 0, 0, 0, 0.0, 0.0)
        for block, swap in self._blocks(live):
            for questions in self._supposed(block, swap):
                total += self._client.estimate(questions)
        return total

    def _blocks(self, live: Sequence[_Asked]) -> Iterator[tuple[Sequence[_Asked], int]]:
        """Features asked about together, as many as calls at once, and how many are judged by another's label too.

        A budget that runs out then leaves whole labels behind, and features that nothing was spent on.
        """
        size = max(2, self._client.config.concurrency)
        for start in range(0, len(live), size):
            yield live[start : start + size], max(0, self._config.swapped - start)

    def _asked(self, evidence: Evidence) -> _Asked:
        config = self._config
        return _Asked(
            evidence,
            tuple(
                shown(
                    evidence,
                    n_top=config.top_shown,
                    per_interval=config.shown_per_interval,
                    n_silent=config.look_alikes_shown,
                    repeat=repeat,
                )
                for repeat in range(config.repeats)
            ),
        )

    def _ask_of(self, block: Sequence[_Asked], *, swap: int) -> None:
        """All questions about these features, round by round."""
        pairs = [(one, i) for one in block for i in range(len(one.samples))]
        for (one, _), answer in zip(pairs, self._ask([self._describe(*pair) for pair in pairs]), strict=True):
            one.described.append(answer)
        told = [(one, i, answer.value) for one in block for i, answer in enumerate(one.described) if answer.value]
        questions = [self._relate(value.description, i) for _, i, value in told]
        for (one, i, _), related in zip(told, self._ask(questions), strict=True):
            one.related[i] = related
        self._judge(block, swap)

    def _judge(self, block: Sequence[_Asked], swap: int) -> None:
        judged = [one for one in block if one.description and one.evidence.held_out]
        for name, ask in (("detection", prompts.detect), ("fuzzing", prompts.fuzz)):
            questions = [self._judged(ask, one.description or "", one.evidence) for one in judged]
            for one, answer in zip(judged, self._ask(questions), strict=True):
                one.judged[name] = answer
        swapped = _others(judged, swap)
        questions = [self._judged(prompts.detect, other.description or "", one.evidence) for one, other in swapped]
        for (one, _), answer in zip(swapped, self._ask(questions), strict=True):
            one.judged["swapped"] = answer

    def _supposed(self, block: Sequence[_Asked], swap: int) -> Iterator[Sequence[Question[Any]]]:
        """The questions of every round, with kept descriptions or supposed ones."""
        described = {(id(one), i): self._describe(one, i) for one in block for i in range(len(one.samples))}
        yield list(described.values())
        kept = {key: self._client.cached(question) for key, question in described.items()}
        says = {key: answer.description if answer else f"{_SUPPOSED}{key}" for key, answer in kept.items()}
        yield [self._relate(says[id(one), i], i) for one in block for i in range(len(one.samples))]
        judged = [one for one in block if one.evidence.held_out]
        yield [self._judged(prompts.detect, says[id(one), 0], one.evidence) for one in judged]
        yield [self._judged(prompts.fuzz, says[id(one), 0], one.evidence) for one in judged]
        firsts = {id(one): says[id(one), 0] for one in judged}
        yield [self._judged(prompts.detect, firsts[id(o)], one.evidence) for one, o in _others(judged, swap)]

    def _describe(self, one: _Asked, repeat: int) -> Question[Description]:
        limits = {"max_activation": one.evidence.max_activation, "answer_tokens": self._config.answer_tokens}
        return prompts.describe(one.samples[repeat], repeat=repeat, **limits)  # type: ignore[arg-type]

    def _relate(self, description: str, repeat: int) -> Question[Relation]:
        return prompts.relate(description, self._task, answer_tokens=self._config.answer_tokens, repeat=repeat)

    def _judged(self, ask: Any, description: str, evidence: Evidence) -> Question[Any]:
        return ask(description, evidence.held_out, answer_tokens=self._config.answer_tokens)

    def _ask(self, questions: Sequence[Question[AnyForm]]) -> list[Answer[AnyForm]]:
        answers = self._client.ask(questions, self._count)
        if self._count is not None:
            self._count.end_round()
        return answers

    def _label(self, one: _Asked) -> Label:
        if not one.evidence.firing:
            reason = "it fires on no token of the corpus"
            return Label(one.evidence.feature_id, "never active", False, 1.0, reason, (), prompts.PROMPT_VERSION)
        repeat = one.chosen or 0
        relation = one.related[repeat].value if repeat in one.related else None
        return Label(
            one.evidence.feature_id,
            one.description,
            relation.related if relation else None,
            relation.confidence if relation else None,
            relation.reason if relation else None,
            tuple(each.key for each in one.samples[repeat]),
            prompts.PROMPT_VERSION,
            model=self._client.config.model,
            failure=_failure(one),
            agreement=_agreement(one.related, repeat),
            score=_score(one),
            prompt_sha256=prompts.sha256([self._describe(one, repeat), self._relate(one.description or "", repeat)]),
            task=self._task,
            answered_at=max((answer.answered_at for answer in one.answers if answer.answered_at), default=None),
            cost_usd=sum(answer.cost_usd for answer in one.answers),
        )


def _others(judged: Sequence[_Asked], most: int) -> list[tuple[_Asked, _Asked]]:
    """Up to `most` features, each with another one, half-way along the list."""
    if len(judged) < 2:
        return []
    half = len(judged) // 2
    return list(zip(judged, [*judged[half:], *judged[:half]], strict=True))[:most]


def _agreement(related: Mapping[int, Answer[Relation]], chosen: int) -> float | None:
    """The share of the other repeats that say of `related` what the chosen one says."""
    says = {i: answer.value.related for i, answer in related.items() if answer.value}
    mine = says.pop(chosen, None)
    return None if mine is None or not says else sum(one == mine for one in says.values()) / len(says)


def _score(one: _Asked) -> Score:
    n = len(one.evidence.held_out)

    def told(name: str) -> list[bool] | None:
        answer = one.judged.get(name)
        return prompts.told(answer.value, n) if answer and answer.value else None

    return score(one.evidence.held_out, detected=told("detection"), fuzzed=told("fuzzing"), swapped=told("swapped"))


def _failure(one: _Asked) -> str | None:
    """What is missing of the label or its scores, and why; None where nothing is."""
    if one.chosen is None:
        return f"description: {one.described[0].failure}"
    parts = {"relation": one.related.get(one.chosen), **one.judged}
    return next((f"{name}: {answer.failure}" for name, answer in parts.items() if answer and answer.failure), None)
