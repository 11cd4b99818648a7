"""Rows of every format and shape: values as they are written, faults counted, files named in errors."""

from __future__ import annotations

import bz2
import datetime
import gzip
import json
import lzma
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lfp.config import CorpusConfig
from lfp.errors import CorpusError
from lfp.texts.corpus import read_corpus
from lfp.texts.preferences import read_pairs
from lfp.texts.reading.rows import DroppedRows

ROWS = [{"text": f"text {i} é", "n": i} for i in range(5)]
TEXTS = {row["text"] for row in ROWS}
LINES = "\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS)
REVIEWS = "text,stars\n" + "".join(f"The film number {i} was awful and sad.,3\n" for i in range(60))


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def texts(path: Path, **keys: Any) -> set[str]:
    return {text.text for text in read_corpus(CorpusConfig(source=str(path), **keys), beside=None, seed=0)}


def zstd(content: bytes) -> bytes:
    buffer = pa.BufferOutputStream()
    with pa.CompressedOutputStream(buffer, "zstd") as stream:
        stream.write(content)
    return buffer.getvalue().to_pybytes()


def stacked(*rows: dict[str, Any]) -> str:
    return "\n".join(json.dumps(row) for row in rows)


@pytest.mark.parametrize(
    "content",
    [
        json.dumps(ROWS),
        json.dumps(ROWS, indent=2),
        json.dumps({"data": ROWS}),
        json.dumps({"data": ROWS}, indent=4),
        json.dumps({"version": "1.0", "rows": ROWS}),
        json.dumps({"status": "ok", "data": {"rows": ROWS, "n": 5}}),
        json.dumps({"meta": {"a": 1}, "reviews": ROWS}, indent=1),
        json.dumps({"rows": [{"row_idx": i, "row": row} for i, row in enumerate(ROWS)]}),
        json.dumps({name: [row[name] for row in ROWS] for name in ("text", "n")}),
        json.dumps({"text": {str(i): row["text"] for i, row in enumerate(ROWS)}}),
        json.dumps({"columns": ["n", "text"], "index": [0], "data": [[row["n"], row["text"]] for row in ROWS]}),
        json.dumps({f"id-{row['n']}": row for row in ROWS}),
        json.dumps([row["text"] for row in ROWS]),
        "\n".join(json.dumps(row, indent=1) for row in ROWS),
        "".join(json.dumps(row) for row in ROWS),
        "\n\n".join(json.dumps(row) for row in ROWS) + "\n",
        "\ufeff" + LINES.replace("\n", "\r\n"),
    ],
    ids=["array", "pretty array", "data", "pretty data", "second key", "nested", "any key", "viewer", "columns",
         "pandas columns", "pandas split", "pandas index", "texts", "pretty objects", "on a line", "blank lines",
         "windows"],
)  # fmt: skip
@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
def test_json_in_any_shape_is_rows(tmp_path: Path, content: str, suffix: str) -> None:
    assert texts(write(tmp_path / f"a{suffix}", content)) == TEXTS


def test_an_array_of_pairs_is_forty_pairs(tmp_path: Path) -> None:
    rows = [{"prompt": f"Say {i}.", "chosen": f"good {i}", "rejected": f"bad {i}"} for i in range(40)]
    read = read_pairs(write(tmp_path / "pairs.json", json.dumps(rows, indent=1)))
    assert len(read.pairs) == 40 and read.pairs[0].prompt == "Say 0."


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.json", json.dumps(ROWS)[:-40], "a.json: row 3 is not JSON"),
        ("a.json", json.dumps(ROWS)[:-1], "ends without a bracket after row 4"),
        ("a.json", json.dumps({"one": ROWS, "other": ROWS}), "several lists of rows (one, other)"),
        ("a.jsonl", "no JSON\nat all\n", "2 of 2 rows cannot be used: rows 0, 1 have a line that is not JSON"),
        ("a.csv", 'text,n\na,1\n"open,2\nb,3\nc,4\n', "row 1, which begins on line 3, has a quotation mark"),
        ("a.csv", 'text,n\na,1\n"open,2\n"b",3\nc,4\n', "row 1, which begins on line 3, has a quotation mark"),
        ("a.docx", "x", "files ending in .docx are not read"),
        ("a.jsonl.zip", "x", "files ending in .zip are not read"),
        ("a", "x", "a file without a suffix is not read"),
        ("a.jsonl", gzip.compress(b"x", mtime=0), "its content is compressed by gzip"),
        ("a.csv", b"PK\x03\x04", "a zip archive"),
        ("a.txt", "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "git lfs pull"),
        ("a.jsonl.gz", gzip.compress(LINES.encode(), mtime=0)[:-10], "cannot be read"),
        ("a.jsonl.xz", LINES, "cannot be read"),
        ("a.jsonl.zst", LINES, "cannot be read"),
        ("a.jsonl", stacked({"review": "a"}, {"review": "b", "stars": 1}), "no column 'text' (found: review, stars)"),
        ("a.jsonl", stacked(*[{"text": None}] * 3, {"text": "a"}), "3 of 4 rows cannot be used: rows 0, 1, 2 have no"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_one_sentence_that_names_it(
    tmp_path: Path, name: str, content: str | bytes, says: str
) -> None:
    with pytest.raises(CorpusError) as caught:
        texts(write(tmp_path / name, content))
    assert says in str(caught.value) and name in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("REVIEWS.JSONL", LINES.encode()),
        ("a.ndjson", LINES.encode()),
        ("a.jsonl.GZ", gzip.compress(LINES.encode(), mtime=0)),
        ("a.jsonl.gz", gzip.compress(LINES[:20].encode(), mtime=0) + gzip.compress(LINES[20:].encode(), mtime=0)),
        ("a.jsonl.bz2", bz2.compress(LINES.encode())),
        ("a.jsonl.xz", lzma.compress(LINES.encode())),
        ("a.jsonl.zst", zstd(LINES.encode())),
        ("a.jsonl.zst", zstd(LINES[:20].encode()) + zstd(LINES[20:].encode())),
        ("a.v1.2.json.zstd", zstd(LINES.encode())),
    ],
)
def test_suffixes_in_any_case_and_every_compression(tmp_path: Path, name: str, content: bytes) -> None:
    assert texts(write(tmp_path / name, content)) == TEXTS


def test_reviews_in_capitals_are_sixty_texts(tmp_path: Path) -> None:
    assert len(texts(write(tmp_path / "REVIEWS.CSV", REVIEWS))) == 60


def test_parquet_and_arrow_are_read_also_where_they_are_compressed_as_a_whole(tmp_path: Path) -> None:
    table = pa.table({"text": pa.array(sorted(TEXTS)).dictionary_encode(), "n": [[1]] * 5})
    pq.write_table(table, tmp_path / "a.parquet")
    write(tmp_path / "b.pq.gz", gzip.compress((tmp_path / "a.parquet").read_bytes()))
    with pa.ipc.new_stream(str(tmp_path / "c.arrow"), table.schema) as writer:
        writer.write_table(table)
    with pa.ipc.new_file(str(tmp_path / "d.feather"), table.schema) as writer:
        writer.write_table(table)
    for name in ("a.parquet", "b.pq.gz", "c.arrow", "d.feather"):
        assert texts(tmp_path / name) == TEXTS


WRITTEN = ["007", "7", "1.50", "1e5", "True", "null", "NA", "1910-01-02", "12:30", "12345678901234567890123"]


@pytest.mark.parametrize("name", ["a.csv", "a.tsv"])
def test_cells_stay_as_they_are_written(tmp_path: Path, name: str) -> None:
    separator = "\t" if name.endswith(".tsv") else ","
    lines = [separator.join(("chosen", "rejected")), *(separator.join((cell, "x")) for cell in WRITTEN)]
    read = read_pairs(write(tmp_path / name, "\n".join(lines)))
    assert [pair.chosen for pair in read.pairs] == WRITTEN


def test_numbers_and_flags_of_json_stay_as_they_are_written(tmp_path: Path) -> None:
    cells = ["7", "1.50", "1e5", "true", "12345678901234567890123", "-0", '"007"', '"1910-01-02"']
    lines = [f'{{"chosen": {cell}, "rejected": "x"}}' for cell in cells]
    read = read_pairs(write(tmp_path / "a.jsonl", "\n".join(lines)))
    assert [pair.chosen for pair in read.pairs] == [cell.strip('"') for cell in cells]


def test_typed_columns_of_parquet_are_texts(tmp_path: Path) -> None:
    day = datetime.date(1910, 1, 2)
    pq.write_table(pa.table({"chosen": [day, day], "rejected": np.array([1.5, 2])}), tmp_path / "a.parquet")
    assert [(p.chosen, p.rejected) for p in read_pairs(tmp_path / "a.parquet").pairs] == [
        ("1910-01-02", "1.5"),
        ("1910-01-02", "2.0"),
    ]


@pytest.mark.parametrize("others", [[1, "s", [1], {"y": 2}, None], ["2020-01-01", "x", 3, 1.5, True]])
def test_columns_that_are_not_read_may_hold_anything(tmp_path: Path, others: list[Any]) -> None:
    rows = [row | {"other": other} for row, other in zip(ROWS, others, strict=True)]
    assert texts(write(tmp_path / "a.jsonl", stacked(*rows))) == TEXTS


def test_rows_that_cannot_be_used_are_dropped_and_counted_by_reason(tmp_path: Path) -> None:
    good = [*ROWS, *[row | {"text": row["text"] + "!"} for row in ROWS]]
    bad = [{"text": " "}, {"text": None}, {"text": ["a", "b"]}, {"text": {"a": 1}}, {"text": "a", "n": "no"}]
    dropped = DroppedRows()
    path = write(tmp_path / "a.jsonl", stacked(*good, *bad) + "\n{broken")
    config = CorpusConfig(source=str(path), rating_column="n")
    read = read_corpus(config, beside=None, seed=0, dropped=dropped)
    assert len(read) == 10 and dropped.n_rows == 16
    assert dropped.counts == {
        "no text": 2,
        "a str among the messages of text, which are {role, content}": 1,
        "a message in text that is not {role, content} with a role of system, user, assistant, tool (role None)": 1,
        "a rating that is not a number": 1,
        "a line that is not JSON": 1,
    }
    assert "rows 10, 11 have no text; " in dropped.sentence()


def test_exactly_half_may_be_unusable(tmp_path: Path) -> None:
    assert len(texts(write(tmp_path / "a.jsonl", stacked(*ROWS, *[{"text": ""}] * 5)))) == 5


def test_cells_that_are_missing_or_too_many_are_a_fault_of_the_row(tmp_path: Path) -> None:
    dropped, path = DroppedRows(), write(tmp_path / "a.csv", "text,n\na,1\nb\nc, d,2\ne,2\nf,2\n")
    assert len(read_corpus(CorpusConfig(source=str(path)), beside=None, seed=0, dropped=dropped)) == 3
    assert dropped.sentence() == "row 1 has 1 cell where the header has 2; row 2 has 3 cells where the header has 2"


@pytest.mark.parametrize(
    "content",
    [
        'text;n\na;1\nb, "c";2\n',
        'sep=;\r\ntext;n\r\na;1\r\nb, "c";2\r\n',
        'text,n\ra,1\r"b, ""c""",2\r',
        'text\tn\na\t1\nb, "c"\t2',
    ],
)
def test_tables_of_other_programs(tmp_path: Path, content: str) -> None:
    assert texts(write(tmp_path / "a.csv", content)) == {"a", 'b, "c"'}


@pytest.mark.parametrize("name", ["a.txt", "a.csv", "a.jsonl", "a.json", "a.parquet"])
def test_a_row_of_several_megabytes(tmp_path: Path, name: str) -> None:
    long = "good film " * 500_000
    path = tmp_path / name
    if name.endswith(".parquet"):
        pq.write_table(pa.table({"text": [long, "short", "other"]}), path)
    elif name.endswith(".csv"):
        write(path, f'text,n\n"{long}",1\nshort,2\nother,3\n')
    elif name.endswith(".txt"):
        write(path, f"{long}\nshort\nother\n")
    else:
        rows = [{"text": text} for text in (long, "short", "other")]
        write(path, json.dumps(rows, indent=1) if name.endswith(".json") else stacked(*rows))
    assert texts(path) == {long.strip(), "short", "other"}


def test_a_corpus_larger_than_what_is_held_is_drawn_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.jsonl", stacked(*[{"text": f"text {i % 90}"} for i in range(100)]))
    config = CorpusConfig(source=str(path), n_texts=30)
    whole = read_corpus(config, beside=None, seed=0)
    monkeypatch.setattr("lfp.texts.corpus._HELD_CHARACTERS", 50)
    assert read_corpus(config, beside=None, seed=0) == whole and len(whole) == 30


def test_a_prompt_and_its_completion_are_a_text_with_a_response(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", stacked(*[{"prompt": f"Q{i} ", "completion": "yes"} for i in range(3)]))
    read = read_corpus(CorpusConfig(source=str(path)), beside=None, seed=0)
    assert {(text.text[: text.response_start], text.text[text.response_start :]) for text in read} == {
        (f"Q{i} ", "yes") for i in range(3)
    }
