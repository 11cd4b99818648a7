"""Preference pairs: read from a file or the hub, split into prompt and responses, and into train and held out."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lfp.config import TuneConfig
from lfp.errors import CorpusError, first_line
from lfp.texts.corpus import find_source, read_rows
from lfp.util.dependencies import OUT_OF_REACH, hub_reachable

_SIDES = ("chosen", "rejected")
_PROMPT = "prompt"
_SPEAKERS = {"system": "System", "user": "Human", "assistant": "Assistant"}
_LAST_TURN = "\n\nAssistant:"
_ON_HUB = re.compile(r"[\w.-]+/[\w.-]+")
_FILES = (".jsonl", ".json", ".csv", ".tsv", ".parquet", ".txt", ".gz")


@dataclass(frozen=True)
class PreferencePair:
    """A prompt and two responses, of which people chose one."""

    prompt: str
    chosen: str
    rejected: str


@dataclass(frozen=True)
class Preferences:
    """Pairs, the name of their source, and how many ties it also held."""

    pairs: tuple[PreferencePair, ...]
    source: str
    ties: int


@dataclass(frozen=True)
class SplitPairs:
    """Pairs to tune on, and held-out pairs; no text of one is in the other."""

    train: tuple[PreferencePair, ...]
    held_out: tuple[PreferencePair, ...]
    shared: int
    """Pairs left out of `train` because they share a text with a held-out pair."""


def find_preferences(config: TuneConfig, *, beside: Path | None) -> Preferences:
    """Load the pairs that `tune.pairs` names: a file, else a hub dataset `org/name`. Raises CorpusError."""
    name = str(config.pairs)
    try:
        path = find_source(name, key="tune.pairs", beside=beside)
    except CorpusError:
        if not _ON_HUB.fullmatch(name) or name.endswith(_FILES):
            raise
        return _preferences(_hub_rows(config, name), where=name, source=name)
    return read_pairs(path)


def read_pairs(path: Path) -> Preferences:
    """Read the pairs of a file with columns `chosen` and `rejected`, and optionally `prompt`; ties are dropped.

    A side is a text, or a list of messages {role, content}, which are written as "\\n\\nHuman: ..." and
    "\\n\\nAssistant: ...". A `prompt` is put before both sides, but not before messages that contain it. A dialogue is
    split at the last assistant turn whose past both sides share, never inside the `prompt`; what precedes it is the
    pair's prompt. Raises CorpusError.
    """
    return _preferences(read_rows(path, columns=_SIDES, optional=(_PROMPT,)), where=str(path), source=path.name)


def split_pairs(pairs: Sequence[PreferencePair], *, share: float, limit: int | None, seed: int) -> SplitPairs:
    """Draw at most `limit` pairs, round(share * n) of them held out, by the seed; both keep their order.

    Raises CorpusError where that leaves no pair to tune on.
    """
    order = random.Random(seed).sample(range(len(pairs)), len(pairs))[:limit]
    hidden = set(order[: max(1, round(share * len(order)))])
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


def _preferences(rows: Iterable[Mapping[str, Any]], *, where: str, source: str) -> Preferences:
    pairs = [_pair(row, f"{where}: row {number}") for number, row in enumerate(rows)]
    kept = tuple(pair for pair in pairs if pair.chosen != pair.rejected)
    if not kept:
        tie = ""
        if pairs:
            text = pairs[0].chosen
            tie = f" (row 0 has {text if len(text) <= 60 else text[:60] + '...'!r} twice)"
        raise CorpusError(f"{where}: no pair whose chosen and rejected texts differ{tie}; pass preferences, not ties")
    return Preferences(kept, source, len(pairs) - len(kept))


def _pair(row: Mapping[str, Any], where: str) -> PreferencePair:
    """Build the pair of a row; `where` names it in errors."""
    chosen, rejected = (_text(row[side], where, side) for side in _SIDES)
    is_dialogue, prompt = not isinstance(row["chosen"], str), row.get(_PROMPT)
    if is_dialogue and isinstance(prompt, str) and prompt:  # a plain prompt before messages is a user's message
        prompt = [{"role": "user", "content": prompt}]
    prompt = "" if prompt is None else _text(prompt, where, _PROMPT)
    if is_dialogue and prompt in chosen and prompt in rejected:
        prompt = ""  # whole dialogues beside a copy of their first message
    chosen, rejected = prompt + chosen, prompt + rejected
    if not chosen.strip() or not rejected.strip():
        raise CorpusError(f"{where} has an empty text; drop or correct it")
    turns = [match.end() for match in re.finditer(_LAST_TURN, chosen)]
    split = max([len(prompt), *(end for end in turns if rejected.startswith(chosen[:end]))])
    return PreferencePair(chosen[:split], chosen[split:], rejected[split:])


def last_words(text: str, n: int | None) -> str:
    """Keep the last `n` words of a text, unchanged; the whole text where n is None."""
    starts = [match.start() for match in re.finditer(r"\S+", text)] if n is not None else []
    return text[starts[-n] :] if n is not None and len(starts) > n else text


def _text(side: Any, where: str, column: str) -> str:
    """Write a side, a text or a list of messages, as one text. Raises CorpusError."""
    if isinstance(side, str):
        return side
    if not isinstance(side, list) or not side:
        raise CorpusError(
            f"{where} has no text for {column}; both chosen and rejected need one, so drop or correct the row"
        )
    turns = []
    for message in side:
        role, content = (message.get(key) for key in ("role", "content")) if isinstance(message, dict) else (None, None)
        if role not in _SPEAKERS or not isinstance(content, str):
            raise CorpusError(
                f"{where}, {column} has a message that is not {{role, content}} with a text and a role of"
                f" {', '.join(_SPEAKERS)} (role {role!r}); drop or correct it"
            )
        turns.append(f"\n\n{_SPEAKERS[role]}: {content}")
    return "".join(turns)


def _hub_rows(config: TuneConfig, name: str) -> list[dict[str, Any]]:
    """Read a dataset of the hub, or its local copy where the hub does not answer. Raises CorpusError."""
    import datasets
    from huggingface_hub import snapshot_download

    shown, has_hub = not datasets.are_progress_bars_disabled(), hub_reachable()
    source, revision = name, config.pairs_revision
    datasets.disable_progress_bars()
    try:
        if not has_hub:
            source = snapshot_download(name, repo_type="dataset", revision=revision, local_files_only=True)
            revision = None
        rows = datasets.load_dataset(source, revision=revision, split=config.pairs_split)
    except Exception as error:  # among them those of whatever HTTP library the hub's client uses
        reason = OUT_OF_REACH if source == name and not has_hub else first_line(error)
        raise CorpusError(
            f"tune.pairs {name}: no such file, and it does not load as a hub dataset ({reason});"
            " --set tune.pairs=FILE, a file of pairs, or check its name, tune.pairs_split and tune.pairs_revision"
        ) from error
    finally:
        if shown:
            datasets.enable_progress_bars()
    for column in _SIDES:
        if column not in rows.column_names:
            found = ", ".join(rows.column_names) or "none"
            raise CorpusError(f"tune.pairs {name}: no column {column!r} (found: {found}); name a dataset of pairs")
    columns = [column for column in (*_SIDES, _PROMPT) if column in rows.column_names]
    return rows.select_columns(columns).to_list()
