"""Bundles that tests share."""

import atexit
import json
import os
import shutil
import sys
import uuid
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from filelock import FileLock
from hypothesis import settings

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # spinning threads crawl where another program has a core
os.environ.setdefault("OMP_NUM_THREADS", "1")  # every process of pytest-xdist has a core

from lfp.bundle.manifest import file_sha256  # noqa: E402
from lfp.bundle.schema import TABLES  # noqa: E402
from lfp.testing.synthetic import make_bundle  # noqa: E402

# New examples are searched for where people develop; CI repeats the same, so that a change is judged by itself.
settings.register_profile("lfp", deadline=None, max_examples=50, derandomize=bool(os.environ.get("CI")))
settings.load_profile("lfp")

HOSTILE = (
    "<script>alert(1)</script> & \"quotes\" 'single' </span><img src=x onerror=alert(2)>",
    "zero \x00 byte, right-to-left \u202eoverride\u202c, zero-width\u200bspace, tab\t, \x1b[31m",
    "$x^2$ **bold** [link](javascript:alert(3)) :red[colour] {braces} %{text} <b>not bold</b>",
    "",
    "🙂 naïve café 漢字",
)
"""Texts that must not be taken for anything but text."""


ADDED = {
    "layers": {"credit"},
    "saes": {"site", "scale", "trained_on", "fvu_tuned", "fvu_base"},
    "features": {"site", "scale_tuned", "scale_base", "scale_tuned_error", "scale_base_error", "is_tuned_only",
                 "base_cosine", "base_norm_share"},
    "texts": {"credit_reward", "credit_error", "credit_nodes"},
    "token_scores": {"in_response"},
    "vocabulary": {"implicit_excess_se", "implicit_gap_p", "implicit_gap_q"},
    "probes": {"sites"},
    "weights": {"null_mean", "p", "q"},
    "results": {"site"},
    "labels": {"score_p", "score_q"},
    "ablations": {"site", "contrast", "contrast_low", "contrast_high", "contrast_reach", "contrast_p", "contrast_q",
                  "reward_clean", "clean_runs"},
}  # fmt: skip
"""Columns that a bundle of the first release lacks, by table."""

LONGEST = (
    "test_saes_stage.py",
    "test_accessibility.py",
    "test_docs.py",
    "test_kinds.py",
    "test_presets.py",
    "test_journeys.py",
    "test_pages.py",
    "test_label.py",
    "test_small_model.py",
    "test_journey.py",
    "test_plant.py",
    "test_pipeline.py",
    "test_client.py",
)
"""Files begun first: no process waits in the end for another's longest, nor at the start for its `tiny_bundle`."""


def make_once(tmp_path_factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """Return the folder of that name which `make` fills, once for all processes of pytest-xdist."""
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "shared" / name
    folder.parent.mkdir(exist_ok=True)
    done = folder.with_name(f"{name}.done")
    with FileLock(folder.with_name(f"{name}.lock")):
        if not done.exists():
            make(folder)
            done.touch()
    return folder


@pytest.fixture(scope="session")
def s3_server():
    """An S3-compatible server."""
    from tests.s3 import Server

    server = Server()
    yield server
    server.stop()


@pytest.fixture
def s3(s3_server, monkeypatch, tmp_path):
    """The server as this process finds it: without a fault, its files fetched into a cache of this test."""
    import s3fs

    for name, value in {**s3_server.environment, "LFP_CACHE": str(tmp_path / "cache")}.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    yield s3_server
    s3_server.reset()
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture
def bucket(s3):
    """The address of an empty bucket."""
    import fsspec

    name = f"bucket-{uuid.uuid4().hex}"
    fsspec.filesystem("s3").mkdir(name)
    return f"s3://{name}"


@pytest.fixture(scope="session")
def tiny_work(tmp_path_factory):
    """The work folder of the tiny run of tests/precompute, every stage done. Do not change it: copy it."""
    from tests.precompute.conftest import make_tiny_work

    return make_once(
        tmp_path_factory, "work", lambda work: make_tiny_work(tmp_path_factory.mktemp("tiny corpus"), work)
    )


@pytest.fixture(scope="session")
def tiny_bundle(tiny_work, tmp_path_factory):
    """The bundle of the tiny run of tests/precompute, with its models. Do not change it: copy it."""
    from tests.precompute.conftest import resume, tiny_config, write_reviews

    corpus = write_reviews(tmp_path_factory.mktemp("tiny corpus"))
    return make_once(tmp_path_factory, "tiny", lambda out: resume(tiny_config(), out, work=tiny_work, corpus=corpus))


@pytest.fixture(autouse=True)
def main_module():
    """Leaves `__main__` as it was: AppTest puts the explorer there, which any process that a test spawns would run."""
    main = sys.modules["__main__"]
    yield
    sys.modules["__main__"] = main


def pytest_collection_modifyitems(items):
    """Puts the longest files in front, in that order; all others stay as they were."""
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """With LFP_REQUIRE_BROWSER set, as on CI, a browser test that is skipped has failed."""
    report = yield
    if report.skipped and item.get_closest_marker("browser") and os.environ.get("LFP_REQUIRE_BROWSER"):
        report.outcome, report.longrepr = "failed", f"{item.nodeid}: skipped, and LFP_REQUIRE_BROWSER is set"
    return report


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(terminalreporter):
    """Says last how to have the browser tests run, where they were skipped."""
    yield
    skipped = [report for report in terminalreporter.stats.get("skipped", []) if "browser" in report.keywords]
    if skipped:
        terminalreporter.write_line(
            f"{len(skipped)} browser tests were skipped: no Chromium; install it with: apt-get install -y chromium"
        )


def pytest_configure(config):
    """Silences what DuckDB's bindings print about references when a worker exits; by then no test prints any more."""
    if hasattr(config, "workerinput"):
        atexit.register(lambda: os.dup2(os.open(os.devnull, os.O_WRONLY), 2))


@pytest.fixture(scope="session")
def bundle(tmp_path_factory):
    """A small synthetic bundle. Do not change it: copy it."""
    return make_bundle(tmp_path_factory.mktemp("bundles") / "reviews", n_features=60, n_texts=40)


@pytest.fixture(scope="session")
def hostile_bundle(tmp_path_factory):
    """One whose texts, tokens and descriptions hold markup, control and direction characters."""
    return make_bundle(
        tmp_path_factory.mktemp("bundles") / "hostile", n_features=300, n_texts=0, extra_texts=HOSTILE * 4
    )


@pytest.fixture(scope="session")
def older_bundle(bundle, tmp_path_factory):
    """The small bundle as the first release wrote it: without the tables and columns that were added later."""
    path = Path(shutil.copytree(bundle, tmp_path_factory.mktemp("bundles") / "older"))
    for table, columns in ADDED.items():
        rewrite(path, table, lambda rows, added=columns: rows.drop_columns([*added & set(rows.column_names)]))
    manifest = json.loads((path / "manifest.json").read_text(encoding="utf-8"))
    for name in [table.name for table in TABLES if table.added_later]:
        (path / f"{name}.parquet").unlink()
        del manifest["tables"][name]
    (path / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def empty_bundle(tmp_path_factory):
    """One whose tables are empty."""
    return make_bundle(tmp_path_factory.mktemp("bundles") / "empty", n_features=0, n_texts=0)


@pytest.fixture
def copied_bundle(bundle, tmp_path):
    """A copy to break."""
    return Path(shutil.copytree(bundle, tmp_path / "copied"))


@pytest.fixture
def broken_bundle(copied_bundle):
    """One with a byte changed in a table."""
    change_byte(copied_bundle / "features.parquet")
    return copied_bundle


@pytest.fixture
def own_modules(tmp_path):
    """Leaves Python's path as it was, and no module imported that the test wrote."""
    path, modules = list(sys.path), set(sys.modules)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        members = vars(sys.modules[name])
        places = [members.get("__file__"), *members.get("__path__", ())]
        if any(str(place).startswith(str(tmp_path)) for place in places):
            del sys.modules[name]


def change_byte(path, *, at=100):
    """Flips a byte of a file in place."""
    content = bytearray(path.read_bytes())
    content[at] ^= 0xFF
    path.write_bytes(bytes(content))


def rewrite(bundle, table, change):
    """Replaces a table by `change` of it and makes the manifest agree, as a faulty writer would."""
    from lfp.bundle.manifest import Manifest, read_manifest

    path = bundle / f"{table}.parquet"
    pq.write_table(change(pq.read_table(path)), path)
    manifest = read_manifest(bundle).model_dump()
    rows = pq.read_metadata(path).num_rows
    manifest["tables"][table] = {"rows": rows, "bytes": path.stat().st_size, "sha256": file_sha256(path)}
    (bundle / "manifest.json").write_text(Manifest.model_validate(manifest).model_dump_json(), encoding="utf-8")


def with_column(table, name, values):
    """The table with one column's values replaced, its type kept."""
    at = table.schema.get_field_index(name)
    return table.set_column(at, table.schema.field(at), pa.array(values, table.schema.field(at).type))
