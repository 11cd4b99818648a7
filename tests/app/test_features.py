"""The Features page: filters, presets, columns, the map and its areas, and the walk through a list."""

from __future__ import annotations

import dataclasses
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.components.feature import columns
from app.components.feature import map as feature_map
from app.components.feature.regions import Region, name_regions
from app.session import permalinks
from app.session.permalinks import FeaturesView
from app.widgets import filters, search
from app.widgets.chips import chips
from lfp.bundle import queries
from lfp.bundle.queries.common import Order
from lfp.bundle.queries.feature_map import Regions
from lfp.bundle.queries.features import FeatureFilter
from lfp.bundle.store.connection import Store
from lfp.evaluation.results import STATUSES
from lfp.util.sanitize import escaped, shortened
from tests.app.reader import whole, words_of
from tests.conftest import HOSTILE

POINTS = st.tuples(st.floats(-9, 9), st.floats(-9, 9))
LINES = st.lists(POINTS, min_size=3, max_size=120)
RIGHT = "0,-9;9,-9;9,9;0,9"


def expected(bundle, view):
    with Store.open(bundle) as store:
        rows = queries.features.features(store, filters.filter_of(view), order=filters.order_of(view), limit=25)
        return rows["feature_id"].to_pylist()


def shown(at):
    return at.dataframe[0].value["feature_id"].tolist()


@given(line=LINES)
def test_a_drawn_line_keeps_few_of_its_corners(line):
    kept = feature_map.simplified(line)
    assert len(kept) == min(len(line), feature_map.MOST_CORNERS) and set(kept) <= set(line)
    assert kept == tuple(line) or len(line) > feature_map.MOST_CORNERS


def test_a_circle_stays_round():
    turns = np.linspace(0, 2 * np.pi, 200, endpoint=False)
    kept = feature_map.simplified(list(zip(np.cos(turns).tolist(), np.sin(turns).tolist(), strict=True)))
    xs, ys = np.array(kept).T
    size = abs(np.dot(xs, np.roll(ys, 1)) - np.dot(ys, np.roll(xs, 1))) / 2
    assert size == pytest.approx(np.pi, rel=0.02)


@given(corners=st.lists(POINTS, min_size=3, max_size=24))
def test_an_area_is_four_digits_in_a_link(corners):
    found = feature_map.from_text(feature_map.to_text(corners))
    assert np.allclose(found, corners, rtol=1e-3, atol=1e-9)


@pytest.mark.parametrize("text", ["", "1,2;3,4", "1,2;3,4;x,y", "1;2;3", "nan,1;2,3;4,5", "1,2;" * 99 + "1,2"])
def test_what_states_no_area_is_none(text):
    assert feature_map.from_text(text) == ()


def test_the_last_box_or_lasso_counts():
    lasso = {"x": [0, 1, 1], "y": [0, 0, 1]}
    box = {"x": [5, 6, 6], "y": [5, 5, 6]}
    assert feature_map.drawn_corners({"lasso": [box, lasso], "box": []}) == ((0, 0), (1, 0), (1, 1))
    assert feature_map.drawn_corners({"box": [{"x": [2, 1], "y": [3, 4]}]}) == ((1, 3), (2, 3), (2, 4), (1, 4))
    assert feature_map.drawn_corners({}) == feature_map.drawn_corners({"points": [{}], "box": [], "lasso": []}) == ()


@pytest.mark.parametrize("name", queries.features.PRESETS)
def test_a_preset_is_a_view_that_asks_for_it(name):
    preset = queries.features.PRESETS[name]
    view = filters.preset_view(preset, FeaturesView())
    assert filters.filter_of(view) == preset.wanted and filters.order_of(view) == preset.order


VIEWS = st.builds(
    FeaturesView,
    layer=st.lists(st.integers(0, 3), max_size=2).map(tuple),
    sign=st.sampled_from(["any", "positive"]),
    find=st.text(),
    find_by=st.sampled_from(search.WAYS),
    drifts=st.lists(st.sampled_from(STATUSES), unique=True).map(tuple),
    labelled=st.sampled_from(["any", "yes", "no"]),
    tuned_only=st.booleans(),
    least_stable=st.sampled_from([0.0, 0.35]),
    sort=st.sampled_from(sorted(queries.features.FEATURE_SORTS)),
    order=st.sampled_from(["descending", "ascending"]),
    page=st.integers(1, 9),
    shown=st.just(("weight",)),
    area=st.sampled_from(["", RIGHT]),
)


@given(view=VIEWS)
def test_a_walk_is_the_list_without_its_looks(view):
    walk = filters.to_walk(view)
    found = filters.from_walk(walk)
    assert walk and (filters.filter_of(found), filters.order_of(found)) == (
        filters.filter_of(view),
        filters.order_of(view),
    )
    assert (found.page, found.shown) == (1, permalinks.COLUMNS)


def test_a_view_that_says_nonsense_lets_all_pass():
    view = FeaturesView(
        density=("x", "y"), standing=("x", "y"), drifted="x", area="x", sign="x", sort="gone", order="x"
    )
    assert filters.filter_of(view) == dataclasses.replace(FeatureFilter(), sign="x")
    assert filters.order_of(view) == Order("contribution")


def test_every_column_is_in_the_catalogue_and_explained():
    assert set(columns.COLUMNS) == set(queries.features.FEATURE_COLUMNS)
    assert all(columns.meaning(name) for name in columns.COLUMNS)
    assert set(permalinks.COLUMNS) < set(columns.COLUMNS) and set(queries.features.FEATURE_NUMBERS) >= columns.SIGNED


def points(n, value):
    return pa.table({
        "feature_id": list(range(n)), "x": np.arange(n, dtype=np.float32), "y": np.ones(n, np.float32),
        "value": pa.array([value] * n, pa.float32()), "description": [HOSTILE[i % len(HOSTILE)] for i in range(n)],
    })  # fmt: skip


@pytest.mark.parametrize("n", [0, 1, 5, 4000])
@pytest.mark.parametrize("value", [None, 0.0, -2.5])
def test_a_map_of_any_size_is_escaped(n, value):
    corners = ((0, 0), (1, 0), (1, 1))
    figure = feature_map.figure(points(n, value), points(n, None), colour="weight", area=corners, ink="#000")
    names = [f"<b>#{i}</b> {escaped(shortened(HOSTILE[i % 5] or 'no label', 60))}" for i in range(n)]
    assert list(figure.data[1].text) == names and list(figure.data[1].customdata) == list(range(n))
    assert figure.layout.shapes[0].path == "M0,0L1,0L1,1Z" and figure.layout.dragmode == "lasso"


@given(values=st.lists(st.floats(-1e6, 1e6, width=32) | st.just(np.nan), max_size=40), is_signed=st.booleans())
def test_colours_have_two_ends(values, is_signed):
    low, high = feature_map.limits(np.array(values, np.float32), is_signed=is_signed)
    assert low < high or low == pytest.approx(high)
    assert not is_signed or low == -high


@pytest.mark.parametrize(
    "view",
    [
        FeaturesView(null="beats", sort="weight"),
        FeaturesView(drifts=("weakened", queries.features.FLIPPED), sort="drift"),
        FeaturesView(drifted="10 %", order="ascending"),
        FeaturesView(standing=("10 %", "half"), sort="id"),
        FeaturesView(least_stable=0.5, least_detected=0.7),
        FeaturesView(fires_on="hated"),
        FeaturesView(area=RIGHT, sort="max_activation"),
    ],
    ids=lambda view: "-".join(permalinks.to_params(view)),
)
def test_a_permalink_restores_a_list(explorer, bundle, view):
    at = explorer("features", bundle, **permalinks.to_params(view))
    whole(at)
    assert shown(at) == expected(bundle, view) and shown(at)


def test_filters_behind_the_button_are_counted(explorer, bundle):
    at = explorer("features", bundle, drifts="weakened", least_stable="0.3")
    assert next(element.proto.popover.label for element in at.get("popover")) == "More filters (2)"


def test_columns_are_chosen(explorer, bundle):
    at = explorer("features", bundle, shown=["stability", "drift_rank"])
    listed = ["feature_id", "mean_abs_contribution", "layer", "drift_rank", "stability"]
    assert list(at.dataframe[0].value.columns) == listed
    at.multiselect(key="shown").select("x").run()
    assert list(at.dataframe[0].value.columns) == [*listed, "x"]


@pytest.mark.parametrize("sort", queries.features.FEATURE_SORTS)
def test_the_sorted_column_follows_the_name(sort):
    listed = columns.in_order(permalinks.COLUMNS, sort=sort)
    by = columns.sorted_column(sort)
    first = list(dict.fromkeys(["feature_id", "description", by]))
    assert list(listed[: len(first)]) == first and set(listed) == {by, *columns.ALWAYS, *permalinks.COLUMNS}


def test_the_sorted_column_is_marked(explorer, bundle):
    at = explorer("features", bundle, sort="q", order="ascending")
    assert list(at.dataframe[0].value.columns)[:3] == ["feature_id", "description", "q"]
    assert '"label": "False discovery rate \\u2191"' in at.dataframe[0].proto.columns


def test_numbers_have_significant_digits_and_shares_are_per_cent(bundle):
    formats = [column.format for column in columns.COLUMNS.values() if column.kind in ("number", "share")]
    assert set(formats) == {"#%d", "%d", "localized", "%.3g", "%+.3g", "%.3g %%"}
    with Store.open(bundle) as store:
        rows = queries.features.features(store, FeatureFilter(), order=Order("id"), columns=("density",), limit=5)
    shown_rows = columns.for_screen(rows, ("density",))["density"].to_pylist()
    assert shown_rows == pytest.approx([100 * share for share in rows["density"].to_pylist()])


@given(view=VIEWS)
def test_every_chip_removes_one_filter_and_together_they_remove_all(view):
    left, found = view, list(chips(view))
    assert len({chip.says for chip in found}) == len(found)
    for _ in found:
        left = next(chips(left)).without
    assert not list(chips(left))
    assert filters.filter_of(left) == FeatureFilter() and filters.order_of(left) == filters.order_of(view)
    assert (left.find_by, left.token_as) == ("words", "any") or not view.find


def test_a_chip_is_removed_alone(explorer, bundle):
    at = explorer("features", bundle, sign="negative", related="no", page="2", area=RIGHT, sort="weight")
    labels = [button.label for button in at.button if (button.key or "").startswith("chip_")]
    assert labels == ["negative weight", "not related", "area on the map"]
    at.button(key="chip_1").click().run()
    whole(at)
    assert shown(at) == expected(bundle, FeaturesView(sign="negative", area=RIGHT, sort="weight"))
    assert "related" not in at.query_params and at.query_params["area"] == RIGHT
    at.button(key="clear_chips").click().run()
    assert shown(at) == expected(bundle, FeaturesView(sort="weight")) and "area" not in at.query_params


def test_presets_that_list_nothing_are_not_offered(explorer, bundle, empty_bundle):
    with Store.open(bundle) as store:
        offered = queries.features.presets(store)
        counts = {name: queries.features.count_features(store, queries.features.PRESETS[name].wanted)
                  for name in queries.features.PRESETS}  # fmt: skip
    assert offered and all(counts[name] for name in offered)
    assert {"by credit", "by weight", "by change"} <= set(offered)
    at = explorer("features", bundle)
    assert at.button_group(key="preset").options == offered
    with Store.open(empty_bundle) as store:
        assert queries.features.presets(store) == []


def test_every_column_at_once(explorer, bundle):
    at = explorer("features", bundle, shown=list(queries.features.FEATURE_COLUMNS))
    whole(at)
    assert list(at.dataframe[0].value.columns) == list(columns.in_order(columns.COLUMNS, sort="contribution"))


def test_a_preset_sets_the_widgets_and_lets_them_go(explorer, bundle):
    at = explorer("features", bundle, sign="positive", page="2", area=RIGHT)
    assert at.button_group(key="preset").value is None
    at.button_group(key="preset").set_value("labelled related, unimportant").run()
    assert (at.selectbox(key="related").value, at.selectbox(key="null").value) == ("yes", "within")
    assert at.selectbox(key="sign").value == "any" and "area" not in at.query_params
    preset = queries.features.PRESETS["labelled related, unimportant"]
    assert preset.says in whole(at) and at.button_group(key="preset").value == "labelled related, unimportant"
    assert shown(at) == expected(bundle, filters.preset_view(preset, FeaturesView()))
    at.button_group(key="preset").set_value(None).run()
    assert shown(at) == expected(bundle, FeaturesView())


def test_a_preset_keeps_the_layer_and_is_marked_in_it(explorer, bundle):
    at = explorer("features", bundle, layer="1", sign="positive")
    at.button_group(key="preset").set_value("by credit").run()
    view = filters.preset_view(queries.features.PRESETS["by credit"], FeaturesView(layer=(1,)))
    assert shown(at) == expected(bundle, view) and view.layer == (1,) and view.sign == "any"
    assert at.button_group(key="preset").value == "by credit"
    at.button_group(key="preset").set_value(None).run()
    assert shown(at) == expected(bundle, FeaturesView(layer=(1,)))


@pytest.mark.parametrize("name", ["by credit", "unlabelled", "grew most in tuning"])
def test_a_link_to_a_preset_marks_it(explorer, bundle, name):
    view = filters.preset_view(queries.features.PRESETS[name], FeaturesView())
    at = explorer("features", bundle, **permalinks.to_params(view))
    assert at.button_group(key="preset").value == name and queries.features.PRESETS[name].says in whole(at)


def test_an_area_survives_sort_and_page_and_is_cleared(explorer, bundle):
    at = explorer("features", bundle, area=RIGHT)
    assert "within the area drawn on the map" in whole(at)
    at.selectbox(key="sort").set_value("density").run()
    assert shown(at) == expected(bundle, FeaturesView(area=RIGHT, sort="density"))
    assert at.query_params["area"] == RIGHT
    next(button for button in at.button if button.label == "Clear the area").click().run()
    assert "area" not in at.query_params and shown(at) == expected(bundle, FeaturesView(sort="density"))


def test_a_filter_starts_at_the_first_page(explorer, bundle):
    at = explorer("features", bundle, page="3", sort="id", order="ascending")
    assert shown(at) == list(range(50, 60))
    at.selectbox(key="related").set_value("yes").run()
    assert shown(at) == expected(bundle, FeaturesView(related="yes", sort="id", order="ascending"))


def test_nothing_found_leads_back(explorer, bundle):
    at = explorer("features", bundle, find="zzzz", area=RIGHT)
    assert "No matches" in whole(at) and 'href="features?bundle=reviews"' in words_of(at)
    next(button for button in at.button if button.label == "Clear the area").click()
    whole(at.run())


def test_the_map_can_be_put_away(explorer, bundle):
    assert not explorer("features", bundle, with_map="false").get("plotly_chart")
    assert len(explorer("features", bundle).get("plotly_chart")) == 1


def test_a_map_of_a_large_bundle_is_a_density_below_the_points(bundle):
    with Store.open(bundle) as store:
        wanted = FeatureFilter(sign="negative")
        regions = (Region(0.1, 0.2, "“film” 40 %", "4 of 10"),)
        density = queries.feature_map.density(store, FeatureFilter())
        rows = queries.features.feature_points(store, wanted, colour="weight")
    figure = feature_map.figure(rows, density, colour="weight", area=(), ink="#24221d", regions=regions)
    assert (figure.data[0].type, figure.data[1].type) == ("heatmap", "scattergl")
    assert np.nansum(np.expm1(figure.data[0].z)) == pytest.approx(60)
    assert [(note.text, note.hovertext) for note in figure.layout.annotations] == [("<b>“film” 40 %</b>", "4 of 10")]


def made_regions(at, are_active):
    n = len(at)
    return Regions(np.zeros((2, 2)), np.bincount(at, minlength=2), tuple(range(n)), np.array(at), np.array(are_active))


def test_a_region_is_named_by_what_its_features_share_beyond_chance():
    named = {n: f"strongest on “{'film' if n < 12 else 'word' + chr(97 + n % 20)}”" for n in range(60)}
    regions = made_regions([0] * 20 + [1] * 40, [True] * 60)
    (found,) = name_regions(regions, named)
    assert found.name == "“film” 60 %"
    assert found.says.startswith("The names of 12 of 20 active features here have “film”, 0 % of those elsewhere.")
    assert name_regions(regions, dict.fromkeys(range(60), "“film”")) == ()
    assert name_regions(regions, dict.fromkeys(range(60))) == ()
    spread = {n: "“film”" if n % 5 == 0 else "“other”" for n in range(60)}
    assert name_regions(regions, spread) == ()


def test_features_that_never_fire_name_no_region():
    regions = made_regions([0] * 20 + [1] * 40, [False] * 60)
    assert name_regions(regions, dict.fromkeys(range(60), "never active")) == ()


def test_a_map_of_many_says_that_it_is_a_part(explorer, bundle, monkeypatch):
    whole_map = queries.features.feature_points

    def feature_points(store, wanted, *, colour, limit):
        return whole_map(store, wanted, colour=colour, limit=min(limit, 7))

    monkeypatch.setattr(queries.features, "feature_points", feature_points)
    assert "The 7 of 60 that contribute most." in whole(explorer("features", bundle, map_colour="density"))


def walk_of(bundle, view, at):
    ids = expected(bundle, view)
    return ids, explorer_params(ids[at], view)


def explorer_params(feature, view):
    return permalinks.to_params(permalinks.FeatureView(feature=feature, walk=filters.to_walk(view)))


def press(at, label):
    next(button for button in at.button if button.label == label).click()
    return at.run()


def test_previous_and_next_walk_the_list(explorer, bundle):
    view = FeaturesView(sign="negative", sort="weight", order="ascending")
    ids, params = walk_of(bundle, view, 1)
    at = explorer("feature", bundle, **params)
    assert f"2 of {len(ids)} in the list" in whole(at) or len(ids) == 25
    assert press(at, "Next").number_input(key="feature").value == ids[2]
    at = press(press(at, "Previous"), "Previous")
    assert at.number_input(key="feature").value == ids[0]
    assert next(button for button in at.button if button.label == "Previous").disabled
    links = [part.split('"')[0] for part in words_of(at).split('href="') if "Back to the list" in part[:400]]
    assert any(
        permalinks.from_params(FeaturesView, parse_qs(urlsplit(link.replace("&amp;", "&")).query)) == view
        for link in links
    )


def test_a_feature_outside_its_list_is_said_so(explorer, bundle):
    view = FeaturesView(sign="negative")
    outside = expected(bundle, FeaturesView(sign="positive"))[0]
    at = explorer("feature", bundle, **explorer_params(outside, view))
    assert "Not in the list that you came from." in whole(at)
    assert press(at, "Next").number_input(key="feature").value == expected(bundle, view)[0]


@pytest.mark.parametrize("walk", ["%%%", "sort=DROP&order=?", "page=x&area=1,2", "drifts=none", "find=zzzz"])
def test_any_walk_gives_a_page(explorer, bundle, walk):
    whole(explorer("feature", bundle, feature="5", walk=walk))


def test_a_row_leads_to_a_feature_with_its_list(explorer, bundle):
    at = explorer("features", bundle, sign="negative")
    box = at.selectbox(key="open_feature")
    box.select(box.options[0]).run()
    assert f"feature={shown(at)[0]}&amp;walk=sign%3Dnegative" in words_of(at)


def test_notes_that_cannot_be_read_are_not_taken_for_none(explorer, bundle, monkeypatch):
    monkeypatch.setenv("LFP_AUDIT_URL", "sqlite:////proc/none/audits.sqlite")
    html = whole(explorer("features", bundle, has_note="true"))
    assert "Which features have a note is not known" in html and "its folder is not there" in html
    assert "No matches" not in html and "60 features" in whole(explorer("features", bundle))


RANKED = {
    "token": ("token:hated", "hated", queries.search.by_token),
    "meaning": ("meaning: the film", "the film", queries.search.by_meaning),
    "sentence": ("sentence: I hated the film", "I hated the film", queries.search.by_stored_words),
}


@pytest.mark.parametrize("way", RANKED)
def test_a_ranked_search_lists_what_it_found_best_first(explorer, bundle, way):
    written, text, query = RANKED[way]
    with Store.open(bundle) as store:
        found = query(store, text)
    for params in ({"find": written}, {"find": text, "find_by": way}):
        at = explorer("features", bundle, sort="Best match", **params)
        assert found.says in whole(at).replace("&amp;", "&")
        table = at.dataframe[0].value
        assert table["feature_id"].tolist() == list(found.ids[:25]) and found.ids
        assert list(table.columns)[:4] == ["feature_id", "description", "match", "matched"]
        assert table["match"].tolist() == pytest.approx(found.scores[:25])
        assert table["matched"].tolist() == list(found.whys[:25])


def test_a_search_sorts_by_match_and_its_end_by_contribution(explorer, bundle):
    at = explorer("features", bundle, page="2")
    at.button_group(key="find_by").set_value("meaning").run()
    assert at.selectbox(key="sort").value == "contribution"
    at.text_input(key="find").input("hated").run()
    assert at.selectbox(key="sort").value == "match"
    with Store.open(bundle) as store:
        assert shown(at) == list(queries.search.by_meaning(store, "hated").ids[:25])
    at.button(key="chip_0").click().run()
    whole(at)
    assert at.selectbox(key="sort").value == "contribution" and shown(at) == expected(bundle, FeaturesView())
    assert at.button_group(key="find_by").value == "words"


def test_the_role_of_a_token_is_chosen(explorer, bundle):
    with Store.open(bundle) as store:
        token = store.rows("SELECT promotes[1].token AS token FROM feature_table WHERE len(promotes) > 0")[0]["token"]
        found = queries.search.by_token(store, token, role="promotes")
    at = explorer("features", bundle, find=token, find_by="token", token_as="promotes", sort="Best match")
    whole(at)
    assert shown(at) == list(found.ids[:25]) and found.ids


def test_a_walk_goes_through_a_ranked_search(explorer, bundle):
    view = FeaturesView(find="the film", find_by="meaning", sort="match")
    with Store.open(bundle) as store:
        ids = queries.search.by_meaning(store, "the film").ids
    at = explorer("feature", bundle, **explorer_params(ids[1], view))
    assert f"2 of {len(ids)} in the list" in whole(at)
    assert press(at, "Previous").number_input(key="feature").value == ids[0]


def test_a_search_that_finds_nothing_says_what_was_searched(explorer, bundle):
    html = whole(explorer("features", bundle, find="zzzzqqq", find_by="sentence"))
    assert "No model was run" in html and "Not in them: zzzzqqq" in html and "No matches" in html
    assert "This bundle carries no models" in html and "--set artifacts=true" in html


@pytest.mark.parametrize(
    ("find", "find_by", "result"),
    [
        ("TOKEN: a b ", "words", ("token", "a b")), ("token:", "words", ("words", "")), ("", "meaning", ("words", "")),
        ("x", "nonsense", ("words", "x")), ("meaning:x", "token", ("meaning", "x")),
        ("a: b", "words", ("words", "a: b")),
    ],
)  # fmt: skip
def test_the_box_itself_says_how_to_search(find, find_by, result):
    assert search.wanted(FeaturesView(find=find, find_by=find_by)) == result
