"""Queries on credits: the split of the implicit reward of texts and words over modules."""

from __future__ import annotations

import pyarrow as pa

from lfp.bundle.store.connection import Store


def text_credits(store: Store, text_id: int) -> pa.Table:
    """Return a text's credits on both kinds of path, the largest first; empty where it was not split."""
    return store.query(
        "SELECT path, layer, module, credit FROM module_credits WHERE text_id = $text_id "
        "ORDER BY path, abs(credit) DESC, layer, module",
        {"text_id": text_id},
    )


def word_credits(store: Store, word: str) -> pa.Table:
    """Return a word's mean credits on both kinds of path, the largest first; empty where it was not split."""
    return store.query(
        "SELECT path, layer, module, mean, ci_low, ci_high, n FROM word_credits WHERE word = $word "
        "ORDER BY path, abs(mean) DESC, layer, module",
        {"word": word},
    )


def module_shares(store: Store) -> pa.Table:
    """Return the report's figures of modules, one row per metric, layer and kind, the largest share first."""
    return store.query(
        'SELECT metric, layer, "group" AS module, value, ci_low, ci_high, null_mean, null_high, null_p, n '
        "FROM results WHERE report_row = 'module_credits' AND \"group\" IS NOT NULL "
        "ORDER BY metric, layer NULLS FIRST, value DESC, module"
    )


def text_reward(store: Store, text_id: int) -> tuple[float, float] | None:
    """Return the implicit reward that a text's credits sum to, and their error; None where it was not split."""
    rows = store.rows(
        "SELECT credit_reward AS reward, credit_error AS error FROM texts "
        "WHERE text_id = $text_id AND credit_reward IS NOT NULL",
        {"text_id": text_id},
    )
    return (float(rows[0]["reward"]), float(rows[0]["error"])) if rows else None
