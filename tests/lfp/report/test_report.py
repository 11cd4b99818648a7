"""The report: rows of figures, grouped for JSON with none lost, laid out for people."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given
from scipy.stats import t as student

from lfp.bundle.schema import BY_NAME
from lfp.evaluation.contrasts import add_contrasts
from lfp.evaluation.results import ROWS, Estimate, ResultRow, group_by_section, report_as_json
from lfp.report.figures.bars import tuning_curve
from lfp.report.figures.lines import tuning_change
from lfp.report.formatting import digits_for, number, plain
from lfp.report.rows import ablation_rows, build_report, tuning_rows
from lfp.report.sentences.common import ABSENT, against_base
from lfp.report.sentences.sections import sentence
from lfp.report.sentences.words import overlap_sentence
from lfp.report.summary import summarise
from lfp.report.tables import tables
from lfp.report.text import format_report
from tests.lfp.result_rows import result_rows

FULL = Estimate(0.5, 40, 0.25, 0.75, null_mean=0.0, null_high=0.125, null_p=0.004)


def test_a_plain_figure_has_no_interval() -> None:
    row = ResultRow.from_estimate("reward", "reward", 2, model="base", n=9)
    assert row == ResultRow(report_row="reward", metric="reward", value=2.0, model="base", n=9)
    assert list(row.as_dict()) == BY_NAME["results"].schema.names


def test_an_estimate_brings_all_it_knows() -> None:
    assert ResultRow.from_estimate("kendall_tau", "tau", FULL, words="all") == ResultRow(
        report_row="kendall_tau", metric="tau", words="all", value=0.5, n=40,
        ci_low=0.25, ci_high=0.75, null_mean=0.0, null_high=0.125, null_p=0.004,
    )  # fmt: skip
    assert ResultRow.from_estimate("token_sentiment", "true", FULL, n=3).n == 3, "times written, not words"


def test_rows_are_grouped_in_reading_order_without_nulls() -> None:
    rows = [
        ResultRow.from_estimate("invented_row", "x", 1.0),
        ResultRow.from_estimate("kendall_tau", "tau", Estimate(0.0, 3), words="all", layer=None),
        ResultRow.from_estimate("reward", "reward", 1.0, model="tuned"),
        ResultRow.from_estimate("kendall_tau", "tau", FULL, words="positive", layer=0),
    ]
    report = report_as_json(group_by_section(rows))
    assert list(report) == ["reward", "kendall_tau", "invented_row"]
    assert report["kendall_tau"][0] == {"metric": "tau", "words": "all", "value": 0.0, "n": 3}
    assert report["kendall_tau"][1]["layer"] == 0


@given(result_rows())
def test_the_whole_report_keeps_every_figure_and_every_row_of_the_report(rows: list[ResultRow]) -> None:
    report = json.loads(json.dumps(report_as_json(build_report(rows)), allow_nan=False))
    assert list(report)[: len(ROWS)] == list(ROWS)
    assert sum(map(len, report.values())) == len(rows)
    for name, figures in report.items():
        given_ = [row.value for row in rows if row.report_row == name]
        assert [f["value"] for f in figures] == [v if np.isfinite(v) else None for v in given_]


@given(result_rows())
def test_tables_show_every_figure_once(rows: list[ResultRow]) -> None:
    """A cell per figure, whatever the layout: known by values that nothing else has."""
    rows = [dataclasses.replace(row, value=1000.25 + i) for i, row in enumerate(rows)]
    for name, figures in build_report(rows).items():
        shown = [cell.split(" [")[0] for table in tables(name, figures) for line in table.rows for cell in line]
        for row in figures:
            assert {number(row.value), plain(row.value, digits_for(row.ci_low, row.ci_high))} & set(shown)
        assert all(len(line) == len(table.heads) == len(table.are_figures) for table in tables(name, figures)
                   for line in table.rows)  # fmt: skip


@given(result_rows())
def test_any_figures_can_be_read_as_lines(rows: list[ResultRow]) -> None:
    report = build_report(rows)
    text = format_report(report).split("\n")
    assert [line for line in text if line and not line.startswith(" ")] == list(report)
    assert all(line == line.rstrip() for line in text)


@given(result_rows())
def test_a_narrow_terminal_folds_tables_and_truncates_nothing(rows: list[ResultRow]) -> None:
    text = format_report(build_report(rows), width=60)
    assert "…" not in text and all(len(line) <= 60 for line in text.split("\n"))


def test_people_read_a_sentence_and_an_aligned_table() -> None:
    rows = [
        ResultRow.from_estimate("kendall_tau", "tau", FULL, words="all", model="tuned", inputs="sae", target="delta")
    ]
    report = {"kendall_tau": build_report(rows)["kendall_tau"]}
    text = format_report(report).split("\n")
    assert text[0] == "kendall_tau" and "1 of 1 beat chance" in " ".join(text)
    heads, figures = text[-2:]
    assert figures.split() == ["delta", "sae", "tuned", "0.50", "0.25", "to", "0.75", "0", "0.125", "0.004", "40"]
    assert heads.index("tau") + 3 == figures.index("0.50") + 4 and heads.endswith("   n")


def test_rows_stand_tuned_before_base_before_difference() -> None:
    rows = [ResultRow.from_estimate("reward", "reward", FULL, model=model) for model in ("base", "difference", "tuned")]
    (table,) = tables("reward", build_report(rows)["reward"])
    assert [line[1] for line in table.rows] == ["tuned", "base", "difference"]


def test_sites_are_named_unless_all_figures_are_of_mlp_outputs() -> None:
    def quality(*sites: str | None) -> list[ResultRow]:
        keys = {"layer": 3, "model": "tuned", "group": "width=8"}
        return [ResultRow.from_estimate("sae_quality", "fvu", 0.1, site=site, **keys) for site in sites]  # type: ignore[arg-type]

    for rows in (quality("mlp_out"), quality(None)):
        (table,) = tables("sae_quality", rows)
        assert table.heads[:3] == ("model", "layer", "dictionary")
    (table,) = tables("sae_quality", quality("mlp_out", "resid_post", "attn_out"))
    assert table.heads[:4] == ("model", "layer", "site", "dictionary")
    assert {line[2] for line in table.rows} == {"MLP output", "residual stream", "attention output"}


def test_bins_of_counts_stand_by_size() -> None:
    rows = [
        ResultRow.from_estimate("error_by_frequency", "error", 1.0, group=group)
        for group in ("10-20", "0", "4-9", "1-3")
    ]
    (table,) = tables("error_by_frequency", build_report(rows)["error_by_frequency"])
    assert [line[0] for line in table.rows] == ["0", "1-3", "4-9", "10-20"]


def test_a_row_without_figures_says_so_and_an_empty_report_has_every_row() -> None:
    report = build_report([])
    assert list(report) == list(ROWS) and not any(report.values())
    assert all(sentence(name, figures) == ABSENT for name, figures in report.items())


@pytest.mark.parametrize(
    ("low", "high", "says"),
    [
        (0.1, 0.3, "tuned model scores higher with these dictionaries; the interval covers words only"),
        (-0.1, 0.1, "No clear difference"),
        (-0.3, -0.1, "base model scores higher with these dictionaries; the interval covers words only"),
    ],
)
def test_the_headline_says_what_the_interval_allows(low: float, high: float, says: str) -> None:
    keys = {"words": "all", "target": "delta", "split": "held_out_words"}
    rows = [
        ResultRow.from_estimate("kendall_tau", "tau", FULL, model="tuned", inputs="sae", **keys),
        ResultRow.from_estimate("kendall_tau", "tau", FULL, model="base", inputs="base_sae", **keys),
        ResultRow.from_estimate(
            "kendall_tau", "tau", Estimate(0.0, 40, low, high), model="difference", inputs="sae", **keys
        ),
    ]
    (sentence_,) = summarise(build_report(rows), "delta")
    assert says in sentence_ and "= 0.50 [0.25, 0.75] (chance 0.12)" in sentence_


@pytest.mark.parametrize(
    ("low", "high", "says"),
    [(0.1, 0.3, "tuned model scores higher"), (-0.1, 0.1, "No clear difference"), (-0.3, -0.1, "no evidence")],
)
def test_over_several_dictionaries_the_interval_may_name_a_model(low: float, high: float, says: str) -> None:
    difference = ResultRow.from_estimate(
        "kendall_tau", "tau", Estimate(0.0, 40, low, high), inputs="sae", target="delta", group="dictionaries=3"
    )
    assert says in against_base(difference)
    assert "covers words and 3 dictionaries of each model" in against_base(difference)


def ablation(group: str, kind: str, effect: float, **keys: object) -> dict[str, object]:
    """A row of `ablations` of features whose reward was 1."""
    return {
        "group": group, "kind": kind, "control_of": None, "features": [1, 2], "layer": None, "scale": 0.0,
        "n_completions": 50, "reward_before": 1.0, "reward_clean": None, "reward_after": 1.0 + effect, "effect": effect,
        "ci_low": effect - 0.1, "ci_high": effect + 0.1, "null_high": None, "predicted_effect": effect / 2,
        "perplexity": 6.0, "perplexity_before": 5.0, "repetition": 0.1, "removed_energy": 0.3,
    } | keys  # fmt: skip


ABLATIONS = add_contrasts([
    ablation("feature:3", "feature", -0.2),
    ablation("feature:4", "feature", 0.4),
    ablation("weighted", "weighted", 0.05),
    ablation("related", "related", -0.6),
    ablation("related/1", "control", -0.1, control_of="related", perplexity=5.0, removed_energy=0.1),
    ablation("related/2", "control", 0.3, control_of="related", perplexity=5.0, removed_energy=0.1),
    ablation("weighted/1", "control", -0.3, control_of="weighted"),
    ablation("feature:3/1", "control", 0.1, control_of="feature:3"),
])  # fmt: skip


def test_ablations_become_before_after_and_control() -> None:
    figures = [row for row in ablation_rows(ABLATIONS) if row.group == "related"]
    values = {row.metric: row.value for row in figures}
    assert (values["before"], values["after"], values["effect"]) == (1.0, pytest.approx(0.4), -0.6)
    assert values["control"] == pytest.approx(0.1) and values["perplexity_ratio"] == pytest.approx(1.2)
    assert values["energy_ratio"] == pytest.approx(3.0) and values["features"] == 2
    (effect,) = (row for row in figures if row.metric == "effect")
    assert effect.ci_low == pytest.approx(-0.7) and effect.null_p is None and effect.n == 50
    (contrast,) = (row for row in figures if row.metric == "contrast")
    assert (contrast.value, contrast.ci_low) == (pytest.approx(-0.7), pytest.approx(-0.8))
    error = np.std([-0.1, 0.3], ddof=1) * np.sqrt(1.5)
    assert contrast.null_p == pytest.approx(2 * student.sf(0.7 / error, 1)) and contrast.null_p > 0.05


def test_groups_stand_before_single_features_and_these_by_what_was_predicted() -> None:
    names = list(dict.fromkeys(row.group for row in ablation_rows(ABLATIONS)))
    assert names == ["related", "weighted", "feature:4", "feature:3"]


def test_the_sentence_says_of_each_group_whether_it_passes() -> None:
    said = sentence("ablation", build_report([], ABLATIONS)["ablation"])
    assert "features removed" in said and "Group related: −0.70 [−0.80, −0.60] beyond the mean of its controls" in said
    assert "no more than controls differ" in said and "Group weighted: not judged" in said
    assert "perplexity 1.20 times the controls’" in said and "3.00 times the controls’, a loose match" in said
    doubled = [{**row, "scale": 2.0} for row in ABLATIONS]
    assert "features scaled" in sentence("ablation", build_report([], doubled)["ablation"])
    alone = sentence("ablation", build_report([], ABLATIONS[2:3])["ablation"])
    assert "weighted: not judged" in alone


def test_single_features_have_tables_of_their_own_and_inert_ones_are_named() -> None:
    rows = [
        ResultRow.from_estimate("ablation", "predicted_measured", FULL, group="features"),
        ResultRow.from_estimate("ablation", "inert_count", 1.0, group="features", n=2),
        ResultRow.from_estimate("ablation", "inert", -0.1, group="feature:3", layer=1),
    ]
    figures = build_report(rows, ABLATIONS)["ablation"]
    heads = [table.heads[0] for table in tables("ablation", figures)]
    assert heads == ["ablated", "ablated", "single features", "ablated alone", "large weight, no effect"]
    said = sentence("ablation", figures)
    assert "correlate (Spearman +0.50 [0.25, 0.75]; chance +0.12)" in said and "1 of the 2 features" in said


def test_an_ablation_of_an_older_bundle_can_still_be_told() -> None:
    """Its table lacks the columns that came later."""
    later = ("perplexity_before", "removed_energy", "reward_clean")
    rows = [{key: value for key, value in row.items() if key not in later} for row in ABLATIONS]
    figures = build_report([], rows)["ablation"]
    assert "related" in sentence("ablation", figures) and tables("ablation", figures)


def _curves(**curves: list[float]) -> dict[str, list[object]]:
    """Columns of the table `tuning` with these values from step 1."""
    points = [(metric, step, value) for metric, values in curves.items() for step, value in enumerate(values, 1)]
    return {name: [point[i] for point in points] for i, name in enumerate(("metric", "step", "value"))}


def test_a_tuning_is_told_by_means_of_its_steps() -> None:
    table = _curves(reward=[step / 100 for step in range(100)], kl=[0.02] * 100)
    rows = tuning_rows(table)
    assert [(row.group, row.n) for row in rows if row.metric == "kl"] == [(str(5 * i), 5) for i in range(1, 21)]
    assert [row.value for row in rows if row.metric == "reward"][:2] == pytest.approx([0.02, 0.07])
    says = "Mean reward rose from 0.02 to 0.97 over 100 steps, at 0.02 nats per token from the base model"
    assert tuning_change(rows) == says
    assert says in " ".join(format_report({"tuning": rows}).split())
    figure = tuning_curve(rows, table)
    assert figure is not None and [len(trace.x) for trace in figure.data] == [100, 20, 100, 20]
    assert figure.layout.yaxis.title.text == "mean reward, of a step’s completions"
    assert figure.layout.yaxis2.title.text == "KL from the base model, nats per token"


def test_a_tuning_on_pairs_is_told_by_margin_and_accuracy() -> None:
    table = _curves(margin=[0.0, 0.5, 0.25], accuracy=[0.0, 0.5, 0.75], chosen=[0.0, 1.0, 2.0])
    rows = tuning_rows(table)
    says = "Mean margin rose from 0.00 to 0.25 over 3 steps, with 75 % of pairs on the right side"
    assert tuning_change(rows) == says and sentence("tuning", rows).endswith(f"{says}.")
    assert tuning_curve(rows, table) is not None


def test_a_model_tuned_elsewhere_has_no_curve() -> None:
    assert tuning_rows({}) == [] and tuning_curve([], _curves()) is None
    assert sentence("tuning", build_report([])["tuning"]) == ABSENT


def test_the_report_says_whether_probes_saw_tokens_of_the_words_they_rank() -> None:
    keys = {"target": "implicit_reward", "split": "held_out_words"}
    identity = ResultRow.from_estimate(
        "kendall_tau", "tau", Estimate(0.01, 40, -0.05, 0.07), words="all", inputs="token_identity", **keys
    )

    def say(shared: float, dropped: float) -> str:
        figures = {"words_sharing_tokens": shared, "rows_dropped": dropped}
        rows = [ResultRow.from_estimate("kendall_tau", name, value, n=40, **keys) for name, value in figures.items()]
        return overlap_sentence([identity, *rows])

    assert say(0.0, 0.21).startswith("No probe saw a token of a word that it ranks (21 % of the rows")
    assert "identity alone reaches 0.01" in say(0.0, 0.21)
    assert say(0.86, 0.0).startswith("86 % of the words share a token with rows")
    assert overlap_sentence([identity]) == ""


def test_drift_is_said_to_be_beyond_chance_only_by_the_null_of_shuffled_feedback() -> None:
    counts = {("sae", "born"): Estimate(3, 90, 1, 6, 2.0), ("base_sae", "gone"): Estimate(1, 80, 0, 3, 1.8)}
    rows = [
        ResultRow.from_estimate("drift", "count", estimate, inputs=inputs, group=group)
        for (inputs, group), estimate in counts.items()
    ]
    for value in (0.5, -0.9):
        change = Estimate(value, 90, null_mean=0.3, null_high=0.6, null_p=0.2)
        rows.append(ResultRow.from_estimate("drift", "drifted_contribution", change, group=f"feature:{value}"))
    says = sentence("drift", rows)
    assert "3 of 90 features" in says and "on average 2 and 2" in says and "is not known from one" in says
    assert "Of the 2 features whose contribution changed most, 1 changed more than 95 %" in says
    older = [dataclasses.replace(row, null_p=0.001) if row.metric == "count" else row for row in rows]
    assert "too easily passed" in sentence("drift", older) and "changed more than" not in sentence("drift", older)
