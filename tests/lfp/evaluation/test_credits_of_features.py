"""Totals of features' credits against plain loops, and shares of their modules."""

from __future__ import annotations

import numpy as np
import pytest

from lfp.evaluation.feature_credits import (
    TextCredits,
    combine,
    credit_columns,
    largest_miss,
    largest_results,
    share_results,
    sum_rows,
)
from lfp.evaluation.statistics.resampling import Draws
from lfp.util.types import Place

PLACES = (Place(0), Place(1, "attn_out"))
N_FEATURES, WIDTH = 6, 3
PLACE_OF = np.arange(N_FEATURES) // WIDTH
TOKEN_IDS = [np.array(ids) for ids in ([4, 1, 2, 1, 3], [2, 2, 0, 4], [1, 3, 1, 1, 2, 0], [0, 1])]
STATED = np.array([0.0, 2.0, -1.0, 0.0, 0.5])
"""Of each token id."""


def text_credits(ids: np.ndarray, rng: np.random.Generator) -> TextCredits:
    """Two features at most tokens, a bias at every token, and what is left also at the token before the text."""
    positions = np.repeat(np.arange(len(ids)), 2)
    features = np.concatenate([rng.choice(N_FEATURES, 2, replace=False) for _ in ids])
    credits = rng.normal(size=(2, len(features)))
    credits[1, positions == len(ids) - 1] = 0.0  # no token follows
    bias, residual = 0.1 * rng.normal(size=(2, 2, 2, len(ids) + 1))
    bias[..., 0] = 0.0
    modules = bias + residual
    for path in range(2):
        np.add.at(modules[path], (PLACE_OF[features], positions + 1), credits[path])
    return TextCredits(positions, features, credits, modules, bias, residual)


@pytest.fixture(scope="module")
def texts() -> list[TextCredits]:
    rng = np.random.default_rng(0)
    return [text_credits(ids, rng) for ids in TOKEN_IDS]


def test_columns_of_features_are_what_loops_give(texts: list[TextCredits]) -> None:
    split = combine(texts, TOKEN_IDS, [STATED[ids] for ids in TOKEN_IDS])
    text_ids, spelled = np.array([10, 11, 12, 13]), list("abcde")
    columns = credit_columns(split, n_features=N_FEATURES, spelled=spelled, text_ids=text_ids)
    n_tokens = sum(len(ids) for ids in TOKEN_IDS)
    pairs = [(text, at) for text, ids in enumerate(TOKEN_IDS) for at in range(len(ids) - 1)]
    stated = np.array([STATED[TOKEN_IDS[text][at + 1]] for text, at in pairs])
    for feature in range(N_FEATURES):
        found = {
            (text, int(at)): values
            for text, credits in enumerate(texts)
            for at, of, values in zip(credits.positions, credits.features, credits.credits.T, strict=True)
            if of == feature
        }
        full = np.array([values[0] for values in found.values()])
        assert columns["credit"][feature] == pytest.approx(full.sum() / n_tokens)
        assert columns["abs_credit"][feature] == pytest.approx(np.abs(full).sum() / n_tokens)
        largest = sorted(found, key=lambda key: -abs(found[key][0]))
        shown = zip(columns["example_text_ids"][feature], columns["example_positions"][feature], strict=True)
        assert [(text - 10, at) for text, at in shown] == largest[:10]
        by_token: dict[str, float] = {}
        for (text, at), values in found.items():
            if at + 1 < len(TOKEN_IDS[text]):
                token = spelled[TOKEN_IDS[text][at + 1]]
                by_token[token] = by_token.get(token, 0.0) + values[1]
        promotes = {item["token"]: item["value"] for item in columns["promotes"][feature]}
        demotes = {item["token"]: item["value"] for item in columns["demotes"][feature]}
        assert promotes == pytest.approx({token: value for token, value in by_token.items() if value > 0})
        assert demotes == pytest.approx({token: value for token, value in by_token.items() if value < 0})
        assert list(promotes.values()) == sorted(promotes.values(), reverse=True)
        values = np.array([found.get(pair, (0.0, 0.0))[1] for pair in pairs])
        slope = np.polyfit(stated, values, 1)[0]
        expected = np.abs(values - slope * stated).mean()
        assert columns["unexplained_credit"][feature] == pytest.approx(expected)
    assert sorted(columns["rank"]) == list(range(1, N_FEATURES + 1))
    rows = largest_results(columns, len(texts))
    assert rows[0].group == f"feature:{int(np.argmax(np.abs(columns['credit'])))}"


def test_intervals_cover_the_rate_of_other_texts() -> None:
    """95 % intervals over 30 texts, of which one feature carries a share that differs by text."""
    rng, covered, n_runs = np.random.default_rng(1), 0, 200
    for _ in range(n_runs):
        ids, found = [], []
        for _ in range(30):
            n = int(rng.integers(5, 20))
            per_token = rng.normal(0.3, 0.2)
            zeros = np.zeros((2, 1, n))
            credits = np.full((2, n), per_token)
            found.append(TextCredits(np.arange(n), np.zeros(n, np.int64), credits, zeros, zeros, zeros))
            ids.append(np.zeros(n, np.int64))
        split = combine(found, ids, [np.zeros(len(row)) for row in ids])
        columns = credit_columns(split, n_features=1, spelled=["a"], text_ids=np.arange(30))
        covered += bool(columns["ci_low"][0] <= 0.3 <= columns["ci_high"][0])
    assert 0.9 * n_runs <= covered <= 0.99 * n_runs


def test_sums_are_of_every_text_and_place(texts: list[TextCredits]) -> None:
    rows = sum_rows(7, texts[0], PLACES, PLACE_OF)
    assert [(row["layer"], row["site"], row["path"]) for row in rows] == [
        (0, "mlp_out", "full"),
        (0, "mlp_out", "same_position"),
        (1, "attn_out", "full"),
        (1, "attn_out", "same_position"),
    ]
    for row in rows:
        assert row["features"] + row["bias"] + row["residual"] == pytest.approx(row["module"])
    sums = np.stack([text.place_sums(PLACE_OF) for text in texts])
    assert largest_miss(sums) < 1e-12
    by_token = []
    for number in range(2):
        parts = [text.by_token(PLACE_OF, number, n_bos=1) for text in texts]
        by_token.append((np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])))
    results = share_results(sums, by_token, PLACES, Draws(200, 10, 0))
    found = next(row for row in results if row.metric == "features_share" and row.group == "full" and row.layer == 0)
    assert found.value == pytest.approx(sums[:, 1, 0, 0].sum() / sums[:, 0, 0, 0].sum())
    assert found.ci_low is not None and found.ci_high is not None and found.ci_low <= found.value <= found.ci_high
    missing = sums.copy()
    missing[0, 0, 0, 0] += 1.0
    assert largest_miss(missing) > 0.1
