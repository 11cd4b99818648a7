"""The glossary's drawer, which every page offers."""

from __future__ import annotations

import streamlit as st

from app.components.html import glossary


def show_button() -> None:
    """Draw the button that opens the glossary."""
    if st.sidebar.button("Glossary", icon=":material/menu_book:", key="glossary", help="What the words here mean"):
        show_terms()


@st.dialog("Glossary", width="medium")
def show_terms() -> None:
    """Draw all words in a drawer over the page."""
    st.html(glossary.terms())
