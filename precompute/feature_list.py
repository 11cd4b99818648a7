"""Numbers of features as a command is given them."""

from __future__ import annotations

from lfp.errors import ConfigError


def feature_list(text: str | None) -> list[int] | None:
    """The numbers in `3,17,42`, each once; None where nothing is given. Raises ConfigError."""
    if text is None:
        return None
    try:
        return list(dict.fromkeys(int(part) for part in text.split(",")))
    except ValueError:
        raise ConfigError(f"--features {text}: not a list of numbers; write for example --features 3,17") from None
