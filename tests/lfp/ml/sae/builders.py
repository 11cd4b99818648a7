"""Outputs with planted directions, and autoencoders in training on them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lfp.config import SaeConfig
from lfp.ml.sae.activation_sources import HeldActivations
from lfp.ml.sae.autoencoders import Sae, SaeInfo, Variant
from lfp.ml.sae.training import SaeTrainer, train_saes, unit_scale
from lfp.util.types import Place

D_IN, WIDTH, N_PLANTED = 16, 32, 24
CONFIG = SaeConfig(
    steps=600, batch_tokens=256, learning_rate=1e-2, dead_steps=50, l1=0.2, k=2, l0_weight=0.1, bandwidth=0.1
)
of_all_variants = pytest.mark.parametrize("variant", get_args(Variant))
TOP_K_FAMILY: list[Variant] = ["topk", "batchtopk"]


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


@dataclass
class Faulty:
    """The tests' source until a step."""

    step: int

    def sample(self) -> Mapping[int, Tensor]:
        return SOURCE.sample()


def made_dead(one: SaeTrainer) -> None:
    """A third of its features, by a bias that nothing overcomes."""
    one.sae.b_enc[: one.info.width // 3] = -100.0


def made_faint(one: SaeTrainer) -> None:
    """A third of its features, by encoders so short that others are always larger."""
    one.sae.encoder[: one.info.width // 3] *= 1e-3
    one.sae.b_enc[: one.info.width // 3] *= 1e-3


def spoil(one: SaeTrainer) -> None:
    """A third of its features, in the way that its variant can repair."""
    (made_faint if one.info.variant in TOP_K_FAMILY else made_dead)(one)
