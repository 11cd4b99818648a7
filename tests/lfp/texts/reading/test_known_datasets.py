"""Preference data sets by their columns: which answer is preferred, ties, several verdicts, single answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lfp.errors import CorpusError
from lfp.texts.preferences import PreferencePair, Preferences, read_pairs

ASKED = "\n\nHuman: Q\n\nAssistant:"


def said(*turns: str) -> list[dict[str, str]]:
    return [{"role": ("user", "assistant")[i % 2], "content": turn} for i, turn in enumerate(turns)]


def read(folder: Path, *rows: dict[str, Any], verdict: str | None = None) -> Preferences:
    path = folder / "pairs.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return read_pairs(path, verdict=verdict)


def sides(read: Preferences) -> list[tuple[str, str, str]]:
    return [(pair.prompt, pair.chosen.strip(), pair.rejected.strip()) for pair in read.pairs]


def test_pku_saferlhf_has_two_verdicts(tmp_path: Path) -> None:
    rows = [
        {"prompt": "Q", "response_0": "a", "response_1": "b", "is_response_0_safe": True, "better_response_id": better,
         "safer_response_id": 0}
        for better in (0, 1)
    ]  # fmt: skip
    assert sides(read(tmp_path, *rows)) == [("Q", "a", "b"), ("Q", "b", "a")]
    assert sides(read(tmp_path, *rows, verdict="safer_response_id")) == [("Q", "a", "b")] * 2
    without = [{name: value for name, value in row.items() if name != "better_response_id"} for row in rows]
    assert sides(read(tmp_path, *without)) == [("Q", "a", "b")] * 2
    with pytest.raises(CorpusError, match=r"no column 'nicer_id' \(found: prompt, response_0"):
        read(tmp_path, *rows, verdict="nicer_id")


@pytest.mark.parametrize(("preference", "chosen"), [(-3, "a"), (-1, "a"), (1, "b"), (3, "b"), (0, None)])
def test_helpsteer3_prefers_by_sign(tmp_path: Path, preference: int, chosen: str | None) -> None:
    row = {"context": said("Hi", "Hello", "Q"), "response1": "a", "response2": "b", "overall_preference": preference}
    found = read(tmp_path, row, row | {"overall_preference": 2})
    assert found.ties == (chosen is None)
    prompt = f"\n\nHuman: Hi\n\nAssistant: Hello{ASKED}"
    expected = [(prompt, chosen, "b" if chosen == "a" else "a")] if chosen else []
    assert sides(found) == [*expected, (prompt, "b", "a")]


def test_helpsteer2_preferences(tmp_path: Path) -> None:
    rows = [{"prompt": "Q", "response_1": "a", "response_2": "b", "preference_strength": s} for s in (-2, 1, 0)]
    found = read(tmp_path, *rows)
    assert (sides(found), found.ties) == ([("Q", "a", "b"), ("Q", "b", "a")], 1)


def test_ultrafeedback_binarized(tmp_path: Path) -> None:
    row = {"prompt": "Q", "prompt_id": "1", "chosen": said("Q", "a"), "rejected": said("Q", "b"),
           "messages": said("Q", "a"), "score_chosen": 8.0, "score_rejected": 7.5}  # fmt: skip
    assert sides(read(tmp_path, row)) == [(ASKED, "a", "b")]


def completion(text: str | None, score: Any, **more: Any) -> dict[str, Any]:
    return {"model": "m", "response": text, "overall_score": score, "annotations": {"x": {"Rating": "3"}}, **more}


def test_ultrafeedback_takes_the_best_and_the_worst_of_several(tmp_path: Path) -> None:
    rated = [completion("a", 6.5), completion("b", "9"), completion("c", None), completion("d", 2.0)]
    tie = [completion("a", 5), completion("b", 5)]
    fine = [completion("a", None, **{"fine-grained_score": 1}), completion("b", 2)]
    rows = [{"source": "s", "instruction": "Q", "completions": each} for each in (rated, tie, fine, rated[:1])]
    found = read(tmp_path, *rows)
    assert (sides(found), found.ties) == ([("Q", "b", "d"), ("Q", "b", "a")], 1)
    assert found.dropped == {"fewer than two rated answers": 1}
    listed = {"instruction": "Q", "generations": ["a", "b", "c"], "ratings": [3.0, None, 4.0]}
    assert sides(read(tmp_path, listed)) == [("Q", "c", "a")]


@pytest.mark.parametrize("is_chat", [False, True])
def test_unpaired_answers_are_paired_by_prompt(tmp_path: Path, is_chat: bool) -> None:
    judged = [("Q", "a", 1), ("R", "x", 0), ("Q", "b", 0), ("Q", "c", 0), ("R", "y", 1), ("S", "z", 1)]
    rows: list[dict[str, Any]] = [{"prompt": q, "completion": text, "label": bool(liked)} for q, text, liked in judged]
    if is_chat:
        rows = [row | {"prompt": said(row["prompt"]), "completion": said("", row["completion"])[1:]} for row in rows]
    found = read(tmp_path, *rows)
    assert [(chosen, rejected) for _, chosen, rejected in sides(found)] == [("a", "b"), ("y", "x")]
    assert found.pairs[0].prompt == (ASKED if is_chat else "Q")
    assert found.dropped == {"no answer of the other kind to the same prompt": 2}


@pytest.mark.parametrize("column", ["prompt", "question", "instruction"])
def test_what_answers_follow_has_several_names(tmp_path: Path, column: str) -> None:
    assert sides(read(tmp_path, {column: "Q", "chosen": "a", "rejected": "b", "prompt_id": 3})) == [("Q", "a", "b")]


def test_a_conversation_precedes_answers_that_are_messages(tmp_path: Path) -> None:
    answers = {side: {"from": "gpt", "value": text} for side, text in (("chosen", "a"), ("rejected", "b"))}
    found = read(tmp_path, {"conversations": [{"from": "human", "value": "Q"}], **answers})
    assert sides(found) == [(ASKED, "a", "b")]


def test_implicit_prompts(tmp_path: Path) -> None:
    plain = {"chosen": "The sky is blue.", "rejected": "The sky is green."}
    chat = {"chosen": said("Q", "a"), "rejected": said("Q", "b")}
    assert read(tmp_path, plain, chat).pairs == (
        PreferencePair("The sky is", " blue.", " green."),
        PreferencePair(ASKED, " a", " b"),
    )


def test_a_key_that_is_left_out_is_a_side_without_text(tmp_path: Path) -> None:
    rows = [{"chosen": "a", "rejected": "b"}, {"chosen": "a"}, {"chosen": "c", "rejected": "d"}]
    assert read(tmp_path, *rows).dropped == {"no text for rejected": 1}
    with pytest.raises(CorpusError, match=r"no column 'rejected' \(found: prompt, chosen\)"):
        read(tmp_path, *[{"prompt": "Q", "chosen": "a"}] * 3)


def test_chatbot_arena_and_shp(tmp_path: Path) -> None:
    arena = [
        {"conversation_a": said("Q", "a"), "conversation_b": said("Q", "b"), "winner": winner}
        for winner in ("model_a", "model_b", "tie", "tie (bothbad)")
    ]
    found = read(tmp_path, *arena)
    assert (sides(found), found.ties) == ([(ASKED, "a", "b"), (ASKED, "b", "a")], 2)
    shp = [{"history": "Q", "human_ref_A": "a", "human_ref_B": "b", "labels": label} for label in (1, 0)]
    assert sides(read(tmp_path, *shp)) == [("Q", "a", "b"), ("Q", "b", "a")]


def test_columns_of_parquet_are_found_too(tmp_path: Path) -> None:
    row = {"context": said("Q"), "response1": "a", "response2": "b", "overall_preference": -2, "domain": "x"}
    pq.write_table(pa.Table.from_pylist([row, row | {"response1": "c"}]), tmp_path / "pairs.parquet")
    assert sides(read_pairs(tmp_path / "pairs.parquet")) == [(ASKED, "a", "b"), (ASKED, "c", "b")]


SHAREGPT = [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "{}"}]
FORMS = {
    "parts": lambda text: [said("Q")[0], {"role": "assistant", "content": [{"type": "text", "text": text}]}],
    "two parts": lambda text: [said("Q")[0], {"role": "assistant", "content": [{"type": "text", "text": text[:1]},
                                                                              {"type": "text", "text": text[1:]}]}],
    "sharegpt": lambda text: [SHAREGPT[0], SHAREGPT[1] | {"value": text}],
    "json": lambda text: json.dumps(said("Q", text)),
    "pretty json": lambda text: json.dumps(said("Q", text), indent=2),
    "python": lambda text: str(said("Q", text)),
    "columns": lambda text: {"role": ["user", "assistant"], "content": ["Q", text]},
    "inside": lambda text: {"messages": said("Q", text)},
    "nulls": lambda text: [message | {"from": None, "tool_calls": None} for message in said("Q", text)],
    "developer": lambda text: [{"role": "Human", "content": "Q"}, {"role": "model", "content": text}],
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_messages_in_every_form(tmp_path: Path, form: str) -> None:
    write = FORMS[form]
    assert sides(read(tmp_path, {"chosen": write("good one"), "rejected": write("bad one")})) == [
        (ASKED, "good one", "bad one")
    ]


def test_tools_are_read(tmp_path: Path) -> None:
    call = {"type": "function", "function": {"name": "add", "arguments": {"a": 1}}}
    chosen = [
        *said("Q"),
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "3"},
    ]
    found = read(
        tmp_path, {"chosen": [*chosen, {"role": "assistant", "content": "Three."}], "rejected": said("Q", "No.")}
    )
    assert sides(found) == [(ASKED, f"{json.dumps(call)}\n\nTool: 3\n\nAssistant: Three.", "No.")]


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ([{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}], "part of type image_url"),
        ([{"role": "critic", "content": "a"}], "role 'critic'"),
        ("[{'role': 'user', 'content': array(['a'])}]", "neither JSON nor Python"),
        ([{"role": "user", "content": {"type": "text"}}], "part of type text, which has no text"),
        (["a", "b"], "a str among the messages"),
        ([], "no text for chosen"),
        (said("Q", " "), "no text for chosen"),
    ],
)  # fmt: skip
def test_messages_that_cannot_be_read_are_named_and_dropped(tmp_path: Path, bad: Any, says: str) -> None:
    found = read(tmp_path, *[{"chosen": said("Q", text), "rejected": said("Q", "x")} for text in "ab"],
                 {"chosen": bad, "rejected": said("Q", "x")})  # fmt: skip
    assert len(found.pairs) == 2 and says in found.dropped_rows and found.dropped_rows.startswith("row 2 has ")
    assert "{'role'" not in "".join(pair.prompt + pair.chosen + pair.rejected for pair in found.pairs)
