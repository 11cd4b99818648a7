"""Gradients written out against torch's autograd of the stated losses, on sparse and dense codes alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, get_args

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lfp.config import SaeConfig
from lfp.ml.sae.autoencoders import Sae, SaeInfo, Variant
from lfp.ml.sae.objectives import OBJECTIVES, BatchTopKObjective, Objective, PreGradient, WrittenObjective
from lfp.ml.sae.training import SaeTrainer
from tests.lfp.builders import tiny_sae

N, D_IN, WIDTH, K = 20, 6, 24, 3
CONFIG = SaeConfig(k=K, l1=0.3, l0_weight=0.2, bandwidth=0.6, batch_tokens=N)
INPUTS = torch.randn(N, D_IN, generator=torch.Generator().manual_seed(5))
MODES = ("dense", "sparse")
of_all_variants = pytest.mark.parametrize("variant", get_args(Variant))
of_all_modes = pytest.mark.parametrize("mode", MODES)


class Jump(torch.autograd.Function):
    """pre * (pre > threshold) and (pre > threshold), whose derivative at the threshold is a rectangle's."""

    @staticmethod
    def forward(ctx: Any, pre: Tensor, threshold: Tensor, bandwidth: float) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(pre, threshold)
        ctx.bandwidth = bandwidth
        active = (pre > threshold).float()
        return pre * active, active

    @staticmethod
    def backward(ctx: Any, of_features: Tensor, of_active: Tensor) -> tuple[Tensor, Tensor, None]:
        pre, threshold = ctx.saved_tensors
        rectangle = ((pre - threshold) / ctx.bandwidth).abs() < 0.5
        at_threshold = -(threshold * of_features + of_active) * rectangle / ctx.bandwidth
        return of_features * (pre > threshold), at_threshold.sum(0), None


def features_and_penalty(variant: str, pre: Tensor, threshold: Tensor | None) -> tuple[Tensor, Tensor]:
    """Features [n, width] and what the loss adds to the squared error, as each class says of itself."""
    if variant == "jumprelu":
        features, active = Jump.apply(pre, threshold, CONFIG.bandwidth)
        return features, CONFIG.l0_weight * active.sum(1).mean()
    if variant == "topk":
        least = pre.detach().topk(K, dim=1).values[:, -1:]
        return pre.relu() * (pre >= least), torch.zeros(())
    if variant == "batchtopk":
        least = pre.detach().flatten().topk(K * len(pre)).values[-1]
        return pre.relu() * (pre >= least), torch.zeros(())
    return pre.relu(), CONFIG.l1 * pre.relu().sum(1).mean()


def stated_loss(variant: str, weights: dict[str, Tensor], pre: Tensor, inputs: Tensor) -> tuple[Tensor, Tensor]:
    """The loss and the features."""
    features, penalty = features_and_penalty(variant, pre, weights.get("threshold"))
    missed = inputs - (features @ weights["W_dec"] + weights["b_dec"])
    return missed.pow(2).sum(1).mean() + penalty, features


def randomised(variant: Variant) -> Sae:
    """With thresholds on both sides of half the rectangle's width."""
    sae = tiny_sae(variant=variant, width=WIDTH, d_in=D_IN)
    if variant == "jumprelu":
        sae.threshold.copy_(torch.linspace(0.0, 2.0, WIDTH))
    return sae


@dataclass(frozen=True)
class Written:
    """What the written-out formulas say of a batch."""

    loss: Tensor
    features: Tensor
    at_pre: Tensor
    gradient: PreGradient


def written(sae: Sae, mode: str) -> Written:
    objective = OBJECTIVES[sae.info.variant](sae, CONFIG)
    assert isinstance(objective, WrittenObjective)
    code = objective.code(torch.addmm(sae.b_enc, INPUTS, sae.encoder.T), sparse=mode == "sparse")
    features = code.with_values(code.values * objective.active(code))
    residual = features.times(sae.W_dec) + sae.b_dec - INPUTS
    gradient = objective.gradient(code, code.sampled_product(2 / N * residual, sae.W_dec), N)
    loss = residual.pow(2).sum() / N + objective.penalty(features.values, N)
    identity = torch.eye(WIDTH)
    return Written(loss, features.times(identity), code.with_values(gradient.pre).times(identity), gradient)


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@of_all_modes
@of_all_variants
def test_gradients_at_the_pre_activations_are_those_of_the_stated_loss(variant: Variant, mode: str) -> None:
    sae = randomised(variant)
    weights = {name: tensor.clone() for name, tensor in sae.state_dict().items()}
    pre = torch.addmm(sae.b_enc, INPUTS, sae.encoder.T).requires_grad_()
    if variant == "jumprelu":
        weights["threshold"].requires_grad_()
    loss, features = stated_loss(variant, weights, pre, INPUTS)
    loss.backward()
    found = written(sae, mode)
    close(found.loss, loss.detach())
    close(found.features, features.detach())
    assert pre.grad is not None and pre.grad.abs().max() > 0.01
    close(found.at_pre, pre.grad)
    if variant == "jumprelu":
        assert found.gradient.threshold is not None and (weights["threshold"].grad != 0).sum() > WIDTH // 2
        close(found.gradient.threshold, weights["threshold"].grad)
    else:
        assert found.gradient.threshold is None


def trainer_of(variant: Variant, *, density: float) -> SaeTrainer:
    """One whose next step is sparse or dense by the density of features it last saw."""
    info = SaeInfo(layer=0, width=WIDTH, d_in=D_IN, scale=1.0, l1=None, seed=0, model="tuned", variant=variant, k=K)
    trainer = SaeTrainer(info, CONFIG, INPUTS)
    for name, tensor in randomised(variant).state_dict().items():
        trainer.sae.state_dict()[name].copy_(tensor)
    trainer.sae.W_dec.copy_(F.normalize(trainer.sae.W_dec, dim=1))
    trainer.density = density
    return trainer


def gradients(trainer: SaeTrainer) -> dict[str, Tensor]:
    """What Adam got in its only step: its first moment is a tenth of it."""
    names = [name for name, _ in trainer.sae.named_parameters()]
    moments = trainer.state_dict()["adam"]["state"]
    return {name: moments[number]["exp_avg"] / 0.1 for number, name in enumerate(names)}


@pytest.mark.parametrize("density", [0.0, 1.0], ids=["sparse", "dense"])
@of_all_variants
def test_a_step_descends_the_stated_loss_on_the_unit_sphere(variant: Variant, density: float) -> None:
    """Dividing decoder rows by their norm inside the loss leaves of their gradient what is along the sphere."""
    trainer = trainer_of(variant, density=density)
    leaves = {name: tensor.clone().requires_grad_() for name, tensor in trainer.sae.named_parameters()}
    weights = dict(leaves)
    weights["W_dec"] = F.normalize(leaves["encoder" if trainer.sae.tied else "W_dec"], dim=1)
    encoder = weights["W_dec"] if trainer.sae.tied else leaves["encoder"]
    loss, _ = stated_loss(variant, weights, torch.addmm(leaves["b_enc"], INPUTS, encoder.T), INPUTS)
    loss.backward()
    close(trainer.step(INPUTS), loss.detach())
    found = gradients(trainer)
    assert found.keys() == leaves.keys()
    for name, leaf in leaves.items():
        assert leaf.grad is not None
        close(found[name], leaf.grad)


@of_all_variants
def test_a_sparse_step_is_a_dense_step(variant: Variant) -> None:
    """Weights differ by rounding alone, but where Adam makes a whole step of a gradient that is rounding itself."""
    sparse, dense = (trainer_of(variant, density=density) for density in (0.0, 1.0))
    close(sparse.step(INPUTS), dense.step(INPUTS))
    assert torch.equal(sparse.last_active, dense.last_active)
    assert sparse.density == dense.density < 0.6
    certain = {name: gradient.abs() > 1e-4 for name, gradient in gradients(dense).items()}
    expected = dense.sae.state_dict()
    for name, tensor in sparse.sae.state_dict().items():
        kept = certain.get(name, torch.ones_like(tensor, dtype=torch.bool))
        close(tensor[kept], expected[name][kept])
    assert all(kept.float().mean() > 0.3 for kept in certain.values())


def batch_threshold(least_kept: list[float]) -> float:
    """The running mean of the least values kept, which starts at the first."""
    threshold = least_kept[0]
    for least in least_kept[1:]:
        threshold = 0.99 * threshold + 0.01 * least
    return threshold


@pytest.mark.parametrize("mode", ["dense", "sparse"])
@pytest.mark.parametrize("lowered", [0.0, 4.0, 100.0], ids=["many above zero", "few above zero", "none above zero"])
def test_the_threshold_of_a_batch_is_the_mean_of_the_least_values_kept(mode: str, lowered: float) -> None:
    sae = tiny_sae(variant="batchtopk", width=WIDTH, d_in=D_IN)
    sae.threshold.zero_()
    sae.b_enc.sub_(lowered)
    objective, least = BatchTopKObjective(sae, CONFIG), []
    for seed in range(4):
        inputs = torch.randn(N, D_IN, generator=torch.Generator().manual_seed(seed))
        pre = torch.addmm(sae.b_enc, inputs, sae.encoder.T)
        largest = pre.flatten().sort(descending=True).values[: N * K]
        kept = largest[largest > 0]
        least.append(kept[-1].item() if len(kept) else 0.0)
        code = objective.code(pre, sparse=mode == "sparse")
        assert (code.values > 0).sum() == len(kept)
    assert sae.threshold.item() == pytest.approx(batch_threshold(least), rel=1e-5)


def test_the_least_value_kept_lies_between_none_and_all() -> None:
    """The cases above are what they are called."""
    sae = tiny_sae(variant="batchtopk", width=WIDTH, d_in=D_IN)
    pre = torch.addmm(sae.b_enc, INPUTS, sae.encoder.T)
    counts = [int((pre - lowered > 0).sum()) for lowered in (0.0, 4.0, 100.0)]
    assert counts[0] > N * K > counts[1] > 0 == counts[2]


@pytest.mark.parametrize(
    ("variant", "expected"),
    [("topk", [[0, 2, 0, 0], [1, 2, 0, 0], [3, 3, 0, 0]]), ("batchtopk", [[0, 2, 0, 0], [1, 2, 0, 1], [3, 3, 0, 0]])],
)
def test_of_equal_pre_activations_the_first_are_kept(variant: Variant, expected: list[list[float]]) -> None:
    pre = torch.tensor([[-1.0, 2.0, -3.0, -4.0], [1.0, 2.0, -5.0, 1.0], [3.0, 3.0, 1.0, 1.0]])
    sae = tiny_sae(variant=variant, width=4, d_in=D_IN)
    objective = OBJECTIVES[variant](sae, CONFIG.model_copy(update={"k": 2}))
    assert isinstance(objective, WrittenObjective)
    assert objective.code(pre, sparse=True).times(torch.eye(4)).tolist() == expected


@pytest.mark.parametrize("variant", ["tied_relu", "relu", "topk"])
def test_autograd_gives_the_written_gradients(variant: Variant) -> None:
    """The same step, from an objective that states the penalty alone."""

    class Stated(Objective):
        def penalty(self, features: Tensor, n_tokens: int) -> Tensor:
            return (0.0 if variant == "topk" else CONFIG.l1) * features.sum() / n_tokens

    by_formula, by_autograd = trainer_of(variant, density=1.0), trainer_of(variant, density=1.0)
    by_autograd.objective = Stated(by_autograd.sae, CONFIG)
    close(by_autograd.step(INPUTS), by_formula.step(INPUTS))
    assert torch.equal(by_autograd.last_active, by_formula.last_active)
    assert not any(parameter.requires_grad for parameter in by_autograd.sae.parameters())
    expected = gradients(by_formula)
    for name, gradient in gradients(by_autograd).items():
        close(gradient, expected[name])


@pytest.mark.parametrize("variant", ["relu", "jumprelu"])
def test_a_new_variant_is_one_line_of_loss(variant: Variant, monkeypatch: pytest.MonkeyPatch) -> None:
    class SquareRoots(Objective):
        def penalty(self, features: Tensor, n_tokens: int) -> Tensor:
            return 0.02 * (features + 1e-3).sqrt().sum() / n_tokens

    monkeypatch.setitem(OBJECTIVES, variant, SquareRoots)
    trainer = trainer_of(variant, density=0.0)
    losses = [trainer.step(INPUTS).item() for _ in range(100)]
    assert losses[-1] < 0.5 * losses[0]
    torch.testing.assert_close(trainer.sae.W_dec.norm(dim=1), torch.ones(WIDTH))
