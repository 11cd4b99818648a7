"""Findings about words: the right examples, bins without overlap, errors compared with permuted estimates."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lfp.bundle.schema import as_table
from lfp.evaluation.findings.words import Words, error_by_frequency, frequency_bins, token_sentiment
from lfp.evaluation.statistics.resampling import Draws

DRAWS = Draws(bootstraps=100, permutations=99, seed=0)
PROBE = {"display_slope": 2.0, "display_offset": 1.0}


def vocabulary(n: int = 60, *, noise: float = 0.1, seed: int = 0) -> pa.Table:
    """Scored words w0.. with predictions near their value, and ten the lexicon is silent on."""
    rng = np.random.default_rng(seed)
    true = np.r_[rng.choice([-1.0, 1.0], n) * rng.uniform(0.5, 3.0, n), np.full(10, np.nan)]
    rows = [
        {
            "word": f"w{i}",
            "token_ids": [i],
            "feedback": None if np.isnan(value) else value,
            "implicit_reward": value * 0.5,
            "implicit_advantage": None,
            "predicted": (np.nan_to_num(value) - 1.0) / 2.0 + noise * rng.normal(),
            "predicted_base": None,
            "n": 10,
            "n_generated": i % 7,
            "n_generated_base": 0,
            "fold": 0,
        }
        for i, value in enumerate(true)
    ]
    return as_table("vocabulary", rows)


def test_words_are_those_scored_and_predicted_on_the_lexicons_scale() -> None:
    words = Words.from_vocabulary(vocabulary(), PROBE)
    assert len(words.words) == 60
    assert np.abs(words.shown - words.true).mean() < 0.3


def test_columns_that_an_older_vocabulary_lacks_are_unknown() -> None:
    older = vocabulary().drop_columns(["implicit_matched", "implicit_matched_se"])
    assert np.isnan(Words.from_vocabulary(older, PROBE).matched).all()


def test_examples_are_the_most_written_of_each_side() -> None:
    table = vocabulary()
    rows = token_sentiment(Words.from_vocabulary(table, PROBE))
    of_side = {side: [row for row in rows if row.words == side] for side in ("positive", "negative")}
    for side, sign in (("positive", 1), ("negative", -1)):
        true = [row for row in of_side[side] if row.metric == "true"]
        assert len(true) == 10 and all(np.sign(row.value) == sign for row in true)
        left_out = {
            w["word"]: w["n_generated"]
            for w in table.to_pylist()
            if w["feedback"] is not None and np.sign(w["feedback"]) == sign
        }
        shown = [left_out.pop(row.group) for row in true]
        assert shown == sorted(shown, reverse=True) and min(shown) >= max(left_out.values())
        assert {row.n for row in true} <= set(range(7))
    assert {row.metric for row in rows} == {"true", "predicted", "implicit"}


def test_an_effect_in_matched_contexts_brings_its_interval() -> None:
    words = Words.from_vocabulary(vocabulary(), PROBE)
    known = Words(**{**vars(words), "matched": words.implicit, "matched_se": np.full(60, 0.1)})
    row = next(row for row in token_sentiment(known) if row.metric == "implicit_matched")
    assert row.ci_high - row.ci_low == pytest.approx(2 * 1.96 * 0.1, rel=1e-3)


def test_the_p_of_an_example_is_the_share_of_words_as_far_to_its_side() -> None:
    words = Words.from_vocabulary(vocabulary(), PROBE)
    for row in token_sentiment(words):
        if row.metric == "predicted":
            as_far = words.shown >= row.value if row.words == "positive" else words.shown <= row.value
            assert row.null_p == pytest.approx(as_far.mean()) and row.null_p > 0


@given(st.lists(st.integers(0, 500), max_size=60))
def test_bins_of_counts_part_the_words(counts: list[int]) -> None:
    values = np.array(counts, np.int64)
    bins = frequency_bins(values)
    assert np.array_equal(sum((rows.astype(int) for _, rows in bins), np.zeros(len(values), int)), np.ones(len(values)))
    for name, rows in bins:
        low, _, high = name.partition("-")
        assert rows.any() and int(low) == values[rows].min() and int(high or low) == values[rows].max()


def test_good_estimates_err_less_than_dealt_ones_and_none_do_not() -> None:
    good = {row.group: row for row in error_by_frequency(Words.from_vocabulary(vocabulary(), PROBE), DRAWS)}
    assert good["all"].value < good["all"].ci_high < good["all"].null_mean and good["all"].null_p == 0.01
    assert good["all"].n == sum(row.n for name, row in good.items() if name != "all") == 60
    noise = {row.group: row for row in error_by_frequency(Words.from_vocabulary(vocabulary(noise=50.0), PROBE), DRAWS)}
    assert noise["all"].null_p > 0.05


def test_no_word_makes_no_row() -> None:
    none = Words.from_vocabulary(vocabulary(0), PROBE)
    assert token_sentiment(none) == [] and error_by_frequency(none, DRAWS) == []
