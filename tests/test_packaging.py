"""What is installed: the pins of requirements.txt, and the files of the wheel."""

import re
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import distribution

import pytest
from packaging.requirements import Requirement

import lfp
from tests.conftest import ROOT


def normal(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def needed(requirements):
    """The names of all packages that these bring, by the metadata of what is installed here."""
    waiting, found = [Requirement(text) for text in requirements], {}
    while waiting:
        requirement = waiting.pop()
        for extra in {"", *requirement.extras} - found.setdefault(normal(requirement.name), set()):
            found[normal(requirement.name)].add(extra)
            more = map(Requirement, distribution(requirement.name).requires or [])
            waiting += [each for each in more if each.marker is None or each.marker.evaluate({"extra": extra})]
    return set(found)


@pytest.mark.parametrize("file", ["requirements.txt", "app/requirements.txt"])
def test_every_package_that_the_listed_ones_bring_is_pinned(file):
    lines = [line for line in (ROOT / file).read_text("utf-8").splitlines() if line and not line.startswith("#")]
    assert all("==" in line for line in lines)
    assert needed(lines) == {normal(Requirement(line).name) for line in lines}


def test_the_container_installs_the_same_versions_each_by_its_hash():
    """And docs/LICENCES.md lists them."""
    listed, hashed = (
        [line for line in (ROOT / "app" / name).read_text("utf-8").splitlines() if line and not line.startswith("#")]
        for name in ("requirements.txt", "requirements-hashed.txt")
    )
    assert [line.split(" ")[0] for line in hashed] == listed
    assert all(re.fullmatch(r"\S+( --hash=sha256:[0-9a-f]{64})+", line) for line in hashed)
    licences = (ROOT / "docs" / "LICENCES.md").read_text("utf-8")
    rows = {normal(name): version for name, version in re.findall(r"^\| (\S+) +\| (\S+) +\|", licences, re.MULTILINE)}
    assert [f"{normal(name)}=={rows[normal(name)]}" for name in (line.split("==")[0] for line in listed)] == [
        f"{normal(name)}=={version}" for name, version in (line.split("==") for line in listed)
    ]


def test_requirements_list_what_the_project_asks_for():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    asked = project["dependencies"] + [each for extra in project["optional-dependencies"].values() for each in extra]
    pinned = {
        normal(re.split(r"==|\[", line)[0]) for line in (ROOT / "requirements.txt").read_text("utf-8").splitlines()
    }
    assert needed(asked) <= pinned


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel of the files that git tracks, built without the network."""
    folder = tmp_path_factory.mktemp("wheel")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
    for name in filter(None, listed.split("\0")):
        if name.split("/")[0] in ("app", "lfp", "precompute", "pyproject.toml", "README.md", "LICENSE"):
            (folder / "source" / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / "source" / name).write_bytes((ROOT / name).read_bytes())
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index",
               "--wheel-dir", str(folder), str(folder / "source")]  # fmt: skip
    subprocess.run(command, check=True)
    (built,) = folder.glob("*.whl")
    return folder / "source", zipfile.ZipFile(built)


def test_the_wheel_has_every_file_of_the_three_folders_but_their_pages(wheel):
    """The explorer with its style sheet and settings, the presets, and the data that jobs read."""
    source, archive = wheel
    files = {path.relative_to(source).as_posix() for path in source.rglob("*") if path.is_file()}
    outside = {"app/requirements.txt", "app/requirements-hashed.txt"} | {
        name for name in files if name.endswith(".md") or "/" not in name
    }
    built = {name for name in files if name.startswith("build/") or ".egg-info/" in name}
    held = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert files - outside - built == held
    assert {"app/main.py", "app/.streamlit/config.toml", "app/components/html/style.css"} <= held


def test_the_wheel_installs_the_command_and_says_its_version(wheel):
    _, archive = wheel
    (info,) = {name.split("/")[0] for name in archive.namelist() if ".dist-info/" in name}
    assert "lfp = precompute.cli:main" in archive.read(f"{info}/entry_points.txt").decode()
    assert f"\nVersion: {lfp.__version__}\n" in archive.read(f"{info}/METADATA").decode()
