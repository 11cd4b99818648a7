"""What tuning did to each feature: counts with their nulls, base against tuned, and a table."""

import streamlit as st

from app.components.charts import charts
from app.components.feature import drift
from app.components.html import panels, tables
from app.components.html.numbers import count
from app.session import cache, permalinks
from app.session.cache import ask
from app.widgets import frame
from lfp.bundle import queries

PAGE, POINTS = 25, 2000


def summary(store, figures):
    counts = ask(queries.run.drift_counts, store)
    heads, rows = drift.status_table(counts, figures)
    st.html(
        panels.table(heads, rows, strong=drift.beating(figures))
        + panels.note(
            "[95 % interval]. Chance for counts: the two dictionaries dealt at random, one read backwards. Chance for "
            "parts and flips: the probe’s weights dealt anew over the features. Bold passes it."
        )
    )


def scatter(store):
    st.subheader("Base against tuned")
    plane = st.segmented_control(
        "Show", list(drift.PLANES), default="contribution", required=True, key="plane", bind="query-params"
    )
    rows = ask(queries.run.drift_points, store, limit=POINTS)
    figure = drift.scatter(rows.to_pydict(), plane=plane)
    event = st.plotly_chart(
        figure,
        config=charts.CONFIG,
        key=f"drift_chart_{plane}",
        on_select="rerun",
        selection_mode="points",
    )
    total = store.manifest.tables["drift"].rows
    which = f"the {count(POINTS)} that changed most of {count(total)}" if total > POINTS else f"all {count(total)}"
    st.html(
        panels.note(
            f"A point is a feature, {which}. On the dotted line nothing changed; a dark rim marks a flipped sign. "
            "Click a point to open it."
        )
    )
    points = event.selection.points
    return points[0]["customdata"][0] if points else None


def filters(store):
    find, layer = st.columns([3, 2], vertical_alignment="bottom")
    hint = "words of a description, a token, or a number"
    find.text_input("Find", key="drift_find", bind="query-params", type="search", placeholder=hint)
    layers = ask(queries.features.feature_layers, store)
    layer.segmented_control("Layers", layers, selection_mode="multi", key="drift_layer", bind="query-params")
    row = st.container(horizontal=True, vertical_alignment="bottom", gap="medium")
    bound = {"bind": "query-params", "width": 160}
    row.selectbox("Became", ["any", *drift.STATUSES, "flipped"], key="became", **bound)
    row.selectbox("Sort by", list(queries.run.DRIFT_SORTS), key="drift_by", help=SORTED, **bound)
    row.selectbox("Order", ["descending", "ascending"], key="drift_order", **bound)
    return permalinks.view_of(permalinks.DriftView)


SORTED = "Drifted, unexplained and contributions sort by size, risen by the signed change."


def columns():
    number, words = st.column_config.NumberColumn, st.column_config.TextColumn
    small = {"format": "%+.2g", "width": 92}
    return {
        "feature_id": number("Feature", format="#%d", width=75, pinned=True),
        "layer": number("Layer", width=58),
        "description": words("Description", width=215),
        "top_tokens": st.column_config.ListColumn("Top tokens", width=150),
        "status": words("Became", width=100),
        "sign_flipped": words("Sign", width=65),
        "drifted_contribution": number("Drifted", help="Contribution a token, tuned minus base", **small),
        "drifted_null": number("Chance", format="%.2g", width=80, help="What chance reaches at its rank"),
        "contribution_base": number("Base", help="Weight times mean activation, base model", **small),
        "contribution": number("Tuned", help="The same, tuned model", **small),
        "weight_base": number("Weight, base", format="%+.3f", width=95, help="Of the same target’s probe on the base"),
        "weight": number("Weight", format="%+.3f", width=75, help="In the headline probe"),
        "base_density": number("Density, base", format="percent", width=105),
        "density": number("Density", format="percent", width=80),
        "unexplained_contribution": number("Unexplained", help="Pay that stated feedback does not explain", **small),
        "unexplained_null": number("Chance ", format="%.2g", width=80, help="What chance reaches at its rank"),
    }


def table(store):
    st.subheader("Feature by feature")
    view = filters(store)
    wanted = queries.run.DriftFilter(status=view.became, layers=view.drift_layer, search=view.drift_find)
    order = queries.common.Order(view.drift_by, view.drift_order == "descending")
    n = ask(queries.run.count_drift, store, wanted)
    if not n:
        st.html(panels.note("No feature passes this filter; widen it."))
        return None
    st.html(panels.note(f"{count(n)} feature{'s' if n != 1 else ''}. Click a row to open it."))
    slot = st.container()
    left, right = st.columns([3, 2], vertical_alignment="center")
    with left:
        page = st.pagination(-(-n // PAGE), key="drift_page", bind="query-params")
    rows = ask(queries.run.drift, store, wanted, order=order, limit=PAGE, offset=(page - 1) * PAGE)
    ids = rows["feature_id"].to_pylist()
    shown = {"hide_index": True, "placeholder": "–", "height": "content", "row_height": 38, "column_config": columns()}
    with slot:
        event = st.dataframe(
            tables.drift(rows),
            key=permalinks.key_for("drift_table", ids),
            on_select="rerun",
            selection_mode="single-cell",
            **shown,
        )
    names = tables.feature_names(rows)
    choice = {"index": None, "placeholder": "Choose by name", "key": "open_drifted"}
    named = right.selectbox("Open a feature of this page", list(names), **choice)
    frame.download(lambda: queries.run.drift(store, wanted, order=order), name="drift")
    cells = event.selection.cells
    return ids[cells[0][0]] if cells and cells[0][0] < len(ids) else names.get(named)


def show():
    store = cache.current()
    if not sum(ask(queries.run.drift_counts, store).values()):
        st.html(
            panels.heading(store.manifest.title, "Drift")
            + panels.note(
                "This bundle holds no drift: it was made before drift was measured, or has no features. Run again to "
                "measure it."
            )
        )
        return
    figures = ask(queries.run.figures, store, "drift")
    lede = drift.summary(ask(queries.run.drift_counts, store), figures)
    st.html(panels.heading(store.manifest.title, "Drift", lede))
    summary(store, figures)
    pointed = scatter(store)
    chosen = table(store)
    opened = chosen if chosen is not None else pointed
    if opened is not None:
        where = permalinks.feature(opened)
        st.html(panels.following(where, f"Open feature {opened}"), unsafe_allow_javascript=True)


show()
