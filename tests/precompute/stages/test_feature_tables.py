"""What the pass over the corpus wrote of features, checked against the bundle's own decoders and activations."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from lfp.bundle.store.connection import Store


@pytest.fixture(scope="module")
def store(tiny_bundle: Path):
    with Store.open(tiny_bundle) as opened:
        yield opened


def test_silent_examples_are_of_tokens_on_which_the_feature_is_silent(store: Store) -> None:
    shown = store.rows(
        "SELECT e.activation, list_contains(list_zip(a.positions, a.feature_ids), "
        "{'a': e.position, 'b': e.feature_id}) AS fires "
        "FROM examples e JOIN activations a ON a.text_id = e.text_id WHERE e.bucket = -1"
    )
    assert shown and not any(row["fires"] or row["activation"] for row in shown)


def test_windows_of_every_kind_of_example_hold_its_activation_at_its_position(store: Store) -> None:
    kinds = store.rows(
        "SELECT bucket, count(*) AS n, max(abs(window_values[position - window_start + 1] - activation)) AS off, "
        "max(len(window_values)) AS longest FROM examples GROUP BY bucket ORDER BY bucket"
    )
    assert {-2, -1, 0, 1} <= {row["bucket"] for row in kinds}
    assert all(row["off"] == 0 and row["longest"] <= 25 for row in kinds)


def test_near_misses_are_silent_all_around_a_top_token_or_an_active_neighbour(store: Store) -> None:
    near = store.rows(
        "SELECT e.*, a.positions, a.feature_ids, t.text, t.token_starts, f.top_tokens FROM examples e "
        "JOIN texts t USING (text_id) JOIN features f USING (feature_id) "
        "LEFT JOIN activations a ON a.text_id = e.text_id WHERE e.bucket = -2"
    )
    assert near and not any(row["activation"] or any(row["window_values"]) for row in near)
    kept = [row for row in near if row["positions"] is not None]
    pairs = store.rows("SELECT feature_id, neighbour_id FROM neighbours WHERE kind = 'coactivation' AND rank < 3")
    nearest = {(row["feature_id"], row["neighbour_id"]) for row in pairs}
    for row in kept:
        start, end = [*row["token_starts"], len(row["text"])][row["position"] :][:2]
        is_top = row["text"][start:end] in [top["token"] for top in row["top_tokens"][:5] if top["value"] >= 0.02]
        entries = zip(row["positions"], row["feature_ids"], strict=True)
        active = {(row["feature_id"], other) for position, other in entries if position == row["position"]}
        assert is_top or active & nearest
    assert kept


def test_decoder_neighbours_are_the_nearest_rows_of_the_layer(store: Store) -> None:
    rows = store.rows("SELECT f.layer, d.vector FROM features f JOIN decoders d USING (feature_id) ORDER BY feature_id")
    layers = np.array([row["layer"] for row in rows])
    unit = np.array([row["vector"] for row in rows], np.float64)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    cosines = np.where(layers[:, None] == layers, unit @ unit.T, -1.0)
    np.fill_diagonal(cosines, -1.0)
    found = store.rows("SELECT * FROM neighbours WHERE kind = 'decoder_cosine'")
    assert len(found) == np.minimum((cosines > 0).sum(axis=1), 10).sum()
    for row in found:
        ranked = np.sort(cosines[row["feature_id"]])[::-1]
        assert row["value"] == pytest.approx(cosines[row["feature_id"], row["neighbour_id"]], abs=2e-3)
        assert row["value"] == pytest.approx(ranked[row["rank"]], abs=2e-3)


def test_coactive_neighbours_share_contexts_and_come_nearest_first(store: Store) -> None:
    found = store.rows("SELECT * FROM neighbours WHERE kind = 'coactivation' ORDER BY feature_id, rank")
    assert found and all(0 < row["value"] <= 1 and row["feature_id"] != row["neighbour_id"] for row in found)
    for before, row in pairwise(found):
        if before["feature_id"] == row["feature_id"]:
            assert before["rank"] + 1 == row["rank"] and before["value"] >= row["value"]
    silent = {row["feature_id"] for row in store.rows("SELECT feature_id FROM features WHERE n_active = 0")}
    assert not silent & {row["feature_id"] for row in found}


def test_labels_are_made_from_examples_of_their_own_feature(store: Store) -> None:
    used = store.rows("SELECT feature_id, unnest(examples_used) AS place FROM labels")
    rows = store.rows("SELECT feature_id, bucket, text_id || ':' || position AS place FROM examples")
    buckets = {(row["feature_id"], row["place"]): row["bucket"] for row in rows}
    assert used and {(row["feature_id"], row["place"]) for row in used} <= buckets.keys()
    active = {row["feature_id"] for row in used if buckets[row["feature_id"], row["place"]] >= 0}
    assert active == {row["feature_id"] for row in used}
