"""The house in order: pins agree, generated pages are current, the explorer is light, each folder has its page."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections import Counter
from pathlib import Path

import pytest

from lfp.bundle.schema import markdown

ROOT = Path(__file__).parents[1]


def pins(path: str) -> dict[str, str]:
    lines = (ROOT / path).read_text(encoding="utf-8").splitlines()
    return dict(line.lower().replace("_", "-").split("==") for line in lines if "==" in line)


def test_the_schema_page_is_current() -> None:
    assert (ROOT / "data" / "README.md").read_text(encoding="utf-8") == markdown()


def test_the_explorers_pins_are_the_projects_pins() -> None:
    everything = pins("requirements.txt")
    for name, version in pins("app/requirements.txt").items():
        assert everything[name] == version


def test_pyproject_asks_for_what_is_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    everything = pins("requirements.txt")
    asked = project["dependencies"] + [name for extra in project["optional-dependencies"].values() for name in extra]
    for requirement in asked:
        name = re.split(r"[=<>]", requirement)[0].lower()
        assert name in everything, requirement
        if "==" in requirement:
            assert everything[name] == requirement.split("==")[1]


@pytest.mark.parametrize("heavy", ["torch", "transformers", "trl", "scikit-learn", "openai"])
def test_the_light_set_is_light(heavy: str) -> None:
    assert heavy not in pins("app/requirements.txt")


def test_the_explorer_and_the_reading_side_import_nothing_heavy() -> None:
    code = (
        "import sys, app.session.permalinks, app.session.cache, app.session.audits;"
        "import lfp.report.figures.catalogue, app.components.feature.trust;"
        "import lfp.audit, lfp.bundle.queries, lfp.testing.synthetic, lfp.bundle.validation, lfp.agents.reader;"
        "heavy = {'torch', 'transformers', 'transformer_lens', 'trl', 'sklearn', 'openai', 'mcp'} & set(sys.modules);"
        "sys.exit(', '.join(heavy) or 0)"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], cwd=ROOT, check=True)


@pytest.mark.parametrize("folder", ["app", "lfp", "precompute", "data", "tests"])
def test_each_folder_has_a_short_page_of_its_own(folder: str) -> None:
    text = (ROOT / folder / "README.md").read_text(encoding="utf-8")
    assert text.startswith("# ") and (folder == "data" or len(text.splitlines()) <= 40)


def test_every_file_says_in_its_first_line_what_lives_there() -> None:
    files = [path for folder in ("app", "lfp", "precompute") for path in (ROOT / folder).rglob("*.py")]
    silent = [str(path) for path in files if path.stat().st_size and not path.read_text("utf-8").startswith('"""')]
    assert silent == []


def test_no_two_test_modules_share_a_name() -> None:
    """Pytest imports them by their names alone, and cannot collect the second."""
    counts = Counter(file.name for file in (ROOT / "tests").rglob("test_*.py"))
    assert [name for name, n in counts.items() if n > 1] == []
