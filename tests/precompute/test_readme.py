"""Every command of the README runs: at its own size where that is quick, at small sizes otherwise."""

from __future__ import annotations

import os
import re
import shlex
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.app.serving import CHROMIUM
from tests.precompute.conftest import PLANTED, TINY
from tests.precompute.test_cli import call

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = [
    line.split("  #")[0].strip()
    for block in re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
    for line in block.splitlines()
    if line
]
SMALL = [
    f"{section}.{key}={value}"
    for section, keys in TINY.items()
    if isinstance(keys, dict) and section not in ("corpus", "layers")
    for key, value in keys.items()
] + ["corpus.n_texts=300", "threads=1"]
"""Overrides that make any preset a run of seconds."""
FEW_POINTS = ["sweep.k=[4]", "sweep.l1=[0.06]", "sweep.l0_weight=[0.003]", "sweep.expansion=[1, 2]"]
ONE_SECRET = [
    "--n",
    "1",
    "--jobs",
    "1",
    *(part for override in (*SMALL, *PLANTED, "plant.least_share=0.002") for part in ("--set", override)),
]
QUICK = {
    ("bench", "sae"): ["--steps", "20"],
    ("bench", "features"): ["--sequences", "32"],
    ("plant", "--n"): ONE_SECRET,
    ("plant", "--config"): ONE_SECRET,
}
PAIR = ("base", "tuned")
DATA = {"imdb": "imdb/val.jsonl.gz", "hh": "hh-rlhf/helpful-base.test.jsonl.gz"}
"""Presets of real texts, and a file without which they cannot run."""


def test_the_readme_opens_with_the_two_commands() -> None:
    assert COMMANDS[:2] == ["make app", "make test"]


def test_every_command_is_of_a_kind_that_is_run_here() -> None:
    jobs = r"demo --fast|run|validate|report|sweep|plant|label|ablate|fake-openai|bench \w+"
    kinds = rf"make \w+|LFP_BUNDLES=\S+ make app|python -m precompute ({jobs}).*"
    assert [command for command in COMMANDS if not re.fullmatch(kinds, command)] == []


@pytest.mark.parametrize("command", [c for c in COMMANDS if "make " in c])
def test_make_knows_the_target(command: str) -> None:
    subprocess.run(["make", "--dry-run", command.split()[-1]], cwd=ROOT, check=True, capture_output=True)


def test_the_jobs_run_one_after_another_as_written(
    tmp_path: Path, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The commands of the README in order, `runs/` being a temporary folder; those that end in & run on to the end."""
    monkeypatch.chdir(ROOT)
    port = str(_free_port())
    with ExitStack() as servers:
        for command in (c for c in COMMANDS if "precompute" in c and "make" not in c):
            python, *words = shlex.split(command)
            assert (python, *words[:2]) == ("python", "-m", "precompute")
            arguments = [_replaced(part, tmp_path, tiny_bundle).replace("8399", port) for part in words[2:]]
            if arguments[-1] == "&":
                servers.enter_context(_serving([sys.executable, "-m", "precompute", *arguments[:-1]]))
            elif _can_run(command):
                code, _, err = call(*arguments, *_at_small_size(command, arguments, tmp_path), capsys=capsys)
                assert code == 0, f"{command}\n{err[-2000:]}"


def _can_run(command: str) -> bool:
    """Whether what the command needs is here: a browser, or real texts."""
    if "--figures" in command and CHROMIUM is None:
        return False
    return all(_has_data(file) for name, file in DATA.items() if re.search(rf"(runs|presets)/{name}\b", command))


def _at_small_size(command: str, arguments: list[str], tmp_path: Path) -> list[str]:
    """What is put behind a command to make it one of seconds."""
    overrides = list(SMALL) if " run " in command or " sweep " in command else []
    if "imdb-sweep" in command:  # the preset looks for the pair under the repository's runs/, of another width
        overrides += [*(f"model.{role}={tmp_path}/imdb/artifacts/{role}" for role in PAIR), *FEW_POINTS]
    return [*(part for one in overrides for part in ("--set", one)), *QUICK.get(tuple(arguments[:2]), [])]


@contextmanager
def _serving(command: list[str]) -> Iterator[None]:
    """A server that has said that it serves, until the block ends."""
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        assert "http://127.0.0.1" in server.stdout.readline()
        yield
        server.terminate()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _replaced(part: str, folder: Path, bundle: Path) -> str:
    """Paths of the README as paths of this test."""
    if part == "my-run.toml":
        file = folder / part
        block = re.search(r"```toml\n# my-run.toml\n(.*?)```", README, re.DOTALL)
        assert block is not None
        text = block.group(1).replace("reviews.csv", str(folder / "reviews.csv"))
        for role in PAIR:
            text = text.replace(f"models/{role}", str(bundle / "artifacts" / role))
        file.write_text(text, encoding="utf-8")
        (folder / "reviews.csv").write_text(_reviews(), encoding="utf-8")
        return str(file)
    return part.replace("runs/", f"{folder}/")


def _reviews() -> str:
    from precompute.reviews import generate

    return "review,stars\n" + "".join(f'"{one.text}",{one.rating}\n' for one in generate(300, 5))


def _has_data(file: str) -> bool:
    return (Path(os.environ.get("LFP_DATA", ROOT.parent / "shared" / "data")) / file).is_file()
