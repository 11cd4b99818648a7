"""Commands killed at random moments: repeated, they give the same hashes, and meanwhile the old bundle is whole.

`python -m tests.hostile kills` kills runs, labellings, ablations, exports, plantings and a run on a cluster.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import multiprocessing
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from unittest import mock

from lfp.bundle.manifest import check_bundle, file_sha256, read_manifest
from lfp.errors import LfpError
from lfp.util.disk import write_whole

_LIMIT_S = 280.0


@dataclass(frozen=True)
class Victim:
    """A command: `prepare` fills a folder, `act` does the work in it and may be repeated, `state` is what it leaves.

    `modules` are imported before its time begins, and `share` of all kills are of this command.
    """

    name: str
    modules: tuple[str, ...]
    prepare: Callable[[Path, Path], None]
    act: Callable[[Path, bool], None]
    state: Callable[[Path], str]
    share: float


def _hash(bundle: Path) -> str:
    """The hashes of a bundle's tables, after a look at every file that it lists; nothing where there is none."""
    if not bundle.exists():
        return ""
    manifest = check_bundle(bundle)
    for name, info in manifest.tables.items():
        if file_sha256(bundle / f"{name}.parquet") != info.sha256:
            return f"{name} is not what the manifest says"
    for name, info in manifest.artifacts.items():
        if (bundle / name).stat().st_size != info.bytes:
            return f"{name} is cut off"
    return read_manifest(bundle).tables_id


def _hash_files(folder: Path) -> str:
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    listed = [(str(file.relative_to(folder)), file_sha256(file)) for file in files]
    return hashlib.sha256(repr(listed).encode()).hexdigest() if listed else ""


def _write_reviews(folder: Path, bundle: Path) -> None:
    from tests.precompute.conftest import write_reviews

    write_reviews(folder)


def _run(folder: Path, again: bool, **sections: dict[str, object]) -> None:
    from precompute.pipeline import run_pipeline
    from tests.precompute.conftest import brief_config, silent

    config = brief_config(**sections)
    run_pipeline(config, folder / "out", config_dir=folder, resume=again, progress=silent)


def _run_on_cluster(folder: Path, again: bool) -> None:
    _run(folder, again, cluster={"address": "local", "workers": 2, "shard_texts": 64})


def _copy(folder: Path, bundle: Path) -> None:
    shutil.copytree(bundle, folder / "out")


def _label(folder: Path, again: bool) -> None:
    from precompute.commands.label import label

    label(folder / "out", labeller="offline-tokens", overrides=["labels.related_threshold=0.9"])


def _ablate(folder: Path, again: bool) -> None:
    from precompute.commands.ablate import ablate

    ablate(folder / "out", features=[0], completions=4, overrides=["ablation.controls=1"])


def _export(folder: Path, again: bool) -> None:
    from precompute.commands.export import export

    if not (folder / "pages").exists():
        export(folder / "out", folder / "pages", to="html", features=range(12))


def _plant(folder: Path, again: bool) -> None:
    from precompute.commands.plant.plant import plant
    from tests.precompute.conftest import PLANTED, TINY

    small = [f"pretrain.{key}={value}" for key, value in TINY["pretrain"].items()]  # type: ignore[attr-defined]
    overrides = [*PLANTED, *small, "threads=1", "corpus.n_texts=300"]
    with mock.patch("lfp.ml.implicit_reward.contrast_factors._STEPS", 25):  # a tenth
        rows = plant(n=1, twins=3, jobs=1, out=folder / "out", overrides=overrides)
    write_whole(folder / "rows.json", json.dumps(rows))


def _planted(folder: Path) -> str:
    """The hashes of the models that count as made, and of the rows."""
    made = sorted(file.parent for file in (folder / "out").glob("*/completions.json"))
    rows = [file_sha256(file) for file in folder.glob("rows.json")]
    return "\n".join([*(f"{model.name} {_hash_files(model)}" for model in made), *rows])


_RUN = ("precompute.pipeline", "tests.precompute.conftest")
VICTIMS = (
    Victim("run", _RUN, _write_reviews, _run, lambda folder: _hash(folder / "out"), 0.2),
    Victim("label", ("precompute.commands.label",), _copy, _label, lambda folder: _hash(folder / "out"), 0.34),
    Victim("ablate", ("precompute.commands.ablate", *_RUN), _copy, _ablate, lambda folder: _hash(folder / "out"), 0.16),
    Victim(
        "export", ("precompute.commands.export",), _copy, _export, lambda folder: _hash_files(folder / "pages"), 0.24
    ),
    Victim("plant", ("precompute.commands.plant.plant", *_RUN), lambda folder, bundle: None, _plant, _planted, 0.04),
    Victim("cluster", _RUN, _write_reviews, _run_on_cluster, lambda folder: _hash(folder / "out"), 0.02),
)
"""What is killed."""


def _begin(victim: Victim, folder: Path, *, again: bool) -> Any:
    """Start a command in a process of its own, and return that when it begins to work."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(sorted({module for each in VICTIMS for module in each.modules}))
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_act, args=(sender, victim.name, folder, again))
    process.start()
    sender.close()
    receiver.recv()
    return process


def _act(sender: Connection, name: str, folder: Path, again: bool) -> None:
    victim = next(victim for victim in VICTIMS if victim.name == name)
    for module in victim.modules:
        importlib.import_module(module)
    sender.send("begun")
    victim.act(folder, again)


def _finish(victim: Victim, folder: Path, *, again: bool) -> float:
    """Do a command's work without a kill, and return the seconds that it took. Raises AssertionError."""
    process = _begin(victim, folder, again=again)
    started = time.perf_counter()
    process.join(_LIMIT_S)
    is_late = process.is_alive()
    process.kill()
    process.join()
    assert not is_late and process.exitcode == 0, f"repeated, it ended with code {process.exitcode}"
    return time.perf_counter() - started


@dataclass
class Killer:
    """Kills one command again and again, in a folder of its own each time."""

    victim: Victim
    bundle: Path
    draws: random.Random
    folder: Path
    before: str = ""
    after: str = ""
    seconds: float = 0.0
    moments: tuple[float, ...] = ()

    def measure(self) -> None:
        """Do the work once undisturbed."""
        place = self._place("undisturbed")
        self.before = self.victim.state(place)
        self.seconds = _finish(self.victim, place, again=False)
        self.after = self.victim.state(place)
        assert self.after and self.after != self.before, f"{self.victim.name} changes nothing"

    def kill(self, number: int) -> str:
        """Kill at a random moment, look, repeat the command, and return what is wrong; nothing where all is well."""
        place = self._place(str(number))
        process = _begin(self.victim, place, again=False)
        process.join(self.draws.uniform(0.02, 1.0) * self.seconds)
        process.kill()
        process.join()
        try:
            found = self.victim.state(place)
            if found != self.before and not set(found.splitlines()) <= set(self.after.splitlines()):
                return f"{self.victim.name} {number}: half a result: {found}"
            _finish(self.victim, place, again=True)
            if (found := self.victim.state(place)) != self.after:
                return f"{self.victim.name} {number}: another result: {found}"
            left = [file.name for file in place.iterdir() if file.name.startswith(".")]
            return f"{self.victim.name} {number}: left behind {left}" if left else ""
        except (AssertionError, LfpError, OSError) as error:
            return f"{self.victim.name} {number}: {error}"
        finally:
            shutil.rmtree(place, ignore_errors=True)

    def _place(self, name: str) -> Path:
        place = self.folder / f"{self.victim.name}-{name}"
        place.mkdir()
        self.victim.prepare(place, self.bundle)
        return place


def kill_often(names: dict[str, int], seed: int, bundle: Path, folder: Path) -> list[str]:
    """Kill the named commands so many times each, a line of each on stderr, and return the faults."""
    faults = list[str]()
    for victim in VICTIMS:
        if not names.get(victim.name):
            continue
        killer = Killer(victim, bundle, random.Random(f"{seed} {victim.name}"), folder)
        killer.measure()
        for number in range(names[victim.name]):
            wrong = killer.kill(number)
            faults += [wrong] if wrong else []
            sys.stderr.write(
                f"{'FAULT' if wrong else 'fine '} {victim.name} {number} ({killer.seconds:.0f} s) {wrong}\n"
            )
    return faults


def main(seed: int, count: int) -> dict[str, Any]:
    """Kill commands `count` times in all, by their shares."""
    from precompute.pipeline import run_pipeline
    from tests.precompute.conftest import silent, tiny_config, write_reviews

    names = {victim.name: round(victim.share * count) for victim in VICTIMS}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "corpus").mkdir()
        corpus = write_reviews(folder / "corpus")
        bundle = run_pipeline(tiny_config(), folder / "bundle", config_dir=corpus, resume=False, progress=silent)
        faults = kill_often(names, seed, Path(bundle), folder)
    return {"cases": sum(names.values()), "by_command": names, "faults": faults}
