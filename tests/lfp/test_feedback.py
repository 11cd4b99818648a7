"""True feedback: words, their tokens and values, the paper's reward, preference pairs."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lfp.errors import CorpusError
from lfp.feedback import (
    PreferencePair,
    Word,
    read_pairs,
    token_feedback,
    vader_lexicon,
    vader_reward,
    word_tokens,
    words_of,
)
from tests.lfp.builders import data_file

TURN = "\n\nAssistant:"


def pairs_file(folder: Path, *rows: tuple[str | None, str | None]) -> Path:
    path = folder / "pairs.jsonl"
    lines = [json.dumps({"chosen": chosen, "rejected": rejected}) for chosen, rejected in rows]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


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


def test_a_dialogue_is_split_at_its_last_assistant_turn(tmp_path: Path) -> None:
    past = f"\n\nHuman: Hi{TURN} Hello.\n\nHuman: Joke?{TURN}"
    path = pairs_file(tmp_path, (f"{past} Knock.", f"{past} No."))
    assert read_pairs(path) == ([PreferencePair(past, " Knock.", " No.")], 0)


def test_only_what_both_sides_share_is_the_prompt(tmp_path: Path) -> None:
    shared = f"\n\nHuman: Hi{TURN}"
    chosen, rejected = f" A.\n\nHuman: More{TURN} B.", " C."
    (pair,), _ = read_pairs(pairs_file(tmp_path, (shared + chosen, shared + rejected)))
    assert pair == PreferencePair(shared, chosen, rejected)


def test_plain_texts_have_no_prompt(tmp_path: Path) -> None:
    assert read_pairs(pairs_file(tmp_path, ("good", "goose")))[0] == [PreferencePair("", "good", "goose")]


def test_ties_are_dropped_and_counted(tmp_path: Path) -> None:
    pairs, ties = read_pairs(pairs_file(tmp_path, ("a", "a"), ("a", "b"), (f"x{TURN} a", f"x{TURN} a")))
    assert (len(pairs), ties) == (1, 2)


@pytest.mark.parametrize(("chosen", "rejected", "says"), [("a", "a", "no pair"), (None, "b", "row 1 has no text")])
def test_pairs_that_say_nothing_are_refused(
    tmp_path: Path, chosen: str | None, rejected: str | None, says: str
) -> None:
    rows = [("tie", "tie"), (chosen, rejected)]
    with pytest.raises(CorpusError, match=rf"pairs\.jsonl: {says}"):
        read_pairs(pairs_file(tmp_path, *rows))


@pytest.mark.data
@pytest.mark.parametrize(("name", "rows", "ties"), [("helpful-base", 2354, 2), ("harmless-base", 2312, 0)])
def test_real_preferences_split_at_a_shared_turn(name: str, rows: int, ties: int) -> None:
    pairs, dropped = read_pairs(data_file(f"hh-rlhf/{name}.test.jsonl.gz"))
    assert (len(pairs) + dropped, dropped) == (rows, ties)
    assert all(pair.prompt.endswith(TURN) for pair in pairs)
    assert sum(TURN in pair.chosen for pair in pairs) < 5
