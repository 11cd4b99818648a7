"""Training autoencoders: planted directions found, dead features revived, the same bits alone, together and resumed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lfp.config import SaeConfig
from lfp.errors import ConfigError, DataError, TrainingError
from lfp.ml.sae.activation_sources import HeldActivations
from lfp.ml.sae.autoencoders import Sae, SaeInfo, Variant
from lfp.ml.sae.quality import quality
from lfp.ml.sae.training import SaeTrainer, train_saes, unit_scale
from lfp.util.types import Place

D_IN, WIDTH, N_PLANTED = 16, 32, 24
CONFIG = SaeConfig(
    steps=600, batch_tokens=256, learning_rate=1e-2, dead_steps=50, l1=0.2, k=2, l0_weight=0.1, bandwidth=0.1
)
of_all_variants = pytest.mark.parametrize("variant", get_args(Variant))
TOP_K_FAMILY: list[Variant] = ["topk", "batchtopk"]
RESUMED: list[Variant] = ["tied_relu", "topk", "batchtopk", "jumprelu"]


def planted(n: int = 6000, *, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Unit directions [24, 16] and outputs [n, 16]: sparse non-negative sums of them, off centre, times 5."""
    generator = torch.Generator().manual_seed(seed)
    directions = F.normalize(torch.randn(N_PLANTED, D_IN, generator=torch.Generator().manual_seed(99)), dim=1)
    active = torch.rand(n, N_PLANTED, generator=generator) < 0.06
    strength = 0.5 + torch.rand(n, N_PLANTED, generator=generator)
    return directions, 5.0 * ((active * strength) @ directions + 0.1)


DIRECTIONS, OUTPUTS = planted()
SOURCE = HeldActivations({Place(1): OUTPUTS, Place(4): OUTPUTS.flip(1)}, CONFIG.batch_tokens, 0)


def changed(**values: Any) -> SaeConfig:
    """The tests' config with other values."""
    return CONFIG.model_copy(update=values)


def info(
    variant: Variant = "tied_relu", *, width: int = WIDTH, seed: int = 0, layer: int = 1, louder: float = 1.0
) -> SaeInfo:
    k = CONFIG.k if variant in TOP_K_FAMILY else None
    scale = unit_scale(OUTPUTS) / louder
    return SaeInfo(layer, width, D_IN, scale, None, seed, "tuned", variant, k)


def trainer(variant: Variant = "tied_relu", config: SaeConfig = CONFIG, **of_info: Any) -> SaeTrainer:
    return SaeTrainer(info(variant, **of_info), config, SOURCE.outputs[Place(of_info.get("layer", 1))])


def trained(variant: Variant = "tied_relu", config: SaeConfig = CONFIG, **of_info: Any) -> Sae:
    return train_saes([trainer(variant, config, **of_info)], SOURCE)[0]


def same_bits(one: Sae, other: Sae) -> bool:
    expected = other.state_dict()
    return all(torch.equal(tensor, expected[name]) for name, tensor in one.state_dict().items())


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


@dataclass
class Faulty:
    """The tests' source until a step."""

    step: int

    def sample(self) -> Mapping[int, Tensor]:
        return SOURCE.sample()


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


def made_dead(one: SaeTrainer) -> None:
    """A third of its features, by a bias that nothing overcomes."""
    one.sae.b_enc[: one.info.width // 3] = -100.0


def made_faint(one: SaeTrainer) -> None:
    """A third of its features, by encoders so short that others are always larger."""
    one.sae.encoder[: one.info.width // 3] *= 1e-3
    one.sae.b_enc[: one.info.width // 3] *= 1e-3


def n_dead(sae: Sae) -> int:
    """Of those made dead."""
    return int((sae.encode(OUTPUTS)[:, : sae.info.width // 3] <= 0).all(0).sum())


def spoil(one: SaeTrainer) -> None:
    """A third of its features, in the way that its variant can repair."""
    (made_faint if one.info.variant in TOP_K_FAMILY else made_dead)(one)


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


@pytest.mark.parametrize("variant", RESUMED)
def test_trainers_on_one_stream_are_each_as_if_alone(variant: Variant) -> None:
    """Of two layers, two sizes, two seeds and two lengths."""
    config = changed(steps=120)
    kinds: list[tuple[SaeConfig, dict[str, int]]] = [
        (config, {}),
        (config, {"width": 40}),
        (config, {"layer": 4}),
        (changed(steps=70), {"layer": 4, "seed": 3}),
    ]
    together = train_saes([trainer(variant, one, **of_info) for one, of_info in kinds], SOURCE)
    for sae, (one, of_info) in zip(together, kinds, strict=True):
        assert sae.info == info(variant, **of_info)
        assert same_bits(sae, trained(variant, one, **of_info))


class InterruptedRunError(Exception):
    """Stands for a lost machine."""


class Breaking(Faulty):
    """A source that fails when it is asked for the batch of the step, and counts those it gave."""

    given = 0

    def batches(self, start: int) -> Iterator[Mapping[int, Tensor]]:
        for number, batch in enumerate(SOURCE.batches(start), start):
            if number == self.step:
                raise InterruptedRunError
            self.given += 1
            yield batch


def pair(variant: Variant) -> list[SaeTrainer]:
    """A long training with dead features that are revived from step 100 on, and a short one of another layer."""
    config = changed(steps=230, l0_weight=0.02, bandwidth=0.05)
    long, short = trainer(variant, config), trainer(variant, config.model_copy(update={"steps": 60}), layer=4)
    spoil(long)
    return [long, short]


def resumed(variant: Variant, checkpoint: Path, source: Breaking) -> list[Sae]:
    return train_saes(pair(variant), source, checkpoint=checkpoint, checkpoint_every=25)


@pytest.mark.parametrize("variant", RESUMED)
def test_an_interrupted_training_goes_on_to_the_same_bits(variant: Variant, tmp_path: Path) -> None:
    """Broken off before there is a checkpoint, between two, at one, after the short one's end and near the end."""
    expected = train_saes(pair(variant), SOURCE)
    checkpoint = tmp_path / "training.pt"
    for step, done in ((10, 0), (40, 0), (75, 25), (130, 75), (229, 125)):
        source = Breaking(step)
        with pytest.raises(InterruptedRunError):
            resumed(variant, checkpoint, source)
        assert source.given == step - done, "it resumes from the last checkpoint"
    found = resumed(variant, checkpoint, source := Breaking(-1))
    assert source.given == 230 - 225
    assert all(same_bits(*saes) for saes in zip(found, expected, strict=True))


@pytest.mark.parametrize("at", [1, 101, 230])
def test_a_training_stopped_by_its_listener_goes_on_to_the_same_bits(at: int, tmp_path: Path) -> None:
    def stop(what: str, done: int, total: int, value: float) -> None:
        if done == at:
            raise InterruptedRunError

    checkpoint = tmp_path / "training.pt"
    with pytest.raises(InterruptedRunError):
        train_saes(pair("jumprelu"), SOURCE, checkpoint=checkpoint, checkpoint_every=25, progress=stop)
    found = resumed("jumprelu", checkpoint, Breaking(-1))
    assert all(same_bits(*saes) for saes in zip(found, train_saes(pair("jumprelu"), SOURCE), strict=True))


def test_writing_checkpoints_changes_nothing(tmp_path: Path) -> None:
    found = train_saes(pair("topk"), SOURCE, checkpoint=tmp_path / "training.pt", checkpoint_every=1)
    assert all(same_bits(*saes) for saes in zip(found, train_saes(pair("topk"), SOURCE), strict=True))


def test_a_finished_training_is_not_run_again(tmp_path: Path) -> None:
    checkpoint, config = tmp_path / "training.pt", changed(steps=50)
    (expected,) = train_saes([trainer(config=config)], SOURCE, checkpoint=checkpoint, checkpoint_every=50)
    (found,) = train_saes([trainer(config=config)], source := Breaking(0), checkpoint=checkpoint)
    assert source.given == 0 and same_bits(found, expected)


def broken_save(after: int) -> Callable[[Any, Path], None]:
    """`torch.save` until it has written so many files; the next ends half way, as on a full disk."""
    real, written = torch.save, []

    def save(states: Any, path: Path) -> None:
        real(states, path)
        written.append(path)
        if len(written) > after:
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
            raise OSError("no space left on device")

    return save


@pytest.mark.parametrize("written", [0, 2])
def test_a_checkpoint_half_written_replaces_none(written: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = tmp_path / "training.pt"
    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", broken_save(written))
        with pytest.raises(OSError, match="no space left"):
            resumed("topk", checkpoint, Breaking(-1))
    assert checkpoint.is_file() == bool(written)
    found = resumed("topk", checkpoint, source := Breaking(-1))
    assert source.given == 230 - 25 * written
    assert all(same_bits(*saes) for saes in zip(found, train_saes(pair("topk"), SOURCE), strict=True))
    assert [path.name for path in tmp_path.iterdir()] == ["training.pt"], "what was half written is gone"
