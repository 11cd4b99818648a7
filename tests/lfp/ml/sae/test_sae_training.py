"""Training autoencoders: planted directions found, dead features revived, faults in a sentence."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lfp.config import SaeConfig
from lfp.errors import ConfigError, DataError, TrainingError
from lfp.ml.sae.activation_sources import HeldActivations, shorten_rows
from lfp.ml.sae.autoencoders import Sae, SaeInfo, Variant
from lfp.ml.sae.quality import quality
from lfp.ml.sae.training import SaeTrainer, train_saes, unit_scale
from lfp.util.types import Place
from tests.lfp.ml.sae.builders import (
    CONFIG,
    D_IN,
    DIRECTIONS,
    OUTPUTS,
    SOURCE,
    TOP_K_FAMILY,
    WIDTH,
    Faulty,
    changed,
    info,
    made_dead,
    of_all_variants,
    planted,
    same_bits,
    spoil,
    trained,
    trainer,
)


def test_the_scale_gives_unit_mean_square_norm() -> None:
    scaled = OUTPUTS * unit_scale(OUTPUTS)
    assert (scaled**2).sum(1).mean().item() == pytest.approx(1.0, rel=1e-5)


@pytest.mark.parametrize("value", [0.0, float("nan"), float("inf")])
def test_outputs_without_a_scale_are_refused(value: float) -> None:
    with pytest.raises(DataError, match="root mean square norm"):
        unit_scale(torch.full((3, 2), value))


def test_training_lowers_the_loss_and_tells_of_it() -> None:
    reported: list[tuple[str, int, int, float]] = []
    train_saes([trainer()], SOURCE, progress=lambda *values: reported.append(values))
    what, done, total, losses = zip(*reported, strict=True)
    assert set(what) == {"layer 1, 32 features"} and set(total) == {600}
    assert list(done) == sorted(set(done)) and done[-1] == 600
    assert losses[-1] < 0.4 * losses[0]


@of_all_variants
def test_planted_directions_are_found(variant: Variant) -> None:
    """Nearly all of them; random rows come nowhere near. What is held out is explained, and sparsely."""
    sae = trained(variant)
    best = (DIRECTIONS @ sae.W_dec.T).max(dim=1).values
    random = F.normalize(torch.randn(WIDTH, D_IN, generator=torch.Generator().manual_seed(0)), dim=1)
    by_chance = (DIRECTIONS @ random.T).max(dim=1).values
    assert best.mean() > 0.9 > 0.7 > by_chance.mean()
    assert (best > 0.9).float().mean() > 0.7
    found = quality(sae, planted(2000, seed=1)[1])
    assert found.fvu < 0.15 and found.l0 < 5


def test_training_with_bfloat16_products_finds_the_same_directions() -> None:
    """The weights are float32 all along, and the mean of the largest cosines falls by a hundredth at most."""
    steps = {"steps": 200}
    exact = trained("topk", changed(**steps))
    rounded = trained("topk", changed(products="bfloat16", **steps))
    assert {weight.dtype for weight in rounded.state_dict().values()} == {torch.float32}
    assert not torch.equal(rounded.W_dec, exact.W_dec)
    found = [(sae.W_dec @ DIRECTIONS.T).max(0).values.mean() for sae in (exact, rounded)]
    assert found[1] > found[0] - 0.01


@of_all_variants
def test_what_comes_out_of_training_is_whole(variant: Variant) -> None:
    sae = trained(variant, changed(steps=20))
    assert sae.info == info(variant)
    torch.testing.assert_close(sae.W_dec.norm(dim=1), torch.ones(WIDTH))
    assert not any(parameter.requires_grad for parameter in sae.parameters())
    assert torch.equal(OUTPUTS, planted()[1]), "the outputs are left alone"


@pytest.mark.parametrize(
    ("variant", "key", "little", "much"), [("relu", "l1", 0.02, 0.4), ("jumprelu", "l0_weight", 0.01, 0.2)]
)
def test_a_larger_penalty_means_fewer_active_features(variant: Variant, key: str, little: float, much: float) -> None:
    of_little, of_much = (
        quality(trained(variant, changed(steps=300, **{key: weight})), OUTPUTS) for weight in (little, much)
    )
    assert of_much.l0 < 0.7 * of_little.l0 and of_much.fvu > of_little.fvu


@pytest.mark.parametrize("variant", TOP_K_FAMILY)
def test_the_top_k_family_keeps_k_features_a_token(variant: Variant) -> None:
    assert 0.7 * CONFIG.k < quality(trained(variant, changed(steps=300)), OUTPUTS).l0 <= 1.2 * CONFIG.k


@of_all_variants
def test_a_dictionary_of_changes_has_no_bias(variant: Variant) -> None:
    """So nothing is reconstructed where nothing changed; the planted outputs are reconstructed all the same."""
    of_changes = replace(info(variant), trained_on="change")
    sae = train_saes([SaeTrainer(of_changes, CONFIG, SOURCE.outputs[Place(1)])], SOURCE)[0]
    assert not sae.b_dec.any()
    if variant in TOP_K_FAMILY:
        assert not sae.b_enc.any()
    else:
        assert sae.b_enc.any()
    assert not sae.decode(torch.zeros(1, WIDTH)).any()
    assert quality(sae, OUTPUTS).fvu < 0.5


@of_all_variants
def test_the_same_seed_gives_the_same_bits_and_another_seed_others(variant: Variant) -> None:
    config = changed(steps=220)  # beyond the first look at dead features
    one = trained(variant, config)
    torch.rand(3)  # the global generator must not matter
    again, other = trained(variant, config), trained(variant, config, seed=1)
    assert same_bits(one, again)
    assert all(not torch.equal(one.get_parameter(name), weight) for name, weight in other.named_parameters())


@of_all_variants
def test_the_scale_of_the_outputs_does_not_matter(variant: Variant) -> None:
    """A power of two, so that not a bit is rounded differently."""
    config = changed(steps=220)
    louder = SaeTrainer(info(variant, louder=4.0), config, OUTPUTS * 4)
    (found,) = train_saes([louder], HeldActivations({Place(1): OUTPUTS * 4}, CONFIG.batch_tokens, 0))
    expected = trained(variant, config)
    for name, tensor in found.state_dict().items():
        factor = 1.0 if name in ("encoder", "W_dec") else 4.0
        assert torch.equal(tensor, expected.state_dict()[name] * factor), name


class Spoiled(Faulty):
    """Batches that are not numbers from the step on."""

    def batches(self, start: int) -> Iterator[Mapping[int, Tensor]]:
        for number, batch in enumerate(SOURCE.batches(start), start):
            yield batch if number < self.step else {place: values * float("nan") for place, values in batch.items()}


@of_all_variants
def test_a_loss_that_is_no_number_ends_the_training(variant: Variant) -> None:
    with pytest.raises(TrainingError, match=r"^layer 1, 32 features: the loss is nan at step 0; lower sae\.learning"):
        train_saes([trainer(variant)], Spoiled(0))


@of_all_variants
@pytest.mark.parametrize("from_step", [61, 100, 219])
def test_a_loss_that_is_no_number_later_ends_the_training(variant: Variant, from_step: int) -> None:
    """Where features are dead too, which start again at step 100 by what is missed."""
    one = trainer(variant, changed(steps=220))
    made_dead(one)
    with pytest.raises(TrainingError, match=r"^layer 1, 32 features: the loss is nan at step \d+; lower"):
        train_saes([one], Spoiled(from_step))


def test_a_short_training_beside_a_long_one_is_checked_to_its_end() -> None:
    short, long = trainer(config=changed(steps=30)), trainer(config=changed(steps=80), layer=4)
    with pytest.raises(TrainingError, match="layer 1, 32 features: the loss is nan at step 29"):
        train_saes([short, long], Spoiled(20))


@pytest.mark.parametrize("variant", TOP_K_FAMILY)
def test_more_active_features_than_there_are_is_refused(variant: Variant) -> None:
    facts = SaeInfo(1, WIDTH, D_IN, 1.0, None, 0, "tuned", variant, 33)
    with pytest.raises(ConfigError, match=r"^sae\.k 33 is more than the 32 features of layer 1; lower sae\.k$"):
        SaeTrainer(facts, changed(k=33), OUTPUTS)


def n_dead(sae: Sae) -> int:
    """Of those made dead."""
    return int((sae.encode(OUTPUTS)[:, : sae.info.width // 3] <= 0).all(0).sum())


@of_all_variants
def test_dead_features_are_revived(variant: Variant) -> None:
    """By starting again, or in the top-k family by learning what is missed; fewer than directions, all have work."""
    left, helped = (trainer(variant, changed(l0_weight=0.01, dead_steps=n), width=20) for n in (10_000, 50))
    for training in (left, helped):
        spoil(training)
    still, now = (n_dead(train_saes([training], SOURCE)[0]) for training in (left, helped))
    assert still >= 5 and now <= 2


@pytest.mark.parametrize("variant", ["tied_relu", "relu", "jumprelu"])
def test_a_feature_starts_again_at_what_a_token_misses(variant: Variant) -> None:
    """As new: its encoder is its decoder, it passes the mean by, and nothing of its former gradients is left."""
    one, third = trainer(variant, changed(steps=300)), slice(WIDTH // 3)
    batches = SOURCE.batches(0)
    for step in range(100):
        if step == 40:
            made_dead(one)
        one.step(next(batches)[Place(1)])
    inputs = (batch := next(batches)[Place(1)]) * one.info.scale
    missed, b_dec = F.normalize(inputs - one.sae(inputs)[1], dim=1), one.sae.b_dec.clone()
    one.step(batch)
    rows = one.sae.W_dec[third]
    assert (rows @ missed.T).max(1).values.min() > 0.9999
    torch.testing.assert_close(one.sae.encoder[third], rows)
    torch.testing.assert_close(one.sae.b_enc[third], -rows @ b_dec)
    for number, (name, _) in enumerate(one.sae.named_parameters()):
        if name in ("encoder", "W_dec", "b_enc"):
            moments = one.state_dict()["adam"]["state"][number]
            assert not moments["exp_avg"][third].any() and not moments["exp_avg_sq"][third].any()
            assert moments["exp_avg_sq"].any()


def test_thresholds_stay_at_zero_or_above() -> None:
    one = trainer("jumprelu", changed(l0_weight=0.0))
    one.sae.threshold.fill_(1e-4)
    for _, batch in zip(range(20), SOURCE.batches(0), strict=False):
        one.step(batch[Place(1)])
        assert one.sae.threshold.min() >= 0.0
    assert (one.sae.threshold == 0.0).any()


def rates(config: SaeConfig) -> list[float]:
    """The learning rate of every step."""
    one, found = trainer(config=config), []
    for _, batch in zip(range(config.steps), SOURCE.batches(0), strict=False):
        one.step(batch[Place(1)])
        (group,) = one.state_dict()["adam"]["param_groups"]
        found.append(group["lr"])
    return found


def test_the_rate_rises_stays_and_falls() -> None:
    found = rates(changed(steps=20, learning_rate=0.5, warmup_share=0.25, decay_share=0.5))
    rising, falling = [0.1, 0.2, 0.3, 0.4, 0.5], [0.5, 0.45, 0.4, 0.35, 0.3, 0.25, 0.2, 0.15, 0.1, 0.05]
    assert found == pytest.approx([*rising, *[0.5] * 5, *falling])


def test_without_a_warm_up_the_first_step_is_a_whole_one() -> None:
    found = rates(changed(steps=4, learning_rate=0.5, warmup_share=0.0, decay_share=1.0))
    assert found == pytest.approx([0.5, 0.375, 0.25, 0.125])


def test_the_rate_scales_the_first_step() -> None:
    """Adam's first step is the rate in every weight with a gradient."""
    one = trainer("relu", changed(steps=100, warmup_share=0.1))
    before = one.sae.b_dec.clone()
    one.step(OUTPUTS[:256])
    moved = (one.sae.b_dec - before).abs()
    assert moved.max().item() == pytest.approx(0.1 * CONFIG.learning_rate, rel=1e-3)


def test_a_dictionary_of_changes_explains_others_beside_a_few_very_long_rows() -> None:
    """Trained on rows as they are, it explains the long ones, and leaves 0.58 of the others' variance, not 0.05."""
    rows = OUTPUTS - OUTPUTS.mean(0)
    long = torch.randn(40, D_IN, generator=torch.Generator().manual_seed(1))
    rows = torch.cat([rows, 1000.0 * long])
    unexplained = []
    for trained_on in (rows, shorten_rows(rows)):
        facts = replace(info("topk"), trained_on="change", k=4, scale=unit_scale(trained_on))
        source = HeldActivations({Place(1): trained_on}, CONFIG.batch_tokens, 0)
        sae = train_saes([SaeTrainer(facts, changed(k=4), trained_on)], source)[0]
        others = rows[:-40]
        with torch.no_grad():
            left = sae.decode(sae.encode(others)) - others
        unexplained.append(float(left.pow(2).sum() / others.pow(2).sum()))
    assert unexplained[1] < 0.1 < 0.4 < unexplained[0], unexplained
