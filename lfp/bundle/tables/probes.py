"""Tables of probes, their weights, the drift of features, and every figure of the report."""

from __future__ import annotations

import pyarrow as pa

from lfp.bundle.tables.columns import DOUBLE, FLAG, FLOAT, INT, LONG, TEXT, Column, Table, null

# fmt: off
PROBES = Table("probes", "a probe", ("probe_id",), (
    Column("probe_id", INT, "Number of the probe, from 0."),
    Column("target", TEXT, "delta, feedback, implicit_reward (of a token in its context: c_t) or preference."),
    Column("inputs", TEXT, "sae, raw, base_sae, base_raw, sae_of_base, random_sae, trained_random_sae, "
           "difference_in_means or token_identity."),
    Column("model", TEXT, "tuned or base: whose activations are the inputs."),
    Column("layers", pa.list_(INT), "Layers whose activations are concatenated."),
    null("sites", pa.list_(TEXT), "Sites that each of these layers is read at; null in older bundles: mlp_out."),
    Column("kind", TEXT, "ridge, logistic or difference_in_means."),
    Column("pooling", TEXT, "mean, sum, last, max or response: how tokens make a text's inputs."),
    Column("alpha", DOUBLE, "Regularisation chosen by cross-validation grouped by word or pair."),
    Column("intercept", DOUBLE, "Added to the sum of contributions.", "probe target"),
    null("raw_intercept", DOUBLE, "Intercept of the raw probe on the same target; null but for the headline.",
         "probe target"),
    null("raw_bias", DOUBLE, "What the raw probe v gives the autoencoders' biases, v . b_dec.", "probe target"),
    Column("display_slope", DOUBLE, "Rescales a prediction to the lexicon's range, for display only."),
    Column("display_offset", DOUBLE, "Added after display_slope, for display only."),
    Column("n_train", LONG, "Rows it was fitted on."),
    Column("n_test", LONG, "Rows predicted out of fold."),
    Column("is_headline", FLAG, "Whether texts.predicted is this probe's."),
))

WEIGHTS = Table("weights", "a probe and a feature", ("probe_id", "feature_id"), (
    Column("probe_id", INT, "The probe."),
    Column("feature_id", INT, "The feature."),
    Column("weight", FLOAT, "Target per unit of activation, the scale of its layer and site folded in.",
           "probe target"),
    null("raw_weight", FLOAT, "(v . d_i): what the raw probe v of the same target gives a unit of the feature.",
         "probe target"),
    null("ci_low", FLOAT, "Lower end of the 95 % interval over words, or pairs.", "probe target"),
    null("ci_high", FLOAT, "Upper end of the 95 % interval over words, or pairs.", "probe target"),
    Column("mean_contribution", FLOAT, "Mean over tokens of weight times activation.", "probe target"),
    Column("mean_abs_contribution", FLOAT, "The same of its absolute value.", "probe target"),
    Column("share", FLOAT, "Its share of the sum of mean absolute contributions.", "share"),
    Column("rank", INT, "Rank by mean_abs_contribution, from 1."),
    null("null_mean", FLOAT, "Mean weight over shuffled feedback, at the probe's own alpha; null in older bundles.",
         "probe target"),
    null("null_high", FLOAT, "95th percentile of |weight| over shuffled feedback, at the probe's own alpha.",
         "probe target"),
    null("p", FLOAT, "Two-sided p-value of weight less null_mean; null where no weight is possible, and in older "
         "bundles."),
    null("q", FLOAT, "Smallest false discovery rate within the probe at which the weight is a discovery (Benjamini "
         "and Hochberg); null where p is."),
    null("beats_null", FLAG, "Whether q is at most 0.05; in older bundles, without q: whether |weight| passes "
         "null_high, which chance does for 5 % of features or more."),
))

DRIFT = Table("drift", "a feature", ("feature_id",), (
    Column("feature_id", INT, "The feature."),
    Column("probe_id", INT, "The headline probe, whose weights these are."),
    Column("status", TEXT, "born, strengthened, steady, weakened or gone: what tuning did to how it fires."),
    null("sign_flipped", FLAG, "Whether weight and weight_base are of opposite sign, both beyond their noise."),
    Column("weight", FLOAT, "Its weight in the headline probe.", "probe target"),
    null("weight_base", FLOAT, "The same target's weight on the base model through the same dictionary.",
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

RESULTS = Table("results", "a figure of the report", _RESULT_KEYS, (
    Column("report_row", TEXT, "Row of the report, such as kendall_tau."),
    null("model", TEXT, "tuned, base or difference; of latent_scaling also twin (against the base model) and "
         "twin_of_twin (against another twin)."),
    null("layer", INT, "Layer, where the figure is of one."),
    null("site", TEXT, "Site in the layer, where the figure is of one; null in older bundles: mlp_out."),
    null("probe_id", INT, "Probe, where the figure is of one kept in probes."),
    null("target", TEXT, "Target of the probe."),
    null("inputs", TEXT, "Inputs of the probe; sae_before: features at the token before, tuned or base with its own."),
    null("words", TEXT, "all, positive or negative."),
    null("split", TEXT, "held_out_words, held_out_pairs or random_rows."),
    null("group", TEXT, "Group of features, dictionary size, or other key of the row."),
    Column("metric", TEXT, "What is measured, such as tau or fvu."),
    Column("value", DOUBLE, "The figure."),
    null("ci_low", DOUBLE, "Lower end of its 95 % bootstrap interval."),
    null("ci_high", DOUBLE, "Upper end of its 95 % bootstrap interval."),
    null("null_mean", DOUBLE, "Its mean over permutations."),
    null("null_high", DOUBLE, "Its 95th percentile over permutations; of its size where the test is two-sided. Of "
         "shares of modules beside twins, the upper end of a further twin's 95 % interval."),
    null("null_p", DOUBLE, "Share of permutations that reach it, (r + 1) / (n + 1); beside twins, of Student's t."),
    null("n", LONG, "Words, pairs, texts or tokens behind it."),
))
