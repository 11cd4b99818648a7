"""A labeller that asks a language model or a person: describe, relate to the feedback, judge held-out excerpts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Any

from lfp.config import LabelsConfig
from lfp.labels import prompts
from lfp.labels.client.answer_file import AnswerFile
from lfp.labels.client.client import Client, Estimate
from lfp.labels.client.questions import Answer, Question, read_answer
from lfp.labels.evidence import sample_excerpts
from lfp.labels.prompts import Description, Relation
from lfp.labels.scoring import score
from lfp.labels.types import Evidence, Excerpt, Label
from lfp.util.types import Progress

_ASSUMED = "x" * 160  # a long description, whose price is estimated before there is one

_Ask = Callable[[list[Question[Any]]], list[Answer[Any]]]


@dataclass
class _Feature:
    """One feature: what it is described from, and all answers about it."""

    evidence: Evidence
    samples: tuple[tuple[Excerpt, ...], ...]
    described: list[Answer[Description]] = field(default_factory=list)
    chosen: int = 0
    """The repeat whose description becomes the label's: the first that has one."""
    description: str | None = None
    related: dict[int, Answer[Relation]] = field(default_factory=dict)
    judged: dict[str, Answer[Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class LanguageModelLabeller:
    """Labels features with a language model or a person, who reads in `task` what the feedback was about.

    Each feature is described from several samples of its examples, and each description is related to the feedback. The
    first gives the label, the others its agreement. Features that fire on nothing are not asked about. An answer that
    the client cannot get within its budget and retries becomes a failure with its reason; later features are asked
    about all the same.
    """

    client: Client | AnswerFile
    config: LabelsConfig
    _: KW_ONLY
    task: str
    progress: Progress | None = None

    @property
    def name(self) -> str:
        """Value of `labels.labeller`: one per model or person."""
        return self.client.name

    def label(self, evidence: Sequence[Evidence]) -> list[Label]:
        """Label each feature, in order. Raises LabelError if the server would answer nothing."""
        progress, done, in_round = self.progress, 0, 0
        expected = self.estimate(evidence) if progress else None
        total = expected.calls + expected.cached if expected else 0

        def report(what: str, answered: int, n_questions: int, spent_usd: float) -> None:  # noqa: ARG001
            """Report one count of answers over all rounds."""
            nonlocal in_round
            in_round = n_questions
            if progress is not None:
                progress("labels: answers", done + answered, max(total, done + n_questions), spent_usd)

        def ask(questions: list[Question[Any]]) -> list[Answer[Any]]:
            nonlocal done
            answers = self.client.ask(questions, report)
            done += in_round
            return answers

        features = self._features(evidence)
        for block, n_swapped in self._blocks(features):
            self._ask_rounds(block, n_swapped, ask)
        return [self._build_label(feature) for feature in features]

    def estimate(self, evidence: Sequence[Evidence]) -> Estimate:
        """Estimate what labelling takes. Nothing is asked; descriptions that are not cached count as long ones."""
        settings, asked = self.client.config, list[Question[Any]]()

        def assume(questions: list[Question[Any]]) -> list[Answer[Any]]:
            assumed: list[Answer[Any]] = []
            for question in questions:
                value = None
                if question.schema is Description:
                    cached = read_answer(settings.cache, question.sha256(settings.model), Description)
                    value = cached.value if cached else Description(description=f"{_ASSUMED}{len(asked)}")
                asked.append(question)
                assumed.append(Answer(value, "not asked", 0.0, 0))
            return assumed

        for block, n_swapped in self._blocks(self._features(evidence)):
            self._ask_rounds(block, n_swapped, assume)
        return self.client.estimate(asked)

    def _features(self, evidence: Sequence[Evidence]) -> list[_Feature]:
        """Draw the samples that each feature is described from."""
        config, features = self.config, []
        for each in evidence:
            samples = (
                sample_excerpts(
                    each,
                    n_top=config.top_shown,
                    per_interval=config.shown_per_interval,
                    n_silent=config.look_alikes_shown,
                    repeat=repeat,
                )
                for repeat in range(config.repeats)
            )
            features.append(_Feature(each, tuple(samples)))
        return features

    def _blocks(self, features: Sequence[_Feature]) -> Iterator[tuple[Sequence[_Feature], int]]:
        """Split live features into blocks as large as the number of concurrent calls, with how many to judge swapped.

        A budget that runs out then leaves complete labels, and features that nothing was spent on.
        """
        live = [feature for feature in features if feature.evidence.firing]
        size = max(2, self.client.config.concurrency)
        for start in range(0, len(live), size):
            yield live[start : start + size], max(0, self.config.swapped - start)

    def _ask_rounds(self, block: Sequence[_Feature], n_swapped: int, ask: _Ask) -> None:
        """Ask everything about a block of features, round by round, and keep the answers in the features."""
        repeats = [(feature, repeat) for feature in block for repeat in range(len(feature.samples))]
        answers = ask([self._describe(feature, repeat) for feature, repeat in repeats])
        for (feature, _), answer in zip(repeats, answers, strict=True):
            feature.described.append(answer)
        described = [
            (feature, repeat, answer.value.description)
            for feature in block
            for repeat, answer in enumerate(feature.described)
            if answer.value
        ]
        for feature, repeat, description in reversed(described):
            feature.chosen, feature.description = repeat, description
        limit = self.config.answer_tokens
        answers = ask([
            prompts.relate(description, self.task, answer_tokens=limit, repeat=repeat)
            for _, repeat, description in described
        ])  # fmt: skip
        for (feature, repeat, _), answer in zip(described, answers, strict=True):
            feature.related[repeat] = answer
        scored = [feature for feature in block if feature.description and feature.evidence.held_out]
        half = len(scored) // 2
        others = [*scored[half:], *scored[:half]] if half else []
        own, swapped = list(zip(scored, scored, strict=True)), list(zip(scored, others, strict=False))[:n_swapped]
        for name, pairs in (("detection", own), ("fuzzing", own), ("swapped", swapped)):
            marked = name == "fuzzing"
            questions: list[Question[Any]] = [
                prompts.judge(other.description or "", feature.evidence.held_out, marked=marked, answer_tokens=limit)
                for feature, other in pairs
            ]
            for (feature, _), answer in zip(pairs, ask(questions), strict=True):
                feature.judged[name] = answer

    def _describe(self, feature: _Feature, repeat: int) -> Question[Description]:
        return prompts.describe(
            feature.samples[repeat],
            max_activation=feature.evidence.max_activation,
            answer_tokens=self.config.answer_tokens,
            repeat=repeat,
        )

    def _build_label(self, feature: _Feature) -> Label:
        """Build the label of a feature from the answers; `failure` names the first part that is missing, and why."""
        evidence, version = feature.evidence, prompts.PROMPT_VERSION
        if not evidence.firing:
            reason = "it fires on no token of the corpus"
            return Label(evidence.feature_id, "never active", False, 1.0, reason, (), version)
        repeat = feature.chosen
        says = {i: answer.value for i, answer in feature.related.items() if answer.value}
        relation, agreement = says.pop(repeat, None), None
        if relation and says:
            agreement = sum(other.related == relation.related for other in says.values()) / len(says)
        parts = {"relation": feature.related.get(repeat), **feature.judged}
        failures = (f"{name}: {answer.failure}" for name, answer in parts.items() if answer and answer.failure)
        firing = {
            name: [number in answer.value.firing for number in range(1, len(evidence.held_out) + 1)]
            for name, answer in feature.judged.items()
            if answer.value
        }
        answers: list[Answer[Any]] = [*feature.described, *feature.related.values(), *feature.judged.values()]
        limit, description = self.config.answer_tokens, feature.description or ""
        related = prompts.relate(description, self.task, answer_tokens=limit, repeat=repeat)
        sent: list[Question[Any]] = [self._describe(feature, repeat), related]
        return Label(
            evidence.feature_id,
            feature.description,
            relation.related if relation else None,
            relation.confidence if relation else None,
            relation.reason if relation else None,
            tuple(excerpt.key for excerpt in feature.samples[repeat]),
            version,
            model=self.client.model,
            failure=next(failures, None) if feature.description else f"description: {feature.described[0].failure}",
            agreement=agreement,
            score=score(
                evidence.held_out,
                detected=firing.get("detection"),
                fuzzed=firing.get("fuzzing"),
                swapped=firing.get("swapped"),
            ),
            prompt_sha256=prompts.hash_prompts(sent),
            task=self.task,
            answered_at=max((answer.answered_at for answer in answers if answer.answered_at), default=None),
            cost_usd=sum(answer.cost_usd for answer in answers),
        )
