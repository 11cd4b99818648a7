"""Tables of the ledger: the implicit reward split over modules, words, checkpoints and features; interventions."""

from __future__ import annotations

import pyarrow as pa

from lfp.bundle.tables.columns import DOUBLE, FLAG, FLOAT, INT, LONG, TEXT, TOKEN_VALUES, Column, Table, null

# fmt: off
_MODULE = "embedding, attention, mlp, norm, final_norm, unembedding or other"
_PATH = ("full: through every later layer and position; same_position: for the next token alone, keys and values being "
         "constants.")

_BY_MODULE = ("path", "layer", "module")

MODULE_CREDITS = Table("module_credits", "a text, a kind of path and a module", ("text_id", *_BY_MODULE), (
    Column("text_id", LONG, "The text."),
    Column("path", TEXT, _PATH),
    null("layer", INT, "Layer of the module; null outside the layers."),
    Column("module", TEXT, f"{_MODULE}; on the same position also elsewhere, what came through keys and values, the "
           "position's own included."),
    Column("credit", DOUBLE, "Its part of texts.credit_reward, to which a path's modules sum.", "nats"),
), row_group_rows=32_768, added_later=True)

WORD_CREDITS = Table("word_credits", "a word, a kind of path and a module", ("word", *_BY_MODULE), (
    Column("word", TEXT, "The word, one of vocabulary."),
    Column("path", TEXT, "same_position: of the word's own implicit reward, to which these sum; full: of the whole "
           "text's, through all that follows."),
    null("layer", INT, "Layer of the module; null outside the layers."),
    Column("module", TEXT, f"{_MODULE}, by what it wrote at the positions before the word's tokens; elsewhere as in "
           "module_credits."),
    Column("mean", FLOAT, "Mean over contexts of the sum over the word's tokens.", "nats"),
    null("ci_low", FLOAT, "Lower end of its 95 % interval over texts, pairs whole; null where one has all contexts (in "
         "older bundles over contexts, as if they were independent).", "nats"),
    null("ci_high", FLOAT, "Upper end.", "nats"),
    Column("n", LONG, "Contexts."),
), row_group_rows=32_768, added_later=True)

FEATURE_CREDITS = Table("feature_credits", "a text split over features", ("text_id",), (
    Column("text_id", LONG, "The text."),
    Column("positions", pa.list_(INT), "Tokens at which features were written, ascending.", "tokens"),
    Column("feature_ids", pa.list_(INT), "The features, ascending within a position."),
    Column("credits", pa.list_(FLOAT), "What tuning's change of the feature there carries of the text's implicit "
           "reward, through all later layers and positions.", "nats"),
    Column("next_credits", pa.list_(FLOAT), "What it carries of the implicit reward of the token after it, keys and "
           "values held fixed, those of its own position included.", "nats"),
), row_group_rows=1_024, added_later=True)

CREDIT_SUMS = Table("credit_sums", "a text and a place", ("text_id", "layer", "site", "path"), (
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

CREDITS = Table("credits", "a feature", ("feature_id",), (
    Column("feature_id", INT, "The feature."),
    Column("credit", DOUBLE, "What it carries of the implicit reward, credits over the tokens of the split texts, of "
           "responses where there are prompts (in older bundles over all tokens).", "nats per token"),
    Column("ci_low", DOUBLE, "Lower end of the 95 % interval over texts, pairs whole.", "nats per token"),
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
    null("twin_difference", DOUBLE, "Credit in the tuned model less the mean of its twins, through the same "
         "dictionary, in the first feature_credits.twin_texts texts; null without twins, where no model's credit is "
         "of any size, and in older bundles.", "nats per token"),
    null("twin_error", DOUBLE, "How far a further twin would be from that mean by chance (standard deviation, "
         "moderated over features).", "nats per token"),
    null("twin_p", DOUBLE, "Two-sided p-value of the difference: by Student's t, or by twins left out where that is "
         "larger."),
    null("twin_q", DOUBLE, "Smallest false discovery rate at which the feature's credit is not the twins' (Benjamini "
         "and Hochberg)."),
    null("beyond_twins", FLAG, "Whether twin_q is at most 0.1."),
), row_group_rows=8_192, added_later=True)

INTERVENTIONS = Table("interventions", "a feature taken out of what tuning changed", ("kind", "feature_id",
                                                                                       "control_of"), (
    Column("feature_id", INT, "The feature; its part of the change is subtracted from what the tuned model writes."),
    Column("kind", TEXT, "feature (of those with the largest credit) or control."),
    null("control_of", INT, "Feature that this is the matched control of: as often and as strongly in the change."),
    Column("layer", INT, "Layer of the feature."),
    Column("site", TEXT, "Where its module writes: mlp_out or attn_out."),
    Column("n_texts", INT, "Texts that the effect was measured on."),
    Column("by_credit", DOUBLE, "Effect that the credit on these texts predicts: its negative.", "nats per token"),
    null("by_weight", DOUBLE, "The negative of the headline probe's mean contribution; null where it reads no "
         "feature.", "probe target"),
    null("by_drift", DOUBLE, "The negative of drifted_contribution.", "probe target"),
    Column("effect", DOUBLE, "Change of the texts' implicit reward, per token of responses where there are "
           "prompts.", "nats per token"),
    Column("ci_low", DOUBLE, "Lower end of its 95 % interval over texts, pairs whole.", "nats per token"),
    Column("ci_high", DOUBLE, "Upper end of its 95 % interval over texts.", "nats per token"),
    Column("removed_energy", DOUBLE, "Mean over tokens of (code * decoder norm)^2.", "mean square norm of the change"),
    null("reward_effect", DOUBLE, "Change of the mean reward of completions of the same prefixes, against clean_runs "
         "runs of the untouched model; null where it was not measured.", "reward"),
    null("reward_ci_low", DOUBLE, "Lower end of its 95 % interval over prefixes.", "reward"),
    null("reward_ci_high", DOUBLE, "Upper end of its 95 % interval over prefixes.", "reward"),
    null("n_completions", INT, "Completions."),
    null("clean_runs", INT, "Runs of the untouched model, each with draws of its own; null in older bundles, where "
         "reward_effect is against one run whose luck all rows share."),
    null("reward_contrast", DOUBLE, "Mean reward without the feature less the mean without each of the controls, of a "
         "control without the others, paired by prefix; null in older bundles.", "reward"),
    null("reward_contrast_low", DOUBLE, "Lower end of its 95 % interval over prefixes.", "reward"),
    null("reward_contrast_high", DOUBLE, "Upper end of its 95 % interval over prefixes.", "reward"),
), added_later=True)

FEATURE_TRAJECTORY = Table("feature_trajectory", "a feature at a checkpoint of the tuning", ("feature_id", "step"), (
    Column("feature_id", INT, "One of the features of the largest final credit."),
    Column("step", INT, "Step of the tuning."),
    Column("nats", DOUBLE, "Its credit per token in the implicit reward of that checkpoint, full path.", "nats"),
    Column("ci_low", DOUBLE, "Lower end of its 95 % interval over texts.", "nats"),
    Column("ci_high", DOUBLE, "Upper end.", "nats"),
    Column("n", LONG, "Texts behind it."),
), added_later=True)

TRAJECTORY = Table("trajectory", "a module at a checkpoint of the tuning", ("step", "layer", "module"), (
    Column("step", INT, "Step of the tuning."),
    null("layer", INT, "Layer of the module; null outside the layers."),
    Column("module", TEXT, f"{_MODULE}."),
    Column("nats", DOUBLE, "Its credit per token in the implicit reward of that checkpoint, full path.", "nats"),
    Column("ci_low", DOUBLE, "Lower end of its 95 % interval over texts.", "nats"),
    Column("ci_high", DOUBLE, "Upper end.", "nats"),
    Column("n", LONG, "Texts behind it."),
), added_later=True)
