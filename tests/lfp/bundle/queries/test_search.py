"""Ranked searches against the same figures counted row by row in Python."""

from __future__ import annotations

import math
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lfp.bundle import queries
from lfp.bundle.queries import search
from lfp.bundle.queries.common import Order
from lfp.bundle.queries.features import MATCH, FeatureFilter
from lfp.bundle.queries.search import TOKEN_ROLES, Found
from lfp.bundle.store.connection import Store
from lfp.bundle.word_index import LEAST_ALIKE, grams, word_index
from lfp.errors import ConfigError
from lfp.texts.words import word_tokens, words_of
from tests.conftest import rewrite

TOKENS = st.sampled_from(["hated", " HATED ", "the", "great", "film", "", "no such", "'; DROP TABLE x"])
WORDS = st.sampled_from(["hated", "the", "film", "great", "was", "zzzz", "grea"])
WEIGHTS = {0: 1.0, 1: 0.3, 2: 0.3, 3: 0.3, 4: 0.3, -1: 0.2, -2: 0.2, -3: 0.2}


class Tables:
    """Rows of a bundle, read once."""

    def __init__(self, store):
        self.features = store.rows("SELECT * FROM feature_table")
        self.largest = {row["feature_id"]: row["max_activation"] for row in self.features}
        self.examples = store.rows("SELECT * FROM examples WHERE bucket >= 0")
        self.activations = store.rows("SELECT * FROM activations ORDER BY text_id")
        self.labels = store.rows("SELECT feature_id, description FROM labels WHERE status = 'ok'")
        self.words = texts_of(store)


def texts_of(store):
    """Words and their tokens, by text."""
    rows = store.rows("SELECT text_id, text, token_starts FROM texts")
    found = {}
    for row in rows:
        words = words_of(row["text"])
        tokens = word_tokens(words, row["token_starts"], len(row["text"]))
        found[row["text_id"]] = [(word.word, there) for word, there in zip(words, tokens, strict=True) if there]
    return found


@pytest.fixture(scope="module")
def read(store):
    return Tables(store)


@settings(max_examples=20)
@given(token=TOKENS, role=st.sampled_from(sorted(TOKEN_ROLES)))
def test_a_token_is_ranked_by_its_share_of_each_list(store, read, token, role):
    wanted, best = token.strip().lower(), {}
    for row in read.features:
        for column in TOKEN_ROLES[role]:
            items = row[column] or []
            total = sum(abs(item["value"]) for item in items)
            for item in items:
                if wanted and item["token"].strip(" ").lower() == wanted and total:
                    best[row["feature_id"]] = max(best.get(row["feature_id"], 0.0), abs(item["value"]) / total)
    found = search.by_token(store, token, role=role)
    assert found.n == len(best) and set(found.ids) == set(best)
    assert list(found.scores) == pytest.approx([best[id_] for id_ in found.ids], rel=1e-5)
    assert list(found.scores) == sorted(found.scores, reverse=True) and all(found.whys)


def test_an_unknown_role_names_the_roles(store):
    with pytest.raises(ConfigError, match="choose one of any, fires on, promotes, demotes"):
        search.by_token(store, "great", role="x")


def frequencies(read, form):
    """How often features' examples, top tokens and labels hold a word, row by row."""
    largest = read.largest
    found = defaultdict(float)
    for row in read.examples:
        words = read.words[row["text_id"]]
        weights = [
            weight
            for at, (_, tokens) in enumerate(words)
            if row["position"] in tokens
            for step, weight in WEIGHTS.items()
            if 0 <= at - step < len(words) and words[at - step][0] == form
        ]
        if weights and largest[row["feature_id"]] > 0:
            found[row["feature_id"]] += max(weights) * row["activation"] / largest[row["feature_id"]]
    for row in read.features:
        for item in row["top_tokens"]:
            if item["token"].strip(" ").lower() == form:
                found[row["feature_id"]] += 3 * item["value"]
    said = defaultdict(set)
    for row in [*read.features, *read.labels]:
        said[row["feature_id"]] |= {word.word for word in words_of(row["description"] or "")}
    for id_, words in said.items():
        if form in words:
            found[id_] += 2
    return {id_: value for id_, value in found.items() if value > 0}


@settings(max_examples=6)
@given(words=st.lists(st.sampled_from(["hated", "the", "film", "great", "praise"]), min_size=1, max_size=3))
def test_meaning_is_bm25_over_examples_tokens_and_labels(store, read, words):
    expected = defaultdict(float)
    for word in words:
        counts = frequencies(read, word)
        rarity = math.log(1 + (60 - len(counts) + 0.5) / (len(counts) + 0.5))
        for id_, value in counts.items():
            expected[id_] += rarity * value * 2.2 / (value + 1.2)
    found = search.by_meaning(store, " ".join(words))
    assert set(found.ids) == set(expected)
    assert list(found.scores) == pytest.approx([expected[id_] for id_ in found.ids], rel=1e-4)


def test_a_word_of_no_text_is_read_as_those_like_it(store):
    index = word_index(store)
    held = max(index.words, key=len)
    misspelt = held[:-1] + "qq"
    assert misspelt not in index.words and held in index.nearest(misspelt)
    for other in index.nearest(misspelt):
        shared = len(grams(misspelt) & grams(other))
        assert 2 * shared / (len(grams(misspelt)) + len(grams(other))) >= LEAST_ALIKE
    assert f"No text holds “{misspelt}”: " in search.by_meaning(store, misspelt).says


@settings(max_examples=10)
@given(words=st.lists(WORDS, min_size=1, max_size=4))
def test_a_sentence_is_looked_up_in_stored_activations(store, read, words):
    largest = read.largest
    best = defaultdict(float)
    for word in set(words):
        sums, n = defaultdict(float), 0
        for row in read.activations:
            active = defaultdict(dict)
            for position, id_, value in zip(row["positions"], row["feature_ids"], row["values"], strict=True):
                active[position][id_] = value
            for held, tokens in read.words[row["text_id"]]:
                if held == word and n < 200:
                    n += 1
                    ids = {id_ for token in tokens for id_ in active[token]}
                    for id_ in ids:
                        sums[id_] += max(active[token].get(id_, 0.0) for token in tokens) / largest[id_]
        for id_, total in sums.items():
            best[id_] = max(best[id_], total / n)
    found = search.by_stored_words(store, " ".join(words))
    assert set(found.ids) == set(best)
    assert list(found.scores) == pytest.approx([best[id_] for id_ in found.ids], rel=1e-5)
    assert found.says.startswith("No model was run.")
    assert ("zzzz" in found.says) == ("zzzz" in words)


@pytest.mark.parametrize("text", ["", "?!", "\x00", "%🙂漢字", "x" * 3000])
@pytest.mark.parametrize("by", [search.by_token, search.by_meaning, search.by_stored_words])
def test_odd_texts_find_nothing_or_something_and_never_fail(store, none, by, text):
    assert isinstance(by(store, text), Found) and by(none, text).ids == ()


def test_activations_are_ranked_by_their_share_of_the_largest(store):
    largest = [row["max_activation"] for row in store.rows("SELECT max_activation FROM features ORDER BY feature_id")]
    found = search.by_activations(
        store, ["a", " film"], np.array([3, 3, 7]), np.array([0, 1, 1]),
        [largest[3] / 4, largest[3] / 2, largest[7]], says="read",
    )  # fmt: skip
    assert found.ids == (7, 3) and found.scores == pytest.approx((1.0, 0.5)) and found.whys[1].startswith("“film”: ")


def test_a_ranked_list_keeps_its_order_through_pages_and_filters(store):
    found = search.by_stored_words(store, "the film")
    wanted = FeatureFilter(found=found.ids, sign="negative")
    rows = queries.features.features(store, wanted, order=Order(MATCH))
    negative = set(
        queries.features.features(store, FeatureFilter(sign="negative"), order=Order("id"))["feature_id"].to_pylist()
    )
    expected = [id_ for id_ in found.ids if id_ in negative]
    assert rows["feature_id"].to_pylist() == expected and expected
    page = queries.features.features(store, wanted, order=Order(MATCH), limit=2, offset=1)
    assert page["feature_id"].to_pylist() == expected[1:3]
    place = queries.features.feature_place(store, expected[1], wanted, order=Order(MATCH))
    assert (place.position, place.before) == (1, expected[0])
    alone = queries.features.features(store, FeatureFilter(), order=Order(MATCH), limit=5)
    largest = queries.features.features(store, FeatureFilter(), order=Order("contribution"), limit=5)
    assert alone["feature_id"].to_pylist() == largest["feature_id"].to_pylist()


def test_a_label_by_a_person_is_found_where_it_names_nothing(copied_bundle: Path):
    def relabel(rows):
        row = {**rows.to_pylist()[0], "labeller": "human:ann", "description": "xylophones", "score_detection": 0.5,
               "score_ci_low": 0.4}  # fmt: skip
        return type(rows).from_pylist([row, *rows.to_pylist()], schema=rows.schema)

    rewrite(copied_bundle, "labels", relabel)
    with Store.open(copied_bundle) as labelled:
        first = labelled.rows("SELECT feature_id FROM labels WHERE labeller = 'human:ann'")[0]["feature_id"]
        found = queries.features.features(labelled, FeatureFilter(search="Xylophone"), order=Order("id"))
        assert found["feature_id"].to_pylist() == [first]
        assert "xylophones" not in (queries.feature.feature(labelled, first).description or "")
