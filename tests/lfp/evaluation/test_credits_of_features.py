"""Totals of features' credits against plain loops, and shares of their modules."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from lfp.evaluation.feature_credits import (
    TextCredits,
    combine,
    control_results,
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


def _of_response(text: TextCredits, counted: np.ndarray) -> TextCredits:
    """A text as it is split where some tokens count: on the same position nothing is credited before the others."""
    credits = text.credits.copy()
    credits[1, ~np.append(counted[1:], False)[text.positions]] = 0.0
    return replace(text, credits=credits)


@pytest.fixture(scope="module")
def texts() -> list[TextCredits]:
    rng = np.random.default_rng(0)
    return [text_credits(ids, rng) for ids in TOKEN_IDS]


@pytest.mark.parametrize("n_prompt", [0, 2])
def test_columns_of_features_are_what_loops_give(texts: list[TextCredits], n_prompt: int) -> None:
    """Tokens of a prompt, whose implicit reward is not split, neither count nor have stated feedback."""
    counted = [np.arange(len(ids)) >= min(n_prompt, len(ids) - 1) for ids in TOKEN_IDS]
    texts = [_of_response(text, flags) for text, flags in zip(texts, counted, strict=True)]
    stated_of = [STATED[ids] for ids in TOKEN_IDS]
    split = combine(texts, TOKEN_IDS, stated_of, counted=counted, groups=np.arange(4))
    text_ids, spelled = np.array([10, 11, 12, 13]), list("abcde")
    columns = credit_columns(split, n_features=N_FEATURES, spelled=spelled, text_ids=text_ids)
    n_tokens = sum(flags.sum() for flags in counted)
    pairs = [(text, at) for text, flags in enumerate(counted) for at in range(len(flags) - 1) if flags[at + 1]]
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
            if at + 1 < len(TOKEN_IDS[text]) and counted[text][at + 1]:
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


@pytest.mark.parametrize("correlation", [0.0, 0.8])
def test_intervals_cover_the_rate_of_other_texts(correlation: float) -> None:
    """95 % intervals over 60 texts in pairs, of which one feature carries a share that differs by text."""
    rng, n_runs = np.random.default_rng(1), 250
    pairs, covered = np.repeat(np.arange(30), 2), np.zeros((n_runs, 3))
    for run in range(n_runs):
        own, shared = rng.normal(size=60), rng.normal(size=30)
        per_token = 0.3 + 0.2 * (np.sqrt(correlation) * shared[pairs] + np.sqrt(1 - correlation) * own)
        lengths = rng.integers(5, 20, 60)
        ids = [np.zeros(n, np.int64) for n in lengths]
        found = [
            TextCredits(np.arange(n), ids[i], np.full((2, n), per_token[i]), *np.zeros((3, 2, 1, n)))
            for i, n in enumerate(lengths)
        ]
        counted = [row == 0 for row in ids]
        split = combine(found, ids, [np.zeros(len(row)) for row in ids], counted=counted, groups=pairs)
        columns = credit_columns(split, n_features=1, spelled=["a"], text_ids=np.arange(60))
        covered[run, 0] = columns["ci_low"][0] <= 0.3 <= columns["ci_high"][0]
        sums = np.zeros((60, 4, 2, 1))
        sums[:, 0], sums[:, 1] = lengths[:, None, None], (lengths * per_token)[:, None, None]
        controlled = [
            replace(text, control=np.full((2, 1), text.credits[0].sum()), modules=np.full((2, 1, n), 1.0))
            for n, text in zip(lengths, found, strict=True)
        ]
        (control, _) = control_results(controlled, PLACES[:1], Draws(200, 2, run), groups=pairs)
        covered[run, 2] = (control.ci_low or 1.0) <= 0.3 <= (control.ci_high or 0.0)
        nothing = (np.zeros(2), np.zeros(2))
        shares = share_results(sums, [nothing], PLACES[:1], Draws(200, 2, run), groups=pairs)
        share = next(row for row in shares if row.metric == "features_share")
        covered[run, 1] = (share.ci_low or 1.0) <= 0.3 <= (share.ci_high or 0.0)
    assert (covered.mean(0) > 0.915).all() and (covered.mean(0) < 0.985).all()


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
    results = share_results(sums, by_token, PLACES, Draws(200, 10, 0), groups=np.arange(len(texts)))
    found = next(row for row in results if row.metric == "features_share" and row.group == "full" and row.layer == 0)
    assert found.value == pytest.approx(sums[:, 1, 0, 0].sum() / sums[:, 0, 0, 0].sum())
    assert found.ci_low is not None and found.ci_high is not None and found.ci_low <= found.value <= found.ci_high
    assert control_results(texts, PLACES, Draws(200, 10, 0), groups=np.arange(len(texts))) == []
    unknown = np.array([[1.0, np.nan], [2.0, np.nan]])
    controlled = [replace(text, control=unknown) for text in texts]
    control = control_results(controlled, PLACES, Draws(200, 10, 0), groups=np.arange(len(texts)))
    assert [(row.group, row.layer, row.inputs) for row in control] == [
        ("full", 0, "trained_random_sae"),
        ("same_position", 0, "trained_random_sae"),
    ], "the other place has no control"
    assert [row.value for row in control] == pytest.approx([4.0, 8.0] / sums[:, 0, :, 0].sum(0))
    missing = sums.copy()
    missing[0, 0, 0, 0] += 1.0
    assert largest_miss(missing) > 0.1
