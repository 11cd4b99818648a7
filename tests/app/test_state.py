import dataclasses
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.session import bundles, permalinks
from app.session.option_words import WORDS
from app.session.permalinks import (
    AccuracyView,
    DisagreementsView,
    DriftView,
    FeaturesView,
    FeatureView,
    InputsView,
    OverviewView,
    PairsView,
    RunsView,
    TryView,
    ValidationView,
    from_params,
    to_params,
)
from tests.conftest import ROOT

KINDS = (
    OverviewView, AccuracyView, ValidationView, FeaturesView, FeatureView, InputsView, PairsView, DisagreementsView,
    DriftView, RunsView, TryView,
)  # fmt: skip

NUMBERS = st.integers(0, 10**9)
VIEWS = st.one_of(
    st.builds(OverviewView, estimate=st.text()),
    st.builds(
        AccuracyView,
        word_axes=st.text(),
        word=st.text(),
        tau_target=st.text(),
        tau_words=st.text(),
        gap_list=st.text(),
        text_colour=st.text(),
    ),
    st.builds(ValidationView, labelled_by=st.text(), weighty_by=st.text(), label_score=st.text(), share_of=st.text()),
    st.builds(
        FeaturesView,
        layer=st.lists(NUMBERS, min_size=1).map(tuple) | st.just(()),
        sign=st.text(),
        related=st.text(),
        density=st.tuples(st.sampled_from(permalinks.DENSITIES), st.sampled_from(permalinks.DENSITIES)),
        find=st.text(),
        fires_on=st.text(),
        null=st.text(),
        drifts=st.lists(st.text(min_size=1)).map(tuple),
        drifted=st.text(),
        standing=st.tuples(st.sampled_from(permalinks.STANDINGS), st.sampled_from(permalinks.STANDINGS)),
        least_stable=st.floats(0, 1),
        least_detected=st.floats(0, 1),
        area=st.text(),
        sort=st.text(),
        order=st.text(),
        page=NUMBERS,
        shown=st.lists(st.text(min_size=1)).map(tuple),
        with_map=st.booleans(),
        map_colour=st.text(),
    ),
    st.builds(
        FeatureView,
        feature=st.none() | NUMBERS,
        examples=st.text(),
        activation_values=st.booleans(),
        walk=st.text(),
    ),
    st.builds(
        InputsView,
        words=st.text(),
        texts=st.text(),
        split=st.text(),
        by=st.text(),
        direction=st.text(),
        sheet=NUMBERS,
        text=st.none() | NUMBERS,
        watch=st.none() | NUMBERS,
        token_values=st.booleans(),
        rated_from=st.none() | st.floats(allow_nan=False, allow_infinity=False),
        rated_to=st.none() | st.floats(allow_nan=False, allow_infinity=False),
        account=st.text(),
        every_part=st.booleans(),
    ),
    st.builds(
        PairsView,
        said=st.text(),
        kept=st.text(),
        half=st.text(),
        verdict=st.text(),
        rank_by=st.text(),
        towards=st.text(),
        leaf=NUMBERS,
        pair=st.none() | NUMBERS,
        side_values=st.booleans(),
        every_difference=st.booleans(),
    ),
    st.builds(
        DisagreementsView,
        queue=st.text(),
        things=st.text(),
        side=st.text(),
        responsible=st.none() | NUMBERS,
        stretch=NUMBERS,
    ),
    st.builds(
        DriftView, plane=st.text(), became=st.text(), drift_layer=st.lists(NUMBERS).map(tuple), drift_page=NUMBERS
    ),
    st.builds(RunsView, other=st.none() | st.text(), report=st.none() | st.text(), match_page=NUMBERS),
    st.builds(TryView, typed=st.text(), reader=st.text(), also=st.none() | NUMBERS, scales=st.text(), seed=NUMBERS),
)


def holds_values(view):
    """Tell whether no field holds the words that are shown for another value: a link means that value by them."""
    for name, words in WORDS.items():
        held = getattr(view, name, ())
        held = held if isinstance(held, tuple) else (held,)
        if any(word in held for value, word in words.items() if value != word):
            return False
    return True


VIEWS = VIEWS.filter(holds_values)


def test_words_that_are_shown_are_read_as_the_value_that_they_name():
    shown = from_params(FeaturesView, {"map_colour": "Density, base", "shown": ["Density, base"]})
    assert (shown.map_colour, shown.shown) == ("base_density", ("base_density",))
    assert not holds_values(FeaturesView(map_colour="Density, base")) and holds_values(shown)


@given(view=VIEWS)
def test_a_permalink_comes_back_as_it_went(view):
    assert from_params(type(view), to_params(view)) == view


@given(view=VIEWS, bundle=st.text())
def test_a_link_is_a_url_that_comes_back_too(view, bundle):
    from urllib.parse import parse_qs, urlsplit

    parts = urlsplit(permalinks.href("page", view, bundle=bundle))
    params = parse_qs(parts.query, keep_blank_values=True)
    assert parts.path == "page" and params.pop("bundle") == [bundle]
    assert from_params(type(view), params) == view


@pytest.mark.parametrize("kind", KINDS)
def test_defaults_stay_out_of_the_url(kind):
    assert to_params(kind()) == {}
    assert from_params(kind, {}) == kind()


@given(
    params=st.dictionaries(
        st.sampled_from(
            [
                "layer",
                "page",
                "density",
                "find",
                "feature",
                "text",
                "token_values",
                "watch",
                "rated_from",
                "pair",
                "other",
            ]
        ),
        st.text() | st.lists(st.text(), max_size=3),
    )
)
def test_any_url_is_some_view(params):
    for kind in KINDS:
        view = from_params(kind, params)
        assert from_params(kind, to_params(view)) == view


def test_options_are_shown_by_words_of_their_own():
    fields = {field.name for kind in KINDS for field in dataclasses.fields(kind)}
    for name, words in WORDS.items():
        assert name in fields and len(set(words.values())) == len(words), name
        assert not set(words.values()) & {value for value, word in words.items() if value != word}, name


@pytest.mark.parametrize("value", ["gone", "lost"])
def test_a_link_saved_before_an_option_had_another_name_works(explorer, bundle, value):
    at = explorer("drift", bundle, became=value)
    assert at.selectbox(key="became").value == "gone" and not at.exception
    at = explorer("features", bundle, drifts=value, shown=["weight", "Stability" if value == "lost" else "stability"])
    assert at.button_group(key="drifts").value == ["gone"] and not at.exception


def test_pages_share_no_parameter():
    names = [field.name for kind in KINDS for field in dataclasses.fields(kind)]
    assert len(names) == len(set(names)) and "bundle" not in names


def test_bundles_are_listed_from_folders_and_folders_of_folders(bundle, empty_bundle, tmp_path):
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    for name in ("b", "a"):
        (shelf / name).symlink_to(bundle)
    (shelf / ".a.writing").mkdir()
    (shelf / "notes").mkdir()
    found = bundles.listed_bundles(f"{shelf}{os.pathsep}{empty_bundle},{bundle}")
    assert [path.name for path in found.values()] == ["a", "b", "empty", "reviews"]


def test_bundles_of_one_name_are_told_apart(bundle, tmp_path):
    twin = tmp_path / "twin" / bundle.name
    twin.parent.mkdir()
    twin.mkdir()
    (twin / "manifest.json").write_text("{}")
    names = list(bundles.listed_bundles(f"{bundle},{twin}"))
    assert names == ["reviews", "twin/reviews"]


def test_a_folder_without_a_bundle_is_listed_so_that_it_can_be_complained_of(tmp_path):
    assert list(bundles.listed_bundles(str(tmp_path)).values()) == [tmp_path]
    assert bundles.listed_bundles(str(tmp_path / "gone")) == {}


def test_the_demos_are_offered_by_themselves_as_far_as_they_are_there(monkeypatch, tmp_path):
    monkeypatch.delenv("LFP_BUNDLES", raising=False)
    assert [path.relative_to(ROOT).as_posix() for path in bundles.DEMOS] == ["data/demo", "data/demo-helpful"]
    demos = [tmp_path / path.name for path in bundles.DEMOS]
    monkeypatch.setattr(bundles, "DEMOS", tuple(demos))
    for n_there, demo in enumerate([None, *demos]):
        if demo is not None:
            demo.mkdir()
        assert list(bundles.listed_bundles().values()) == demos[:n_there]
