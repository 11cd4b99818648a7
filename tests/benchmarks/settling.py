"""From a click to a settled page, and from the start of the server to the first figures, in Chromium: a line each.

    python -m tests.benchmarks.settling [BUNDLE [REPEATS]]

A page is settled with the last change of its elements before half a second without any, when the app has stopped
running and no element waits for its content. Measure alone: browser and server share the machine's cores.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.app import serving

_WATCH = """
start => new Promise(done => {
  const begun = performance.now(); let last = begun;
  const seen = new MutationObserver(() => { last = performance.now(); });
  seen.observe(document.body, {subtree: true, childList: true, characterData: true});
  start?.click();
  const check = () => {
    const rests = performance.now() - last > 500
      && document.querySelector('[data-testid="stApp"][data-test-script-state="notRunning"]')
      && !document.querySelector('[data-testid="stSkeleton"]');
    if (rests) { seen.disconnect(); done(last - begun); } else setTimeout(check, 20);
  };
  setTimeout(check, 20);
})
"""
"""Clicks an element and gives the milliseconds until the page is settled."""
_LINKS = '[data-testid="stSidebarNav"] a'
_FIGURES = '[data-testid="stMainBlockContainer"] section'


def main(bundle: Path, repeats: int) -> None:
    """Print the median of every page's times in milliseconds, and its range."""
    for name, times in measure(bundle, repeats):
        figures = {
            "p50_ms": round(statistics.median(times)),
            "least_ms": round(min(times)),
            "most_ms": round(max(times)),
        }
        sys.stdout.write(json.dumps({"what": name, **figures, "n": len(times)}) + "\n")
        sys.stdout.flush()


def measure(bundle: Path, repeats: int) -> Iterator[tuple[str, list[float]]]:
    """Yield what was measured and its times in milliseconds."""
    with serving.browser() as chromium:
        yield "cold start to first figures", [_start_cold(chromium, bundle) for _ in range(3)]
        with serving.explorer(bundle) as address:
            page = chromium.new_page(viewport={"width": 1400, "height": 900})
            page.goto(address)
            serving.settle(page)
            links = page.locator(_LINKS)
            names = [link.inner_text().split()[-1] for link in links.all()]
            times: dict[str, list[float]] = {name: [] for name in names}
            for _ in range(repeats + 1):
                for at in [*range(1, len(names)), 0]:
                    times[names[at]].append(links.nth(at).evaluate(_WATCH))
            for name, of_page in times.items():
                yield f"click to {name}", of_page[1:]  # the first one fills the caches
            yield "row to feature", [_open_row(page, address) for _ in range(repeats + 1)][1:]


def _start_cold(chromium: Any, bundle: Path) -> float:
    """Start a server and open it; return the milliseconds until the first figures are drawn."""
    begun = time.perf_counter()
    with serving.explorer(bundle) as address:
        page = chromium.new_page(viewport={"width": 1400, "height": 900})
        page.goto(address)
        page.locator(_FIGURES).first.wait_for(timeout=60_000)
        taken = 1000 * (time.perf_counter() - begun)
        page.close()
    return taken


def _open_row(page: Any, address: str) -> float:
    """Open a feature of the list by a click on its row; return the milliseconds until it is settled."""
    page.goto(f"{address}/features")
    serving.settle(page)
    grid = page.get_by_test_id("stDataFrame").first
    grid.scroll_into_view_if_needed()
    box = grid.bounding_box()
    page.evaluate(f"() => {{ window.settled = ({_WATCH})(null); }}")
    begun = time.perf_counter()
    page.mouse.click(box["x"] + 150, box["y"] + 200)
    page.wait_for_url("**/feature?**", timeout=15_000)
    arrived = 1000 * (time.perf_counter() - begun)
    return max(float(page.evaluate("() => window.settled")), arrived)


if __name__ == "__main__":
    given = sys.argv[1:]
    main(Path(given[0] if given else "data/demo"), int(given[1]) if given[1:] else 5)
