"""The corpus: every format read alike, texts cleaned and counted once, splits apart, errors that say where."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lfp.config import CorpusConfig
from lfp.errors import CorpusError
from lfp.texts.corpus import CorpusText, ReadText, clean, number, read_corpus
from lfp.texts.reading.rows import read_rows
from lfp.texts.reading.sources import find_source
from tests.lfp.builders import data_file, write_rows

TEXTS = ["Plain.", 'With "quotes", commas; and ünïcode 😀', "null", "NA"]


def corpus(path: Path, *, seed: int = 0, **keys: Any) -> list[CorpusText]:
    return read_corpus(CorpusConfig(source=str(path), **keys), beside=None, seed=seed)


def numbered(folder: Path, n: int) -> Path:
    return write_rows(folder / "many.jsonl", [{"text": f"text {i}"} for i in range(n)])


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.csv", "a.parquet", "a.txt", "a.pos"])
def test_every_format_gives_the_same_texts(tmp_path: Path, name: str) -> None:
    path = write_rows(tmp_path / name, [{"text": text} for text in TEXTS])
    assert read_rows(path, columns=["text"]) == [{"text": text} for text in TEXTS]


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.csv", "a.parquet"])
def test_columns_can_be_chosen_and_lines_can_break_in_a_text(tmp_path: Path, name: str) -> None:
    rows = [{"id": "x", "review": "two\nlines", "stars": 4.5}, {"id": "y", "review": "one", "stars": 1.0}]
    read = read_rows(write_rows(tmp_path / name, rows), columns=["review", "stars"])
    stars = str if name.endswith(".csv") else float
    assert read == [{"review": row["review"], "stars": stars(row["stars"])} for row in rows]


def test_a_column_that_is_not_there_lists_those_that_are(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.jsonl", [{"review": "a", "stars": 1}])
    with pytest.raises(CorpusError, match=r"a\.jsonl: no column 'text' \(found: review, stars\)"):
        read_rows(path, columns=["text"])


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", b""),
        ("a.csv", b""),
        ("a.csv", b"text\n"),
        ("a.txt", b"\n  \n"),
        ("a.parquet", b"not parquet"),
        ("a.jsonl.gz", b"not gzip"),
        ("a.jsonl", b'{"text": "a"}\n{"text": \n'),
        ("a.jsonl", b'{"text": "caf\xe9"}\n'),
        ("a.csv", b"text\ncaf\xe9\n"),
    ],
)
def test_a_file_without_usable_texts_is_named(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CorpusError, match=name) as caught:
        read_rows(tmp_path / name, columns=["text"])
    assert caught.value.exit_code == 1 and "\n" not in str(caught.value)


def test_a_corpus_of_empty_texts_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="3 of 3 rows cannot be used: rows 0, 1, 2 have no text"):
        corpus(write_rows(tmp_path / "a.jsonl", [{"text": " "}, {"text": "<br />"}, {"text": None}]))


def test_a_single_text_cannot_be_split(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="no text left for train"):
        corpus(numbered(tmp_path, 1))


def test_a_source_is_looked_for_beside_the_config_then_in_the_data_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    beside, data = tmp_path / "beside", tmp_path / "data"
    beside.mkdir()
    data.mkdir()
    monkeypatch.setenv("LFP_DATA", str(data))
    (data / "a.txt").touch()
    assert find_source("a.txt", key="corpus.source", beside=beside) == data / "a.txt"
    (beside / "a.txt").touch()
    assert find_source("a.txt", key="corpus.source", beside=beside) == beside / "a.txt"
    assert find_source(str(data / "a.txt"), key="corpus.source", beside=beside) == data / "a.txt"


def test_a_missing_file_names_every_place_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LFP_DATA", str(tmp_path / "data"))
    with pytest.raises(CorpusError) as caught:
        find_source("absent.txt", key="corpus.source", beside=tmp_path / "beside")
    for place in (
        "looked at absent.txt",
        str(tmp_path / "beside" / "absent.txt"),
        str(tmp_path / "data" / "absent.txt"),
    ):
        assert place in str(caught.value)


@pytest.mark.parametrize(
    ("raw", "cleaned"),
    [
        ("a<br /><br />b", "a\nb"),
        ("a <BR> \n <br/>b", "a\nb"),
        ("  a\n\nb  ", "a\n\nb"),
        ("<br />a<br>", "a"),
        ("a < b > c", "a < b > c"),
    ],
)
def test_line_breaks_of_html_become_line_breaks(raw: str, cleaned: str) -> None:
    assert clean(raw) == cleaned


def test_texts_are_numbered_train_first(tmp_path: Path) -> None:
    texts = corpus(numbered(tmp_path, 50))
    assert [text.text_id for text in texts] == list(range(50))
    assert [text.split for text in texts] == ["train"] * 45 + ["held_out"] * 5
    assert {text.text for text in texts} == {f"text {i}" for i in range(50)}
    assert {(text.source, text.role, text.rating) for text in texts} == {("many.jsonl", "text", None)}


def test_the_seed_alone_decides_the_split(tmp_path: Path) -> None:
    path = numbered(tmp_path, 50)
    assert corpus(path, seed=3) == corpus(path, seed=3)
    assert corpus(path, seed=3) != corpus(path, seed=4)


def test_a_text_counts_once_with_its_first_rating(tmp_path: Path) -> None:
    rows = [("same", 1), ("other", 2), ("same<br />", 3), (" same", None), ("third", None)]
    path = write_rows(tmp_path / "a.jsonl", [{"text": text, "rating": rating} for text, rating in rows])
    texts = corpus(path, rating_column="rating", held_out_share=0.4)
    assert {text.text: text.rating for text in texts} == {"same": 1.0, "other": 2.0, "third": None}
    assert len(texts) == 3


def test_no_text_is_in_both_splits(tmp_path: Path) -> None:
    train = write_rows(tmp_path / "train.jsonl", [{"text": text} for text in ("a", "b", "a", "c<br />d")])
    hidden = write_rows(tmp_path / "hidden.jsonl", [{"text": text} for text in ("b", "c\nd", "e")])
    texts = corpus(train, held_out_source=str(hidden))
    assert [(text.text, text.split, text.source) for text in texts] == [
        ("a", "train", "train.jsonl"),
        ("b", "held_out", "hidden.jsonl"),
        ("c\nd", "held_out", "hidden.jsonl"),
        ("e", "held_out", "hidden.jsonl"),
    ]


def test_all_train_texts_held_out_elsewhere_is_refused(tmp_path: Path) -> None:
    path = numbered(tmp_path, 5)
    with pytest.raises(CorpusError, match="no text left for train"):
        corpus(path, held_out_source=str(path))


def test_a_limit_draws_by_the_seed_and_keeps_the_shares(tmp_path: Path) -> None:
    path = numbered(tmp_path, 100)
    texts = corpus(path, n_texts=40, held_out_share=0.25)
    assert [text.split for text in texts] == ["train"] * 30 + ["held_out"] * 10
    assert len({text.text for text in texts}) == 40
    assert texts == corpus(path, n_texts=40, held_out_share=0.25)
    assert texts != corpus(path, n_texts=40, held_out_share=0.25, seed=1)
    assert len(corpus(path, n_texts=1000)) == 100


def test_a_rating_that_is_no_number_is_named(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.jsonl", [{"text": "a", "rating": "good"}, {"text": "b", "rating": "bad"}])
    with pytest.raises(CorpusError, match=r"a\.jsonl: 2 of 2 rows .* rows 0, 1 have a rating that is not a number"):
        corpus(path, rating_column="rating")


def test_numbering_needs_both_splits() -> None:
    with pytest.raises(CorpusError, match="no text left for held_out"):
        number([ReadText("a")], [], source="here")


@pytest.mark.data
def test_the_imdb_files_share_texts_and_the_splits_do_not() -> None:
    train, val = data_file("imdb/train.jsonl.gz"), data_file("imdb/val.jsonl.gz")
    texts = corpus(train, held_out_source=str(val), rating_column="rating")
    of_split = {split: {t.text for t in texts if t.split == split} for split in ("train", "held_out")}
    every = {clean(row["text"]) for row in read_rows(train, columns=["text"])}
    assert not of_split["train"] & of_split["held_out"]
    assert len(every) - len(of_split["train"]) == len(every & of_split["held_out"]) == 23
    assert not any("<br" in text.text for text in texts)
    assert {text.rating for text in texts} == {1, 2, 3, 4, 7, 8, 9, 10}


@pytest.mark.data
@pytest.mark.parametrize("side", ["pos", "neg"])
def test_rt_polarity_is_a_sentence_a_line(side: str) -> None:
    assert len(read_rows(data_file(f"rt-polarity/rt-polarity.{side}"), columns=["text"])) == 5331
