"""Openings that a model continues: read, drawn, and continuations judged."""

from __future__ import annotations

from pathlib import Path

import pytest

from lfp.errors import CorpusError
from lfp.texts.openings import OpeningDraws, TextFilter, WritingConfig, load_writing_config
from tests.conftest import ROOT

SHIPPED = ROOT / "precompute" / "presets" / "written" / "openings.toml"
GOOD = " quiet and rather slow, yet we stayed until the lights came on and talked about it all the way home."


@pytest.fixture(scope="module")
def config() -> WritingConfig:
    return load_writing_config(SHIPPED)


def test_held_out_openings_are_in_no_other_text_and_each_is_drawn_in_every_tone(config: WritingConfig) -> None:
    draws = OpeningDraws(config, held_out_share=0.2, seed=3)
    n = {share: len({drawn.text for drawn in draws.draw(share, 0, 10_000)}) for share in ("train", "held-out")}
    assert sum(n.values()) >= 1500 and abs(n["held-out"] / sum(n.values()) - 0.2) < 0.01
    train, held_out = (draws.draw(share, 0, 3 * n[share]) for share in ("train", "held-out"))
    assert {drawn.text for drawn in train}.isdisjoint(drawn.text for drawn in held_out)
    assert len({(drawn.text, drawn.tone) for drawn in train}) == 3 * n["train"]
    assert not any("{" in drawn.text + drawn.instruction for drawn in train)
    assert (
        draws.draw("train", 7, 5) == train[7:12] == OpeningDraws(config, held_out_share=0.2, seed=3).draw("train", 7, 5)
    )
    assert train[:50] != OpeningDraws(config, held_out_share=0.2, seed=4).draw("train", 0, 50)


@pytest.mark.parametrize(
    ("continuation", "fault"),
    [
        (GOOD, None),
        (" good.", "not plain text"),
        (" fine\nand that", "not plain text"),
        (" ein schöner Film, den ich so nie gesehen habe", "not plain text"),
        (" a bloody mess, and the bastard who made it should know", "slur"),
        (" something I can assist you with, if you like", "about writing or an assistant"),
        (" made by Jane Doe, who had never made one before it", "names people or works"),
        (" bad and it was bad and it was bad and it was bad and it was bad", "repeats itself"),
    ],
)
def test_a_text_is_left_out_for_a_reason(continuation: str, fault: str | None) -> None:
    assert TextFilter().find_fault("The film is", continuation) == fault


def test_a_text_that_repeats_an_earlier_one_is_left_out() -> None:
    texts = TextFilter()
    assert texts.find_fault("The film is", GOOD) is None
    assert texts.find_fault("The play is", GOOD.replace("slow", "long")) == "repeats earlier texts"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("model = 3", "model: Input should be a valid string; see precompute"),
        ('model = "m"\ncolour = "red"', "there|Field required|colour|Extra"),
        ("model =", "not valid TOML"),
    ],
)
def test_a_file_that_is_wrong_is_named_with_its_key(text: str, sentence: str, tmp_path: Path) -> None:
    file = tmp_path / "openings.toml"
    file.write_text(text)
    with pytest.raises(CorpusError, match=sentence):
        load_writing_config(file)
    with pytest.raises(CorpusError, match="cannot be read"):
        load_writing_config(tmp_path / "absent.toml")
