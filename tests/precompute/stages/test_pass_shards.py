"""The pass in shards: what other processes make of them in another order is what one process makes, to the bit."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from precompute.pipeline import run_stages
from precompute.run.executor import IN_PROCESS, Task
from precompute.run.work_folder import Run
from tests.precompute.conftest import silent, tiny_config


class Elsewhere:
    """Does the last shard first, with models of its own, on copies of all that a worker would be sent."""

    n_shards = 0

    def map_shards(self, function: Any, shards: Sequence[Any], task: Task[Any, Any]) -> Iterator[tuple[int, Any]]:
        self.n_shards, done = len(shards), []
        worker = pickle.loads(pickle.dumps(task.load))()
        for number in reversed(range(len(shards))):
            result = worker(pickle.loads(pickle.dumps(shards[number])), done.append)
            assert sum(done) == task.sizes[number]
            done.clear()
            yield number, pickle.loads(pickle.dumps(result))


def test_workers_elsewhere_write_the_files_of_one_process(
    tiny_bundle: Path, corpus_folder: Path, tmp_path: Path
) -> None:
    models = {role: str(tiny_bundle / "artifacts" / role) for role in ("base", "tuned")}
    config = tiny_config(model=models, stats={"batch_texts": 16}, cluster={"shard_texts": 70}, sae={"steps": 5})

    elsewhere, found = Elsewhere(), []
    for executor in (IN_PROCESS, elsewhere):
        run_stages(Run(config, tmp_path, corpus_folder, silent, executor=executor), ["features"])
        found.append(read_folder(tmp_path / "features"))
        shutil.rmtree(tmp_path / "features")
    assert elsewhere.n_shards >= 3
    assert found[0].keys() == found[1].keys()
    assert [name for name, content in found[0].items() if content != found[1][name]] == []


def read_folder(folder: Path) -> dict[str, bytes]:
    """The files of a stage but its record; of archives the arrays, without the times that they were written at."""
    found = {}
    for file in sorted(folder.iterdir()):
        if file.suffix == ".npz":
            with np.load(file) as stored:
                found[file.name] = b"".join(name.encode() + stored[name].tobytes() for name in sorted(stored.files))
        elif file.name != "stage.json":
            found[file.name] = file.read_bytes()
    return found
