"""The work folder of a run: its lock, and the folder of each stage, complete or absent."""

from __future__ import annotations

import fcntl
import functools
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from lfp.bundle.manifest import StageCost
from lfp.bundle.remote.mirror import place_beside
from lfp.bundle.remote.publishing import hold_address
from lfp.config import LanguageModelConfig, RunConfig
from lfp.errors import BundleError, LfpError
from lfp.evaluation.results import ResultRow
from lfp.util.disk import find_refusal, sync, sync_entry
from lfp.util.object_stores import is_address
from lfp.util.types import Progress
from precompute.run.executor import IN_PROCESS, Executor
from precompute.run.progress import silent
from precompute.run.resources import Cost, Meter
from precompute.run.stage import ALWAYS_READ, ConfigView, Stage, UndeclaredReadError

_Given = ParamSpec("_Given")
_Returned = TypeVar("_Returned")

_DONE = "stage.json"
_RESULTS = "results.json"
_SPENT = "spent.json"
_LOCK = "lock"

MADE_BY = {
    "completions": "completions",
    "features": "features",
    "decoders": "features",
    "histograms": "features",
    "examples": "texts",
    "neighbours": "features",
    "differences": "features",
    "triples": "probes",
    "vocabulary": "probes",
    "word_features": "probes",
    "probes": "probes",
    "weights": "probes",
    "module_credits": "credits",
    "word_credits": "credits",
    "texts": "texts",
    "token_scores": "texts",
    "activations": "texts",
    "labels": "labels",
    "drift": "findings",
    "ablations": "ablations",
    "tuning": "tuned",
    "trajectory": "trajectory",
    "feature_trajectory": "feature_trajectory",
    "twins": "twin_words",
    "feature_credits": "feature_credits",
    "credit_sums": "feature_credits",
    "credits": "feature_credits",
    "interventions": "interventions",
    "forecast": "receipt",
}
"""Tables of the bundle, and the stage that makes each."""


@dataclass(frozen=True)
class Run:
    """A run's config, its work folder, the folder of its config file, and the function that its progress is sent to.

    A stage gets it narrowed to what the stage declares: then `config` has only those sections, and only the outputs of
    the stages in `readable` can be read; None stands for all.
    """

    config: RunConfig
    work: Path
    config_dir: Path | None
    progress: Progress
    readable: frozenset[str] | None = None
    language_model: LanguageModelConfig | None = None
    """Server that stages may call; no result depends on it, so it is not part of the config."""
    executor: Executor = IN_PROCESS
    """What stages map functions over shards with."""

    def narrow(self, stage: Stage) -> Run:
        """Return the run as `stage` gets it: everything that the stage does not declare raises UndeclaredReadError."""
        view: Any = ConfigView(self.config, stage.name, {*stage.reads, *ALWAYS_READ})  # looks like a RunConfig
        return replace(self, config=view, readable=frozenset(stage.after))

    def for_worker(self) -> Run:
        """Return the run as another process gets it, which maps nothing further and shows no progress of its own."""
        return replace(self, progress=silent, executor=IN_PROCESS)

    def folder(self, stage: str) -> Path:
        """Return the folder of a finished stage. Raises UndeclaredReadError."""
        if self.readable is not None and stage not in self.readable:
            raise UndeclaredReadError(
                f"the output of stage {stage} is read by a stage that does not declare it; add it to `after` in"
                " precompute/pipeline.py"
            )
        return self.work / stage

    def table(self, stage: str, name: str) -> pa.Table:
        """Read a table that a stage wrote."""
        return pq.read_table(self.folder(stage) / f"{name}.parquet")

    def made(self, table: str) -> pa.Table:
        """Read a table of the future bundle from the stage that makes it."""
        return self.table(MADE_BY[table], table)

    def json(self, stage: str, name: str) -> Any:
        """Read a JSON file that a stage wrote."""
        return json.loads((self.folder(stage) / f"{name}.json").read_text(encoding="utf-8"))

    def results(self, stages: Sequence[str]) -> list[ResultRow]:
        """Read the rows of the report that the stages wrote."""
        files = [self.folder(stage) / _RESULTS for stage in stages]
        stored = (row for file in files if file.is_file() for row in json.loads(file.read_text(encoding="utf-8")))
        return [ResultRow(**row) for row in stored]

    def costs(self, stages: Sequence[str]) -> list[StageCost]:
        """Read what each of the finished stages took, as measured when it ran."""
        records = [json.loads((self.folder(name) / _DONE).read_text(encoding="utf-8")) for name in stages]
        return [StageCost(name=name, **record["cost"]) for name, record in zip(stages, records, strict=True)]

    def finished(self) -> list[str]:
        """List the stages in the work folder that finished."""
        return sorted(file.parent.name for file in self.work.glob(f"*/{_DONE}"))

    def is_done(self, stage: str, key: str) -> bool:
        """Whether the stage finished under this key, and every file that it wrote is there in full length."""
        folder = self.work / stage
        try:
            record = json.loads((folder / _DONE).read_text(encoding="utf-8"))
            return record["key"] == key and record["files"] == _file_sizes(folder)
        except (OSError, ValueError, KeyError):
            return False

    @contextmanager
    def writing(self, stage: str, key: str) -> Iterator[Output]:
        """Give a stage a folder to write to, which becomes the stage's own when the block ends without an exception.

        The files are synced to disk first, the record that the stage is done is written last, and the folder is then
        renamed, so that a stage stopped at any moment does not count as done. The scratch folder outlives an
        interruption, until the stage ends or starts under another key; what the interrupted attempts took is added to
        the stage's cost. Raises BundleError where the disk does not take what is written.
        """
        partial, scratch = self.work / f".{stage}.partial", self.work / f".{stage}.{key[:16]}"
        for stale in self.work.glob(f".{stage}.*"):
            if stale != scratch:
                shutil.rmtree(stale)
        try:
            partial.mkdir(parents=True)
            scratch.mkdir(exist_ok=True)
            with _measuring(scratch) as cost:
                yield Output(partial, scratch)
            record = {"key": key, "cost": asdict(cost()), "files": _file_sizes(partial)}
            sync(partial)
            (partial / _DONE).write_text(json.dumps(record), encoding="utf-8")
            sync_entry(partial / _DONE)
            sync_entry(partial)
            if (self.work / stage).exists():  # rename, since a folder half deleted would still have its record
                (self.work / stage).rename(self.work / f".{stage}.old")
            partial.rename(self.work / stage)
            sync_entry(self.work)
        except LfpError:
            raise
        except Exception as error:
            named = getattr(error, "filename", None)
            is_here = not isinstance(named, str) or Path(named).is_relative_to(self.work)
            refusal = find_refusal(error)
            if refusal is None or not is_here:
                raise
            raise BundleError(
                f"{self.work}: stage {stage} cannot be written ({refusal}); make room or get the right to write"
                " there, then add --resume"
            ) from error
        for stale in self.work.glob(f".{stage}.*"):
            shutil.rmtree(stale)


@dataclass(frozen=True)
class Output:
    """Where a running stage writes: its results to `folder`, and to `scratch` what it needs to resume after a kill."""

    folder: Path
    scratch: Path

    def table(self, name: str, table: pa.Table) -> None:
        """Write a table for later stages."""
        pq.write_table(table, self.folder / f"{name}.parquet", compression="zstd")

    def json(self, name: str, values: Any) -> None:
        """Write JSON values for later stages."""
        (self.folder / f"{name}.json").write_text(json.dumps(values), encoding="utf-8")

    def results(self, rows: Sequence[ResultRow]) -> None:
        """Write rows of the report."""
        (self.folder / _RESULTS).write_text(json.dumps([row.as_dict() for row in rows]), encoding="utf-8")


@contextmanager
def lock_work_folder(out: Path, *, within: str | Path | None = None) -> Iterator[Path]:
    """Hold the only right to make what goes to `out`, and yield its work folder, made if missing.

    It is a hidden sibling of `out`, or in the folder `within`.

    The lock is the operating system's, so it ends with the process however that ends, and is never stale. Raises
    BundleError where another process holds it or the folder cannot be made.
    """
    work = (Path(within) if within is not None else out.parent) / f".{out.name}.run"
    try:
        handle = _lock(work / _LOCK)
    except OSError as error:
        raise BundleError(
            f"{out}: cannot be written ({work}: {error.strerror}); choose a folder that you may write to"
        ) from error
    if handle is None:
        owner = (work / _LOCK).read_text(encoding="utf-8").strip() or "unknown"
        raise BundleError(
            f"{out}: another command (process {owner}) is writing there; wait until it ends or choose another --out"
        )
    try:
        yield work
    finally:
        if work.is_dir() and [file.name for file in work.iterdir()] == [_LOCK]:
            shutil.rmtree(work)  # nothing to resume from
        os.close(handle)


@contextmanager
def lock_output(out: str | Path, *, within: str | Path | None = None) -> Iterator[Path]:
    """Hold the only right to write to a folder or an address, and yield the work folder; see `lock_work_folder`.

    An address is locked in its store too, since commands on other machines may write there.
    """
    with lock_work_folder(place_beside(out), within=within) as work:
        if is_address(out):
            with hold_address(str(out)):
                yield work
        else:
            yield work


def writes_bundle(
    verb: Callable[Concatenate[str | Path, _Given], _Returned],
) -> Callable[Concatenate[str | Path, _Given], _Returned]:
    """Make a verb hold the lock of the bundle that it changes: of two at once, the second says so before it begins."""

    @functools.wraps(verb)
    def locked(bundle: str | Path, /, *values: _Given.args, **named: _Given.kwargs) -> _Returned:
        is_there = is_address(bundle) or Path(bundle).expanduser().is_dir()
        if not is_there or named.get("dry_run"):
            return verb(bundle, *values, **named)
        with lock_output(bundle if is_address(bundle) else Path(bundle).expanduser()):
            return verb(bundle, *values, **named)

    return locked


def _lock(file: Path) -> int | None:
    """Open and lock a file that names this process; None where another process has locked it."""
    while True:
        file.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(handle), file.stat()):
                os.truncate(handle, 0)
                os.write(handle, str(os.getpid()).encode())
                return handle
        except BlockingIOError:
            os.close(handle)
            return None
        except FileNotFoundError:
            pass
        os.close(handle)  # its last holder has just ended and deleted it: lock the file that stands there now


@contextmanager
def _measuring(scratch: Path) -> Iterator[Callable[[], Cost]]:
    """Measure the block and yield a function that says its cost so far.

    An attempt that ends by an exception and leaves something in `scratch` to resume from adds its cost to the next.
    """
    file, meter = scratch / _SPENT, Meter()
    earlier = Cost(**json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else Cost(0.0, 0.0, 0.0)
    try:
        yield lambda: meter.cost().after(earlier)
    except BaseException:
        if {left.name for left in scratch.iterdir()} - {_SPENT}:
            file.write_text(json.dumps(asdict(meter.cost().after(earlier))), encoding="utf-8")
        raise


def _file_sizes(folder: Path) -> dict[str, int]:
    """Bytes of every file of a stage but its record, by path inside the folder."""
    files = (file for file in folder.rglob("*") if file.is_file() and file != folder / _DONE)
    return {str(file.relative_to(folder)): file.stat().st_size for file in files}
