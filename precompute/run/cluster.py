"""Map functions over shards on a Ray cluster: workers that load models once, lost shards done again, one progress."""

from __future__ import annotations

import hashlib
import logging
import os
import pickle
import platform
import signal
import socket
import tempfile
import threading
import time
import warnings
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import ray
from ray.exceptions import RayError, RayTaskError

import lfp
from lfp.config import ClusterConfig
from lfp.config_sections.cluster import LOCAL, RUNNING
from lfp.errors import ClusterError, ConfigError, LfpError, first_line
from precompute.run.executor import ShardFunction, Task

_STORE_BYTES = 2**30
"""Most memory of the object store of a cluster of our own, through which shards and results pass."""
_CONNECT_S = 10.0
_START_S = 180.0
"""Seconds in which workers start, or one of those that were lost comes back."""
_POLL_S = 1.0
_MOST_LOSSES = 3
"""How often a shard is done again with another worker lost each time, before the shard is at fault."""
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
"""Environment of Ray: nothing is sent to its makers, and no advice is printed."""


def wait(refs: Sequence[Any], *, timeout_s: float) -> list[Any]:
    """Return one of the results that is ready, if any is in time.

    Raises what a signal's handler raises meanwhile, which Ray reports as the cause of a SystemError.
    """
    try:
        ready, _ = ray.wait(list(refs), timeout=timeout_s)
    except SystemError as error:
        if error.__cause__ is None:
            raise
        raise error.__cause__ from None
    return list(ready)


@contextmanager
def connect(config: ClusterConfig, *, threads: int, work: Path) -> Iterator[RayExecutor]:
    """Yield the workers of a cluster; all of them end with the block, and so does a cluster that was started for it.

    Raises ClusterError where it cannot be reached or its workers do not fit this process, ConfigError where it has
    fewer processors or GPUs than the config asks for.
    """
    is_given = ray.is_initialized()
    with tempfile.TemporaryDirectory(prefix="lfp-ray-", ignore_cleanup_errors=True) as folder:
        try:
            if not is_given:
                _initialise(config, threads, folder)
            _check_resources(config, threads)
            executor = RayExecutor(_start_workers(config, threads, work))
            try:
                yield executor
            finally:
                executor.close()
        finally:
            if not is_given:
                ray.shutdown()


def _initialise(config: ClusterConfig, threads: int, folder: str) -> None:
    """Start or join the cluster, without its dashboard and logs, and with the signal handlers that there were."""
    os.environ.update({name: value for name, value in QUIET.items() if name not in os.environ})
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if config.address == LOCAL:
        options |= {
            "num_cpus": config.workers * threads,
            "include_dashboard": False,
            "object_store_memory": _STORE_BYTES,
            "_temp_dir": folder,
        }
    elif config.address != RUNNING:
        _check_reachable(config.address)
        if config.address.startswith("ray://"):
            _use_token()
    handler = signal.getsignal(signal.SIGTERM)  # Ray replaces it
    try:
        ray.init(config.address, **options)
    except Exception as error:
        raise ClusterError(
            f"cluster.address {config.address}: {first_line(error)}; start a cluster of Ray {ray.__version__} and"
            f" Python {platform.python_version()} there, give its token in RAY_AUTH_TOKEN where it has one, or set it"
            " to local"
        ) from error
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)


def _use_token() -> None:
    """Send the token that this machine has (RAY_AUTH_TOKEN, ~/.ray/auth_token), as a node would, and a client does not.

    Without it a cluster that wants one lets a client wait until it gives up.
    """
    loader = ray._raylet.AuthenticationTokenLoader.instance()
    if "RAY_AUTH_MODE" not in os.environ and loader.has_token(ignore_auth_mode=True):
        os.environ["RAY_AUTH_MODE"] = "token"
        ray._raylet.Config.initialize("")  # which has read the environment already


def _check_reachable(address: str) -> None:
    """Raise ClusterError where nothing listens at an address; Ray itself tries for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=_CONNECT_S).close()
    except (OSError, OverflowError) as error:
        raise ClusterError(
            f"cluster.address {address}: cannot be reached ({first_line(error)}); start Ray there, or correct the"
            " address"
        ) from error


def _check_resources(config: ClusterConfig, threads: int) -> None:
    """Raise ConfigError where the cluster has not what all workers hold together."""
    there: Mapping[str, float] = ray.cluster_resources()
    gpus, cpus = config.workers * config.gpus_per_worker, config.workers * threads
    if there.get("GPU", 0.0) < gpus:
        raise ConfigError(
            f"cluster.gpus_per_worker {config.gpus_per_worker:g} for {config.workers} workers needs {gpus:g} GPUs, and"
            f" the cluster has {there.get('GPU', 0.0):g}; lower it or cluster.workers"
        )
    if there.get("CPU", 0.0) < cpus:
        raise ConfigError(
            f"cluster.workers {config.workers} with {threads} threads each need {cpus} processors, and the cluster has"
            f" {there.get('CPU', 0.0):g}; lower cluster.workers or threads"
        )


class Origin(NamedTuple):
    """What a process runs, by which workers are compared with the process that they work for."""

    version: str
    sources: str
    python: str

    @staticmethod
    def find() -> Origin:
        """Describe this process: the project's version and the hash of its sources, and Python's version."""
        root, digest = Path(lfp.__file__).resolve().parents[1], hashlib.sha256()
        for file in sorted(file for package in ("lfp", "precompute") for file in (root / package).rglob("*.py")):
            digest.update(f"{file.relative_to(root)}\n".encode() + file.read_bytes())
        return Origin(lfp.__version__, digest.hexdigest()[:16], platform.python_version())


@dataclass(frozen=True)
class _Refusal:
    """An error of this project, as it leaves a worker."""

    kind: type[LfpError]
    message: str


class Worker:
    """A process of the cluster. It loads what a task needs with the first shard of it, and after a restart again."""

    def __init__(self, threads: int) -> None:
        self._threads, self._key, self._done = threads, -1, 0
        self._function: ShardFunction[Any, Any] | None = None

    def describe(self, work: Path) -> tuple[Origin, str, bool]:
        """Return what this process runs, its machine's name, and whether it sees the work folder."""
        return Origin.find(), socket.gethostname(), work.is_dir()

    def run(self, key: int, task: tuple[Any], shard: Any) -> bytes | _Refusal:
        """Return the pickled result of a shard; `key` is the number of the task, `task` holds what loads it."""
        import torch

        torch.set_num_threads(self._threads)  # of the thread that this method runs in
        try:
            if self._function is None or self._key != key:
                self._function = None  # frees the models of another task first
                self._function, self._key = task[0](), key
            return pickle.dumps(self._function(shard, self._count), protocol=pickle.HIGHEST_PROTOCOL)
        except LfpError as error:
            return _Refusal(type(error), str(error))
        finally:
            self._done = 0

    def release(self) -> None:
        """Free the models."""
        self._function = None

    @ray.method(concurrency_group="watch")  # type: ignore[untyped-decorator]
    def done(self) -> int:
        """Return how many units of its shard are done, while it works."""
        return self._done

    def _count(self, n: int) -> None:
        self._done += n


def _start_workers(config: ClusterConfig, threads: int, work: Path) -> list[Any]:
    """Start the workers and compare each with this process. Raises ClusterError."""
    kind = ray.remote(
        num_cpus=threads,
        num_gpus=config.gpus_per_worker,
        max_restarts=-1,
        scheduling_strategy="SPREAD",
        concurrency_groups={"watch": 1},
    )(Worker)
    workers = [kind.remote(threads) for _ in range(config.workers)]
    try:
        found = ray.get([worker.describe.remote(work) for worker in workers], timeout=_START_S)
    except RayError as error:
        raise ClusterError(
            f"cluster.address {config.address}: a worker does not start ({first_line(error)}); install this project"
            f" in version {lfp.__version__} on every node"
        ) from error
    for description in found:
        check_worker(config, work, description)
    return workers


def check_worker(config: ClusterConfig, work: Path, description: tuple[Origin, str, bool]) -> None:
    """Raise ClusterError where what a worker says of itself (`Worker.describe`) does not fit this process."""
    (origin, node, sees_work), own = description, Origin.find()
    if origin != own:
        raise ClusterError(
            f"cluster.address {config.address}: node {node} has lfp-explorer {origin.version} ({origin.sources}) on"
            f" Python {origin.python}, this process {own.version} ({own.sources}) on {own.python}; install the same"
            " on every node"
        )
    if not sees_work:
        raise ClusterError(
            f"{work}: node {node} of the cluster has no such folder, which models are read from; choose an --out on a"
            " file system that all nodes share"
        )


class RayExecutor:
    """Maps functions by the workers of a cluster, one shard at a time each; `lost` are the shards done again."""

    def __init__(self, workers: Sequence[Any]) -> None:
        self._workers, self._n_tasks = list(workers), 0
        self._crew = _Crew(list(workers), {})
        self.lost: list[int] = []

    def close(self) -> None:
        """End the workers."""
        for worker in self._workers:
            ray.kill(worker)

    def map_shards(
        self, function: ShardFunction[Any, Any], shards: Sequence[Any], task: Task[Any, Any]
    ) -> Iterator[tuple[int, Any]]:
        """Yield the number of each shard and its result, as they come; a single shard is not worth a worker.

        Raises what the function raises, and ClusterError where a shard or all workers are lost too often.
        """
        missing, done = list[int](), 0

        def report(n: int) -> None:
            nonlocal done
            done += n
            task.show(done)

        for number in range(len(shards)):
            payload = task.shelf.load(number)
            if payload is None:
                missing.append(number)
            else:
                report(task.sizes[number])
                yield number, pickle.loads(payload)
        if len(missing) == 1:
            yield missing[0], function(shards[missing[0]], report)
        if len(missing) < 2:
            return
        self._n_tasks += 1
        job = _Job(self._crew, self._n_tasks, shards, task, self.lost)
        job.done = done
        for number, payload in job.run(missing):
            task.shelf.save(number, payload)
            yield number, pickle.loads(payload)
        for worker in self._crew.idle:
            worker.release.remote()


class _Crew(NamedTuple):
    """Workers that have nothing to do, and by their calls those that are back when it ends: restarting or at work."""

    idle: list[Any]
    away: dict[Any, Any]


class _Job:
    """The shards of one task: which wait, and which are worked on by whom."""

    def __init__(self, crew: _Crew, key: int, shards: Sequence[Any], task: Task[Any, Any], lost: list[int]) -> None:
        self.done = 0
        self._crew = crew
        self._key, self._shards, self._task, self._lost = key, shards, task, lost
        self._load = ray.put((task.load,))
        self._waiting: deque[int] = deque()
        self._busy: dict[Any, tuple[Any, int]] = {}
        self._losses: Counter[int] = Counter()
        self._shown = 0

    def run(self, numbers: Iterable[int]) -> Iterator[tuple[int, bytes]]:
        """Yield the number and the pickled result of each shard."""
        self._waiting.extend(numbers)
        try:
            yield from self._results()
        finally:
            self._crew.away.update({ref: worker for ref, (worker, _) in self._busy.items()})

    def _results(self) -> Iterator[tuple[int, bytes]]:
        away, last_seen = self._crew.away, time.monotonic()
        while self._waiting or self._busy:
            self._hand_out()
            ready = wait([*self._busy, *away], timeout_s=_POLL_S)
            if self._busy or ready:
                last_seen = time.monotonic()
            if not (self._busy or away) or time.monotonic() - last_seen > _START_S:
                raise ClusterError(
                    f"{self._task.name}: every worker of the cluster is lost and none came back within"
                    f" {_START_S:.0f} s; look after its nodes, then add --resume"
                )
            self._show()
            for ref in ready:
                if ref in away:
                    self._welcome(away.pop(ref), ref)
                elif (result := self._take(ref)) is not None:
                    yield result

    def _hand_out(self) -> None:
        while self._waiting and self._crew.idle:
            worker, number = self._crew.idle.pop(), self._waiting.popleft()
            self._busy[worker.run.remote(self._key, self._load, self._shards[number])] = worker, number

    def _welcome(self, worker: Any, ref: Any) -> None:
        """Let a worker that is back have work again; one that cannot come back is left out."""
        try:
            ray.get(ref)
        except RayTaskError:
            pass  # of an earlier task, which has ended by it
        except RayError:
            return
        self._crew.idle.append(worker)

    def _take(self, ref: Any) -> tuple[int, bytes] | None:
        """Return the result that is ready, after the worker has got its next shard; None where it is lost."""
        worker, number = self._busy.pop(ref)
        try:
            result = ray.get(ref)
        except RayTaskError as error:
            self._crew.idle.append(worker)
            raise error.cause from error
        except RayError as error:
            self._lose(worker, number, first_line(error))
            return None
        self._crew.idle.append(worker)
        if isinstance(result, _Refusal):
            raise result.kind(result.message)
        self._hand_out()
        self.done += self._task.sizes[number]
        self._show_at_least(self.done)
        return number, result

    def _lose(self, worker: Any, number: int, why: str) -> None:
        """Put the shard of a lost worker first, and wait for Ray to restart the worker."""
        self._losses[number] += 1
        if self._losses[number] > _MOST_LOSSES:
            raise ClusterError(
                f"{self._task.name}: shard {number} was lost with its worker {self._losses[number]} times ({why});"
                " lower cluster.shard_texts or give workers more memory, then add --resume"
            )
        warnings.warn(f"{self._task.name}: a worker was lost ({why}); shard {number} is done again", stacklevel=2)
        self._lost.append(number)
        self._waiting.appendleft(number)
        self._crew.away[worker.done.options(max_task_retries=-1).remote()] = worker

    def _show(self) -> None:
        """Show what all workers have done together; one that cannot say so is about to be lost."""
        with suppress(RayError):
            counts = ray.get([worker.done.remote() for worker, _ in self._busy.values()], timeout=_POLL_S)
            self._show_at_least(self.done + sum(counts))

    def _show_at_least(self, done: int) -> None:
        """Show no less than was shown before a shard was lost."""
        self._shown = max(self._shown, done)
        self._task.show(self._shown)
