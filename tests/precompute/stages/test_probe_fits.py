"""The fits of stage `probes` on made-up tokens and pairs: scikit-learn says the same, and nothing leaks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.linear_model import LogisticRegression, Ridge

from lfp.errors import DataError
from lfp.probes.folds import row_folds
from lfp.probes.ridge import place_scales
from precompute.stages.probes.fitting import Judged, fit_rows, fit_words
from precompute.stages.probes.inputs import Inputs, raw_columns
from precompute.stages.probes.pairs import Pairs, fit_pairs
from precompute.stages.probes.targets import delta_rows, feedback_rows
from tests.precompute.stages.token_builders import (
    CONFIG,
    N_WORDS,
    ONE_ALPHA,
    WIDTH,
    feedback,
    inputs,
    kept,
    scored,
    shared,
    vocabulary,
)


def test_words_are_predicted_as_scikit_learn_predicts_them_out_of_fold() -> None:
    words = vocabulary()
    rows, judged = feedback(kept(), words)
    found = fit_words("feedback", inputs(), rows, judged, scored=scored(words).rows, config=ONE_ALPHA)
    scales = place_scales(rows.features, inputs().place_of)
    x, means = rows.features.toarray() * scales, judged.features.toarray() * scales
    for fold in range(CONFIG.folds):
        reference = Ridge(alpha=1.0, solver="cholesky").fit(x[rows.folds != fold], rows.targets[rows.folds != fold])
        held_out = np.flatnonzero(words.folds == fold)
        expected = reference.predict(means[held_out])
        np.testing.assert_allclose(found.predicted[held_out], expected[:, 0], atol=1e-5)
        of_scored = np.isin(scored(words).rows, held_out)
        places = np.searchsorted(held_out, scored(words).rows[of_scored])
        np.testing.assert_allclose(found.nulls[:, of_scored], expected[places, 1:].T, atol=1e-5)
    whole = Ridge(alpha=1.0, solver="cholesky").fit(x, rows.targets[:, 0])
    np.testing.assert_allclose(found.probe.weights.value, whole.coef_ * scales, atol=1e-5)
    assert found.probe.intercept == pytest.approx(whole.intercept_, abs=1e-5)


def test_a_held_out_words_own_value_has_no_say_in_its_prediction() -> None:
    words = vocabulary()
    rows, judged = feedback(kept(), words)
    changed = replace(rows, targets=rows.targets + 5.0 * (rows.folds == 1)[:, None])
    one, other = (
        fit_words("feedback", inputs(), some, judged, scored=scored(words).rows, config=CONFIG)
        for some in (rows, changed)
    )
    held_out = words.folds == 1
    np.testing.assert_array_equal(one.predicted[held_out], other.predicted[held_out])
    assert not np.allclose(one.predicted[~held_out], other.predicted[~held_out])


def test_a_column_without_an_entry_has_no_weight_and_changes_nothing() -> None:
    words = vocabulary()
    rows, judged = feedback(kept(), words)
    wider = sp.csr_array(sp.hstack([rows.features, sp.csr_array((rows.features.shape[0], 2))]))
    judged_wider = replace(judged, features=sp.csr_array(sp.hstack([judged.features, np.ones((N_WORDS, 2))])))
    more = Inputs("raw", np.append(inputs().place_of, [1, 1]), raw_columns)
    arguments = {"scored": scored(words).rows, "config": CONFIG}
    one = fit_words("feedback", inputs(), rows, judged, **arguments)
    other = fit_words("feedback", more, replace(rows, features=wider), judged_wider, **arguments)
    np.testing.assert_allclose(other.probe.weights.value, np.append(one.probe.weights.value, [0, 0]), atol=1e-6)
    assert (other.probe.weights.value[-2:] == 0).all()
    np.testing.assert_allclose(one.predicted, other.predicted, atol=1e-6)


@pytest.mark.parametrize("name", ["raw", "sae"])
def test_where_no_input_is_ever_active_every_probe_predicts_the_mean(name: str) -> None:
    words = vocabulary()
    rows, judged = feedback(kept(), words)
    silent_rows = replace(rows, features=sp.csr_array(rows.features.shape))
    silent_words = replace(judged, features=sp.csr_array(judged.features.shape))
    found = fit_words("feedback", inputs(name), silent_rows, silent_words, scored=scored(words).rows, config=CONFIG)
    for fold in range(CONFIG.folds):
        mean = rows.targets[rows.folds != fold, 0].mean()
        np.testing.assert_allclose(found.predicted[words.folds == fold], mean)
    assert found.probe.intercept == pytest.approx(rows.targets[:, 0].mean())
    assert not found.probe.weights.value.any()
    by_rows = fit_rows(inputs(name), silent_rows, silent_words, CONFIG)
    assert np.isfinite(by_rows[np.unique(rows.words)]).all()


def test_a_change_that_never_happens_leaves_the_delta_probe_without_weights() -> None:
    words, always = vocabulary(), sp.csr_array(np.ones((N_WORDS, WIDTH)))
    rows = delta_rows(
        always,
        always,
        np.arange(N_WORDS),
        words,
        scored(words),
        inputs().place_of,
        shared=shared(),
        token_ids=np.zeros(N_WORDS, int),
    )
    assert rows.is_silent and not rows.targets.any()
    judged = Judged(always, np.ones(N_WORDS), words.folds)
    found = fit_words("delta", inputs("sae"), rows, judged, scored=scored(words).rows, config=CONFIG)
    assert not found.predicted.any() and not found.probe.weights.value.any()


def test_pairs_whose_texts_do_not_differ_give_a_preference_probe_without_weights() -> None:
    made, _ = pairs()
    silent_pairs = replace(made, features={"sae": sp.csr_array(made.features["raw"].shape)})
    found = fit_pairs(inputs("sae"), silent_pairs, CONFIG, seed=0)
    assert not found.margins.any() and not found.null_margins.any()
    weights = found.probe.weights
    for values in (weights.value, weights.ci_low, weights.ci_high, weights.drawn):
        assert values is not None and not values.any()
    assert weights.null is not None and np.isnan(weights.null.p).all() and not weights.null.beats.any()


def test_weights_of_the_bundles_features_lie_in_their_intervals() -> None:
    words = vocabulary()
    rows, judged = feedback(kept(), words)
    probe = fit_words("feedback", inputs("sae"), rows, judged, scored=scored(words).rows, config=CONFIG).probe
    weights = probe.weights
    assert weights.ci_low is not None and weights.ci_high is not None and weights.null is not None
    assert (weights.ci_low < weights.value).all() and (weights.value < weights.ci_high).all()
    scales = place_scales(rows.features, inputs().place_of)
    x = rows.features.toarray() * scales
    nulls = Ridge(alpha=probe.alpha, solver="cholesky").fit(x, rows.weight_nulls).coef_ * scales
    np.testing.assert_allclose(weights.drawn, nulls.T, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(weights.null.high, np.quantile(np.abs(nulls), 0.95, axis=0), rtol=1e-4, atol=1e-5)


def test_a_fold_that_holds_out_no_word_is_one_sentence() -> None:
    words = vocabulary()
    rows, judged = feedback(kept(), words)
    some = rows.folds != 2
    few = replace(
        rows,
        features=rows.features[np.flatnonzero(some)],
        targets=rows.targets[some],
        folds=rows.folds[some],
        words=rows.words[some],
        groups=rows.groups[some],
        weight_nulls=rows.weight_nulls[some],
    )
    with pytest.raises(DataError, match=r"fold 2 .*no word of it is held out"):
        fit_words("feedback", inputs(), few, judged, scored=scored(words).rows, config=CONFIG)


def test_random_rows_average_each_words_held_out_rows_and_let_a_word_help_itself() -> None:
    """A column a word says nothing of other words: held-out words get the mean, held-out rows their word's value."""
    words = vocabulary()
    of = kept(n_occurrences=300)
    slots, rows_of = of.lasts_of(~np.isnan(words.values), 1000)
    own = sp.csr_array((np.ones(len(slots)), (np.arange(len(slots)), rows_of)), shape=(len(slots), N_WORDS))
    rows = feedback_rows(own, rows_of, words, scored(words), shared=shared(), token_ids=of.token_ids[slots])
    judged = Judged(sp.csr_array(sp.eye_array(N_WORDS)), np.ones(N_WORDS), words.folds)
    alone = Inputs("token_identity", np.zeros(N_WORDS, np.int64), raw_columns)
    folds = row_folds(len(rows.words), n_folds=CONFIG.folds, seed=0)
    random = fit_rows(alone, replace(rows, folds=folds), judged, CONFIG)
    assert np.isnan(random[7]).all() and random.shape == (N_WORDS, 1 + CONFIG.permutations)
    some = scored(words).rows
    assert np.corrcoef(random[some, 0], words.values[some])[0, 1] > 0.95
    held_out = fit_words("feedback", alone, rows, judged, scored=some, config=CONFIG).predicted
    assert np.corrcoef(held_out[some], words.values[some])[0, 1] < 0.5


def pairs(n: int = 200, *, strength: float = 2.0) -> tuple[Pairs, np.ndarray]:
    """Pairs of random texts, the chosen one drawn by Bradley and Terry's model with the weights returned."""
    rng = np.random.default_rng(0)
    weights = strength * rng.normal(size=WIDTH) / WIDTH**0.5
    first, second = rng.normal(size=(2, n, WIDTH))
    wins = rng.random(n) < 1 / (1 + np.exp(-(first - second) @ weights))
    chosen, rejected = np.where(wins[:, None], first, second), np.where(wins[:, None], second, first)
    features = {"raw": sp.csr_array(np.vstack([chosen, rejected]))}
    return Pairs(np.arange(n) % 2 == 1, features, np.zeros(n), np.zeros(n), 0, np.arange(n)), weights


def test_the_preference_probe_is_scikit_learns_logistic_regression_on_differences() -> None:
    """Whichever way a pair is turned, the loss without an intercept is the same."""
    made, _ = pairs()
    config = CONFIG.model_copy(update={"alphas": (0.5,)})
    found = fit_pairs(inputs(), made, config, seed=3)
    differences = made.differences("raw").toarray()
    train = differences[~made.is_held_out]
    scales = place_scales(sp.csr_array(train), inputs().place_of)
    x = np.vstack([train, -train]) * scales  # each pair both ways counts double, so C is halved
    y = np.repeat([1, 0], len(train))
    reference = LogisticRegression(C=0.5 / 0.5, fit_intercept=False, tol=1e-10, max_iter=10_000).fit(x, y)
    np.testing.assert_allclose(found.probe.weights.value, reference.coef_[0] * scales, atol=1e-4)
    np.testing.assert_allclose(found.margins, differences[made.is_held_out] @ found.probe.weights.value, atol=1e-9)
    assert (found.probe.intercept, found.probe.n_train) == (0.0, 100)
    assert found.null_margins.shape == (CONFIG.weight_permutations, 100)


def test_the_preference_probe_finds_what_the_choices_were_made_by_and_its_nulls_do_not() -> None:
    made, weights = pairs(2000, strength=4.0)
    found = fit_pairs(inputs(), made, CONFIG, seed=0)
    assert np.corrcoef(found.probe.weights.value, weights)[0, 1] > 0.95
    best = (made.differences("raw") @ weights)[made.is_held_out]
    assert (found.margins > 0).mean() > (best > 0).mean() - 0.03 > 0.7
    assert abs((found.null_margins > 0).mean() - 0.5) < 0.1


def test_preference_weights_of_the_bundles_features_lie_in_their_intervals() -> None:
    made, _ = pairs()
    made = replace(made, features={"sae": made.features["raw"]})
    weights = fit_pairs(inputs("sae"), made, CONFIG, seed=0).probe.weights
    assert weights.ci_low is not None and weights.ci_high is not None and weights.null is not None
    assert (weights.ci_low < weights.value).all() and (weights.value < weights.ci_high).all()
    assert (weights.null.high > 0).all()


def test_the_order_of_pairs_on_a_side_does_not_tell_which_was_chosen() -> None:
    """Inputs that differ by a constant from chosen to rejected would give it away, were pairs not turned at random."""
    made, _ = pairs()
    swapped = replace(made, features={"raw": sp.csr_array(np.roll(made.features["raw"].toarray(), 200, axis=0))})
    one, other = (fit_pairs(inputs(), some, CONFIG, seed=0) for some in (made, swapped))
    np.testing.assert_allclose(one.probe.weights.value, -other.probe.weights.value, atol=1e-4)
