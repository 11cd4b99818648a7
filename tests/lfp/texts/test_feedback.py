"""True feedback: words, their tokens and values, lexica of files, the paper's reward."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lfp.config import FeedbackConfig
from lfp.errors import CorpusError, DataError
from lfp.texts.lexicon import (
    check_lexicon,
    lexicon_of,
    lexicon_reward,
    read_lexicon,
    token_feedback,
    vader_lexicon,
    vader_reward,
)
from lfp.texts.words import Word, word_tokens, words_of


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("A GOOD film.", ["a", "good", "film"]),
        ("don't 'quote' it’s", ["don't", "quote", "it’s"]),
        ("well-made, 2nd_best", ["well", "made", "nd", "best"]),
        ("Straße ΣΟΦΟΣ naïve", ["strasse", "σοφοσ", "naïve"]),
        ("😀 :) 42 <br />", ["br"]),
        ("", []),
    ],
)
def test_words_are_casefolded_letters_with_apostrophes_inside(text: str, words: list[str]) -> None:
    assert [word.word for word in words_of(text)] == words


@settings(deadline=None)
@given(st.text(max_size=60))
def test_a_words_span_is_where_it_stands(text: str) -> None:
    words = words_of(text)
    assert all(text[word.start : word.end].casefold() == word.word for word in words)
    assert all(a.end <= b.start for a, b in pairwise(words))
    outside = set(range(len(text))) - {i for word in words for i in range(word.start, word.end)}
    assert not any(text[i].isalpha() for i in outside)


@settings(deadline=None)
@given(st.text(alphabet="aé'B -1\n", max_size=25), st.data())
def test_tokens_however_cut_cover_every_word(text: str, data: st.DataObject) -> None:
    cuts = data.draw(st.lists(st.integers(0, len(text)), max_size=12)) if text else []
    starts = [0, *sorted(cuts)]
    ends = [*starts[1:], len(text)]
    words = words_of(text)
    for word, tokens in zip(words, word_tokens(words, starts, len(text)), strict=True):
        covered = {i for token in tokens for i in range(starts[token], ends[token])}
        assert covered >= set(range(word.start, word.end))
        assert list(tokens) == list(range(tokens[0], tokens[-1] + 1))
        for token in tokens:
            overlaps = starts[token] < word.end and ends[token] > word.start
            assert overlaps or word.start < starts[token] == ends[token] <= word.end
        others = set(range(len(starts))) - set(tokens)
        assert not any(starts[token] < word.end and ends[token] > word.start for token in others)


def test_a_word_keeps_all_parts_of_its_last_character() -> None:
    """Byte-level BPE may write é as two tokens, of which the second is empty."""
    text, starts = "café noir", [0, 3, 4, 4]
    assert word_tokens(words_of(text), starts, len(text)) == [(0, 1, 2), (3,)]


def test_a_word_beyond_the_last_token_has_none() -> None:
    assert word_tokens([Word("late", 10, 14)], [0, 4], 8) == [()]


def test_a_scored_words_value_stands_on_its_last_token() -> None:
    text, starts = "Not terrible, GOOD", [0, 3, 7, 12, 13, 16]
    lexicon = vader_lexicon()
    assert "not" not in lexicon
    assert token_feedback(text, starts) == [None, None, lexicon["terrible"], None, None, lexicon["good"]]


@settings(deadline=None)
@given(st.lists(st.sampled_from(["good", "awful", "film", "the", "GREAT!"]), max_size=8), st.integers(1, 5))
def test_token_values_add_up_to_the_texts_words(words: list[str], width: int) -> None:
    """Tokens never longer than the shortest scored word, so that no two words end in one."""
    text, lexicon = " ".join(words), vader_lexicon()
    values = token_feedback(text, list(range(0, max(1, len(text)), width)))
    total = sum(lexicon.get(word.strip("!").lower(), 0.0) for word in words)
    assert sum(value for value in values if value is not None) == pytest.approx(total)


def test_the_reward_is_the_sum_of_word_values_over_five() -> None:
    good, awful = vader_lexicon()["good"], vader_lexicon()["awful"]
    assert good > 0 > awful
    rewards = vader_reward(["Good, good film", "good but awful", "the film", ""])
    assert rewards == pytest.approx([2 * good / 5, (good + awful) / 5, 0.0, 0.0])


def test_the_reward_is_clipped_at_ten() -> None:
    assert vader_reward(["good " * 500, "awful " * 500]) == [10.0, -10.0]


def test_the_lexicon_holds_words_that_texts_can_hold() -> None:
    lexicon = vader_lexicon()
    assert len(lexicon) > 7000 and all(-4 <= value <= 4 for value in lexicon.values())
    assert all([word.word for word in words_of(entry)] == [entry] for entry in lexicon)


def test_another_lexicon_gives_other_tokens_a_value() -> None:
    assert token_feedback("good plot", [0, 4], {"plot": -1.5}) == [None, -1.5]
    assert token_feedback("good plot", [0, 4], {}) == [None, None]


def test_another_lexicon_gives_another_reward() -> None:
    reward = lexicon_reward({"plot": 10.0, "film": -2.5})
    assert reward(["Plot! plot", "a film", "good", "plot " * 9]) == [4.0, -0.5, 0.0, 10.0]


def lexicon_file(path: Path, rows: list[tuple[Any, Any]]) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(pa.table({"word": [w for w, _ in rows], "value": [v for _, v in rows]}), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps({"word": w, "value": v}) + "\n" for w, v in rows), encoding="utf-8")
    elif path.suffix == ".json":
        path.write_text(json.dumps([{"word": w, "value": v} for w, v in rows]), encoding="utf-8")
    else:
        comma = "\t" if path.suffix == ".tsv" else ","
        lines = [f"word{comma}value", *(f"{w}{comma}{v}" for w, v in rows)]
        path.write_text("\n".join(lines), encoding="utf-8")
    return path


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.json", "a.jsonl", "a.parquet"])
def test_every_kind_of_file_gives_the_same_lexicon(tmp_path: Path, name: str) -> None:
    path = lexicon_file(
        tmp_path / name, [("Good", 1.5), (" null", -2.0), ("naïve", 0.0), ("not good", 9.0), (":)", 9.0)]
    )
    assert read_lexicon(path) == {"good": 1.5, "null": -2.0, "naïve": 0.0}


def test_a_json_object_is_a_lexicon_too(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"good": 1, "bad": -1.5}', encoding="utf-8")
    assert read_lexicon(path) == {"good": 1.0, "bad": -1.5}


@given(st.dictionaries(st.from_regex(r"[a-z]{1,8}", fullmatch=True), st.floats(-9, 9), min_size=1))
def test_a_lexicon_is_read_as_it_was_written(tmp_path_factory: pytest.TempPathFactory, words: dict[str, float]) -> None:
    path = lexicon_file(tmp_path_factory.mktemp("lexicon") / "a.jsonl", list(words.items()))
    assert read_lexicon(path) == words


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([("good", 1.0), ("GOOD", 1.0)], "row 1 gives 'good' a second value"),
        ([("good", "much")], "row 0, 'good', has the value 'much'; write a finite number"),
        ([("good", 1.0), ("bad", None)], "row 1, 'bad', has the value None"),
        ([("good", 1.0), ("bad", True)], "row 1, 'bad', has the value True"),
        ([("good", float("inf"))], "row 0, 'good', has the value inf"),
        ([("good", 1.0), ("", 2.0)], "row 1 has no word"),
        ([("not good", 1.0)], "no entry is a word of letters"),
    ],
)
def test_a_lexicons_fault_is_named_by_row(tmp_path: Path, rows: list[tuple[Any, Any]], says: str) -> None:
    with pytest.raises(DataError, match=rf"a\.json: {says}"):
        read_lexicon(lexicon_file(tmp_path / "a.json", rows))


def test_a_word_twice_in_a_json_object_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"good": 1, "good": 2}', encoding="utf-8")
    with pytest.raises(DataError, match="row 1 gives 'good' a second value"):
        read_lexicon(tmp_path / "a.json")


@pytest.mark.parametrize(
    ("content", "says"), [("word,score\ngood,1\n", "no column 'value'"), ("word,value\n", "no rows")]
)
def test_a_file_that_is_no_lexicon(tmp_path: Path, content: str, says: str) -> None:
    (tmp_path / "a.csv").write_text(content, encoding="utf-8")
    with pytest.raises(CorpusError, match=says):
        read_lexicon(tmp_path / "a.csv")


def test_a_config_names_a_lexicon(tmp_path: Path) -> None:
    lexicon_file(tmp_path / "words.csv", [("good", 2.0)])
    assert lexicon_of(FeedbackConfig(), beside=tmp_path) == vader_lexicon()
    assert lexicon_of(FeedbackConfig(lexicon="words.csv"), beside=tmp_path) == {"good": 2.0}
    with pytest.raises(CorpusError, match=r"absent\.csv: no such file"):
        lexicon_of(FeedbackConfig(lexicon="absent.csv"), beside=tmp_path)


def test_a_lexicon_must_tell_the_corpus_s_words_apart() -> None:
    lexicon = {"good": 1.0, "fine": 1.0, "bad": -1.0}
    check_lexicon(lexicon, ["A Good", "bad one"], name="words")
    with pytest.raises(DataError, match="lexicon words: none of its 3 words, such as 'bad', is in the corpus"):
        check_lexicon(lexicon, ["goodness"], name="words")
    with pytest.raises(DataError, match=r"every word of it that is in the corpus, such as 'good', has the value 1\.0"):
        check_lexicon(lexicon, ["good and fine"], name="words")
