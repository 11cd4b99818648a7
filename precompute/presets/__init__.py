"""Configs that ship with the project: a TOML file each."""

from pathlib import Path

from lfp.errors import ConfigError

NAMES = (
    "demo-fast", "from-scratch", "demo-sweep", "plant", "demo", "demo-helpful", "smollm2-vader", "smollm2-helpful",
    "imdb", "hh", "imdb-sweep", "paper-vader", "paper-hh",
)  # fmt: skip
"""Every preset, the small ones first."""


def preset(name: str) -> Path:
    """Return the file of a preset. Raises ConfigError for a name that is not in NAMES."""
    if name not in NAMES:
        raise ConfigError(f"{name}: no such preset; choose one of {', '.join(NAMES)}")
    return Path(__file__).with_name(f"{name}.toml")
