"""Share a feature: its card as SVG and PNG, and the address that shows its page alone in another page."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import urlencode

import streamlit as st

from app.components.html import panels
from app.session import bundles, permalinks
from lfp.util.sanitize import escaped


def show_button(draw: Callable[[], str], *, feature_id: int, bundle_id: str) -> None:
    """Draw the button that opens the card; `draw` is called only then."""
    if st.button(
        "Share", icon=":material/share:", key="share_feature", help="A card as an image, and an address to embed"
    ):
        show_card(draw(), feature_id, bundle_id)


@st.dialog("Share this feature", width="large")
def show_card(svg: str, feature_id: int, bundle_id: str) -> None:
    """Draw the card with its downloads; the page's script saves the image as PNG (`app.widgets.navigation`)."""
    with st.container(key="card_image"):
        st.image(svg, alt=f"Card of feature {feature_id}")
    row = st.container(horizontal=True, gap="small")
    row.download_button(
        "SVG", svg, file_name=f"feature-{feature_id}.svg", mime="image/svg+xml", on_click="ignore",
        icon=":material/download:",
    )  # fmt: skip
    row.button("PNG", key="card_png", icon=":material/download:")
    st.html(panels.note("To show this page without the menu inside another page:"))
    address = embed_address(feature_id, bundle_id)
    st.code(f'<iframe src="{escaped(address)}" width="100%" height="800"></iframe>', language="html", wrap_lines=True)


def embed_address(feature_id: int, bundle_id: str) -> str:
    """Return the address of a feature's page without the menu, with the bundle's id."""
    params = permalinks.to_params(permalinks.FeatureView(feature=feature_id))
    query = {"bundle": bundles.bundle_name(), permalinks.BUNDLE_ID: bundle_id, **params, "embed": "true"}
    return f"{(st.context.url or '').partition('?')[0]}?{urlencode(query, doseq=True)}"
