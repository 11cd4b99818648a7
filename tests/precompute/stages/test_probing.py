"""The parts of stage `probes` on made-up tokens: naive loops and scikit-learn say the same, and nothing leaks."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression, Ridge

from lfp.config import ProbesConfig
from lfp.errors import DataError
from lfp.evaluation.statistics.scores import r2
from lfp.evaluation.words import ScoredWords, variance_row
from lfp.probes.folds import row_folds
from lfp.probes.ridge import place_scales
from precompute.run.work_folder import Run
from precompute.stages.probes import inputs as kept_module
from precompute.stages.probes import targets as targets_module
from precompute.stages.probes.fitting import Judged, fit_rows, fit_words
from precompute.stages.probes.inputs import Inputs, Kept, encode_kept, one_hot, raw_columns
from precompute.stages.probes.pairs import Pairs, fit_pairs
from precompute.stages.probes.targets import (
    Rows,
    SharedTokens,
    Words,
    delta_rows,
    feedback_rows,
    implicit_rows,
    overlap_rows,
    rows_before,
)
from tests.precompute.conftest import silent, tiny_config

N_WORDS, WIDTH = 30, 6
CONFIG = ProbesConfig(folds=3, permutations=20, bootstraps=20, alphas=(0.1, 1.0, 10.0), weight_permutations=20)


def kept(seed: int = 0, n_occurrences: int = 90) -> Kept:
    """Occurrences of one to three tokens, word by word, then forty tokens of no word; word 7 never occurs."""
    rng = np.random.default_rng(seed)
    words = np.sort(rng.choice(np.delete(np.arange(N_WORDS), 7), size=n_occurrences))
    lengths = rng.integers(1, 4, size=n_occurrences)
    starts = np.cumsum(lengths) - lengths
    n = int(lengths.sum()) + 40
    outputs = {model: rng.normal(size=(n, WIDTH)).astype(np.float32) for model in ("tuned", "base")}
    ids = rng.integers(12, size=n)
    return Kept(
        words=np.concatenate([np.repeat(words, lengths), np.full(40, -1)]),
        token_ids=ids,
        reward=rng.normal(size=n),
        advantage=rng.normal(size=n),
        sample=(sample := np.sort(rng.choice(n, size=min(n, 120), replace=False))),
        before=sample - 1,
        occurrence_words=words,
        occurrence_starts=starts,
        occurrence_ends=starts + lengths,
        corpus_token_ids=np.unique(ids),
        outputs=outputs,
    )


def vocabulary(values: np.ndarray | None = None) -> Words:
    """Thirty words, folds in turn, values from -3 to 3 but for word 7."""
    stated = np.linspace(-3, 3, N_WORDS) if values is None else values
    stated = stated.copy()
    stated[7] = np.nan
    words = [f"word{i}" for i in range(N_WORDS)]
    return Words(words, np.full(N_WORDS, 10), np.arange(N_WORDS) % CONFIG.folds, stated, {})


def scored(words: Words) -> ScoredWords:
    return ScoredWords.from_vocabulary(words.values, words.counts.astype(float), CONFIG, seed=0)


def shared(of: Kept | None = None) -> SharedTokens:
    """The shared tokens of some words, by default of none."""
    config = CONFIG.model_copy(update={"shared_tokens": "keep" if of is None else "drop"})
    return SharedTokens.from_words(of or kept(), vocabulary().folds, config)


def inputs(name: str = "raw") -> Inputs:
    return Inputs(name, np.repeat([0, 1], WIDTH // 2), raw_columns)


def encoded(of: Kept, rows: dict[str, np.ndarray] | None = None):
    return encode_kept(of, raw_columns, source="tuned", n_words=N_WORDS, rows=rows or {"sample": of.sample})


@pytest.mark.parametrize("chunk", [5, 64, 10_000])
def test_words_means_and_rows_are_those_of_their_tokens_however_they_are_cut(
    chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_module, "_CHUNK", chunk)
    of = kept()
    found = encoded(of, {"sample": of.sample, "few": of.sample[:3]})
    values = of.outputs["tuned"].astype(float)
    for word in range(N_WORDS):
        spans = [
            slice(a, b)
            for w, a, b in zip(of.occurrence_words, of.occurrence_starts, of.occurrence_ends, strict=True)
            if w == word
        ]
        last = np.mean([values[span][-1] for span in spans], axis=0) if spans else np.zeros(WIDTH)
        summed = np.mean([values[span].sum(0) for span in spans], axis=0) if spans else np.zeros(WIDTH)
        np.testing.assert_allclose(found.words.at_last[[word]].toarray()[0], last, atol=1e-6)
        np.testing.assert_allclose(found.words.over_tokens[[word]].toarray()[0], summed, atol=1e-6)
        assert found.words.tokens[word] == pytest.approx(
            np.mean([len(values[span]) for span in spans]) if spans else 0.0
        )
    np.testing.assert_array_equal(found.rows["sample"].toarray(), of.outputs["tuned"][of.sample])
    np.testing.assert_array_equal(found.rows["few"].toarray(), of.outputs["tuned"][of.sample[:3]])


def test_the_mean_output_is_of_the_sample() -> None:
    of = kept()
    np.testing.assert_allclose(of.mean_outputs("base"), of.outputs["base"][of.sample].mean(0), atol=1e-6)


@given(st.integers(0, 100), st.integers(1, 120))
def test_the_rows_of_feedback_are_last_tokens_and_frequent_words_give_way_first(seed: int, limit: int) -> None:
    of = kept(seed)
    wanted = np.arange(N_WORDS) % 2 == 0
    slots, words = of.lasts_of(wanted, limit)
    assert (np.diff(slots) > 0).all() and np.isin(slots + 1, of.occurrence_ends).all()
    np.testing.assert_array_equal(of.words[slots], words)
    present = np.unique(of.occurrence_words[wanted[of.occurrence_words]])
    assert set(words.tolist()) == set(present.tolist())
    assert len(slots) <= max(limit, len(present))
    counts = np.bincount(words, minlength=N_WORDS)
    all_counts = np.bincount(of.occurrence_words, minlength=N_WORDS) * wanted
    np.testing.assert_array_equal(counts, np.minimum(all_counts, counts.max()))


def test_a_token_it_does_not_know_has_a_row_of_zeros() -> None:
    found = one_hot(np.array([2, 5, 9]), np.zeros((4, 1), np.float32), np.array([9, 2, 7, 11])).toarray()
    assert found.tolist() == [[0, 0, 1], [1, 0, 0], [0, 0, 0], [0, 0, 0]]


def test_the_target_of_a_triple_is_signed_by_the_lexicon_and_as_large_as_its_change() -> None:
    rng = np.random.default_rng(0)
    points, neutral = (sp.csr_array(rng.normal(size=(8, WIDTH))) for _ in range(2))
    words = vocabulary()
    of = np.array([0, 29, 7, -1, 3, 28, 0, 12])
    place_of = inputs().place_of
    found = delta_rows(points, neutral, of, words, scored(words), place_of, shared=shared(), token_ids=np.zeros(8, int))
    scales = place_scales(points, place_of)
    norms = np.linalg.norm((points - neutral).toarray() * scales, axis=1)
    kept_rows = [0, 1, 4, 5, 6, 7]  # not the word without a value, nor the one out of the vocabulary
    np.testing.assert_array_equal(found.words, of[kept_rows])
    np.testing.assert_allclose(found.targets[:, 0], np.sign(words.values[of[kept_rows]]) * norms[kept_rows])
    np.testing.assert_allclose(np.abs(found.targets), np.abs(found.targets[:, :1]) * np.ones((1, 21)))
    assert found.targets.shape == (6, 1 + CONFIG.permutations)
    np.testing.assert_array_equal(found.folds, words.folds[of[kept_rows]])


@pytest.mark.parametrize("seed", range(5))
def test_a_row_is_barred_from_every_other_fold_that_has_a_word_with_its_token(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    of, folds = kept(seed), vocabulary().folds
    ids, own = np.append(of.token_ids[of.sample], 99), np.append(np.zeros(len(of.sample), int), 1)
    monkeypatch.setattr(targets_module, "_LEAST_LEFT", 0.0)
    found = shared(of).barred(ids, own)
    assert found is not None and not found[-1].any()
    for row, (token, fold) in enumerate(zip(ids, own, strict=True)):
        has = {int(folds[word]) for word in of.words[(of.words >= 0) & (of.token_ids == token)]}
        assert set(np.flatnonzero(found[row]).tolist()) == has - {fold}
    assert shared().barred(ids, own) is None


def test_a_target_that_tokens_alone_tell_is_not_predicted_on_words_that_share_them() -> None:
    """Tokens have values of their own. Half of the words share tokens in pairs, and each pair is in different folds."""
    rng = np.random.default_rng(0)
    words = np.repeat(np.arange(N_WORDS), 20)
    token_of = np.where(np.arange(N_WORDS) < 16, np.arange(N_WORDS) // 2, np.arange(N_WORDS))
    values, folds, ids = rng.normal(size=N_WORDS), vocabulary().folds, token_of[words]
    of = replace(kept(), words=words, token_ids=ids)
    one = Inputs("token_identity", np.zeros(N_WORDS, np.int64), partial(one_hot, np.arange(N_WORDS)))
    features = one.encode(np.zeros((600, 1), np.float32), ids)
    targets = values[ids][:, None] + 0.1 * rng.normal(size=(600, 1))
    rows = Rows(features, targets, folds[words], words, words, targets[:, :0], shared(of).barred(ids, folds[words]))
    judged = Judged(features[::20], np.ones(N_WORDS), folds)
    leaky, honest = (
        fit_words("implicit_reward", one, some, judged, scored=np.zeros(0, int), config=CONFIG).predicted
        for some in (replace(rows, barred=None), rows)
    )
    assert np.corrcoef(leaky[:16], values[token_of[:16]])[0, 1] > 0.95
    assert np.abs(np.corrcoef(honest, values[token_of])[0, 1]) < 0.3
    reports = [
        {row.metric: row.value for row in overlap_rows(some, ids, of, vocabulary(), np.arange(N_WORDS))}
        for some in (replace(rows, barred=None), rows)
    ]
    assert reports[0] == {"words_sharing_tokens": pytest.approx(16 / 30), "rows_dropped": 0.0}
    assert reports[1] == {"words_sharing_tokens": 0.0, "rows_dropped": pytest.approx(16 / 60)}


def test_the_variance_explained_is_of_words_that_the_probe_never_saw() -> None:
    words = vocabulary()
    rows, judged = feedback(kept(), words)
    found = fit_words("feedback", inputs(), rows, judged, scored=scored(words).rows, config=ONE_ALPHA).tokens
    scales = place_scales(rows.features, inputs().place_of)
    x = rows.features.toarray() * scales
    for fold in range(CONFIG.folds):
        reference = Ridge(alpha=1.0, solver="cholesky").fit(x[rows.folds != fold], rows.targets[rows.folds != fold, 0])
        held_out = rows.folds == fold
        np.testing.assert_allclose(found.predicted[held_out], reference.predict(x[held_out]), atol=1e-5)
    np.testing.assert_array_equal(found.true, rows.targets[:, 0])
    row = variance_row(found, CONFIG, seed=0)
    assert row.value == pytest.approx(r2(found.true, found.predicted)) and row.ci_low <= row.value <= row.ci_high


def test_words_of_so_few_tokens_that_nothing_would_be_left_keep_them() -> None:
    of = kept()
    assert shared(of).barred(of.token_ids[of.sample], np.zeros(len(of.sample), int)) is None


def run_with(config: ProbesConfig) -> Run:
    return Run(tiny_config(probes=config.model_dump(mode="json")), None, None, silent)  # type: ignore[arg-type]


def test_nulls_of_the_implicit_reward_move_words_and_leave_what_tokens_have_beyond_them() -> None:
    of, words = kept(), vocabulary()
    found = implicit_rows(run_with(CONFIG), encoded(of).rows["sample"], of, words, shared=shared())
    reward = of.advantage[of.sample]
    np.testing.assert_array_equal(found.targets[:, 0], reward)
    assert found.targets.shape[1] == 1 and found.weight_nulls.shape == (len(of.sample), CONFIG.weight_permutations)
    for null in found.weight_nulls.T:
        for group in np.unique(found.groups):
            in_group = found.groups == group
            np.testing.assert_allclose(
                null[in_group] - null[in_group].mean(), reward[in_group] - reward[in_group].mean(), atol=1e-12
            )
    of_groups = [np.array([v[found.groups == g].mean() for g in np.unique(found.groups)]) for v in (reward, null)]
    np.testing.assert_allclose(np.sort(of_groups[0]), np.sort(of_groups[1]), atol=1e-12)
    assert not np.allclose(of_groups[0], of_groups[1])


def test_tokens_of_a_word_share_its_fold_and_others_go_by_their_id() -> None:
    of, words = kept(), vocabulary()
    found = implicit_rows(run_with(CONFIG), encoded(of).rows["sample"], of, words, shared=shared())
    ids = of.token_ids[of.sample]
    inside = found.words >= 0
    np.testing.assert_array_equal(found.folds[inside], words.folds[found.words[inside]])
    np.testing.assert_array_equal(found.folds[~inside], ids[~inside] % CONFIG.folds)
    for group in np.unique(found.groups):
        assert len(set(found.folds[found.groups == group])) == 1


def feedback(of: Kept, words: Words) -> tuple[Rows, Judged]:
    slots, rows_of = of.lasts_of(~np.isnan(words.values), 1000)
    found = encoded(of, {"lasts": slots})
    rows = feedback_rows(
        found.rows["lasts"], rows_of, words, scored(words), shared=shared(), token_ids=of.token_ids[slots]
    )
    return rows, Judged(found.words.at_last, np.ones(len(words.folds)), words.folds)


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


ONE_ALPHA = CONFIG.model_copy(update={"alphas": (1.0,)})


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


def test_rows_before_are_the_targets_of_rows_that_have_a_token_before() -> None:
    some = kept()
    assert (some.before < 0).sum() <= 1
    features = sp.csr_array(np.eye(len(some.sample), 5))
    everything = implicit_rows(
        Run(tiny_config(), Path("nowhere"), None, silent), features, some, vocabulary(), shared=shared()
    )
    has = some.before >= 0
    rows = rows_before(everything, sp.csr_array(np.ones((int(has.sum()), 5))), some)
    assert rows.features.shape == (has.sum(), 5)
    np.testing.assert_array_equal(rows.targets, everything.targets[has])
    np.testing.assert_array_equal(rows.folds, everything.folds[has])
    np.testing.assert_array_equal(rows.words, everything.words[has])
