"""Permalinks: what each page shows, as a frozen dataclass whose fields are the URL's query parameters.

Fields are bound to widgets by name (`key=`, `bind="query-params"`), so names must differ between pages: Streamlit drops
a parameter that was bound on the previous page. A field at its default is left out of the URL.
"""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeVar
from urllib.parse import urlencode

import streamlit as st

from app.session.bundles import bundle_name
from app.session.option_words import WORDS

Params = dict[str, str | list[str]]
BUNDLE_ID = "bundle_id"
"""The parameter of copied links that says which bundle they are of, whatever it is called where they are opened."""
V = TypeVar("V")

_VALUES = {name: {word: value for value, word in words.items()} for name, words in WORDS.items()}

DENSITIES = ("0", "0.001 %", "0.01 %", "0.1 %", "1 %", "10 %", "100 %")
"""Ends of the density range on offer."""

STANDINGS = ("first", "0.1 %", "1 %", "10 %", "half", "all")
"""Ends of the range of ranks by contribution on offer, as shares of all features."""

COLUMNS = (
    "description", "top_tokens", "related", "weight", "mean_abs_contribution", "beats_null", "status", "density",
)  # fmt: skip
"""Columns of the list of features shown by default; the feature's number and layer are always shown."""


@dataclass(frozen=True)
class OverviewView:
    """The overview: the y axis of the scatter of words, and the order and the page of the continuations."""

    estimate: str = "implicit reward"
    written_by: str = "drawn"
    writing: int = 1


@dataclass(frozen=True)
class AccuracyView:
    """Accuracy: the scatter's axes, the word looked up, the probe's target, a list of gaps, the colour of texts.

    An empty string selects the first option.
    """

    word_axes: str = ""
    word: str = ""
    tau_target: str = ""
    tau_words: str = "all"
    gap_list: str = ""
    text_colour: str = ""


@dataclass(frozen=True)
class ValidationView:
    """Validation: the labeller, which features count as important, the label score, and the unit of shares."""

    labelled_by: str = ""
    weighty_by: str = ""
    label_score: str = "detection"
    share_of: str = "tokens"


@dataclass(frozen=True)
class FeaturesView:
    """The list of features: its filter, its order, its page, its columns, and what colours the map.

    `area` is an outline drawn on the map, as `app.components.feature.map` writes it.
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
    site: tuple[str, ...] = ()
    labelled: str = "any"
    tuned_only: bool = False
    find_by: str = "words"
    token_as: str = "any"


FILTERS = (
    "layer", "site", "sign", "related", "density", "find", "fires_on", "null", "drifts", "drifted", "standing",
    "least_stable", "least_detected", "has_note", "labelled", "tuned_only", "find_by", "token_as", "sort",
    "order",
)  # fmt: skip
"""Fields of FeaturesView that select and order the list and have a widget."""


@dataclass(frozen=True)
class FeatureView:
    """One feature; `feature` is None until it is chosen, and `examples` is a bucket's name.

    `walk` is the list that Previous and Next step through: the parameters of its FeaturesView, as a query string.
    """

    feature: int | None = None
    examples: str = "top"
    activation_values: bool = False
    walk: str = ""


@dataclass(frozen=True)
class InputsView:
    """The list of texts, the open text, the feature shown on its tokens, the ledger, and whether it is listed whole."""

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
    """The list of preference pairs, and the open pair."""

    said: str = ""
    kept: str = "sampled"
    half: str = "any"
    verdict: str = "any"
    tuned_verdict: str = "any"
    rank_by: str = "size of margin"
    towards: str = "descending"
    leaf: int = 1
    pair: int | None = None
    side_values: bool = False
    every_difference: bool = False


@dataclass(frozen=True)
class DisagreementsView:
    """One of three queues, of texts or words, on one side or both, and the feature that it is filtered by."""

    queue: str = "estimate against true"
    things: str = "texts"
    side: str = "any"
    responsible: int | None = None
    stretch: int = 1


@dataclass(frozen=True)
class DriftView:
    """Drift: what the scatter shows, and the table's filter, order and page."""

    plane: str = "contribution"
    became: str = "any"
    drift_layer: tuple[int, ...] = ()
    drift_find: str = ""
    drift_by: str = "drifted"
    drift_order: str = "descending"
    drift_page: int = 1
    drift_site: tuple[str, ...] = ()


@dataclass(frozen=True)
class RunsView:
    """Two runs: the other bundle, the report row, and the table of matched features."""

    other: str | None = None
    report: str | None = None
    match_by: str = "similarity"
    match_order: str = "descending"
    match_page: int = 1


@dataclass(frozen=True)
class TryView:
    """A typed text, what is done with it, and how: the features' scales and the sampling settings.

    `scales` are as `app.components.text.steering` writes them, and `also` is a feature that is offered at 1, as older
    links have it; `reader` is the model whose scores are shown.
    """

    typed: str = ""
    doing: str = "continue"
    written_as: str = "plain"
    scales: str = ""
    also: int | None = None
    samples: int = 20
    try_tokens: int = 30
    temperature: float = 1.0
    seed: int = 0
    reader: str = "tuned"
    tried_values: bool = False


@dataclass(frozen=True)
class QueueView:
    """A review list by name, and the position in it; `made_from` is a Features link to make a new list from.

    The reviewer's name is personal and is never part of a link.
    """

    audit_list: str = ""
    item: int = 1
    blind: bool = True
    part: str = "Review"
    made_from: str = ""
    question: str = "about the feedback"
    whole: bool = False


_TYPES: Mapping[str, str] = {
    field.name: str(field.type)
    for kind in (
        OverviewView,
        AccuracyView,
        ValidationView,
        FeaturesView,
        FeatureView,
        InputsView,
        PairsView,
        DisagreementsView,
        DriftView,
        RunsView,
        TryView,
        QueueView,
    )
    for field in fields(kind)
}
"""Fields of all pages with their types."""


def corrected_params() -> Params | None:
    """Return the URL's parameters as widgets can take them, each that they cannot left at its default; None if as is.

    Options become the words that are shown now, since Streamlit would drop one that it does not know from the URL.
    Numbers that are none, at which it fails, are left out, and so are empty values of anything but lists: a choice of
    one option would be of none.
    """
    params = {name: st.query_params.get_all(name) for name in st.query_params}
    lost = {name: values for name, values in params.items() if not _is_readable(name, values)}
    kept = {
        name: [WORDS.get(name, {}).get(value, value) for value in values]
        for name, values in params.items()
        if name not in lost and not (set(values) <= {""} and name in _TYPES and not _TYPES[name].startswith("tuple"))
    }
    if kept == params:
        return None
    st.session_state.address_lost = [f"{name}={value}" for name, values in lost.items() for value in values]
    return {name: values if len(values) > 1 else values[0] for name, values in kept.items()}


def take_lost() -> list[str]:
    """Return the parameters of the address that could not be read, once."""
    lost: list[str] = st.session_state.pop("address_lost", [])
    return lost


def _is_readable(name: str, values: list[str]) -> bool:
    """Return whether a parameter is a number where its page's field is one; empty ones stand for none."""
    type_ = _TYPES.get(name, "str")
    if not re.match(r"(int|float|tuple\[int)\b", type_) or values in ([], [""]):
        return True
    found = _decoded(values, type_)
    return found is not None and all(abs(n) < 2**53 for n in (found if isinstance(found, tuple) else (found,)))


def text_colour() -> str:
    """Return the text colour of the current theme, for figures."""
    return "#ece8df" if st.context.theme.type == "dark" else "#24221d"


def widget_key(name: str, *shown: object) -> str:
    """Return a widget key that depends on what is shown: a table that keeps its key over new rows eats a click."""
    return f"{name}_{zlib.crc32(repr(shown).encode()):08x}"


def current_view(kind: type[V], **unbound: Any) -> V:
    """Read a page's view from the widgets drawn in this run; fields in `unbound` are set to those values."""
    values = {field.name: st.session_state.get(field.name, field.default) for field in fields(kind)}  # type: ignore[arg-type]
    values |= unbound
    return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})


def set_param(name: str, value: str) -> None:
    """Set a URL parameter that no widget is bound to, or remove it if `value` is empty; for callbacks."""
    if value:
        st.query_params[name] = value
    elif name in st.query_params:
        del st.query_params[name]


def to_params(view: Any) -> Params:
    """Return the view as URL parameters, written as Streamlit's bound widgets write them, without defaults."""
    params: Params = {}
    for field in fields(view):
        value = getattr(view, field.name)
        if value == field.default:
            continue
        words = WORDS.get(field.name, {})
        if isinstance(value, tuple):
            params[field.name] = [words.get(part, str(part)) for part in value] or ""
        else:
            params[field.name] = str(value).lower() if isinstance(value, bool) else words.get(value, str(value))
    return params


def from_params(kind: type[V], params: Mapping[str, str | Sequence[str]]) -> V:
    """Build a view from URL parameters; what is missing or cannot be read gets its default."""
    values = {}
    for field in fields(kind):  # type: ignore[arg-type]
        raw = params.get(field.name)
        values_of = _VALUES.get(field.name, {})
        parts = [values_of.get(part, part) for part in ([raw] if isinstance(raw, str) else raw or [])]
        decoded = _decoded(parts, str(field.type)) if parts else None
        values[field.name] = field.default if decoded is None else decoded
    return kind(**values)


def href(page: str, view: Any, *, bundle: str | None = None) -> str:
    """Return a link to a view of a page, of the open bundle by default; relative, so that any base path works.

    Plain links are followed within the session (`app.widgets.navigation`) and are one step in the browser's history.
    `st.switch_page` puts the page's address without its parameters there too, so that Back would lose what was shown.
    """
    bundle = bundle_name() if bundle is None else bundle
    return f"{page}?{urlencode({'bundle': bundle, **to_params(view)}, doseq=True)}"


def feature_href(feature_id: int) -> str:
    """Return the link to one feature."""
    return href("feature", FeatureView(feature=feature_id))


def text_href(text_id: int) -> str:
    """Return the link to one text."""
    return href("inputs", InputsView(text=text_id))


def _decoded(parts: list[str], type_: str) -> Any:
    """Read text as a value of a field's type; None if it is not one."""
    try:
        if type_ == "tuple[int, ...]":
            return tuple(int(part) for part in parts)
        if type_ == "tuple[str, ...]":
            return tuple(part for part in parts if part)
        if type_ == "tuple[str, str]":
            return (parts[0], parts[1]) if len(parts) == 2 else None
        if type_ == "bool":
            return {"true": True, "false": False}.get(parts[-1].lower())
        if type_.startswith("float"):
            return float(parts[-1]) if math.isfinite(float(parts[-1])) else None
        return int(parts[-1]) if type_.startswith("int") else parts[-1]
    except ValueError:
        return None
