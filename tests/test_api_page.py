"""The code of docs/API.md: run on the demo, or, where it takes minutes, held against the functions' parameters."""

import ast
import inspect
import re

import pytest

import lfp
from tests.conftest import ROOT

BLOCK = re.compile(r"(<!-- not run[^\n]*-->\n)?```python\n(.*?)```", re.DOTALL)
BLOCKS = BLOCK.findall((ROOT / "docs" / "API.md").read_text(encoding="utf-8"))


def test_the_code_runs_from_top_to_bottom(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    names = {}
    for is_skipped, code in BLOCKS:
        if not is_skipped:
            exec(compile(code, "docs/API.md", "exec"), names)
    said = capsys.readouterr().out
    assert "did you mean contribution?" in said and "no bundle here" in said


@pytest.mark.parametrize("code", [code for is_skipped, code in BLOCKS if is_skipped])
def test_calls_that_take_minutes_have_the_parameters_that_functions_take(code):
    calls = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Call)]
    assert calls
    for call in calls:
        function = getattr(lfp, call.func.attr)
        inspect.signature(function).bind(*call.args, **{keyword.arg: None for keyword in call.keywords})


def test_every_method_of_a_bundle_and_a_feature_is_on_the_page():
    code = "\n".join(code for _, code in BLOCKS)
    for name, kind in (("run", lfp.Bundle), ("feature", lfp.Feature)):
        for method in vars(kind):
            assert method.startswith("_") or f"{name}.{method}" in code or method in ("path", "feature_id"), method
