"""What a stage may read, the view of the config that it gets, and the key that says whether it has to run again."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from operator import getitem
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from lfp.bundle.manifest import file_sha256
from lfp.config import RunConfig

if TYPE_CHECKING:
    from precompute.run.work_folder import Output, Run

ALWAYS_READ = ("threads",)
"""Results repeat bit for bit only with the same number of threads, so every key has it and every stage may read it."""


class UndeclaredReadError(RuntimeError):
    """A stage read something that it does not declare, so that its key would not notice a change of it."""


@dataclass(frozen=True)
class Stage:
    """A step of a run: its job and everything that the job reads.

    `after` names the stages whose output is read; `reads` the sections of the config, or single keys such as
    `tune.pairs`; `files` the files outside the run whose contents matter; `facts` what else the output depends on, such
    as the grid of a sweep.
    """

    name: str
    job: Callable[[Run, Output], None]
    after: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()
    files: tuple[Path, ...] = ()
    facts: str = ""


class ConfigView:
    """The part of a config, or of one of its sections, that a stage declares. Reading anything else raises.

    Raises UndeclaredReadError.
    """

    def __init__(self, section: BaseModel, stage: str, keys: Collection[str], path: str = "") -> None:
        self._section, self._stage, self._keys, self._path = section, stage, keys, path

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # a view that copy or pickle has not filled yet
            raise AttributeError(name)
        key = f"{self._path}{name}"
        if key in self._keys:
            return getattr(self._section, name)
        if any(declared.startswith(f"{key}.") for declared in self._keys):
            return ConfigView(getattr(self._section, name), self._stage, self._keys, f"{key}.")
        raise UndeclaredReadError(
            f"stage {self._stage} reads {key} of the config without declaring it; add it to `reads` in"
            " precompute/pipeline.py"
        )


@dataclass(frozen=True)
class FileDigests:
    """SHA-256 of files, each read again only when its size or modification time has changed."""

    known: dict[tuple[Path, int, int], str] = field(default_factory=dict)
    first: dict[Path, str] = field(default_factory=dict)
    """What the first call of `digest` returned for each file."""

    def digest(self, file: Path) -> str:
        """Return the hexadecimal SHA-256 of the file's contents."""
        stat = file.stat()
        key = (file, stat.st_size, stat.st_mtime_ns)
        if key not in self.known:
            self.known[key] = file_sha256(file)
        self.first.setdefault(file, self.known[key])
        return self.known[key]


def compute_key(stage: Stage, config: RunConfig, keys: Mapping[str, str], digests: FileDigests) -> str:
    """Return a stage's key; `keys` has those of the stages that it comes after.

    It is a hash of everything that the output depends on: the stage's name, the config values and the contents of the
    files that it reads, and the keys of the stages before it.
    """
    values: Any = config.model_dump(mode="json")
    facts = {
        "stage": [stage.name, stage.facts],
        "config": {key: functools.reduce(getitem, key.split("."), values) for key in (*stage.reads, *ALWAYS_READ)},
        "after": {name: keys[name] for name in stage.after},
        "files": [(file.name, digests.digest(file)) for file in stage.files],
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def find_needed(stages: Sequence[Stage], targets: Collection[str]) -> set[str]:
    """Return the names of the target stages and of all stages that they come after, directly or not."""
    needed = set(targets)
    for stage in reversed(stages):
        if stage.name in needed:
            needed.update(stage.after)
    return needed
