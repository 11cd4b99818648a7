"""Titles of Evidence, Drift and Compare: findings with their intervals, true where a value is null or below chance."""

import math
from dataclasses import replace

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.components.feature import drift, leading
from app.components.results import comparison as comparing
from app.components.results import evidence
from app.components.results import titles as summary_titles
from app.components.results.report import Gap
from app.components.text import samples
from lfp.bundle.comparison import FigurePair, MatchedFeatures
from lfp.bundle.queries.credits import Leaders, LeadingFeature
from lfp.bundle.queries.run import Sample
from lfp.evaluation.results import ResultRow
from lfp.evaluation.written_words import WrittenWord
from tests.lfp.result_rows import result_rows

LABELLER = "labeller=offline-tokens"
OF_PROBE = {"model": "tuned", "inputs": "sae", "words": "all", "target": "delta"}


def figure(metric="tau", value=0.4, low=0.3, high=0.5, **keys):
    return ResultRow(report_row="any", metric=metric, value=value, ci_low=low, ci_high=high, **keys)


def test_words_are_said_to_be_ranked_alike_only_beyond_chance():
    def says(**keys):
        return evidence.words(figure(n=48, **keys), 50, first="The implicit reward", second="reward")

    assert says(null_high=0.1, null_mean=0.0) == (
        "The implicit reward ranks 48 words as the reward does: τ = 0.40 [0.30, 0.50], above chance (0.10)"
    )
    below = says(value=0.06, low=-0.1, high=0.2, null_high=0.18)
    assert "does not rank 48 words" in below and below.endswith(
        "τ = 0.06 [−0.10, 0.20], not clearly above chance (0.18)"
    )
    assert "does not rank" in says(value=0.2, low=-0.1, high=0.4, null_high=0.1)
    assert "contrary to the reward: τ = −0.40" in says(value=-0.4, low=-0.5, high=-0.3, null_high=0.1)
    assert "does not rank" in says(low=-0.1) and "ranks 48" in says()
    for row in (None, figure(value=math.nan)):
        assert evidence.words(row, 50, first="The estimate", second="reward") == "The estimate and reward of 50 words"


def test_words_that_no_figure_ranks_are_ranked_as_they_are_shown():
    row = evidence.rank_words([1, 2, 3, None, 4, 5], [1, 3, 2, 7, 4, 5])
    assert row.n == 5 and row.value == pytest.approx(0.9) and row.ci_low <= 0.9 <= row.ci_high
    assert "Spearman’s ρ = 0.90" in evidence.words(row, 5, first="A", second="B")
    assert evidence.rank_words([1, None, 2], [None, 1, 2]) is None


def test_a_probe_on_held_out_words_is_shown_beside_the_base_model():
    rows = [
        figure(null_high=0.1, **OF_PROBE),
        figure(value=0.2, low=0.1, high=0.3, **{**OF_PROBE, "model": "base", "inputs": "base_sae"}),
    ]
    assert evidence.taus(rows, "delta", words="all") == (
        "On the tuned model’s features the probe ranks held-out words with τ = 0.40 [0.30, 0.50], above chance (0.10); "
        "on the base model’s 0.20 [0.10, 0.30]"
    )
    assert "not clearly above chance (0.45)" in evidence.taus([replace(rows[0], null_high=0.45)], "delta", words="all")
    assert evidence.taus(rows, "delta", words="negative").startswith("No probe")


def test_errors_are_compared_with_shuffled_estimates():
    row = figure("mean_absolute_error", 1.3, 1.2, 1.4, group="all", null_mean=2.1)
    assert evidence.errors([row]).endswith(
        "1.30 [1.20, 1.40] lexicon points on average, less than shuffled estimates (2.10)"
    )
    assert "no less than shuffled estimates (1.35)" in evidence.errors([replace(row, null_mean=1.35)])
    assert evidence.errors([replace(row, null_mean=None)]).endswith("on average")


def test_the_largest_gap_is_held_against_chance():
    gap = Gap("word", "makes", -7.3, -12.5, 0.9, 211)
    assert evidence.gaps("gap_under_paid", [gap]) == (
        "The largest gap is −7.30 standard errors, “makes”: within chance (12.50)"
    )
    assert "beyond chance (5.00)" in evidence.gaps("gap_under_paid", [replace(gap, chance=5.0)])
    assert evidence.gaps("gap_true_rating", [replace(gap, kind="text", name="3", chance=None)]).endswith("text 3")


def test_pairs_and_the_slope_say_what_their_intervals_allow():
    keys = {"target": "preference", "inputs": "sae", "model": "tuned"}
    row = figure("accuracy", 0.65, 0.6, 0.69, null_high=0.54, null_mean=0.5, **keys)
    assert evidence.pairs([row]).endswith("in 65 % [60, 69] of held-out pairs, above chance (54 %)")
    assert "not clearly above chance" in evidence.pairs([replace(row, ci_low=0.45)])
    slope = figure("calibration_slope", 0.67, 0.47, 0.89, **keys)
    assert "is over-confident: slope 0.67 [0.47, 0.89]" in evidence.calibration([slope])
    assert "not clearly over- or under-confident" in evidence.calibration([replace(slope, ci_high=1.2)])
    assert "is under-confident" in evidence.calibration([replace(slope, ci_low=1.1, ci_high=1.2)])


def test_components_are_each_held_against_chance():
    rows = [
        figure("explained_share", 0.61, 0.55, 0.66, null_high=0.37),
        figure("explained_share", 0.09, 0.07, 0.13, null_high=0.25),
    ]
    assert evidence.components(rows) == (
        "Of the variance of texts, the first component explains 61 % [55, 66], above chance (37 %); the second 9.0 % "
        "[7.0, 13], not clearly above chance (25 %)"
    )


def counts(both, related_only, weighty_only, neither, **odds):
    names = ("related_and_weighty", "related_only", "weighty_only", "neither")
    found = {
        name: ResultRow(report_row="any", metric=name, value=value)
        for name, value in zip(names, (both, related_only, weighty_only, neither), strict=True)
    }
    return found | {"odds_ratio": figure("odds_ratio", 2.0, 1.0, 4.0, **odds)}


def test_labels_without_a_large_weight_are_not_judged():
    assert evidence.counts(counts(0, 12, 0, 309, null_high=24.8)).startswith("None of 321 labelled features has")
    says = evidence.counts(counts(2, 9, 47, 432, null_high=3.8))
    assert says.startswith("2 of 11 features labelled related have a large weight, 47 of 479 others")
    assert says.endswith("within what shuffled labels reach")
    assert evidence.counts(counts(2, 9, 47, 432, null_high=1.5)).endswith("beyond what shuffled labels reach")


@pytest.mark.parametrize(
    ("value", "says"), [(0.2, "have larger weights"), (-0.2, "have smaller weights"), (0.05, "neither larger nor")]
)
def test_confidence_is_held_against_both_sides_of_its_null(value, says):
    row = figure("rank_correlation", value, value - 0.1, value + 0.1, group=f"{LABELLER},against=x", null_high=0.1)
    title = evidence.beliefs([row], "offline-tokens")
    assert says in title and ("within chance (±0.10)" in title) == (abs(value) < 0.1)
    assert evidence.beliefs([row], "another") == "Label confidence and probe weight"


def test_labels_predict_only_beyond_another_features_label():
    row = figure("detection", 0.69, 0.68, 0.71, group=f"{LABELLER},features=all", null_high=0.57, null_mean=0.5, n=283)
    assert "Labels predict which held-out texts" in evidence.scores([row], "detection", "offline-tokens")
    within = evidence.scores([replace(row, null_high=0.7)], "detection", "offline-tokens")
    assert "Labels do not predict" in within and within.endswith("another feature’s label reaches 0.70")


def test_frequencies_fluency_and_effects_say_which_way():
    change = {"related_high_less_rest": figure("per_token", -0.0045, -0.0068, -0.0018)}
    assert "fire less often: −0.45 [−0.68, −0.18] percentage points" in evidence.frequencies(change)
    rows = [
        {"kind": "related", "group": "related", "control_of": None, "perplexity": 21.0, "perplexity_before": 20.0},
        {"kind": "control", "group": "c", "control_of": "related", "perplexity": 20.5, "perplexity_before": 20.0},
    ]
    assert evidence.fluency(rows) == (
        "Removing 1 of 1 group makes the text less fluent than all matched controls do: perplexity up to 21.0, "
        "unchanged model 20.0"
    )
    assert "Removing 0 of 1 group" in evidence.fluency([rows[0] | {"perplexity": 20.2}, rows[1]])
    rank = figure("predicted_measured", 0.14, -0.9, 1.0, null_high=0.67, n=8)
    assert "of 8 features do not correlate: Spearman +0.14 [−0.90, 1.00]" in evidence.singles([rank])
    assert evidence.inert(8, 8, [(0.01, -0.1, 0.1), (-0.07, -0.18, 0.03)]).endswith(
        "the largest is −0.07 [−0.18, 0.03] in mean reward"
    )


def test_drift_is_counted_beside_exchanged_models():
    keys = {"inputs": "sae", "group": "strengthened"}
    rows = [
        figure("count", 14, 7, 22, null_mean=13.2, **keys),
        figure("carried_share", 0.45, 0.07, 0.72, null_high=0.4, null_mean=0.2, **keys),
    ]
    assert drift.counts_title(rows) == "14 [7, 22] features strengthened, about 13 with the models exchanged"
    assert drift.carried_title(rows) == (
        "Features that strengthened carry the largest share of the change in the estimate: 45 % [7.0, 72], not clearly "
        "above chance (40 %)"
    )
    assert drift.carried_title([replace(rows[1], value=math.nan)]) == "Base against tuned"
    row = {"feature_id": 7, "drifted_contribution": -0.05, "drifted_null": 0.03}
    assert drift.first_title(row) == "Feature 7 changed most: contribution −0.05 per token, beyond chance (0.03)"
    assert drift.first_title(row | {"drifted_null": 0.06}).endswith("within chance (0.06)")
    assert drift.first_title(row | {"drifted_null": None}).endswith("per token")


def test_two_runs_say_how_much_differs_by_chance():
    one = figure(value=0.2, low=0.1, high=0.3)
    pairs = [FigurePair(one, replace(one, value=0.9, ci_low=0.8, ci_high=1.0)), *[FigurePair(one, one)] * 39]
    assert comparing.metrics_title(pairs) == "1 of 40 metrics differ; about 2 would by chance"
    bare = replace(one, ci_low=None)
    assert comparing.metrics_title([FigurePair(bare, bare)]) == "1 metrics in both runs, none with an interval in both"
    found = MatchedFeatures("decoder cosine", pa.table({"similarity": [0.9]}), (40, 30), (40, 30), 0.2)
    assert comparing.matches_title(found).startswith("1 of 40 features (2.5 %) have a match")
    assert comparing.matches_title(replace(found, looked_at=(0, 30))) == "No feature of this run can be compared"
    assert comparing.differences_title(2, 0).endswith("differ in 2 other facts")
    assert comparing.differences_title(2, 1) == "The configs of the runs differ in 1 key"


@given(result_rows(), st.sampled_from(["all", "negative"]))
def test_titles_of_any_rows_are_sentences(rows, words):
    made = [
        evidence.taus(rows, "delta", words=words), evidence.errors(rows), evidence.pairs(rows),
        evidence.calibration(rows), evidence.components(rows), evidence.beliefs(rows, "offline-tokens"),
        evidence.scores(rows, "detection", "offline-tokens"), evidence.singles(rows),
        evidence.frequencies({str(row.group): row for row in rows}), drift.counts_title(rows),
        drift.carried_title(rows), *(evidence.words(row, 3, first="A", second="B") for row in rows),
    ]  # fmt: skip
    assert all(title and "None" not in title for title in made)


def test_summary_says_how_little_of_the_implicit_reward_features_can_show():
    leaders = Leaders((leading_feature(1), leading_feature(2)), by_credit=True, share=0.77, n_features=60)
    read = ResultRow(report_row="module_credits", metric="share", group="dictionaries", value=0.024, ci_low=0.022,
                     ci_high=0.025, n=120)  # fmt: skip
    most = "2 features carry 77 % of all features’ credit"
    assert leading.title(leaders, (), [read]) == f"Features can show 2.4 % of the implicit reward; {most}"
    assert leading.title(leaders) == most
    assert "read modules of 2.4 % [2.2, 2.5] of all credit by size" in leading.sentence(leaders, (), [read])
    none = figure("features_share", 0.1, -0.2, 0.3, group="full", layer=1, site="mlp_out")
    assert leading.title(leaders, [none]).endswith("; all features together carry none of their modules’ beyond zero")


def leading_feature(number):
    return LeadingFeature(number, 3, "mlp_out", None, 0.1, 0.0, 0.2, [], [], None)


def test_rewards_of_continuations_are_no_success_where_tuning_did_not_see_them():
    assert "which tuning on preference pairs did not see" in samples.sentence(is_of_pairs=True)
    assert samples.sentence(is_of_pairs=False).endswith("The number is the continuation’s reward.")


def test_words_written_more_and_less_often_are_counted():
    less = [WrittenWord("not", 26, 5, 0.0, 0.008)]
    assert summary_titles.writing(less, 199) == (
        "In 199 continuations the tuned model writes no words more often than the base model, and 1 word less often"
    )


def test_a_prompt_is_shown_without_the_cue_to_answer():
    def shown(prompt):
        return samples.continuations(Sample(0, prompt, "a", "b", 0.0, 0.0))

    assert "<p>Which assistant? …</p>" in shown("Which\nassistant?\nassistant\n")
    assert "<p>my assistant …</p>" in shown("my assistant")
