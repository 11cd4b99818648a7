"""A person in place of a language model: the same questions go to a file, and the answers are read from another."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from lfp.errors import ConfigError, DataError
from lfp.labels.client.client import ClientConfig, Estimate
from lfp.labels.client.questions import Answer, AnyForm, Question
from lfp.labels.types import HUMAN
from lfp.util.types import Progress

NOT_ANSWERED = "not answered"
"""Failure of a question that the file has no answer for."""

_ID = 16  # hex digits of a question's hash that name it in files


class _Line(BaseModel):
    """A line of the file of answers: the question's name, and the answer in the form that it asks for."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    question: str
    answer: dict[str, Any]


@dataclass
class AnswerFile:
    """Answers questions from a file of JSON lines, and keeps every question for `write_questions`.

    A question without an answer fails, so that whatever follows from its answer is asked next time. Raises DataError
    where the file cannot be read, or with the number of the first line that is wrong.
    """

    reviewer: str
    answers: Path | None = None
    config: ClientConfig = field(init=False)
    asked: dict[str, Question[Any]] = field(init=False, default_factory=dict)
    """Every question asked, by name."""
    _given: dict[str, tuple[int, dict[str, Any]]] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.config = ClientConfig(self.name, concurrency=1_000_000)  # all features at once: no budget runs out
        for number, line in enumerate(_read_lines(self.answers) if self.answers else ()):
            if not line.strip():
                continue
            try:
                row = _Line.model_validate_json(line)
            except ValidationError as error:
                raise DataError(
                    f'{self.answers}: line {number + 1} is no answer; write {{"question": "…", "answer": {{…}}}}'
                ) from error
            if row.question in self._given:
                raise DataError(f"{self.answers}: line {number + 1} answers {row.question} again; keep one line of it")
            self._given[row.question] = number + 1, row.answer

    @property
    def name(self) -> str:
        """Value of `labels.labeller`."""
        return f"{HUMAN}{self.reviewer}"

    @property
    def model(self) -> None:
        """A person is no model."""
        return None

    @property
    def open_questions(self) -> list[str]:
        """Names of the questions asked that have no answer."""
        return [name for name in self.asked if name not in self._given]

    @property
    def unused(self) -> list[str]:
        """Names of answers to questions that were not asked."""
        return [name for name in self._given if name not in self.asked]

    def ask(
        self, questions: Sequence[Question[AnyForm]], progress: Progress | None = None, *, what: str = "answers"
    ) -> list[Answer[AnyForm]]:
        """Answer each question from the file. Raises DataError for an answer that is not in the question's form."""
        answers = [self._answer(question) for question in questions]
        if progress is not None:
            progress(what, len(answers), len(answers), 0.0)
        return answers

    def estimate(self, questions: Sequence[Question[AnyForm]]) -> Estimate:
        """Count the questions that are open and those that are answered."""
        names = {self._name(question): question for question in questions}
        new = [question for name, question in names.items() if name not in self._given]
        tokens_in, tokens_out = sum(question.tokens_in[0] for question in new), sum(each.max_tokens for each in new)
        return Estimate(len(new), len(names) - len(new), tokens_in, tokens_out, 0.0, 0.0)

    def write_questions(self, path: Path) -> None:
        """Write every question asked as a JSON line: kinds in the order asked, within a kind in an order of chance.

        Neither name nor order says which feature it is, or why that was chosen. Raises ConfigError where `path` cannot
        be written.
        """
        kinds = list(dict.fromkeys(question.schema.__name__ for question in self.asked.values()))
        order = sorted(self.asked, key=lambda name: (kinds.index(self.asked[name].schema.__name__), name))
        lines = []
        for name in order:
            question = self.asked[name]
            row: dict[str, Any] = {
                "question": name,
                "answered": name in self._given,
                "form": list(question.schema.model_fields),
                **{message.role: message.content for message in question.messages},
            }
            lines.append(f"{json.dumps(row, ensure_ascii=False)}\n")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(lines), encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"{path}: cannot be written ({error.strerror}); name a file you may write to") from error

    def _answer(self, question: Question[AnyForm]) -> Answer[AnyForm]:
        name = self._name(question)
        self.asked[name] = question
        if name not in self._given:
            return Answer(None, NOT_ANSWERED, 0.0, 0)
        number, given = self._given[name]
        try:
            return Answer(question.schema.model_validate_json(json.dumps(given)), None, 0.0, 0)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "the answer"
            form = ", ".join(question.schema.model_fields)
            raise DataError(
                f"{self.answers}: line {number}: {where}: {first['msg']}; answer with the keys {form}"
            ) from error

    def _name(self, question: Question[Any]) -> str:
        return question.sha256(self.name)[:_ID]


def _read_lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise DataError(f"{file}: cannot be read ({why}); name a file of answers as JSON lines") from error
