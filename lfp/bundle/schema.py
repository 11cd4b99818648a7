"""The schema of a bundle: every table and column with type, unit and meaning; data/README.md is generated from it."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyarrow as pa

from lfp.config_page import write_page

SCHEMA_VERSION = 1
"""Increased when a column changes its meaning or is removed; new columns and tables do not change it."""

FLOAT, DOUBLE, INT, LONG, TEXT, FLAG = pa.float32(), pa.float64(), pa.int32(), pa.int64(), pa.string(), pa.bool_()
TOKEN_VALUES = pa.list_(pa.struct([("token", TEXT), ("value", FLOAT)]))
GROUP_VALUES = pa.list_(pa.struct([("group", TEXT), ("value", DOUBLE)]))


@dataclass(frozen=True)
class Column:
    """One column: `unit` is empty where the value is a name or a count; `nullable` says whether null is an answer.

    A column with a `default` was added later: a bundle without it reads as if every row had that value.
    """

    name: str
    type: pa.DataType
    meaning: str
    unit: str = ""
    nullable: bool = False
    default: str | None = None


@dataclass(frozen=True)
class Table:
    """One table of a bundle: what a row is, how rows are sorted, which columns there are.

    `row_group_rows` keeps one feature or one text a cheap read at a million features. A bundle made before a table
    that was `added_later` may lack its file; the table is then empty.
    """

    name: str
    row: str
    sorted_by: tuple[str, ...]
    columns: tuple[Column, ...]
    row_group_rows: int = 122_880
    added_later: bool = False

    @cached_property
    def schema(self) -> pa.Schema:
        """The Arrow schema of the Parquet file."""
        return pa.schema([pa.field(c.name, c.type, nullable=c.nullable) for c in self.columns])


def _null(name: str, type_: pa.DataType, meaning: str, unit: str = "") -> Column:
    return Column(name, type_, meaning, unit, nullable=True)


_SITES = "mlp_out (the MLP's output), resid_post (the residual stream after the layer) or attn_out (attention's output)"


def _site(meaning: str) -> Column:
    return Column("site", TEXT, f"{meaning}: {_SITES}.", default="mlp_out")


# fmt: off
_LAYERS = Table("layers", "a layer", ("layer",), (
    Column("layer", INT, "Layer number, from 0."),
    Column("divergence", DOUBLE, "Sum over the layer's parameters of the L2 norm of tuned minus base.", "L2 norm"),
    Column("divergence_mlp", DOUBLE, "The same over the parameters of its MLP.", "L2 norm"),
    Column("divergence_by_group", GROUP_VALUES, "The same by group of parameters: attention, mlp, norm.", "L2 norm"),
    Column("relative_divergence", DOUBLE, "Divergence over the sum of L2 norms of the base's parameters.", "share"),
    Column("selected", FLAG, "Whether the layer was read: its activations were written as features."),
    Column("d_in", INT, "Width of the activations.", "dimensions"),
    _null("credit", DOUBLE, "Share of the absolute credits of all modules that its modules at the sites read carry.",
          "share"),
    _null("scale", DOUBLE, "Factor giving the tuned model's MLP output unit mean square norm; null if that is not "
          "read. Of other sites: saes.scale."),
))

_SAES_BY = ("layer", "site", "variant", "width", "seed", "model", "source")
_SAES = Table("saes", "a sparse autoencoder trained", _SAES_BY, (
    Column("layer", INT, "Layer number."),
    _site("Where in the layer it reads"),
    Column("variant", TEXT, "tied_relu, relu, topk, batchtopk or jumprelu."),
    Column("width", INT, "Features in the dictionary."),
    Column("seed", INT, "Seed of its training."),
    Column("tied", FLAG, "Whether the decoder is the encoder transposed."),
    _null("l1", DOUBLE, "Weight of the L1 penalty; null where the variant has none."),
    _null("k", INT, "Active features per token; null where the variant has no k."),
    _null("l0_weight", DOUBLE, "Weight of the mean number of active features; null where the variant has none."),
    Column("is_used", FLAG, "Whether its features are the bundle's features."),
    Column("model", TEXT, "tuned or base: the model whose features it has; tuned where both models share it."),
    Column("fvu", DOUBLE, "Fraction of variance unexplained on held-out texts, of what it was trained on.", "share"),
    Column("l0", DOUBLE, "Mean number of active features per token on held-out texts.", "features"),
    Column("dead_fraction", DOUBLE, "Share of features never active on held-out texts.", "share"),
    _null("ce_recovered", DOUBLE, "Cross-entropy recovered by the reconstruction, against zero ablation.", "share"),
    _null("mmcs", DOUBLE, "Mean max cosine similarity with the other dictionary there, Hungarian-matched.", "cosine"),
    Column("source", TEXT, "trained, or the folder or hub name it was read from; random_decoder for a control whose "
           "decoder stayed at random directions while the rest was trained."),
    _null("scale", DOUBLE, "Factor that gave the activations it reads unit mean square norm; null in older bundles."),
    _null("trained_on", TEXT, "tuned, base, shared, change, crosscoder or base_finetuned (sae.trained_on); null in "
          "older bundles: the activations of its model."),
    _null("fvu_tuned", DOUBLE, "fvu on the tuned model's activations; of changes, at the tuned model's inputs.",
          "share"),
    _null("fvu_base", DOUBLE, "fvu on the base model's activations; of changes, at the base model's inputs.", "share"),
))

_FEATURES = Table("features", "a feature", ("feature_id",), (
    Column("feature_id", INT, "Dense number over all layers and sites, from 0."),
    Column("layer", INT, "Layer that it is read from."),
    _site("Where in the layer it is read"),
    Column("index", INT, "Row of the layer's dictionary."),
    Column("density", FLOAT, "Share of tokens on which it is active.", "share"),
    Column("n_active", LONG, "Tokens on which it is active.", "tokens"),
    Column("mean_activation", FLOAT, "Mean activation where active.", "scaled activation"),
    Column("max_activation", FLOAT, "Largest activation.", "scaled activation"),
    Column("base_density", FLOAT, "Density on the base model's activations, through the same dictionary.", "share"),
    Column("base_mean_activation", FLOAT, "Mean activation where active, base model.", "scaled activation"),
    Column("shift", FLOAT, "Mean activation over all tokens, tuned minus base.", "scaled activation"),
    _null("stability", FLOAT, "Cosine with its Hungarian match in the other dictionary of its layer and site.",
          "cosine"),
    Column("decoder_norm", FLOAT, "L2 norm of its decoder row, in the scaled space.", "L2 norm"),
    Column("top_tokens", TOKEN_VALUES, "Tokens it fires on, by share of activation over sampled contexts.", "share"),
    Column("pos_logits", TOKEN_VALUES, "Tokens whose logit its decoder row raises most.", "logit"),
    Column("neg_logits", TOKEN_VALUES, "Tokens whose logit its decoder row lowers most.", "logit"),
    Column("x", FLOAT, "First coordinate of the map of features."),
    Column("y", FLOAT, "Second coordinate of the map of features."),
    _null("scale_tuned", FLOAT, "Factor by which its direction explains the tuned model's activations on held-out "
          "texts, as far as the dictionary reconstructs them; null where it hardly fires, and in older bundles."),
    _null("scale_base", FLOAT, "The same of the base model's activations."),
    _null("scale_tuned_error", FLOAT, "The same of what other features leave of the tuned model's activations."),
    _null("scale_base_error", FLOAT, "The same of what other features leave of the base model's activations."),
    _null("is_tuned_only", FLAG, "Whether scale_base is below 0.5 of scale_tuned, and below 0.2 of it on the error."),
    _null("base_cosine", FLOAT, "Cosine of its decoder rows in the tuned and the base model: of a crosscoder, or of a "
          "dictionary that continues the base model's; else null.", "cosine"),
    _null("base_norm_share", FLOAT, "L2 norm of its decoder row in the base model, over the sum of both; null but for "
          "crosscoders.", "share"),
))

_DECODERS = Table("decoders", "a feature", ("feature_id",), (
    Column("feature_id", INT, "The feature."),
    Column("vector", pa.list_(pa.float16()), "Its decoder row, [d_in], in the scaled space."),
), row_group_rows=8_192)

_HISTOGRAMS = Table("histograms", "a feature", ("feature_id",), (
    Column("feature_id", INT, "The feature."),
    Column("edges", pa.list_(FLOAT), "Bin edges, log-spaced, one more than counts.", "scaled activation"),
    Column("counts", pa.list_(LONG), "Active tokens a bin, tuned model.", "tokens"),
    Column("base_counts", pa.list_(LONG), "Active tokens a bin, base model through the same dictionary.", "tokens"),
), row_group_rows=8_192)

_EXAMPLES = Table("examples", "an example of a feature", ("feature_id", "bucket", "rank"), (
    Column("feature_id", INT, "The feature."),
    Column("bucket", INT, "0 = top; 1..q = interval of activation quantiles, low to high; -1 = not active, at random; "
           "-2 = near miss: silent in the whole window although the token is one of its top tokens or its nearest "
           "neighbour fires."),
    Column("rank", INT, "Order within the bucket, from 0, largest activation first; of places whose last 8 tokens are "
           "the same, the best is kept alone."),
    Column("text_id", LONG, "The text."),
    Column("position", INT, "Token of the text, from 0, beginning-of-sequence not counted.", "tokens"),
    Column("activation", FLOAT, "Activation at the position.", "scaled activation"),
    Column("window_start", INT, "Position of the first of window_values.", "tokens"),
    Column("window_values", pa.list_(FLOAT), "Activations at consecutive positions.", "scaled activation"),
))

_TEXTS = Table("texts", "a text kept for browsing", ("text_id",), (
    Column("text_id", LONG, "Number of the text in the corpus."),
    Column("source", TEXT, "File or generator it came from."),
    Column("split", TEXT, "train or held_out: whether models and autoencoders saw it."),
    Column("role", TEXT, "text, chosen or rejected."),
    _null("pair_id", LONG, "Joins chosen and rejected; null for a plain text."),
    Column("text", TEXT, "The text as the model read it, cut to the context."),
    Column("token_ids", pa.list_(INT), "Its tokens, beginning-of-sequence not counted."),
    Column("token_starts", pa.list_(INT), "First character of each token.", "characters"),
    Column("response_start", INT, "First token of the response; 0 where there is no prompt.", "tokens"),
    _null("feedback", FLOAT, "True feedback of the text.", "reward"),
    _null("rating", FLOAT, "Human rating, where the corpus has one.", "corpus scale"),
    Column("predicted", FLOAT, "The headline probe's estimate, unrescaled.", "probe target"),
    _null("predicted_raw", FLOAT, "The raw-activation probe's estimate of the same target.", "probe target"),
    _null("sae_miss", FLOAT, "Part of predicted_raw that the autoencoders do not reconstruct, v . (x - x_hat).",
          "probe target"),
    _null("implicit_reward", FLOAT, "Sum of log pi_tuned - log pi_base over the response, over all tokens without any.",
          "nats"),
    _null("credit_reward", DOUBLE, "The same implicit reward, to which the modules' credits sum; null where not split.",
          "nats"),
    _null("credit_error", DOUBLE, "What the integral of credits misses of it, over the sum of their sizes.", "share"),
    _null("credit_nodes", INT, "Points of the path of weights at which the text was differentiated."),
    Column("pca_x", FLOAT, "First principal component of the mean features."),
    Column("pca_y", FLOAT, "Second principal component of the mean features."),
), row_group_rows=8_192)

_TOKEN_SCORES = Table("token_scores", "a text", ("text_id",), (
    Column("text_id", LONG, "The text."),
    Column("feedback", pa.list_(FLOAT), "True feedback per token; a word of several tokens has it on its last.",
           "reward"),
    Column("implicit_reward", pa.list_(FLOAT), "r_t = log pi_tuned(x_t) - log pi_base(x_t).", "nats"),
    Column("implicit_advantage", pa.list_(FLOAT), "c_t = r_t + KL(base || tuned) at that context.", "nats"),
    Column("predicted", pa.list_(FLOAT), "The headline probe's estimate of each token by itself, intercept included.",
           "probe target"),
    _null("sae_miss", pa.list_(FLOAT),
          "What the autoencoders miss of the raw probe's estimate of each token by itself.", "probe target"),
    _null("in_response", pa.list_(pa.bool_()),
          "Whether the token is of a response, which alone counts for the implicit reward; null without a prompt."),
), row_group_rows=8_192)

_MODULE = "embedding, attention, mlp, norm, final_norm, unembedding or other"
_PATH = ("full: through every later layer and position; same_position: for the next token alone, keys and values being "
         "constants.")

_BY_MODULE = ("path", "layer", "module")

_MODULE_CREDITS = Table("module_credits", "a text, a kind of path and a module", ("text_id", *_BY_MODULE), (
    Column("text_id", LONG, "The text."),
    Column("path", TEXT, _PATH),
    _null("layer", INT, "Layer of the module; null outside the layers."),
    Column("module", TEXT, f"{_MODULE}; on the same position also elsewhere, what came through attention from other "
           "positions."),
    Column("credit", DOUBLE, "Its part of texts.credit_reward, to which a path's modules sum.", "nats"),
), row_group_rows=32_768, added_later=True)

_WORD_CREDITS = Table("word_credits", "a word, a kind of path and a module", ("word", *_BY_MODULE), (
    Column("word", TEXT, "The word, one of vocabulary."),
    Column("path", TEXT, "same_position: of the word's own implicit reward, to which these sum; full: of the whole "
           "text's, through all that follows."),
    _null("layer", INT, "Layer of the module; null outside the layers."),
    Column("module", TEXT, f"{_MODULE}, by what it wrote at the positions before the word's tokens; elsewhere as in "
           "module_credits."),
    Column("mean", FLOAT, "Mean over contexts of the sum over the word's tokens.", "nats"),
    _null("ci_low", FLOAT, "Lower end of its 95 % interval over contexts; null for one context.", "nats"),
    _null("ci_high", FLOAT, "Upper end.", "nats"),
    Column("n", LONG, "Contexts."),
), row_group_rows=32_768, added_later=True)

_ACTIVATIONS = Table("activations", "a sampled text", ("text_id",), (
    Column("text_id", LONG, "The text; texts kept only because an example names them have no row."),
    Column("positions", pa.list_(INT), "Token positions, ascending.", "tokens"),
    Column("feature_ids", pa.list_(INT), "Features active there, ascending within a position."),
    Column("values", pa.list_(FLOAT), "Their activations.", "scaled activation"),
), row_group_rows=1_024)

_TRIPLES = Table("triples", "a contrastive triple", ("triple_id",), (
    Column("triple_id", INT, "Number of the triple, from 0."),
    Column("positive", TEXT, "Sentence with the positive word."),
    Column("negative", TEXT, "The same sentence with a negative word in its place."),
    Column("neutral", TEXT, "The same sentence with a word the lexicon does not score."),
    Column("positive_word", TEXT, "Target word of the positive sentence."),
    Column("negative_word", TEXT, "Target word of the negative sentence."),
    Column("neutral_word", TEXT, "Target word of the neutral sentence."),
    Column("positive_position", INT, "Last token of the target word.", "tokens"),
    Column("negative_position", INT, "Last token of the target word.", "tokens"),
    Column("neutral_position", INT, "Last token of the target word.", "tokens"),
    Column("fold", INT, "Fold of the positive word; the negative word's own fold is in vocabulary."),
), row_group_rows=8_192)

_VOCABULARY = Table("vocabulary", "a word", ("word",), (
    Column("word", TEXT, "The word, casefolded and stripped."),
    Column("token_ids", pa.list_(INT), "Its commonest tokens in the texts that the statistics cover."),
    _null("feedback", FLOAT, "True feedback; null where the lexicon is silent.", "lexicon value"),
    _null("implicit_reward", FLOAT, "Mean over occurrences of the sum of r_t over its tokens.", "nats"),
    _null("implicit_advantage", FLOAT, "The same of c_t.", "nats"),
    _null("implicit_matched", FLOAT,
          "Word effect of a regression of r on word and context, base probabilities as weights.", "nats"),
    _null("implicit_matched_se", FLOAT, "Its standard error over contexts.", "nats"),
    _null("implicit_excess", FLOAT, "Implicit advantage less what the stated feedback explains of it.", "nats"),
    _null("implicit_gap", FLOAT, "The excess over its noise: most above 0 in the words paid more than stated."),
    _null("implicit_excess_se", FLOAT,
          "Standard error of the excess: the word's own and the spread between words, squares added.", "nats"),
    _null("implicit_gap_p", DOUBLE,
          "How rare its excess is among the other words', two-sided; null in bundles older than this null."),
    _null("implicit_gap_q", DOUBLE,
          "The same as the smallest false discovery rate at which the word stands out (Benjamini-Hochberg)."),
    _null("predicted", FLOAT, "Headline probe, tuned model, by the fold that never saw the word.", "probe target"),
    _null("predicted_base", FLOAT, "Same recipe on the base model with its own autoencoder.", "probe target"),
    Column("n", LONG, "Occurrences in the texts that the statistics cover (`stats.n_texts` of the corpus).", "words"),
    Column("n_generated", LONG, "Occurrences in the tuned model's completions of held-out prefixes.", "words"),
    Column("n_generated_base", LONG, "Occurrences in the base model's completions.", "words"),
    Column("fold", INT, "Fold in which the word is held out."),
), row_group_rows=8_192)

_WORD_FEATURES = Table("word_features", "a word and a feature that fires on it", ("word", "rank"), (
    Column("word", TEXT, "The word."),
    Column("rank", INT, "Order among the word's features, from 0, largest lift first."),
    Column("feature_id", INT, "The feature: at least half as strong on the word as where it is active."),
    Column("mean_activation", FLOAT, "Mean activation at the last token of the word.", "scaled activation"),
    Column("lift", FLOAT, "That mean over the mean of all tokens; at least 5."),
), row_group_rows=8_192, added_later=True)

_PROBES = Table("probes", "a probe", ("probe_id",), (
    Column("probe_id", INT, "Number of the probe, from 0."),
    Column("target", TEXT, "delta, feedback, implicit_reward (of a token in its context: c_t) or preference."),
    Column("inputs", TEXT, "sae, raw, base_sae, base_raw, sae_of_base, random_sae, trained_random_sae, "
           "difference_in_means or token_identity."),
    Column("model", TEXT, "tuned or base: whose activations are the inputs."),
    Column("layers", pa.list_(INT), "Layers whose activations are concatenated."),
    _null("sites", pa.list_(TEXT), "Sites that each of these layers is read at; null in older bundles: mlp_out."),
    Column("kind", TEXT, "ridge, logistic or difference_in_means."),
    Column("pooling", TEXT, "mean, sum, last, max or response: how tokens make a text's inputs."),
    Column("alpha", DOUBLE, "Regularisation chosen by cross-validation grouped by word or pair."),
    Column("intercept", DOUBLE, "Added to the sum of contributions.", "probe target"),
    _null("raw_intercept", DOUBLE, "Intercept of the raw probe on the same target; null but for the headline.",
          "probe target"),
    _null("raw_bias", DOUBLE, "What the raw probe v gives the autoencoders' biases, v . b_dec.", "probe target"),
    Column("display_slope", DOUBLE, "Rescales a prediction to the lexicon's range, for display only."),
    Column("display_offset", DOUBLE, "Added after display_slope, for display only."),
    Column("n_train", LONG, "Rows it was fitted on."),
    Column("n_test", LONG, "Rows predicted out of fold."),
    Column("is_headline", FLAG, "Whether texts.predicted is this probe's."),
))

_WEIGHTS = Table("weights", "a probe and a feature", ("probe_id", "feature_id"), (
    Column("probe_id", INT, "The probe."),
    Column("feature_id", INT, "The feature."),
    Column("weight", FLOAT, "Target per unit of activation, the scale of its layer and site folded in.",
           "probe target"),
    _null("raw_weight", FLOAT, "(v . d_i): what the raw probe v of the same target gives a unit of the feature.",
          "probe target"),
    _null("ci_low", FLOAT, "Lower end of the 95 % interval over words, or pairs.", "probe target"),
    _null("ci_high", FLOAT, "Upper end of the 95 % interval over words, or pairs.", "probe target"),
    Column("mean_contribution", FLOAT, "Mean over tokens of weight times activation.", "probe target"),
    Column("mean_abs_contribution", FLOAT, "The same of its absolute value.", "probe target"),
    Column("share", FLOAT, "Its share of the sum of mean absolute contributions.", "share"),
    Column("rank", INT, "Rank by mean_abs_contribution, from 1."),
    _null("null_mean", FLOAT, "Mean weight over shuffled feedback, at the probe's own alpha; null in older bundles.",
          "probe target"),
    _null("null_high", FLOAT, "95th percentile of |weight| over shuffled feedback, at the probe's own alpha.",
          "probe target"),
    _null("p", FLOAT, "Two-sided p-value of weight less null_mean; null where no weight is possible, and in older "
          "bundles."),
    _null("q", FLOAT, "Smallest false discovery rate within the probe at which the weight is a discovery (Benjamini "
          "and Hochberg); null where p is."),
    _null("beats_null", FLAG, "Whether q is at most 0.05; in older bundles, without q: whether |weight| passes "
          "null_high, which chance does for 5 % of features or more."),
))

_DRIFT = Table("drift", "a feature", ("feature_id",), (
    Column("feature_id", INT, "The feature."),
    Column("probe_id", INT, "The headline probe, whose weights these are."),
    Column("status", TEXT, "born, strengthened, steady, weakened or gone: what tuning did to how it fires."),
    _null("sign_flipped", FLAG, "Whether weight and weight_base are of opposite sign, both beyond their noise."),
    Column("weight", FLOAT, "Its weight in the headline probe.", "probe target"),
    _null("weight_base", FLOAT, "The same target's weight on the base model through the same dictionary.",
          "probe target"),
    Column("contribution", FLOAT, "Weight times its mean activation over all tokens, tuned model.", "probe target"),
    Column("contribution_base", FLOAT, "The same weight times the base model's mean activation.", "probe target"),
    Column("drifted_contribution", FLOAT, "Contribution less contribution_base.", "probe target"),
    Column("rank", INT, "Rank by the size of drifted_contribution, from 1."),
    Column("share", FLOAT, "Its share of the sum of sizes of drifted contributions.", "share"),
    Column("unexplained_contribution", FLOAT, "What it adds on average to the pay that stated feedback does not "
           "explain: of a ridge of words' implicit_excess, beyond noise.", "nats"),
    Column("unexplained_rank", INT, "Rank by the size of unexplained_contribution, from 1."),
), added_later=True)

_RESULT_KEYS = (
    "report_row", "model", "layer", "site", "probe_id", "target", "inputs", "words", "split", "group", "metric",
)

_RESULTS = Table("results", "a figure of the report", _RESULT_KEYS, (
    Column("report_row", TEXT, "Row of the report, such as kendall_tau."),
    _null("model", TEXT, "tuned, base or difference; of latent_scaling also twin (against the base model) and "
          "twin_of_twin (against another twin)."),
    _null("layer", INT, "Layer, where the figure is of one."),
    _null("site", TEXT, "Site in the layer, where the figure is of one; null in older bundles: mlp_out."),
    _null("probe_id", INT, "Probe, where the figure is of one kept in probes."),
    _null("target", TEXT, "Target of the probe."),
    _null("inputs", TEXT, "Inputs of the probe; sae_before: features at the token before, tuned or base with its own."),
    _null("words", TEXT, "all, positive or negative."),
    _null("split", TEXT, "held_out_words, held_out_pairs or random_rows."),
    _null("group", TEXT, "Group of features, dictionary size, or other key of the row."),
    Column("metric", TEXT, "What is measured, such as tau or fvu."),
    Column("value", DOUBLE, "The figure."),
    _null("ci_low", DOUBLE, "Lower end of its 95 % bootstrap interval."),
    _null("ci_high", DOUBLE, "Upper end of its 95 % bootstrap interval."),
    _null("null_mean", DOUBLE, "Its mean over permutations."),
    _null("null_high", DOUBLE, "Its 95th percentile over permutations; of its size where the test is two-sided."),
    _null("null_p", DOUBLE, "Share of permutations that reach it, (r + 1) / (n + 1)."),
    _null("n", LONG, "Words, pairs, texts or tokens behind it."),
))

_NEIGHBOURS = Table("neighbours", "a pair of features", ("feature_id", "kind", "rank"), (
    Column("feature_id", INT, "The feature."),
    Column("kind", TEXT, "decoder_cosine or coactivation."),
    Column("rank", INT, "From 0, nearest first."),
    Column("neighbour_id", INT, "The other feature."),
    Column("value", FLOAT, "Cosine of decoder rows of one layer and site, or estimated Jaccard share of common "
           "contexts."),
))

_LABELS = Table("labels", "a description", ("feature_id", "labeller"), (
    Column("feature_id", INT, "The feature."),
    Column("labeller", TEXT, "Who described it, such as offline-tokens, openai:MODEL, or a person's human:NAME."),
    _null("model", TEXT, "Language model asked; null for a rule or a person."),
    _null("description", TEXT, "What the feature fires on."),
    _null("related", FLAG, "Whether it is about the run's feedback."),
    _null("confidence", FLOAT, "How sure the labeller is of related.", "share"),
    _null("reason", TEXT, "Why, in a sentence."),
    _null("agreement", FLOAT, "Share of repeats from other examples that agree on related.", "share"),
    _null("score_detection", FLOAT, "Balanced accuracy at telling held-out texts that fire from others.", "share"),
    _null("score_fuzzing", FLOAT, "Balanced accuracy at telling held-out tokens that fire from others.", "share"),
    _null("score_ci_low", FLOAT, "Lower end of the 95 % interval of score_detection.", "share"),
    _null("score_ci_high", FLOAT, "Upper end of the 95 % interval of score_detection.", "share"),
    _null("score_n", INT, "Held-out examples scored, half of them firing."),
    _null("score_swapped", FLOAT, "Detection of the same examples by another feature's description.", "share"),
    Column("status", TEXT, "ok, or failed where description or related is missing."),
    _null("failure", TEXT, "What is missing, and why."),
    Column("prompt_version", TEXT, "Version of the prompts or of the rule."),
    _null("prompt_sha256", TEXT, "Hash of the prompts of description and relation; null where none was sent."),
    _null("task", TEXT, "What the prompt said about the feedback; null for a rule or a person."),
    Column("examples_used", pa.list_(TEXT), "Examples shown, as text_id:position, in the order shown."),
    _null("created_at", TEXT, "UTC time of the last answer; null from the offline labeller."),
    _null("cost_usd", DOUBLE, "What the answers cost.", "US dollars"),
))

_FORECAST = Table("forecast", "a feature of the base model that fires in the pairs", ("feature_id",), (
    Column("feature_id", INT, "Number of the feature in the forecast's own dictionary, not in that of `features`."),
    Column("layer", INT, "Layer of the base model that it reads."),
    Column("site", TEXT, f"Where in the layer: {_SITES}."),
    Column("top_tokens", TOKEN_VALUES, "Tokens that it fires most on in the responses, with its mean there."),
    Column("density", DOUBLE, "Share of the responses' tokens it is active on.", "share"),
    Column("spread", DOUBLE, "Standard deviation over responses of its mean over a response's tokens.",
           "scaled activation"),
    Column("in_data", DOUBLE, "Mean difference chosen minus rejected of those means at equal length, training pairs; "
           "the manifest has a hash of it and of the columns around it that was made before the tuning.",
           "scaled activation"),
    Column("in_data_low", DOUBLE, "Lower end of its 95 % interval, over conversations.", "scaled activation"),
    Column("in_data_high", DOUBLE, "Upper end of its 95 % interval, over conversations.", "scaled activation"),
    Column("in_data_q", DOUBLE, "False discovery rate at which the difference is not 0."),
    _null("expected", DOUBLE, "`preferred` as the difference predicts it, by a line fitted on other features.",
          "scaled activation"),
    _null("preferred", DOUBLE, "What was learned: how much more a held-out response has of it where its implicit "
          "reward is a standard deviation higher than the other response's, at equal length.", "scaled activation"),
    _null("preferred_low", DOUBLE, "Lower end of its 95 % interval, over conversations.", "scaled activation"),
    _null("preferred_high", DOUBLE, "Upper end of its 95 % interval, over conversations.", "scaled activation"),
    _null("preferred_q", DOUBLE, "False discovery rate at which it is not 0."),
    _null("moved", DOUBLE, "Mean change by tuning on held-out responses: the tuned model's less the base model's.",
          "scaled activation"),
    _null("moved_low", DOUBLE, "Lower end of its 95 % interval, over conversations.", "scaled activation"),
    _null("moved_high", DOUBLE, "Upper end of its 95 % interval, over conversations.", "scaled activation"),
    _null("credit", DOUBLE, "Its part of the implicit reward of held-out pairs, chosen minus rejected.", "nats"),
    _null("status", TEXT, "in the data and learned; in the data, not learned; learned, not in the data; neither."),
), row_group_rows=8_192, added_later=True)

_ABLATIONS = Table("ablations", "a group of features", ("group",), (
    Column("group", TEXT, "Name of the group."),
    Column("kind", TEXT, "related (so called by the labeller), weighted (raise the headline estimate most), both, "
           "feature (a single one), chosen (named by a person) or control."),
    _null("control_of", TEXT, "Group this one is the matched control of."),
    Column("features", pa.list_(INT), "Features taken out."),
    _null("layer", INT, "Layer, where all are of one."),
    _null("site", TEXT, "Site, where all are of one layer and site; null in older bundles: mlp_out."),
    Column("scale", FLOAT, "What their activation is multiplied by; 0 takes them out."),
    Column("n_completions", INT, "Completions generated."),
    Column("reward_before", DOUBLE, "Mean reward without ablation; where the feedback is pairs, mean implicit reward "
           "of a completion under the untouched models, in nats, here and below.", "reward"),
    Column("reward_after", DOUBLE, "Mean reward with it.", "reward"),
    Column("effect", DOUBLE, "After minus before, paired.", "reward"),
    Column("ci_low", DOUBLE, "Lower end of the effect's 95 % interval, over texts.", "reward"),
    Column("ci_high", DOUBLE, "Upper end of the effect's 95 % interval, over texts.", "reward"),
    _null("null_high", DOUBLE, "95th percentile of |effect| over the matched controls; of single features, over all "
          "single controls together, the luck of the one clean run included. Null for a control, and where no control "
          "can be had.", "reward"),
    _null("contrast", DOUBLE, "Effect less the mean effect of its controls, paired by prefix, so that the clean run "
          "cancels; of single features, all single controls together. Null for a control, and without any.", "reward"),
    _null("contrast_low", DOUBLE, "Lower end of the contrast's 95 % interval, over texts.", "reward"),
    _null("contrast_high", DOUBLE, "Upper end of the contrast's 95 % interval, over texts.", "reward"),
    _null("contrast_reach", DOUBLE, "Size that 95 % of further controls' contrasts stay within, by Student's t of how "
          "the controls differ.", "reward"),
    _null("contrast_p", DOUBLE, "Two-sided p of the contrast among controls, by the same t."),
    _null("contrast_q", DOUBLE, "The same as a false discovery rate among the groups, or among the single features."),
    _null("reward_clean", DOUBLE, "Mean reward of the untouched model over several runs with other seeds.", "reward"),
    _null("clean_runs", INT, "How many runs that is."),
    _null("predicted_effect", DOUBLE, "Effect that the contributions predict: (scale - 1) times the sum over its "
          "features of weight times mean activation on the clean run.", "probe target per token"),
    Column("perplexity", DOUBLE, "Of the completions under the base model."),
    _null("perplexity_before", DOUBLE, "The same of the untouched model's completions."),
    Column("repetition", DOUBLE, "Share of a completion's token trigrams that stood in it before.", "share"),
    _null("repetition_before", DOUBLE, "The same of the untouched model's completions.", "share"),
    _null("density", DOUBLE, "Mean over its features of the share of tokens they are active on, clean run.", "share"),
    _null("removed_energy", DOUBLE, "Sum over its features of the mean over tokens of (activation * decoder norm)^2, "
          "clean run.", "mean square norm of the activations there"),
))

_COMPLETIONS = Table("completions", "a generated text", ("group", "index"), (
    Column("group", TEXT, "base, tuned, or the ablation's group; unablated for the untouched model on the ablation's "
           "prefixes, GROUP/unablated on those of a chosen group."),
    Column("index", INT, "Number of the prefix; the same in groups of the same prefixes."),
    Column("prompt_id", INT, "Number of the prefix among the held-out prefixes; in an ablation like ones share it."),
    Column("prompt", TEXT, "The prefix."),
    Column("completion", TEXT, "What the model wrote."),
    Column("reward", DOUBLE, "Reward of the completion.", "reward"),
    _null("perplexity", DOUBLE, "Of the completion under the base model."),
    Column("model", TEXT, "base, tuned or ablated."),
))

_TUNING = Table("tuning", "a figure of a step of the tuning", ("metric", "step"), (
    Column("step", INT, "Step, from 1."),
    Column("metric", TEXT, "GRPO: reward, the mean of the step's completions; kl, from the base model, in nats per "
           "token; entropy, in nats per token; loss. DPO: margin, beta times the implicit reward of chosen over "
           "rejected; accuracy, the share of pairs with a positive margin; chosen and rejected, the implicit reward of "
           "a response in nats; entropy; loss."),
    Column("value", DOUBLE, "Its value before the step changed the weights."),
), added_later=True)

_TWINS = Table("twins", "a word, compared with models tuned on the same stated feedback by other seeds", ("word",), (
    Column("word", TEXT, "The word, casefolded and stripped."),
    Column("n", LONG, "Occurrences in the corpus.", "words"),
    _null("feedback", FLOAT, "Stated feedback; null where the lexicon is silent.", "lexicon value"),
    Column("preference", FLOAT, "How far the tuned model prefers the word to the base model, over the base model's "
           "probability of it in every context, less what the stated feedback explains.", "nats"),
    Column("twin_mean", FLOAT, "Mean of the same over the twins.", "nats"),
    Column("twin_error", FLOAT, "How far a further twin would be from that mean by chance: a standard deviation, "
           "moderated by the other words'.", "nats"),
    Column("t", FLOAT, "Preference less the twins' mean, over that error."),
    Column("p", DOUBLE, "Two-sided, of Student's t."),
    Column("q", DOUBLE, "Smallest false discovery rate at which the word differs from the twins (Benjamini-Hochberg)."),
    Column("differs", FLAG, "Whether q is at most 0.10."),
    _null("of_unembedding", FLOAT, "Credit of the unembedding for the word's implicit reward, mean over some "
          "occurrences, less the twins' mean; null but for the words that differ most.", "nats"),
    _null("of_embedding", FLOAT, "The same of the embedding.", "nats"),
    _null("of_attention", FLOAT, "The same of attention.", "nats"),
    _null("of_mlp", FLOAT, "The same of the MLPs.", "nats"),
    _null("of_norms", FLOAT, "The same of norms, and of modules without a kind.", "nats"),
), added_later=True)

_FEATURE_CREDITS = Table("feature_credits", "a text split over features", ("text_id",), (
    Column("text_id", LONG, "The text."),
    Column("positions", pa.list_(INT), "Tokens at which features were written, ascending.", "tokens"),
    Column("feature_ids", pa.list_(INT), "The features, ascending within a position."),
    Column("credits", pa.list_(FLOAT), "What tuning's change of the feature there carries of the text's implicit "
           "reward, through all later layers and positions.", "nats"),
    Column("next_credits", pa.list_(FLOAT), "What it carries of the implicit reward of the token after it, keys and "
           "values of other positions held fixed.", "nats"),
), row_group_rows=1_024, added_later=True)

_CREDIT_SUMS = Table("credit_sums", "a text and a place", ("text_id", "layer", "site", "path"), (
    Column("text_id", LONG, "The text."),
    Column("layer", INT, "Layer of the module."),
    Column("site", TEXT, "Where it writes: mlp_out or attn_out."),
    Column("path", TEXT, "full (credits) or same_position (next_credits)."),
    Column("module", DOUBLE, "What the module carries of the implicit reward: the sum of the three parts.", "nats"),
    Column("features", DOUBLE, "Part of its features.", "nats"),
    Column("bias", DOUBLE, "Part of the dictionary's bias: what tuning changed on average.", "nats"),
    Column("residual", DOUBLE, "Part that the dictionary does not reconstruct, the write at a beginning-of-sequence "
           "token included.", "nats"),
), row_group_rows=8_192, added_later=True)

_CREDITS = Table("credits", "a feature", ("feature_id",), (
    Column("feature_id", INT, "The feature."),
    Column("credit", DOUBLE, "What it carries of the implicit reward, credits over the tokens of the split texts.",
           "nats per token"),
    Column("ci_low", DOUBLE, "Lower end of the 95 % interval over texts.", "nats per token"),
    Column("ci_high", DOUBLE, "Upper end of the 95 % interval over texts.", "nats per token"),
    Column("abs_credit", DOUBLE, "The same of absolute credits.", "nats per token"),
    Column("abs_ci_low", DOUBLE, "Lower end of its interval.", "nats per token"),
    Column("abs_ci_high", DOUBLE, "Upper end of its interval.", "nats per token"),
    Column("rank", INT, "Rank by the size of credit, from 1."),
    Column("unexplained_credit", DOUBLE, "Mean size of next_credits less what the next token's stated feedback "
           "explains of them, by least squares over tokens.", "nats per token"),
    Column("unexplained_rank", INT, "Rank by unexplained_credit, from 1."),
    Column("promotes", TOKEN_VALUES, "Next tokens to which its next_credits give most.", "nats"),
    Column("demotes", TOKEN_VALUES, "Next tokens from which they take most.", "nats"),
    Column("example_text_ids", pa.list_(LONG), "Texts of its largest credits by size, largest first."),
    Column("example_positions", pa.list_(INT), "Their tokens.", "tokens"),
    Column("example_credits", pa.list_(FLOAT), "Their credits.", "nats"),
), row_group_rows=8_192, added_later=True)

_INTERVENTIONS = Table("interventions", "a feature taken out of what tuning changed", ("kind", "feature_id",
                                                                                       "control_of"), (
    Column("feature_id", INT, "The feature; its part of the change is subtracted from what the tuned model writes."),
    Column("kind", TEXT, "feature (of those with the largest credit) or control."),
    _null("control_of", INT, "Feature that this is the matched control of: as often and as strongly in the change."),
    Column("layer", INT, "Layer of the feature."),
    Column("site", TEXT, "Where its module writes: mlp_out or attn_out."),
    Column("n_texts", INT, "Texts that the effect was measured on."),
    Column("by_credit", DOUBLE, "Effect that the credit on these texts predicts: its negative.", "nats per token"),
    _null("by_weight", DOUBLE, "The negative of the headline probe's mean contribution; null where it reads no "
          "feature.", "probe target"),
    _null("by_drift", DOUBLE, "The negative of drifted_contribution.", "probe target"),
    Column("effect", DOUBLE, "Change of the texts' implicit reward.", "nats per token"),
    Column("ci_low", DOUBLE, "Lower end of its 95 % interval over texts.", "nats per token"),
    Column("ci_high", DOUBLE, "Upper end of its 95 % interval over texts.", "nats per token"),
    Column("removed_energy", DOUBLE, "Mean over tokens of (code * decoder norm)^2.", "mean square norm of the change"),
    _null("reward_effect", DOUBLE, "Change of the mean reward of completions of the same prefixes; null where it was "
          "not measured.", "reward"),
    _null("reward_ci_low", DOUBLE, "Lower end of its 95 % interval over prefixes.", "reward"),
    _null("reward_ci_high", DOUBLE, "Upper end of its 95 % interval over prefixes.", "reward"),
    _null("n_completions", INT, "Completions."),
), added_later=True)

_DIFFERENCES = Table("differences", "a direction of what tuning changed of activations", ("layer", "site", "rank"), (
    Column("layer", INT, "The layer."),
    _site("Where in the layer it is read"),
    Column("rank", INT, "0 for the mean of tuned minus base activations over all tokens, then their principal "
           "components, largest first."),
    Column("share", DOUBLE, "Of the mean: its square over the mean square of the differences. Of a component: its "
           "share of their variance.", "share"),
    Column("size", DOUBLE, "Length of the mean, or standard deviation along the component.", "L2 norm"),
    Column("n_tokens", LONG, "Tokens behind it.", "tokens"),
    Column("pos_logits", TOKEN_VALUES, "Tokens whose logit the direction, at its size, raises most.", "logit"),
    Column("neg_logits", TOKEN_VALUES, "Tokens whose logit it lowers most.", "logit"),
    Column("vector", pa.list_(FLOAT), "The mean, or the component with unit length, [d_model]."),
), added_later=True)

_TRAJECTORY = Table("trajectory", "a module at a checkpoint of the tuning", ("step", "layer", "module"), (
    Column("step", INT, "Step of the tuning."),
    _null("layer", INT, "Layer of the module; null outside the layers."),
    Column("module", TEXT, f"{_MODULE}."),
    Column("nats", DOUBLE, "Its credit per token in the implicit reward of that checkpoint, full path.", "nats"),
    Column("ci_low", DOUBLE, "Lower end of its 95 % interval over texts.", "nats"),
    Column("ci_high", DOUBLE, "Upper end.", "nats"),
    Column("n", LONG, "Texts behind it."),
), added_later=True)

TABLES: tuple[Table, ...] = (
    _LAYERS, _SAES, _FEATURES, _DECODERS, _HISTOGRAMS, _EXAMPLES, _TEXTS, _TOKEN_SCORES, _MODULE_CREDITS, _WORD_CREDITS,
    _ACTIVATIONS, _TRIPLES,
    _VOCABULARY, _WORD_FEATURES, _PROBES, _WEIGHTS, _DRIFT, _RESULTS, _NEIGHBOURS, _LABELS, _ABLATIONS, _COMPLETIONS,
    _TUNING, _TRAJECTORY, _TWINS, _FEATURE_CREDITS, _CREDIT_SUMS, _CREDITS, _INTERVENTIONS, _FORECAST, _DIFFERENCES,
)
# fmt: on
BY_NAME: dict[str, Table] = {table.name: table for table in TABLES}


def as_table(name: str, values: Sequence[Mapping[str, Any]] | Mapping[str, Any]) -> pa.Table:
    """Build an Arrow table of that schema from rows (mappings) or columns (a mapping to arrays or lists)."""
    schema = BY_NAME[name].schema
    if not isinstance(values, Mapping):
        return pa.Table.from_pylist(list(values), schema=schema)
    arrays = []
    for field in schema:
        column = values[field.name]
        arrays.append(column.cast(field.type) if isinstance(column, pa.Array) else pa.array(column, type=field.type))
    return pa.Table.from_arrays(arrays, schema=schema)


def markdown() -> str:
    """Write the schema as a page, data/README.md."""
    parts = [_PREFACE]
    for table in TABLES:
        parts.append(f"## {table.name}\n\nA row is {table.row}. Sorted by {', '.join(table.sorted_by)}.\n")
        parts.append("| column | type | unit | null | meaning |\n| --- | --- | --- | --- | --- |")
        for column in table.columns:
            type_ = str(column.type).replace("element: ", "").replace("halffloat", "float16").replace("child 0, ", "")
            null, meaning = "yes" if column.nullable else "", column.meaning.replace("|", "\\|")
            parts.append(f"| `{column.name}` | {type_} | {column.unit} | {null} | {meaning} |")
        parts.append("")
    return "\n".join(parts)


_PREFACE = f"""# Bundles: the tables and their columns

A bundle is one folder that holds one run: `manifest.json`, a Parquet file per table, and `artifacts/` (the models and
autoencoders, where the run kept them). This page is made from `lfp/bundle/schema.py` by `make docs`; change it there.
`demo/` beside this page is the bundle that the explorer opens by itself. Schema version {SCHEMA_VERSION}.

The manifest says what was run (`config`, `seed`, `models`: `bundle_id` is their hash), what
is here (`tables`, `artifacts`), and what it took: `stages`, a list of name, seconds, cpu_seconds and peak_rss_mb
(megabytes of 10^6 bytes; null where the system does not tell), and `hardware` (processor, cores, memory_gb, gpu), which
older bundles lack. Nothing in a table depends on the clock.

A feature is read from a layer at a site: the MLP's output, the residual stream after the layer, or the attention's
output. A bundle without the column `site` reads MLP outputs alone. A scaled activation is a feature's value after the
activations of its layer and site were scaled to unit mean square norm (`saes.scale`, in older bundles `layers.scale`).
`predicted` is the headline probe's: contributions (weight times activation, over the tokens pooled)
and the intercept sum to it within 1e-5. Pooling (`probes.pooling`) says what a token counts for: `mean` 1 / n of the n
tokens, `response` the same among the tokens of the response (all of them where there is none), `sum` 1, `last` 1 for
the last token alone; `max` gives a feature's largest activation to the first token that has it. Padding and
beginning-of-sequence count for nothing. `token_scores.predicted` is, whatever the pooling, weight times activation on
one token, plus the intercept: its mean is the text's prediction under `mean`, its last value under `last`.

The second ledger splits `texts.predicted_raw`, the estimate of the probe `v` that reads the activations themselves, the
same way: `raw_weight` times activation over the tokens pooled, `raw_bias` (once per token under `sum`),
`raw_intercept`, and `sae_miss`. They sum to it within 1e-5 of the sum of their sizes. Where an autoencoder normalises
its inputs no constant weight per feature exists: `raw_weight` and `raw_bias` are null, and `sae_miss` stands alone.
"""


if __name__ == "__main__":
    sys.exit(write_page(markdown(), sys.argv[1:], source="lfp/bundle/schema.py"))
