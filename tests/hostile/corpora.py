"""Hostile corpora: files that are huge, expand without end, are nested, cut off or of another kind, read within bounds.

`python -m tests.hostile corpora` writes each at its full size, up to 6.5 GB unpacked, and reads it as a run does.
"""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
import random
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq

from lfp.config import CorpusConfig
from lfp.texts.corpus import read_corpus
from tests.hostile.measuring import Outcome, call_apart, tell

_MB = 1_000_000
_LIMIT_S = 280.0
_SPARE_MB = 500.0
"""Memory that reading may take beside three times the texts that are kept."""


@dataclass(frozen=True)
class Hostile:
    """A file by its name, what writes it at a share of its full size, and what is said of it; None: it has texts."""

    name: str
    write: Callable[[Path, float], None]
    says: str | None
    config: dict[str, Any] = field(default_factory=dict)


def _rows(n: int, n_characters: int = 400) -> Iterator[dict[str, Any]]:
    draws = random.Random(0)
    words = [f"word{i}" for i in range(2_000)]
    for i in range(n):
        text = " ".join(draws.choices(words, k=n_characters // 8))
        yield {"text": f"{i} {text}"}


def _text(content: str | bytes) -> Callable[[Path, float], None]:
    data = content.encode() if isinstance(content, str) else content
    return lambda path, share: path.write_bytes(data) and None


def _many_rows(path: Path, share: float) -> None:
    with path.open("w", encoding="utf-8") as file:
        rows = [json.dumps(row)[:-2] for row in _rows(1_000)]
        for i in range(int(500 * _MB * share / 440)):
            file.write(f'{rows[i % 1_000]} {i}"}}\n')


def _zeros(compress: Callable[[bytes], bytes], head: bytes, gigabytes: float) -> Callable[[Path, float], None]:
    """Write a compressed file of zeros, as parts that follow one another, each compressed alone."""

    def write(path: Path, share: float) -> None:
        block = compress(b"0" * (10 * _MB))
        with path.open("wb") as file:
            file.write(compress(head))
            for _ in range(max(8, int(gigabytes * 100 * share))):
                file.write(block)

    return write


def _zstd(content: bytes) -> bytes:
    return pa.compress(content, "zstd", asbytes=True)


def _twice_compressed(path: Path, share: float) -> None:
    inner = gzip.compress(gzip.compress(b'{"text": "' + b"0" * int(1_000 * _MB * max(share, 0.1))))
    path.write_bytes(inner)


def _long_line(path: Path, share: float) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write('{"text": "short"}\n{"text": "')
        for _ in range(int(200 * max(share, 0.5))):
            file.write("a" * _MB)
        file.write('"}\n')


def _parquet(table: Callable[[float], pa.Table]) -> Callable[[Path, float], None]:
    return lambda path, share: pq.write_table(table(share), path)


def _huge_cell(share: float) -> pa.Table:
    return pa.table({"text": pa.array(["a" * int(500 * _MB * max(share, 0.2))], pa.large_string())})


def _repeated_cell(share: float) -> pa.Table:
    cell = pa.array(["b" * _MB, "c" * _MB], pa.string())
    n = int(4_000 * max(share, 0.1))
    return pa.table({"text": pa.DictionaryArray.from_arrays(pa.array([i % 2 for i in range(n)], pa.int32()), cell)})


def _twice_named(share: float) -> pa.Table:
    return pa.Table.from_arrays([pa.array(["a b c"] * 20), pa.array(["d e f"] * 20)], names=["text", "text"])


def _cut(make: Callable[[Path], None]) -> Callable[[Path, float], None]:
    def write(path: Path, share: float) -> None:
        make(path)
        path.write_bytes(path.read_bytes()[:-40])

    return write


def _plain_gzip(path: Path) -> None:
    path.write_bytes(gzip.compress(_lines(60), mtime=0))


def _plain_parquet(path: Path) -> None:
    pq.write_table(pa.table({"text": [row["text"] for row in _rows(60)]}), path)


def _plain_arrow(path: Path) -> None:
    table = pa.table({"text": [row["text"] for row in _rows(60)]})
    with pa.ipc.new_file(str(path), table.schema) as file:
        file.write_table(table)


def _lines(n: int) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in _rows(n))


def _unclosed_quote(path: Path, share: float) -> None:
    rows = [f'"row {i} of a table, fine"' for i in range(600)]
    rows[300] = '"row 300 of a table, not fine'
    path.write_text("text\n" + "\n".join(rows) + "\n", encoding="utf-8")


def _unclosed_and_long(path: Path, share: float) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write('text\nfine\n"')
        for _ in range(int(400 * max(share, 0.3))):
            file.write("a cell that never ends\n" * 43_478)


def _wide_csv(path: Path, share: float) -> None:
    names = ",".join(f"c{i}" for i in range(int(1_000_000 * max(share, 0.1))))
    path.write_text(f"text,{names}\n" + "a,b\n" * 3, encoding="utf-8")


def _many_keys(path: Path, share: float) -> None:
    keys = ", ".join(f'"k{i}": {i}' for i in range(int(1_000_000 * max(share, 0.1))))
    path.write_text("".join(f'{{"text": "row {i}", {keys}}}\n' for i in range(3)), encoding="utf-8")


def _folder(path: Path, share: float) -> None:
    path.mkdir()


def _loop(path: Path, share: float) -> None:
    path.symlink_to(path)


def _pipe(path: Path, share: float) -> None:
    os.mkfifo(path)


def _device(path: Path, share: float) -> None:
    path.symlink_to("/dev/zero")


_DEEP = "[" * 100_000
_COLUMN = r"rows 0, 1, .* cannot be used|20 of 20 rows cannot be used"
_ENCODED = "caf\u00e9 au lait, une tasse par jour\n" * 50
_TOO_LONG = r"longer than \d+ million"

CORPORA = (
    Hostile("half-a-gigabyte.jsonl", _many_rows, None, {"n_texts": 240}),
    Hostile("half-a-gigabyte-all.jsonl", _many_rows, None),
    Hostile("bomb.jsonl.gz", _zeros(gzip.compress, b'{"text": "', 3), _TOO_LONG),
    Hostile("bomb.txt.gz", _zeros(gzip.compress, b"", 6.5), _TOO_LONG),
    Hostile("bomb.csv.gz", _zeros(gzip.compress, b'text\n"', 3), _TOO_LONG),
    Hostile("bomb.json.bz2", _zeros(bz2.compress, b'[{"text": "', 1), _TOO_LONG),
    Hostile("bomb.jsonl.xz", _zeros(lzma.compress, b'{"text": "', 1), _TOO_LONG),
    Hostile("bomb.jsonl.zst", _zeros(_zstd, b'{"text": "', 3), _TOO_LONG),
    Hostile("twice.jsonl.gz", _twice_compressed, r"compressed by gzip"),
    Hostile("long-line.jsonl", _long_line, r"line 2 is " + _TOO_LONG),
    Hostile("unclosed-and-long.csv", _unclosed_and_long, r"row 1\b.*quotation mark|" + _TOO_LONG),
    Hostile("huge-cell.parquet", _parquet(_huge_cell), _TOO_LONG),
    Hostile("repeated-cell.parquet", _parquet(_repeated_cell), None),
    Hostile("deep.jsonl", _text(f'{{"text": {_DEEP}\n'), "not JSON"),
    Hostile("deep-closed.jsonl", _text(f'{{"text": {_DEEP}{"]" * 100_000}}}\n'), "not JSON"),
    Hostile("deep.json", _text(_DEEP), "is not JSON|cannot be used"),
    Hostile("deep-objects.json", _text('{"a": ' * 100_000), "not JSON|cannot be used"),
    Hostile("unclosed-quote.csv", _unclosed_quote, r"row 300\b.*quotation mark"),
    Hostile("latin-1.txt", _text(_ENCODED.encode("latin-1")), r"line 1 is not UTF-8.*ISO-8859-1|WINDOWS-1252"),
    Hostile("utf-16.csv", _text(("text\n" + _ENCODED).encode("utf-16-le")), r"looks like UTF-16LE"),
    Hostile("random.txt", lambda path, share: path.write_bytes(random.Random(1).randbytes(200_000)) and None, "UTF-8"),
    Hostile("random.parquet", _text(random.Random(2).randbytes(5_000)), "cannot be read"),
    Hostile("twice-named.csv", _text("text,text\n" + "a b,c d\n" * 20), r"column 'text'.* twice"),
    Hostile("twice-named.parquet", _parquet(_twice_named), r"column 'text'.* twice"),
    Hostile("lists.parquet", _parquet(lambda share: pa.table({"text": [["a", "b"]] * 20})), _COLUMN),
    Hostile("structs.parquet", _parquet(lambda share: pa.table({"text": [{"a": 1}] * 20})), _COLUMN),
    Hostile("cut-off.jsonl.gz", _cut(_plain_gzip), "cannot be read"),
    Hostile("cut-off.parquet", _cut(_plain_parquet), "cannot be read"),
    Hostile("cut-off.arrow", _cut(_plain_arrow), "cannot be read"),
    Hostile("million-columns.csv", _wide_csv, r"cannot be used"),
    Hostile("million-keys.jsonl", _many_keys, "more than 10,000 keys"),
    Hostile("long-number.jsonl", _text('{"text": ' + "9" * 3_000_000 + "}\n" + '{"text": "a"}\n{"text": "b"}\n'), None),
    Hostile("surrogates.jsonl", _text('{"text": "lone \\ud800 half"}\n' * 2 + '{"text": "a"}\n{"text": "b"}\n'), None),
    Hostile("zeros.txt", _text(b"\0" * 200_000), "UTF-16|zero byte"),
    Hostile("only-a-mark.csv", _text(b"\xef\xbb\xbf"), "no rows"),
    Hostile("folder.jsonl", _folder, "no file of rows"),
    Hostile("loop.jsonl", _loop, "no such file"),
    Hostile("pipe.jsonl", _pipe, "no such file"),
    Hostile("device.txt", _device, "no such file"),
)
"""Every hostile corpus."""

HEAVY = {each.name for each in CORPORA[:13]} | {"million-columns.csv", "million-keys.jsonl"}
"""Those whose size is what is hostile."""


def read(path: Path, config: dict[str, Any]) -> tuple[int, int]:
    """Read a corpus as the first stage of a run does; return the number of texts and their bytes."""
    texts = read_corpus(CorpusConfig(source=str(path), **config), beside=None, seed=0)
    return len(texts), sum(len(text.text.encode("utf-8", "surrogatepass")) for text in texts)


def judge(hostile: Hostile, outcome: Outcome, *, spare_mb: float = _SPARE_MB) -> str:
    """Return what is wrong with an outcome, nothing where it is as it must be."""
    if outcome.fault:
        return outcome.fault.strip().splitlines()[-1]
    kept_mb = outcome.value[1] / _MB if outcome.value else 0.0
    if outcome.grown_mb > 3 * kept_mb + spare_mb:
        return f"{outcome.grown_mb:.0f} MB for {kept_mb:.0f} MB of texts"
    if hostile.says is None:
        return "" if outcome.value else f"refused: {outcome.said}"
    if outcome.value:
        return f"{outcome.value[0]} texts where it must be refused"
    named = hostile.name in outcome.said and "\n" not in outcome.said and len(outcome.said) < 600
    return "" if named and re.search(hostile.says, outcome.said, re.DOTALL) else f"says: {outcome.said[:300]}"


def check(hostile: Hostile, folder: Path, *, share: float, spare_mb: float = _SPARE_MB) -> tuple[str, Outcome]:
    """Write a corpus at a share of its size, read it in a process of its own, and judge; the file is removed."""
    path = folder / hostile.name
    hostile.write(path, share)
    try:
        outcome = call_apart(read, path, hostile.config, limit_s=_LIMIT_S)
        return judge(hostile, outcome, spare_mb=spare_mb), outcome
    finally:
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def main(seed: int, count: int) -> dict[str, Any]:
    """Read corpora at their full size, in an order drawn from the seed, and say a line of each on stderr."""
    chosen = random.Random(seed).sample(CORPORA, len(CORPORA))[:count]
    faults = list[str]()
    with tempfile.TemporaryDirectory() as folder:
        for hostile in chosen:
            wrong, outcome = check(hostile, Path(folder), share=1.0)
            faults += [f"{hostile.name}: {wrong}"] if wrong else []
            tell(hostile.name, wrong, outcome, f"{outcome.value[0]} texts" if outcome.value else outcome.said)
    return {"cases": len(chosen), "faults": faults}
