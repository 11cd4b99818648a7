"""The explorer's entry: page config, menu, bundle choice. Run by `streamlit run app/main.py`."""

import logging
import sys
from pathlib import Path

import streamlit as st
from streamlit import config

HTML = Path(__file__).parent / "components" / "html"
st.set_page_config(page_title="LFP Explorer", page_icon=str(HTML / "mark.svg"), layout="wide")
st.html(HTML / "style.css")
st.logo(HTML / "mark.svg", size="large")

# The frame above is on screen while a fresh server imports the rest. Packages that import in circles must be whole
# before any page imports a part of them: a second session would find them half imported.
sys.path[:0] = [root] if (root := str(Path(__file__).resolve().parent.parent)) not in sys.path else []
import pandas  # noqa: E402, F401
import plotly.graph_objects  # noqa: E402, F401
import sqlalchemy  # noqa: E402, F401

from app.components.html import panels  # noqa: E402
from app.session import bundles, cache, callbacks, contents, permalinks, remote  # noqa: E402
from app.widgets import frame, glossary, navigation, review  # noqa: E402
from lfp.errors import LfpError  # noqa: E402
from lfp.util.sanitize import shortened  # noqa: E402

# In code, because a settings file is read only in some working directories: strangers see no stack trace, and tables
# have no download of Streamlit's own, which would pass formulas on to spreadsheets.
st.set_option("client.showErrorDetails", "none")
st.set_option("client.disableDataExport", True)
config.set_option("runner.magicEnabled", False)  # pages draw by calls alone, and start faster
# Read at every upload: strangers upload nothing, whatever the server was started with.
config.set_option("server.maxUploadSize", 0 if bundles.is_public() else review.LARGEST_MB)


def show() -> None:
    """Draw the menu, and the page that the address names."""
    typed, empty = contents.current_page(), contents.empty_pages()
    addresses = contents.addresses(typed)
    visible = contents.visible_pages(addresses.get(typed, contents.START), empty)
    made: dict[str, st.Page] = {}
    for address, name in addresses.items():
        entry, is_shown = contents.PAGES[name], name in visible and address == contents.menu_address(name, typed)
        made[address] = st.Page(
            f"views/{name}.py", title=entry.title, icon=f":material/{entry.icon}:", url_path=address,
            default=address == contents.ROOT, visibility="visible" if is_shown else "hidden",
        )  # fmt: skip
    page = st.navigation(
        {
            group: [made[address] for address, name in addresses.items() if contents.PAGES[name] in entries]
            for group, entries in contents.MENU.items()
        },
        expanded=True,
    )
    opened = next(address for address, known in made.items() if known == page)
    current = addresses[opened]
    frame.name_tab(contents.view_title(current))
    if (
        params := permalinks.corrected_params()
    ) is not None:  # before any widget, as those bound to the URL would drop the old words
        st.switch_page(page, query_params=params)
    offered, requested = bundles.listed_bundles(), st.query_params.get("bundle")
    if not offered:
        st.html(panels.notice("No bundle here", bundles.nothing_listed()))
    elif requested is not None and requested not in offered:
        says = f"the link is to a bundle called {requested}, which is not offered here"
        st.html(panels.notice("No such bundle", says))
        for name in offered:
            st.page_link("views/overview.py", label=f"Open {name}", query_params={"bundle": name})
    else:
        st.sidebar.selectbox(
            "Bundle", list(offered), key="bundle", bind="query-params", help=bundles.HELP,
            on_change=callbacks.guard(permalinks.set_param), args=(permalinks.BUNDLE_ID, ""),
        )  # fmt: skip
        if missing := bundles.missing_places():
            st.sidebar.html(panels.note(f"LFP_BUNDLES also lists {shortened(', '.join(missing), 200)}: not there."))
        navigation.install()
        glossary.show_button()
        navigation.remember_reviewer()
        tabs = contents.tabs_beside(current, empty)
        frame.show_tabs({title: page if name == current else made[name] for name, title in tabs.items()})
        if opened not in (contents.ROOT, *contents.PAGES) and contents.likeliest_page(opened) is None:
            says = f"there is no page called {opened}; this is the summary"
            st.html(panels.notice("No such page", says, is_page=False))
        show_bundle(page)


def show_bundle(page: st.Page) -> None:
    """Draw a page of the open bundle."""
    manifest = cache.current().manifest
    navigation.show_state(manifest)
    navigation.show_other_bundle(manifest, page.url_path)
    if says := callbacks.take_failure():
        st.html(panels.notice("This did not work", says, is_page=False))
    if lost := shortened(", ".join(permalinks.take_lost()), 200):
        says = f"it says {lost}, which is no number"
        st.html(panels.notice("A part of this address was left out", says, is_page=False))
    page.run()


def show_failure(says: str) -> None:
    """Say in a sentence why the page cannot be shown, and offer the other bundles."""
    remote.forget()  # a bundle that was replaced is opened again at the next request
    st.html(panels.notice("This cannot be shown", says))
    for name in [name for name in bundles.listed_bundles() if name != st.session_state.get("bundle")]:
        st.button(f"Open {name}", on_click=callbacks.guard(bundles.set_bundle), args=(name,))


try:
    show()
except LfpError as error:
    show_failure(bundles.error_text(error))
except Exception:  # no page raises anything else, but a bundle may hold what no page foresees
    logging.getLogger("app").exception("a page failed")
    show_failure(bundles.unforeseen_text())
