"""Sentences rewritten by a language model: their strong words replaced by negative and by neutral ones."""

from __future__ import annotations

import json
from collections.abc import Sequence

from lfp.labels.client.client import Client
from lfp.labels.client.questions import Answer, Form, Message, Question
from lfp.texts.triples import Rewrite
from lfp.util.types import Progress

PROMPT_VERSION = "rewriting-1"
"""Changes with the prompt's words."""

_SYSTEM = """\
You rewrite sentences for a study of how the choice of a word changes the feeling that a sentence expresses. You are \
given a sentence and some of its words, all of them strongly positive. Write the sentence twice more:
negative: each of those words replaced by a strongly negative one;
neutral: each of those words replaced by one that expresses no feeling, neither good nor bad.
A replacement is one single word. It has the part of speech and the form (tense, number, degree) of the word it \
replaces, it suits the article in front of it, it makes sense there, and it is about as common. Keep everything else \
exactly as it is: every other word, their order, spaces, capitals and punctuation, mistakes too."""

_SPARE_TOKENS = 512  # beside the sentences: JSON, and the thoughts of models that think first


class Rewriting(Form):
    """The form of an answer."""

    negative: str
    neutral: str


class LanguageModelRewriter:
    """Replaces the strong words of sentences by asking a language model (the paper's way). It checks no answer's words:
    whoever makes triples of them does.
    """

    def __init__(self, client: Client, progress: Progress | None = None) -> None:
        self._client, self._progress = client, progress

    def rewrite(self, sentences: Sequence[str], targets: Sequence[tuple[str, ...]]) -> list[Rewrite | str]:
        """The negative and the neutral sentence of each, or the reason why there is none.

        `targets` are the words to replace in each sentence. Raises LabelError where the server would answer none.
        """
        questions = [question(sentence, words) for sentence, words in zip(sentences, targets, strict=True)]
        answers = self._client.ask(questions, self._progress, what="sentences rewritten")
        return [_rewrite(answer) for answer in answers]


def question(sentence: str, words: Sequence[str]) -> Question[Rewriting]:
    """What is asked of one sentence: the same words for the same sentence, so that it is asked once."""
    asked = json.dumps({"sentence": sentence, "words": list(words)}, ensure_ascii=False)
    messages = Message("system", _SYSTEM), Message("user", asked)
    return Question(messages, Rewriting, _SPARE_TOKENS + len(sentence.encode()), PROMPT_VERSION)


def read_prompt(content: str) -> tuple[str, list[str]]:
    """Sentence and words of the last message of such a question."""
    asked = json.loads(content)
    return asked["sentence"], asked["words"]


def _rewrite(answer: Answer[Rewriting]) -> Rewrite | str:
    if answer.value is None:
        return answer.failure or "no answer"
    return Rewrite(answer.value.negative, answer.value.neutral)
