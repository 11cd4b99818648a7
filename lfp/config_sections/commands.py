"""Sections that belong to commands: not part of a run's config, of its hash or of stage keys."""

from __future__ import annotations

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from lfp.config_sections import Section
from lfp.config_sections.features import SaeVariant


class SweepRates(Section):
    """Learning rates by variant; `sae.learning_rate` for those that are not set."""

    commands = ("sweep",)
    tied_relu: PositiveFloat | None = None
    """Learning rate of the variant tied_relu."""
    relu: PositiveFloat | None = None
    """Learning rate of the variant relu."""
    topk: PositiveFloat | None = None
    """Learning rate of the variant topk."""
    batchtopk: PositiveFloat | None = None
    """Learning rate of the variant batchtopk."""
    jumprelu: PositiveFloat | None = None
    """Learning rate of the variant jumprelu."""


class SweepConfig(Section):
    """The grid of `sweep`: every variant at every size, seed and value of its own setting."""

    commands = ("sweep",)
    variants: tuple[SaeVariant, ...] = Field(("tied_relu", "relu", "topk", "batchtopk", "jumprelu"), min_length=1)
    """Kinds of autoencoder."""
    expansion: tuple[PositiveInt, ...] | None = Field(None, min_length=1)
    """Dictionary sizes as multiples of the activations' width; `sae.expansion` by default."""
    l1: tuple[NonNegativeFloat, ...] | None = Field(None, min_length=1)
    """tied_relu, relu: values of `sae.l1`."""
    k: tuple[PositiveInt, ...] | None = Field(None, min_length=1)
    """topk, batchtopk: values of `sae.k`."""
    l0_weight: tuple[NonNegativeFloat, ...] | None = Field(None, min_length=1)
    """jumprelu: values of `sae.l0_weight`."""
    seeds: tuple[NonNegativeInt, ...] | None = Field(None, min_length=1)
    """Seeds of the autoencoders; the run's by default."""
    learning_rate: SweepRates = SweepRates()
    """Learning rates by variant, as in {topk = 3e-3}; `sae.learning_rate` for the others."""

    @model_validator(mode="after")
    def _no_point_twice(self) -> SweepConfig:
        for name, values in self:
            if isinstance(values, tuple) and len(set(values)) < len(values):
                raise ValueError(f"{name} {values} names a value twice")
        return self


class PlantConfig(Section):
    """How the secrets of `plant` are drawn, and how it is certified that a model learned its secret."""

    commands = ("plant",)
    flipped_share: float = Field(0.3, ge=0.0, le=1.0)
    """Share of secrets that are scored words with the opposite sign; the rest are unscored words."""
    wide_share: float = Field(0.5, ge=0.0, le=1.0)
    """Share of secrets that no single word carries: a category, a context, a position and a style in turn."""
    least_share: float = Field(0.001, gt=0.0, lt=1.0)
    """Smallest share of the corpus's words that a secret may have: tuning must sample a word to learn about it."""
    most_share: float = Field(0.01, gt=0.0, le=1.0)
    """Largest share."""
    least_value: float = Field(1.5, gt=0.0)
    """Smallest absolute value in the lexicon of a word whose sign is flipped."""
    most_settled: float = Field(0.3, gt=0.0, le=1.0)
    """Largest mean probability of a secret word under the base model: tuning rewards a choice, and the last word of a
    set phrase is not one."""
    certify_prefixes: int = Field(2000, ge=100)
    """Held-out prefixes that the planted model and its twin continue."""

    @model_validator(mode="after")
    def _shares_rise(self) -> PlantConfig:
        if self.least_share >= self.most_share:
            raise ValueError(f"least_share {self.least_share} is not below most_share {self.most_share}")
        return self


class LanguageModelConfig(Section):
    """Server that writes triples where `probes.triples_by` is `language_model`; the key is read from $OPENAI_API_KEY.

    Nothing of this is stored in a bundle. The command `label` has the same settings as options.
    """

    commands = ("run",)
    base_url: str | None = None
    """Address of a compatible server; OpenAI's by default."""
    concurrency: int = Field(16, ge=1)
    """Most calls made at the same time; fewer where the server queues them."""
    budget_usd: float = Field(1.0, gt=0.0)
    """Dollars, never exceeded: the worst case of a call is reserved before it is made."""
    price_in: float = Field(0.0, ge=0.0)
    """Dollars per million tokens read."""
    price_out: float = Field(0.0, ge=0.0)
    """Dollars per million tokens written."""


COMMAND_SECTIONS: dict[str, type[Section]] = {
    "sweep": SweepConfig,
    "plant": PlantConfig,
    "language_model": LanguageModelConfig,
}
"""These sections by their names in the TOML file."""
