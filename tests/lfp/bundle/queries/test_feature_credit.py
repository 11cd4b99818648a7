"""What a feature carries: its row, its tokens in their texts, and its intervention; none where nothing is known."""

from __future__ import annotations

from pathlib import Path

import pytest

from lfp.bundle import queries
from lfp.bundle.manifest import read_table
from lfp.bundle.store.connection import Store
from lfp.testing.synthetic import make_bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("credits") / "bundle", n_features=40)


def test_examples_stand_in_their_texts(bundle: Path) -> None:
    texts = {row["text_id"]: row for row in read_table(bundle, "texts").to_pylist()}
    seen = 0
    with Store.open(bundle) as store:
        for row in read_table(bundle, "credits").to_pylist():
            credit = queries.feature.feature_credit(store, row["feature_id"])
            assert credit is not None and credit.credit == row["credit"] and credit.rank == row["rank"]
            for example in queries.feature.credit_examples(store, row["feature_id"]):
                text = texts[example.text_id]
                starts = [*text["token_starts"], len(text["text"])]
                start, stop = starts[example.position], starts[example.position + 1]
                assert example.token == text["text"][start:stop]
                assert example.before == text["text"][max(0, start - 70) : start]
                assert example.after == text["text"][stop : stop + 70]
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
        assert queries.feature.credit_examples(store, 10**6) == []
