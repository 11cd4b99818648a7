"""The explorer's entry: page config, bundle choice, navigation. Run by `streamlit run app/main.py`."""

import sys
from pathlib import Path

import streamlit as st

st.set_page_config(
    page_title="LFP Explorer", page_icon=str(Path(__file__).parent / "components" / "html" / "mark.svg"), layout="wide"
)
st.html(Path(__file__).parent / "components" / "html" / "style.css")

st.logo(Path(__file__).parent / "components" / "html" / "mark.svg", size="large")

page = st.navigation(
    {
        "Read": [
            st.Page("views/overview.py", title="Overview", icon=":material/insights:", default=True),
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

# The frame above is on screen while a fresh server reads the rest. Pandas has to be whole before any session draws:
# plotly breaks on one that another thread still imports.
sys.path[:0] = [root] if (root := str(Path(__file__).resolve().parent.parent)) not in sys.path else []
import pandas  # noqa: E402, F401

from app.components.html import panels  # noqa: E402
from app.session import permalinks, public_mode  # noqa: E402
from app.widgets import frame  # noqa: E402
from lfp.errors import LfpError  # noqa: E402

bundles, named = permalinks.listed_bundles(), st.query_params.get("bundle")
if not bundles:
    st.html(panels.notice("No bundle here", permalinks.NO_BUNDLE))
elif named is not None and named not in bundles:
    st.html(panels.notice("No such bundle", f"the link is to a bundle called {named}, which is not offered here"))
    for name in bundles:
        st.page_link("views/overview.py", label=f"Open {name}", query_params={"bundle": name})
else:
    st.sidebar.selectbox("Bundle", list(bundles), key="bundle", bind="query-params", help=permalinks.BUNDLE_HELP)
    frame.keys()
    try:
        page.run()
    except LfpError as error:
        st.html(panels.notice("This cannot be shown", public_mode.told(error)))
        for name in [one for one in bundles if one != permalinks.bundle_name()]:
            st.button(f"Open {name}", on_click=permalinks.set_bundle, args=(name,))
