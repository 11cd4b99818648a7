"""Configs that ship with the project: a TOML file each."""

from pathlib import Path

from lfp.errors import ConfigError

NAMES = (
    "demo", "demo-fast", "demo-sweep", "plant", "imdb", "hh", "imdb-sweep", "smollm2-vader", "smollm2-helpful",
    "paper-vader", "paper-hh",
)  # fmt: skip
"""Every preset, the small ones first."""


def preset(name: str) -> Path:
    """Return the file of a preset. Raises ConfigError for a name that is not in NAMES."""
    if name not in NAMES:
        raise ConfigError(f"{name}: no such preset; choose one of {', '.join(NAMES)}")
    return Path(__file__).with_name(f"{name}.toml")
