"""A Ray cluster of two nodes: the same results, errors as sentences, lost workers and nodes, and what was kept."""

from __future__ import annotations

import os
import pickle
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest

from lfp.config import ClusterConfig
from lfp.errors import ClusterError, ConfigError, DataError
from precompute.cli.options import Interrupted
from precompute.run import cluster as module
from precompute.run.cluster import RayExecutor, connect, wait
from precompute.run.executor import IN_PROCESS, Shelf, Task, Tree
from tests.precompute.conftest import silent
from tests.precompute.run.shard_work import Load, Work

N_SHARDS = 7
NODE = {"object_store_memory": 100 * 2**20, "no_monitor": True}


SHARDS = [np.concatenate([[number], np.random.default_rng(number).random(1000)]) for number in range(N_SHARDS)]


@pytest.fixture(scope="module")
def nodes() -> Iterator[Any]:
    """Two nodes of one processor each on this machine."""
    from ray.cluster_utils import Cluster

    for name, value in module.QUIET.items():
        os.environ.setdefault(name, value)
    try:
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False, **NODE})
        cluster.add_node(num_cpus=1, **NODE)
    except Exception as error:
        if "timed out during startup" in str(error):  # Ray gives a node half a minute, its parts 15 seconds
            pytest.skip("this machine is too busy to start Ray")
        raise
    try:
        yield cluster
    finally:
        import ray

        ray.shutdown()
        cluster.shutdown()


@pytest.fixture(scope="module")
def executor(nodes: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayExecutor]:
    """Two workers, one on each node."""
    config = ClusterConfig(address=nodes.address, workers=2)
    with connect(config, threads=1, work=tmp_path_factory.mktemp("work")) as found:
        yield found


def map_and_merge(executor: Any, work: Work, shelf: Shelf) -> bytes:
    """The merged sums, to the bit."""
    task = Task("sums", [len(shard) for shard in SHARDS], Load(work), shelf, silent)
    tree = Tree(N_SHARDS, np.add)
    for number, part in executor.map_shards(work, SHARDS, task):
        tree.add(number, part)
    return tree.root().tobytes()


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    (tmp_path / "scratch").mkdir()
    return Shelf(tmp_path / "scratch", "sums")


@pytest.fixture
def expected(tmp_path: Path) -> bytes:
    (tmp_path / "alone").mkdir()
    return map_and_merge(IN_PROCESS, Work(tmp_path / "alone"), Shelf(tmp_path, "none"))


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1"])
def test_an_address_where_nothing_listens_is_named(address: str, tmp_path: Path) -> None:
    """First, since a process is connected to one cluster at a time."""
    config = ClusterConfig(address=address)
    with pytest.raises(ClusterError, match="cannot be reached"), connect(config, threads=1, work=tmp_path):
        pass


def test_two_workers_give_the_sums_of_one_process_and_an_interrupted_job_goes_on(
    executor: RayExecutor, shelf: Shelf, expected: bytes, tmp_path: Path
) -> None:
    work = Work(tmp_path)
    assert map_and_merge(executor, work, shelf) == expected
    assert work.runs() == Counter(range(N_SHARDS)) and executor.lost == []
    for number in (1, 4, 5):
        (shelf.folder / f"sums-{number}.shard").unlink()
    assert map_and_merge(executor, work, shelf) == expected
    assert work.runs() == Counter(range(N_SHARDS)) + Counter([1, 4, 5])


def test_what_a_signal_raises_while_workers_are_waited_for_stays_what_it_is(executor: RayExecutor) -> None:
    import ray

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise Interrupted

    @ray.remote(num_cpus=0)
    def sleep() -> None:
        time.sleep(60.0)

    never, handler = sleep.remote(), signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    try:
        with pytest.raises(Interrupted):
            wait([never], timeout_s=30.0)
    finally:
        signal.signal(signal.SIGALRM, handler)
        ray.cancel(never, force=True)


def test_an_error_of_a_worker_is_the_error_of_the_run(executor: RayExecutor, shelf: Shelf, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^shard 2 has a number that is none; take it out$"):
        map_and_merge(executor, Work(tmp_path, refused=2), shelf)


def test_a_killed_worker_costs_its_shard_only(
    executor: RayExecutor, shelf: Shelf, expected: bytes, tmp_path: Path
) -> None:
    before, work = len(executor.lost), Work(tmp_path, killer=3)
    with pytest.warns(UserWarning, match="a worker was lost .* shard 3 is done again"):
        assert map_and_merge(executor, work, shelf) == expected
    assert executor.lost[before:] == [3]
    assert work.runs() == Counter(range(N_SHARDS)) + Counter([3])


def test_workers_that_do_not_fit_are_refused(
    executor: RayExecutor, nodes: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        pytest.raises(ConfigError, match="needs 1 GPUs, and the cluster has 0"),
        connect(ClusterConfig(address=nodes.address, workers=1, gpus_per_worker=1), threads=1, work=tmp_path),
    ):
        pass
    with (
        pytest.raises(ConfigError, match="with 4 threads each need 8 processors, and the cluster has 2"),
        connect(ClusterConfig(address=nodes.address), threads=4, work=tmp_path),
    ):
        pass
    found = module.Origin("0.0.1", "0123456789abcdef", "3.9.1")
    config = ClusterConfig(address=nodes.address)
    with pytest.raises(ClusterError, match=r"has lfp-explorer 0\.0\.1 .* on Python 3\.9\.1.*install the same"):
        module.check_worker(config, tmp_path, (found, "node", True))
    with pytest.raises(ClusterError, match="node far of the cluster has no such folder"):
        module.check_worker(config, tmp_path, (module.Origin.find(), "far", False))


def test_a_killed_node_costs_the_shard_of_its_worker_only(
    executor: RayExecutor, nodes: Any, shelf: Shelf, expected: bytes, tmp_path: Path
) -> None:
    """Last, since the node does not come back: the other worker does what is left."""
    before, work = len(executor.lost), Work(tmp_path)
    task = Task("sums", [len(shard) for shard in SHARDS], Load(work), shelf, silent)
    tree = Tree(N_SHARDS, np.add)
    with pytest.warns(UserWarning, match="a worker was lost"):
        for number, part in executor.map_shards(work, SHARDS, task):
            if nodes.worker_nodes:
                nodes.remove_node(next(iter(nodes.worker_nodes)), allow_graceful=False)
            tree.add(number, part)
    assert tree.root().tobytes() == expected
    lost = executor.lost[before:]
    assert len(lost) == 1
    assert all(runs <= 1 + (number in lost) for number, runs in work.runs().items())
    assert pickle.loads(shelf.load(lost[0]) or b"").shape == SHARDS[0].shape
