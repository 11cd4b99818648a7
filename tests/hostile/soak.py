"""Many readers of one server: sessions beside users of the playground, then a random walk with its memory sampled.

What a page shows is compared with the bundle. `--count 50` is thirty sessions of twenty pages and ten minutes of walk.
"""

from __future__ import annotations

import html
import os
import random
import re
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lfp.bundle.store.connection import Store
from tests.app import serving
from tests.app.sessions import Visit, session, turn

DEMO = Path(__file__).resolve().parents[2] / "data" / "demo"
PAGES = ("features", "features", "feature", "feature", "inputs", "inputs", "", "validation", "drift")
SORTS = {"strength": "abs(weight)", "density": "density", "id": "feature_id"}
ROWS, TURNED, PLAYERS, WALKERS, THINK_S, LIMIT_S = 25, 20, 4, 8, 3.0, 290
STRONGEST = """SELECT feature_id, position, text, token_starts FROM examples JOIN texts USING (text_id)
    WHERE bucket = 0 AND activation > 0 QUALIFY row_number() OVER (PARTITION BY feature_id ORDER BY rank) = 1"""
TEXTS = "SELECT text_id, text, token_starts FROM texts WHERE len(token_starts) > 0"


def words(shown: Visit) -> str:
    """Return what a page's HTML says."""
    tags = r"<(style|script).*?</\1>|<[^>]*>"
    return html.unescape(re.sub(tags, "", "\n".join(shown.html), flags=re.DOTALL))


def letters(text: str) -> str:
    """Return a text's letters and digits."""
    return re.sub(r"\W", "", text)


def draw_page(draw: random.Random, store: Store, *, last: str) -> tuple[str, dict[str, Any], Callable[[Visit], bool]]:
    """Draw a page, and whether it shows what the bundle's tables hold.

    It differs from the last, and no value is a default: in a session that continues, only a browser's steps in its
    history put widgets back to those.
    """
    page = draw.choice([page for page in PAGES if page != last])
    if page == "features":
        sort, number = draw.choice(list(SORTS)), draw.randint(2, 6)
        order = f"ORDER BY {SORTS[sort]} DESC NULLS LAST, feature_id LIMIT {ROWS} OFFSET {ROWS * (number - 1)}"
        ids = [row["feature_id"] for row in store.rows(f"SELECT feature_id FROM feature_table {order}")]
        params = {"sort": sort, "page": number, "with_map": "false"}
        return page, params, lambda shown: ids in [table["feature_id"].to_pylist() for table in shown.tables]
    if page == "feature":
        row = draw.choice(store.once("strongest", lambda: store.rows(STRONGEST)))
        starts = row["token_starts"][max(row["position"] - 3, 0) :]
        said = letters(row["text"][starts[0] : starts[min(4, len(starts) - 1)]])
        return page, {"feature": row["feature_id"]}, lambda shown: said in letters(words(shown))
    if page == "inputs":
        row = draw.choice(store.once("drawn", lambda: store.rows(TEXTS)))
        ends = [*row["token_starts"][1:], len(row["text"])]
        parts = [row["text"][at:end].strip() for at, end in zip(row["token_starts"], ends, strict=True)]
        return page, {"text": row["text_id"]}, lambda shown: all(part in words(shown) for part in parts)
    return page, {}, lambda shown: len(words(shown)) > 500


@dataclass
class Soak:
    """A running explorer, the bundle that it shows, what was found so far, and what the playground said first."""

    address: str
    store: Store
    faults: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    said: dict[str, tuple[str, ...]] = field(default_factory=dict)
    tried: int = 0

    def read(self, draw: random.Random, goes_on: Callable[[int], bool]) -> None:
        """Turn pages in a session, and look at the rows of each."""
        turned, page = 0, ""
        with session(self.address, timeout_s=LIMIT_S) as socket:
            while goes_on(turned):
                time.sleep(draw.uniform(0, 2 * THINK_S))
                page, params, is_right = draw_page(draw, self.store, last=page)
                shown = turn(socket, page, params, timeout_s=LIMIT_S)
                self.seconds.append(shown.seconds)
                self._judge(f"{page} {params}", shown, says="" if is_right(shown) else "wrong rows")
                turned += 1

    def play(self, number: int, over: threading.Event) -> None:
        """Score and continue a text in the playground; users who ask the same must read the same."""
        typed = {"typed": f"The film was {('warm', 'cold')[number % 2]} and"}
        short = {**typed, "samples": 2, "try_tokens": 6}
        while not over.is_set():  # each time in a session of its own, in which every choice is its default
            with session(self.address, timeout_s=LIMIT_S) as socket:
                offered = turn(socket, "try_it", short, timeout_s=LIMIT_S)
                written = turn(socket, "try_it", short, button=offered.buttons["Write"], timeout_s=LIMIT_S)
                turn(socket, "validation", {}, timeout_s=LIMIT_S)
                scored = turn(socket, "try_it", {**typed, "doing": "score"}, timeout_s=LIMIT_S)
            for what, shown, last in (("scored", scored, 99), ("written", written, 3)):  # progress comes before
                is_same = self.said.setdefault(f"{what} {typed}", shown.html[-last:]) == shown.html[-last:]
                self._judge(f"playground, {what}", shown, says="" if is_same else "other words than before")
            self.tried += 1

    def _judge(self, where: str, shown: Visit, *, says: str) -> None:
        says = "; ".join(shown.faults) or ("a notice" if "This cannot be shown" in words(shown) else says)
        self.faults += [f"{where}: {says}"] if says else []


def main(seed: int, count: int) -> dict[str, Any]:
    """Let sessions read pages, then some walk for 12 seconds a count, always beside users of the playground."""
    sessions, walk_s, samples = max(count * 3 // 5, 1), 12 * count, list[tuple[float, float]]()
    over, speed = threading.Event(), lambda seconds: round(float(np.quantile(seconds, 0.95)), 2)
    with serving.explorer(DEMO) as address, Store.open(DEMO) as store, ThreadPoolExecutor(64) as pool:
        soak = Soak(address, store)
        draws = [random.Random(f"{seed} {number}") for number in range(sessions + WALKERS)]
        jobs = [pool.submit(soak.play, number, over) for number in range(PLAYERS)]
        reading = [pool.submit(soak.read, draw, lambda turned: turned < TURNED) for draw in draws[:sessions]]
        wait(reading)
        read, began = len(soak.seconds), time.perf_counter()
        walking = lambda _: time.perf_counter() - began < walk_s  # noqa: E731
        jobs += [*reading, *(pool.submit(soak.read, draw, walking) for draw in draws[sessions:])]
        server = Path(f"/proc/self/task/{os.getpid()}/children").read_text(encoding="ascii").split()[-1]
        while walking(0):
            pages = int(Path(f"/proc/{server}/statm").read_text(encoding="ascii").split()[1])
            samples.append(((time.perf_counter() - began) / 60, pages * os.sysconf("SC_PAGE_SIZE") / 1e6))
            if not len(samples) % 20:
                sys.stderr.write(f"{len(soak.seconds)} pages, {samples[-1][1]:.0f} MB, {soak.faults[:3]}\n")
            time.sleep(3)
        over.set()
        soak.faults += [repr(error) for job in jobs if (error := job.exception()) is not None]
    minutes, megabytes = np.array(samples).T
    late = minutes >= minutes[-1] / 2  # caches are full by then
    slopes = [np.polyfit(minutes[part], megabytes[part], 1)[0] for part in (slice(None), late)]
    return {
        "sessions": sessions, "pages": read, "p95_s": speed(soak.seconds[:read]), "playground": soak.tried,
        "walked": len(soak.seconds) - read, "walk_p95_s": speed(soak.seconds[read:]),
        "memory_mb": [round(megabytes[at]) for at in (0, len(megabytes) // 2, -1)],
        "mb_a_minute": [round(float(slope), 2) for slope in slopes], "faults": soak.faults,
    }  # fmt: skip
