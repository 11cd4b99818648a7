"""What a feature carries: its row, its tokens in their texts, and its intervention; none where nothing is known."""

from __future__ import annotations

from pathlib import Path

import pytest

from lfp.bundle import queries
from lfp.bundle.manifest import read_table
from lfp.bundle.queries.common import between_words
from lfp.bundle.store.connection import Store
from lfp.testing.synthetic import make_bundle
from tests.conftest import rewrite


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("credits") / "bundle", n_features=40)


def assert_between_words(text: str, before: str, after: str, start: int, stop: int) -> None:
    """Check that what is around a token is its text's, and begins and ends between words or where the text does."""
    shown, rest = before.removeprefix("…"), after.removesuffix("…")
    assert text[:start].endswith(shown) and text[stop:].startswith(rest)
    first, last = start - len(shown), stop + len(rest)
    assert (first == 0) == (shown == before) and (first == 0 or text[first - 1].isspace())
    assert (last == len(text)) == (rest == after) and (last == len(text) or text[last].isspace())


@pytest.mark.parametrize(
    ("row", "around"),
    [
        ({"before": "ad the salad", "after": " for lun", "starts": False, "ends": False}, ("…the salad", " for…")),
        ({"before": "The salad", "after": " here.", "starts": True, "ends": True}, ("The salad", " here.")),
        ({"before": "一二三", "after": "四五六", "starts": False, "ends": False}, ("…一二三", "四五六…")),
        ({"before": "", "after": "ing", "starts": True, "ends": False}, ("", "ing…")),
        ({"before": " am ", "after": "", "starts": False, "ends": True}, ("…am ", "")),
    ],
)
def test_what_is_around_a_token_begins_and_ends_between_words(row: dict[str, object], around: tuple[str, str]) -> None:
    found = between_words(row | {"text_id": 1})
    assert found == {"text_id": 1, "before": around[0], "after": around[1]}


def test_examples_stand_in_their_texts(bundle: Path) -> None:
    texts = {row["text_id"]: row for row in read_table(bundle, "texts").to_pylist()}
    seen = 0
    with Store.open(bundle) as store:
        for row in read_table(bundle, "credits").to_pylist():
            credit = queries.feature.feature_credit(store, row["feature_id"])
            assert credit is not None and credit.credit == row["credit"] and credit.rank == row["rank"]
            for example in queries.excerpts.credit_examples(store, row["feature_id"]):
                text = texts[example.text_id]
                starts = [*text["token_starts"], len(text["text"])]
                start, stop = starts[example.position], starts[example.position + 1]
                assert example.token == text["text"][start:stop]
                assert_between_words(text["text"], example.before, example.after, start, stop)
                assert len(example.before) <= 71 and len(example.after) <= 71
                seen += 1
    assert seen > 10


def test_an_intervention_has_its_controls(bundle: Path) -> None:
    rows = read_table(bundle, "interventions").to_pylist()
    with Store.open(bundle) as store:
        for row in rows:
            found = queries.feature.feature_intervention(store, row["feature_id"])
            if row["kind"] == "feature":
                controls = [abs(other["effect"]) for other in rows if other["control_of"] == row["feature_id"]]
                assert found is not None and found.effect == row["effect"]
                assert found.control == pytest.approx(sum(controls) / len(controls))


def test_a_feature_without_credits_has_none(bundle: Path) -> None:
    with Store.open(bundle) as store:
        assert queries.feature.feature_intervention(store, 10**6) is None
        assert queries.feature.feature_credit(store, 10**6) is None
        assert queries.excerpts.credit_examples(store, 10**6) == []


def test_the_leading_features_are_those_of_the_largest_credits(bundle: Path) -> None:
    credits = sorted(read_table(bundle, "credits").to_pylist(), key=lambda row: row["rank"])
    texts = {row["text_id"]: row for row in read_table(bundle, "texts").to_pylist()}
    with Store.open(bundle) as store:
        found = queries.credits.leading_features(store)
    assert found.by_credit and found.n_features == len(credits)
    for feature, row in zip(found.features, credits[:5], strict=True):
        assert (feature.feature_id, feature.value, feature.ci_low) == (row["feature_id"], row["credit"], row["ci_low"])
        assert feature.promotes == row["promotes"] and feature.demotes == row["demotes"]
        text, at = texts[row["example_text_ids"][0]], row["example_positions"][0]
        start, stop = [*text["token_starts"], len(text["text"])][at : at + 2]
        assert feature.example is not None and feature.example.token == text["text"][start:stop]
        assert_between_words(text["text"], feature.example.before, feature.example.after, start, stop)
    whole = sum(abs(row["credit"]) for row in credits)
    assert found.share == pytest.approx(sum(abs(row["credit"]) for row in credits[:5]) / whole)


def test_without_credits_the_largest_contributions_lead(copied_bundle: Path) -> None:
    rewrite(copied_bundle, "credits", lambda rows: rows.slice(0, 0))
    probe = next(row["probe_id"] for row in read_table(copied_bundle, "probes").to_pylist() if row["is_headline"])
    weights = [row for row in read_table(copied_bundle, "weights").to_pylist() if row["probe_id"] == probe]
    weights.sort(key=lambda row: (-row["mean_abs_contribution"], row["feature_id"]))
    features = {row["feature_id"]: row for row in read_table(copied_bundle, "features").to_pylist()}
    strongest = {
        row["feature_id"]: row for row in read_table(copied_bundle, "examples").to_pylist()
        if (row["bucket"], row["rank"]) == (0, 0)
    }  # fmt: skip
    with Store.open(copied_bundle) as store:
        found = queries.credits.leading_features(store, limit=3)
    assert not found.by_credit and found.n_features == len(weights)
    for feature, row in zip(found.features, weights[:3], strict=True):
        assert (feature.feature_id, feature.value) == (row["feature_id"], row["mean_abs_contribution"])
        assert feature.ci_low is None and feature.promotes == features[row["feature_id"]]["pos_logits"]
        if row["feature_id"] in strongest:
            assert feature.example is not None
            assert feature.example.text_id == strongest[row["feature_id"]]["text_id"]


def test_an_empty_bundle_has_no_leading_features(empty_bundle: Path) -> None:
    with Store.open(empty_bundle) as store:
        assert queries.credits.leading_features(store).features == ()
