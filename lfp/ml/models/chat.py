"""Write dialogues through a model's chat template, and find what the assistant wrote, character by character."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from lfp.config import PRETRAIN, ModelConfig
from lfp.errors import CorpusError
from lfp.ml.models.pretraining import END_OF_TEXT
from lfp.ml.models.sources import find_model, load_tokenizer
from lfp.texts.messages import (
    ASSISTANT,
    DIALOGUE,
    ChatFormat,
    Dialogue,
    Message,
    Span,
    SpeakerFormat,
    WrittenDialogue,
    find_template_file,
)
from lfp.texts.reading.rows import RowError

_MARKS_TURNS = re.compile(r"\{%-?\s*generation\s*-?%\}")
DATE = "26 Jul 2024"
"""What templates that write a date are given, so that a run can be repeated."""


class TemplateFormat:
    """Writes dialogues by a Jinja template, as `apply_chat_template` of transformers does.

    `special_tokens` are those of the tokenizer by name. `leading` is removed where a text begins with it: the
    beginning-of-sequence token, which models read before every text anyway.
    """

    def __init__(self, template: str, *, name: str, special_tokens: Mapping[str, str], leading: str = "") -> None:
        self._template, self._name, self._leading = template, name, leading
        self._special_tokens = dict(special_tokens)

    def write(self, dialogue: Dialogue) -> WrittenDialogue:
        """Write a dialogue; a span holds an assistant's turn with the token that ends it.

        Raises RowError where the template refuses the dialogue or does not show where a turn begins and ends.
        """
        text, marked = self._render(dialogue)
        n_turns = sum(message.role == ASSISTANT for message in dialogue)
        spans = marked if len(marked) == n_turns else self._find_spans(dialogue, text)
        n_leading = len(self._leading) if self._leading and text.startswith(self._leading) else 0
        moved = tuple((max(0, start - n_leading), end - n_leading) for start, end in spans)
        return WrittenDialogue(text[n_leading:], moved)

    def _render(self, dialogue: Dialogue, *, prompts: bool = False) -> tuple[str, Sequence[Span]]:
        """Render the template; where it marks the assistant's turns, return their spans too."""
        from transformers.utils.chat_template_utils import render_jinja_template

        try:
            texts, spans = render_jinja_template(
                conversations=[[message.as_dict() for message in dialogue]],
                chat_template=self._template,
                add_generation_prompt=prompts,
                return_assistant_tokens_mask=_MARKS_TURNS.search(self._template) is not None,
                date_string=DATE,
                **self._special_tokens,
            )
        except Exception as error:  # whatever a template raises or trips over
            raise RowError(
                f"a dialogue that the chat template of {self._name} refuses ({str(error).strip().split(chr(10))[0]})"
            ) from error
        return texts[0], [(int(start), int(end)) for start, end in spans[0]] if spans else []

    def _find_spans(self, dialogue: Dialogue, text: str) -> list[Span]:
        """Find the assistant's turns by the beginnings of the dialogue, or by marks in place of what it wrote."""
        turns = [i for i, message in enumerate(dialogue) if message.role == ASSISTANT]
        spans = [self._find_by_beginnings(dialogue, i, text) for i in turns]
        found = [span for span in spans if span is not None]
        return found if len(found) == len(turns) else self._find_by_marks(dialogue, turns, text)

    def _find_by_beginnings(self, dialogue: Dialogue, turn: int, text: str) -> Span | None:
        """Render the dialogue up to a turn, and with it; both must be beginnings of the whole text."""
        try:
            before, until = (
                self._render(dialogue[:turn], prompts=True)[0],
                self._render(dialogue[: turn + 1])[0].rstrip(),
            )
        except RowError:  # of templates that need a first message
            return None
        content = dialogue[turn].content.strip()
        is_exact = text.startswith(before) and text.startswith(until) and content in text[len(before) : len(until)]
        return (len(before), len(until)) if is_exact and turn > 0 else None

    def _find_by_marks(self, dialogue: Dialogue, turns: Sequence[int], text: str) -> list[Span]:
        marked = [
            Message(ASSISTANT, f"\ue000{i}\ue001") if i in turns and not message.tool_calls else message
            for i, message in enumerate(dialogue)
        ]
        pieces = re.split("\ue000(\\d+)\ue001", self._render(tuple(marked))[0])
        refusal = RowError(f"a dialogue in which the chat template of {self._name} does not keep the assistant's turns")
        if [int(number) for number in pieces[1::2]] != list(turns):
            raise refusal
        spans, at = [], len(pieces[0])
        if not text.startswith(pieces[0]):
            raise refusal
        for turn, after in zip(turns, pieces[2::2], strict=True):
            content = dialogue[turn].content
            fits = (said for said in (content, content.strip(), content.lstrip()) if text.startswith(said + after, at))
            said = next(fits, None)
            if said is None:
                raise refusal
            spans.append((at, at + len(said) + self._n_ending(after)))
            at += len(said) + len(after)
        return spans

    def _n_ending(self, after: str) -> int:
        """Count the characters of the special token that ends a turn, with spaces before it."""
        stripped = after.lstrip(" ")
        ending = next((token for token in self._special_tokens.values() if token and stripped.startswith(token)), "")
        return len(after) - len(stripped) + len(ending) if ending else 0


def load_chat_format(config: ModelConfig, *, name: str, config_dir: Path | None) -> ChatFormat | None:
    """Load the chat format of a config, None where the base model, whose name or folder is `name`, has none.

    Raises ModelError or CorpusError where a file is missing.
    """
    if config.chat_template == DIALOGUE:
        return SpeakerFormat()
    template = _read_template(config.chat_template, config_dir)
    tokens = {"bos_token": END_OF_TEXT, "eos_token": END_OF_TEXT}
    if config.base != PRETRAIN:
        tokenizer = load_tokenizer(find_model(name, revision=config.base_revision))
        template = template or (tokenizer.get_chat_template() if tokenizer.chat_template else None)
        tokens = {key: token for key, token in tokenizer.special_tokens_map.items() if isinstance(token, str)}
    if template is None:
        return None
    return TemplateFormat(
        template,
        name=config.base if config.chat_template is None else "model.chat_template",
        special_tokens=tokens,
        leading=(tokens.get("bos_token") or tokens.get("eos_token") or "") if config.prepend_bos else "",
    )


def _read_template(template: str | None, config_dir: Path | None) -> str | None:
    file = find_template_file(template, config_dir)
    if file is None:
        return template
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise CorpusError(f"{file}: a chat template that is not UTF-8; save it in that encoding") from error
