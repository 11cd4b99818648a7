"""Streamlit widgets that pages share."""
