"""The grid of a sweep: every variant at every value of its own setting, in every size, from every seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lfp.config import PRETRAIN, RunConfig, SaeConfig, SaeVariant
from lfp.errors import ConfigError
from precompute import pair
from precompute.run import Run

if TYPE_CHECKING:
    from lfp.ml.sae.autoencoders import SaeInfo

_SETTINGS: dict[SaeVariant, str] = {
    "tied_relu": "l1",
    "relu": "l1",
    "topk": "k",
    "batchtopk": "k",
    "jumprelu": "l0_weight",
}
"""What each variant is set by; the other settings do not reach it."""


@dataclass(frozen=True)
class Point:
    """One autoencoder of the grid, in any layer: `setting` (l1, k or l0_weight) has `value`."""

    variant: SaeVariant
    setting: str
    value: float
    expansion: int
    seed: int

    @property
    def group(self) -> str:
        """Its name in the column `group` of `results`."""
        return f"variant={self.variant},{self.setting}={self.value},expansion={self.expansion},seed={self.seed}"

    def training(self, config: RunConfig) -> SaeConfig:
        """How it is trained: the sae section with the point's own variant, setting and learning rate."""
        rate = getattr(config.sweep.learning_rate, self.variant) or config.sae.learning_rate
        own: dict[str, Any] = {"variant": self.variant, "learning_rate": rate, self.setting: self.value}
        return config.sae.model_copy(update=own)

    def info(self, *, layer: int, d_in: int, scale: float) -> SaeInfo:
        """What it is in a layer of the tuned model whose MLP output has `d_in` dimensions."""
        from lfp.ml.sae.autoencoders import SaeInfo

        settings: dict[str, Any] = dict.fromkeys(_SETTINGS.values()) | {self.setting: self.value}
        return SaeInfo(
            layer=layer,
            width=self.expansion * d_in,
            d_in=d_in,
            scale=scale,
            seed=self.seed,
            model="tuned",
            variant=self.variant,
            **settings,
        )


def points(config: RunConfig) -> list[Point]:
    """Every point of the grid; what the sweep section leaves out is the sae section's, and the run's seed."""
    sweep = config.sweep
    sizes = sweep.expansion or tuple(dict.fromkeys(config.sae.expansion))
    return [
        Point(variant, _SETTINGS[variant], value, size, seed)
        for variant in sweep.variants
        for value in _values(config, _SETTINGS[variant])
        for size in sizes
        for seed in sweep.seeds or (config.seed,)
    ]


def check_k(run: Run, grid: Sequence[Point]) -> None:
    """Before any training: raises ConfigError for a k that is more than the features of its dictionary."""
    by_k = [point for point in grid if point.setting == "k"]
    if not by_k:
        return
    config = run.config
    d_in = config.pretrain.d_model if config.model.base == PRETRAIN else pair.load(run, "base").d_model
    for point in by_k:
        if point.value > point.expansion * d_in:
            raise ConfigError(
                f"sweep: k {point.value} is more than the {point.expansion * d_in} features of expansion"
                f" {point.expansion} of {d_in} dimensions; lower sweep.k or raise sweep.expansion"
            )


def _values(config: RunConfig, setting: str) -> tuple[float, ...]:
    return getattr(config.sweep, setting) or (getattr(config.sae, setting),)
