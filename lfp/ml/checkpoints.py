"""Files that a training goes on from after a kill: tensors and plain values, written whole or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch


def save(state: Any, file: Path) -> None:
    """Puts `state` in place of what the file held."""
    partial = file.with_name(f".{file.name}.partial")
    torch.save(state, partial)
    partial.replace(file)


def load(file: Path | None) -> Any | None:
    """What was saved, on the CPU; None where nothing was, or no file is named."""
    if file is None or not file.is_file():
        return None
    return torch.load(file, map_location="cpu", weights_only=True)
