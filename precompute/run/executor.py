"""Map a pure function over the shards of a stage: in this process, or by the workers of a cluster; merge in a tree."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Generic, Protocol, TypeVar

from lfp.util.types import Progress

Report = Callable[[int], None]
"""Called with how many more units of a shard are done."""
_Shard = TypeVar("_Shard")
_Result = TypeVar("_Result")
_Part = TypeVar("_Part")
ShardFunction = Callable[[_Shard, Report], _Result]
"""A function of a shard alone: the same shard gives the same result in any process with the same number of threads."""


@dataclass(frozen=True)
class Shelf:
    """Keeps the results of shards that a cluster has done, so that an interrupted run need not do them again.

    `folder` is a stage's scratch folder, which is named by everything that its results depend on; None where no stage
    runs, and nothing is kept.
    """

    folder: Path | None
    name: str

    def save(self, number: int, payload: bytes) -> None:
        """Keep a result in one step, with its hash."""
        if self.folder is None:
            return
        file = self._file(self.folder, number)
        partial = file.with_name(f".{file.name}.partial")
        partial.write_bytes(hashlib.sha256(payload).digest() + payload)
        partial.replace(file)

    def load(self, number: int) -> bytes | None:
        """Return a result; None where there is none, or not the whole of it."""
        if self.folder is None:
            return None
        try:
            stored = self._file(self.folder, number).read_bytes()
        except FileNotFoundError:
            return None
        size = hashlib.sha256().digest_size
        payload = stored[size:]
        return payload if hashlib.sha256(payload).digest() == stored[:size] else None

    def _file(self, folder: Path, number: int) -> Path:
        return folder / f"{self.name}-{number}.shard"


@dataclass(frozen=True)
class Task(Generic[_Shard, _Result]):
    """What is done with every shard, and where its progress goes.

    `load` returns the function in a process of a cluster, with models of its own; it is pickled, as shards are.
    `sizes` [shards] is what the reports of each shard add up to.
    """

    name: str
    sizes: Sequence[int]
    load: Callable[[], ShardFunction[_Shard, _Result]]
    shelf: Shelf
    progress: Progress

    def show(self, done: int) -> None:
        """Report how many units are done."""
        self.progress(self.name, done, sum(self.sizes), float(done))


class Executor(Protocol):
    """Maps functions over shards."""

    def map_shards(
        self, function: ShardFunction[_Shard, _Result], shards: Sequence[_Shard], task: Task[_Shard, _Result]
    ) -> Iterator[tuple[int, _Result]]:
        """Yield the number of each shard and its result, in any order.

        `function` is what `task.load` returns, with the models of this process.
        """


class InProcess:
    """Maps functions in this process, shard after shard; those that a cluster has done are not done again."""

    def map_shards(
        self, function: ShardFunction[_Shard, _Result], shards: Sequence[_Shard], task: Task[_Shard, _Result]
    ) -> Iterator[tuple[int, _Result]]:
        """Yield the number of each shard and its result, in order."""
        done = 0

        def report(n: int) -> None:
            nonlocal done
            done += n
            task.show(done)

        for number, size in enumerate(task.sizes):
            stored = task.shelf.load(number)
            if stored is None:
                yield number, function(shards[number], report)
            else:
                report(size)
                yield number, pickle.loads(stored)


IN_PROCESS = InProcess()


class InThreads:
    """Maps functions in threads of this process, each with a single thread of linear algebra.

    A factorisation shared among threads waits for all of them at every step, and takes twenty times as long when
    another program has one of the cores.
    """

    def __init__(self, threads: int) -> None:
        self._threads = threads

    def map_shards(
        self, function: ShardFunction[_Shard, _Result], shards: Sequence[_Shard], task: Task[_Shard, _Result]
    ) -> Iterator[tuple[int, _Result]]:
        """Yield the number of each shard and its result, in order; as many are in memory as there are threads."""
        from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

        done, lock = 0, Lock()

        def report(n: int) -> None:
            nonlocal done
            with lock:
                done += n
                task.show(done)

        def do(number: int) -> _Result:
            stored = task.shelf.load(number)
            if stored is None:
                return function(shards[number], report)
            report(task.sizes[number])
            result: _Result = pickle.loads(stored)
            return result

        task.show(0)
        with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(self._threads) as pool:
            yield from enumerate(pool.map(do, range(len(shards))))


@dataclass(frozen=True)
class OneThread(Generic[_Shard, _Result]):
    """A function whose linear algebra has a single thread, as `InThreads` gives it."""

    function: ShardFunction[_Shard, _Result]

    def __call__(self, shard: _Shard, report: Report) -> _Result:
        """Do a shard."""
        from threadpoolctl import threadpool_limits

        with threadpool_limits(1, user_api="blas"):
            return self.function(shard, report)


def map_in_order(
    executor: Executor,
    function: ShardFunction[_Shard, _Result],
    shards: Sequence[_Shard],
    task: Task[_Shard, _Result],
) -> list[_Result]:
    """Return the results of all shards, in their order, as `Executor.map_shards` gives them."""
    found = dict(executor.map_shards(function, shards, task))
    return [found[number] for number in range(len(shards))]


class Tree(Generic[_Part]):
    """Merges the parts of shards pair by pair: the first with the second, the third with the fourth, then these.

    So sums are rounded alike in whatever order parts are added.
    """

    def __init__(self, n_parts: int, merge: Callable[[_Part, _Part], _Part]) -> None:
        self._n_parts, self._merge = n_parts, merge
        self._waiting: dict[tuple[int, int], _Part] = {}

    def add(self, number: int, part: _Part) -> None:
        """Add the part of a shard, and merge it as far as the others are there."""
        level, size = 0, self._n_parts
        while size > 1:
            sibling = number ^ 1
            if sibling < size:
                other = self._waiting.pop((level, sibling), None)
                if other is None:
                    break
                part = self._merge(part, other) if number < sibling else self._merge(other, part)
            level, number, size = level + 1, number // 2, (size + 1) // 2
        self._waiting[level, number] = part

    def root(self) -> _Part:
        """Return all parts as one."""
        (part,) = self._waiting.values()
        return part


def split_rows(n: int, *, size: int, batch: int) -> list[range]:
    """Split rows into shards of `size` or more that are whole batches, the last as it comes; one for no rows."""
    step = -(-size // batch) * batch
    return [range(start, min(start + step, n)) for start in range(0, max(n, 1), step)]
