"""For tests: an executor that does shards as another process would, and what a stage wrote, to be compared."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from precompute.run.executor import Task


class Elsewhere:
    """Does the last shard first, with models of its own, on copies of all that a worker would be sent."""

    n_shards = 0

    def open(self, *_: Any) -> nullcontext[Elsewhere]:
        """Stand in for `open_executor`."""
        return nullcontext(self)

    def map_shards(self, function: Any, shards: Sequence[Any], task: Task[Any, Any]) -> Iterator[tuple[int, Any]]:
        self.n_shards, done = self.n_shards + len(shards), []
        worker = pickle.loads(pickle.dumps(task.load))()
        for number in reversed(range(len(shards))):
            result = worker(pickle.loads(pickle.dumps(shards[number])), done.append)
            assert sum(done) == task.sizes[number]
            done.clear()
            yield number, pickle.loads(pickle.dumps(result))


def read_folder(folder: Path) -> dict[str, bytes]:
    """The files of a stage but its record; of archives the arrays, without the times that they were written at."""
    found = {}
    for file in sorted(file for file in folder.rglob("*") if file.is_file()):
        name = str(file.relative_to(folder))
        if file.suffix == ".npz":
            with np.load(file) as stored:
                found[name] = b"".join(name.encode() + stored[name].tobytes() for name in sorted(stored.files))
        elif name != "stage.json":
            found[name] = file.read_bytes()
    return found
