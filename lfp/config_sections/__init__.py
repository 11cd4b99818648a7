"""The sections of a config: frozen pydantic models, each key with its default and what it means."""

from __future__ import annotations

from typing import ClassVar

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A table of the TOML file; `commands` names the commands that read it."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    commands: ClassVar[tuple[str, ...]] = ("run", "sweep", "plant")
