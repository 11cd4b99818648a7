"""The sections of a config: frozen pydantic models, each key with its default and what it means."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from lfp.util.types import Site

PRETRAIN = "pretrain"
"""As `model.base`: train a small model from scratch on the corpus instead of loading one."""
TUNE = "tune"
"""As `model.tuned`: tune the base model on the feedback instead of loading a tuned one."""
VADER = "vader"
"""As `feedback.lexicon` or `feedback.reward`: VADER's lexicon, or the paper's reward by it."""
LEXICON = "lexicon"
"""As `feedback.reward`: the paper's reward with the values of `feedback.lexicon` in place of VADER's."""
CLASSIFIER = "classifier"
"""As `feedback.reward`: a sequence classifier, from the hub or a folder, as a reward model."""

SaeVariant = Literal["tied_relu", "relu", "topk", "batchtopk", "jumprelu"]
ProbeControl = Literal["random_sae", "trained_random_sae", "difference_in_means", "token_identity"]
TrainedOn = Literal["tuned", "shared", "change", "crosscoder", "base_finetuned"]


class Section(BaseModel):
    """A table of the TOML file; `commands` names the commands that read it."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    commands: ClassVar[tuple[str, ...]] = ("run", "sweep", "plant")


class CorpusConfig(Section):
    """Where the texts come from, and how many of them each part of a run sees."""

    source: str | None = None
    """File of texts (.jsonl, .json, .csv, .tsv, .parquet, .arrow, or .txt with one text per line; also .gz, .bz2, .xz,
    .zst), folder or pattern of such files, address (s3://, gs://, hf://, https://), or hub dataset `org/name`. A
    relative path is looked for beside the config file, then in the data folder. Not read where the texts are
    `tune.pairs`."""
    source_config: str | None = None
    """Config name of the hub dataset."""
    source_data_dir: str | None = None
    """Folder in the hub dataset whose files are read."""
    source_split: str = "train"
    """Split of the hub dataset."""
    source_revision: str | None = None
    """Hub revision of the dataset; pin a commit so that the run can be repeated."""
    text_column: str = "text"
    """Column of the texts."""
    messages_column: str = "messages"
    """Column of dialogues, lists of messages {role, content}, read where a row has no text. They are written by the
    model's chat template."""
    rating_column: str | None = None
    """Column of a human rating per text, kept beside it and never used for training."""
    held_out_source: str | None = None
    """Texts that no model is trained on, named as `source` is. Without it `held_out_share` of `source` is set aside."""
    held_out_split: str = "test"
    """Split of the hub dataset `held_out_source`."""
    held_out_share: float = Field(0.1, gt=0.0, lt=0.9)
    """Share of `source` that is set aside; of preference pairs, the share of pairs, with both sides of each."""
    n_texts: int | None = Field(None, gt=0)
    """Limit on the texts of `source`, or pairs of `tune.pairs`, drawn by the seed."""
    prompt_words: int | None = Field(None, ge=1)
    """Number of words of a preference pair's prompt that are kept, its last ones, so that the response fits into the
    context; all by default."""


class ModelConfig(Section):
    """The pair of models: base and tuned, each a hub name, a local folder, or made by the run."""

    commands = ("run", "sweep", "plant", "ablate")
    base: str = PRETRAIN
    """The base model: a hub name, a folder, a GGUF file, `package:MODULE/FILE` (a file of an installed package), or
    `pretrain`: a small model trained from scratch on the corpus."""
    base_revision: str | None = None
    """Hub revision of the base model; pin a commit so that the run can be repeated."""
    tuned: str = TUNE
    """The tuned model: as for the base, or an adapter as PEFT saves it (a folder or a hub name), or `tune`: the base
    model tuned on the feedback."""
    tuned_revision: str | None = None
    """Hub revision of the tuned model."""
    device: str = "cpu"
    """Device of torch: `cpu` or `cuda`."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of the models' weights. `bfloat16` takes half the memory and is faster where the processor has it; what is
    computed from the models' outputs is in float32 either way."""
    attn_implementation: str = "eager"
    """Attention of transformers: `eager`, `sdpa`, or what is installed."""
    context: int = Field(64, ge=4)
    """Number of tokens that a text is cut to, without the beginning-of-sequence token."""
    chat_template: str | None = None
    """Chat template of rows that are messages: a file, a Jinja template, or `dialogue`, which writes Human: and
    Assistant: as hh-rlhf does. By default the one that comes with the base model's tokenizer."""
    prepend_bos: bool = True
    """Put the beginning-of-sequence token before every text, so that the first token too has an implicit reward."""


class PretrainConfig(Section):
    """A small GPT-NeoX trained from scratch, tokenizer included; used when `model.base` is `pretrain`."""

    vocab_size: int = Field(3000, ge=300)
    """Tokens of the vocabulary."""
    d_model: int = Field(128, ge=8)
    """Width of the residual stream."""
    n_layers: int = Field(4, ge=1)
    """Number of layers."""
    n_heads: int = Field(4, ge=1)
    """Attention heads per layer; they divide `d_model`."""
    steps: int = Field(1500, ge=1)
    """Training steps."""
    batch: int = Field(64, ge=1)
    """Texts per step."""
    learning_rate: float = Field(2e-3, gt=0.0)
    """Highest learning rate."""
    warmup_share: float = Field(0.05, ge=0.0, lt=1.0)
    """Share of the steps over which the learning rate rises from zero."""
    evaluations: int = Field(0, ge=0)
    """How often the loss on held-out texts is measured during training; the weights with the lowest are kept, which
    stops a model before it memorises its texts. 0 keeps the last weights."""
    whole_texts: bool = False
    """Train on whole texts, in pieces of the context, where the rest of a run sees only their beginnings."""

    @model_validator(mode="after")
    def _heads_divide(self) -> PretrainConfig:
        if self.d_model % self.n_heads:
            raise ValueError(f"d_model {self.d_model} is not a multiple of n_heads {self.n_heads}")
        return self


class AdapterConfig(Section):
    """A low-rank adapter (LoRA): its weights alone are trained and saved, the base model's stay as they are."""

    r: int = Field(16, ge=1)
    """Rank."""
    alpha: float = Field(32.0, gt=0.0)
    """Scale: the adapter adds `alpha / r` times its product of matrices."""
    target_modules: str | tuple[str, ...] = "all-linear"
    """Modules that get an adapter: `all-linear`, every linear layer but the unembedding, or a list of names such as
    `["q_proj", "v_proj"]`."""
    dropout: float = Field(0.0, ge=0.0, lt=1.0)
    """Share of an adapter's inputs that are dropped in training."""


class TuneConfig(Section):
    """Tuning on feedback with TRL; used when `model.tuned` is `tune`."""

    commands = ("run", "sweep", "plant", "ablate")
    method: Literal["grpo", "dpo"] = "grpo"
    """`grpo` maximises the reward of completions; `dpo` learns from preference pairs."""
    steps: int = Field(80, ge=1)
    """Training steps."""
    learning_rate: float = Field(3e-4, gt=0.0)
    """Learning rate."""
    adapter: AdapterConfig | None = None
    """Train a low-rank adapter with these settings, as in {r = 16, alpha = 32}, in place of all weights; the tuned
    model is then the folder of the adapter."""
    freeze_embeddings: bool = False
    """Leave the embeddings and the unembedding as they are."""
    gradient_accumulation: int = Field(1, ge=1)
    """Parts that a step's batch is computed in, one after the other: the step is the same, with less memory."""
    keep_every: int | None = Field(None, ge=1)
    """Keep the model, or its adapter, after every so many steps, as `checkpoints/step-N` of the bundle's artifacts."""
    logger: Literal["none", "trackio", "wandb", "mlflow"] = "none"
    """Also send the figures of every step to this tracker, whose package must be installed; its own environment
    variables configure it."""
    beta: float = Field(0.05, ge=0.0)
    """Weight of the KL term (GRPO) or inverse temperature (DPO)."""
    prompts_per_step: int = Field(8, ge=1)
    """GRPO: prompts per step."""
    group_size: int = Field(8, ge=2)
    """GRPO: completions per prompt, which are compared with each other."""
    prefix_tokens: tuple[int, int] = (2, 10)
    """Shortest and longest prompt, in tokens from the beginning of a text."""
    completion_tokens: int = Field(16, ge=1)
    """Tokens per completion."""
    temperature: float = Field(1.0, gt=0.0)
    """Temperature at which completions are sampled."""
    pairs: str | None = None
    """DPO: preference pairs, named as `corpus.source` is, with the columns `chosen` and `rejected`, and optionally
    `prompt`, or with those of a known dataset (docs/FEEDBACK.md)."""
    pairs_config: str | None = None
    """Config name of the hub dataset."""
    pairs_data_dir: str | None = None
    """Folder in the hub dataset whose files are read."""
    pairs_verdict: str | None = None
    """Column that says which of two answers is better, where a dataset has several, such as `safer_response_id`."""
    pairs_split: str = "train"
    """Split of the hub dataset."""
    pairs_revision: str | None = None
    """Hub revision of the dataset; pin a commit so that the run can be repeated."""
    pairs_batch: int = Field(16, ge=1)
    """DPO: pairs per step."""
    eval_prefixes: int = Field(500, ge=10)
    """Held-out prefixes on which base and tuned model are compared."""

    @model_validator(mode="after")
    def _pairs_for_dpo(self) -> TuneConfig:
        if self.method == "dpo" and self.pairs is None:
            raise ValueError('method "dpo" needs tune.pairs, a file with the columns chosen and rejected')
        if not 1 <= self.prefix_tokens[0] <= self.prefix_tokens[1]:
            raise ValueError(f"prefix_tokens {self.prefix_tokens} is not a range of at least one token")
        return self

    @model_validator(mode="after")
    def _parts_are_equal(self) -> TuneConfig:
        completions, parts = self.prompts_per_step * self.group_size, self.gradient_accumulation
        batch, keys = (
            (self.pairs_batch, "pairs_batch")
            if self.method == "dpo"
            else (completions, "prompts_per_step x group_size")
        )
        if batch % parts:
            raise ValueError(f"gradient_accumulation {parts} does not divide {keys}, {batch}")
        return self


class ForecastConfig(Section):
    """Forecast and receipt, where the model is tuned here on preference pairs.

    Before the tuning: the mean difference, chosen minus rejected, of every feature of the base model. After it: what
    tuning changed of each, and how well the one predicts the other.
    """

    commands = ("run",)
    pairs: int = Field(1000, ge=0)
    """Pairs read, at most, of those tuned on and of those held out; 0 for no forecast."""
    layer: int | None = Field(None, ge=0)
    """Layer of the base model whose features are forecast; two thirds up by default. The dictionary is trained for it
    by the settings of `[sae]`, in the first size of `sae.expansion`."""
    credit_pairs: int = Field(50, ge=0)
    """Held-out pairs whose implicit reward is split over these features; 0 for none."""


class TwinsConfig(Section):
    """Twins: models tuned from the base on the same stated feedback by other seeds, as the null of what tuning did."""

    commands = ("run", "plant")
    n: int = Field(0, ge=0, le=100)
    """Number of twins, each of which takes as long as the tuning itself; 8 give every claim of what tuning did a null.
    Three at least: each is tested against the others too."""
    folder: str | None = None
    """Folder where they are kept, for every run with the same base, feedback and settings of `[tune]`; by default
    `.twins` beside the bundle."""

    @model_validator(mode="after")
    def _has_a_spread(self) -> TwinsConfig:
        if 0 < self.n < 3:
            raise ValueError(f"n {self.n} leaves fewer than two to compare a twin with; set 0 for no twins, or 8")
        return self


class FeedbackConfig(Section):
    """The true feedback: rewards of texts, and the stated values of words."""

    commands = ("run", "sweep", "plant", "ablate")
    reward: str = VADER
    """`vader`, `lexicon`, `classifier`, or `module:function`: a Python function that takes a list of texts and returns
    one number per text; the module is in the working directory, beside the config file, or installed."""
    lexicon: str = VADER
    """Stated values of words: `vader`, or a file with the columns `word` and `value` (.csv, .tsv, .json, .jsonl,
    .parquet), or a .json file of one object {word: value}."""
    classifier: str | None = None
    """`classifier`: hub name or folder of a sequence classifier."""
    classifier_revision: str | None = None
    """Hub revision of the classifier; pin a commit so that the run can be repeated."""
    classifier_label: str | None = None
    """Label whose log-odds are the reward, where the classifier has more than two."""
    classifier_batch: int = Field(32, ge=1)
    """Texts that the classifier scores at once."""

    @model_validator(mode="after")
    def _reward_is_named(self) -> FeedbackConfig:
        module, colon, function = self.reward.partition(":")
        if self.reward not in (VADER, LEXICON, CLASSIFIER) and not (colon and module and function.isidentifier()):
            raise ValueError(
                f'reward "{self.reward}" is none of vader, lexicon and classifier, nor of the form module:function'
            )
        if (self.reward == CLASSIFIER) != (self.classifier is not None):
            raise ValueError('reward = "classifier" and classifier = "org/name" go together; set both or neither')
        return self


class CreditsConfig(Section):
    """The ledger: the implicit reward of texts, split exactly over the modules that tuning changed (docs/LEDGER.md)."""

    n_texts: int = Field(400, ge=1)
    """Texts whose implicit reward is split: first those whose activations are stored, then others, drawn alike."""
    by_token: int = Field(60, ge=0)
    """The first of these texts, which are also split token by token, for words and on the same position. Such a text
    takes half as long again."""
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
    sites: tuple[Site, ...] = Field(("mlp_out",), min_length=1)
    """Where each of these layers is read: `mlp_out`, the MLP's output (the paper's), `resid_post`, the residual stream
    after the layer, `attn_out`, the attention's output; several give each layer a dictionary per site."""

    @model_validator(mode="after")
    def _no_site_twice(self) -> LayersConfig:
        if len(set(self.sites)) < len(self.sites):
            raise ValueError(f"sites {self.sites} names a site twice")
        return self


class FeatureCreditsConfig(Section):
    """What tuning's change of each feature carries of the implicit reward (docs/CREDITS.md)."""

    texts: int = Field(200, ge=0)
    """Texts that are split over features, of those whose activations are kept; 0 for none."""
    nodes: int = Field(3, ge=1)
    """Points between the base's and the tuned model's weights at which gradients are taken; each costs about six
    forward passes."""
    batch_texts: int = Field(16, ge=1)
    """Texts per pass."""
    interventions: int = Field(50, ge=0)
    """Features of the largest credit that are taken out of what tuning changed, to compare the effect with the credit;
    0 for none."""
    controls: int = Field(50, ge=0)
    """How many of these have a matched control, a feature of less credit that is taken out too."""
    intervention_texts: int = Field(64, ge=1)
    """Texts whose implicit reward is compared with and without each feature."""
    rewarded: int = Field(10, ge=0)
    """How many of these features, those of MLPs, are also missing while completions are written, `ablation.completions`
    each time; 0 for none."""


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


class ProbesConfig(Section):
    """Triples, probes and their nulls."""

    commands = ("run", "plant", "ablate", "label")
    triples: int = Field(3000, ge=10)
    """Number of triples: a sentence with a positive, a negative and a neutral word."""
    strong_quantile: float = Field(0.75, gt=0.0, lt=1.0)
    """A word is strongly positive or negative above this quantile of the lexicon's absolute values, sign by sign."""
    folds: int = Field(5, ge=3)
    """Folds over words; each word is predicted by a probe that has not seen it."""
    shared_tokens: Literal["drop", "keep"] = "drop"
    """Whether a fold's probes may be fitted on tokens that words of the fold share with other words. `drop` leaves such
    rows out, unless words are written with so few tokens that less than a fifth of the rows would be left."""
    alphas: tuple[PositiveFloat, ...] = Field(
        (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1e3, 3e3, 1e4), min_length=1
    )
    """Penalties from which one is selected by cross-validation, the same for the tuned and the base model: that of the
    least sum of both probes' errors, since differences of tau would otherwise follow from the penalties."""
    max_rows: int = Field(60_000, ge=100)
    """Tokens that the implicit-reward probe is fitted on, drawn by the seed."""
    dictionary_seeds: int = Field(1, ge=1, le=20)
    """Dictionaries of each model, from as many seeds, that differences between tuned and base are averaged over, each
    with folds of its own. With 1 the interval of a difference is over words or pairs only; 3 or more give it the
    dictionaries' share too."""
    permutations: int = Field(200, ge=20)
    """Permutations per null."""
    bootstraps: int = Field(500, ge=20)
    """Bootstrap samples per interval."""
    frequency_bins: int = Field(5, ge=1)
    """Lexicon values are permuted only among words of similar frequency, in this many bins."""
    min_word_count: int = Field(5, ge=1)
    """Occurrences that a word needs to enter the vocabulary."""
    triples_by: Literal["lexicon", "language_model"] = "lexicon"
    """What puts other words into a sentence: words of the corpus by the lexicon, or a language model."""
    triples_model: str | None = None
    """`language_model`: name of the model on the server of `[language_model]`."""
    matched_contexts: int = Field(20_000, ge=100)
    """Contexts in the regression of the implicit reward on word and context, drawn by the seed."""
    word_occurrences: int = Field(200, ge=1)
    """Occurrences of a word whose features are averaged, drawn by the seed."""
    rollouts: int = Field(10, ge=0)
    """Completions of the tuned model from before and from after every word, which separate a word's own reward from
    what it leads to. 0 for none; never where the feedback is pairs."""
    pooling: Literal["last", "mean", "sum", "response", "max"] = "response"
    """How tokens make the inputs of a text where a probe's target is of texts; `response` is the mean over the tokens
    of the response, or over all tokens where there is no prompt."""
    controls: tuple[ProbeControl, ...] = get_args(ProbeControl)
    """Inputs probed beside those of both models: features of a random dictionary, features of a dictionary whose random
    decoder was frozen while the rest of it was trained (which `saes` trains), raw activations along the difference of
    two means in place of a ridge, and the token alone."""
    weight_permutations: int = Field(200, ge=20)
    """Shuffles of the word values (of preferences, where the texts are pairs) that give the weights of features their
    null, where the target is not the lexicon."""


class LabelsConfig(Section):
    """Descriptions of features: what labellers are shown, and how their labels are scored."""

    commands = ("run", "plant", "label")
    labeller: Literal["offline-tokens"] = "offline-tokens"
    """Labeller that describes every feature during the run, without a network; `label` adds a language model's."""
    task: str | None = None
    """What the feedback is about: sentiment, helpfulness, harmlessness, preference, or a sentence of your own. By
    default it follows from the feedback and the tuning method."""
    related_threshold: float = Field(0.5, gt=0.0, lt=1.0)
    """A feature is related when at least this share of its shown activation is on words that the lexicon scores."""
    stable: int = Field(30, ge=0)
    """Features that a language model describes: the most stable of each layer and site (the paper's choice)."""
    weighted: int = Field(50, ge=0)
    """Further ones: those that contribute most to the headline estimate."""
    drifted: int = Field(50, ge=0)
    """Further ones: those whose contribution tuning changed most."""
    random: int = Field(50, ge=0)
    """Further ones, as a control: drawn at random among features that are active about as often."""
    top_shown: int = Field(5, ge=1)
    """Excerpts of the largest activations that a labeller is shown."""
    shown_per_interval: int = Field(1, ge=0)
    """Excerpts shown from each interval of activation quantiles."""
    look_alikes_shown: int = Field(3, ge=0)
    """Excerpts shown on which the feature is silent although one would expect it to fire."""
    repeats: int = Field(3, ge=1)
    """How often a feature is described, each time from other excerpts, to measure the agreement of the answers."""
    scored_examples: int = Field(20, ge=4)
    """Held-out excerpts that a description is scored on, half of them active."""
    swapped: int = Field(20, ge=0)
    """Features whose excerpts a language model also scores by another feature's description: the null of the score."""
    answer_tokens: int = Field(512, ge=64)
    """Limit on the tokens of an answer, reasoning included."""


class AblationConfig(Section):
    """Features removed from the tuned model while it writes, compared with matched controls.

    Length and temperature of completions are those of `tune`. Where the feedback is pairs, no reward of texts is the
    feedback, and a completion's score is its implicit reward: the sum over its tokens of log pi_tuned - log pi_base of
    the unchanged models.
    """

    commands = ("run", "ablate")
    groups: tuple[Literal["related", "weighted", "both"], ...] = ("related", "weighted", "both")
    """Groups that are removed: features that the labeller calls related to the feedback, those that raise the headline
    estimate most, and the related ones among those that raise it."""
    group_size: int = Field(20, ge=1)
    """Largest number of features per group."""
    controls: int = Field(20, ge=1)
    """Control groups per group, of the same layers, matched in density and removed energy; and matched single
    features that single features are compared with."""
    features: int = Field(50, ge=0)
    """Features that are also removed one by one, those with the largest weight in the headline probe."""
    completions: int = Field(1000, ge=0)
    """Completions per group, from the same prefixes and seeds for every group; 0 for no ablation."""
    clean_runs: int = Field(4, ge=1)
    """Runs of the unchanged model, each with another seed, whose mean says what it writes without the luck of one."""
    prefix_tokens: int = Field(30, ge=1)
    """Tokens of a held-out text that a completion continues, without the beginning-of-sequence token; shorter texts are
    skipped."""
    scale: float = Field(0.0, ge=0.0)
    """Factor on a feature's activation: 0 removes it, 2 doubles it."""
    batch: int = Field(256, ge=1)
    """Completions sampled at once."""


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
