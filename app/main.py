"""The explorer's entry: page config, bundle choice, navigation. Run by `streamlit run app/main.py`."""

import sys
from pathlib import Path

import streamlit as st

HTML = Path(__file__).parent / "components" / "html"
st.set_page_config(page_title="LFP Explorer", page_icon=str(HTML / "mark.svg"), layout="wide")
st.html(HTML / "style.css")
st.logo(HTML / "mark.svg", size="large")

page = st.navigation(
    {
        "Read": [
            st.Page("views/overview.py", title="Summary", icon=":material/insights:", default=True),
            st.Page("views/accuracy.py", title="Accuracy", icon=":material/target:"),
            st.Page("views/validation.py", title="Validation", icon=":material/fact_check:"),
        ],
        "Browse": [
            st.Page("views/features.py", title="Features", icon=":material/grid_view:"),
            st.Page("views/feature.py", title="Feature", icon=":material/lens_blur:"),
            st.Page("views/inputs.py", title="Inputs", icon=":material/notes:"),
            st.Page("views/pairs.py", title="Pairs", icon=":material/compare_arrows:"),
            st.Page("views/disagreements.py", title="Disagreements", icon=":material/call_split:"),
        ],
        "Compare": [
            st.Page("views/drift.py", title="Drift", icon=":material/trending_up:"),
            st.Page("views/runs.py", title="Runs", icon=":material/difference:"),
        ],
        "Audit": [
            st.Page("views/queue.py", title="Queue", icon=":material/checklist:"),
            st.Page("views/try_it.py", title="Try it", icon=":material/edit_note:"),
            st.Page("views/about.py", title="About", icon=":material/info:"),
        ],
    },
    expanded=True,
)

# The frame above is on screen while a fresh server imports the rest. Packages that import in circles must be whole
# before any page imports a part of them: a second session would find them half imported.
sys.path[:0] = [root] if (root := str(Path(__file__).resolve().parent.parent)) not in sys.path else []
import pandas  # noqa: E402, F401
import plotly.graph_objects  # noqa: E402, F401
import sqlalchemy  # noqa: E402, F401

from app.components.html import panels  # noqa: E402
from app.session import bundles, permalinks  # noqa: E402
from app.widgets import frame  # noqa: E402
from lfp.errors import LfpError  # noqa: E402

if params := permalinks.reworded_params():  # before any widget, as those bound to the URL would drop the old words
    st.switch_page(page, query_params=params)
offered, requested = bundles.listed_bundles(), st.query_params.get("bundle")
if not offered:
    st.html(panels.notice("No bundle here", bundles.nothing_listed()))
elif requested is not None and requested not in offered:
    st.html(panels.notice("No such bundle", f"the link is to a bundle called {requested}, which is not offered here"))
    for name in offered:
        st.page_link("views/overview.py", label=f"Open {name}", query_params={"bundle": name})
else:
    st.sidebar.selectbox("Bundle", list(offered), key="bundle", bind="query-params", help=bundles.HELP)
    frame.install_keys()
    try:
        page.run()
    except LfpError as error:
        st.html(panels.notice("This cannot be shown", bundles.error_text(error)))
        for name in [name for name in offered if name != bundles.bundle_name()]:
            st.button(f"Open {name}", on_click=bundles.set_bundle, args=(name,))
