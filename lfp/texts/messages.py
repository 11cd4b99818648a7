"""Dialogues as lists of messages, however they are stored, and how they are written as text."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from lfp.texts.reading.json_values import DECODER
from lfp.texts.reading.rows import RowError, written
from lfp.texts.reading.sources import find_source

ASSISTANT = "assistant"
DIALOGUE = "dialogue"
"""As `model.chat_template`: `SpeakerFormat` instead of a template."""
_IS_JINJA = re.compile(r"\{[{%]|\n")
_ROLES = {
    "system": "system", "developer": "system", "user": "user", "human": "user", "prompter": "user",
    "assistant": ASSISTANT, "gpt": ASSISTANT, "chatgpt": ASSISTANT, "model": ASSISTANT, "bot": ASSISTANT,
    "function_call": ASSISTANT, "tool": "tool", "function": "tool", "observation": "tool", "ipython": "tool",
}  # fmt: skip
"""Roles of messages by what chat servers and ShareGPT call them."""
_TEXT_PARTS = ("text", "input_text", "output_text")
_SPEAKERS = {"system": "System", "user": "Human", ASSISTANT: "Assistant", "tool": "Tool"}
_TURN = re.compile(r"(?:^|\n\n)(Human|Assistant):[ \t]*")
_LIKE_MESSAGES = re.compile(r"\s*\[?\s*\{\s*(['\"])(role|content|from|value)\1\s*:")
_LISTS = ("messages", "conversations", "conversation")


@dataclass(frozen=True)
class Message:
    """A turn of a dialogue: a role of system, user, assistant or tool, a text, and the calls of tools in it."""

    role: str
    content: str
    tool_calls: tuple[Mapping[str, Any], ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return the message as chat templates read it."""
        calls = {"tool_calls": [dict(call) for call in self.tool_calls]} if self.tool_calls else {}
        return {"role": self.role, "content": self.content, **calls}


Dialogue = tuple[Message, ...]
Span = tuple[int, int]
"""Characters of a text: the first, and the one after the last."""


@dataclass(frozen=True)
class WrittenDialogue:
    """A dialogue as text, and the spans of what the assistant wrote in it."""

    text: str
    spans: tuple[Span, ...]


class ChatFormat(Protocol):
    """Writes dialogues as a model reads them."""

    def write(self, dialogue: Dialogue) -> WrittenDialogue:
        """Write a dialogue. Raises RowError for one that cannot be written."""
        ...


LoadChat = Callable[[], ChatFormat | None]
"""Loads the chat format of a model; None where it has none."""


class SpeakerFormat:
    r"""Writes "\n\nHuman: ..." and "\n\nAssistant: ...", as Anthropic's preferences are (hh-rlhf)."""

    def write(self, dialogue: Dialogue) -> WrittenDialogue:
        """Write a dialogue; a span begins at the space after the speaker."""
        text, spans = "", []
        for message in dialogue:
            text += f"\n\n{_SPEAKERS[message.role]}:"
            start = len(text)
            text += f" {_said(message)}"
            if message.role == ASSISTANT:
                spans.append((start, len(text)))
        return WrittenDialogue(text, tuple(spans))


def read_speakers(text: str) -> Dialogue | None:
    r"""Read "\n\nHuman: ..." and "\n\nAssistant: ..." as messages, without spaces around what is said.

    Return None for a text that does not begin with a speaker. An `Assistant:` at the end, which waits for an answer, is
    left out.
    """
    before, *turns = _TURN.split(text)
    if before.strip() or not turns:
        return None
    speakers = zip(turns[::2], turns[1::2], strict=True)
    dialogue = tuple(Message(_ROLES[speaker.lower()], said.strip()) for speaker, said in speakers)
    return dialogue[:-1] if dialogue[-1] == Message(ASSISTANT, "") else dialogue


def last_turns(dialogue: Dialogue, n_words: int | None) -> Dialogue:
    """Keep the system's messages and the last turns with at most `n_words` words, from a user's turn on.

    The last user's turn and what follows it are always kept; the whole dialogue where `n_words` is None.
    """
    if n_words is None:
        return dialogue
    starts = [i for i, message in enumerate(dialogue) if message.role == "user"]
    fitting = [i for i in starts if sum(len(message.content.split()) for message in dialogue[i:]) <= n_words]
    start = min(fitting or starts[-1:] or [0])
    return (*(message for message in dialogue[:start] if message.role == "system"), *dialogue[start:])


def _said(message: Message) -> str:
    calls = [json.dumps(call, ensure_ascii=False, default=str) for call in message.tool_calls]
    return "\n".join([*([message.content] if message.content or not calls else []), *calls])


def read_dialogue(value: Any, column: str) -> Dialogue | None:
    """Read messages in any of their forms; None for a plain text, a number or nothing.

    Messages are {role, content} or ShareGPT's {from, value}; contents are texts or lists of parts; a list may be
    written as JSON or as Python shows it. Raises RowError for messages that cannot be read.
    """
    if isinstance(value, str):
        if not _LIKE_MESSAGES.match(value):
            return None
        value = _parse_written(value, column)
    if isinstance(value, dict):
        inner = next((value[name] for name in _LISTS if isinstance(value.get(name), list)), None)
        value = inner if inner is not None else _split_columns(value)
    if not isinstance(value, list | tuple):
        return None
    if not value:
        raise RowError(f"no text for {column}")
    return tuple(_read_message(message, column) for message in value)


def _parse_written(text: str, column: str) -> Any:
    try:
        return DECODER.decode(text.strip())
    except ValueError:
        try:
            return ast.literal_eval(text.strip())
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            raise RowError(f"a list of messages in {column} that is neither JSON nor Python") from None


def _split_columns(value: dict[str, Any]) -> list[Any]:
    """Make messages of an object: a single one, or lists of roles and contents side by side."""
    if value and all(isinstance(each, list) for each in value.values()):
        return [dict(zip(value, row, strict=False)) for row in zip(*value.values(), strict=False)]
    return [value]


def _read_message(message: Any, column: str) -> Message:
    if not isinstance(message, dict):
        raise RowError(f"a {type(message).__name__} among the messages of {column}, which are {{role, content}}")
    named = message.get("role") if message.get("role") is not None else message.get("from")
    role = _ROLES.get(named.lower()) if isinstance(named, str) else None
    content = message.get("content") if message.get("content") is not None else message.get("value")
    calls = message.get("tool_calls") or ()
    if role is None:
        raise RowError(
            f"a message in {column} that is not {{role, content}} with a role of {', '.join(_SPEAKERS)}"
            f" (role {named!r})"
        )
    if content is None and not calls:
        raise RowError(f"a message in {column} that is not {{role, content}} with a text (role {named!r})")
    return Message(role, _join_parts(content, column), tuple(calls) if isinstance(calls, list | tuple) else ())


def _join_parts(content: Any, column: str) -> str:
    """Join the text parts of a message's content. Raises RowError for pictures, sound and files."""
    parts = content if isinstance(content, list | tuple) else [content]
    texts = []
    for part in parts:
        if isinstance(part, dict):
            kind = part.get("type") or ("text" if "text" in part else "unknown part")
            if kind not in _TEXT_PARTS or not isinstance(part.get("text"), str):
                raise RowError(f"a message in {column} with a part of type {kind}, which has no text")
            texts.append(part["text"])
        elif part is not None:
            text = written(part)
            if text is None:
                raise RowError(f"a message in {column} whose content is a {type(part).__name__}")
            texts.append(text)
    return "".join(texts)


def shared_turns(first: Sequence[Message], second: Sequence[Message]) -> int:
    """Count the turns that two dialogues share before an assistant's turn in both; 0 where there is none."""
    shared = 0
    for one, other in zip(first, second, strict=False):
        if one != other:
            break
        shared += 1
    for n in range(min(shared, len(first) - 1, len(second) - 1), -1, -1):
        if first[n].role == second[n].role == ASSISTANT:
            return n
    return 0


def find_template_file(template: str | None, beside: Path | None) -> Path | None:
    """Find the file that `model.chat_template` names; None where it is a Jinja template itself, or not set."""
    if template is None or template == DIALOGUE or _IS_JINJA.search(template):
        return None
    return find_source(template, key="model.chat_template", beside=beside)
