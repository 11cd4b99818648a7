"""Addresses that no link of the explorer has: every parameter of every page with values that it must not trip over."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from app.session import permalinks
from lfp.testing.synthetic import make_bundle
from tests.hostile.names import STRINGS

VIEWS: Mapping[str, type[Any] | None] = {
    "overview": permalinks.OverviewView, "accuracy": permalinks.AccuracyView, "validation": permalinks.ValidationView,
    "features": permalinks.FeaturesView, "feature": permalinks.FeatureView, "inputs": permalinks.InputsView,
    "pairs": permalinks.PairsView, "disagreements": permalinks.DisagreementsView, "drift": permalinks.DriftView,
    "runs": permalinks.RunsView, "try_it": permalinks.TryView, "queue": permalinks.QueueView, "about": None,
}  # fmt: skip
ALSO = ("bundle_id", "embed", "embed_options", "page", "reviewer")
"""Parameters that any page may be given."""
NUMBERS = (
    "-1", "0", "1e309", "-1e309", "1e-320", "nan", "inf", "-inf", "999999999999999999999", "9" * 5000, "²", "٣", "1_0",
    "0x10", "1.5", "+1", " 1", "1,5", "--1", "2147483648", "9007199254740993",
)  # fmt: skip
VALUES: tuple[str | list[str], ...] = (
    *STRINGS,
    *NUMBERS,
    ["x", "y"],
    ["0"] * 300,
    ["", ""],
    "true",
    "[]",
    "{}",
    "None",
)

Address = tuple[str, Mapping[str, str | list[str]]]


def parameters(page: str) -> tuple[str, ...]:
    """Return the parameters of a page, and those of all."""
    view = VIEWS[page]
    return (*(field.name for field in fields(view or permalinks.QueueView) if view is not None), *ALSO)


def addresses(seed: int, count: int) -> Iterator[Address]:
    """Draw `count` addresses, of all pages in turn.

    Every second one has a single parameter that is wrong; the others have each of the page's with a chance of 0.7.
    """
    draw, pages = random.Random(seed), list(VIEWS)
    for number in range(count):
        page = pages[number % len(pages)]
        names = parameters(page)
        drawn = (draw.choice(names),) if number // len(pages) % 2 else [name for name in names if draw.random() < 0.7]
        params = {name: draw.choice(VALUES) for name in drawn}
        if not number % 50:
            params = {"bundle": draw.choice(VALUES)}
        yield page, {name: value for name, value in params.items() if value != []}


def main(seed: int, count: int) -> dict[str, Any]:
    """Open addresses of a bundle of pairs in public mode; no page may fail, or show a path of this machine."""
    from tests.hostile.pages import shows

    faults, n_values = [], 0
    with tempfile.TemporaryDirectory() as folder, shows(public=True) as show:
        bundle = make_bundle(Path(folder) / "pairs", n_features=16, n_texts=12, n_pairs=6, pooling="response")
        for page, params in addresses(seed, count):
            n_values += len(params)
            shown = {name: value if len(str(value)) < 60 else f"{str(value)[:57]}..." for name, value in params.items()}
            faults += [f"{page} {shown}: {each}" for each in show(bundle, page, params)]
    return {"addresses": count, "values": n_values, "faults": faults}
