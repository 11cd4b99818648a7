"""What stage `probes` fits on, on made-up tokens: naive loops say the same, and no fold sees another's words."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import Ridge

from lfp.config import ProbesConfig
from lfp.evaluation.statistics.scores import r2
from lfp.evaluation.words import variance_row
from lfp.probes.ridge import place_scales
from precompute.run.work_folder import Run
from precompute.stages.probes import inputs as kept_module
from precompute.stages.probes import targets as targets_module
from precompute.stages.probes.fitting import Judged, fit_words
from precompute.stages.probes.inputs import Inputs, one_hot
from precompute.stages.probes.targets import Rows, delta_rows, implicit_rows, overlap_rows, rows_before
from tests.precompute.conftest import silent, tiny_config
from tests.precompute.stages.token_builders import (
    CONFIG,
    N_WORDS,
    ONE_ALPHA,
    WIDTH,
    encoded,
    feedback,
    inputs,
    kept,
    scored,
    shared,
    vocabulary,
)


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
