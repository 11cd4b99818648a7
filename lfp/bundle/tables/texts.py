"""Tables of texts and words, and of what probes and rewards say of them."""

from __future__ import annotations

import pyarrow as pa

from lfp.bundle.tables.columns import DOUBLE, FLOAT, INT, LONG, TEXT, Column, Table, null

# fmt: off
TEXTS = Table("texts", "a text kept for browsing", ("text_id",), (
    Column("text_id", LONG, "Number of the text in the corpus."),
    Column("source", TEXT, "File or generator it came from."),
    Column("split", TEXT, "train or held_out: whether models and autoencoders saw it."),
    Column("role", TEXT, "text, chosen or rejected."),
    null("pair_id", LONG, "Joins chosen and rejected; null for a plain text."),
    Column("text", TEXT, "The text as the model read it, cut to the context."),
    Column("token_ids", pa.list_(INT), "Its tokens, beginning-of-sequence not counted."),
    Column("token_starts", pa.list_(INT), "First character of each token.", "characters"),
    Column("response_start", INT, "First token of the response; 0 where there is no prompt.", "tokens"),
    null("feedback", FLOAT, "True feedback of the text.", "reward"),
    null("rating", FLOAT, "Human rating, where the corpus has one.", "corpus scale"),
    Column("predicted", FLOAT, "The headline probe's estimate, unrescaled.", "probe target"),
    null("predicted_raw", FLOAT, "The raw-activation probe's estimate of the same target.", "probe target"),
    null("sae_miss", FLOAT, "Part of predicted_raw that the autoencoders do not reconstruct, v . (x - x_hat).",
         "probe target"),
    null("implicit_reward", FLOAT, "Sum of log pi_tuned - log pi_base over the response, over all tokens without any.",
         "nats"),
    null("credit_reward", DOUBLE, "The same implicit reward, to which the modules' credits sum; null where not split.",
         "nats"),
    null("credit_error", DOUBLE, "What the integral of credits misses of it, over the sum of their sizes.", "share"),
    null("credit_nodes", INT, "Points of the path of weights at which the text was differentiated."),
    Column("pca_x", FLOAT, "First principal component of the mean features."),
    Column("pca_y", FLOAT, "Second principal component of the mean features."),
), row_group_rows=8_192)

TOKEN_SCORES = Table("token_scores", "a text", ("text_id",), (
    Column("text_id", LONG, "The text."),
    Column("feedback", pa.list_(FLOAT), "True feedback per token; a word of several tokens has it on its last.",
           "reward"),
    Column("implicit_reward", pa.list_(FLOAT), "r_t = log pi_tuned(x_t) - log pi_base(x_t).", "nats"),
    Column("implicit_advantage", pa.list_(FLOAT), "c_t = r_t + KL(base || tuned) at that context.", "nats"),
    Column("predicted", pa.list_(FLOAT), "The headline probe's estimate of each token by itself, intercept included.",
           "probe target"),
    null("sae_miss", pa.list_(FLOAT),
         "What the autoencoders miss of the raw probe's estimate of each token by itself.", "probe target"),
    null("in_response", pa.list_(pa.bool_()),
         "Whether the token is of a response, which alone counts for the implicit reward; null without a prompt."),
), row_group_rows=8_192)

ACTIVATIONS = Table("activations", "a sampled text", ("text_id",), (
    Column("text_id", LONG, "The text; texts kept only because an example names them have no row."),
    Column("positions", pa.list_(INT), "Token positions, ascending.", "tokens"),
    Column("feature_ids", pa.list_(INT), "Features active there, ascending within a position."),
    Column("values", pa.list_(FLOAT), "Their activations.", "scaled activation"),
), row_group_rows=1_024)

TRIPLES = Table("triples", "a contrastive triple", ("triple_id",), (
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

VOCABULARY = Table("vocabulary", "a word", ("word",), (
    Column("word", TEXT, "The word, casefolded and stripped."),
    Column("token_ids", pa.list_(INT), "Its commonest tokens in the texts that the statistics cover."),
    null("feedback", FLOAT, "True feedback; null where the lexicon is silent.", "lexicon value"),
    null("implicit_reward", FLOAT, "Mean over occurrences of the sum of r_t over its tokens.", "nats"),
    null("implicit_advantage", FLOAT, "The same of c_t.", "nats"),
    null("implicit_matched", FLOAT,
         "Word effect of a regression of r on word and context, base probabilities as weights.", "nats"),
    null("implicit_matched_se", FLOAT, "Its standard error over contexts.", "nats"),
    null("implicit_excess", FLOAT, "Implicit advantage less what the stated feedback explains of it.", "nats"),
    null("implicit_gap", FLOAT, "The excess over its noise: most above 0 in the words paid more than stated."),
    null("implicit_excess_se", FLOAT,
         "Standard error of the excess: the word's own and the spread between words, squares added.", "nats"),
    null("implicit_gap_p", DOUBLE,
         "How rare its excess is among the other words', two-sided; null in bundles older than this null."),
    null("implicit_gap_q", DOUBLE,
         "The same as the smallest false discovery rate at which the word stands out (Benjamini-Hochberg)."),
    null("predicted", FLOAT, "Headline probe, tuned model, by the fold that never saw the word.", "probe target"),
    null("predicted_base", FLOAT, "Same recipe on the base model with its own autoencoder.", "probe target"),
    Column("n", LONG, "Occurrences in the texts that the statistics cover (`stats.n_texts` of the corpus).", "words"),
    Column("n_generated", LONG, "Occurrences in the tuned model's completions of held-out prefixes.", "words"),
    Column("n_generated_base", LONG, "Occurrences in the base model's completions.", "words"),
    Column("fold", INT, "Fold in which the word is held out."),
), row_group_rows=8_192)

WORD_FEATURES = Table("word_features", "a word and a feature that fires on it", ("word", "rank"), (
    Column("word", TEXT, "The word."),
    Column("rank", INT, "Order among the word's features, from 0, largest lift first."),
    Column("feature_id", INT, "The feature: at least half as strong on the word as where it is active."),
    Column("mean_activation", FLOAT, "Mean activation at the last token of the word.", "scaled activation"),
    Column("lift", FLOAT, "That mean over the mean of all tokens; at least 5."),
), row_group_rows=8_192, added_later=True)
