"""Callbacks of widgets: each lies inside the error boundary, and one that fails gives one sentence."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from lfp.errors import AuditError
from tests.app.reader import whole
from tests.conftest import ROOT

OFFERED = {"on_click", "on_change", "on_select"}
HANDED = {"show_ledger", "show_rows"}
"""Functions of the explorer that guard the callback they are given."""


def callbacks_in(file: Path) -> list[tuple[str, ast.expr]]:
    """Return every callback that a file gives to a widget, with its place."""
    found = []
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        given: list[tuple[str | None, ast.expr]] = []
        if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] not in HANDED:
            given = [(keyword.arg, keyword.value) for keyword in node.keywords]
        elif isinstance(node, ast.Dict):
            given = [(key.value, value) for key, value in zip(node.keys, node.values, strict=True)
                     if isinstance(key, ast.Constant)]  # fmt: skip
        found += [(f"{file.name}:{value.lineno}", value) for name, value in given if name in OFFERED]
    return [(place, value) for place, value in found if not isinstance(value, ast.Constant)]


def test_every_callback_of_the_explorer_is_guarded() -> None:
    found = [each for file in sorted((ROOT / "app").rglob("*.py")) for each in callbacks_in(file)]
    assert len(found) > 25
    assert [place for place, value in found if not ast.unparse(value).startswith("callbacks.guard(")] == []


@pytest.mark.parametrize("public", [True, False])
@pytest.mark.parametrize("error", [KeyError, AuditError])
def test_a_callback_that_fails_gives_one_sentence_and_the_page(
    explorer: Callable[..., AppTest],
    bundle: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: type[Exception],
    public: bool,
) -> None:
    def fails(*_: object) -> None:
        raise error(f"{bundle}: the verdict is lost")

    monkeypatch.setenv("LFP_PUBLIC", "1" if public else "0")
    at = explorer("features", bundle, sign="positive")
    monkeypatch.setattr("app.widgets.chips.set_param", fails)
    shown = whole(at.button(key="chip_0").click().run())
    assert shown.count("This did not work") == 1 and "Traceback" not in shown and "KeyError" not in shown
    assert (str(bundle) in shown) is not public
    says = "the page failed on this bundle" if error is KeyError else "the verdict is lost"
    assert says in shown.replace("The page", "the page")
    assert "Click a row to open it" in shown
    assert ("KeyError" in caplog.text) is (error is KeyError)
    assert "This did not work" not in whole(at.run())
