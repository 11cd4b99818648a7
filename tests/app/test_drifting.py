"""Drift: its counts, its scatter, its table, and the questions behind them against naive ones."""

import dataclasses

import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.components.feature import drift
from app.components.html import panels
from app.session import permalinks
from lfp.bundle import queries
from lfp.bundle.store.connection import Store
from lfp.errors import ConfigError
from lfp.evaluation.results import STATUSES, ResultRow
from lfp.util.sanitize import escaped, shortened
from tests.app.reader import is_tame, whole
from tests.conftest import HOSTILE, rewrite

BLANK = dict.fromkeys(ResultRow.__dataclass_fields__) | {"report_row": "drift"}


def figure(**keys):
    return ResultRow(**{**BLANK, **keys})


def points(**changes):
    row = {"feature_id": [3, 4], "layer": [1, 1], "site": ["mlp_out", "resid_post"],
           "status": ["gone", "steady"], "sign_flipped": [True, None],
           "contribution": [0.02, 0.0], "contribution_base": [-0.01, 0.0], "density": [0.0, 0.1],
           "base_density": [0.2, 0.1], "description": ["praise", None]}  # fmt: skip
    return row | changes


def test_every_status_has_a_name_and_a_meaning():
    assert set(drift.STATUS_NAMES) == set(drift.MEANINGS) == set(STATUSES)


def test_counts_stand_beside_their_nulls():
    counted = figure(metric="count", inputs="sae", group="gone", value=21.0, ci_low=13.0, ci_high=31.0, null_high=17.0)
    mirror = figure(metric="count", inputs="base_sae", group="gone", value=1.0, ci_low=0.0, ci_high=3.0, null_high=2.0)
    part = figure(metric="carried_share", group="gone", value=0.12, ci_low=0.07, ci_high=0.22, null_high=0.5)
    heads, rows, beyond = drift.status_table({"gone": 21, "flipped": 2}, [counted, mirror, part])
    gone = dict(zip(heads[1:], rows[4][1:], strict=False))
    assert rows[4][1:] == ["21 [13, 31]", "up to 17", "1 [0, 3]", "up to 2", "12 % [7.0 %, 22 %]", "up to 50 %"]
    assert gone["measured in the base model’s dictionary"] == "1 [0, 3]"
    assert rows[5][1] == "2" and rows[0][1:3] == ["0", "–"]
    assert beyond == []
    above = [dataclasses.replace(part, value=0.6), figure(metric="sign_flips", value=3.0, null_high=2.0)]
    assert drift.status_table({}, [counted, mirror, *above])[2] == [4, 5]
    exchanged = figure(metric="count", inputs="sae", group="gone", value=21.0, null_mean=11.0)
    assert drift.status_table({}, [exchanged])[1][4][1:3] == ["21", "about 11"]


@pytest.mark.parametrize(
    ("counts", "says"),
    [
        ({"steady": 3}, "All 3 features fire as before."),
        ({"steady": 1, "born": 1}, "Of 2 features, 1 new."),
        ({"steady": 1, "born": 1, "weakened": 4, "gone": 2}, "Of 8 features, 1 new, 4 weakened and 2 lost."),
    ],
)
def test_the_sentence_is_read_off_the_counts(counts, says):
    assert drift.summary(counts, []) == says


def test_features_that_never_fire_are_counted_apart():
    counts, counted = (
        {"steady": 50, "weakened": 4},
        figure(metric="count", inputs="sae", group="steady", value=16.0, n=20),
    )
    assert drift.summary(counts, [counted]) == (
        "Of 20 features that fire in either model, 4 weakened. 34 of 54 never fire."
    )
    _, rows, beyond = drift.status_table(counts, [counted])
    assert rows[-1][:2] == ["silent: fires in neither model", "34"] and beyond == []
    assert "never fire" not in drift.summary(counts, [dataclasses.replace(counted, n=54)])
    assert "All 20 features that fire in either model fire as before. 34 of 54" in drift.summary(
        {"steady": 54}, [counted]
    )


@given(text=st.text(max_size=40) | st.sampled_from(HOSTILE))
def test_names_on_the_scatter_are_escaped(text):
    figure_ = drift.scatter(points(description=[text, text]), plane="contribution")
    named = figure_.data[0].customdata[0][1]
    assert escaped(shortened(text or "no label", 52)) in named
    is_tame(f"<p>{named}</p>")


@pytest.mark.parametrize("plane", drift.PLANES)
@pytest.mark.parametrize("n", [0, 1, 2])
def test_scatters_of_any_size(plane, n):
    made = drift.scatter({name: values[:n] for name, values in points().items()}, plane=plane)
    assert sum(len(trace.x) for trace in made.data) == n
    assert [mark[0] for trace in made.data for mark in trace.customdata] == [3, 4][:n]


def test_a_density_of_zero_is_on_the_scatter_and_a_flip_is_rimmed():
    gone = next(trace for trace in drift.scatter(points(), plane="density").data if trace.name == "lost")
    assert 0 < gone.y[0] < 0.1 and gone.customdata[0][3] == "0.00000"
    assert gone.marker.line.width[0] > 1


@given(value=st.floats(-10, 10), other=st.floats(-10, 10))
def test_the_scale_of_roots_keeps_order_and_sign(value, other):
    assert (drift.signed_root(value) < drift.signed_root(other)) == (value < other) or abs(value - other) < 1e-9
    assert drift.signed_root(value) ** 2 == pytest.approx(abs(value))


@pytest.mark.parametrize(
    "wanted",
    [
        queries.drift.DriftFilter(),
        queries.drift.DriftFilter(status="weakened", layers=(0, 2)),
        queries.drift.DriftFilter(status="flipped"),
        queries.drift.DriftFilter(search="film"),
        queries.drift.DriftFilter(search="17"),
        queries.drift.DriftFilter(status="nonsense"),
    ],
)
@pytest.mark.parametrize("by", ["drifted", "risen", "unexplained", "id"])
def test_a_page_of_drift_is_what_a_loop_over_the_rows_finds(bundle, wanted, by):
    with Store.open(bundle) as store:
        everything = store.rows("SELECT * FROM drift JOIN feature_table USING (feature_id) ORDER BY feature_id")
        found = queries.drift.drift(store, wanted, order=queries.common.Order(by), limit=10, offset=2)
        n = queries.drift.count_drift(store, wanted)

    def passes(row):
        words = [row["description"] or "", *(item["token"] for item in row["top_tokens"])]
        named = any(wanted.search in text.lower() for text in words) or str(row["feature_id"]) == wanted.search
        of_status = wanted.status == "any" or wanted.status == row["status"]
        of_status = of_status or (wanted.status == "flipped" and row["sign_flipped"])
        return of_status and (not wanted.layers or row["layer"] in wanted.layers) and named

    sizes = {"drifted": lambda row: abs(row["drifted_contribution"]), "id": lambda row: row["feature_id"],
             "risen": lambda row: row["drifted_contribution"],
             "unexplained": lambda row: abs(row["unexplained_contribution"])}  # fmt: skip
    kept = sorted(filter(passes, everything), key=lambda row: (-sizes[by](row), row["feature_id"]))
    assert n == len(kept)
    assert found["feature_id"].to_pylist() == [row["feature_id"] for row in kept[2:12]]


def test_a_nulls_home_is_the_feature_it_is_of(bundle):
    with Store.open(bundle) as store:
        rows = queries.drift.drift(store, queries.drift.DriftFilter(), order=queries.common.Order("id"))
        figures = [row for row in queries.run.figures(store, "drift") if row.metric == "drifted_contribution"]
    nulls = dict(zip(rows["feature_id"].to_pylist(), rows["drifted_null"].to_pylist(), strict=True))
    assert {f"feature:{key}": value for key, value in nulls.items() if value} == {f.group: f.null_high for f in figures}


def test_the_scatter_is_of_the_largest(bundle):
    with Store.open(bundle) as store:
        few = queries.drift.drift_points(store, limit=7)["feature_id"].to_pylist()
        ranked = queries.drift.drift(store, queries.drift.DriftFilter(), order=queries.common.Order("drifted"), limit=7)
    assert few == ranked["feature_id"].to_pylist()


def test_an_unknown_order_is_refused(bundle):
    with Store.open(bundle) as store, pytest.raises(ConfigError, match="choose one of drifted"):
        queries.drift.drift(store, queries.drift.DriftFilter(), order=queries.common.Order("1; DROP"))


def test_the_page_shows_counts_scatter_and_table(explorer, bundle):
    at = explorer("drift", bundle, became="weakened", drift_by="risen", drift_order="ascending")
    html = whole(at)
    assert (
        "Of 60 features" in html
        and "measured in the base model’s dictionary" in html
        and "a dark rim marks a flipped sign" in html
    )
    shown = at.dataframe[0].value
    assert set(shown["status"]) == {"weakened"} and shown["drifted_contribution"].is_monotonic_increasing


def test_a_feature_is_opened_from_drift(explorer, bundle):
    at = explorer("drift", bundle)
    first = at.dataframe[0].value["feature_id"].tolist()[0]
    box = at.selectbox(key="open_drifted")
    box.select(box.options[0])
    assert f'href="feature?bundle=reviews&amp;feature={first}"' in whole(at.run())


def test_drift_without_figures_keeps_its_counts(explorer, copied_bundle):
    rewrite(copied_bundle, "results", lambda rows: rows.filter(pc.not_equal(rows["report_row"], "drift")))
    html = whole(explorer("drift", copied_bundle))
    assert "Of 60 features" in html and "of the change in the estimate" not in html


def test_a_bundle_without_drift_says_so(explorer, copied_bundle):
    rewrite(copied_bundle, "drift", lambda rows: rows.slice(0, 0))
    assert "This bundle holds no drift" in whole(explorer("drift", copied_bundle))


def test_a_permalink_of_drift_restores_it(explorer, bundle):
    view = permalinks.DriftView("density", "steady", (1,), "film", "weight", "ascending")
    at = explorer("drift", bundle, **permalinks.to_params(view))
    whole(at)
    assert at.text_input(key="drift_find").value == "film" and at.selectbox(key="became").value == "steady"
    assert at.button_group(key="plane").value == "density" and at.button_group(key="drift_layer").value == [1]


def test_the_tables_of_drift_are_tame(bundle):
    is_tame(panels.table(*drift.status_table({}, [])[:2]))
