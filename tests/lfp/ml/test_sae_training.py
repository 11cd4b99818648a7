"""Training autoencoders: planted directions found, runs repeated bit for bit, quality against naive numpy."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lfp.config import SaeConfig
from lfp.errors import DataError, TrainingError
from lfp.ml.sae import SaeInfo, TiedReluSae
from lfp.ml.sae_training import SaeQuality, matched_cosines, quality, train_sae, unit_scale
from tests.lfp.builders import tiny_sae

D_IN, N_PLANTED = 16, 24
CONFIG = SaeConfig(steps=600, batch_tokens=256, l1=0.2, learning_rate=1e-2)


def planted(n: int = 6000, *, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Unit directions [24, 16] and outputs [n, 16]: sparse non-negative sums of them, off centre, times 5."""
    generator = torch.Generator().manual_seed(seed)
    directions = F.normalize(torch.randn(N_PLANTED, D_IN, generator=torch.Generator().manual_seed(99)), dim=1)
    active = torch.rand(n, N_PLANTED, generator=generator) < 0.06
    strength = 0.5 + torch.rand(n, N_PLANTED, generator=generator)
    return directions, 5.0 * ((active * strength) @ directions + 0.1)


DIRECTIONS, OUTPUTS = planted()


def info(*, width: int = 32, scale: float | None = None, seed: int = 0, layer: int = 1) -> SaeInfo:
    return SaeInfo(layer, width, D_IN, unit_scale(OUTPUTS) if scale is None else scale, CONFIG.l1, seed, "tuned")


@pytest.fixture(scope="module")
def trained() -> TiedReluSae:
    return train_sae(OUTPUTS, CONFIG, info())


def test_the_scale_gives_unit_mean_square_norm() -> None:
    scaled = OUTPUTS * unit_scale(OUTPUTS)
    assert (scaled**2).sum(1).mean().item() == pytest.approx(1.0, rel=1e-5)


@pytest.mark.parametrize("value", [0.0, float("nan"), float("inf")])
def test_outputs_without_a_scale_are_refused(value: float) -> None:
    with pytest.raises(DataError, match="root mean square norm"):
        unit_scale(torch.full((3, 2), value))


def test_training_lowers_the_loss_and_tells_of_it() -> None:
    told: list[tuple[str, int, int, float]] = []
    train_sae(OUTPUTS, CONFIG, info(), progress=lambda *one: told.append(one))
    what, done, total, losses = zip(*told, strict=True)
    assert set(what) == {"layer 1, 32 features"} and set(total) == {600}
    assert list(done) == sorted(set(done)) and done[-1] == 600
    assert losses[-1] < 0.4 * losses[0]


def test_planted_directions_are_found(trained: TiedReluSae) -> None:
    """Most of them; random rows come nowhere near."""
    best = (DIRECTIONS @ trained.decoder.T).max(dim=1).values
    by_chance = (DIRECTIONS @ tiny_sae(width=32, d_in=D_IN).decoder.T).max(dim=1).values
    assert best.mean() > 0.9 > 0.7 > by_chance.mean()
    assert (best > 0.9).float().mean() > 0.7


def test_held_out_outputs_are_explained_sparsely(trained: TiedReluSae) -> None:
    found = quality(trained, planted(2000, seed=1)[1])
    assert found.fvu < 0.25
    assert found.l0 < 5


def test_more_l1_means_fewer_active_features() -> None:
    little, much = (
        quality(train_sae(OUTPUTS, CONFIG.model_copy(update={"l1": l1, "steps": 200}), info()), OUTPUTS)
        for l1 in (0.01, 0.3)
    )
    assert much.l0 < 0.7 * little.l0 and much.fvu > little.fvu


def test_the_same_seed_gives_the_same_bits_and_another_seed_others(trained: TiedReluSae) -> None:
    torch.rand(3)  # the global generator must not matter
    again, other = train_sae(OUTPUTS, CONFIG, info()), train_sae(OUTPUTS, CONFIG, info(seed=1))
    for name, tensor in trained.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor)
        assert not torch.equal(other.state_dict()[name], tensor)


def test_training_keeps_what_it_was_told_and_leaves_the_outputs_alone(trained: TiedReluSae) -> None:
    assert trained.info == info()
    assert torch.equal(OUTPUTS, planted()[1])
    torch.testing.assert_close(trained.decoder.norm(dim=1), torch.ones(32))
    assert not any(parameter.requires_grad for parameter in trained.parameters())


def test_the_scale_of_the_outputs_does_not_matter(trained: TiedReluSae) -> None:
    """A power of two, so that not a bit is rounded differently."""
    louder = train_sae(OUTPUTS * 4, CONFIG, info(scale=info().scale / 4))
    assert torch.equal(louder.decoder, trained.decoder)


def test_a_loss_that_is_no_number_ends_the_training() -> None:
    outputs = OUTPUTS.clone()
    outputs[:] = float("nan")
    with pytest.raises(TrainingError, match=r"layer 1, 32 features: the loss is nan at step 0"):
        train_sae(outputs, CONFIG, info())


def naive_quality(sae: TiedReluSae, outputs: Tensor) -> SaeQuality:
    x = outputs.numpy().astype(float)
    rows = F.normalize(sae.rows, dim=1).numpy().astype(float)
    features = np.maximum(0, x * sae.info.scale @ rows.T + sae.b_enc.numpy())
    error = x - (features @ rows + sae.b_dec.numpy()) / sae.info.scale
    dead = sum(not (features[:, i] > 0).any() for i in range(features.shape[1]))
    return SaeQuality(
        (error**2).sum() / ((x - x.mean(axis=0)) ** 2).sum(),
        float(np.mean([(row > 0).sum() for row in features])),
        dead / features.shape[1],
    )


@pytest.mark.parametrize("batch_tokens", [7, 1000])
def test_quality_is_what_numpy_says(batch_tokens: int) -> None:
    sae = tiny_sae(width=20, d_in=D_IN, scale=0.2)
    sae.b_enc[:5] = -100.0
    found, expected = quality(sae, OUTPUTS[:300], batch_tokens=batch_tokens), naive_quality(sae, OUTPUTS[:300])
    assert found.fvu == pytest.approx(expected.fvu, rel=1e-5)
    assert (found.l0, found.dead_fraction) == (pytest.approx(expected.l0), pytest.approx(expected.dead_fraction))
    assert expected.dead_fraction >= 0.25


def test_the_mean_alone_leaves_all_variance_unexplained() -> None:
    sae = tiny_sae(d_in=D_IN, scale=1.0)
    sae.b_enc.fill_(-1e6)
    sae.b_dec.copy_(OUTPUTS.mean(0))
    assert quality(sae, OUTPUTS) == SaeQuality(pytest.approx(1.0), 0.0, 1.0)


@pytest.mark.parametrize("seed", range(4))
def test_matches_are_the_best_of_all_assignments(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    small, large = (F.normalize(torch.randn(n, 3, generator=generator), dim=1) for n in (4, 6))
    cosines, matches = matched_cosines(small, large)
    totals = {
        chosen: sum((small[i] @ large[j]).item() for i, j in enumerate(chosen)) for chosen in permutations(range(6), 4)
    }
    best = max(totals, key=totals.__getitem__)
    assert tuple(matches.tolist()) == best
    assert cosines.sum().item() == pytest.approx(totals[best])
    torch.testing.assert_close(cosines, (small * large[matches]).sum(1))


def test_a_dictionary_inside_another_is_matched_exactly() -> None:
    order = torch.randperm(N_PLANTED, generator=torch.Generator().manual_seed(0))[:9]
    cosines, matches = matched_cosines(DIRECTIONS[order], DIRECTIONS)
    assert matches.tolist() == order.tolist()
    torch.testing.assert_close(cosines, torch.ones(9))
