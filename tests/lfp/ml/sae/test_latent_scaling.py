"""Latent scaling on planted activations: what the tuned model alone has, what it rescales, and what both share."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from lfp.config import SaeConfig
from lfp.ml.models.activations import Tokens
from lfp.ml.sae.activation_sources import HeldActivations
from lfp.ml.sae.autoencoders import SAES, Crosscoder, Sae, SaeInfo
from lfp.ml.sae.latent_scaling import compare_decoders, fit_factors
from lfp.ml.sae.quality import pair_quality
from lfp.ml.sae.training import SaeTrainer, train_saes, unit_scale
from lfp.ml.sae.views import TokenPair
from lfp.testing.planted_activations import PlantedDictionary
from lfp.util.types import Place

PLACE = Place(0)
PLANTED = PlantedDictionary(d_in=32, n_directions=40, l0=3.0)
NEW, BASE_ONLY, HALVED = slice(5, 10), slice(10, 15), slice(15, 25)
SCALES = torch.ones(40)
SCALES[NEW], SCALES[HALVED] = 0.0, 0.7


def pair_of(tuned: Tensor, base: Tensor, changes: Tensor | None = None) -> TokenPair:
    ids = torch.arange(len(tuned))
    changed = {} if changes is None else {PLACE: changes}
    return TokenPair(*(Tokens(ids, ids, ids, {PLACE: values}, changed) for values in (tuned, base)))


@pytest.fixture(scope="module")
def planted() -> TokenPair:
    """A pair with directions of the tuned model alone, of the base model alone, weaker ones, and shared ones."""
    tuned, base = PLANTED.pair(6000, scales=SCALES)
    extra = PLANTED.outputs(6000, part=7) @ PLANTED.directions[BASE_ONLY].T
    return pair_of(tuned, base + extra.clamp(min=0) @ PLANTED.directions[BASE_ONLY])


def true_sae(trained_on: str = "tuned") -> Sae:
    """The dictionary that the activations were made from, with a threshold that the noise does not pass."""
    sae = SAES["jumprelu"](SaeInfo(0, 40, 32, 1.0, None, 0, "tuned", "jumprelu", trained_on=trained_on))
    sae.requires_grad_(False)
    sae.encoder.copy_(torch.linalg.pinv(PLANTED.directions).T)
    sae.W_dec.copy_(PLANTED.directions)
    sae.threshold.fill_(0.25)
    return sae


def trained(info: SaeInfo, outputs: Tensor, **settings: object) -> Sae:
    config = SaeConfig(variant="batchtopk", k=4, steps=500, batch_tokens=512, learning_rate=6e-3)
    facts = replace(info, variant="batchtopk", k=4, l1=None, scale=unit_scale(outputs))
    trainer = SaeTrainer(facts, config, outputs, **settings)
    return train_saes([trainer], HeldActivations({PLACE: outputs}, 512, 0))[0]


def matched(sae: Sae) -> np.ndarray:
    """The feature of each planted direction [40], -1 for one that none has."""
    cosines = PLANTED.directions @ torch.nn.functional.normalize(sae.tuned_decoder, dim=1).T
    best = cosines.max(1)
    return torch.where(best.values > 0.9, best.indices, -1).numpy()


def test_factors_are_those_of_least_squares(planted: TokenPair) -> None:
    """Against numpy's own solver on the stacked equations, for every target."""
    sae = true_sae()
    found = fit_factors(sae, planted, batch_tokens=1000)
    x, y = planted.tuned.outputs[PLACE], planted.base.outputs[PLACE]
    codes = sae.encode(x), sae.encode(y)
    for feature in (0, 7, 20):
        f, d = codes[0][:, feature], sae.W_dec[feature]
        design = torch.outer(f, d).reshape(-1, 1).double().numpy()
        for name, outputs, code in (("tuned", x, codes[0]), ("base", y, codes[1])):
            rebuilt = code @ sae.W_dec
            own = torch.outer(code[:, feature], d)
            for suffix, target in (("", rebuilt), ("_error", outputs - rebuilt - sae.b_dec + own)):
                expected = np.linalg.lstsq(design, target.reshape(-1).double().numpy(), rcond=None)[0][0]
                assert getattr(found, name + suffix)[feature] == pytest.approx(expected, abs=1e-4)


def test_only_directions_that_tuning_brought_are_the_tuned_models_alone(planted: TokenPair) -> None:
    found = fit_factors(true_sae("shared"), planted)
    assert found.is_known.all()
    assert found.is_exclusive.nonzero()[0].tolist() == list(range(5, 10))
    np.testing.assert_allclose(found.ratio_error[HALVED], 0.7, atol=0.1)
    shared = np.r_[0:5, 25:40]
    np.testing.assert_allclose(found.ratio_error[shared], 1.0, atol=0.15)


def test_with_the_models_exchanged_no_direction_of_the_tuned_model_counts(planted: TokenPair) -> None:
    sae = true_sae("shared")
    of_base = fit_factors(sae, planted, "base")
    assert not of_base.is_exclusive[NEW].any(), "they hardly fire in the base model"
    exchanged = fit_factors(sae, planted.exchange())
    np.testing.assert_allclose(exchanged.ratio, of_base.ratio)
    equal = fit_factors(sae, pair_of(planted.tuned.outputs[PLACE], planted.tuned.outputs[PLACE]))
    np.testing.assert_allclose(equal.ratio, 1.0, atol=1e-5)


@pytest.mark.parametrize("kind", ["tuned", "shared", "crosscoder"])
def test_trained_dictionaries_tell_new_from_shared_directions(planted: TokenPair, kind: str) -> None:
    x, y = planted.tuned.outputs[PLACE], planted.base.outputs[PLACE]
    outputs = {"tuned": x, "shared": torch.cat([x, y]), "crosscoder": torch.cat([x, y], dim=1)}[kind]
    sae = trained(SaeInfo(0, 48, outputs.shape[1], 1.0, None, 0, "tuned", trained_on=kind), outputs)
    found, features = fit_factors(sae, planted), matched(sae)
    new, others = features[NEW], np.r_[features[:5], features[15:]]
    assert (new >= 0).sum() >= 4 and (others >= 0).sum() >= 25
    assert found.is_exclusive[new[new >= 0]].mean() >= 0.75
    assert found.is_exclusive[others[others >= 0]].mean() <= 0.05
    quality = pair_quality(sae, planted)
    assert quality.fvu_tuned < 0.25
    if kind == "crosscoder":
        cosine, share = compare_decoders(sae, None)
        assert share[new[new >= 0]].max() < 0.3, "the base model's decoder has next to nothing"
        kept = others[others >= 0]
        assert np.median(cosine[kept]) > 0.95 and np.median(share[kept]) == pytest.approx(0.5, abs=0.06)


def test_changes_are_new_where_the_base_model_has_no_such_direction(planted: TokenPair) -> None:
    x, y = PLANTED.pair(6000, scales=SCALES)
    sae = true_sae("change")
    found = fit_factors(sae, pair_of(x, y, x - y))
    assert found.is_known[NEW].all() and found.is_exclusive[NEW].all()
    assert not found.is_exclusive[HALVED].any(), "the base model has these directions, only weaker"


def test_a_crosscoder_keeps_features_by_what_they_write() -> None:
    """A feature of both models counts for both: at equal activations it passes where one of a single model does not."""
    info = SaeInfo(0, 2, 4, 1.0, None, 0, "tuned", "batchtopk", 1, trained_on="crosscoder")
    sae = Crosscoder(info).requires_grad_(False)
    sae.encoder.copy_(torch.tensor([[1.0, 0, 0, 0], [0, 1.0, 0, 0]]))
    sae.W_dec.copy_(torch.tensor([[0.5**0.5, 0, 0.5**0.5, 0], [0, 1.0, 0, 0]]))
    sae.least.fill_(1.2)
    torch.testing.assert_close(sae.sizes, torch.tensor([2**0.5, 1.0]))
    found = sae.encode(torch.tensor([[1.0, 1.0, 0, 0], [0.8, 1.3, 0, 0]]))
    torch.testing.assert_close(found, torch.tensor([[1.0, 0.0], [0.0, 1.3]]))
    some = sae.encode_some(torch.tensor([[1.0, 1.0, 0, 0]]), torch.tensor([1]))
    torch.testing.assert_close(some, torch.zeros(1, 1))


def test_training_goes_on_from_another_dictionary(planted: TokenPair) -> None:
    x, y = planted.tuned.outputs[PLACE], planted.base.outputs[PLACE]
    base = trained(SaeInfo(0, 48, 32, 1.0, None, 0, "base", trained_on="base"), y)
    info = replace(base.info, model="tuned", trained_on="base_finetuned", scale=unit_scale(x))
    config = SaeConfig(variant="batchtopk", k=4, steps=200, batch_tokens=512, learning_rate=6e-3)
    unmoved = SaeTrainer(info, config, x, start=base).sae
    torch.testing.assert_close(unmoved.encode(x * info.scale) / info.scale, base.encode(x), rtol=1e-4, atol=1e-4)
    sae = trained(info, x, start=base)
    before, after = pair_quality(base, planted), pair_quality(sae, planted)
    assert after.fvu_tuned < before.fvu_tuned
    assert np.median(compare_decoders(sae, base)[0]) > 0.9, "features keep their numbers"


def test_a_frozen_decoder_stays_random_while_the_rest_is_trained(planted: TokenPair) -> None:
    x = planted.tuned.outputs[PLACE]
    info = SaeInfo(0, 48, 32, 1.0, None, 0, "tuned")
    frozen, free = trained(info, x, frozen_decoder=True), trained(info, x)
    start = SaeTrainer(replace(frozen.info), SaeConfig(variant="batchtopk", k=4), x).sae
    torch.testing.assert_close(frozen.W_dec, start.W_dec)
    assert not torch.allclose(frozen.encoder, start.encoder)
    assert pair_quality(free, planted).fvu_tuned < pair_quality(frozen, planted).fvu_tuned < 1.0
