"""Every command of README and of the pages in docs runs, at small sizes where its own take long."""

from __future__ import annotations

import re
import shlex
import socket
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import pytest

from lfp.config import with_overrides
from lfp.config_page import build_toml
from precompute import presets
from precompute.commands import bench
from precompute.presets import NAMES
from tests.conftest import ROOT
from tests.precompute.conftest import BRIEF, PLANTED, TINY, reviews
from tests.precompute.test_cli import call

PAGES = (
    "README.md",
    *(f"docs/{name}.md" for name in ("RUN", "DICTIONARIES", "LABELS", "PLANTING", "EXPORT", "RESULTS")),
)
"""In this order, so that `runs/fast` is there when a later page reads it."""


def commands_of(page: str) -> list[str]:
    """Return the commands of a page's bash blocks, continued lines joined and comments dropped."""
    text = (ROOT / page).read_text(encoding="utf-8")
    blocks = "\n".join(re.findall(r"```bash\n(.*?)```", text, re.DOTALL)).replace("\\\n", " ")
    return [command for line in blocks.splitlines() if (command := line.split("  #")[0].strip())]


README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = list(dict.fromkeys(command for page in PAGES for command in commands_of(page)))
SMALL = [
    f"{section}.{key}={value}"
    for section, keys in TINY.items()
    if isinstance(keys, dict) and section not in ("corpus", "layers")
    for key, value in {**keys, **BRIEF.get(section, {})}.items()
] + ["corpus.n_texts=300", "threads=1"]
"""Overrides that make any preset a run of seconds."""
ONE_SECRET = ["--n", "1", "--jobs", "1", "--twins", "3"]
ONE_SECRET += [part for value in (*SMALL, *PLANTED, "plant.least_share=0.002") for part in ("--set", value)]
ONE_POINT = ["sweep.variants=['topk']", "sweep.k=[4]", "sweep.expansion=[1, 2]", "sweep.seeds=[0]"]
LABELLED = ("stable", "weighted", "drifted", "credited", "random", "swapped")
SHORTER = {
    ("bench", "sae"): shlex.split("--steps 20 --d-in 32 --d-sae 128 --batch 256 --threads 1"),
    ("bench", "features"): shlex.split("--sequences 32 --layers 1 --d-model 64 --d-sae 256 --vocab 500 --threads 1"),
    ("plant", "--n"): ONE_SECRET,
    ("label", "runs/fast"): shlex.split(" ".join(f"--set labels.{name}=2" for name in LABELLED)),
    ("ablate", "runs/fast"): shlex.split("--set ablation.controls=1 --set ablation.features=1"),
    ("sweep", "precompute/presets/demo-sweep.toml"): [p for value in (*SMALL, *ONE_POINT) for p in ("--set", value)],
}
"""What is added to a command to make it one of seconds."""
ELSEWHERE = (
    r"(run|plant --config) precompute/presets/(imdb|hh|smollm2-vader)\.toml"
    r"|sweep precompute/presets/imdb-sweep|runs/imdb|report runs/fast --figures"
)
"""Commands about real texts: tests/precompute/test_presets.py runs those presets at tiny sizes; and figures, which
tests/precompute/test_cli.py writes."""


def test_the_readme_opens_with_the_two_commands_and_is_short() -> None:
    assert commands_of("README.md")[:2] == ["make app", "make test"]
    assert len(README.splitlines()) <= 200


def test_every_command_is_of_a_kind_that_is_run_here() -> None:
    jobs = r"demo --fast|run|validate|report|sweep|plant|label|ablate|fake-openai|config|export|import|bench \w+"
    kinds = rf"make \w+|LFP_BUNDLES=\S+ make app|python -m precompute ({jobs})\b.*"
    assert [command for command in COMMANDS if not re.fullmatch(kinds, command)] == []


@pytest.mark.parametrize("command", [c for c in COMMANDS if "make " in c])
def test_make_knows_the_target(command: str) -> None:
    subprocess.run(["make", "--dry-run", command.split()[-1]], cwd=ROOT, check=True, capture_output=True)


def test_presets_that_pages_name_exist() -> None:
    named = {found[1] for page in PAGES for found in re.finditer(r"presets/([\w-]+)\.toml", (ROOT / page).read_text())}
    assert named <= set(NAMES)


def test_links_between_pages_lead_somewhere() -> None:
    for page in (*PAGES, "docs/FEEDBACK.md", "docs/HOSTING.md", "docs/API.md", "docs/CONFIG.md", "docs/AGENTS.md"):
        for target in re.findall(r"\]\(([^)#:]+)\)", (ROOT / page).read_text(encoding="utf-8")):
            assert (ROOT / page).parent.joinpath(target).exists(), f"{page}: {target}"


@pytest.mark.usefixtures("coarse_factors")
def test_the_jobs_run_one_after_another_as_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`runs/` is a temporary folder; commands that end in & run until the last one is done."""
    monkeypatch.chdir(ROOT)
    small, preset = _small_demo(tmp_path), presets.preset
    monkeypatch.setattr(presets, "preset", lambda name: small if name == "demo-fast" else preset(name))
    monkeypatch.setattr(bench, "gemm_ceiling", partial(bench.gemm_ceiling, n=512, seconds=0.02))
    port = str(_free_port())
    with ExitStack() as servers:
        for command in (c for c in COMMANDS if "precompute" in c and not re.search(ELSEWHERE, c)):
            words = shlex.split(command)[3:]
            arguments = [_replaced(part, tmp_path).replace("8399", port) for part in words]
            if arguments[-1] == "&":
                servers.enter_context(_serving([sys.executable, "-m", "precompute", *arguments[:-1]]))
            else:
                shorter = SHORTER.get((words[0], words[1] if len(words) > 1 else ""), [])
                if "my-run.toml" in command:
                    shorter = [part for value in SMALL for part in ("--set", value)]
                code, _, err = call(*arguments, *shorter, capsys=capsys)
                assert code == 0, f"{command}\n{err[-2000:]}"


@contextmanager
def _serving(command: list[str]) -> Iterator[None]:
    """Run a server until the block ends; enter once it says that it serves."""
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            assert "http://127.0.0.1" in server.stdout.readline()
            yield
        finally:
            server.terminate()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _small_demo(folder: Path) -> Path:
    """Write the preset `demo-fast`, which takes a minute, at sizes that take seconds."""
    file = presets.preset("demo-fast")
    values = with_overrides(tomllib.loads(file.read_text(encoding="utf-8")), SMALL)
    for key in ("source", "held_out_source"):
        values["corpus"][key] = str(file.parent / values["corpus"][key])
    small = folder / file.name
    small.write_text(build_toml(values), encoding="utf-8")
    return small


def _replaced(part: str, folder: Path) -> str:
    """Replace a page's paths by paths of this test; `my-run.toml` is README's, with the models of `runs/fast`."""
    if part != "my-run.toml":
        return part.replace("runs/", f"{folder}/")
    block = re.search(r"```toml\n# my-run.toml\n(.*?)```", README, re.DOTALL)
    assert block is not None
    text = block.group(1).replace("reviews.csv", str(folder / "reviews.csv"))
    for role in ("base", "tuned"):
        text = text.replace(f"models/{role}", str(folder / "fast" / "artifacts" / role))
    rows = "".join(f'"{review.text}",{review.rating}\n' for review in reviews(300))
    (folder / "reviews.csv").write_text("review,stars\n" + rows, encoding="utf-8")
    (folder / part).write_text(text, encoding="utf-8")
    return str(folder / part)
