"""Stage `corpus` on messages: written by the chat template, responses known, refused without a template."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lfp.errors import CorpusError
from lfp.texts.corpus import CorpusText
from precompute.pipeline import plan_stages
from precompute.run.inputs import find_corpus_files, read_texts
from precompute.run.work_folder import Run
from precompute.stages.models import corpus
from precompute.stages.models.tuning import read_training_pairs
from tests.precompute.conftest import silent, tiny_config

TEMPLATE = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}</s>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def said(*turns: str) -> list[dict[str, str]]:
    return [{"role": ("user", "assistant")[i % 2], "content": turn} for i, turn in enumerate(turns)]


def run_corpus(folder: Path, rows: list[dict[str, Any]], **sections: dict[str, object]) -> Run:
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    run = Run(tiny_config(**sections), folder / "work", folder, silent)
    stage = next(stage for stage in plan_stages(run.config, folder) if stage.name == "corpus")
    with run.writing("corpus", "key") as output:
        corpus.run(run.narrow(stage), output)
    return run


CHATS = {"corpus": {"source": "rows.jsonl", "n_texts": None}}
PAIRS = {"tune": {"method": "dpo", "pairs": "rows.jsonl"}, "corpus": {"n_texts": None, "held_out_share": 0.3}}


def test_sixty_chats_are_written_by_the_template(tmp_path: Path) -> None:
    rows = [{"messages": said("Say.", f"The film number {i} was awful and sad.")} for i in range(60)]
    texts = read_texts(run_corpus(tmp_path, rows, **CHATS, model={"chat_template": TEMPLATE}))
    assert len(texts) == 60
    for text in texts:
        ((start, end),) = text.spans
        assert text.text == f"<|user|>Say.</s>\n<|assistant|>{text.text[start:end]}\n" and text.response_start == start
        assert text.text[start:end].endswith(" was awful and sad.</s>") and text.prompt_ends == (start,)
        assert text.said == text.text[start : end - len("</s>")]
        assert len(text.blanked) == len(text.text) and text.blanked.strip("\n") == text.said


def test_chats_without_a_template_are_refused_in_one_sentence(tmp_path: Path) -> None:
    rows = [{"messages": said("Say.", f"Film {i}.")} for i in range(6)]
    with pytest.raises(
        CorpusError, match=r"rows\.jsonl: .* no chat template; set model\.chat_template to a file"
    ) as caught:
        run_corpus(tmp_path, rows, **CHATS)
    assert "{'role'" not in str(caught.value) and "\n" not in str(caught.value)


def test_turns_of_several_kinds_and_rows_without_an_answer(tmp_path: Path) -> None:
    rows = [{"conversations": [{"from": "human", "value": f"Q{i}"}, {"from": "gpt", "value": "A"}]} for i in range(5)]
    rows.append({"conversations": [{"from": "human", "value": "Q"}]})
    run = run_corpus(tmp_path, rows, **CHATS, model={"chat_template": "dialogue"})
    assert {text.text for text in read_texts(run)} == {f"\n\nHuman: Q{i}\n\nAssistant: A" for i in range(5)}
    assert run.json("corpus", "facts")["rows_dropped"] == {"no turn of an assistant": 1}


def test_pairs_end_with_the_token_that_ends_a_turn(tmp_path: Path) -> None:
    rows = [{"prompt": said(f"Q{i}"), "chosen": said("", "yes")[1:], "rejected": said("", "no")[1:]} for i in range(20)]
    run = run_corpus(tmp_path, rows, **PAIRS, model={"chat_template": TEMPLATE})
    pairs = read_training_pairs(run)
    assert len(pairs) == 14
    assert all(pair.prompt.endswith("</s>\n<|assistant|>") and pair.prompt.startswith("<|user|>Q") for pair in pairs)
    assert {(pair.chosen, pair.rejected) for pair in pairs} == {("yes</s>", "no</s>")}
    assert all(text.text[slice(*text.spans[0])] in ("yes</s>", "no</s>") for text in read_texts(run))


def test_pairs_of_messages_are_plain_dialogues_without_a_template(tmp_path: Path) -> None:
    rows = [{"chosen": said(f"Q{i}", "yes"), "rejected": said(f"Q{i}", "no")} for i in range(10)]
    texts = read_texts(run_corpus(tmp_path, rows, **PAIRS))
    assert all(text.spans == () and text.text.startswith("\n\nHuman: Q") for text in texts)


def test_a_template_in_a_file_is_part_of_what_the_stage_reads(tmp_path: Path) -> None:
    (tmp_path / "mine.jinja").write_text(TEMPLATE, encoding="utf-8")
    (tmp_path / "rows.jsonl").write_text("{}", encoding="utf-8")
    config = tiny_config(**CHATS, model={"chat_template": "mine.jinja"})
    assert find_corpus_files(config, tmp_path) == (tmp_path / "mine.jinja", tmp_path / "rows.jsonl")


def test_all_turns_of_the_assistant_count(tmp_path: Path) -> None:
    text = CorpusText(0, "u a1<e> u a2<e>", "s", "train", response_start=2, spans=((2, 7), (10, 15)))
    assert text.blanked == "\n\na1\n\n\n\n\n\na2\n\n\n" and text.said == "a1\na2"
    assert text.prompt_ends == (2, 10) and text.responses == text.spans
    plain = CorpusText(0, "prompt answer", "s", "train", response_start=6)
    assert plain.blanked == "\n" * 6 + " answer" and plain.said == plain.text and plain.prompt_ends == ()
