"""Encodings: marks are honoured, others named with the line; only line ends end a line."""

from __future__ import annotations

from pathlib import Path

import pytest

from lfp.errors import CorpusError
from tests.lfp.texts.reading.test_rows import texts, write

LINES = ["café un", "café deux", "une autre ligne"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("name", ["a.txt", "a.csv", "a.jsonl"])
def test_byte_order_marks_are_honoured(tmp_path: Path, encoding: str, name: str) -> None:
    content = {
        "a.txt": "\n".join(LINES),
        "a.csv": "text,n\r\n" + "".join(f"{line},1\r\n" for line in LINES),
        "a.jsonl": "\n".join(f'{{"text": "{line}"}}' for line in LINES),
    }[name]
    assert texts(write(tmp_path / name, content.encode(encoding))) == set(LINES)


@pytest.mark.parametrize("order", ["utf-16-le", "utf-16-be"])
def test_big_endian_marks_too(tmp_path: Path, order: str) -> None:
    assert texts(write(tmp_path / "a.txt", ("\ufeff" + "\n".join(LINES)).encode(order))) == set(LINES)


@pytest.mark.parametrize(
    ("encoding", "line", "says"),
    [
        ("latin-1", "The café was awful and sad.", "ISO-8859-1 (Latin-1)"),
        ("cp1252", "it’s “good” – nice", "WINDOWS-1252"),
        ("cp1251", "Этот фильм был ужасным и скучным", "cp1251"),
        ("shift_jis", "この映画はとても面白かったです", "cp932"),
        ("gb18030", "第一部电影很难看我昨天看了", "gb18030"),
        ("utf-16-le", "plain", "UTF-16LE without a byte-order mark"),
    ],
)
@pytest.mark.parametrize("name", ["a.txt", "a.csv", "a.jsonl", "a.json"])
def test_other_encodings_are_named_with_the_line(
    tmp_path: Path, encoding: str, line: str, says: str, name: str
) -> None:
    before = {"a.txt": "x\n" * 3, "a.csv": "text\nx\nx\n", "a.jsonl": '{"text": "x"}\n' * 3, "a.json": "[\n\n\n"}[name]
    rows = {"a.txt": line, "a.csv": line, "a.jsonl": f'{{"text": "{line}"}}', "a.json": f'"{line}",'}[name]
    with pytest.raises(CorpusError) as caught:
        texts(write(tmp_path / name, (before + f"{rows}\n" * 5).encode(encoding)))
    line_number = 1 if encoding == "utf-16-le" else 4
    assert f"{name}: line {line_number} is not UTF-8; it looks like {says}" in str(caught.value)


def test_a_file_that_breaks_its_own_mark_is_named(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="line 2 is not UTF-16 although the file begins with its byte-order mark"):
        texts(write(tmp_path / "a.txt", "\ufeffa\n".encode("utf-16-le") + b"\x00\xd8a"))


def test_only_line_ends_end_a_line(tmp_path: Path) -> None:
    inside = ["a\u2028b", "c\x0cd", "e\x85f", "g\x1ch\x0bi", "j\u2029k"]
    assert texts(write(tmp_path / "a.txt", "\n".join(inside))) == set(inside)
    assert texts(write(tmp_path / "b.txt", "one\r\ntwo\rthree\n\nfour")) == {"one", "two", "three", "four"}
    rows = "".join(f'{{"text": "{text}"}}\n' for text in ("a\u2028b", "e\x85f", "tab\there"))
    assert texts(write(tmp_path / "c.jsonl", rows)) == {"a\u2028b", "e\x85f", "tab\there"}
    assert texts(write(tmp_path / "d.csv", "text\na\u2028b\ne\x85f\n")) == {"a\u2028b", "e\x85f"}


def test_sixty_texts_with_separators_inside(tmp_path: Path) -> None:
    lines = [f"The film number {i} was awful\u2028and\x0c sad." for i in range(60)]
    assert texts(write(tmp_path / "reviews_sep.txt", "\n".join(lines))) == set(lines)
