"""Shares of modules, their intervals and nulls, against sums written out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from lfp.evaluation.module_credits import (
    SECTION,
    Credits,
    credit_rows,
    group_rows,
    layer_shares,
    modules_read,
    with_twins,
    word_credits,
)
from lfp.evaluation.results import ELSEWHERE, ResultRow
from lfp.evaluation.statistics.resampling import Draws
from lfp.report.credits import credits_sentence
from lfp.util.types import Place

MODULES = ((None, "embedding"), (0, "attention"), (0, "mlp"), (1, "attention"), (1, "mlp"), (None, "unembedding"))
DRAWS = Draws(200, 99, 0)


def made(values: np.ndarray, **changes: object) -> Credits:
    n = len(values)
    keys = {"reward": values.sum(1), "n_tokens": np.arange(n) + 5, "groups": -1 - np.arange(n)} | changes
    return Credits(MODULES, values, **keys)  # type: ignore[arg-type]


@pytest.fixture
def credits() -> Credits:
    """Attention tells texts apart; what the MLPs carry has a sign but no spread; the rest is noise."""
    rng = np.random.default_rng(0)
    values = 0.1 * rng.normal(size=(60, len(MODULES)))
    values[:, [2, 4]] -= 2.0
    shared = rng.normal(size=60)
    values[:, 1] += 3.0 * shared
    values[:, 3] += 2.0 * shared
    return made(values)


def pick(rows: list[ResultRow], metric: str, group: str, layer: int | None = None) -> ResultRow:
    (row,) = [row for row in rows if (row.metric, row.group, row.layer) == (metric, group, layer)]
    return row


def test_figures_of_kinds_and_layers_are_the_sums(credits: Credits) -> None:
    rows, values = credit_rows(credits, DRAWS), credits.values
    kinds = ("embedding", "attention", "mlp", "unembedding")
    assert sum(pick(rows, "share", kind).value for kind in kinds) == pytest.approx(1.0)
    assert sum(pick(rows, "differences", kind).value for kind in kinds) == pytest.approx(1.0)
    mlp = pick(rows, "share", "mlp")
    assert mlp.value == pytest.approx(np.abs(values[:, [2, 4]]).sum() / np.abs(values).sum())
    assert mlp.ci_low is not None and mlp.ci_high is not None and mlp.ci_low < mlp.value < mlp.ci_high
    assert pick(rows, "nats", "mlp", 1).value == pytest.approx(values[:, 4].sum() / credits.n_tokens.sum())
    both, reward = values[:, 1] + values[:, 3], credits.reward
    expected = np.cov(both, reward)[0, 1] / np.var(reward, ddof=1)
    assert pick(rows, "differences", "attention").value == pytest.approx(expected)


def test_shares_by_token_are_of_what_cancels_in_a_text_too(credits: Credits) -> None:
    by_token = np.abs(credits.values) + np.array([0.0, 0.0, 0.0, 0.0, 0.0, 40.0])
    rows = credit_rows(replace(credits, by_token=by_token), DRAWS)
    found, of_texts = (pick(rows, metric, "unembedding") for metric in ("share_by_token", "share"))
    assert found.value == pytest.approx(by_token[:, 5].sum() / by_token.sum()) and found.value > 5 * of_texts.value
    assert found.ci_low is not None and found.ci_high is not None and found.ci_low < found.value < found.ci_high


@pytest.mark.parametrize(
    ("metric", "begins"), [("share_by_token", "Token by token"), ("share_same_position", "On the")]
)
def test_what_came_through_keys_and_values_is_not_said_to_be_of_other_positions(metric: str, begins: str) -> None:
    rows = [
        ResultRow.from_estimate(SECTION, "share", 1.0, n=3, group="mlp"),
        ResultRow.from_estimate(SECTION, metric, 0.19, n=3, group=ELSEWHERE),
    ]
    said = credits_sentence(rows)
    assert f" {begins}" in said and "19 %" in said and said.endswith("those of the token’s own position included.")


def test_nulls_keep_sizes_and_lose_what_is_claimed(credits: Credits) -> None:
    rows = credit_rows(credits, DRAWS)
    assert pick(rows, "nats", "mlp").null_p == 0.01 and (pick(rows, "nats", "attention").null_p or 0) > 0.05
    assert pick(rows, "differences", "attention", 1).null_p == 0.01  # it goes with layer 0's
    assert (pick(rows, "differences", "embedding").null_p or 0) > 0.05
    assert pick(rows, "share", "mlp").null_p is None


def test_texts_of_a_pair_are_drawn_together(credits: Credits) -> None:
    twice = made(np.repeat(credits.values, 2, axis=0))
    pairs = made(np.repeat(credits.values, 2, axis=0), groups=np.repeat(np.arange(60), 2))
    members = credits.select([(0, "attention")])
    alone, together = (next(group_rows(found, members, "a", Draws(2000, 9, 0))) for found in (twice, pairs))
    assert together.ci_high - together.ci_low > 1.2 * (alone.ci_high - alone.ci_low)  # type: ignore[operator]


def test_nulls_are_uniform_where_sides_of_pairs_are_alike_and_nothing_is_to_be_found() -> None:
    rng, n_runs = np.random.default_rng(2), 400
    pairs, draws = np.repeat(np.arange(60), 2), Draws(2, 99, 0)
    p: dict[str, list[float]] = {"nats": [], "differences": []}
    for _ in range(n_runs):
        shared, own = rng.normal(size=(60, 2)), rng.normal(size=(120, 2))
        values = np.sqrt(0.8) * shared[pairs] + np.sqrt(0.2) * own  # independent modules, no mean
        found = Credits(MODULES[:2], values, values.sum(1), np.full(120, 5), pairs)
        for row in group_rows(found, np.array([True, False]), "embedding", draws):
            if row.metric in p:
                p[row.metric].append(float(row.null_p or 0.0))
    for values_of_p in p.values():
        assert len(values_of_p) == n_runs
        assert np.mean(np.array(values_of_p) <= 0.05) == pytest.approx(0.05, abs=0.035)


def test_equal_models_have_no_rows() -> None:
    assert credit_rows(Credits((), np.zeros((3, 0)), np.zeros(3), np.ones(3, int), np.arange(3)), DRAWS) == []


def test_twins_are_the_null_of_shares(credits: Credits) -> None:
    rows = credit_rows(credits, DRAWS)
    rng = np.random.default_rng(1)
    others = [made(credits.values * rng.normal(1.0, 0.05, credits.values.shape)) for _ in range(8)]
    far = made(credits.values * np.array([1, 1, 9, 1, 1, 1]))
    twins = [credit_rows(found, DRAWS) for found in others]
    same = pick(with_twins(rows, twins), "share", "mlp")
    assert same.null_mean == pytest.approx(same.value, abs=0.02) and (same.null_p or 0) > 1 / 9
    moved = pick(with_twins(credit_rows(far, DRAWS), twins), "share", "mlp")
    assert (moved.null_p or 1) < 1e-4 and moved.value > (moved.null_high or 1)
    assert pick(with_twins(rows, twins), "nats", "mlp") == pick(rows, "nats", "mlp")


@pytest.mark.parametrize("n_twins", [3, 8])
def test_p_beside_twins_is_uniform_for_a_tuning_like_them_and_small_for_another(n_twins: int) -> None:
    n = 3000
    shares = np.random.default_rng(n_twins).normal(0.3, 0.02, (n_twins + 1, n))
    shares[0, -1] += 2.0
    model, *twins = (
        [ResultRow.from_estimate("module_credits", "share", value, layer=i) for i, value in enumerate(of_model)]
        for of_model in shares
    )
    rows = with_twins(model, twins)
    p = np.array([row.null_p for row in rows])
    for level in (0.01, 0.05, 1 / (n_twins + 1), 0.5):
        assert (p[:-1] <= level).mean() == pytest.approx(level, abs=4 * np.sqrt(level * (1 - level) / n))
    assert p[-1] < 1e-3
    # null_high is the upper end of a further twin's interval: passed by 2.5 %
    assert np.mean([row.beats_null for row in rows[:-1]]) == pytest.approx(0.025, abs=0.011)


def test_dictionaries_read_the_modules_at_their_places() -> None:
    assert modules_read(MODULES, [Place(1)]) == {(1, "mlp")}
    assert modules_read(MODULES, [Place(0, "attn_out"), Place(1)]) == {(0, "attention"), (1, "mlp")}
    assert modules_read(MODULES, [Place(0, "resid_post")]) == {(None, "embedding"), (0, "attention"), (0, "mlp")}


def test_layers_are_ranked_by_the_modules_at_the_sites_read(credits: Credits) -> None:
    size = np.abs(credits.values).sum(0)
    np.testing.assert_allclose(layer_shares(credits, ["mlp_out"], 3), [*(size[[2, 4]] / size.sum()), 0.0])
    whole = layer_shares(credits, ["resid_post"], 2)
    np.testing.assert_allclose(whole, np.array([size[1:3].sum(), size[3:5].sum()]) / size.sum())


def test_words_have_t_intervals_over_texts() -> None:
    rng = np.random.default_rng(2)
    values, words = rng.normal(size=(40, 3)), np.repeat([0, 2, 3], [25, 14, 1])
    found = word_credits(values, words, 4, groups=np.arange(40))
    assert found.n.tolist() == [25, 0, 14, 1] and np.isnan(found.low[3]).all()
    for word in (0, 2):  # each context in a text of its own
        of_word = values[words == word, 1]
        low, high = stats.t.interval(0.95, len(of_word) - 1, of_word.mean(), stats.sem(of_word))
        assert (found.mean[word, 1], found.low[word, 1], found.high[word, 1]) == pytest.approx(
            (of_word.mean(), low, high)
        )
    repeated = word_credits(np.repeat(values, 3, axis=0), np.repeat(words, 3), 4, groups=np.repeat(np.arange(40), 3))
    for name in ("mean", "low", "high"):  # what a text says three times counts no more
        np.testing.assert_allclose(getattr(repeated, name), getattr(found, name), rtol=1e-9)


def test_intervals_of_words_cover_where_contexts_of_a_text_are_alike() -> None:
    rng, n_words = np.random.default_rng(3), 600
    sizes = rng.integers(1, 6, size=(n_words, 12))  # contexts by word and text
    words = np.repeat(np.arange(n_words), sizes.sum(1))
    groups = np.concatenate([np.repeat(np.arange(12), row) for row in sizes])
    shared = rng.normal(size=(n_words, 12))[words, groups]
    values = 0.5 + np.sqrt(0.7) * shared + np.sqrt(0.3) * rng.normal(size=len(words))
    found = word_credits(values[:, None], words, n_words, groups=groups)
    assert 0.925 < np.mean((found.low < 0.5) & (found.high > 0.5)) < 0.97
    apart = word_credits(values[:, None], words, n_words, groups=np.arange(len(words)))
    assert np.mean((apart.low < 0.5) & (apart.high > 0.5)) < 0.85, "as independent contexts they would not"
