"""Two runs side by side: what was set otherwise, the figures of both, and features matched one to one."""

import streamlit as st

from app.components.html import panels
from app.components.html.numbers import count
from app.components.results import comparison as side_by_side
from app.session import cache, permalinks, public_mode
from app.widgets import frame
from lfp.bundle import comparison
from lfp.errors import LfpError

PAGE = 20


def choose_other():
    """The name of the second bundle, or None where only one is offered."""
    names = [name for name in permalinks.listed_bundles() if name != permalinks.bundle_name()]
    if not names:
        st.html(panels.note(side_by_side.ONLY_ONE_PUBLIC if public_mode.is_public() else side_by_side.ONLY_ONE))
        return None
    named = st.query_params.get("other")
    if named is not None and named not in names:
        st.html(
            panels.notice_here(
                "No such run", side_by_side.no_such_run(named, is_open=named == permalinks.bundle_name())
            )
        )
    return st.selectbox("The other run", names, key="other", bind="query-params", width=380)


def open_other(name):
    """The second bundle, open; None, with what is wrong on the page, where it cannot be."""
    try:
        return cache.open_store(permalinks.listed_bundles()[name])
    except LfpError as error:
        st.html(panels.notice("The other run cannot be shown", public_mode.told(error)))
        return None


def what_they_are(one, other):
    heads, rows, differing = side_by_side.facts(one.manifest, other.manifest)
    st.html(panels.table(heads, rows, strong=differing, wraps=True) + panels.note("Bold rows differ."))
    differences = comparison.config_differences(one.manifest, other.manifest)
    if not differences:
        st.html(panels.note("Both were made from the same config."))
        return
    n = len(differences)
    with st.expander(f"{n} setting{'s' if n != 1 else ''} differ{'s' if n == 1 else ''}", expanded=n <= 12):
        st.html(panels.table(*side_by_side.settings(differences), wraps=True))


def figures(one, other):
    st.subheader("Figures of both reports")
    pairs = cache.ask_both(comparison.figure_pairs, one, other)
    if not pairs:
        st.html(panels.note("The two reports have no figure in common."))
        return
    names = list(dict.fromkeys(side_by_side.row_name(pair) for pair in pairs))
    first = names.index("kendall tau") if "kendall tau" in names else 0
    chosen = st.selectbox("Report row", names, index=first, key="report", bind="query-params", width=380)
    of_row = [pair for pair in pairs if side_by_side.row_name(pair) == chosen]
    st.html(panels.note(side_by_side.few_differ(of_row)))
    table = side_by_side.figures(of_row)
    height = {"height": "content"} if len(of_row) <= 14 else {"height": 520}
    st.dataframe(table, hide_index=True, placeholder="–", key="figure_pairs", column_config=figure_columns(), **height)
    st.html(
        panels.note(
            "95 % intervals; a difference’s is made of both, the runs taken as independent. ✓: zero is outside it. "
            "Chance: what permuted feedback reaches."
        )
    )
    frame.download(lambda: side_by_side.figures(pairs), name="figures_of_two_runs", label="Download all figures")


def figure_columns():
    number, words = st.column_config.NumberColumn, st.column_config.TextColumn
    value = {"format": "%.4g", "width": 80}
    return {
        "figure": words("Figure", width=345),
        "one": number("This run", **value),
        "one_interval": words("Interval", width=108),
        "other": number("The other", **value),
        "other_interval": words("Interval ", width=108),
        "difference": number("Difference", format="%+.4g", width=88),
        "difference_interval": words("Its interval", width=108),
        "differs": words("Differs", width=62),
        "one_chance": number("Chance", **value),
        "other_chance": number("Chance, other", **value),
    }


def matched(one, other):
    st.subheader("Features of both")
    found = cache.ask_both(comparison.match_features, one, other)
    st.html(panels.note(side_by_side.matched_sentence(found)))
    if not found.pairs.num_rows:
        return None
    row = st.container(horizontal=True, vertical_alignment="bottom", gap="medium")
    bound = {"bind": "query-params", "width": 160}
    by = row.selectbox("Sort by", list(side_by_side.MATCH_SORTS), key="match_by", help=BY_SIZE, **bound)
    order = row.selectbox("Order", ["descending", "ascending"], key="match_order", **bound)
    pairs = side_by_side.sorted_pairs(found.pairs, by=by, descending=order == "descending")
    slot = st.container()
    left, right = st.columns([3, 2], vertical_alignment="center")
    with left:
        page = st.pagination(-(-pairs.num_rows // PAGE), key="match_page", bind="query-params")
    shown = pairs.slice((page - 1) * PAGE, PAGE)
    with slot:
        st.html(panels.note(f"{count(pairs.num_rows)} pairs. Click a side to open its feature."))
        key = permalinks.key_for("matches", shown["feature_id_one"].to_pylist(), other.key)
        event = st.dataframe(
            side_by_side.match_table(shown),
            hide_index=True,
            placeholder="–",
            key=key,
            on_select="rerun",
            selection_mode="single-cell",
            height="content",
            column_config=match_columns(),
        )
    names = side_by_side.match_names(shown)
    choice = {"index": None, "placeholder": "Choose by name", "key": "open_match"}
    named = right.selectbox("Open a feature of this page", list(names), **choice)
    frame.download(lambda: pairs, name="matched_features", label="Download matches")
    cells = event.selection.cells
    if cells and cells[0][0] < shown.num_rows:
        side = "other" if cells[0][1].endswith("_other") else "one"
        return side, shown[f"feature_id_{side}"][cells[0][0]].as_py()
    return names.get(named)


BY_SIZE = "Differences and weights sort by size."


def match_columns():
    number, words = st.column_config.NumberColumn, st.column_config.TextColumn
    made = {"similarity": number("Similarity", format="%.3f", width=80, pinned=True)}
    for side, where in (("one", "here"), ("other", "there")):
        made |= {
            f"feature_id_{side}": number(f"Feature {where}", format="#%d", width=98),
            f"layer_{side}": number(f"Layer {where}", width=82),
            f"description_{side}": words(f"Description {where}", width=190),
            f"weight_{side}": number(f"Weight {where}", format="%+.4f", width=95),
            f"interval_{side}": words(f"Interval {where}", width=120),
        }
    return made | {"difference": number("Difference", format="%+.3f", width=85, help="Of weights, there less here")}


def show():
    one = cache.current()
    lede = "What two runs were, how their figures differ, and which of their features are the same."
    st.html(panels.heading(one.manifest.title, "Runs", lede))
    name = choose_other()
    other = open_other(name) if name is not None else None
    if other is None:
        return
    what_they_are(one, other)
    figures(one, other)
    opened = matched(one, other)
    if opened is not None:
        side, feature = opened
        bundle = permalinks.bundle_name() if side == "one" else name
        where = permalinks.href("feature", permalinks.FeatureView(feature=feature), bundle=bundle)
        st.html(panels.following(where, f"Open feature {feature}"), unsafe_allow_javascript=True)


show()
