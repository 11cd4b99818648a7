"""Tables of features: what they fire on, their decoders, neighbours, labels, and what taking them out does."""

from __future__ import annotations

import pyarrow as pa

from lfp.bundle.tables.columns import DOUBLE, FLAG, FLOAT, INT, LONG, TEXT, TOKEN_VALUES, Column, Table, null, site

# fmt: off
FEATURES = Table("features", "a feature", ("feature_id",), (
    Column("feature_id", INT, "Dense number over all layers and sites, from 0."),
    Column("layer", INT, "Layer that it is read from."),
    site("Where in the layer it is read"),
    Column("index", INT, "Row of the layer's dictionary."),
    Column("density", FLOAT, "Share of tokens on which it is active.", "share"),
    Column("n_active", LONG, "Tokens on which it is active.", "tokens"),
    Column("mean_activation", FLOAT, "Mean activation where active.", "scaled activation"),
    Column("max_activation", FLOAT, "Largest activation.", "scaled activation"),
    Column("base_density", FLOAT, "Density on the base model's activations, through the same dictionary.", "share"),
    Column("base_mean_activation", FLOAT, "Mean activation where active, base model.", "scaled activation"),
    Column("shift", FLOAT, "Mean activation over all tokens, tuned minus base.", "scaled activation"),
    null("stability", FLOAT, "Cosine with its Hungarian match in the other dictionary of its layer and site.",
         "cosine"),
    Column("decoder_norm", FLOAT, "L2 norm of its decoder row, in the scaled space.", "L2 norm"),
    Column("top_tokens", TOKEN_VALUES, "Tokens it fires on, by share of activation over sampled contexts.", "share"),
    Column("pos_logits", TOKEN_VALUES, "Tokens whose logit its decoder row raises most.", "logit"),
    Column("neg_logits", TOKEN_VALUES, "Tokens whose logit its decoder row lowers most.", "logit"),
    Column("x", FLOAT, "First coordinate of the map of features."),
    Column("y", FLOAT, "Second coordinate of the map of features."),
    null("scale_tuned", FLOAT, "Factor by which its direction explains the tuned model's activations on held-out "
         "texts, as far as the dictionary reconstructs them; null where it hardly fires, and in older bundles."),
    null("scale_base", FLOAT, "The same of the base model's activations."),
    null("scale_tuned_error", FLOAT, "The same of what other features leave of the tuned model's activations."),
    null("scale_base_error", FLOAT, "The same of what other features leave of the base model's activations."),
    null("is_tuned_only", FLAG, "Whether scale_base is below 0.5 of scale_tuned, and below 0.2 of it on the error; "
         "null of dictionaries of changes."),
    null("base_cosine", FLOAT, "Cosine of its decoder rows in the tuned and the base model: of a crosscoder, or of a "
         "dictionary that continues the base model's; else null.", "cosine"),
    null("base_norm_share", FLOAT, "L2 norm of its decoder row in the base model, over the sum of both; null but for "
         "crosscoders.", "share"),
))

DECODERS = Table("decoders", "a feature", ("feature_id",), (
    Column("feature_id", INT, "The feature."),
    Column("vector", pa.list_(pa.float16()), "Its decoder row, [d_in], in the scaled space."),
), row_group_rows=8_192)

HISTOGRAMS = Table("histograms", "a feature", ("feature_id",), (
    Column("feature_id", INT, "The feature."),
    Column("edges", pa.list_(FLOAT), "Bin edges, log-spaced, one more than counts.", "scaled activation"),
    Column("counts", pa.list_(LONG), "Active tokens a bin, tuned model.", "tokens"),
    Column("base_counts", pa.list_(LONG), "Active tokens a bin, base model through the same dictionary.", "tokens"),
), row_group_rows=8_192)

EXAMPLES = Table("examples", "an example of a feature", ("feature_id", "bucket", "rank"), (
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

NEIGHBOURS = Table("neighbours", "a pair of features", ("feature_id", "kind", "rank"), (
    Column("feature_id", INT, "The feature."),
    Column("kind", TEXT, "decoder_cosine or coactivation."),
    Column("rank", INT, "From 0, nearest first."),
    Column("neighbour_id", INT, "The other feature."),
    Column("value", FLOAT, "Cosine of decoder rows of one layer and site, or estimated Jaccard share of common "
           "contexts."),
))

LABELS = Table("labels", "a description", ("feature_id", "labeller"), (
    Column("feature_id", INT, "The feature."),
    Column("labeller", TEXT, "Who described it, such as offline-tokens, openai:MODEL, neuronpedia, or a person's "
           "human:NAME."),
    null("model", TEXT, "Language model asked; null for a rule or a person."),
    null("description", TEXT, "What the feature fires on."),
    null("related", FLAG, "Whether it is about the run's feedback; null where the labeller was not asked."),
    null("confidence", FLOAT, "How sure the labeller is of related.", "share"),
    null("reason", TEXT, "Why, in a sentence."),
    null("agreement", FLOAT, "Share of repeats from other examples that agree on related.", "share"),
    null("score_detection", FLOAT, "Balanced accuracy at telling held-out texts that fire from others.", "share"),
    null("score_fuzzing", FLOAT, "Balanced accuracy at telling held-out tokens that fire from others.", "share"),
    null("score_ci_low", FLOAT, "Lower end of the 95 % interval of score_detection.", "share"),
    null("score_ci_high", FLOAT, "Upper end of the 95 % interval of score_detection.", "share"),
    null("score_n", INT, "Held-out examples scored, half of them firing."),
    null("score_swapped", FLOAT, "Detection of the same examples by another feature's description.", "share"),
    null("score_p", DOUBLE, "Chance that a description which predicts nothing detects as well; null in older "
         "bundles.", "probability"),
    null("score_q", DOUBLE, "False discovery rate at which the detection is beyond chance, among the labels of its "
         "labeller; null in older bundles.", "share"),
    Column("status", TEXT, "ok, or failed where description, or related where it was asked for, is missing."),
    null("failure", TEXT, "What is missing, and why."),
    Column("prompt_version", TEXT, "Version of the prompts or of the rule."),
    null("prompt_sha256", TEXT, "Hash of the prompts of description and relation; null where none was sent."),
    null("task", TEXT, "What the prompt said about the feedback; null for a rule or a person."),
    Column("examples_used", pa.list_(TEXT), "Examples shown, as text_id:position, in the order shown."),
    null("created_at", TEXT, "UTC time of the last answer; null from the offline labeller."),
    null("cost_usd", DOUBLE, "What the answers cost.", "US dollars"),
))

ABLATIONS = Table("ablations", "a group of features", ("group",), (
    Column("group", TEXT, "Name of the group."),
    Column("kind", TEXT, "related (so called by the labeller), weighted (raise the headline estimate most), both, "
           "feature (a single one), chosen (named by a person) or control."),
    null("control_of", TEXT, "Group this one is the matched control of."),
    Column("features", pa.list_(INT), "Features taken out."),
    null("layer", INT, "Layer, where all are of one."),
    null("site", TEXT, "Site, where all are of one layer and site; null in older bundles: mlp_out."),
    Column("scale", FLOAT, "What their activation is multiplied by; 0 takes them out."),
    Column("n_completions", INT, "Completions generated."),
    Column("reward_before", DOUBLE, "Mean reward without ablation; where the feedback is pairs, mean implicit reward "
           "of a completion under the untouched models, in nats, here and below.", "reward"),
    Column("reward_after", DOUBLE, "Mean reward with it.", "reward"),
    Column("effect", DOUBLE, "After minus before, paired.", "reward"),
    Column("ci_low", DOUBLE, "Lower end of the effect's 95 % interval, over texts.", "reward"),
    Column("ci_high", DOUBLE, "Upper end of the effect's 95 % interval, over texts.", "reward"),
    null("null_high", DOUBLE, "95th percentile of |effect| over the matched controls; of single features, over all "
         "single controls together, the luck of the one clean run included. Null for a control, and where no control "
         "can be had.", "reward"),
    null("contrast", DOUBLE, "Effect less the mean effect of its controls, paired by prefix, so that the clean run "
         "cancels; of single features, all single controls together. Null for a control, and without any.", "reward"),
    null("contrast_low", DOUBLE, "Lower end of the contrast's 95 % interval, over texts.", "reward"),
    null("contrast_high", DOUBLE, "Upper end of the contrast's 95 % interval, over texts.", "reward"),
    null("contrast_reach", DOUBLE, "Size that 95 % of further controls' contrasts stay within, by Student's t of how "
         "the controls differ.", "reward"),
    null("contrast_p", DOUBLE, "Two-sided p of the contrast among controls, by the same t."),
    null("contrast_q", DOUBLE, "The same as a false discovery rate among the groups, or among the single features."),
    null("reward_clean", DOUBLE, "Mean reward of the untouched model over several runs with other seeds.", "reward"),
    null("clean_runs", INT, "How many runs that is."),
    null("predicted_effect", DOUBLE, "Effect that the contributions predict: (scale - 1) times the sum over its "
         "features of weight times mean activation on the clean run.", "probe target per token"),
    Column("perplexity", DOUBLE, "Of the completions under the base model."),
    null("perplexity_before", DOUBLE, "The same of the untouched model's completions."),
    Column("repetition", DOUBLE, "Share of a completion's token trigrams that stood in it before.", "share"),
    null("repetition_before", DOUBLE, "The same of the untouched model's completions.", "share"),
    null("density", DOUBLE, "Mean over its features of the share of tokens they are active on, clean run.", "share"),
    null("removed_energy", DOUBLE, "Sum over its features of the mean over tokens of (activation * decoder norm)^2, "
         "clean run.", "mean square norm of the activations there"),
))
