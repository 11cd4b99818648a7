"""Configs that ship with the project: a TOML file each."""

NAMES = (
    "demo",
    "demo-fast",
    "demo-sweep",
    "plant",
    "imdb",
    "hh",
    "imdb-sweep",
    "paper-vader",
    "paper-hh",
)
"""Every preset, the small ones first."""
