"""Preference pairs: every way they are written, ties, prompts, and a held-out half that is exact."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import datasets
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lfp.config import CorpusConfig, TuneConfig
from lfp.errors import CorpusError
from lfp.texts.corpus import read_corpus
from lfp.texts.messages import Dialogue, Message, SpeakerFormat, WrittenDialogue, read_speakers
from lfp.texts.preferences import (
    PreferencePair,
    Preferences,
    find_preferences,
    last_words,
    number_conversations,
    read_pairs,
    split_pairs,
)
from tests.lfp.builders import data_file, write_rows

TURN = "\n\nAssistant:"


def pairs_file(folder: Path, *rows: tuple[Any, Any]) -> Path:
    return write_rows(folder / "pairs.jsonl", [{"chosen": chosen, "rejected": rejected} for chosen, rejected in rows])


def only(folder: Path, **row: Any) -> PreferencePair:
    (pair,) = read_pairs(write_rows(folder / "pairs.jsonl", [row])).pairs
    return pair


def said(*turns: str) -> list[dict[str, str]]:
    """Messages of user and assistant in turns."""
    return [{"role": ("user", "assistant")[i % 2], "content": turn} for i, turn in enumerate(turns)]


def test_a_dialogue_is_split_at_its_last_assistant_turn(tmp_path: Path) -> None:
    past = f"\n\nHuman: Hi{TURN} Hello.\n\nHuman: Joke?{TURN}"
    path = pairs_file(tmp_path, (f"{past} Knock.", f"{past} No."))
    assert read_pairs(path) == Preferences((PreferencePair(past, " Knock.", " No."),), "pairs.jsonl", 0, {})


def test_only_what_both_sides_share_is_the_prompt(tmp_path: Path) -> None:
    shared = f"\n\nHuman: Hi{TURN}"
    chosen, rejected = f" A.\n\nHuman: More{TURN} B.", " C."
    assert only(tmp_path, chosen=shared + chosen, rejected=shared + rejected) == PreferencePair(
        shared, chosen, rejected
    )


def test_plain_texts_have_no_prompt(tmp_path: Path) -> None:
    assert only(tmp_path, chosen="good", rejected="goose") == PreferencePair("", "good", "goose")


def test_ties_are_dropped_and_counted(tmp_path: Path) -> None:
    read = read_pairs(pairs_file(tmp_path, ("a", "a"), ("a", "b"), (f"x{TURN} a", f"x{TURN} a")))
    assert (len(read.pairs), read.ties) == (1, 2)


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.csv", "a.parquet"])
def test_every_format_gives_the_same_pairs(tmp_path: Path, name: str) -> None:
    rows = [{"chosen": "yes,\nü", "rejected": "no"}, {"chosen": "a", "rejected": "b"}]
    read = read_pairs(write_rows(tmp_path / name, rows))
    assert read.pairs == (PreferencePair("", "yes,\nü", "no"), PreferencePair("", "a", "b"))


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet"])
def test_messages_are_written_as_a_dialogue(tmp_path: Path, name: str) -> None:
    rows = [{"chosen": said("Hi", "Hello.", "Joke?", "Knock."), "rejected": said("Hi", "Hello.", "Joke?", "No.")}]
    past = f"\n\nHuman: Hi{TURN} Hello.\n\nHuman: Joke?{TURN}"
    assert read_pairs(write_rows(tmp_path / name, rows)).pairs == (PreferencePair(past, " Knock.", " No."),)


class Brackets:
    """A chat format that shows who speaks by a letter."""

    def write(self, dialogue: Dialogue) -> WrittenDialogue:
        text, spans = "", []
        for message in dialogue:
            start = len(text) + 2
            text += f"{message.role[0]}[{message.content}]"
            spans += [(start, len(text))] if message.role == "assistant" else []
        return WrittenDialogue(text, tuple(spans))


def through_template(folder: Path, *, prompt_words: int | None = None, **row: str) -> PreferencePair:
    write_rows(folder / "pairs.jsonl", [row])
    config = TuneConfig(method="dpo", pairs="pairs.jsonl", pairs_as="messages")
    (pair,) = find_preferences(config, beside=folder, chat=Brackets, prompt_words=prompt_words).pairs
    return pair


@pytest.mark.parametrize(
    ("prompt_words", "prompt"),
    [
        (None, "u[One two]a[Three.]u[Four five]a["),
        (5, "u[One two]a[Three.]u[Four five]a["),
        (4, "u[Four five]a["),
        (1, "u[Four five]a["),
    ],
)
def test_speakers_are_read_as_messages_of_which_whole_turns_are_kept(
    tmp_path: Path, prompt_words: int | None, prompt: str
) -> None:
    past = f"\n\nHuman: One two{TURN} Three.\n\nHuman: Four five{TURN}"
    pair = through_template(tmp_path, prompt_words=prompt_words, chosen=f"{past} Yes.", rejected=f"{past} No.")
    assert (pair.prompt, pair.chosen, pair.rejected) == (prompt, "Yes.]", "No.]")
    assert pair.spans == (((len(prompt), len(prompt) + 5),), ((len(prompt), len(prompt) + 4),))
    assert pair.opening == "One two"


def test_answers_beside_a_prompt_with_speakers_are_the_assistants(tmp_path: Path) -> None:
    pair = through_template(tmp_path, prompt=f"\n\nHuman: Hi{TURN}", chosen=" Hello.", rejected=" Go.")
    assert (pair.prompt, pair.chosen, pair.rejected) == ("u[Hi]a[", " Hello.]", " Go.]")


def test_texts_without_speakers_are_not_read_as_messages(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"no Human: or Assistant:, which tune\.pairs_as = messages reads"):
        through_template(tmp_path, chosen="Hello.", rejected="Go.")


def test_a_side_that_ends_with_the_question_is_no_answer(tmp_path: Path) -> None:
    question = [{"role": "user", "content": "Why is it cold?"}]
    answered = [*question, {"role": "assistant", "content": "A front."}]
    file = pairs_file(tmp_path, (answered, question), (answered, [*question, {"role": "assistant", "content": "No."}]))
    found = read_pairs(file)
    assert len(found.pairs) == 1 and found.dropped == {"no answer of the assistant in rejected": 1}
    assert found.dropped_rows == "row 0 has no answer of the assistant in rejected"


turns = st.lists(st.text(alphabet="ab \n.", min_size=1).map(str.strip).filter(bool), min_size=1, max_size=5)


@given(turns)
def test_what_is_written_with_speakers_reads_back(said_in_turn: list[str]) -> None:
    dialogue = tuple(Message(("user", "assistant")[i % 2], turn) for i, turn in enumerate(said_in_turn))
    assert read_speakers(SpeakerFormat().write(dialogue).text) == dialogue


def test_a_plain_prompt_is_put_before_both_sides(tmp_path: Path) -> None:
    assert only(tmp_path, prompt="I", chosen=" am", rejected="I do") == PreferencePair("I", " am", "I do")


def test_a_dialogue_may_go_on_behind_its_prompt(tmp_path: Path) -> None:
    pair = only(tmp_path, prompt=f"Q{TURN}", chosen=f" A\n\nHuman: B{TURN} C", rejected=f" A\n\nHuman: B{TURN} D")
    assert pair == PreferencePair(f"Q{TURN} A\n\nHuman: B{TURN}", " C", " D")


@pytest.mark.parametrize(
    ("prompt", "before"),
    [
        ("Joke?", ()),
        (said("Joke?"), ()),
        ("Joke?", said("Joke?")),
        (said("Joke?"), said("Joke?")),
        (None, said("Joke?")),
    ],
    ids=["text", "messages", "text, and again", "messages, and again", "none"],
)
def test_messages_have_their_prompt_once(tmp_path: Path, prompt: Any, before: Any) -> None:
    chosen, rejected = ([*before, {"role": "assistant", "content": reply}] for reply in ("Knock.", "No."))
    pair = only(tmp_path, prompt=prompt, chosen=chosen, rejected=rejected)
    assert pair == PreferencePair(f"\n\nHuman: Joke?{TURN}", " Knock.", " No.")


def test_equal_texts_everywhere_name_a_row(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"pairs\.jsonl: no pair whose .* differ \(row 0 has 'tie' twice\)"):
        read_pairs(pairs_file(tmp_path, ("tie", "tie"), ("a", "a")))


@pytest.mark.parametrize(
    ("chosen", "rejected", "says"),
    [
        (None, "b", "no text for chosen"),
        ("b", None, "no text for rejected"),
        ("b", " ", "an empty text for rejected"),
    ],
)
def test_a_side_that_is_missing_is_dropped_and_counted(tmp_path: Path, chosen: Any, rejected: Any, says: str) -> None:
    read = read_pairs(pairs_file(tmp_path, ("a", "b"), (chosen, rejected)))
    assert (len(read.pairs), read.dropped, read.dropped_rows) == (1, {says: 1}, f"row 1 has {says}")
    with pytest.raises(CorpusError, match=rf"pairs\.jsonl: 2 of 3 rows cannot be used: rows 1, 2 have {says}"):
        read_pairs(pairs_file(tmp_path, ("a", "b"), (chosen, rejected), (chosen, rejected)))


@pytest.mark.parametrize(
    "messages",
    [[], [{"role": "critic", "content": "a"}], [{"role": "user", "content": None}], [{"role": "user"}], ["a"], 3],
)
def test_messages_that_are_none_are_named(tmp_path: Path, messages: Any) -> None:
    with pytest.raises(CorpusError, match=r"pairs\.jsonl: .* row 0 has .*(no text for chosen|role, content|one side)"):
        read_pairs(pairs_file(tmp_path, (messages, said("a", "b"))))


@pytest.fixture
def local_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub does not answer, and the hub's cache holds a copy of the data set org/name: its folder."""
    monkeypatch.setattr("lfp.texts.reading.hub.hub_reachable", lambda: False)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    snapshot = tmp_path / "datasets--org--name" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (tmp_path / "datasets--org--name" / "refs").mkdir()
    (tmp_path / "datasets--org--name" / "refs" / "main").write_text("abc")
    return snapshot


def test_a_hub_dataset_is_read_where_no_file_has_its_name(local_copy: Path) -> None:
    write_rows(local_copy / "train.jsonl", [{"id": 1, "prompt": "Q", "chosen": " a", "rejected": " b"}])
    write_rows(local_copy / "test.jsonl", [{"id": 1, "prompt": "Q", "chosen": " c", "rejected": " d"}])
    config = TuneConfig(method="dpo", pairs="org/name")
    assert find_preferences(config, beside=None).pairs == (PreferencePair("Q", " a", " b"),)
    config = TuneConfig(method="dpo", pairs="org/name", pairs_split="test")
    assert find_preferences(config, beside=None).pairs == (PreferencePair("Q", " c", " d"),)
    config = TuneConfig(method="dpo", pairs="org/name", pairs_split="dev")
    with pytest.raises(CorpusError, match=r"tune\.pairs org/name: no such file.*dev.*pairs_split"):
        find_preferences(config, beside=None)


def test_a_folder_or_a_config_of_a_hub_dataset_is_read(local_copy: Path) -> None:
    for name, chosen in (("helpful", " a"), ("harmless", " c")):
        (local_copy / name).mkdir()
        rows = [{"prompt": "Q", "chosen": chosen, "rejected": " b"}, {"prompt": "Q", "chosen": None, "rejected": " b"}]
        write_rows(local_copy / name / "train.jsonl", rows)
    paths = "".join(
        f"- config_name: {name}\n  data_files:\n  - split: train\n    path: {name}/*.jsonl\n"
        for name in ("helpful", "harmless")
    )
    (local_copy / "README.md").write_text(f"---\nconfigs:\n{paths}---\n", encoding="utf-8")
    for keys in ({"pairs_config": "harmless"}, {"pairs_data_dir": "harmless"}):
        read = find_preferences(TuneConfig(method="dpo", pairs="org/name", **keys), beside=None)
        assert read.pairs == (PreferencePair("Q", " c", " b"),) and read.dropped == {"no text for chosen": 1}
    corpus = CorpusConfig(source="org/name", source_config="helpful", text_column="chosen", held_out_source="org/name",
                          held_out_split="train", source_data_dir=None)  # fmt: skip
    with pytest.raises(CorpusError, match="no text left for train"):  # both are the same texts
        read_corpus(corpus, beside=None, seed=0)


def test_a_hub_dataset_without_the_columns_is_named(local_copy: Path) -> None:
    write_rows(local_copy / "train.jsonl", [{"better": "a", "worse": "b"}])
    with pytest.raises(CorpusError, match=r"org/name: no column 'chosen' \(found: better, worse\)"):
        find_preferences(TuneConfig(method="dpo", pairs="org/name"), beside=None)


def test_a_hub_dataset_without_a_network_or_a_copy(local_copy: Path) -> None:
    with pytest.raises(CorpusError, match=r"org/other: .*\(the hub cannot be reached and there is no local copy\)"):
        find_preferences(TuneConfig(method="dpo", pairs="org/other"), beside=None)


@pytest.mark.parametrize("name", ["hh-rlhf/absent.jsonl.gz", "absent.csv", "a/b/c"])
def test_a_missing_file_is_not_asked_of_the_hub(name: str) -> None:
    with pytest.raises(CorpusError, match="no such file"):
        find_preferences(TuneConfig(method="dpo", pairs=name), beside=None)


def numbered(n: int) -> list[PreferencePair]:
    return [PreferencePair(f"{i}: ", "yes", "no") for i in range(n)]


@given(st.integers(2, 60), st.sampled_from([0.1, 0.3, 0.5, 0.8]), st.integers(0, 5), st.none() | st.integers(2, 30))
def test_the_held_out_share_is_exact_and_the_rest_is_trained_on(
    n: int, share: float, seed: int, limit: int | None
) -> None:
    pairs, used = numbered(n), min(n, limit or n)
    if round(share * used) == used:
        return
    split = split_pairs(pairs, share=share, limit=limit, seed=seed)
    assert len(split.held_out) == max(1, round(share * used)) and split.shared == 0
    assert len(split.train) == used - len(split.held_out)
    assert set(split.train).isdisjoint(split.held_out)
    assert all(list(part) == sorted(part, key=pairs.index) for part in (split.train, split.held_out))


def test_the_seed_alone_decides_which_pairs_are_held_out() -> None:
    first = split_pairs(numbered(40), share=0.5, limit=None, seed=1)
    assert first == split_pairs(numbered(40), share=0.5, limit=None, seed=1)
    assert first != split_pairs(numbered(40), share=0.5, limit=None, seed=2)


def test_no_text_is_on_both_sides() -> None:
    """The same text in several pairs, on either side of them."""
    pairs = [*numbered(10), *(PreferencePair("", f"{i}: no", f"other {i}") for i in range(10))]
    split = split_pairs(pairs, share=0.5, limit=None, seed=0)
    texts = [
        {pair.prompt + side for pair in part for side in (pair.chosen, pair.rejected)}
        for part in (split.train, split.held_out)
    ]
    assert texts[0].isdisjoint(texts[1]) and split.shared > 0
    assert (len(split.held_out), len(split.train) + split.shared) == (10, 10)


@given(st.lists(st.integers(0, 6), min_size=4, max_size=40), st.integers(0, 5))
def test_no_conversation_is_on_both_sides(openings: list[int], seed: int) -> None:
    """Pairs of later turns of a conversation, and pairs that share no text with it."""
    pairs = [
        PreferencePair(f"\n\nHuman: {opening}{TURN} {i}\n\nHuman: {i}{TURN}", f"{i} yes", f"{i} no")
        for i, opening in enumerate(openings)
    ]
    most = max(1, round(0.4 * len(pairs)))
    split = split_pairs(pairs, share=0.4, limit=None, seed=seed)
    counts = Counter(pair.opening for pair in pairs)
    sides = [{pair.opening for pair in part if counts[pair.opening] <= most} for part in (split.train, split.held_out)]
    assert sides[0].isdisjoint(sides[1]) and split.shared == 0
    assert len(split.train) + len(split.held_out) == len(pairs) and len(split.held_out) <= most


def test_pairs_with_one_form_of_prompt_are_no_conversation() -> None:
    pairs = [PreferencePair("Write a review: ", f"{i} yes", f"{i} no") for i in range(20)]
    split = split_pairs(pairs, share=0.3, limit=None, seed=0)
    assert (len(split.train), len(split.held_out)) == (14, 6)
    assert len(set(number_conversations(pairs, most=6))) == 20


def test_messages_open_with_what_the_user_said_first(tmp_path: Path) -> None:
    first = [{"role": "system", "content": "Be kind."}, *said("Hi", "Hello", "More?")]
    pair = only(tmp_path, chosen=[*first, *said("", "yes")[1:]], rejected=[*first, *said("", "no")[1:]])
    assert pair.opening == "Hi"


@pytest.mark.parametrize("pairs", [numbered(1), numbered(1) * 4])
def test_a_split_that_leaves_nothing_to_tune_on(pairs: list[PreferencePair]) -> None:
    with pytest.raises(CorpusError, match=r"leave none to tune on beside \d held out"):
        split_pairs(pairs, share=0.5, limit=None, seed=0)


@pytest.mark.data
@pytest.mark.parametrize(("name", "rows", "ties"), [("helpful-base", 2354, 2), ("harmless-base", 2312, 0)])
def test_real_preferences_split_at_a_shared_turn(name: str, rows: int, ties: int) -> None:
    read = read_pairs(data_file(f"hh-rlhf/{name}.test.jsonl.gz"))
    assert (len(read.pairs) + read.ties, read.ties) == (rows, ties)
    assert all(pair.prompt.endswith(TURN) for pair in read.pairs)
    assert sum(TURN in pair.chosen for pair in read.pairs) < 5
    split = split_pairs(read.pairs, share=0.5, limit=None, seed=0)
    assert len(split.held_out) == round(len(read.pairs) / 2) and split.shared < 5


@pytest.mark.parametrize(
    ("n", "kept"), [(None, "a b\n\nc: d"), (9, "a b\n\nc: d"), (4, "a b\n\nc: d"), (2, "c: d"), (1, "d")]
)
def test_the_last_words_of_a_prompt_are_kept_as_they_stand(n, kept):
    assert last_words("a b\n\nc: d", n) == kept
