"""Tables of the models: layers, autoencoders, directions of change, forecast, completions, tuning, twins."""

from __future__ import annotations

import pyarrow as pa

from lfp.bundle.tables.columns import (
    DOUBLE,
    FLAG,
    FLOAT,
    GROUP_VALUES,
    INT,
    LONG,
    SITES_IN_WORDS,
    TEXT,
    TOKEN_VALUES,
    Column,
    Table,
    null,
    site,
)

# fmt: off
LAYERS = Table("layers", "a layer", ("layer",), (
    Column("layer", INT, "Layer number, from 0."),
    Column("divergence", DOUBLE, "Sum over the layer's parameters of the L2 norm of tuned minus base.", "L2 norm"),
    Column("divergence_mlp", DOUBLE, "The same over the parameters of its MLP.", "L2 norm"),
    Column("divergence_by_group", GROUP_VALUES, "The same by group of parameters: attention, mlp, norm.", "L2 norm"),
    Column("relative_divergence", DOUBLE, "Divergence over the sum of L2 norms of the base's parameters.", "share"),
    Column("selected", FLAG, "Whether the layer was read: its activations were written as features."),
    Column("d_in", INT, "Width of the activations.", "dimensions"),
    null("credit", DOUBLE, "Share of the absolute credits of all modules that its modules at the sites read carry.",
         "share"),
    null("scale", DOUBLE, "Factor giving the tuned model's MLP output unit mean square norm; null if that is not "
         "read. Of other sites: saes.scale."),
))

_SAES_BY = ("layer", "site", "variant", "width", "seed", "model", "source")
SAES = Table("saes", "a sparse autoencoder trained", _SAES_BY, (
    Column("layer", INT, "Layer number."),
    site("Where in the layer it reads"),
    Column("variant", TEXT, "tied_relu, relu, topk, batchtopk or jumprelu."),
    Column("width", INT, "Features in the dictionary."),
    Column("seed", INT, "Seed of its training."),
    Column("tied", FLAG, "Whether the decoder is the encoder transposed."),
    null("l1", DOUBLE, "Weight of the L1 penalty; null where the variant has none."),
    null("k", INT, "Active features per token; null where the variant has no k."),
    null("l0_weight", DOUBLE, "Weight of the mean number of active features; null where the variant has none."),
    Column("is_used", FLAG, "Whether its features are the bundle's features."),
    Column("model", TEXT, "tuned or base: the model whose features it has; tuned where both models share it."),
    Column("fvu", DOUBLE, "Fraction of variance unexplained on held-out texts, of what it was trained on.", "share"),
    Column("l0", DOUBLE, "Mean number of active features per token on held-out texts.", "features"),
    Column("dead_fraction", DOUBLE, "Share of features never active on held-out texts.", "share"),
    null("ce_recovered", DOUBLE, "Cross-entropy recovered by the reconstruction, against zero ablation.", "share"),
    null("mmcs", DOUBLE, "Mean max cosine similarity with the other dictionary there, Hungarian-matched.", "cosine"),
    Column("source", TEXT, "trained, or the folder or hub name it was read from; random_decoder for a control whose "
           "decoder stayed at random directions while the rest was trained."),
    null("scale", DOUBLE, "Factor that gave the activations it reads unit mean square norm; null in older bundles."),
    null("trained_on", TEXT, "tuned, base, shared, change, crosscoder or base_finetuned (sae.trained_on); null in "
         "older bundles: the activations of its model."),
    null("fvu_tuned", DOUBLE, "fvu on the tuned model's activations; of changes, at the tuned model's inputs.",
         "share"),
    null("fvu_base", DOUBLE, "fvu on the base model's activations; of changes, at the base model's inputs.", "share"),
))

FORECAST = Table("forecast", "a feature of the base model that fires in the pairs", ("feature_id",), (
    Column("feature_id", INT, "Number of the feature in the forecast's own dictionary, not in that of `features`."),
    Column("layer", INT, "Layer of the base model that it reads."),
    Column("site", TEXT, f"Where in the layer: {SITES_IN_WORDS}."),
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
    null("expected", DOUBLE, "`preferred` as the difference predicts it, by a line fitted on other features.",
         "scaled activation"),
    null("preferred", DOUBLE, "What was learned: how much more a held-out response has of it where its implicit "
         "reward is a standard deviation higher than the other response's, at equal length.", "scaled activation"),
    null("preferred_low", DOUBLE, "Lower end of its 95 % interval, over conversations.", "scaled activation"),
    null("preferred_high", DOUBLE, "Upper end of its 95 % interval, over conversations.", "scaled activation"),
    null("preferred_q", DOUBLE, "False discovery rate at which it is not 0."),
    null("moved", DOUBLE, "Mean change by tuning on held-out responses: the tuned model's less the base model's.",
         "scaled activation"),
    null("moved_low", DOUBLE, "Lower end of its 95 % interval, over conversations.", "scaled activation"),
    null("moved_high", DOUBLE, "Upper end of its 95 % interval, over conversations.", "scaled activation"),
    null("credit", DOUBLE, "Its part of the implicit reward of held-out pairs, chosen minus rejected.", "nats"),
    null("status", TEXT, "in the data and learned; in the data, not learned; learned, not in the data; neither."),
), row_group_rows=8_192, added_later=True)

COMPLETIONS = Table("completions", "a generated text", ("group", "index"), (
    Column("group", TEXT, "base, tuned, or the ablation's group; unablated for the untouched model on the ablation's "
           "prefixes, GROUP/unablated on those of a chosen group."),
    Column("index", INT, "Number of the prefix; the same in groups of the same prefixes."),
    Column("prompt_id", INT, "Number of the prefix among the held-out prefixes; in an ablation like ones share it."),
    Column("prompt", TEXT, "The prefix."),
    Column("completion", TEXT, "What the model wrote."),
    Column("reward", DOUBLE, "Reward of the completion.", "reward"),
    null("perplexity", DOUBLE, "Of the completion under the base model."),
    Column("model", TEXT, "base, tuned or ablated."),
))

TUNING = Table("tuning", "a figure of a step of the tuning", ("metric", "step"), (
    Column("step", INT, "Step, from 1."),
    Column("metric", TEXT, "GRPO: reward, the mean of the step's completions; kl, from the base model, in nats per "
           "token; entropy, in nats per token; loss. DPO: margin, beta times the implicit reward of chosen over "
           "rejected; accuracy, the share of pairs with a positive margin; chosen and rejected, the implicit reward of "
           "a response in nats; entropy; loss."),
    Column("value", DOUBLE, "Its value before the step changed the weights."),
), added_later=True)

TWINS = Table("twins", "a word, compared with models tuned on the same stated feedback by other seeds", ("word",), (
    Column("word", TEXT, "The word, casefolded and stripped."),
    Column("n", LONG, "Occurrences in the corpus.", "words"),
    null("feedback", FLOAT, "Stated feedback; null where the lexicon is silent.", "lexicon value"),
    Column("preference", FLOAT, "How far the tuned model prefers the word to the base model, over the base model's "
           "probability of it in every context, less what the stated feedback explains.", "nats"),
    Column("twin_mean", FLOAT, "Mean of the same over the twins.", "nats"),
    Column("twin_error", FLOAT, "How far a further twin would be from that mean by chance: a standard deviation, "
           "moderated by the other words'.", "nats"),
    Column("t", FLOAT, "Preference less the twins' mean, over that error."),
    Column("p", DOUBLE, "Two-sided, of Student's t."),
    Column("q", DOUBLE, "Smallest false discovery rate at which the word differs from the twins (Benjamini-Hochberg)."),
    Column("differs", FLAG, "Whether q is at most 0.10."),
    null("of_unembedding", FLOAT, "Credit of the unembedding for the word's implicit reward, mean over some "
         "occurrences, less the twins' mean; null but for the words that differ most.", "nats"),
    null("of_embedding", FLOAT, "The same of the embedding.", "nats"),
    null("of_attention", FLOAT, "The same of attention.", "nats"),
    null("of_mlp", FLOAT, "The same of the MLPs.", "nats"),
    null("of_norms", FLOAT, "The same of norms, and of modules without a kind.", "nats"),
), added_later=True)

DIFFERENCES = Table("differences", "a direction of what tuning changed of activations", ("layer", "site", "rank"), (
    Column("layer", INT, "The layer."),
    site("Where in the layer it is read"),
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
