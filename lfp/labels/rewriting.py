"""Rewrite sentences with a language model: replace strong words by negative and by neutral ones."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from lfp.labels.client.client import Client
from lfp.labels.client.questions import Form, Message, Question
from lfp.texts.triples import Rewrite
from lfp.util.types import Progress

PROMPT_VERSION = "rewriting-1"
"""Changes with the wording of the prompt."""

_SYSTEM = """\
You rewrite sentences for a study of how the choice of a word changes the feeling that a sentence expresses. You are \
given a sentence and some of its words, all of them strongly positive. Write the sentence twice more:
negative: each of those words replaced by a strongly negative one;
neutral: each of those words replaced by one that expresses no feeling, neither good nor bad.
A replacement is one single word. It has the part of speech and the form (tense, number, degree) of the word it \
replaces, it suits the article in front of it, it makes sense there, and it is about as common. Keep everything else \
exactly as it is: every other word, their order, spaces, capitals and punctuation, mistakes too."""

_SPARE_TOKENS = 512  # besides the sentences: JSON, and the reasoning of models that write it first


class Rewriting(Form):
    """Schema of an answer."""

    negative: str
    neutral: str


@dataclass(frozen=True)
class LanguageModelRewriter:
    """Replaces the strong words of sentences with a language model (the paper's way).

    The words of answers are not checked here, but where triples are made of them.
    """

    client: Client
    progress: Progress | None = None

    def rewrite(self, sentences: Sequence[str], targets: Sequence[tuple[str, ...]]) -> list[Rewrite | str]:
        """Rewrite each sentence twice, negative and neutral, or give the reason why that failed.

        `targets` are the words to replace in each sentence. Raises LabelError if the server would answer nothing.
        """
        questions = [build_question(sentence, words) for sentence, words in zip(sentences, targets, strict=True)]
        answers = self.client.ask(questions, self.progress, what="sentences rewritten")
        return [
            Rewrite(answer.value.negative, answer.value.neutral) if answer.value else answer.failure or "no answer"
            for answer in answers
        ]


def build_question(sentence: str, words: Sequence[str]) -> Question[Rewriting]:
    """Build the question about one sentence, with room for both rewritten sentences in the answer."""
    content = json.dumps({"sentence": sentence, "words": list(words)}, ensure_ascii=False)
    messages = Message("system", _SYSTEM), Message("user", content)
    return Question(messages, Rewriting, _SPARE_TOKENS + len(sentence.encode()), PROMPT_VERSION)


def read_question(content: str) -> tuple[str, list[str]]:
    """Read the sentence and the words in the last message of `build_question`."""
    message = json.loads(content)
    return message["sentence"], message["words"]
