"""Compare: two runs side by side, with their config differences, metrics and matched features."""

from typing import Any

import streamlit as st

from app.components.html import panels
from app.components.results import comparison as comparing
from app.session import bundles, cache, names, permalinks
from app.widgets import frame
from lfp.bundle import comparison
from lfp.bundle.store.connection import Store
from lfp.errors import LfpError
from lfp.report.formatting import count

PAGE_SIZE = 20


def choose_other() -> str | None:
    """Draw the choice of the second bundle, and return its name; None if only one is offered."""
    names = [name for name in bundles.listed_bundles() if name != bundles.bundle_name()]
    if not names:
        st.html(panels.note(comparing.ONLY_ONE_PUBLIC if bundles.is_public() else comparing.ONLY_ONE))
        return None
    linked = st.query_params.get("other")
    if linked is not None and linked not in names:
        why = "the run that is open" if linked == bundles.bundle_name() else "not offered here"
        says = f"the link compares with a bundle called {linked}, which is {why}; choose another below"
        st.html(panels.notice("No such run", says, is_page=False))
    other: str = st.selectbox("The other run", names, key="other", bind="query-params", width=380)
    return other


def open_other(name: str) -> Store | None:
    """Open the second bundle; if that fails, say why and return None."""
    try:
        return cache.open_store(bundles.listed_bundles()[name])
    except LfpError as error:
        st.html(panels.notice("The other run cannot be shown", bundles.error_text(error)))
        return None


def show_facts(this: Store, other: Store) -> None:
    heads, rows, differing = comparing.facts(this.manifest, other.manifest)
    differences = comparison.config_differences(this.manifest, other.manifest)
    frame.show_title("Both runs", comparing.differences_title(len(differing), len(differences)))
    st.html(panels.table(heads, rows, strong=differing, wraps=True) + panels.note("Bold rows differ."))
    if not differences:
        st.html(panels.note("Both runs have the same config."))
        return
    n = len(differences)
    with st.expander(f"{n} config difference{'s' if n != 1 else ''}", expanded=n <= 12):
        st.html(panels.table(*comparing.settings(differences), wraps=True))


def show_metrics(this: Store, other: Store) -> None:
    title = st.container()
    with st.spinner("Comparing the runs"):
        pairs = cache.ask(comparison.figure_pairs, this, other)
    with title:
        frame.show_title("Metrics", comparing.metrics_title(pairs))
    if not pairs:
        st.html(panels.note("The two reports have no metric in common."))
        return
    by_row: dict[str, list[comparison.FigurePair]] = {}
    for pair in pairs:
        by_row.setdefault(pair.one.report_row.replace("_", " "), []).append(pair)
    names = list(by_row)
    first = names.index("kendall tau") if "kendall tau" in names else 0
    chosen = st.selectbox("Report row", names, index=first, key="report", bind="query-params", width=380)
    of_row = by_row[chosen]
    st.html(panels.note(comparing.few_differ(of_row)))
    number, words = st.column_config.NumberColumn, st.column_config.TextColumn
    value: dict[str, Any] = {"format": "%.4g", "width": 80}
    st.dataframe(
        comparing.figures(of_row),
        hide_index=True,
        placeholder="–",
        key="figure_pairs",
        height="content" if len(of_row) <= 14 else 520,
        column_config={
            "figure": words("Metric", width=345),
            "one": number("This run", **value),
            "one_interval": words("Interval", width=108),
            "other": number("The other", **value),
            "other_interval": words("Interval ", width=108),
            "difference": number("Difference", format="%+.4g", width=88),
            "difference_interval": words("Its interval", width=108),
            "differs": words("Differs", width=62),
            "one_chance": number("Chance", **value),
            "other_chance": number("Chance, other", **value),
        },
    )
    says = "95 % intervals; the difference assumes independent runs. ✓: its interval excludes 0."
    st.html(panels.note(f"{says} Chance: 95 % of shuffles are below this."))
    frame.download(lambda: comparing.figures(pairs), name="figures_of_two_runs", label="Download all metrics")


def show_matches(this: Store, other: Store) -> tuple[str, int] | None:
    """Draw the matched features; return the side and number of the feature that was clicked or chosen by name."""
    title = st.container()
    with st.spinner("Matching features"):
        found = cache.ask(comparison.match_features, this, other)
    with title:
        frame.show_title("Matched features", comparing.matches_title(found))
    st.html(panels.note(comparing.matched_sentence(found)))
    if not found.pairs.num_rows:
        return None
    row = st.container(horizontal=True, vertical_alignment="bottom", gap="medium")
    bound: dict[str, Any] = {"bind": "query-params", "width": 160}
    by_size = "Differences and weights sort by size."
    by = row.selectbox("Sort by", list(comparing.MATCH_SORTS), key="match_by", help=by_size, **bound)
    order = row.selectbox("Order", ["descending", "ascending"], key="match_order", **bound)
    pairs = comparing.sorted_pairs(found.pairs, by=by, descending=order == "descending")
    slot = st.container()
    left, right = st.columns([3, 2], vertical_alignment="center")
    with left:
        page = st.pagination(-(-pairs.num_rows // PAGE_SIZE), key="match_page", bind="query-params")
    shown = names.name_rows(this, pairs.slice((page - 1) * PAGE_SIZE, PAGE_SIZE), side="_one")
    shown = names.name_rows(other, shown, side="_other")
    with slot:
        st.html(panels.note(f"{count(pairs.num_rows)} pairs. Click a feature of either run to open it."))
        key = permalinks.widget_key("matches", shown["feature_id_one"].to_pylist(), other.manifest.key)
        cell = frame.show_rows(comparing.match_table(shown), key=key, columns=match_columns())
    with right:
        named = frame.choose_name(comparing.match_names(shown), "Open a feature of this page", key="open_match")
    frame.download(lambda: pairs, name="matched_features", label="Download matches")
    if cell is not None:
        side = "other" if cell[1].endswith("_other") else "one"
        return side, shown[f"feature_id_{side}"][cell[0]].as_py()
    return named


def match_columns() -> dict[str, Any]:
    number, words = st.column_config.NumberColumn, st.column_config.TextColumn
    columns: dict[str, Any] = {"similarity": number("Similarity", format="%.3f", width=80, pinned=True)}
    for side, where in (("one", "here"), ("other", "there")):
        columns |= {
            f"feature_id_{side}": number(f"Feature {where}", format="#%d", width=98),
            f"layer_{side}": number(f"Layer {where}", width=82),
            f"site_{side}": words(f"Site {where}", width=120),
            f"description_{side}": words(f"Label {where}", width=190),
            f"weight_{side}": number(f"Weight {where}", format="%+.4f", width=95),
            f"interval_{side}": words(f"Interval {where}", width=120),
        }
    difference = number("Difference", format="%+.3f", width=85, help="Of weights, there minus here")
    return columns | {"difference": difference}


def show() -> None:
    this = cache.current()
    lede = "Compare two runs: their settings, their metrics, and the features that both have."
    st.html(panels.heading(this.manifest.title, "Compare", lede))
    name = choose_other()
    other = open_other(name) if name is not None else None
    if name is None or other is None:
        return
    show_facts(this, other)
    show_metrics(this, other)
    opened = show_matches(this, other)
    if opened is not None:
        side, feature = opened
        bundle = bundles.bundle_name() if side == "one" else name
        href = permalinks.href("feature", permalinks.FeatureView(feature=feature), bundle=bundle)
        st.html(panels.following(href, f"Open feature {feature}"), unsafe_allow_javascript=True)


show()
