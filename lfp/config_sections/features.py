"""What is read of the models: credits of modules, layers, autoencoders, and the statistics of their features."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from lfp.config_sections import Section
from lfp.util.types import Site

SaeVariant = Literal["tied_relu", "relu", "topk", "batchtopk", "jumprelu"]
TrainedOn = Literal["tuned", "shared", "change", "crosscoder", "base_finetuned"]


class CreditsConfig(Section):
    """The ledger: the implicit reward of texts, split exactly over the modules that tuning changed (docs/LEDGER.md)."""

    n_texts: int = Field(400, ge=1)
    """Texts whose implicit reward is split: first those whose activations are stored, then others, drawn alike."""
    by_token: int = Field(60, ge=0)
    """The first of these texts, which are also split token by token, for words and on the same position. Such a text
    takes a third more."""
    checkpoint_texts: int = Field(60, ge=1)
    """The first of these texts, which are also split at the checkpoints that `tune.keep_every` keeps."""
    batch_texts: int = Field(16, ge=1)
    """Texts per batch; gradients take several times the memory of the statistics pass."""
    tolerance: float = Field(1e-3, gt=0.0, lt=1.0)
    """Largest distance of a text's credits from its implicit reward, as a share of the sum of their sizes."""
    max_nodes: int = Field(63, ge=1)
    """Most points of the path of weights at which a text is differentiated to reach the tolerance."""


class LayersConfig(Section):
    """Which layers are analysed, and where in them activations are read."""

    count: int = Field(5, ge=1)
    """Number of layers (the paper takes five)."""
    by: Literal["credit", "divergence"] = "credit"
    """How they are chosen: those whose modules at the sites below carry most credit, or those whose weights moved most
    (the paper's)."""
    chosen: tuple[int, ...] = ()
    """The layers by number, from 0, in place of `count` and `by`: the last layer may carry much credit in features that
    fire nearly everywhere."""
    sites: tuple[Site, ...] = Field(("mlp_out",), min_length=1)
    """Where each of these layers is read: `mlp_out`, the MLP's output (the paper's), `resid_post`, the residual stream
    after the layer, `attn_out`, the attention's output; several give each layer a dictionary per site."""

    @model_validator(mode="after")
    def _none_twice(self) -> LayersConfig:
        for name, values in (("sites", self.sites), ("chosen", self.chosen)):
            if len(set(values)) < len(values):
                raise ValueError(f"{name} {values} names one twice")
        if any(layer < 0 for layer in self.chosen):
            raise ValueError(f"chosen {self.chosen}: layers are counted from 0")
        return self


class PretrainedSae(Section):
    """An autoencoder trained elsewhere, of one layer."""

    layer: int = Field(ge=0)
    """Layer that it reads."""
    site: Site = "mlp_out"
    """Where in the layer it reads: the MLP's output, the residual stream after the layer, or the attention's output."""
    folder: str | None = None
    """Folder of this project or another tool (docs/DICTIONARIES.md), or a hub repository, optionally with a folder in
    it: org/name/sub/folder."""
    release: str | None = None
    """In place of `folder`: a release of SAELens, or a hub repository as org/name."""
    sae_id: str | None = None
    """With `release`: the autoencoder's name in it, or its folder in the repository."""
    revision: str | None = None
    """Hub revision; pin a commit so that the run can be repeated."""
    model: Literal["tuned", "base"] = "tuned"
    """Model of the pair that it reads."""
    input_scale: float = Field(1.0, gt=0.0)
    """Factor that its inputs must be multiplied by, where its files do not say; it is folded into its biases."""

    @model_validator(mode="after")
    def _one_name(self) -> PretrainedSae:
        if (self.folder is None) == (self.release is None) or (self.release is None) != (self.sae_id is None):
            raise ValueError("name it by folder, or by release and sae_id together")
        return self


class SaeConfig(Section):
    """The sparse autoencoders: one per layer, site and size, on each model of the pair."""

    trained_on: TrainedOn = "tuned"
    """What the dictionary of the run's features reads (docs/DICTIONARIES.md). `tuned`: the tuned model's activations,
    and the base model has a dictionary of its own. `shared`: activations of both models, mixed. `change`: how tuning
    changed what a module writes for the same input, or the residual stream. `crosscoder`: the activations of both
    models at a token in one code, with a decoder for each model; it needs the variant batchtopk. `base_finetuned`: the
    base model's dictionary, trained on with the tuned model's activations, so that features keep their numbers."""
    variant: SaeVariant = "tied_relu"
    """Kind of autoencoder; `tied_relu` is the paper's. Equations and sources: lfp/ml/sae/autoencoders.py."""
    expansion: tuple[int, ...] = (4, 8)
    """Dictionary sizes as multiples of the activations' width; a repeated size gets another seed. The features of the
    first are kept; the others, on the tuned model only, show by matching which features are stable."""
    l1: float = Field(0.06, ge=0.0)
    """tied_relu, relu: weight of the mean L1 norm of the features, on inputs of unit mean square norm."""
    k: int = Field(16, ge=1)
    """topk, batchtopk: active features per token."""
    l0_weight: float = Field(0.003, ge=0.0)
    """jumprelu: weight of the mean number of active features."""
    bandwidth: float = Field(0.05, gt=0.0)
    """jumprelu: width of the rectangle that replaces the derivative of a step."""
    learning_rate: float = Field(6e-3, gt=0.0)
    """Highest learning rate."""
    warmup_share: float = Field(0.1, ge=0.0, lt=1.0)
    """Share of the steps over which the learning rate rises from zero."""
    decay_share: float = Field(0.5, gt=0.0, le=1.0)
    """Share of the steps, at the end, over which it falls to zero."""
    batch_tokens: int = Field(512, ge=1)
    """Tokens per step."""
    steps: int = Field(2000, ge=1)
    """Training steps."""
    products: Literal["float32", "bfloat16"] = "float32"
    """Type in which training multiplies matrices. `bfloat16` is for GPUs, where such products take a fraction of the
    time; weights, gradients and Adam's moments stay float32."""
    train_tokens: int = Field(150_000, ge=1000)
    """Activations held in memory for training, drawn from the corpus by the seed."""
    buffer_tokens: int | None = Field(None, ge=1000)
    """Stream activations of all training texts through a shuffled buffer of this many tokens, instead of holding
    `train_tokens` of them: for dictionaries that need more activations than fit into memory."""
    dead_steps: int = Field(200, ge=1)
    """Number of steps without an activation after which a feature counts as dead and is revived."""
    pretrained: tuple[PretrainedSae, ...] = ()
    """Autoencoders trained elsewhere, used instead of training those of the same layer and site."""

    @model_validator(mode="after")
    def _sizes(self) -> SaeConfig:
        if not self.expansion or min(self.expansion) < 1:
            raise ValueError(f"expansion {self.expansion} needs at least one size, none below 1")
        places = [(sae.model, sae.layer, sae.site) for sae in self.pretrained]
        if len(set(places)) < len(places):
            raise ValueError("pretrained names a layer and site of a model twice")
        return self

    @model_validator(mode="after")
    def _reads_the_pair(self) -> SaeConfig:
        if self.trained_on == "crosscoder" and self.variant != "batchtopk":
            raise ValueError(f'trained_on "crosscoder" needs variant = "batchtopk", not {self.variant}')
        barred = {"tuned": (), "base_finetuned": ("tuned",)}.get(self.trained_on, ("tuned", "base"))
        for sae in self.pretrained:
            if sae.model in barred:
                raise ValueError(
                    f'trained_on "{self.trained_on}" trains what a pretrained dictionary of the {sae.model} model would'
                    " replace; drop that entry of pretrained"
                )
        return self

    def of_variant(self) -> dict[str, Any]:
        """Return variant, l1, k and l0_weight; None where the variant has no such setting."""
        return {
            "variant": self.variant,
            "l1": self.l1 if self.variant in ("tied_relu", "relu") else None,
            "k": self.k if self.variant in ("topk", "batchtopk") else None,
            "l0_weight": self.l0_weight if self.variant == "jumprelu" else None,
        }


class StatsConfig(Section):
    """The one pass over the corpus that fills features, histograms, examples and activations."""

    n_texts: int | None = Field(None, gt=0)
    """Texts of the corpus that the pass covers; all by default."""
    batch_texts: int = Field(32, ge=1)
    """Texts per batch."""
    top_examples: int = Field(20, ge=1)
    """Examples shown per feature, those of the largest activations."""
    quantile_intervals: int = Field(4, ge=1)
    """Intervals between quantiles of a feature's activations from which further examples are shown."""
    examples_per_interval: int = Field(5, ge=1)
    """Examples shown per interval."""
    sampled_activations: int = Field(64, ge=8)
    """Size of a feature's random sample of active tokens, from which intervals and typical tokens are taken."""
    silent_examples: int = Field(10, ge=1)
    """Random tokens shown on which a feature is not active."""
    near_misses: int = Field(10, ge=0)
    """Tokens shown on which a feature is silent although one of its top tokens or its nearest neighbours suggest that
    it would fire. They are taken from the texts stored for browsing; 0 for none."""
    neighbours: int = Field(10, ge=1)
    """Neighbours listed per feature and kind of similarity."""
    coactivation_contexts: int = Field(256, ge=16)
    """Random contexts of a feature that are compared with other features'; the error falls with their square root."""
    histogram_bins: int = Field(40, ge=4, le=512)
    """Bins of a feature's histogram."""
    window: int = Field(12, ge=1)
    """Tokens kept on each side of an example."""
    store_texts: int = Field(400, ge=1)
    """Sampled texts whose activations are stored in full."""
