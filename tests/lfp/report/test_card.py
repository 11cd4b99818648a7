"""A feature's card is well-formed SVG whose texts are only texts, and which fits."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lfp.report.card import HEIGHT, WIDTH, Card, Example, TokenList, draw_card
from lfp.util.sanitize import visible
from tests.conftest import HOSTILE

CARD = Card(
    above="Feature 7 · layer 19 · A run",
    title="fires on “great”",
    figure="Carries +0.002 [0.001, 0.003] nats per token",
    lists=[
        TokenList("Fires on", [(" great", 0.6), ("\n", 0.3)], "strength"),
        TokenList("Promotes", [(" good", 0.2)], "up"),
        TokenList("Demotes", [], "down"),
    ],
    example=Example("It was a ", "gre", "at film about boats"),
    below="LFP Explorer · bundle abc",
)
SVG = "{http://www.w3.org/2000/svg}"


def texts_of(svg: str) -> list[str]:
    root = ET.fromstring(svg)
    assert (root.get("width"), root.get("height")) == (str(WIDTH), str(HEIGHT))
    assert {element.tag for element in root.iter()} <= {
        f"{SVG}{tag}" for tag in ("svg", "rect", "text", "tspan", "line")
    }
    return ["".join(element.itertext()) for element in root.iter(f"{SVG}text")]


def test_a_card_says_what_a_feature_does() -> None:
    found = texts_of(draw_card(CARD))
    assert {"fires on “great”", "␣great", "↵", "none", CARD.figure, CARD.below} <= set(found)
    assert "It was a gre at film about boats" in found


@given(text=st.text(max_size=400) | st.sampled_from(HOSTILE))
def test_any_text_is_only_a_text(text: str) -> None:
    lists = [TokenList(text, [(text, 1.0)], "up")]
    example = Example(text, text[:40], text)
    found = texts_of(draw_card(replace(CARD, title=text, above=text, lists=lists, example=example, below=text)))
    assert max(map(len, found)) < 260
    words = " ".join(visible(text).split())
    assert not words or words[:10] in found[0]


@pytest.mark.parametrize("title", ["a" * 300, "word " * 80, ""])
def test_a_long_title_is_cut_to_two_lines(title: str) -> None:
    assert len(texts_of(draw_card(replace(CARD, title=title)))) <= len(texts_of(draw_card(CARD))) + 1
