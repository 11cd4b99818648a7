"""Ledgers of the implicit reward: over modules, over features within modules, and per token."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lfp.bundle import queries
from lfp.bundle.queries.implicit_ledgers import Path as Paths
from lfp.bundle.queries.texts import TextFilter
from lfp.bundle.store.connection import Store

PATHS: tuple[Paths, ...] = ("full", "same_position")


@pytest.mark.parametrize("path", PATHS)
def test_modules_sum_to_the_implicit_reward(store: Store, path: Paths) -> None:
    found = queries.implicit_ledgers.module_ledger(store, 3, path=path)
    assert found is not None
    sizes = [abs(module.credit) for module in found.modules]
    assert sizes == sorted(sizes, reverse=True)
    assert found.error <= found.tolerance * sum(sizes) + 1e-9
    reward = queries.credits.text_reward(store, 3)
    assert reward is not None and found.predicted == reward[0]
    assert ("elsewhere" in {module.module for module in found.modules}) == (path == "same_position")


@pytest.mark.parametrize("path", PATHS)
def test_features_bias_and_residual_sum_to_their_modules(store: Store, path: Paths) -> None:
    few = queries.implicit_ledgers.feature_ledger(store, 3, path=path, limit=2)
    whole = queries.implicit_ledgers.feature_ledger(store, 3, path=path, limit=None)
    assert few is not None and whole is not None
    assert len(few.shown) == 2 and few.shown == whole.shown[:2] and whole.rest == pytest.approx(0.0, abs=1e-12)
    assert len(whole.shown) == whole.n_features == few.n_features
    for found in (few, whole):
        parts = sum(part.credit for part in found.shown) + found.rest + found.bias + found.residual
        assert parts == pytest.approx(found.total) and found.error < 1e-6


@pytest.mark.parametrize("path", PATHS)
def test_tokens_sum_to_what_features_carry(store: Store, path: Paths) -> None:
    text = queries.texts.text(store, 3)
    tokens = queries.implicit_ledgers.token_credits(store, 3, path=path, limit=1)
    ledger = queries.implicit_ledgers.feature_ledger(store, 3, path=path, limit=None)
    assert ledger is not None and len(tokens) == len(text.token_starts)
    columns = "positions, feature_ids, credits, next_credits"
    (row,) = store.rows(f"SELECT {columns} FROM feature_credits WHERE text_id = 3")
    shift, name = (0, "credits") if path == "full" else (1, "next_credits")
    expected = np.bincount(np.array(row["positions"]) + shift, row[name], len(tokens) + 1)
    assert [token.total for token in tokens] == pytest.approx(expected[: len(tokens)].tolist(), abs=1e-6)
    carried = sum(part.credit for part in ledger.shown)
    assert sum(token.total for token in tokens) + expected[len(tokens)] == pytest.approx(carried, abs=1e-6)
    assert all(len(token.shown) == min(token.n_features, 1) for token in tokens)


def test_a_text_that_was_not_split_has_no_ledger(store: Store) -> None:
    split = queries.implicit_ledgers.split_texts(store, limit=10_000)
    (last,) = store.rows("SELECT max(text_id) AS text_id FROM texts")
    for path in PATHS:
        assert queries.implicit_ledgers.module_ledger(store, 10_000, path=path) is None
        assert queries.implicit_ledgers.module_ledger(store, last["text_id"], path=path) is not None
        assert queries.implicit_ledgers.feature_ledger(store, last["text_id"], path=path) is None, "over modules alone"
        assert queries.implicit_ledgers.token_credits(store, last["text_id"], path=path) == []
    assert split[0] == 0 and queries.texts.count_texts(store, TextFilter(is_split=True)) == len(split)


def test_a_bundle_without_credits_has_none(tmp_path: Path) -> None:
    from lfp.testing.synthetic import make_bundle

    with Store.open(make_bundle(tmp_path / "b", n_features=3, n_texts=0)) as store:
        assert queries.implicit_ledgers.split_texts(store) == []
        assert queries.implicit_ledgers.module_ledger(store, 0, path="full") is None
