"""Every page through axe-core, light and dark: nothing serious or critical that is ours."""

from __future__ import annotations

import json
import re

import pytest

from tests.app.serving import CHROMIUM, browser, explorer, settle
from tests.conftest import ROOT

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: apt install chromium"),
]

PAGES = [
    re.sub(r"^overview$", "", name)
    for name in re.findall(r'st\.Page\("views/(\w+)\.py"', (ROOT / "app" / "main.py").read_text(encoding="utf-8"))
]
"""Paths of all pages that the explorer offers."""
OURS = '[class*="lfp-"]'
"""What this project writes; everything else on a page is Streamlit's own."""


RULES = {"light": None, "dark": ["color-contrast"]}
"""Rules by theme, None for all: nothing but colours hangs on it."""


@pytest.fixture(scope="module")
def axe():
    from importlib.resources import files

    return (files("axe_playwright_python") / "axe.min.js").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def address(bundle):
    with explorer(bundle) as served:
        yield served


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_no_page_has_a_serious_violation_of_ours(address, axe, theme):
    found = {}
    with browser() as chromium:
        page = chromium.new_context(viewport={"width": 1400, "height": 900}, color_scheme=theme).new_page()
        for path in PAGES:
            page.goto(f"{address}/{path}")
            settle(page)
            page.evaluate(axe)
            found[path or "overview"] = page.evaluate(_RUN, [OURS, RULES[theme]])
    ours = [{"page": path, **row} for path, rows in found.items() for row in rows if row["ours"]]
    first = {(row["page"], row["rule"]): row for row in reversed(ours)}
    assert not ours, f"{len(ours)} places, the first of each kind: {json.dumps(list(first.values()), indent=1)}"


_RUN = """
async ([ours, rules]) => {
  const chosen = rules ? {runOnly: {type: 'rule', values: rules}} : {};
  const found = await axe.run(document, {resultTypes: ['violations'], ...chosen});
  return found.violations
    .filter(one => ['serious', 'critical'].includes(one.impact))
    .flatMap(one => one.nodes.map(node => {
      const at = document.querySelector(node.target[0]);
      return {rule: one.id, impact: one.impact, target: String(node.target[0]).slice(0, 160),
              html: node.html.slice(0, 200), why: (node.failureSummary || '').slice(0, 200),
              ours: !!(at && (at.closest(ours) || at.querySelector(ours)))};
    }));
}
"""
