"""The command `screen`: rows of a file that may be published, without offensive language and personal data."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lfp.errors import CorpusError
from lfp.texts.reading.rows import file_source
from lfp.texts.reading.sources import find_files
from lfp.texts.screening import find_objection
from precompute.run.lines import write_lines

_COLUMNS = ("text", "prompt", "chosen", "rejected")
_LONG = "too long"


@dataclass(frozen=True)
class Screened:
    """What `screen` kept."""

    rows: int
    """Of the source."""
    kept: int
    left_out: Mapping[str, int]
    """Rows by why they were left out."""


def screen(
    source: str | Path,
    *,
    out: str | Path,
    columns: Sequence[str] = (),
    longest: int | None = None,
    n: int | None = None,
    seed: int = 0,
) -> Screened:
    """Write the rows of a file of texts or pairs that may be published to `out`, .jsonl or .jsonl.gz.

    A row is left out where any text of its `columns` (by default text, prompt, chosen and rejected) has a slur, sexual
    language, profanity, harm or personal data (`lfp.texts.screening`), or more than `longest` words. At most `n` rows
    are kept, drawn by the seed, in the order of the source. Counts by reason are written beside `out`, as .json.
    Raises CorpusError where the source cannot be read or no row is left.
    """
    out = Path(out)
    names = tuple(columns) or _COLUMNS
    kept: list[dict[str, Any]] = []
    left_out = Counter[str]()
    found = file_source(find_files(str(source), key="screen", beside=None), name=str(source))
    for row in found.read(names):
        reason = row.fault or _find_reason(row.values, longest)
        if reason is None:
            kept.append(dict(row.values))
        else:
            left_out[reason] += 1
    if not kept:
        reasons = ", ".join(f"{reason} {count}" for reason, count in left_out.most_common()) or "there is none"
        raise CorpusError(f"{found.where}: no row is left ({reasons}); pass another file or raise --longest")
    n_rows = len(kept) + left_out.total()
    if n is not None and n < len(kept):
        drawn = sorted(random.Random(seed).sample(range(len(kept)), n))
        kept = [kept[i] for i in drawn]
    out.parent.mkdir(parents=True, exist_ok=True)
    write_lines(out, kept)
    facts = {
        "source": found.name,
        "rows": n_rows,
        "longest": longest,
        "seed": seed,
        "kept": len(kept),
        "left_out": dict(left_out.most_common()),
    }
    out.with_name(out.name.split(".")[0] + ".json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    return Screened(n_rows, len(kept), left_out)


def _find_reason(values: Mapping[str, Any], longest: int | None) -> str | None:
    """Return why a row is left out; None where it is kept."""
    texts = [text for value in values.values() for text in _texts(value)]
    if not texts:
        return "no text"
    objection = next(filter(None, map(find_objection, texts)), None)
    if objection is None and longest is not None and max(len(text.split()) for text in texts) > longest:
        return _LONG
    return objection


def _texts(value: Any) -> Iterator[str]:
    """Yield every text in a value: itself, or those in lists of messages."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        yield from (text for inner in value.values() for text in _texts(inner))
    elif isinstance(value, Sequence):
        yield from (text for inner in value for text in _texts(inner))
