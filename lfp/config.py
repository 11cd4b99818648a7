"""What a run is: frozen pydantic models, one a stage, read from TOML and kept as JSON in the manifest."""

from __future__ import annotations

import copy
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    model_validator,
)

from lfp.errors import ConfigError

PRETRAIN = "pretrain"
"""As `model.base`: train a small model from scratch on the corpus instead of loading one."""
TUNE = "tune"
"""As `model.tuned`: tune the base model on the feedback instead of loading a tuned one."""


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class CorpusConfig(_Section):
    """Where the texts come from, and how many of them each part of a run sees."""

    source: str = "demo"
    """`demo` (generated reviews) or a path: .jsonl, .jsonl.gz, .csv, .parquet, or .txt (a text a line).
    A relative path is looked for beside the config file, then in the data folder."""
    text_column: str = "text"
    rating_column: str | None = None
    """A human rating a text, kept beside it; never used for training."""
    held_out_source: str | None = None
    """Texts no model is trained on. Without it `held_out_share` of `source` is set aside."""
    held_out_share: float = Field(0.1, gt=0.0, lt=0.9)
    """Of preference pairs: the share of pairs, both sides of each."""
    n_texts: int | None = Field(None, gt=0)
    """At most this many texts of `source`, or pairs of `tune.pairs`, drawn by the seed; the number generated for
    `demo`."""
    prompt_words: int | None = Field(None, ge=1)
    """Words of a preference pair's prompt that are kept, its last ones, so that the response is within the context;
    all by default."""
    demo_zipf: float = Field(0.0, ge=0.0)
    """`demo`: how unevenly the reviews use their sentiment words, from 0, alike, over 1, about as people do, on."""


class ModelConfig(_Section):
    """The pair: base and tuned, each a hub name, a local folder, or made here."""

    base: str = PRETRAIN
    base_revision: str | None = None
    """A hub revision; pin a commit so that the run can be repeated."""
    tuned: str = TUNE
    tuned_revision: str | None = None
    device: str = "cpu"
    context: int = Field(64, ge=4)
    """Tokens a text is cut to, beginning-of-sequence token not counted."""
    prepend_bos: bool = True
    """Put the beginning-of-sequence token before every text, so that the first token too has an implicit reward."""


class PretrainConfig(_Section):
    """A small GPT-NeoX trained from scratch, tokenizer included; used when `model.base` is `pretrain`."""

    vocab_size: int = Field(3000, ge=300)
    d_model: int = Field(128, ge=8)
    n_layers: int = Field(4, ge=1)
    n_heads: int = Field(4, ge=1)
    steps: int = Field(1500, ge=1)
    batch: int = Field(64, ge=1)
    learning_rate: float = Field(2e-3, gt=0.0)
    warmup_share: float = Field(0.05, ge=0.0, lt=1.0)
    evaluations: int = Field(0, ge=0)
    """Times that held-out texts are read while training; the weights that predict them best are kept, so that a model
    that begins to learn its texts by heart is stopped in effect. 0: the last weights are kept."""
    whole_texts: bool = False
    """Texts are read to their end, in pieces of the context, where the rest of a run sees only their beginnings."""

    @model_validator(mode="after")
    def _heads_divide(self) -> PretrainConfig:
        if self.d_model % self.n_heads:
            raise ValueError(f"d_model {self.d_model} is not a multiple of n_heads {self.n_heads}")
        return self


class TuneConfig(_Section):
    """Tuning on feedback with TRL; used when `model.tuned` is `tune`."""

    method: Literal["grpo", "dpo"] = "grpo"
    steps: int = Field(80, ge=1)
    learning_rate: float = Field(3e-4, gt=0.0)
    beta: float = Field(0.05, ge=0.0)
    """Weight of the KL term (GRPO) or inverse temperature (DPO)."""
    prompts_per_step: int = Field(8, ge=1)
    group_size: int = Field(8, ge=2)
    """GRPO: completions of one prompt, compared with each other."""
    prefix_tokens: tuple[int, int] = (2, 10)
    completion_tokens: int = Field(16, ge=1)
    temperature: float = Field(1.0, gt=0.0)
    pairs: str | None = None
    """DPO: a file of preference pairs with the columns `chosen` and `rejected`, and `prompt` where it has one, or a hub
    dataset `org/name` of such rows."""
    pairs_split: str = "train"
    """The split that is read of a hub dataset."""
    pairs_revision: str | None = None
    """A hub revision of the dataset; pin a commit so that the run can be repeated."""
    pairs_batch: int = Field(16, ge=1)
    eval_prefixes: int = Field(500, ge=10)
    """Held-out prefixes on which base and tuned model are compared."""

    @model_validator(mode="after")
    def _pairs_for_dpo(self) -> TuneConfig:
        if self.method == "dpo" and self.pairs is None:
            raise ValueError('method "dpo" needs tune.pairs, a file with the columns chosen and rejected')
        if not 1 <= self.prefix_tokens[0] <= self.prefix_tokens[1]:
            raise ValueError(f"prefix_tokens {self.prefix_tokens} is not a range of at least one token")
        return self


VADER = "vader"
"""As `feedback.lexicon` or `feedback.reward`: VADER's lexicon, or the paper's reward by it."""
LEXICON = "lexicon"
"""As `feedback.reward`: the paper's reward with the values of `feedback.lexicon` in place of VADER's."""
CLASSIFIER = "classifier"
"""As `feedback.reward`: a sequence classifier of the hub, or of a folder, as a reward model."""


class FeedbackConfig(_Section):
    """The true feedback: rewards of texts, and the values that words are stated to have."""

    reward: str = VADER
    """`vader`, `lexicon`, `classifier`, or `module:function`: a Python function of a list of texts that returns one
    number each; the module is in the working directory, beside the config file, or installed."""
    lexicon: str = VADER
    """The stated values of words: `vader`, or a file with the columns `word` and `value` (.csv, .tsv, .json, .jsonl,
    .parquet), or a .json file of one object {word: value}."""
    classifier: str | None = None
    """`classifier`: a sequence classifier, by hub name or folder."""
    classifier_revision: str | None = None
    """A hub revision; pin a commit so that the run can be repeated."""
    classifier_label: str | None = None
    """The label whose log-odds are the reward, where the classifier has more than two."""
    classifier_batch: int = Field(32, ge=1)

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


class LayersConfig(_Section):
    """Which layers are looked into."""

    count: int = Field(5, ge=1)
    """The most divergent layers that are kept (the paper keeps five)."""


SaeVariant = Literal["tied_relu", "relu", "topk", "batchtopk", "jumprelu"]


class PretrainedSae(_Section):
    """An autoencoder made elsewhere, of one layer's MLP output."""

    layer: int = Field(ge=0)
    folder: str
    """A folder that SAELens or this project saved, or a hub repository, with a folder in it: org/name/sub/folder."""
    revision: str | None = None
    """A hub revision; pin a commit so that the run can be repeated."""
    model: Literal["tuned", "base"] = "tuned"
    """The model of the pair whose layer it reads."""


class SaeConfig(_Section):
    """The sparse autoencoders: one a layer and size, on each model of the pair."""

    variant: SaeVariant = "tied_relu"
    """`tied_relu` is the paper's. Equations and sources: lfp/ml/sae/autoencoders.py."""
    expansion: tuple[int, ...] = (4, 8)
    """Dictionary sizes as multiples of the MLP's output width; a size named again gets another seed. Features of the
    first are kept; the others, on the tuned model only, tell by matching which of them are stable."""
    l1: float = Field(0.06, ge=0.0)
    """tied_relu, relu: weight of the mean L1 norm of the features, on inputs of unit mean square norm."""
    k: int = Field(16, ge=1)
    """topk, batchtopk: active features a token."""
    l0_weight: float = Field(0.003, ge=0.0)
    """jumprelu: weight of the mean number of active features."""
    bandwidth: float = Field(0.05, gt=0.0)
    """jumprelu: width of the rectangle that stands for the derivative of a step."""
    learning_rate: float = Field(6e-3, gt=0.0)
    warmup_share: float = Field(0.1, ge=0.0, lt=1.0)
    """Share of the steps over which the rate rises from nothing."""
    decay_share: float = Field(0.5, gt=0.0, le=1.0)
    """Share of the steps, at the end, over which it falls to nothing."""
    batch_tokens: int = Field(512, ge=1)
    steps: int = Field(2000, ge=1)
    train_tokens: int = Field(150_000, ge=1000)
    """Activations held in memory for training, drawn from the corpus by the seed."""
    buffer_tokens: int | None = Field(None, ge=1000)
    """Stream activations of all training texts through a shuffled buffer of this many tokens, instead of holding
    `train_tokens` of them: for dictionaries that want more than memory holds."""
    dead_steps: int = Field(200, ge=1)
    """A feature not active for so many steps is dead, and revived."""
    pretrained: tuple[PretrainedSae, ...] = ()
    """Autoencoders made elsewhere, in place of training those layers."""

    @model_validator(mode="after")
    def _sizes(self) -> SaeConfig:
        if not self.expansion or min(self.expansion) < 1:
            raise ValueError(f"expansion {self.expansion} needs at least one size, none below 1")
        named = [(one.model, one.layer) for one in self.pretrained]
        if len(set(named)) < len(named):
            raise ValueError("pretrained names a layer of a model twice")
        return self

    def of_variant(self) -> dict[str, Any]:
        """Variant, l1, k and l0_weight: None where the variant has no such thing."""
        return {
            "variant": self.variant,
            "l1": self.l1 if self.variant in ("tied_relu", "relu") else None,
            "k": self.k if self.variant in ("topk", "batchtopk") else None,
            "l0_weight": self.l0_weight if self.variant == "jumprelu" else None,
        }


class SweepRates(_Section):
    """Learning rates by variant; the sae section's for those not named."""

    tied_relu: PositiveFloat | None = None
    relu: PositiveFloat | None = None
    topk: PositiveFloat | None = None
    batchtopk: PositiveFloat | None = None
    jumprelu: PositiveFloat | None = None


class SweepConfig(_Section):
    """The grid of `precompute sweep`: every variant at every size, seed and value of the setting that is its own."""

    variants: tuple[SaeVariant, ...] = Field(("tied_relu", "relu", "topk", "batchtopk", "jumprelu"), min_length=1)
    expansion: tuple[PositiveInt, ...] | None = Field(None, min_length=1)
    """Dictionary sizes as multiples of the MLP's output width. This and the settings below are the sae section's where
    they are not named."""
    l1: tuple[NonNegativeFloat, ...] | None = Field(None, min_length=1)
    """tied_relu, relu."""
    k: tuple[PositiveInt, ...] | None = Field(None, min_length=1)
    """topk, batchtopk."""
    l0_weight: tuple[NonNegativeFloat, ...] | None = Field(None, min_length=1)
    """jumprelu."""
    seeds: tuple[NonNegativeInt, ...] | None = Field(None, min_length=1)
    """Seeds that autoencoders start from; the run's own where they are not named."""
    learning_rate: SweepRates = SweepRates()

    @model_validator(mode="after")
    def _no_point_twice(self) -> SweepConfig:
        for name, values in self:
            if isinstance(values, tuple) and len(set(values)) < len(values):
                raise ValueError(f"{name} {values} names a value twice")
        return self


class StatsConfig(_Section):
    """The one pass over the corpus that fills features, histograms, examples and activations."""

    n_texts: int | None = Field(None, gt=0)
    """Texts of the corpus the pass runs over; all by default."""
    batch_texts: int = Field(32, ge=1)
    top_examples: int = Field(20, ge=1)
    quantile_intervals: int = Field(4, ge=1)
    examples_per_interval: int = Field(5, ge=1)
    sampled_activations: int = Field(64, ge=8)
    """A feature's random sample of active tokens, from which intervals and typical tokens are read."""
    silent_examples: int = Field(10, ge=1)
    """Random tokens shown on which a feature is not active."""
    near_misses: int = Field(10, ge=0)
    """Tokens shown around which a feature is silent although one would expect it to fire: one of its top tokens, or
    its nearest neighbours are active. They are looked for among the texts kept for browsing; 0 for none."""
    neighbours: int = Field(10, ge=1)
    """Features listed as nearest to each, of each kind of nearness."""
    coactivation_contexts: int = Field(256, ge=16)
    """A feature's random contexts that are compared with other features'; the error falls with their square root."""
    histogram_bins: int = Field(40, ge=4, le=512)
    window: int = Field(12, ge=1)
    """Tokens kept on each side of an example."""
    store_texts: int = Field(400, ge=1)
    """Sampled texts whose activations are kept whole."""


class ProbesConfig(_Section):
    """Triples, probes and their nulls."""

    triples: int = Field(3000, ge=10)
    strong_quantile: float = Field(0.75, gt=0.0, lt=1.0)
    """A word is strongly positive or negative above this quantile of the lexicon's absolute values, sign by sign."""
    folds: int = Field(5, ge=3)
    alphas: tuple[PositiveFloat, ...] = Field((1e-2, 1e-1, 1.0, 1e1, 1e2, 1e3, 1e4), min_length=1)
    max_rows: int = Field(60_000, ge=100)
    """Tokens the implicit-reward probe is fitted on, drawn by the seed."""
    permutations: int = Field(200, ge=20)
    bootstraps: int = Field(500, ge=20)
    frequency_bins: int = Field(5, ge=1)
    """Lexicon values are permuted among words of like frequency only."""
    min_word_count: int = Field(5, ge=1)
    triples_by: Literal["lexicon", "language_model"] = "lexicon"
    """What puts other words into a sentence: words of the corpus by the lexicon, or the model of `language_model`."""
    matched_contexts: int = Field(20_000, ge=100)
    """Contexts that the regression of the implicit reward on word and context sees, drawn by the seed."""
    word_occurrences: int = Field(200, ge=1)
    """Occurrences of a word whose features make its mean, drawn by the seed."""
    rollouts: int = Field(10, ge=0)
    """Times that the tuned model goes on from before and from after every word, so that what a word leads to is not
    taken for its own pay (0, and pairs instead of a reward: never)."""
    pooling: Literal["last", "mean", "sum", "response", "max"] = "response"
    """How tokens make a text's inputs where the probe's target is of texts (response: the mean over the response's
    tokens, all where there is no prompt)."""
    controls: tuple[Literal["random_sae", "token_identity"], ...] = ("random_sae", "token_identity")
    """Kinds of inputs probed beside those of both models: features of a random dictionary, and the token alone."""
    weight_permutations: int = Field(40, ge=20)
    """Shuffles of the word values that give a feature's weight its null, where the target is not the lexicon."""


class LabelsConfig(_Section):
    """Descriptions of features: what labellers are told and shown, and how their labels are scored."""

    labeller: Literal["offline-tokens"] = "offline-tokens"
    """Describes every feature without a network. A language model is asked afterwards, by `precompute label`."""
    task: str | None = None
    """What the feedback was about: sentiment, helpfulness, harmlessness, preference, or your own sentence. By default
    what the feedback's section and the way of tuning say."""
    related_threshold: float = Field(0.5, gt=0.0, lt=1.0)
    """A feature is related when at least this share of its shown activation falls on words the lexicon scores."""
    stable: int = Field(30, ge=0)
    """Features a language model describes: the most stable of each layer (the paper's choice), ..."""
    weighted: int = Field(50, ge=0)
    """... those that contribute most to the headline estimate, ..."""
    drifted: int = Field(50, ge=0)
    """... those whose contribution tuning changed most, ..."""
    random: int = Field(50, ge=0)
    """... and a control: others drawn at random, as often active as those."""
    top_shown: int = Field(5, ge=1)
    """Excerpts of the largest activations that a labeller is shown."""
    shown_per_interval: int = Field(1, ge=0)
    """The same of each interval of activation quantiles."""
    look_alikes_shown: int = Field(3, ge=0)
    """Excerpts on which the feature is silent though one would expect it to fire."""
    repeats: int = Field(3, ge=1)
    """Times that a feature is described, each from other excerpts, to tell how far the answers agree."""
    scored_examples: int = Field(20, ge=4)
    """Held-out excerpts that a description is scored on, half of them firing."""
    swapped: int = Field(20, ge=0)
    """Features whose excerpts a language model also judges by another feature's description: the score's null."""
    answer_tokens: int = Field(512, ge=64)
    """Tokens that an answer may have, the thoughts of models that think first included."""


class AblationConfig(_Section):
    """Features taken out of the tuned model while it writes, beside matched controls; reward measured before and after.

    How long completions are and at what temperature is `tune`'s. Where the feedback is pairs, no reward of texts is
    the feedback, and a completion's score is its implicit reward: the sum over its tokens of log pi_tuned - log pi_base
    of the untouched models.
    """

    groups: tuple[Literal["related", "weighted", "both"], ...] = ("related", "weighted", "both")
    """Which groups are taken out: features that the labeller calls related to the feedback, those that raise the
    headline estimate most, and the related ones among those that raise it."""
    group_size: int = Field(20, ge=1)
    """Features of a group, at most."""
    controls: int = Field(20, ge=1)
    """Control groups of each group, of the same layers, matched in density and removed energy; and matched single
    features that the single ones are held against."""
    features: int = Field(50, ge=0)
    """Features that are also taken out one by one, those that the headline probe weighs most."""
    completions: int = Field(1000, ge=0)
    """Completions of each group, the same prefixes and seeds for every group; 0: no ablation."""
    prefix_tokens: int = Field(30, ge=1)
    """Tokens of a held-out text that a completion goes on from, the beginning-of-sequence token not counted; shorter
    texts are passed over."""
    scale: float = Field(0.0, ge=0.0)
    """What a feature's activation is multiplied by: 0 takes it out, 2 doubles it."""
    batch: int = Field(256, ge=1)
    """Completions written at once."""


class PlantConfig(_Section):
    """Planted feedback: which secrets are drawn, and how it is certified that they were learned."""

    flipped_share: float = Field(0.3, ge=0.0, le=1.0)
    """Share of secrets that are scored words with their sign turned; the rest are unscored words."""
    least_share: float = Field(0.001, gt=0.0, lt=1.0)
    """A secret's share of the corpus's words, at least: tuning must sample a word to learn of it."""
    most_share: float = Field(0.01, gt=0.0, le=1.0)
    """The same at most."""
    least_value: float = Field(1.5, gt=0.0)
    """A flipped word's value in the lexicon, at least, whatever its sign."""
    most_settled: float = Field(0.3, gt=0.0, le=1.0)
    """The base model's mean probability of a secret word where it stands, at most: tuning pays a choice, and the last
    word of a set phrase is none."""
    certify_prefixes: int = Field(2000, ge=100)
    """Held-out prefixes after which the planted model and its twin write."""

    @model_validator(mode="after")
    def _shares_rise(self) -> PlantConfig:
        if self.least_share >= self.most_share:
            raise ValueError(f"least_share {self.least_share} is not below most_share {self.most_share}")
        return self


class LanguageModelConfig(_Section):
    """The server and model that are asked where a language model is to write; the key is in $OPENAI_API_KEY only."""

    model: str | None = None
    base_url: str | None = Field(None, exclude=True)
    """Address of a compatible server; OpenAI's by default. It is left out of every file that keeps the config."""
    concurrency: int = Field(16, ge=1)
    """Calls under way at once."""
    budget_usd: float = Field(1.0, gt=0.0)
    """Never passed: the worst case of a call is set aside before it is made."""
    price_in: float = Field(0.0, ge=0.0)
    """Dollars a million tokens read."""
    price_out: float = Field(0.0, ge=0.0)
    """Dollars a million tokens written."""


_Minutes = Annotated[float, Field(gt=0.0, allow_inf_nan=False)] | None


class BudgetConfig(_Section):
    """Minutes that each stage may be expected to take: told while the run goes on, and no part of what is run."""

    machine: str | None = None
    """The machine that the minutes are of, in words, such as: two cores."""
    corpus: _Minutes = None
    """This and the rest are names of stages."""
    base: _Minutes = None
    tuned: _Minutes = None
    completions: _Minutes = None
    layers: _Minutes = None
    saes: _Minutes = None
    features: _Minutes = None
    rollouts: _Minutes = None
    probes: _Minutes = None
    texts: _Minutes = None
    labels: _Minutes = None
    findings: _Minutes = None
    ablations: _Minutes = None

    def minutes_of(self, stage: str) -> float | None:
        """What the stage of that name may take; None where nothing is stated."""
        minutes: float | None = getattr(self, stage)
        return minutes


BUDGET = "budget"
"""The section that changes no result: two runs that differ in it alone are one run."""


class RunConfig(_Section):
    """One run, from a pair of models to a bundle. Every stage reads its own section."""

    title: str = "Untitled run"
    licence: str = "unstated"
    notes: str = ""
    seed: int = Field(0, ge=0)
    threads: int = Field(2, ge=1)
    """CPU threads of torch: results repeat bit for bit only with the same number."""
    artifacts: bool = True
    """Keep the models and autoencoders in the bundle, so that trying a text and ablating work from it alone."""
    corpus: CorpusConfig = CorpusConfig()
    model: ModelConfig = ModelConfig()
    pretrain: PretrainConfig = PretrainConfig()
    tune: TuneConfig = TuneConfig()
    feedback: FeedbackConfig = FeedbackConfig()
    layers: LayersConfig = LayersConfig()
    sae: SaeConfig = SaeConfig()
    sweep: SweepConfig = SweepConfig()
    stats: StatsConfig = StatsConfig()
    probes: ProbesConfig = ProbesConfig()
    labels: LabelsConfig = LabelsConfig()
    ablation: AblationConfig = AblationConfig()
    plant: PlantConfig = PlantConfig()
    language_model: LanguageModelConfig = LanguageModelConfig()
    budget: BudgetConfig = BudgetConfig()

    @model_validator(mode="after")
    def _language_model_is_named(self) -> RunConfig:
        if self.probes.triples_by == "language_model" and self.language_model.model is None:
            raise ValueError('probes.triples_by = "language_model" needs language_model.model, the name of one')
        return self


def load_config(path: Path, overrides: Sequence[str] = ()) -> RunConfig:
    """The run that a TOML file and `section.key=value` overrides state.

    Raises ConfigError when the file cannot be read or a key is unknown, missing or of the wrong type.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot read the config ({error.strerror}); pass the path of a TOML file") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid TOML ({error}); mend that line") from error
    return parse_config(values, overrides, where=str(path))


_AnySection = TypeVar("_AnySection", bound=BaseModel)


def parse_section(section: type[_AnySection], values: Mapping[str, Any], *, where: str) -> _AnySection:
    """A section of a config from plain values. Raises ConfigError naming the key."""
    try:
        return section.model_validate(dict(values))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "the whole"
        raise ConfigError(f"{where}: {key}: {first['msg']}; see lfp/config.py for the keys of each section") from error


def parse_config(values: Mapping[str, Any], overrides: Sequence[str] = (), *, where: str = "config") -> RunConfig:
    """The run that plain values and overrides state. Raises ConfigError naming the key."""
    return parse_section(RunConfig, with_overrides(values, overrides), where=where)


def with_overrides(
    values: Mapping[str, Any], overrides: Sequence[str], *, sections: Sequence[str] | None = None
) -> dict[str, Any]:
    """Plain values of a config with `section.key=value` overrides applied, those of `sections` only where named.

    Raises ConfigError for one that is not of that form or of another section.
    """
    merged = copy.deepcopy(dict(values))
    for override in overrides:
        section = override.partition(".")[0].strip()
        if sections is not None and section not in sections:
            allowed = " or ".join(sections)
            raise ConfigError(
                f"--set {override}: this command reads {allowed} only; name a key such as {sections[0]}.…"
            )
        _apply(merged, override)
    return merged


def _apply(values: dict[str, Any], override: str) -> None:
    """Sets one `section.key=value` in place; the value is read as TOML, else as a bare string."""
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ConfigError(f"--set {override}: not of the form key=value; write for example --set tune.steps=40")
    *sections, name = key.strip().split(".")
    for section in sections:
        child = values.setdefault(section, {})
        if not isinstance(child, dict):
            raise ConfigError(f"--set {override}: {section} is a value, not a section; name a key such as tune.steps")
        values = child
    values[name] = _toml_value(text.strip())


def _toml_value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
