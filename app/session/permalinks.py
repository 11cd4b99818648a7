"""What a page shows, as a frozen dataclass a page, and its permalink: the fields are the URL's parameters.

Fields are bound to widgets by name (`key=`, `bind="query-params"`), so names must differ between pages: Streamlit drops
a parameter bound on the page before. A field at its default stays out of the URL.
"""

from __future__ import annotations

import math
import os
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlencode

import streamlit as st

from lfp.bundle.manifest import MANIFEST

ROOT = Path(__file__).resolve().parents[2]


DEMO = ROOT / "data" / "demo"


BUNDLES = "LFP_BUNDLES"


NO_BUNDLE = (
    "There is nothing to open. Make the demo with make demo, or set LFP_BUNDLES to a bundle’s folder, or to a folder "
    "that holds bundles, and start again."
)


BUNDLE_HELP = "One run a bundle. LFP_BUNDLES says which are offered."


Params = dict[str, str | list[str]]


V = TypeVar("V")


DENSITIES = ("0", "0.001 %", "0.01 %", "0.1 %", "1 %", "10 %", "100 %")
"""Ends of the density range on offer."""


STANDINGS = ("first", "0.1 %", "1 %", "10 %", "half", "all")
"""Ends of the range of ranks by contribution on offer, as shares of all features."""


COLUMNS = (
    "description", "top_tokens", "related", "weight", "mean_abs_contribution", "beats_null", "status", "density",
)  # fmt: skip
"""Columns of the list of features that are shown until others are chosen; the feature's number and layer always are."""


@dataclass(frozen=True)
class OverviewView:
    """The overview; `estimate` is what the scatter of words has on its y axis."""

    estimate: str = "implicit reward"


@dataclass(frozen=True)
class AccuracyView:
    """How good the estimate is: the scatter's axes, the word looked up, a target, a list of gaps, colours of texts.

    An empty choice is the first on offer.
    """

    word_axes: str = ""
    word: str = ""
    tau_target: str = ""
    tau_words: str = "all"
    gap_list: str = ""
    text_colour: str = ""


@dataclass(frozen=True)
class ValidationView:
    """Labels and weights put to the test: whose labels, against what, which score, and what shares are of."""

    labelled_by: str = ""
    weighty_by: str = ""
    label_score: str = "detection"
    share_of: str = "tokens"


@dataclass(frozen=True)
class FeaturesView:
    """The list of features: its filter, its order, its page, its columns, and what colours the map.

    `area` is a part of the map drawn around, as `app.components.charts.feature_map` writes it.
    """

    layer: tuple[int, ...] = ()
    sign: str = "any"
    related: str = "any"
    density: tuple[str, str] = (DENSITIES[0], DENSITIES[-1])
    find: str = ""
    fires_on: str = ""
    null: str = "any"
    drifts: tuple[str, ...] = ()
    drifted: str = "all"
    standing: tuple[str, str] = (STANDINGS[0], STANDINGS[-1])
    least_stable: float = 0.0
    least_detected: float = 0.0
    has_note: bool = False
    area: str = ""
    sort: str = "contribution"
    order: str = "descending"
    page: int = 1
    shown: tuple[str, ...] = COLUMNS
    with_map: bool = True
    map_colour: str = "weight"


FILTERS = (
    "layer", "sign", "related", "density", "find", "fires_on", "null", "drifts", "drifted", "standing", "least_stable",
    "least_detected", "has_note", "sort", "order",
)  # fmt: skip
"""Fields of FeaturesView that make the list and have a widget."""


@dataclass(frozen=True)
class FeatureView:
    """One feature; `feature` is None until one is chosen, and `examples` is a bucket's name.

    `walk` is the list that previous and next walk: the parameters of its FeaturesView, as a query string.
    """

    feature: int | None = None
    examples: str = "top"
    activation_values: bool = False
    walk: str = ""


@dataclass(frozen=True)
class InputsView:
    """The list of texts, the text that is open, the feature shown on its tokens, and which ledger, whole or not."""

    words: str = ""
    texts: str = "sampled"
    split: str = "any"
    by: str = "gap"
    direction: str = "descending"
    sheet: int = 1
    text: int | None = None
    watch: int | None = None
    token_values: bool = False
    rated_from: float | None = None
    rated_to: float | None = None
    account: str = "estimate"
    every_part: bool = False


@dataclass(frozen=True)
class PairsView:
    """The list of preference pairs, and the pair that is open."""

    said: str = ""
    kept: str = "sampled"
    half: str = "any"
    verdict: str = "any"
    rank_by: str = "size of margin"
    towards: str = "descending"
    leaf: int = 1
    pair: int | None = None
    side_values: bool = False
    every_difference: bool = False


@dataclass(frozen=True)
class DisagreementsView:
    """One of the three queues, of texts or words, on one side or both, and the feature it is narrowed to."""

    queue: str = "estimate against true"
    things: str = "texts"
    side: str = "any"
    responsible: int | None = None
    stretch: int = 1


@dataclass(frozen=True)
class DriftView:
    """What tuning did to features: the scatter's plane, and the table's filter, order and page."""

    plane: str = "contribution"
    became: str = "any"
    drift_layer: tuple[int, ...] = ()
    drift_find: str = ""
    drift_by: str = "drifted"
    drift_order: str = "descending"
    drift_page: int = 1


@dataclass(frozen=True)
class RunsView:
    """Two runs side by side: the other bundle, the row of the report, and the table of matched features."""

    other: str | None = None
    report: str | None = None
    match_by: str = "similarity"
    match_order: str = "descending"
    match_page: int = 1


@dataclass(frozen=True)
class TryView:
    """A text of one's own: what was typed, the model that reads and writes, and how it writes on.

    `also` is a feature wanted among the sliders; `scales` says which stand off 1, as the playground writes it.
    """

    typed: str = ""
    reader: str = "tuned"
    tried_values: bool = False
    also: int | None = None
    scales: str = ""
    try_tokens: int = 16
    temperature: float = 1.0
    seed: int = 0


@dataclass(frozen=True)
class QueueView:
    """A list under review by name, and where in it; `made_from` is a Features link that a new list is to be made from.

    Who reviews is personal and stands in no link.
    """

    audit_list: str = ""
    item: int = 1
    blind: bool = True
    part: str = "Review"
    made_from: str = ""
    question: str = "about the feedback"
    whole: bool = False


def ink() -> str:
    """The text colour of the theme that is chosen, for figures."""
    return "#ece8df" if st.context.theme.type == "dark" else "#24221d"


def key_for(name: str, *shown: object) -> str:
    """A widget key that changes with what the widget shows: a table that keeps its key over new rows eats a click."""
    return f"{name}_{zlib.crc32(repr(shown).encode()):08x}"


def bundle_name() -> str:
    """The name of the bundle that is chosen: of those on offer, once the entry has asked for it."""
    name: str = st.session_state.bundle
    return name


def set_bundle(name: str) -> None:
    """Opens another bundle; for callbacks."""
    st.session_state.bundle = name


def view_of(kind: type[V], **unbound: Any) -> V:
    """The view that the widgets drawn in this run state; other fields are as `unbound` says, or at their defaults."""
    values = {field.name: st.session_state.get(field.name, _default(field)) for field in fields(kind)}  # type: ignore[arg-type]
    values |= unbound
    return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})


def asked(kind: type[V]) -> V:
    """The view that widgets will state once they are drawn: what they stated last, else what the URL says."""
    linked = from_params(kind, {name: st.query_params.get_all(name) for name in st.query_params})
    return view_of(kind, **{name: value for name, value in vars(linked).items() if name not in st.session_state})


def unbound(name: str) -> str:
    """A parameter of the URL that no widget is bound to."""
    return st.query_params.get(name, "")


def set_unbound(name: str, value: str) -> None:
    """Puts such a parameter into the URL, or takes it out; for callbacks."""
    if value:
        st.query_params[name] = value
    elif name in st.query_params:
        del st.query_params[name]


def to_params(view: Any) -> Params:
    """The view as URL parameters, written as Streamlit's bound widgets write them; defaults are left out."""
    values = {field.name: getattr(view, field.name) for field in fields(view)}
    return {field.name: _encoded(values[field.name]) for field in fields(view) if values[field.name] != _default(field)}


def from_params(kind: type[V], params: Mapping[str, str | Sequence[str]]) -> V:
    """The view that URL parameters state; what is missing or cannot be read is at its default."""
    values = {}
    for field in fields(kind):  # type: ignore[arg-type]
        raw = params.get(field.name)
        parts = [raw] if isinstance(raw, str) else list(raw or [])
        decoded = _decoded(parts, str(field.type)) if parts else None
        values[field.name] = _default(field) if decoded is None else decoded
    return kind(**values)


def href(page: str, view: Any, *, bundle: str) -> str:
    """A link from any page to a view, relative so that it works under any base path.

    Links that leave a view worth coming back to are plain ones: `st.page_link` and `st.switch_page` put the page's
    address without its parameters into the browser's history, so that going back would lose filter, page and text.
    """
    return f"{page}?{urlencode({'bundle': bundle, **to_params(view)}, doseq=True)}"


def listed_bundles(setting: str | None = None) -> dict[str, Path]:
    """The bundles on offer by name, from LFP_BUNDLES: bundle folders, or folders that hold some; else the demo."""
    setting = os.environ.get(BUNDLES, "") if setting is None else setting
    named = [Path(part.strip()).expanduser() for part in re.split(f"[,{os.pathsep}]", setting) if part.strip()]
    paths = [path for folder in named for path in _bundles_in(folder)] if named else [DEMO]
    return _named([path for path in dict.fromkeys(paths) if path.exists()])


def _bundles_in(folder: Path) -> list[Path]:
    """The folder itself where it is a bundle or holds none, else the bundles in it."""
    if (folder / MANIFEST).is_file() or not folder.is_dir():
        return [folder]
    inside = sorted(child for child in folder.iterdir() if not child.name.startswith(".") and child.is_dir())
    return [child for child in inside if (child / MANIFEST).is_file()] or [folder]


def _named(paths: list[Path]) -> dict[str, Path]:
    """Names are folder names, with as much of the path in front as it takes to tell them apart."""
    names: dict[str, Path] = {}
    for path in paths:
        parts = path.resolve().parts
        depth = 1
        while "/".join(parts[-depth:]) in names and depth < len(parts):
            depth += 1
        names["/".join(parts[-depth:])] = path
    return names


def _default(field: Field[Any]) -> Any:
    return None if field.default is MISSING else field.default


def _encoded(value: Any) -> str | list[str]:
    if isinstance(value, tuple):
        return [str(part) for part in value] or ""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _decoded(parts: list[str], type_: str) -> Any:
    """Text as a field's type, or None where it is not of it."""
    try:
        if type_ == "tuple[int, ...]":
            return tuple(int(part) for part in parts)
        if type_ == "tuple[str, ...]":
            return tuple(part for part in parts if part)
        if type_ == "tuple[str, str]":
            return (parts[0], parts[1]) if len(parts) == 2 else None
        if type_ == "float":
            return float(parts[-1]) if math.isfinite(float(parts[-1])) else None
        if type_ == "bool":
            return {"true": True, "false": False}.get(parts[-1].lower())
        if type_.startswith("float"):
            return float(parts[-1]) if math.isfinite(float(parts[-1])) else None
        return int(parts[-1]) if type_.startswith("int") else parts[-1]
    except ValueError:
        return None


def to(page: str, view: Any) -> str:
    """The address of a view of a page."""
    return href(page, view, bundle=bundle_name())


def feature(number: int) -> str:
    """The address of one feature."""
    return to("feature", FeatureView(feature=number))


def text(number: int) -> str:
    """The address of one text."""
    return to("inputs", InputsView(text=number))
