"""Every page through axe-core, light and dark: nothing serious or critical but what app/README.md lists."""

from __future__ import annotations

import json
import re

import pytest

from tests.app.reader import PAGES as NAMES
from tests.app.serving import CHROMIUM, browser, explorer, settle
from tests.conftest import ROOT

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: apt install chromium"),
]

PAGES = [re.sub(r"^overview$", "", name) for name in NAMES]
"""Paths of all pages that the explorer offers."""
STATES = (
    "features?find=great&find_by=token&sort=Best+match",
    "features?related=yes&null=beats&labelled=no&area=-9,-9;9,-9;9,9;-9,9",
    "try_it?typed=The+plot+was+dull&scales=3:2.5",
)
"""Pages with their widgets in use, which are looked at on a phone too."""
WIDTHS = {1400: (*PAGES, *STATES), 390: STATES}
README = (ROOT / "app" / "README.md").read_text(encoding="utf-8")
EXCUSED = re.findall(r"^\| `([a-z-]+)`, (\w+) \| [^|`]*`([^|]+)` \| ([^|]+) \|$", README, re.MULTILINE)
"""Rule, impact, selector and pages of what Streamlit's own elements break, as app/README.md lists it."""
OWN = '[class*="lfp-"]'
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


def excused(theme):
    """Rule, impact, selector and page of all that is excused in a theme."""
    pages = [path or "overview" for path in PAGES]
    return {
        (rule, impact, selector, page)
        for rule, impact, selector, where in EXCUSED
        for page in (pages if where == "all" else where.split(", "))
        if RULES[theme] is None or rule in RULES[theme]
    }


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_page_has_the_serious_violations_that_readme_lists_and_no_other(address, axe, theme):
    selectors = sorted({selector for _, _, selector, _ in EXCUSED})
    found = []
    with browser() as chromium:
        page = chromium.new_context(color_scheme=theme).new_page()
        for width, paths in WIDTHS.items():
            page.set_viewport_size({"width": width, "height": 900})
            for path in paths:
                page.goto(f"{address}/{path}")
                settle(page)
                page.evaluate(axe)
                rows = page.evaluate(_RUN, [OWN, RULES[theme], selectors])
                found += [{"page": path.partition("?")[0] or "overview", "width": width, **row} for row in rows]
    known = excused(theme)
    excuses = {id(row): {(row["rule"], row["impact"], under, row["page"]) for under in row["within"]} for row in found}
    wrong = [row for row in found if row["own"] or not excuses[id(row)] & known]
    first = {(row["page"], row["rule"]): row for row in reversed(wrong)}
    assert not wrong, f"{len(wrong)} places, the first of each kind: {json.dumps(list(first.values()), indent=1)}"
    gone = known - set().union(*excuses.values())
    assert not gone, f"app/README.md lists what is no longer found: {sorted(gone)}"


_RUN = """
async ([own, rules, selectors]) => {
  const chosen = rules ? {runOnly: {type: 'rule', values: rules}} : {};
  const found = await axe.run(document, {resultTypes: ['violations'], ...chosen});
  return found.violations
    .filter(one => ['serious', 'critical'].includes(one.impact))
    .flatMap(one => one.nodes.map(node => {
      const at = document.querySelector(node.target[0]);
      return {rule: one.id, impact: one.impact, target: String(node.target[0]).slice(0, 160),
              html: node.html.slice(0, 200), why: (node.failureSummary || '').slice(0, 200),
              own: !!(at && (at.closest(own) || at.querySelector(own))),
              within: selectors.filter(one => at && at.matches(one))};
    }));
}
"""
