"""Preference pairs: read from files or the hub in any known form, split into prompt and responses, and held out."""

from __future__ import annotations

import functools
import random
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lfp.config import TuneConfig
from lfp.errors import CorpusError
from lfp.texts.messages import (
    ASSISTANT,
    ChatFormat,
    Dialogue,
    LoadChat,
    Message,
    Span,
    SpeakerFormat,
    last_turns,
    read_dialogue,
    read_speakers,
    shared_turns,
)
from lfp.texts.reading.hub import HubDataset, hub_source, is_hub_name
from lfp.texts.reading.known_datasets import COLUMNS, PAIRED, UNPAIRED, Judged, find_form, is_liked
from lfp.texts.reading.rows import DroppedRows, NoColumnError, RowError, RowSource, file_source, read_usable, written
from lfp.texts.reading.sources import DataFile, find_files

_ALONE = "no answer of the other kind to the same prompt"
_LAST_TURN = "\n\nAssistant:"


@dataclass(frozen=True)
class PreferencePair:
    """A prompt and two responses, of which people chose one.

    Where it was written from messages, `spans` are what the assistant wrote, in the prompt and the chosen response and
    in the prompt and the rejected one; of a plain text they are empty.
    """

    prompt: str
    chosen: str
    rejected: str
    spans: tuple[tuple[Span, ...], tuple[Span, ...]] = ((), ())
    first_turn: str = field(default="", compare=False)
    """What the conversation begins with, where the pair was written from messages."""

    @property
    def opening(self) -> str:
        """What the conversation begins with: pairs of one conversation share it. Empty where there is no prompt."""
        return self.first_turn or self.prompt.partition(_LAST_TURN)[0]


@dataclass(frozen=True)
class Preferences:
    """Pairs, the name of their source, how many ties it also held, and rows that could not be used, by reason."""

    pairs: tuple[PreferencePair, ...]
    source: str
    ties: int
    dropped: Mapping[str, int]
    """Rows by what they have, as in "no text for chosen"."""
    dropped_rows: str = ""
    """The same as a sentence that names the first few of them."""


@dataclass(frozen=True)
class SplitPairs:
    """Pairs to tune on, and held-out pairs; no text of one is in the other, and no conversation."""

    train: tuple[PreferencePair, ...]
    held_out: tuple[PreferencePair, ...]
    shared: int
    """Pairs left out of `train` because they share a text with a held-out pair."""


def find_preferences(
    config: TuneConfig, *, beside: Path | None, chat: LoadChat | None = None, prompt_words: int | None = None
) -> Preferences:
    """Load the pairs that `tune.pairs` names: files, an address, or a hub dataset `org/name`.

    Of messages the last turns of a prompt with at most `prompt_words` words are kept. Raises CorpusError.
    """
    name = str(config.pairs)
    writer = _PairWriter(chat, reads_speakers=config.pairs_as == "messages", prompt_words=prompt_words)
    try:
        files = find_files(name, key="tune.pairs", beside=beside)
    except CorpusError:
        if not is_hub_name(name):
            raise
        dataset = HubDataset(
            name,
            "tune.pairs",
            config=config.pairs_config,
            data_dir=config.pairs_data_dir,
            split=config.pairs_split,
            revision=config.pairs_revision,
        )
        return _read(hub_source(dataset), verdict=config.pairs_verdict, writer=writer)
    return _read(file_source(files, name=name), verdict=config.pairs_verdict, writer=writer)


def read_pairs(path: Path, *, verdict: str | None = None, chat: LoadChat | None = None) -> Preferences:
    """Read the pairs of a file in any form of `known_datasets`; ties and rows that cannot be used are dropped.

    A side is a text, or messages, which `chat` writes; "\\n\\nHuman: ..." and "\\n\\nAssistant: ..." by default. A
    `prompt` is put before both sides, but not before messages that contain it. A dialogue is split at the last
    assistant turn whose past both sides share, never inside the `prompt`; what precedes it is the pair's prompt. Plain
    texts without a prompt share the words that both begin with. Raises CorpusError.
    """
    return _read(file_source([DataFile(str(path))], name=str(path)), verdict=verdict, writer=_PairWriter(chat))


def split_pairs(pairs: Sequence[PreferencePair], *, share: float, limit: int | None, seed: int) -> SplitPairs:
    """Draw at most `limit` pairs, at most round(share * n) of them held out, by the seed; both keep their order.

    Pairs of one conversation are held out together, or not at all: fewer than the share where no smaller conversation
    fits. Raises CorpusError where that leaves no pair to tune on.
    """
    order = random.Random(seed).sample(range(len(pairs)), len(pairs))[:limit]
    n_hidden = max(1, round(share * len(order)))
    drawn: dict[int, list[int]] = {}
    for i, conversation in zip(order, number_conversations([pairs[i] for i in order], most=n_hidden), strict=True):
        drawn.setdefault(conversation, []).append(i)
    hidden = set[int]()
    for members in drawn.values():
        if len(hidden) + len(members) <= n_hidden:
            hidden.update(members)
    held_out = tuple(pairs[i] for i in sorted(hidden))
    texts = {pair.prompt + side for pair in held_out for side in (pair.chosen, pair.rejected)}
    rest = [pairs[i] for i in sorted(set(order) - hidden)]
    train = tuple(pair for pair in rest if texts.isdisjoint((pair.prompt + pair.chosen, pair.prompt + pair.rejected)))
    if not train:
        raise CorpusError(
            f"tune.pairs: {len(order)} pairs with different texts leave none to tune on beside {len(held_out)} held"
            " out; pass more pairs or lower corpus.held_out_share"
        )
    return SplitPairs(train, held_out, len(rest) - len(train))


def number_conversations(pairs: Sequence[PreferencePair], *, most: int) -> list[int]:
    """Number the conversation of each pair: pairs with the same opening share one.

    An opening of more than `most` pairs is a form rather than a conversation, and its pairs are numbered singly.
    """
    counts = Counter(pair.opening for pair in pairs)
    numbers: dict[str, int] = {}
    found = []
    for i, pair in enumerate(pairs):
        is_single = not pair.opening or counts[pair.opening] > most
        found.append(i if is_single else numbers.setdefault(pair.opening, i))
    return found


def _read(source: RowSource, *, verdict: str | None, writer: _PairWriter) -> Preferences:
    dropped, unpaired = DroppedRows(), _Unpaired()

    def parse(row: Mapping[str, Any]) -> PreferencePair | None:
        form = find_form(row, verdict)
        if form is not None:
            found = form.read(row, form.verdict)
        elif all(column in row for column in UNPAIRED) and verdict is None:
            waiting = unpaired.match(row)
            if waiting is None:
                return None
            found = waiting
        else:
            raise _missing(row, verdict)
        return writer.pair(found)

    columns = [*COLUMNS, *([verdict] if verdict else [])]
    rows = read_usable(source, parse, columns=columns, dropped=dropped)
    pairs = [pair for pair in rows if pair is not None]
    kept = tuple(pair for pair in pairs if pair.chosen != pair.rejected)
    if not kept:
        where = "a row" if dropped.places else "row 0"
        text = f" ({where} has {_shorten(pairs[0].chosen)!r} twice)" if pairs else ""
        raise CorpusError(
            f"{source.where}: no pair whose chosen and rejected texts differ{text}; pass preferences, not ties"
        )
    counts, sentence = dict(dropped.counts), dropped.sentence()
    if unpaired.n_left:
        counts[_ALONE] = unpaired.n_left
        sentence += f"{'; ' if sentence else ''}{unpaired.n_left} answers have {_ALONE}"
    return Preferences(kept, source.name, len(pairs) - len(kept), counts, sentence)


def _missing(row: Mapping[str, Any], verdict: str | None) -> NoColumnError:
    """Say what a row of no known form lacks; one that has either side lacks the text of the other."""
    absent = [column for column in PAIRED.needs if column not in row]
    if verdict is None and len(absent) == 1:
        return NoColumnError(f"no text for {absent[0]}", column=absent[0])
    column = verdict or PAIRED.needs[0]
    return NoColumnError(f"no column {column!r}", column=column)


def _shorten(text: str) -> str:
    return text if len(text) <= 60 else text[:60] + "..."


class _Unpaired:
    """Single answers that wait for one of the other kind to the same prompt."""

    def __init__(self) -> None:
        self._waiting: dict[tuple[str, bool], list[Any]] = {}

    def match(self, row: Mapping[str, Any]) -> Judged | None:
        """Pair an answer with the earliest one of the other kind, or let it wait."""
        prompt, answer, liked = row["prompt"], row["completion"], is_liked(row["label"])
        if answer is None:
            raise RowError("no text for completion")
        others = self._waiting.get((str(prompt), not liked))
        if not others:
            self._waiting.setdefault((str(prompt), liked), []).append(answer)
            return None
        other = others.pop(0)
        return Judged(prompt, answer, other) if liked else Judged(prompt, other, answer)

    @property
    def n_left(self) -> int:
        """How many answers still wait."""
        return sum(map(len, self._waiting.values()))


class _PairWriter:
    """Makes pairs of judged rows; messages are written by a chat format, as plain dialogues where there is none.

    With `reads_speakers` texts with Human: and Assistant: are messages too. Of a prompt of messages the last turns with
    at most `prompt_words` words are kept.
    """

    def __init__(self, load: LoadChat | None, *, reads_speakers: bool = False, prompt_words: int | None = None) -> None:
        self._load, self._reads_speakers, self._prompt_words = load, reads_speakers, prompt_words

    @functools.cached_property
    def _chat(self) -> ChatFormat | None:
        return None if self._load is None else self._load()

    def pair(self, judged: Judged) -> PreferencePair:
        """Make the pair of a row. Raises RowError for a side without text, or messages that cannot be written."""
        sides = (("chosen", judged.chosen), ("rejected", judged.rejected))
        dialogues = [self._read_side(value, column) for column, value in sides]
        prompt = self._read_side(judged.prompt, "prompt")
        if any(dialogue is not None for dialogue in (*dialogues, prompt)):
            chosen, rejected = (
                dialogue if dialogue is not None else (Message(ASSISTANT, _text(value, column)),)
                for dialogue, (column, value) in zip(dialogues, sides, strict=True)
            )
            if (dialogues[0] is None) != (dialogues[1] is None):
                raise RowError("a text on one side and messages on the other")
            if prompt is None and (text := written(judged.prompt)):
                prompt = (Message("user", text),)
            return self._of_messages(prompt or (), chosen, rejected)
        if self._reads_speakers:
            raise RowError("no Human: or Assistant:, which tune.pairs_as = messages reads")
        text = written(judged.prompt) or ""
        return _of_texts(text, *(_text(value, column) for column, value in sides))

    def _read_side(self, value: Any, column: str) -> Dialogue | None:
        dialogue = read_dialogue(value, column)
        is_text = dialogue is None and self._reads_speakers and isinstance(value, str)
        return read_speakers(value) if is_text else dialogue

    def _of_messages(self, prompt: Dialogue, chosen: Dialogue, rejected: Dialogue) -> PreferencePair:
        if _holds(chosen, prompt) and _holds(rejected, prompt):
            prompt = ()  # whole dialogues beside a copy of their first messages
        chosen, rejected = prompt + chosen, prompt + rejected
        n = max(shared_turns(chosen, rejected), len(prompt))
        for column, side in (("chosen", chosen[n:]), ("rejected", rejected[n:])):
            if not any(message.content.strip() or message.tool_calls for message in side):
                raise RowError(f"no text for {column}")
            if all(message.role != ASSISTANT for message in side):
                raise RowError(f"no answer of the assistant in {column}")
        if chosen == rejected:
            return PreferencePair("", chosen[-1].content, rejected[-1].content)
        opening = next((message.content for message in chosen if message.role == "user"), chosen[0].content)
        kept = last_turns(chosen[:n], self._prompt_words)
        chosen, rejected, n = kept + chosen[n:], kept + rejected[n:], len(kept)
        wholes = [(self._chat or SpeakerFormat()).write(dialogue) for dialogue in (chosen, rejected)]
        before = ""
        if n < min(len(chosen), len(rejected)) and chosen[n].role == rejected[n].role == ASSISTANT:
            turn = sum(message.role == ASSISTANT for message in chosen[:n])
            before = wholes[0].text[: wholes[0].spans[turn][0]]
            if wholes[1].text[: wholes[1].spans[turn][0]] != before:
                raise RowError("a prompt that the chat template writes otherwise before each answer")
        after = [_up_to_last_span(whole.text, whole.spans) for whole in wholes]
        pair = PreferencePair(before, after[0][len(before) :], after[1][len(before) :])
        pair = replace(pair, first_turn=opening)
        if self._chat is None:
            return pair
        chosen_spans, rejected_spans = (
            tuple(span for span in whole.spans if span[0] >= len(before)) for whole in wholes
        )
        return replace(pair, spans=(chosen_spans, rejected_spans))


def _holds(dialogue: Dialogue, prompt: Dialogue) -> bool:
    """Return whether the messages of a prompt stand in a dialogue, one after another, and are not all of it."""
    n = len(prompt)
    return any(dialogue[i : i + n] == prompt for i in range(len(dialogue) - n))


def _up_to_last_span(text: str, spans: Sequence[Span]) -> str:
    """Cut what a template writes after the assistant's last turn, such as a line end."""
    end = spans[-1][1] if spans else len(text)
    return text[:end] if not text[end:].strip() else text


def _of_texts(prompt: str, chosen: str, rejected: str) -> PreferencePair:
    chosen, rejected = prompt + chosen, prompt + rejected
    turns = [match.end() for match in re.finditer(_LAST_TURN, chosen)]
    shared = [end for end in turns if rejected.startswith(chosen[:end])]
    split = max([len(prompt), *shared])
    if not split and not turns and chosen != rejected:
        split = _shared_words(chosen, rejected)
    return PreferencePair(chosen[:split], chosen[split:], rejected[split:])


def _shared_words(chosen: str, rejected: str) -> int:
    """Count the characters of the whole words that two texts begin with, where a word of either follows."""
    n = next((i for i, (one, other) in enumerate(zip(chosen, rejected, strict=False)) if one != other), None)
    n = min(len(chosen), len(rejected)) if n is None else n
    starts = [match.start() for match in re.finditer(r"\s+", chosen[: n + 1]) if match.end() <= n + 1]
    usable = [at for at in starts if at <= n and chosen[at:].strip() and rejected[at:].strip()]
    return usable[-1] if usable else 0


def _text(value: Any, column: str) -> str:
    text = written(value)
    if text is None:
        raise RowError(f"no text for {column}")
    if not text.strip():
        raise RowError(f"an empty text for {column}")
    return text


def last_words(text: str, n: int | None) -> str:
    """Keep the last `n` words of a text, unchanged; the whole text where n is None."""
    starts = [match.start() for match in re.finditer(r"\S+", text)] if n is not None else []
    return text[starts[-n] :] if n is not None and len(starts) > n else text
