"""How the pair of models comes about: texts, base and tuned model, tuning on feedback, its forecast, its twins."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from lfp.config_sections import Section

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
    context; all by default. Of messages whole turns are kept: the last ones with at most so many words, and always the
    last turn before the response."""


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
    device_map: Literal["auto", "balanced", "sequential"] | None = None
    """With `device = "cuda"`: how each model's layers are spread over the cards, in the words of accelerate, for models
    that one card does not hold; by default a model is on one card. Tuning itself needs a model on one card."""
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

    @model_validator(mode="after")
    def _spreads_over_cards(self) -> ModelConfig:
        if self.device_map is not None and not self.device.startswith("cuda"):
            raise ValueError(f'device_map "{self.device_map}" needs device = "cuda"; set it, or leave device_map out')
        if self.device_map is not None and TUNE in (self.tuned, self.base):
            raise ValueError(
                f'device_map "{self.device_map}" is for models that are given; tune on one card first, then name the'
                " tuned model"
            )
        return self


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
    pairs_as: Literal["written", "messages"] = "written"
    """How dialogues with Human: and Assistant: are read: as they are written, or as messages, which the model's chat
    template writes."""
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
