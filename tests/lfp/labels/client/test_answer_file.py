"""A person in place of a language model: questions in a file, answers from a file, labels scored in the same way."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lfp.config import LabelsConfig
from lfp.errors import ConfigError, DataError
from lfp.labels.client.answer_file import AnswerFile
from lfp.labels.language_model import LanguageModelLabeller
from lfp.labels.prompts import Description, read_excerpts, read_numbered
from lfp.labels.types import Label
from tests.lfp.labels.excerpts import WORDS, known_features

CONFIG = LabelsConfig(repeats=1, swapped=4)


def label(answers: Path | None, questions: Path) -> tuple[AnswerFile, list[Label]]:
    person = AnswerFile("ann", answers)
    labels = LanguageModelLabeller(person, CONFIG, task="It was paid for joy.").label(known_features(n_scored=8))
    person.write_questions(questions)
    return person, labels


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def answer(row: dict[str, Any]) -> dict[str, Any]:
    """Answer as a reader would who looks for the word that always fires, and judges by the word alone."""
    if row["form"] == ["description"]:
        tables = [line for table in read_excerpts(row["user"])["Fires"] for line in table.splitlines()]
        return {"description": next(word for word in WORDS if any(f" {word}\t" in line for line in tables))}
    if "related" in row["form"]:
        return {"related": row["user"] in ("good", "awful"), "confidence": 0.9, "reason": "it is"}
    word, texts = read_numbered(row["user"])
    marked = "«" in texts[0]
    return {"firing": [i for i, text in enumerate(texts, 1) if (f"« {word}»" if marked else f" {word}") in text]}


def test_a_persons_labels_are_scored_like_a_models(tmp_path: Path) -> None:
    questions, answers = tmp_path / "questions.jsonl", tmp_path / "answers.jsonl"
    person, labels = label(None, questions)
    first = read(questions)
    assert [row["form"] for row in first] == [["description"]] * len(WORDS) and not any(label.is_ok for label in labels)
    assert len(person.open_questions) == len(WORDS) and first == sorted(first, key=lambda row: row["question"])
    for _ in range(4):  # what follows from answers is asked next: relation, detection, fuzzing, swapped
        rows = [{"question": row["question"], "answer": answer(row)} for row in read(questions)]
        answers.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
        person, labels = label(answers, questions)
    assert not person.open_questions and not person.unused and all(row["answered"] for row in read(questions))
    assert [label.description for label in labels] == list(WORDS)
    assert [label.related for label in labels[:3]] == [True, True, False]
    for number, found in enumerate(labels):
        assert found.score.detection == pytest.approx(0.75) == found.score.fuzzing and found.score.n == 8
        assert (found.score.swapped is not None) == (number < CONFIG.swapped)
        assert found.model is None and found.prompt_sha256 and found.failure is None and found.score.p is not None


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{}", r"line 1 is no answer; write"),
        (
            '{"question": "ID", "answer": {"description": " "}}',
            r"line 1: description: it is blank; answer with",
        ),
        ('{"question": "ID", "answer": {"text": "x"}}', r"line 1: description: .* answer with the keys description"),
        ('{"question": "a", "answer": {}}\n{"question": "a", "answer": {}}', r"line 2 answers a again; keep one"),
    ],
)
def test_a_wrong_line_is_named(line: str, says: str, tmp_path: Path) -> None:
    label(None, tmp_path / "questions.jsonl")
    answers = tmp_path / "answers.jsonl"
    answers.write_text(line.replace("ID", read(tmp_path / "questions.jsonl")[0]["question"]), encoding="utf-8")
    with pytest.raises(DataError, match=says):
        label(answers, tmp_path / "questions.jsonl")


def test_answers_to_questions_that_were_not_asked_are_counted(tmp_path: Path) -> None:
    answers = tmp_path / "answers.jsonl"
    answers.write_text(json.dumps({"question": "of another run", "answer": {"description": "x"}}), encoding="utf-8")
    person, _ = label(answers, tmp_path / "questions.jsonl")
    assert person.unused == ["of another run"] and len(person.open_questions) == len(WORDS)
    question = next(iter(person.asked.values()))
    assert question.schema is Description
    assert (person.estimate([question]).calls, person.estimate([question]).cost_usd) == (1, 0.0)


def test_files_that_cannot_be_read_or_written_are_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.jsonl: cannot be read \(No such file or directory\); name a file"):
        AnswerFile("ann", tmp_path / "none.jsonl")
    (tmp_path / "latin").write_bytes("größer".encode("latin-1"))
    with pytest.raises(DataError, match=r"latin: cannot be read \(it is not UTF-8\)"):
        AnswerFile("ann", tmp_path / "latin")
    with pytest.raises(ConfigError, match=r"cannot be written \(Is a directory\); name a file you may write to"):
        AnswerFile("ann").write_questions(tmp_path)
