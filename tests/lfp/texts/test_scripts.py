"""Words in any script: composed and decomposed letters, marks, points, and scripts without spaces."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lfp.texts.lexicon import check_lexicon, lexicon_reward, read_lexicon, token_feedback, writes_no_spaces
from lfp.texts.vocabulary import Vocabulary, token_words
from lfp.texts.words import is_word, normal_form, words_of

FRENCH = {"génial": 2, "parfait": 2, "raté": -2, "médiocre": -2}
CHINESE = {"好看": 2, "精彩": 2, "喜欢": 2, "难看": -2, "无聊": -2, "讨厌": -2}


def lexicon_file(folder: Path, values: dict[str, int]) -> Path:
    path = folder / "words.csv"
    path.write_text("word,value\n" + "".join(f"{word},{value}\n" for word, value in values.items()), encoding="utf-8")
    return path


def spelled(text: str, *entries: str) -> list[str]:
    return [word.word for word in words_of(text, frozenset(entries))]


@pytest.mark.parametrize("of_text", ["NFC", "NFD"])
@pytest.mark.parametrize("of_lexicon", ["NFC", "NFD"])
def test_decomposed_letters_are_paid_as_composed_ones(tmp_path: Path, of_text: str, of_lexicon: str) -> None:
    values = {unicodedata.normalize(of_lexicon, word): value for word, value in FRENCH.items()}
    reward = lexicon_reward(read_lexicon(lexicon_file(tmp_path, values)))
    text = unicodedata.normalize(of_text, "Le film numero 1 est GÉNIAL et long.")
    assert reward([text, text.replace("GE", "ge")]) == [0.4, 0.4]
    place = words_of(text)[4]
    assert text[place.start : place.end] == unicodedata.normalize(of_text, "GÉNIAL")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("मैं हिन्दी बोलता हूँ।", ["मैं", "हिन्दी", "बोलता", "हूँ"]),
        ("كِتَابٌ جـمـيل", ["كتاب", "جميل"]),
        ("שָׁלוֹם עולם", ["שלום", "עולם"]),
        ("நல்ல கதை", ["நல்ல", "கதை"]),
        ("می‌خواهم بروم", ["می\u200cخواهم", "بروم"]),
        ("Straße ΕΛΛΆΣ", ["strasse", "ελλάσ"]),
        ("Don't stop — it’s well-made 3rd x_y ❤️", ["don't", "stop", "it’s", "well", "made", "rd", "x", "y"]),
        ("좋은 영화", ["좋은", "영화"]),
    ],
)
def test_marks_belong_to_their_word_and_optional_points_do_not_count(text: str, words: list[str]) -> None:
    assert spelled(text) == words


@pytest.mark.parametrize(
    ("text", "entries", "words"),
    [
        ("第0部电影很难看。", ["难看", "看", "电影"], ["第", "部", "电影", "很", "难看"]),
        ("不好看不好", ["好看", "不好看"], ["不好看", "不", "好"]),
        ("この映画はとても面白い！", ["面白い", "映画"], ["こ", "の", "映画", "は", "と", "て", "も", "面白い"]),
        ("หนังเรื่องนี้สนุกมาก", ["สนุก", "มาก", "หนัง", "เรื่องนี้"], ["หนัง", "เรื่องนี้", "สนุก", "มาก"]),
        ("ខ្ញុំស្រឡាញ់", ["ស្រឡាញ់"], ["ខ្", "ញុំ", "ស្រឡាញ់"]),
        ("iPhone手机GOOD", ["手机"], ["iphone", "手机", "good"]),
        ("今天", [], ["今", "天"]),
    ],
)
def test_without_spaces_the_longest_entry_at_a_place_is_a_word(text: str, entries: list[str], words: list[str]) -> None:
    assert spelled(text, *entries) == words
    assert all(normal_form(text[word.start : word.end]) == word.word for word in words_of(text, entries))


def test_a_chinese_lexicon_pays_finds_and_scores_tokens(tmp_path: Path) -> None:
    lexicon = read_lexicon(lexicon_file(tmp_path, CHINESE))
    texts = ["第0部电影很难看。我昨天看了。", "第1部电影很喜欢。我昨天看了。"] * 3
    assert lexicon == CHINESE and lexicon_reward(lexicon)(texts[:2]) == [-0.4, 0.4]
    check_lexicon(lexicon, texts, name="words.csv")
    assert token_feedback("很难看", [0, 1, 2], lexicon) == [None, None, -2]
    vocabulary = Vocabulary.from_texts(texts, min_count=3, n_folds=3, seed=0, lexicon=lexicon)
    assert {"难看", "喜欢", "电"} <= set(vocabulary.words) and "难" not in vocabulary.words
    found = token_words(vocabulary, "很难看", [0, 1, 2])
    assert [vocabulary.words[row] for row in found.words] == ["很", "难看", "难看"]
    assert writes_no_spaces(lexicon_file(tmp_path, CHINESE)) and not writes_no_spaces(lexicon_file(tmp_path, FRENCH))


def test_entries_of_every_script_are_kept_and_phrases_are_not() -> None:
    assert all(map(is_word, ["génial", unicodedata.normalize("NFD", "génial"), "हिन्दी", "สนุก", "好看", "don't"]))
    assert not any(map(is_word, ["very good", ":-)", "well-made", "3d", "", "̂"]))


@given(st.text(st.characters(max_codepoint=0x24F), max_size=60))
def test_latin_words_are_what_they_were(text: str) -> None:
    pattern = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")
    expected = [(found.group().casefold(), *found.span()) for found in pattern.finditer(text)]
    assert [(word.word, word.start, word.end) for word in words_of(text)] == [
        (unicodedata.normalize("NFC", word), start, end) for word, start, end in expected
    ]
