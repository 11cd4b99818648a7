"""Configs that ship with the project: a TOML file each."""

NAMES = (
    "demo",
    "demo-fast",
    "demo-sweep",
    "plant",
    "imdb-scratch",
    "hh-scratch",
    "pythia-70m-vader",
    "pythia-160m-vader",
    "gpt-neo-125m-vader",
    "gemma-2b-it-hh",
)
"""Every preset, the small ones first."""
