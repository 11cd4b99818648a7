"""What is said of features, and how it is tested: credits and interventions, probes, labels, ablations."""

from __future__ import annotations

from typing import Literal, get_args

from pydantic import Field, PositiveFloat

from lfp.config_sections import Section

ProbeControl = Literal["random_sae", "trained_random_sae", "difference_in_means", "token_identity"]


class FeatureCreditsConfig(Section):
    """What tuning's change of each feature carries of the implicit reward (docs/CREDITS.md)."""

    texts: int = Field(200, ge=0)
    """Texts that are split over features, of those whose activations are kept; 0 for none."""
    nodes: int = Field(3, ge=1)
    """Points between the base's and the tuned model's weights at which gradients are taken, for texts that the ledger
    did not split (`credits.n_texts`); others take as many as bring their modules' credits within `credits.tolerance` of
    the ledger's. Each costs about four forward passes."""
    batch_texts: int = Field(16, ge=1)
    """Texts per pass."""
    twin_texts: int = Field(50, ge=0)
    """How many of these texts are split for each of the run's twins too, to say which features' credits are not the
    twins'; 0 for none. Without `twins.n` there are none."""
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
    credited: int = Field(50, ge=0)
    """Further ones: those that carry most of the implicit reward of texts, where the run split it over features."""
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
