"""Decode files: UTF-8, or what a byte-order mark says; other encodings are named with the line they begin on."""

from __future__ import annotations

import codecs
import io
from collections.abc import Iterator
from typing import BinaryIO

from lfp.errors import CorpusError

_BLOCK = 1 << 20
LONGEST = 32_000_000
"""Characters that a line, a cell or a value may have: more than any text. A file of few bytes may unpack to more."""
TOO_LONG = f"longer than {LONGEST // 1_000_000} million characters"
_HEAD = 4096
_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
"""Encodings by their byte-order mark; UTF-32's are tried first, since UTF-16's begins one of them."""
_OTHER_CONTENT = {
    b"\x1f\x8b": "compressed by gzip; end its name in .gz",
    b"BZh": "compressed by bzip2; end its name in .bz2",
    b"\xfd7zXZ": "compressed by xz; end its name in .xz",
    b"\x28\xb5\x2f\xfd": "compressed by zstd; end its name in .zst",
    b"PK\x03\x04": "a zip archive; extract it",
    b"PAR1": "a Parquet file; end its name in .parquet",
    b"ARROW1": "an Arrow file; end its name in .arrow",
    b"version https://git-lfs.github.com": "a pointer of Git LFS; fetch the file by git lfs pull",
}
_LEAST_NULS, _MOSTLY_FOREIGN = 0.2, 0.3


def text_blocks(stream: BinaryIO, where: str) -> Iterator[str]:
    """Decode a stream block by block. Raises CorpusError naming the encoding it looks like and the line."""
    block = stream.read(_BLOCK)
    head = block[:_HEAD]
    for start, content in _OTHER_CONTENT.items():
        if head.startswith(start):
            raise CorpusError(f"{where}: its content is {content}")
    encoding = next((name for mark, name in _MARKS.items() if head.startswith(mark)), None)
    if encoding is None and (wide := _guess_wide(head)):
        raise CorpusError(
            f"{where}: line 1 is not UTF-8; it looks like {wide} without a byte-order mark; convert the file,"
            f" for example by iconv -f {wide} -t UTF-8"
        )
    decoder = codecs.getincrementaldecoder(encoding or "utf-8")()
    n_lines = 0
    while True:
        try:
            text = decoder.decode(block, final=not block)
        except UnicodeDecodeError as error:
            line = n_lines + error.object[: error.start].count(b"\n") + 1
            raise CorpusError(_explain(where, line, encoding, error)) from error
        n_lines += text.count("\n")
        if text:
            yield text
        if not block:
            return
        block = stream.read(_BLOCK)


def _explain(where: str, line: int, encoding: str | None, error: UnicodeDecodeError) -> str:
    if encoding is not None:
        name = encoding.removesuffix("-sig").upper()
        return f"{where}: line {line} is not {name} although the file begins with its byte-order mark; save it again"
    guess = guess_encoding(error.object)
    return (
        f"{where}: line {line} is not UTF-8; it looks like {guess}; convert the file, for example by"
        f" iconv -f {guess.partition(' ')[0]} -t UTF-8"
    )


def guess_encoding(sample: bytes) -> str:
    """Name the 8-bit or East Asian encoding that bytes look like, by the share of them that is not ASCII."""
    letters = sum(chr(byte).isalpha() for byte in sample if byte < 128)
    foreign = [byte for byte in sample if byte >= 128]
    if len(foreign) > _MOSTLY_FOREIGN * (letters + len(foreign)):
        from charset_normalizer import from_bytes

        best = from_bytes(sample).best()
        if best is not None:
            return str(best.encoding).replace("_", "-")
    return "WINDOWS-1252" if any(byte < 160 for byte in foreign) else "ISO-8859-1 (Latin-1)"


def _guess_wide(head: bytes) -> str | None:
    """Recognise UTF-16 without a mark by its zero bytes."""
    if not head or head.count(0) < _LEAST_NULS * len(head):
        return None
    return "UTF-16LE" if head[1::2].count(0) >= head[::2].count(0) else "UTF-16BE"


def split_lines(blocks: Iterator[str], where: str) -> Iterator[str]:
    r"""Split text at \n, \r\n and \r alone, and at nothing else; ends are removed. Raises CorpusError."""
    newlines = io.IncrementalNewlineDecoder(None, translate=True)
    yield from _split((newlines.decode(block) for block in blocks), where)


def split_rows(blocks: Iterator[str], where: str) -> Iterator[str]:
    r"""Split text at \n alone and keep the ends. Raises CorpusError for a line that no text has."""
    for line in _split(blocks, where):
        yield line + "\n"


def _split(blocks: Iterator[str], where: str) -> Iterator[str]:
    waiting: list[str] = []
    n_lines = n_waiting = 0
    for block in blocks:
        first, *rest = block.split("\n")
        waiting.append(first)
        n_waiting += len(first)
        if n_waiting > LONGEST:
            raise CorpusError(f"{where}: line {n_lines + 1} is {TOO_LONG}; split it into texts")
        if rest:
            yield "".join(waiting)
            yield from rest[:-1]
            n_lines += len(rest)
            waiting, n_waiting = [rest[-1]], len(rest[-1])
    if any(waiting):
        yield "".join(waiting)
