"""Texts that should not be published are found by reason; harmless ones are not."""

from __future__ import annotations

import pytest

from lfp.texts.screening import find_objection


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("He called her a BITCH.", "slur"),
        ("Two retards", "slur"),
        ("It is about sexual violence.", "sexual"),
        ("They raped", "sexual"),
        ("what the fucking hell", "profanity"),
        ("She spoke of suicide.", "harm"),
        ("Write to jane.doe+x@mail.example.org today", "e-mail address"),
        ("Ask @jane_doe about it", "account name"),
        ("Call 555-736-9466 now", "phone number"),
        ("Call (0555) 736 9466", "phone number"),
        ("Ring +44 20 7946 0958", "phone number"),
        ("my local number is 555-0123", "phone number"),
        ("card 4111 1111 1111 1111", "number of a card or account"),
        ("SSN 078-05-1120", "number of a card or account"),
        ("She lives at 12 Long Acre Road, above the shop", "street address"),
        ("Springfield, IL 62704", "post code"),
        ("London SW1A 1AA", "post code"),
        ("see https://example.org/a", "internet address"),
        ("at 10.0.0.12", "internet address"),
    ],
)
def test_what_should_not_be_published_is_named(text: str, reason: str) -> None:
    assert find_objection(text) == reason


@pytest.mark.parametrize(
    "text",
    [
        "The classic assassin film, a Scunthorpe comedy: embarrassing, but a pass.",
        "In 1999 it won 12 prizes; 2,023 people saw it between 10 and 12 May 2001-2003.",
        "The film cost $1,000,000 and 3.5 out of 5 stars, at 19:30 on 24/12/2020.",
        "We drove 5 miles down the road to the old Main Square.",
        "Meet me @ 5 at the river",
    ],
)
def test_harmless_texts_pass(text: str) -> None:
    assert find_objection(text) is None
