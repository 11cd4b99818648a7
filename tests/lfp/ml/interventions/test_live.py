"""A bundle's own models on a text: what they read is what the bundle states, and what they write keeps to its seed."""

import threading

import numpy as np
import pytest

from lfp.bundle import queries
from lfp.bundle.manifest import check_bundle
from lfp.bundle.store.connection import Store
from lfp.errors import BundleError, DataError, ModelError
from lfp.ml.interventions.bundle_models import Live, Sampling, Steering
from lfp.probes.attribution import LinearProbe, text_ledger


@pytest.fixture(scope="module")
def store(tiny_bundle):
    with Store.open(tiny_bundle) as opened:
        yield opened


@pytest.fixture(scope="module")
def live(store):
    return Live.load(store.path, store.manifest)


@pytest.fixture(scope="module")
def sampled(store):
    wanted = queries.texts.TextFilter(is_sampled=True)
    ids = queries.texts.texts(store, wanted, order=queries.common.Order("gap"), limit=4)["text_id"].to_pylist()
    return [queries.texts.text(store, text_id) for text_id in ids]


def test_a_text_of_the_bundle_is_read_as_the_bundle_states(store, live, sampled):
    probe, weights = queries.common.headline(store), queries.feature.probe_weights(store)
    dense = LinearProbe(np.array(weights["weight"]), probe.intercept, probe.pooling)
    for text in sampled:
        reading = live.read(text.text, "tuned")
        assert list(reading.text.token_starts) == text.token_starts
        stated = [np.nan if value is None else value for value in text.token_implicit_reward]
        np.testing.assert_allclose(reading.implicit_reward, stated, atol=2e-4)
        assert text_ledger(reading.active, dense).predicted == pytest.approx(text.predicted, abs=2e-4)
        kept = np.array(
            queries.texts.token_activations(store, text.text_id, feature_id=int(reading.active.features[0]))
        )
        np.testing.assert_allclose(reading.dense[:, reading.active.features[0]], kept, atol=2e-4)


def test_sparse_and_dense_features_are_the_same(live):
    reading = live.read("The plot was dull.", "tuned")
    rebuilt = np.zeros_like(reading.dense)
    rebuilt[reading.active.positions, reading.active.features] = reading.active.values
    np.testing.assert_allclose(rebuilt, np.maximum(reading.dense, 0), atol=1e-6)


def test_the_base_model_reads_otherwise_through_the_same_dictionary(live):
    tuned, base = (live.read("The plot was dull.", role) for role in ("tuned", "base"))
    assert tuned.dense.shape == base.dense.shape and not np.allclose(tuned.dense, base.dense)
    np.testing.assert_array_equal(tuned.implicit_reward, base.implicit_reward)


def test_a_long_text_is_cut_and_said_so(live):
    reading = live.read("a film " * 200, "tuned")
    assert reading.text.truncated and len(reading.text.token_ids) == live.context
    assert not live.read("a film", "tuned").text.truncated


def test_no_token_is_said_kindly(live):
    with pytest.raises(DataError, match="no token in this text"):
        live.read("", "tuned")


def written(live, scales=None, *, column="tuned", **changes):
    sampling = Sampling(**{"n": 2, "n_tokens": 8, "temperature": 1.0, "seed": 3} | changes)
    prompt = live.prompt("The plot was dull, but", as_message=False, n_tokens=sampling.n_tokens)
    *_, last = live.stream(prompt, "steered" if scales else column, Steering(scales or {}), sampling)
    return last


def test_scales_of_one_change_nothing_and_others_do(live):
    reading = live.read("The plot was dull, but", "tuned")
    strong = np.unique(reading.active.features[np.argsort(-reading.active.values)[:20]]).tolist()
    assert written(live, dict.fromkeys(strong, 1.0)) == written(live)
    assert written(live, dict.fromkeys(strong, 3.0), n=8) != written(live, n=8)


def test_a_seed_is_its_samples_and_another_is_another(live):
    assert written(live) == written(live)
    assert len({written(live, seed=seed)[0].text for seed in range(3)}) > 1
    assert written(live, n=2) == written(live, n=4)[:2] and written(live, n=3)[0] != written(live, n=3)[1]
    assert written(live, column="base") != written(live)


def test_a_feature_that_is_not_is_refused_and_leaves_no_hook(live):
    before = written(live)
    with pytest.raises(ModelError, match="not one of the dictionary"):
        written(live, {10**6: 0.0})
    assert written(live) == before


def test_a_completion_longer_than_its_room_keeps_the_last_tokens(live):
    most = live.kept_tokens(1)
    cut = live.prompt("The plot was dull, but", as_message=False, n_tokens=most)
    assert cut.is_cut and len(cut.token_ids) == live.tuned.n_ctx - most
    assert not live.prompt("The plot", as_message=False, n_tokens=4).is_cut


def test_threads_do_not_see_each_others_scales(live):
    strong = np.unique(live.read("The plot was dull, but", "tuned").active.features)[:10].tolist()
    settings = [{}, dict.fromkeys(strong, 3.0)] * 2
    alone, together = [written(live, scales) for scales in settings], [None] * len(settings)

    def run(at):
        together[at] = written(live, settings[at])

    threads = [threading.Thread(target=run, args=(at,)) for at in range(len(settings))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert together == alone


def test_a_bundle_without_models_is_refused(bundle):
    with pytest.raises(BundleError, match="holds no models"):
        Live.load(bundle, check_bundle(bundle))
