"""The texts of a run: read from a file, cleaned, split into train and held out, numbered."""

from __future__ import annotations

import os
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet

from lfp.config import CorpusConfig
from lfp.errors import CorpusError, first_line

_BREAK = re.compile(r"\s*(?:<br\s*/?>\s*)+", re.IGNORECASE)
_DATA_FOLDER = "../shared/data"


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


def find_source(name: str, *, key: str, beside: Path | None) -> Path:
    """Find the file a config names under `key`: as given, relative to the config, or in the data folder ($LFP_DATA).

    Raises CorpusError naming the key and every place searched.
    """
    places = [Path(name)]
    if not places[0].is_absolute():
        places += [beside / name] if beside else []
        places.append(Path(os.environ.get("LFP_DATA", _DATA_FOLDER)) / name)
    for place in places:
        if place.is_file():
            return place
    looked = ", ".join(str(place) for place in places)
    where = "there" if len(places) == 1 else "beside the config or into the folder that LFP_DATA names"
    raise CorpusError(f"{key} {name}: no such file (looked at {looked}); put it {where}, or --set {key}=FILE")


def read_rows(path: Path, *, columns: Sequence[str], optional: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Read columns of a .jsonl(.gz), .csv(.gz), .tsv(.gz), .parquet or .txt file (one text per line).

    `optional` columns are returned where the file has them. Raises CorpusError when the file cannot be read,
    a column is missing, or there is no row.
    """
    try:
        table = _read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise CorpusError(
            f"{path}: cannot be read ({first_line(error)}); pass .jsonl, .csv, .tsv, .parquet or .txt"
        ) from error
    for column in columns:
        if column not in table.column_names:
            found = ", ".join(table.column_names) or "none"
            raise CorpusError(f"{path}: no column {column!r} (found: {found}); name one of those in the config")
    if table.num_rows == 0:
        raise CorpusError(f"{path}: no rows; pass a file with at least one text")
    table = table.select([*columns, *(name for name in optional if name in table.column_names)])
    if any(pa.types.is_binary(field.type) for field in table.schema):
        raise CorpusError(f"{path}: not text in UTF-8; save it in that encoding")
    try:
        return table.to_pylist()
    except UnicodeDecodeError as error:
        raise CorpusError(f"{path}: not text in UTF-8 ({error}); save it in that encoding") from error


def read_corpus(config: CorpusConfig, *, beside: Path | None, seed: int) -> list[CorpusText]:
    """Read the texts of a corpus file, train first, each text once, none in both splits. Raises CorpusError."""
    if config.source is None:
        raise CorpusError("corpus.source is not set; name a file of texts in the config, or --set corpus.source=FILE")
    train = _texts(find_source(config.source, key="corpus.source", beside=beside), config)
    if config.held_out_source:
        held_out = _texts(find_source(config.held_out_source, key="corpus.held_out_source", beside=beside), config)
    else:
        order = random.Random(seed).sample(range(len(train)), len(train))
        chosen = set(order[: max(1, round(config.held_out_share * len(train)))])
        held_out = [train[i] for i in sorted(chosen)]
        train = [row for i, row in enumerate(train) if i not in chosen]
    hidden = {text for text, _ in held_out}
    train = [row for row in train if row[0] not in hidden]
    if config.n_texts is not None:
        n_held_out = max(1, round(config.held_out_share * config.n_texts))
        train, held_out = _draw(train, config.n_texts - n_held_out, seed), _draw(held_out, n_held_out, seed)
    names = [Path(name).name for name in (config.source, config.held_out_source or config.source)]
    return number(train, held_out, source=names[0], held_out_source=names[1])


def number(
    train: Sequence[tuple[str, float | None]],
    held_out: Sequence[tuple[str, float | None]],
    *,
    source: str,
    held_out_source: str | None = None,
) -> list[CorpusText]:
    """Number the texts, train first; both from `source` by default. Raises CorpusError where a split is empty."""
    splits = (("train", train, source), ("held_out", held_out, held_out_source or source))
    for split, texts, name in splits:
        if not texts:
            raise CorpusError(f"{name}: no text left for {split}; pass more texts or change corpus.held_out_share")
    rows = [(*row, name, split) for split, texts, name in splits for row in texts]
    return [
        CorpusText(text_id=i, text=text, source=name, split=split, rating=rating)
        for i, (text, rating, name, split) in enumerate(rows)
    ]


def clean(text: str) -> str:
    """Remove HTML line breaks and outer white space."""
    return _BREAK.sub("\n", text).strip()


def _read_table(path: Path) -> pa.Table:
    name = path.name.removesuffix(".gz")
    if name.endswith(".parquet"):
        return pa.parquet.read_table(path)
    with pa.input_stream(path, compression="gzip" if path.name.endswith(".gz") else None) as stream:
        if name.endswith((".jsonl", ".json")):
            return pa.json.read_json(stream, read_options=pa.json.ReadOptions(block_size=1 << 26))
        if name.endswith((".csv", ".tsv")):
            delimiter = "\t" if name.endswith(".tsv") else ","
            return pa.csv.read_csv(
                stream, parse_options=pa.csv.ParseOptions(delimiter=delimiter, newlines_in_values=True)
            )
        lines = stream.read().decode("utf-8", errors="replace").splitlines()
        return pa.table({"text": [line for line in lines if line.strip()]}, schema=pa.schema([("text", pa.string())]))


def _texts(path: Path, config: CorpusConfig) -> list[tuple[str, float | None]]:
    columns = [config.text_column, *([config.rating_column] if config.rating_column else [])]
    seen: dict[str, float | None] = {}
    for row in read_rows(path, columns=columns):
        text = clean(str(row[config.text_column] or ""))
        rating = row[config.rating_column] if config.rating_column else None
        if not text:
            continue
        try:
            seen.setdefault(text, None if rating is None else float(rating))
        except (TypeError, ValueError) as error:
            raise CorpusError(f"{path}: the rating {rating!r} is not a number; correct it or leave it out") from error
    if not seen:
        raise CorpusError(f"{path}: every text is empty; pass a file with at least one text")
    return list(seen.items())


def _draw(rows: list[Any], n: int, seed: int) -> list[Any]:
    """Draw `n` rows, at least one, and keep their order."""
    if n >= len(rows):
        return rows
    return [rows[i] for i in sorted(random.Random(seed).sample(range(len(rows)), max(1, n)))]
