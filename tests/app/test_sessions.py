"""Many readers and threads at once get the same answers as each would get alone."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from lfp.bundle import queries
from lfp.bundle.queries.common import Order
from lfp.bundle.queries.features import FeatureFilter
from lfp.bundle.queries.texts import TextFilter
from lfp.bundle.store import sorted_copy
from lfp.bundle.store.connection import Store
from tests.app import serving
from tests.app.sessions import walk

N_THREADS = 8


@pytest.fixture(params=["parquet", "sorted copy"])
def store(request, bundle, monkeypatch, tmp_path):
    """One store of each kind."""
    path = tmp_path / "reviews"
    path.symlink_to(bundle)
    if request.param == "sorted copy":
        monkeypatch.setattr(sorted_copy, "WORTH_BYTES", 0)
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with Store.open(path, prepare=True) as opened:
        yield opened


def questions(store):
    """Every kind of question, with values of its own each time."""
    for number in range(16):
        yield lambda n=number: queries.feature.feature(store, n)
        yield lambda n=number: queries.excerpts.feature_excerpts(store, n)
        yield lambda n=number: queries.feature.labels(store, n)
        yield lambda n=number: queries.feature.histogram(store, n)
        yield lambda n=number: queries.texts.text(store, n % 40)
        yield lambda n=number: queries.texts.token_activations(store, n % 40, feature_id=n)
        yield lambda n=number: page(store, n)
        yield lambda n=number: queries.texts.texts(
            store, TextFilter(), order=Order("gap"), limit=5, offset=n
        ).to_pylist()


def page(store, n):
    wanted = FeatureFilter(layers=(n % 3,), sign=("any", "positive", "negative")[n % 3])
    order = Order(sorted(queries.features.FEATURE_SORTS)[n % len(queries.features.FEATURE_SORTS)], n % 2 == 0)
    return queries.features.count_features(store, wanted), queries.features.features(
        store, wanted, order=order, limit=7
    ).to_pylist()


def test_threads_of_one_store_are_told_what_each_would_be_told_alone(store):
    alone = [question() for question in questions(store)]
    with ThreadPoolExecutor(N_THREADS) as threads:
        together = list(threads.map(lambda question: question(), [*questions(store)] * 2))
    assert together == alone * 2


def test_readers_at_once_get_the_pages_that_each_would_get_alone(bundle, hostile_bundle):
    pages = [
        *(("feature", {"feature": n, "bundle": name}) for n in range(2) for name in ("reviews", "hostile")),
        *(("features", {"sort": sort, "bundle": "reviews"}) for sort in ("weight", "density")),
        *(("inputs", {"text": n, "bundle": "hostile"}) for n in range(2)),
    ]
    walks = [pages[start:] + pages[:start] for start in (0, 2, 4, 6)]
    with serving.explorer(bundle, hostile_bundle) as address:
        together = walk(address, walks)
    with serving.explorer(bundle, hostile_bundle) as address:
        (alone,) = walk(address, [pages])
    expected = {str(where): visit.html for where, visit in zip(pages, alone, strict=True)}
    assert len(set(expected.values())) >= len(pages) - 1, "pages that are all alike prove nothing"
    for visited, visits in zip(walks, together, strict=True):
        for where, visit in zip(visited, visits, strict=True):
            assert visit.faults == ()
            assert visit.html == expected[str(where)]
