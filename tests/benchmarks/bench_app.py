"""The explorer at size: questions, pages, a cold start, memory, and many readers at once, on a made-up bundle.

    python tests/benchmarks/bench_app.py --features 1000000 --examples 20000000 --json

What is measured runs in processes of its own, with the bundle's sorted copy built before. Nothing here is a test.
"""

from __future__ import annotations

import argparse
import functools
import json
import logging
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

STARTED = time.time()
ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402

EXAMPLES_A_TEXT = 400
"""Examples that a synthetic text gives, a little less than it does, so that none lack."""
STRIDE = 7919
"""A prime: numbers that many apart are all over the bundle."""
SIGNS, SEARCHES = ("any", "positive", "negative"), ("", "", "", "brilliant", "the ", "mess")


def main() -> int:
    """Makes what is missing, measures, and writes one JSON object or one line a figure."""
    arguments = parser().parse_args()
    if arguments.measure:
        if arguments.no_copy:
            from lfp.bundle.store import sorted_copy

            sorted_copy.find = sorted_copy.build = lambda path, manifest: None
        sys.stdout.write(json.dumps(MEASURES[arguments.measure](Path(arguments.at), arguments)) + "\n")
        return 0
    figures: dict[str, Any] = {"features": arguments.features, "examples": arguments.examples}
    bundle(arguments, 10)
    path, made = bundle(arguments, 1)
    figures |= made
    for what in ("opening", "queries", "ratios", "pages"):
        figures |= measured(what, path, arguments)
    if arguments.sessions:
        figures |= sessions(path, arguments)
    figures |= {"load_average": round(os.getloadavg()[0], 1), "cores": os.cpu_count()}
    lines = json.dumps(figures) if arguments.json else "\n".join(f"{key:36s} {value}" for key, value in figures.items())
    sys.stdout.write(lines + "\n")
    return 0


def parser() -> argparse.ArgumentParser:
    """The arguments, with their help."""
    parsed = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parsed.add_argument("--features", type=int, default=1_000_000)
    parsed.add_argument("--examples", type=int, default=20_000_000)
    parsed.add_argument("--bundle", default=str(Path(tempfile.gettempdir()) / "lfp-bench"),
                        help="folder that keeps the bundles made, to be used again")  # fmt: skip
    parsed.add_argument("--sessions", type=int, default=30, help="readers at once; 0 leaves them out")
    parsed.add_argument("--pages", type=int, default=20, help="pages that each reader opens")
    parsed.add_argument("--think", type=float, default=3.0,
                        help="seconds that readers who think read for before a page, on average")  # fmt: skip
    parsed.add_argument("--no-copy", action="store_true", help="read the Parquet files without a sorted copy")
    parsed.add_argument("--repeats", type=int, default=200, help="times each question is asked")
    parsed.add_argument("--json", action="store_true", help="one JSON object")
    parsed.add_argument("--measure", choices=sorted(MEASURES), help=argparse.SUPPRESS)
    parsed.add_argument("--at", help=argparse.SUPPRESS)
    return parsed


def bundle(arguments: argparse.Namespace, part: int) -> tuple[Path, dict[str, Any]]:
    """A bundle of a `part` of the size, made where it is missing, with its sorted copy; and what making them took."""
    path, figures = bundle_path(arguments, part), {}
    for what in ("making", "preparing"):
        figures |= measured(what, path, arguments, part)
    return path, figures


def bundle_path(arguments: argparse.Namespace, part: int) -> Path:
    """Where that bundle is."""
    return Path(arguments.bundle) / f"features-{arguments.features // part}-examples-{arguments.examples // part}"


def measured(what: str, path: Path, arguments: argparse.Namespace, part: int = 1) -> dict[str, Any]:
    """One of MEASURES in a fresh process."""
    sys.stderr.write(f"{what}: {path.name}\n")
    sizes = {"features": arguments.features // part, "examples": arguments.examples // part}
    values = {**sizes, "bundle": arguments.bundle, "repeats": arguments.repeats, "measure": what, "at": path}
    command = [
        sys.executable,
        __file__,
        *(word for name, value in values.items() for word in (f"--{name}", str(value))),
        *(["--no-copy"] if arguments.no_copy else []),
    ]
    environment = {**os.environ, "LFP_BUNDLES": str(path), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, stdout=subprocess.PIPE, env=environment, cwd=ROOT, check=True)
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures


def making(path: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """The bundle itself, where it is not there."""
    from lfp.bundle.manifest import read_manifest
    from lfp.testing.synthetic import make_bundle

    figures: dict[str, Any] = {}
    if not (path / "manifest.json").is_file():
        n_texts = -(-arguments.examples // EXAMPLES_A_TEXT)
        make = lambda: make_bundle(  # noqa: E731
            path, n_features=arguments.features, n_texts=n_texts, n_examples=arguments.examples
        )
        figures = {"make_s": round(seconds(make), 1), "make_peak_mb": memory_mb("VmHWM")}
    return {**figures, "bundle_mb": read_manifest(path).bytes >> 20}


def preparing(path: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """The sorted copy beside it, where it is not there."""
    from lfp.bundle.manifest import read_manifest
    from lfp.bundle.store import sorted_copy

    manifest = read_manifest(path)
    figures: dict[str, Any] = {}
    if manifest.bytes >= sorted_copy.WORTH_BYTES and sorted_copy.find(path, manifest) is None:
        figures = {"prepare_s": round(seconds(lambda: sorted_copy.build(path, manifest)), 1),
                   "prepare_peak_mb": memory_mb("VmHWM")}  # fmt: skip
    found = sorted_copy.find(path, manifest)
    return {**figures, "copy_mb": found.stat().st_size >> 20 if found else 0}


def opening(path: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """From the start of a fresh process to an open bundle and the first answers."""
    from lfp.bundle import queries
    from lfp.bundle.store.connection import Store

    began = time.perf_counter()
    with Store.open(path, prepare=True) as store:
        opened = time.perf_counter() - began
        first = queries.feature.strongest_feature(store)
        if first is not None:
            queries.excerpts.feature_excerpts(store, first)
        return {"cold_open_s": round(time.time() - STARTED, 2), "open_s": round(opened, 3)}


def asked(path: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Each question about features, warm, about another feature or list each time."""
    from lfp.bundle.store.connection import Store

    with Store.open(path) as store:
        calls = {**of_one_feature(store), **of_the_list(store)}
        found = (percentiles(name, call, arguments.repeats) for name, call in calls.items())
        return {key: value for figures in found for key, value in figures.items()}


def of_one_feature(store: Any) -> dict[str, Callable[[int], object]]:
    """Questions about the `i`th feature drawn."""
    from lfp.bundle import queries

    n = store.manifest.tables["features"].rows
    return {
        "feature": lambda i: queries.feature.feature(store, i * STRIDE % n),
        "labels": lambda i: queries.feature.labels(store, i * STRIDE % n),
        "histogram": lambda i: queries.feature.histogram(store, i * STRIDE % n),
        "feature_excerpts": lambda i: queries.excerpts.feature_excerpts(store, i * STRIDE % n),
    }


def of_the_list(store: Any) -> dict[str, Callable[[int], object]]:
    """Pages of the list of features, each filtered and sorted otherwise, half of them by words."""
    from app.components.feature import columns
    from app.session import permalinks
    from lfp.bundle import queries
    from lfp.bundle.queries.common import Order
    from lfp.bundle.queries.features import FeatureFilter

    shown = columns.in_order(permalinks.COLUMNS)  # what a page of the table asks for until others are chosen
    sorts = sorted(queries.features.FEATURE_SORTS)
    wanted = lambda i: FeatureFilter(  # noqa: E731
        sign=SIGNS[i % 3], search=SEARCHES[i % 6], density_low=1e-6 * (i % 5)
    )
    page = lambda i: {"limit": 25, "offset": 25 * (i % 8)}  # noqa: E731
    order = lambda i: Order(sorts[i % len(sorts)], i % 2 == 0)  # noqa: E731
    return {
        "table": lambda i: queries.features.features(store, wanted(i), order=order(i), columns=shown, **page(i)),
        "table_of_every_column": lambda i: queries.features.features(store, wanted(i), order=order(i), **page(i)),
        "count": lambda i: queries.features.count_features(store, wanted(i)),
    }


def ratios(path: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """How many times faster one feature's questions are at a tenth of the size, asked in turn in one process."""
    from lfp.bundle.store.connection import Store

    tenth = bundle_path(arguments, 10)
    with Store.open(path) as large, Store.open(tenth) as small:
        pairs = {name: (call, of_one_feature(small)[name]) for name, call in of_one_feature(large).items()}
        figures = {}
        for name, calls in pairs.items():
            times = np.array([[seconds(lambda call=call, i=i: call(i)) for call in calls]
                              for i in range(arguments.repeats + 2)])[2:]  # fmt: skip
            slow, fast = np.median(times, axis=0)
            figures[f"{name}_ratio_to_tenth"] = round(float(slow / fast), 2)
        return figures


def pages(path: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Every page of the navigation under AppTest, warm, as links to it open it; and this process's memory after."""
    from streamlit import config
    from streamlit.components.v2 import manifest_scanner

    config._main_script_path = str(ROOT / "app" / "main.py")  # a server reads the settings beside it; AppTest does not
    config.get_config_options(force_reparse=True)
    logging.disable(logging.WARNING)  # Streamlit warns at every page that no server runs it
    # A server looks through the installed packages for components once, as it starts; AppTest would at every page.
    manifest_scanner.scan_component_manifests = functools.cache(manifest_scanner.scan_component_manifests)
    figures: dict[str, Any] = {}
    n_features, n_texts = rows(path, "features"), rows(path, "texts")
    for name in page_names():
        call = lambda i, name=name: open_page(name, parameters(name, i, n_features, n_texts))  # noqa: E731
        repeats = min(arguments.repeats, 40) if name == "feature" else 12
        figures |= percentiles(f"{name}_page", call, repeats, of=lambda timed: timed)
    return {**figures, "rss_mb": memory_mb("VmRSS"), "rss_peak_mb": memory_mb("VmHWM")}


def open_page(name: str, params: dict[str, Any]) -> float:
    """Seconds that a page takes to run in a session of its own. Raises where it fails."""
    from streamlit.testing.v1 import AppTest

    at = AppTest.from_file(str(ROOT / "app" / "main.py"), default_timeout=120)
    for key, value in params.items():
        at.query_params[key] = str(value)
    if name != page_names()[0]:
        at.switch_page(f"views/{name}.py")
    taken = seconds(at.run)
    if at.exception:
        raise RuntimeError(f"page {name} {params}: {at.exception[0].message}")
    return taken


def page_names() -> list[str]:
    """The pages of the navigation, the first of them first."""
    from app.session.contents import MENU

    return [name for group in MENU.values() for entry in group for name in (*entry.tabs, *entry.details)]


def parameters(name: str, i: int, n_features: int, n_texts: int) -> dict[str, Any]:
    """What the `i`th link to a page asks of it."""
    if name == "feature":
        return {"feature": i * STRIDE % n_features}
    if name == "features":
        return {"sort": ("weight", "density", "strength", "shift")[i % 4], "find": SEARCHES[i % 6].strip()}
    if name == "inputs":
        return {"text": i * STRIDE % n_texts}
    return {}


def sessions(path: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Readers of one real server at once, each page a session; every page compared with what a reader alone gets.

    They walk twice: without a pause, so that all wait at all times, and reading for `think` seconds on average before
    each page.
    """
    from tests.app import serving
    from tests.app.sessions import walk

    n_features, n_texts, names = rows(path, "features"), rows(path, "texts"), page_names()
    walks = [[visited(names, reader * arguments.pages + i, n_features, n_texts) for i in range(arguments.pages)]
             for reader in range(arguments.sessions)]  # fmt: skip
    sys.stderr.write(f"sessions: {arguments.sessions} readers of {arguments.pages} pages each\n")
    with serving.explorer(path) as address:
        (alone,) = walk(address, [[place for places in walks for place in places]])
    figures = {"sessions": arguments.sessions, "session_alone_p95_s": round(quantile(alone, 0.95), 3)}
    for name, think_s in (("session", 0.0), ("thinking_session", arguments.think)):
        with serving.explorer(path) as address:
            walk(address, [[(page, {}) for page in ["", *names[1:]]]])
            began = time.perf_counter()
            together = [visit for visits in walk(address, walks, think_s=think_s) for visit in visits]
            taken = time.perf_counter() - began
        figures |= {
            f"{name}_pages": len(together), f"{name}_think_s": think_s,
            f"{name}_page_p50_s": round(quantile(together, 0.5), 3),
            f"{name}_page_p95_s": round(quantile(together, 0.95), 3),
            f"{name}_pages_per_s": round(len(together) / taken, 1),
            f"{name}_errors": sum(bool(visit.faults) for visit in together),
            f"{name}_wrong": sum(one.html != other.html for one, other in zip(together, alone, strict=True)),
        }  # fmt: skip
    return figures


def quantile(visits: list[Any], share: float) -> float:
    """Of the seconds that visits took."""
    return float(np.quantile([visit.seconds for visit in visits], share))


def visited(names: list[str], i: int, n_features: int, n_texts: int) -> tuple[str, dict[str, Any]]:
    """The `i`th page of a walk: every other one a feature, the rest all pages in turn."""
    name = "feature" if i % 2 else names[i // 2 % len(names)]
    return ("" if name == names[0] else name), parameters(name, i, n_features, n_texts)


def rows(path: Path, table: str) -> int:
    """Rows of a table."""
    from lfp.bundle.manifest import read_manifest

    return read_manifest(path).tables[table].rows


def percentiles(
    name: str, call: Callable[[int], Any], n: int, *, of: Callable[[Any], float] | None = None
) -> dict[str, float]:
    """Median and 95th percentile of `n` calls after two; of the seconds a call returns, with `of`.

    And the processor time of a call over all threads, which other programs on the machine leave nearly as it is.
    """
    worked = time.process_time()
    times = list(timed(call, n + 2, of))[2:]
    worked = time.process_time() - worked
    low, high = np.quantile(times, [0.5, 0.95]) * 1000
    figures = {"p50_ms": float(low), "p95_ms": float(high), "cpu_ms": worked / (n + 2) * 1000}
    return {f"{name}_{key}": round(value, 2) for key, value in figures.items()}


def timed(call: Callable[[int], Any], n: int, of: Callable[[Any], float] | None) -> Iterator[float]:
    """Seconds of each call."""
    for i in range(n):
        began = time.perf_counter()
        answer = call(i)
        yield time.perf_counter() - began if of is None else of(answer)


def seconds(call: Callable[[], object]) -> float:
    """How long a call takes."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def memory_mb(which: str) -> int:
    """This process's resident memory (VmRSS) or its peak (VmHWM)."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(re.findall(rf"{which}:\s+(\d+) kB", status)[0]) >> 10


MEASURES = {
    "making": making,
    "preparing": preparing,
    "opening": opening,
    "queries": asked,
    "ratios": ratios,
    "pages": pages,
}


if __name__ == "__main__":
    sys.exit(main())
