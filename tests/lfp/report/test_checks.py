"""The four checks: rules on intervals and nulls at their edges, what is not measured, and the words."""

from __future__ import annotations

import dataclasses
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lfp.evaluation.results import ResultRow
from lfp.evaluation.written_words import Writing, WrittenWord
from lfp.report.checks import MARKS, Check, check_run, combine, is_above_zero, is_beyond_null, write_check
from lfp.report.credits import (
    features_share_sentence,
    is_carried,
    layer_title,
    ledger_sentence,
    ledger_title,
)
from lfp.report.figures.modules import draw_ledger
from lfp.report.rows import build_report
from lfp.report.text import format_checks
from tests.lfp.result_rows import result_rows

FINITE = st.floats(-1e6, 1e6)
SIZES = st.floats(0, 1e6)
HELD = {"words": "all", "split": "held_out_words", "target": "delta"}
REWARD = [
    ResultRow(report_row="reward", metric="reward", model="base", value=0.1, n=90),
    ResultRow(report_row="reward", metric="reward", model="tuned", value=0.6, n=90),
    ResultRow(report_row="reward", metric="reward", model="difference", value=0.5, ci_low=0.2, ci_high=0.8, n=90),
]
IMPLICIT = ResultRow(
    report_row="implicit_reward", metric="tau", words="all", target="implicit_reward", value=0.5, ci_low=0.4,
    ci_high=0.6, null_mean=0.0, null_high=0.1, n=300,
)  # fmt: skip
TAUS = [
    ResultRow(report_row="kendall_tau", metric="tau", model="tuned", inputs="sae", value=0.5, **HELD),
    ResultRow(report_row="kendall_tau", metric="tau", model="base", inputs="base_sae", value=0.3, **HELD),
    ResultRow(
        report_row="kendall_tau", metric="tau", model="difference", inputs="sae", value=0.2, ci_low=0.1, ci_high=0.3,
        **HELD,
    ),
]  # fmt: skip
TWINS = [
    ResultRow(report_row="twins", metric="twins", value=8.0),
    ResultRow(report_row="twins", metric="words_differing", value=3.0, null_mean=0.5, null_high=2.0, n=300),
]
LABELS = ResultRow(
    report_row="label_scores", metric="detection", group="labeller=rule,features=all", value=0.7, ci_low=0.65,
    ci_high=0.75, null_mean=0.5, null_high=0.55, n=60,
)  # fmt: skip
REMOVED = ResultRow(
    report_row="interventions", metric="rank_correlation", group="credit", value=0.9, ci_low=0.8, ci_high=0.95,
    null_mean=0.0, null_high=0.25, n=50,
)  # fmt: skip
ABLATED = {"report_row": "ablation", "group": "weighted", "n": 200}
CONTRAST = ResultRow(
    metric="contrast", value=-0.2, ci_low=-0.3, ci_high=-0.1, null_mean=0.0, null_high=0.1, null_p=0.01, **ABLATED,
)  # fmt: skip
ALL = [*REWARD, IMPLICIT, *TAUS, *TWINS, LABELS, REMOVED, ResultRow(metric="features", value=20.0, **ABLATED), CONTRAST]
WRITING = Writing((WrittenWord("delicious", 0, 83, 1e-25, 1e-23), WrittenWord("part", 9, 0, 0.004, 0.01)), 499)


def outcomes(rows: list[ResultRow], writing: Writing | None = WRITING) -> list[str]:
    checks = check_run(build_report(rows), target="delta", labeller="rule", writing=writing)
    return [check.outcome for check in checks]


def row(value: float, **keys: float | None) -> ResultRow:
    return ResultRow(report_row="x", metric="y", value=value, **keys)


# Rules


@given(FINITE, SIZES, SIZES)
def test_a_figure_is_above_zero_where_its_lower_end_is(value: float, down: float, up: float) -> None:
    found = is_above_zero(row(value, ci_low=value - down, ci_high=value + up))
    assert found is (value - down > 0.0)


@given(FINITE, SIZES, SIZES, FINITE, SIZES)
def test_a_figure_is_beyond_its_null_where_value_and_interval_are(
    value: float, down: float, up: float, mean: float, reach: float
) -> None:
    judged = row(value, ci_low=value - down, ci_high=value + up, null_mean=mean, null_high=mean + reach)
    assert is_beyond_null(judged) is (value > mean + reach and value - down > mean)
    larger = dataclasses.replace(judged, value=value + 1.0, ci_low=value - down + 1.0)
    assert is_beyond_null(larger) or not is_beyond_null(judged), "a larger figure never loses what a smaller one has"


def test_what_only_reaches_its_null_or_zero_is_not_beyond_it() -> None:
    assert is_beyond_null(row(0.5, ci_low=0.4, ci_high=0.6, null_mean=0.0, null_high=0.5)) is False
    assert is_beyond_null(row(0.5, ci_low=0.1, ci_high=0.9, null_mean=0.1, null_high=0.3)) is False
    assert is_beyond_null(row(0.5, null_high=0.3)) is True
    assert is_above_zero(row(0.5, ci_low=0.0, ci_high=1.0)) is False


@pytest.mark.parametrize("gone", [None, math.nan, math.inf])
def test_nothing_is_said_without_a_finite_figure(gone: float | None) -> None:
    assert is_beyond_null(None) is None and is_above_zero(None) is None
    assert is_beyond_null(row(0.5, ci_low=0.4, null_high=gone)) is None
    assert is_above_zero(row(0.5, ci_low=gone, ci_high=0.6)) is None
    assert is_beyond_null(row(math.nan, null_high=0.2)) is None


@given(st.lists(st.sampled_from([True, False, None]), max_size=4))
def test_parts_that_were_measured_agree_or_hold_in_part(holds: list[bool | None]) -> None:
    found, known = combine(holds), [value for value in holds if value is not None]
    assert (found == "not measured") == (not known)
    assert (found == "yes") == (bool(known) and all(known))
    assert (found == "no") == (bool(known) and not any(known))


# The run


def test_a_run_where_all_holds() -> None:
    assert outcomes(ALL) == ["yes"] * 4


@pytest.mark.parametrize(
    ("at", "changed", "found"),
    [
        (2, {"value": -0.5, "ci_low": -0.8, "ci_high": -0.2}, ["no", "yes", "yes", "yes"]),
        (2, {"ci_low": -0.1}, ["no", "yes", "yes", "yes"]),
        (3, {"value": 0.05}, ["yes", "no", "yes", "yes"]),
        (6, {"ci_low": -0.1}, ["yes", "yes", "in part", "yes"]),
        (8, {"value": 2.0}, ["yes", "yes", "in part", "yes"]),
        (9, {"value": 0.5}, ["yes", "yes", "yes", "in part"]),
        (10, {"ci_low": -0.1}, ["yes", "yes", "yes", "in part"]),
        (12, {"null_p": 0.2}, ["yes", "yes", "yes", "in part"]),
        (12, {"ci_high": 0.1}, ["yes", "yes", "yes", "in part"]),
        (12, {"group": "feature:3"}, ["yes", "yes", "yes", "yes"]),
    ],
)
def test_each_row_decides_its_own_check(at: int, changed: dict[str, float], found: list[str]) -> None:
    assert outcomes([*ALL[:at], dataclasses.replace(ALL[at], **changed), *ALL[at + 1 :]]) == found


def test_what_has_no_row_is_not_measured_and_names_the_command() -> None:
    checks = check_run(build_report([]))
    assert [check.outcome for check in checks] == ["not measured"] * 4
    says = [finding.says for check in checks for finding in check.findings]
    assert len(says) == 8 and all("python -m precompute " in text for text in says)
    assert "twins.n=8" in says[3] and "label BUNDLE" in says[5] and "ablate BUNDLE" in says[7]


def test_interventions_and_ablations_each_have_a_line_with_their_null() -> None:
    *_, check = check_run(build_report(ALL), target="delta", labeller="rule")
    labels, interventions, ablations = check.findings
    assert [finding.name for finding in check.findings] == ["Labels", "Interventions", "Ablations"]
    assert "95 % of exchanged labels are below 0.55" in labels.says
    assert "95 % of shuffles are below 0.25" in interventions.says
    assert "95 % of which stay within ±0.10" in ablations.says and ablations.holds
    *_, check = check_run(build_report([*ALL[:-1], dataclasses.replace(CONTRAST, null_p=0.2)]))
    ablations = check.findings[2]
    assert ablations.holds is False and "largest, the features that raise the estimate most: −0.20" in ablations.says
    assert "95 % of which stay within ±0.10" in ablations.says


def test_what_it_writes_is_new_where_a_word_is_beyond_the_base_model() -> None:
    probe_says_no = [*ALL[:6], dataclasses.replace(ALL[6], ci_low=-0.1), *ALL[9:]]
    assert outcomes(probe_says_no)[2] == "in part" and outcomes(probe_says_no, None)[2] == "no"
    alike = Writing([dataclasses.replace(word, q=0.5) for word in WRITING.words], 499)
    assert outcomes(ALL, alike)[2] == "in part" and outcomes(ALL, Writing((), 3))[2] == "yes"
    is_new = check_run(build_report(probe_says_no), target="delta", writing=WRITING)[2]
    says = write_check(is_new)
    assert "In what it writes, yes" in says and "“delicious” 0 → 83" in says and "“part” 9 → 0" in says
    assert "Against twins, not measured" in says and "As a probe reads it, no" in says


def test_words_unlike_the_twins_are_named_where_they_are_beyond_chance() -> None:
    keys = {"report_row": "twins", "value": 0.4, "ci_low": 0.2, "ci_high": 0.6, "n": 300}
    more = ResultRow(metric="preferred_more", group="word:lovely", null_p=1e-5, **keys)
    less = ResultRow(metric="preferred_less", group="word:bleak", null_p=0.4, **keys)
    says = write_check(check_run(build_report([*ALL, more, less]), target="delta")[2])
    assert "First: more “lovely”, by +0.40 [0.20, 0.60] nats." in says and "bleak" not in says


def test_runs_on_pairs_are_judged_by_held_out_pairs() -> None:
    keys = {"report_row": "preference_accuracy", "metric": "accuracy", "n": 120}
    of_pairs = [
        ResultRow(model="tuned", inputs="sae", target="preference", value=0.7, **keys),
        ResultRow(model="difference", target="implicit_reward", value=0.66, ci_low=0.6, ci_high=0.7, null_mean=0.5,
                  null_high=0.56, **keys),
    ]  # fmt: skip
    fallen = dataclasses.replace(REWARD[2], value=-0.5, ci_low=-0.8, ci_high=-0.2)
    reward, model, *_ = check_run(build_report([*of_pairs, *REWARD[:2], fallen]))
    assert (reward.outcome, model.outcome) == ("yes", "yes")
    assert "120 held-out pairs" in write_check(model) and "95 % of swapped pairs are below 0.56" in write_check(reward)
    (seen,) = reward.findings
    assert "0.66 [0.60, 0.70] of 120 pairs" in seen.says and seen.section == "preference_accuracy"
    assert "does not see: 0.10 before" in seen.says and "It fell." in seen.says


def test_preferences_that_are_those_of_length_move_the_reward_in_part() -> None:
    keys = {"report_row": "preference_accuracy", "model": "difference", "target": "implicit_reward", "n": 120}
    whole = ResultRow(metric="accuracy", value=0.66, ci_low=0.6, ci_high=0.7, null_mean=0.5, null_high=0.56, **keys)
    held = dataclasses.replace(whole, metric="accuracy_length_controlled", value=0.52, ci_low=0.46, ci_high=0.58)
    judged = ResultRow(
        report_row="preference_accuracy", metric="accuracy", model="tuned", target="preference", value=0.7
    )
    reward = check_run(build_report([whole, held, judged]))[0]
    assert reward.outcome == "in part" and [finding.holds for finding in reward.findings] == [True, False]
    assert "length controlled, no: a share of 0.52" in write_check(reward)
    assert check_run(build_report([judged]))[0].outcome == "not measured"


@given(result_rows())
def test_any_rows_give_four_checks(rows: list[ResultRow]) -> None:
    checks = check_run(build_report(rows), target="delta", labeller="rule")
    assert len(checks) == 4 and all(check.outcome in MARKS for check in checks)
    assert all(math.isfinite(len(write_check(check))) for check in checks)


def test_the_labeller_that_is_shown_is_judged() -> None:
    other = dataclasses.replace(LABELS, group="labeller=other,features=all", value=0.5)
    assert outcomes([*ALL, other]) == ["yes"] * 4 and outcomes([other, *ALL]) == ["yes"] * 4


def test_a_terminal_gets_a_paragraph_for_each() -> None:
    text = format_checks(check_run(build_report(ALL), target="delta", labeller="rule"))
    starts = [line for line in text.split("\n") if line.startswith(tuple(MARKS.values()))]
    assert [line.split("?")[0] for line in starts] == [
        "✓ Did the reward move", "✓ Is it in the model", "✓ Is it new", "✓ Do labels and interventions hold",
    ]  # fmt: skip
    assert "+0.50 [0.20, 0.80]" in " ".join(text.split())
    assert isinstance(check_run({})[0], Check)


# The bar


def test_the_bar_of_modules_sums_to_the_implicit_reward() -> None:
    def part(group: str, value: float, metric: str = "nats", layer: int | None = None) -> ResultRow:
        return ResultRow(report_row="module_credits", metric=metric, group=group, value=value, ci_low=value - 0.01,
                         ci_high=value + 0.01, n=60, layer=layer)  # fmt: skip

    rows = [
        part("mlp", -0.6), part("attention", 0.2), part("embedding", 0.05), part("mlp", 9.0, layer=3),
        part("dictionaries", -0.3), part("mlp", 0.7, "share"), part("attention", 0.3, "share"),
        part("elsewhere", 0.4, "nats_same_position"),
    ]  # fmt: skip
    chart = draw_ledger(rows)
    assert chart is not None
    bars = [trace.x[0] for trace in chart.data if trace.type == "bar"]
    (mark,) = [trace.x[0] for trace in chart.data if trace.type == "scatter"]
    assert bars == [-0.6, 0.2, 0.05] and mark == pytest.approx(sum(bars))
    says = ledger_sentence(rows)
    assert "is −0.350 nats per token, the sum of MLPs −0.600 [−0.610, −0.590], attention +0.200" in says
    assert ledger_title(rows) == "Where it lives: MLPs carry 70 % [69, 71] of all credit by size"
    assert layer_title([part("mlp", 0.2, "share", 3), part("attention", 0.3, "share", 5)]).startswith(
        "Of all layers, attention 5 carries most: 30 % [29, 31]"
    )
    assert draw_ledger([]) is None and ledger_title([]) == "Where it lives in the model"


def test_features_are_said_to_carry_a_part_of_their_modules_credit_only_where_it_is_beyond_zero() -> None:
    def carried(value: float, low: float, high: float, layer: int) -> ResultRow:
        return ResultRow(report_row="feature_credits", metric="features_share", group="full", value=value, ci_low=low,
                         ci_high=high, n=64, layer=layer, site="mlp_out")  # fmt: skip

    small, large, none = carried(0.006, 0.004, 0.008, 11), carried(0.2, 0.1, 0.3, 19), carried(-0.1, -0.5, 0.4, 11)
    assert is_carried([large, none]) and is_carried([]) and not is_carried([none])
    assert features_share_sentence([]) == ""
    assert "0.60 % [0.40, 0.80] of the credit of MLP 11 and 20 % [10, 30] of the credit of MLP 19 (64 texts" in (
        features_share_sentence([large, small])
    )
    control = dataclasses.replace(carried(0.11, 0.08, 0.14, 19), metric="control_share")
    assert "20 % [10, 30] of the credit of MLP 19 (those of a random dictionary 11 % [8.0, 14])" in (
        features_share_sentence([large, control])
    )


def test_few_words_that_differ_are_thin_evidence() -> None:
    alike = [WrittenWord(f"w{i}", 5, 5, 1.0, 1.0) for i in range(60)]
    two = [WrittenWord("not", 26, 5, 0.0, 0.008), WrittenWord("i'm", 29, 6, 0.0, 0.001)]
    is_new = check_run(build_report([]), writing=Writing([*alike, *two], 199))[2]
    says = write_check(is_new)
    assert is_new.outcome == "in part" and "In what it writes, in part" in says and "thin evidence" in says
    assert "none in more and 2 in fewer" in says
    assert check_run(build_report([]), writing=Writing(two, 199))[2].outcome == "yes"
