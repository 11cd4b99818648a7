"""Numbers of features as a command is given them."""

from __future__ import annotations

import re

from lfp.errors import ConfigError


def feature_list(text: str, n_features: int) -> tuple[int, ...]:
    """The features in `3,17,42`, each once, in order. Raises ConfigError naming what is no feature, and the range."""
    names = [name.strip() for name in text.split(",")]
    wrong = [name for name in names if not re.fullmatch(r"\d{1,9}", name) or int(name) >= n_features]
    if wrong:
        told = ", ".join(f'"{name}"' for name in wrong)
        raise ConfigError(
            f"--features: no feature of this bundle is called {told}; write ids from 0 to {n_features - 1} with commas"
            " between, such as --features 3,17"
        )
    return tuple(dict.fromkeys(int(name) for name in names))
