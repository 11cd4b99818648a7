"""Data to figures and escaped HTML; nothing here calls Streamlit."""
