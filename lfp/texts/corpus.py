"""The texts of a run: read from files or the hub, cleaned, split into train and held out, numbered."""

from __future__ import annotations

import functools
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

from lfp.config import CorpusConfig
from lfp.errors import CorpusError
from lfp.texts.messages import ChatFormat, Dialogue, LoadChat, Span, read_dialogue
from lfp.texts.reading.hub import HubDataset, hub_source, is_hub_name
from lfp.texts.reading.rows import DroppedRows, NoColumnError, RowError, RowSource, file_source, read_usable, written
from lfp.texts.reading.sources import find_files
from lfp.util.object_stores import without_secrets

_BREAK = re.compile(r"\s*(?:<br\s*/?>\s*)+", re.IGNORECASE)
_MARK = re.compile(r"<[^<>\s]{1,40}>")
"""What a chat template may write at the end of a turn, such as <|im_end|>."""
_DIALOGUES = ("messages", "conversations", "conversation")
_ANSWERED = ("prompt", "completion")
_HELD_CHARACTERS = 1 << 27
"""Characters of texts that are held while it is not known which are drawn; of a larger corpus, hashes are."""


@dataclass(frozen=True)
class CorpusText:
    """A text with its number, where it came from, its split (train or held_out) and role (text, chosen, rejected)."""

    text_id: int
    text: str
    source: str
    split: str
    rating: float | None = None
    role: str = "text"
    pair_id: int | None = None
    response_start: int = 0
    """First character of the response; 0 where there is no prompt."""
    spans: tuple[Span, ...] = ()
    """What the assistant wrote, in characters, where the text was written from messages; else nothing."""
    conversation: int | None = None
    """Number of a pair's conversation; pairs that open alike share it."""

    @property
    def responses(self) -> tuple[Span, ...]:
        """The spans of its responses; none of a text without a prompt, all of which counts."""
        return self.spans or (((self.response_start, len(self.text)),) if self.response_start else ())

    @property
    def prompt_ends(self) -> tuple[int, ...]:
        """Where the responses of a dialogue begin; of a pair's, the one that people judged. None of any other text."""
        if self.pair_id is not None:
            return (self.response_start,) if self.response_start else ()
        return tuple(start for start, _ in self.spans)

    @property
    def blanked(self) -> str:
        """The text with line ends in place of all but its responses, and of the marks of turns in these.

        Every character keeps its place. It is the text itself where there is no response.
        """
        if not self.responses:
            return self.text
        parts, at = list[str](), 0
        for start, end in self.responses:
            said = self.text[start:end]
            parts += ["\n" * (start - at), _MARK.sub(_blank, said) if self.spans else said]
            at = end
        return "".join(parts) + "\n" * (len(self.text) - at)

    @property
    def said(self) -> str:
        """What a reward is given: what the assistant wrote in a dialogue, or the whole of any other text."""
        return re.sub(r"\n{2,}", "\n", self.blanked).strip() if self.spans else self.text


class ReadText(NamedTuple):
    """A text as it is read, its human rating, where its response begins, and the spans of the assistant's turns."""

    text: str
    rating: float | None = None
    response_start: int = 0
    spans: tuple[Span, ...] = ()


def read_corpus(
    config: CorpusConfig,
    *,
    beside: Path | None,
    seed: int,
    chat: LoadChat | None = None,
    dropped: DroppedRows | None = None,
) -> list[CorpusText]:
    """Read the texts of a corpus, train first, each text once, none in both splits. Raises CorpusError.

    Messages are written by `chat`. Rows that cannot be used are counted in `dropped`.
    """
    if config.source is None:
        raise CorpusError("corpus.source is not set; name a file of texts in the config, or --set corpus.source=FILE")
    counted = DroppedRows() if dropped is None else dropped
    train = _UniqueTexts(_find(config, "source", beside), config, chat, counted)
    n_held_out = None if config.n_texts is None else max(1, round(config.held_out_share * config.n_texts))
    n_train = None if config.n_texts is None or n_held_out is None else config.n_texts - n_held_out
    if config.held_out_source:
        held_out = _UniqueTexts(_find(config, "held_out_source", beside), config, chat, counted)
        hidden = set(held_out.keys)
        of_train = [i for i, key in enumerate(train.keys) if key not in hidden]
        of_held_out = list(range(len(held_out.keys)))
    else:
        held_out, n = train, len(train.keys)
        chosen = set(random.Random(seed).sample(range(n), n)[: max(1, round(config.held_out_share * n))])
        of_train, of_held_out = [i for i in range(n) if i not in chosen], sorted(chosen)
    names = [
        Path(without_secrets(name).rstrip("/")).name
        for name in (config.source, config.held_out_source or config.source)
    ]
    return number(
        train.take(_draw(of_train, n_train, seed)),
        held_out.take(_draw(of_held_out, n_held_out, seed)),
        source=names[0],
        held_out_source=names[1],
    )


def number(
    train: Sequence[ReadText], held_out: Sequence[ReadText], *, source: str, held_out_source: str | None = None
) -> list[CorpusText]:
    """Number the texts, train first; both from `source` by default. Raises CorpusError where a split is empty."""
    splits = (("train", train, source), ("held_out", held_out, held_out_source or source))
    for split, texts, name in splits:
        if not texts:
            raise CorpusError(f"{name}: no text left for {split}; pass more texts or change corpus.held_out_share")
    rows = [(ReadText(*row), name, split) for split, texts, name in splits for row in texts]
    return [
        CorpusText(
            text_id=i,
            text=row.text,
            source=name,
            split=split,
            rating=row.rating,
            response_start=row.response_start,
            spans=row.spans,
        )
        for i, (row, name, split) in enumerate(rows)
    ]


def _blank(found: re.Match[str]) -> str:
    return "\n" * len(found.group())


def clean(text: str) -> str:
    """Remove HTML line breaks and outer white space."""
    return (_BREAK.sub("\n", text) if "<" in text else text).strip()


def _find(config: CorpusConfig, name: str, beside: Path | None) -> RowSource:
    """Find the rows that `corpus.source` or `corpus.held_out_source` names: files, an address, or a hub dataset."""
    key, named = f"corpus.{name}", str(getattr(config, name))
    try:
        return file_source(find_files(named, key=key, beside=beside), name=named)
    except CorpusError:
        if not is_hub_name(named):
            raise
    split = config.source_split if name == "source" else config.held_out_split
    return hub_source(
        HubDataset(
            named,
            key,
            config=config.source_config,
            data_dir=config.source_data_dir,
            split=split,
            revision=config.source_revision,
        )
    )


class _UniqueTexts:
    """The texts of a source, each once, with the rating it first had; `keys` are their hashes in order.

    Texts are held up to a limit; beyond it, `take` reads the source again. Raises CorpusError where there is none.
    """

    def __init__(self, source: RowSource, config: CorpusConfig, chat: LoadChat | None, dropped: DroppedRows) -> None:
        self._source, self._config, self._chat = source, config, chat
        self._is_rated = config.rating_column is None
        own, seen, n_held = DroppedRows(), dict[int, None](), 0
        held: list[ReadText] | None = []
        for key, row in self._read(own):
            if key in seen:
                continue
            seen[key] = None
            n_held += len(row.text)
            if held is not None:
                held.append(row)
            if config.n_texts is not None and n_held > _HELD_CHARACTERS:
                held = None
        if not self._is_rated:
            raise CorpusError(
                f"{source.where}: no column {config.rating_column!r}; set corpus.rating_column to one that it has"
            )
        dropped.merge(own)
        self.keys, self._held = list(seen), held

    def take(self, wanted: Sequence[int]) -> list[ReadText]:
        """Return texts by their places among `keys`, ascending."""
        if self._held is not None:
            return [self._held[i] for i in wanted]
        waiting = {self.keys[i] for i in wanted}
        taken = []
        for key, row in self._read(DroppedRows()):
            if key in waiting:
                waiting.remove(key)
                taken.append(row)
        return taken

    def _read(self, dropped: DroppedRows) -> Iterator[tuple[int, ReadText]]:
        config = self._config
        columns = dict.fromkeys([config.text_column, config.messages_column, *_DIALOGUES, *_ANSWERED])
        if config.rating_column:
            columns[config.rating_column] = None
        rows = read_usable(self._source, self._parse, columns=list(columns), dropped=dropped)
        for row in rows:
            yield int.from_bytes(blake2b(row.text.encode("utf-8", "surrogatepass"), digest_size=8).digest()), row

    def _parse(self, row: Mapping[str, Any]) -> ReadText:
        """Read the text, or the messages, of a row."""
        config = self._config
        self._is_rated |= config.rating_column in row
        rating = _read_rating(row, config.rating_column)
        value = row.get(config.text_column)
        for name in (config.text_column, config.messages_column, *_DIALOGUES):
            dialogue = read_dialogue(row.get(name), name)
            if dialogue is not None:
                return self._write(dialogue, rating)
        if config.text_column in row:
            text = written(value)
            if text is None and value is not None and value == value:
                raise RowError(f"a {type(value).__name__} in {config.text_column}, which is neither text nor messages")
            if not (text := clean(text or "")):
                raise RowError("no text")
            return ReadText(text, rating)
        if all(name in row for name in _ANSWERED):
            return self._read_answered(row, rating)
        raise NoColumnError("no text", column=config.text_column)

    def _read_answered(self, row: Mapping[str, Any], rating: float | None) -> ReadText:
        """Read TRL's rows of a prompt and its completion."""
        prompt, answer = (read_dialogue(row[name], name) for name in _ANSWERED)
        if prompt is not None and answer is not None:
            return self._write(prompt + answer, rating)
        texts = [written(row[name]) for name in _ANSWERED]
        if prompt is not None or answer is not None or texts[0] is None or not (texts[1] or "").strip():
            raise RowError("no text for prompt and completion")
        return ReadText(f"{texts[0]}{texts[1]}", rating, len(texts[0]))

    @functools.cached_property
    def _format(self) -> ChatFormat | None:
        return None if self._chat is None else self._chat()

    def _write(self, dialogue: Dialogue, rating: float | None) -> ReadText:
        if self._format is None:
            raise CorpusError(
                f"{self._source.where}: its rows are messages, and the base model has no chat template; set"
                ' model.chat_template to a file, a Jinja template or "dialogue", or corpus.text_column to one of texts'
            )
        whole = self._format.write(dialogue)
        if not whole.spans:
            raise RowError("no turn of an assistant")
        return ReadText(whole.text, rating, whole.spans[0][0], whole.spans)


def _read_rating(row: Mapping[str, Any], column: str | None) -> float | None:
    text = written(row.get(column)) if column else None
    if text is None or not text.strip():
        return None
    try:
        return float(text)
    except ValueError:
        raise RowError("a rating that is not a number") from None


def _draw(rows: list[int], n: int | None, seed: int) -> list[int]:
    """Draw `n` rows, at least one, and keep their order; all of them where there is no limit."""
    if n is None or n >= len(rows):
        return rows
    return [rows[i] for i in sorted(random.Random(seed).sample(range(len(rows)), max(1, n)))]
