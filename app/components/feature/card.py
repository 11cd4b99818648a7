"""The card of a feature: what its page says of it, in one image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from app.components.feature import titles
from lfp.bundle.manifest import Manifest
from lfp.bundle.queries.excerpts import CreditExample
from lfp.bundle.queries.feature import Feature, FeatureCredit
from lfp.report.card import Card, Example, TokenList, draw_card
from lfp.report.formatting import place_name
from lfp.report.running_text import pieces


def feature_card(
    feature: Feature,
    title: str,
    manifest: Manifest,
    *,
    credit: FeatureCredit | None,
    credited: Sequence[CreditExample],
    rows: Sequence[Mapping[str, Any]],
) -> str:
    """Draw a feature's card: its credit, and what it promotes by that, or without credits its weight and logits.

    The example is where it carries most of the implicit reward, else where it is strongest, of `rows` of examples.
    """
    n = manifest.tables["features"].rows
    if credit is None:
        figure = titles.contribution(feature, n_features=n)
        promotes, demotes = feature.pos_logits, feature.neg_logits
    else:
        figure = titles.credit(credit, n_features=n)
        promotes, demotes = credit.promotes, credit.demotes
    return draw_card(
        Card(
            above=f"Feature {feature.feature_id} · {place_name(feature.layer, feature.site)} · {manifest.title}",
            title=title,
            figure=figure,
            lists=[
                TokenList("Fires on", _pairs(feature.top_tokens), "strength"),
                TokenList("Promotes", _pairs(promotes), "up"),
                TokenList("Demotes", _pairs(demotes), "down"),
            ],
            example=_find_example(credited, rows),
            below=f"LFP Explorer · bundle {manifest.bundle_id} · 95 % intervals",
        )
    )


def _pairs(items: Sequence[Mapping[str, Any]]) -> list[tuple[str, float]]:
    return [(str(item["token"]), float(item["value"])) for item in items]


def _find_example(credited: Sequence[CreditExample], rows: Sequence[Mapping[str, Any]]) -> Example | None:
    if credited:
        return Example(credited[0].before, credited[0].token, credited[0].after)
    row = next((row for row in rows if row["bucket"] == 0), None)
    if row is None:
        return None
    text, starts, at = row["text"], row["token_starts"], row["position"]
    token, *after = pieces(text, starts)[at:]
    return Example(text[: starts[at]], token, "".join(after))
