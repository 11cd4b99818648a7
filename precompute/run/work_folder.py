"""One run on disk: the folder of each stage, written whole or not at all, and what stages hand to each other."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lfp.bundle.manifest import StageCost
from lfp.config import RunConfig
from lfp.evaluation.results import ResultRow
from lfp.util.types import Progress

_DONE = "stage.json"
_RESULTS = "results.json"

MADE_BY = {
    "completions": "completions",
    "features": "features",
    "decoders": "features",
    "histograms": "features",
    "examples": "texts",
    "neighbours": "features",
    "triples": "probes",
    "vocabulary": "probes",
    "word_features": "probes",
    "probes": "probes",
    "weights": "probes",
    "texts": "texts",
    "token_scores": "texts",
    "activations": "texts",
    "labels": "labels",
    "drift": "findings",
    "ablations": "ablations",
}
"""Tables of the bundle, and the stage that makes each."""


@dataclass(frozen=True)
class Run:
    """A run's config, its work folder, where relative paths are looked for, and whom to tell of progress."""

    config: RunConfig
    work: Path
    beside: Path | None
    progress: Progress

    def folder(self, stage: str) -> Path:
        """The folder of a finished stage."""
        return self.work / stage

    def is_done(self, stage: str, key: str) -> bool:
        """Whether that stage finished with the same key: the same config and the same stages before it."""
        file = self.folder(stage) / _DONE
        return file.is_file() and json.loads(file.read_text(encoding="utf-8"))["key"] == key

    def costs(self, stages: Sequence[str]) -> list[StageCost]:
        """What each of the finished stages took, as it was measured when it ran, in this sitting or an earlier one."""
        told = [(name, json.loads((self.folder(name) / _DONE).read_text(encoding="utf-8"))) for name in stages]
        return [StageCost(**{**facts, "name": name}) for name, facts in told]

    def finished(self) -> list[str]:
        """Names of all stages in the work folder that finished."""
        return sorted(file.parent.name for file in self.work.glob(f"*/{_DONE}"))

    @contextmanager
    def writing(self, stage: str, key: str, facts: dict[str, Any]) -> Iterator[Output]:
        """A folder to write a stage's output to; it becomes the stage's when the block ends without an exception.

        Its scratch folder outlives an interruption, until the stage ends or is begun with another key.
        """
        partial, scratch = self.work / f".{stage}.partial", self.work / f".{stage}.{key[:16]}"
        for stale in (partial, *(old for old in self.work.glob(f".{stage}.*") if old != scratch)):
            shutil.rmtree(stale, ignore_errors=True)
        partial.mkdir(parents=True)
        scratch.mkdir(exist_ok=True)
        yield Output(partial, scratch)
        (partial / _DONE).write_text(json.dumps({"key": key, **facts}), encoding="utf-8")
        shutil.rmtree(self.folder(stage), ignore_errors=True)
        partial.rename(self.folder(stage))
        shutil.rmtree(scratch)

    def table(self, stage: str, name: str) -> pa.Table:
        """A table that a stage wrote."""
        return pq.read_table(self.folder(stage) / f"{name}.parquet")

    def made(self, table: str) -> pa.Table:
        """A table of the bundle to be, from the stage that makes it."""
        return self.table(MADE_BY[table], table)

    def json(self, stage: str, name: str) -> Any:
        """A JSON file that a stage wrote."""
        return json.loads((self.folder(stage) / f"{name}.json").read_text(encoding="utf-8"))

    def results(self, stages: Sequence[str]) -> list[ResultRow]:
        """The figures of the report that the stages wrote."""
        files = [self.folder(stage) / _RESULTS for stage in stages]
        stored = (row for file in files if file.is_file() for row in json.loads(file.read_text(encoding="utf-8")))
        return [ResultRow(**row) for row in stored]


@dataclass(frozen=True)
class Output:
    """Where a stage under way writes: what it makes to `folder`, what it needs to go on after a kill to `scratch`."""

    folder: Path
    scratch: Path

    def table(self, name: str, table: pa.Table) -> None:
        """Keeps a table for later stages."""
        pq.write_table(table, self.folder / f"{name}.parquet", compression="zstd")

    def json(self, name: str, values: Any) -> None:
        """Keeps JSON values for later stages."""
        (self.folder / f"{name}.json").write_text(json.dumps(values), encoding="utf-8")

    def results(self, rows: Sequence[ResultRow]) -> None:
        """Keeps figures of the report."""
        (self.folder / _RESULTS).write_text(json.dumps([row.as_dict() for row in rows]), encoding="utf-8")


def stage_key(name: str, config: RunConfig, sections: Sequence[str], before: str) -> str:
    """A hash of what a stage depends on: its part of the config, seed, threads, and the key of the stage before.

    `sections` are names of sections, or of a key in one, such as tune.pairs.
    """
    dumped = config.model_dump(mode="json")
    values = {section: _at(dumped, section) for section in (*sections, "seed", "threads")}
    return hashlib.sha256(json.dumps([name, values, before], sort_keys=True).encode()).hexdigest()


def _at(values: Any, dotted: str) -> Any:
    for name in dotted.split("."):
        values = values[name]
    return values
