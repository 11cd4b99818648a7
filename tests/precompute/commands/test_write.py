"""The commands `write` and `screen`: texts that a model writes, and rows of a file that may be published."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from lfp.errors import CorpusError, ModelError
from lfp.ml.models import writing
from lfp.ml.models.generation import Completion
from lfp.ml.models.loading import load_model
from lfp.texts.openings import Opening
from precompute.commands.screen import screen
from precompute.commands.write import write
from tests.lfp.builders import write_rows
from tests.lfp.ml.conftest import build_model, build_tokenizer
from tests.lfp.ml.models.test_chat import CHATML

WORDS = ("slow", "quiet", "good", "bad", "loud", "warm", "cold", "long", "film", "soup", "light", "road", "rain", "we")
OPENINGS = """
model = "{model}"
instruction = "Write {{tone}} review of a {{name}}."
tones = ["a bad", "a good"]
temperature = 0.8
tokens = 8
least_tokens = 6
[subjects.films]
names = ["film", "play", "song", "book", "show"]
patterns = ["The {{}} is", "A {{}} that", "My {{}} was"]
"""


@pytest.fixture(scope="module")
def chatting(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model with a chat template."""
    folder = build_model(tmp_path_factory.mktemp("chatting") / "model", max_position_embeddings=128)
    tokenizer = build_tokenizer(folder)
    tokenizer.chat_template = CHATML
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def openings(chatting: Path, tmp_path: Path) -> Path:
    file = tmp_path / "openings.toml"
    file.write_text(OPENINGS.format(model=chatting))
    return file


def rows_of(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in gzip.open(file, "rt", encoding="utf-8")]


def test_an_opening_is_continued_after_the_template(chatting: Path) -> None:
    model, opening = load_model(str(chatting)), Opening("The film is", "films", "a bad", "Write.")
    options = {"n_tokens": 5, "least_tokens": 4, "temperature": 1.0, "seed": 1}
    first, second = writing.continue_openings(model, [opening] * 2, **options)
    assert model.tokenizer.decode(first.prefix_ids).endswith("assistant\nThe film is")
    assert "user\nWrite." in model.tokenizer.decode(first.prefix_ids)
    assert 4 <= len(first.token_ids) <= 5 and first.token_ids != second.token_ids


def test_a_model_that_cannot_be_asked_is_named(tmp_path: Path) -> None:
    model = load_model(str(build_model(tmp_path / "plain")))
    with pytest.raises(ModelError, match="has no chat template"):
        writing.continue_openings(model, [], n_tokens=5, least_tokens=1, temperature=1.0, seed=1)


def test_texts_are_kept_until_there_are_enough(openings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    stop_at = 2

    def continue_openings(_: Any, openings: Sequence[Opening], *, seed: int, **__: Any) -> list[Completion]:
        draw = random.Random(seed)
        texts = [" " + " ".join(draw.choices(WORDS, k=24)) for _ in openings]
        calls.append(seed)
        if len(calls) == stop_at:
            raise KeyboardInterrupt
        return [Completion((), (), text if draw.random() < 0.7 else " by Jane Doe and us all") for text in texts]

    monkeypatch.setattr(writing, "continue_openings", continue_openings)
    with pytest.raises(KeyboardInterrupt):
        write(openings, out=tmp_path / "a", train=50, held_out=10, seed=5)
    found = write(openings, out=tmp_path / "a", train=50, held_out=10, seed=5)
    assert len(calls) == len(set(calls)) + 1 and calls[1] == calls[2]  # the first batch was kept
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == sorted(path.name for path in found.files)
    train, held_out = rows_of(tmp_path / "a" / "train.jsonl.gz"), rows_of(tmp_path / "a" / "held-out.jsonl.gz")
    facts = json.loads((tmp_path / "a" / "written.json").read_text())
    assert (len(train), len(held_out), found.kept) == (50, 10, 60) and found.left_out["names people or works"] > 10
    assert facts["left_out"] == dict(found.left_out) and len(facts["model_sha256"]) == 64
    assert {row["tone"] for row in train} == {"a bad", "a good"}

    def beginnings(rows: list[dict[str, Any]]) -> set[str]:
        return {" ".join(row["text"].split()[:3]) for row in rows}

    assert beginnings(train).isdisjoint(beginnings(held_out))
    again = write(openings, out=tmp_path / "b", train=50, held_out=10, seed=5)
    assert [file.read_bytes() for file in found.files] == [file.read_bytes() for file in again.files]


def test_a_model_that_writes_nothing_usable_ends_the_command(openings: Path, tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"^0 of 512 texts could be kept, \d+ were left out because: .*; try other"):
        write(openings, out=tmp_path / "out", train=5, held_out=2)


def test_rows_that_may_be_published_are_kept_in_order(tmp_path: Path) -> None:
    texts = ["one two", "call 555-736-9466", "a b c d e f", "this is shit", "three", "last"]
    rows = [{"chosen": text, "rejected": "no", "id": i} for i, text in enumerate(texts)]
    rows.append({"chosen": [{"role": "user", "content": "I am naked"}], "rejected": [], "id": 6})
    source = write_rows(tmp_path / "pairs.jsonl", rows)
    found = screen(source, out=tmp_path / "kept.jsonl.gz", longest=5)
    assert (found.rows, found.kept) == (7, 3)
    assert found.left_out == {"phone number": 1, "too long": 1, "profanity": 1, "sexual": 1}
    assert rows_of(tmp_path / "kept.jsonl.gz") == [
        {"chosen": t, "rejected": "no"} for t in ("one two", "three", "last")
    ]
    assert json.loads((tmp_path / "kept.json").read_text())["left_out"] == found.left_out
    two = screen(source, out=tmp_path / "two.jsonl", longest=5, n=2, columns=("id", "chosen"))
    kept = [json.loads(line) for line in (tmp_path / "two.jsonl").read_text().splitlines()]
    assert two.kept == 2 and [row["id"] for row in kept] == sorted(row["id"] for row in kept)
    with pytest.raises(CorpusError, match=r"no row is left \(no text 7\)"):
        screen(source, out=tmp_path / "none.jsonl", columns=("absent",))
