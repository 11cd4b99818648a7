import numpy as np
import pyarrow.parquet as pq
import pytest

from lfp.bundle import queries
from lfp.bundle.queries.common import Order
from lfp.bundle.queries.texts import TextFilter
from lfp.bundle.store.connection import Store
from lfp.errors import ConfigError
from lfp.evaluation.findings.words import percentile_ranks
from lfp.probes.pooling import POOLINGS
from lfp.testing.synthetic import make_bundle
from tests.conftest import rewrite, with_column


def sampled(bundle):
    kept = set(pq.read_table(bundle / "activations.parquet")["text_id"].to_pylist())
    return [row for row in pq.read_table(bundle / "texts.parquet").to_pylist() if row["text_id"] in kept]


def gaps_of(rows, first, second, key):
    """Gaps as the report finds them."""
    known = [row for row in rows if row[first] is not None and row[second] is not None]
    ranks = [percentile_ranks(np.array([row[name] for row in known], float)) for name in (first, second)]
    return {row[key]: gap for row, gap in zip(known, ranks[0] - ranks[1], strict=True)}


@pytest.mark.parametrize("queue", list(queries.common.TEXT_GAPS))
def test_a_queue_of_texts_is_that_of_the_report(store, bundle, queue):
    expected = {
        i: gap
        for i, gap in gaps_of(sampled(bundle), *queries.common.TEXT_GAPS[queue], "text_id").items()
        if abs(gap) > 1e-9
    }
    found = queries.words.queued_texts(store, queue, limit=None)
    assert {text.text_id: text.gap for text in found} == pytest.approx(expected, abs=1e-9)
    assert [abs(text.gap) for text in found] == sorted((abs(text.gap) for text in found), reverse=True)
    assert all(text.gap == pytest.approx(text.first_rank - text.second_rank) for text in found)
    over, under = (queries.words.queued_texts(store, queue, side=side, limit=None) for side in ("over", "under"))
    assert {text.gap > 0 for text in over} == {True} and {text.gap > 0 for text in under} == {False}
    assert len(over) + len(under) == len(found) and queries.words.queued_texts(store, queue, limit=4) == found[:4]


@pytest.mark.parametrize("queue", list(queries.common.TEXT_GAPS))
def test_texts_are_listed_by_the_same_gaps(store, bundle, queue):
    rows = queries.texts.texts(store, TextFilter(is_sampled=True), order=Order(queue)).to_pylist()
    expected = gaps_of(sampled(bundle), *queries.common.TEXT_GAPS[queue], "text_id")
    known = {row["text_id"]: row["gap"] for row in rows if row["gap"] is not None}
    assert known == pytest.approx({i: abs(gap) for i, gap in expected.items()}, abs=1e-9)
    assert [row["gap"] for row in rows[: len(known)]] == sorted(known.values(), reverse=True)


def test_texts_of_a_rating(store, bundle):
    rows = pq.read_table(bundle / "texts.parquet").to_pylist()
    for low, high in ((2.0, 4.0), (None, 2.0), (4.0, None)):
        found = queries.texts.texts(store, TextFilter(rating_low=low, rating_high=high), order=Order("id"))
        passes = [
            row["text_id"] for row in rows
            if row["rating"] is not None and (low or 0) <= row["rating"] <= (high or 9)
        ]  # fmt: skip
        assert sorted(found["text_id"].to_pylist()) == passes
    given = [row["rating"] for row in rows if row["rating"] is not None]
    assert queries.texts.rating_range(store) == (min(given), max(given))


@pytest.mark.parametrize("pooling", POOLINGS)
def test_the_features_responsible_are_those_furthest_from_the_average(tmp_path, pooling):
    path = make_bundle(tmp_path / "b", n_features=50, n_texts=14, pooling=pooling)
    with Store.open(path) as opened:
        found = queries.words.responsible_features(opened, "gap", limit=8, each=4)
        for text in queries.words.queued_texts(opened, "gap", limit=8):
            way = np.sign(text.gap)
            split = queries.ledgers.average_ledger(opened, text.text_id, limit=None).shown
            pushed = sorted((-way * part.difference, part.feature_id) for part in split if way * part.difference > 0)
            pushing = [(part.feature_id, part.difference) for part in found if part.text_id == text.text_id]
            assert [number for _, number in pushed[:4]] == [number for number, _ in pushing]
            assert [-way * size for size, _ in pushed[:4]] == pytest.approx([size for _, size in pushing], abs=1e-12)
        assert {text.text_id for text in found} <= {
            text.text_id for text in queries.words.queued_texts(opened, "gap", limit=8)
        }


@pytest.mark.parametrize("queue", list(queries.words.WORD_GAPS))
@pytest.mark.parametrize("slope", [1.0, -2.0])
def test_a_queue_of_words_is_that_of_the_report(copied_bundle, queue, slope):
    rewrite(copied_bundle, "probes", lambda rows: with_column(rows, "display_slope", [slope] * rows.num_rows))
    rows = pq.read_table(copied_bundle / "vocabulary.parquet").to_pylist()
    rows = [row | {"estimate": slope * row["predicted"]} for row in rows if row["feedback"] is not None]
    expected = {
        word: gap for word, gap in gaps_of(rows, *queries.words.WORD_GAPS[queue], "word").items() if abs(gap) > 1e-9
    }
    features = pq.read_table(copied_bundle / "word_features.parquet").to_pylist()
    with Store.open(copied_bundle) as opened:
        found = queries.words.queued_words(opened, queue, limit=None)
    assert {word.word: word.gap for word in found} == pytest.approx(expected, abs=1e-9)
    for word in found:
        firing = sorted((row["rank"], row["feature_id"]) for row in features if row["word"] == word.word)
        assert word.feature_ids == tuple(number for _, number in firing) and len(word.descriptions) == len(firing)


def test_words_paid_otherwise(store, bundle):
    rows = [row for row in pq.read_table(bundle / "vocabulary.parquet").to_pylist() if row["implicit_gap"]]
    for over in (True, False):
        gaps = sorted((row["implicit_gap"] for row in rows if (row["implicit_gap"] > 0) == over), reverse=over)
        assert [word.gap for word in queries.words.paid_words(store, over=over)] == gaps[:10]


def test_there_is_nothing_to_queue_in_an_empty_bundle(empty_bundle):
    with Store.open(empty_bundle) as none:
        assert queries.texts.rating_range(none) is None
        for queue in queries.common.TEXT_GAPS:
            assert queries.words.queued_texts(none, queue) == queries.words.responsible_features(none, queue) == []
        assert queries.words.queued_words(none, "gap") == queries.words.paid_words(none, over=True) == []


def test_only_the_queues_there_are_can_be_asked_for(store):
    for ask in (queries.words.queued_texts, queries.words.queued_words, queries.words.responsible_features):
        with pytest.raises(ConfigError, match="no column or list of that name here"):
            ask(store, "gap; DROP TABLE texts")
