"""Find a text; see true feedback, implicit reward and estimate a token, and which features made the estimate."""

import streamlit as st

from app import cache, state
from app.cache import ask
from app.components import charts, panels, reading, tables, tokens, wording
from app.components.numbers import count
from lfp import queries
from lfp.errors import NotInBundleError

PAGE = 12


def filters():
    st.text_input(
        "Find", key="words", bind="query-params", type="search", placeholder="words that the text must contain"
    )
    bound = {"bind": "query-params", "width": 165}
    row = st.container(horizontal=True, vertical_alignment="bottom", gap="small")
    row.selectbox("Texts", ["sampled", "all"], key="texts", help=wording.SAMPLED, **bound)
    row.selectbox("Split", ["any", "train", "held_out"], key="split", **bound)
    row.selectbox("Sort by", list(queries.TEXT_SORTS), key="by", help=wording.GAP, **bound)
    row.selectbox("Order", ["descending", "ascending"], key="direction", **bound)
    return state.view_of(state.InputsView)


def listing(store, view):
    """One page of texts; a click on a row opens it. Returns the numbers of the page's texts."""
    is_sampled = view.texts == "sampled" and store.manifest.tables["activations"].rows > 0
    wanted = queries.TextFilter(words=view.words, split=view.split, is_sampled=is_sampled)
    n = ask(queries.count_texts, store, wanted)
    if not n:
        has_texts = store.manifest.tables["texts"].rows
        st.html(panels.note("No text passes; use fewer words." if has_texts else "This bundle keeps no texts."))
        return []
    st.html(panels.note(f"{count(n)} text{'s' if n != 1 else ''}. Click a row to read it."))
    slot = st.container()
    page = st.pagination(-(-n // PAGE), key="sheet", bind="query-params", max_visible_pages=5)
    order = queries.Order(view.by, view.direction == "descending")
    rows = ask(queries.texts, store, wanted, order=order, limit=PAGE, offset=(page - 1) * PAGE)
    with slot:
        table(rows)
    return rows["text_id"].to_pylist()


def table(rows):
    number = st.column_config.NumberColumn
    ids = rows["text_id"].to_pylist()
    key = state.key_for("text_table", ids)
    st.dataframe(
        tables.texts(rows),
        hide_index=True,
        key=key,
        on_select=lambda: open_text(key, ids),
        selection_mode="single-cell",
        height="content",
        row_height=36,
        column_config={
            "text_id": number("Text", format="#%d", width=52, pinned=True),
            "text": st.column_config.TextColumn("Begins", width=145),
            "gap": number("Gap", format="%.2f", width=52, help=wording.GAP),
            "feedback": number("True", format="%+.2f", width=58, help="True feedback"),
            "predicted": number("Estimate", format="%+.3f", width=76, help="The headline probe’s"),
            "implicit_reward": number("Implicit", format="%+.2f", width=70, help="Implicit reward, nats"),
            "rating": number("Rating", format="%.0f", width=60),
        },
    )


def open_text(key, ids):
    cells = st.session_state[key].selection.cells
    if cells and cells[0][0] < len(ids):
        st.session_state.text = ids[cells[0][0]]


def choose(ids):
    """The number of the text that is open: chosen here or in the list; until then the first of the list."""
    row = st.container(horizontal=True, vertical_alignment="bottom", gap="medium")
    first = ids[0] if ids else None
    number = {
        "min_value": 0,
        "value": None,
        "step": 1,
        "placeholder": "" if first is None else str(first),
        "width": 150,
    }
    chosen = row.number_input("Text number", key="text", bind="query-params", **number)
    row.toggle("Show numbers", key="token_values", bind="query-params")
    return first if chosen is None else chosen


def watch(store, ledger):
    """The feature shown on the tokens: one of the largest, or the one the link names. None where there is none."""
    ids = [part.feature_id for part in ledger.shown]
    named = st.session_state.get("watch") or st.query_params.get("watch")
    if named is not None and str(named).isdigit() and int(named) not in ids:
        ids.append(int(named))
    chosen = (
        st.pills("Show one feature on the tokens", ids, key="watch", bind="query-params", wrap=True) if ids else None
    )
    try:
        return None if chosen is None else ask(queries.feature, store, chosen)
    except NotInBundleError as error:
        st.html(panels.note(f"{error}."))
        return None


def watched_line(store, feature):
    label = wording.best_label(ask(queries.labels, store, feature.feature_id))
    where = state.href("feature", state.FeatureView(feature=feature.feature_id), bundle=cache.bundle())
    says = panels.text(label.description if label else "not described")
    st.html(panels.badge(f"feature {feature.feature_id}") + says + " · " + panels.anchor(where, "Open the feature"))


def sheet(store, text, probe, feature):
    parts = tokens.pieces(text.text, text.token_starts)
    if not parts:
        st.html(panels.note("This text is empty."))
        return
    rows = reading.rows(text, ask(queries.score_limits, store), probe)
    legend, activations, limit = tokens.sheet_legend(rows), [], 0.0
    if feature is not None:
        activations = ask(queries.token_activations, store, text.text_id, feature_id=feature.feature_id)
        limit = feature.max_activation
        legend += tokens.strength_legend(limit, f"activation of feature {feature.feature_id}, behind the tokens")
    values = st.session_state.token_values
    st.html(legend + tokens.sheet(parts, rows, activations=activations, limit=limit, numbers=values))


def contributions(ledger):
    st.subheader("What made the estimate")
    shown, n_rest = ledger.shown, ledger.n_features - len(ledger.shown)
    values = [part.contribution for part in shown]
    ids, names = [part.feature_id for part in shown], [part.description for part in shown]
    figure = charts.contributions(ids, names, values, ink=state.ink())
    st.plotly_chart(figure, config=charts.CONFIG, key="ledger_chart", on_select=pick_bar, selection_mode="points")
    numbers = {"rest": ledger.rest, "intercept": ledger.intercept, "predicted": ledger.predicted}
    st.html(panels.sum_check(shown=sum(values), n_shown=len(shown), n_rest=n_rest, **numbers))


def pick_bar():
    points = st.session_state.ledger_chart.selection.points
    number = points[0].get("customdata") if points else None
    if isinstance(number, int):
        st.session_state.watch = number


def read(store, text):
    """One text: totals, score sheet, ledger."""
    probe, ledger = ask(queries.headline, store), ask(queries.ledger, store, text.text_id)
    st.html(reading.totals(text))
    feature = watch(store, ledger) if ledger else None
    if feature is not None:
        watched_line(store, feature)
    sheet(store, text, probe, feature)
    if ledger is not None:
        contributions(ledger)
    else:
        st.html(
            panels.note(wording.NO_ACTIVATIONS if probe else "This bundle holds no probe to split the estimate by.")
        )


def show():
    store = cache.current()
    st.html(panels.heading(store.manifest.title, "Inputs"))
    left, right = st.columns([5, 7], gap="large")
    with left:
        ids = listing(store, filters())
    with right:
        chosen = choose(ids)
        if chosen is None:
            return
        try:
            read(store, ask(queries.text, store, chosen))
        except NotInBundleError as error:
            st.html(panels.notice("No such text", str(error)))


show()
