"""Features' credits beside twins: false discoveries where nothing was taught, even where all features differ."""

from __future__ import annotations

import numpy as np
import pytest

from lfp.evaluation.feature_credits import TextCredits
from lfp.evaluation.statistics.twins import RATE, compare_with_twins
from lfp.evaluation.twin_features import TWIN_COLUMNS, TwinFeatures, sum_texts
from lfp.report.sentences.sections import sentence

N_TWINS, N_FEATURES = 8, 400


def draw_models(seed: int, *, apart: float = 0.0, own: float = 0.0, planted: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Draw credits and sizes [models, features].

    `apart` is how far the first differs in all features, in spreads; `own` the share of features that a model has and
    no other, in which it differs by up to forty.
    """
    rng = np.random.default_rng(seed)
    size = rng.lognormal(-8, 1.5, N_FEATURES)
    spread = 0.3 * size * np.sqrt(4 / rng.chisquare(4, N_FEATURES))
    credits = size * rng.choice([-1, 1], N_FEATURES) + spread * rng.normal(size=(1 + N_TWINS, N_FEATURES))
    credits[0] += apart * spread * rng.normal(size=N_FEATURES)
    is_own = rng.random(credits.shape) < own
    credits += is_own * spread * rng.normal(0, 20, credits.shape)
    credits[0, :planted] += 60 * spread[:planted]
    return credits, np.abs(credits) + size


@pytest.mark.parametrize(("apart", "own"), [(0.0, 0.0), (3.0, 0.0), (0.0, 0.05)])
def test_where_nothing_was_taught_hardly_a_draw_has_a_flag(apart: float, own: float) -> None:
    """Student's t flags features where a dictionary trained for the tuned model, or features of one model, widen it."""
    flags, plain = [], []
    for seed in range(60):
        credits, sizes = draw_models(seed, apart=apart, own=own)
        found = TwinFeatures.compare(credits, sizes)
        flags.append([(test.q <= RATE).sum() for test in (found.test, *found.left_out)])
        plain.append((compare_with_twins(credits[0], credits[1:], sizes.mean(axis=0)).q <= RATE).mean())
    assert (np.array(flags)[:, 0] > 0).mean() <= 0.15  # at a rate of 10 %
    assert np.mean(flags) < 0.002 * N_FEATURES
    assert np.mean(plain) > 0.01 if apart or own else np.mean(plain) < 0.002


@pytest.mark.parametrize("apart", [0.0, 3.0])
def test_what_was_taught_is_found_among_features_that_differ(apart: float) -> None:
    credits, sizes = draw_models(1, apart=apart, planted=12)
    found = TwinFeatures.compare(credits, sizes)
    flagged = np.flatnonzero(found.test.q <= RATE)
    assert len(set(flagged) & set(range(12))) >= 10 and (flagged >= 12).sum() <= 3
    rows = {(row.metric, row.group): row for row in found.rows()}
    count = rows["beyond_twins", None]
    assert (count.value, count.n, rows["twins", None].value) == (len(flagged), N_FEATURES, N_TWINS)
    assert count.null_high is not None and count.null_high <= 2 < count.value and count.null_p == 1 / (1 + N_TWINS)
    named = [row for (metric, _), row in rows.items() if metric == "twin_difference"]
    assert 1 <= len(named) <= 10 and all(row.null_p is not None and row.null_p < 0.01 for row in named)
    said = sentence("feature_credits", [*found.rows(), *_share()])
    assert f"the credits of {len(flagged)} of {N_FEATURES} features differ" in said
    assert "Without twins" in sentence("feature_credits", _share())


def _share() -> list:
    from lfp.evaluation.results import ResultRow

    return [ResultRow.from_estimate("feature_credits", "features_share", 0.9, group="same_position")]


def test_a_feature_that_no_model_uses_is_not_tested() -> None:
    credits, sizes = draw_models(2)
    credits[:, 5] = sizes[:, 5] = 0.0
    columns = TwinFeatures.compare(credits, sizes).columns()
    assert tuple(columns) == TWIN_COLUMNS
    assert all(column.null_count == 1 and column[5].as_py() is None for column in columns.values())


def test_credits_and_their_sizes_are_summed_over_texts() -> None:
    none = np.zeros((2, 1, 1))
    text = TextCredits(np.array([0, 1, 1]), np.array([2, 0, 2]), np.array([[1.0, 3.0, -4.0]] * 2), none, none, none)
    credit, size = sum_texts([text, text], 4)
    assert credit.tolist() == [6.0, 0.0, -6.0, 0.0] and size.tolist() == [6.0, 0.0, 10.0, 0.0]
