"""Four checks of a run in plain words: did the reward move, is it in the model, is it new, does the evidence hold.

Each is read off stored rows by a fixed rule on their intervals and nulls; without a row it is not known.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from lfp.bundle import queries
from lfp.bundle.store.connection import Store
from lfp.evaluation.results import Report, ResultRow, count_dictionaries
from lfp.evaluation.statistics.discoveries import RATE, benjamini_hochberg
from lfp.evaluation.written_words import Writing, WrittenWord, split_words
from lfp.report.figures.lines import TARGETS, keys_of
from lfp.report.formatting import count, estimate, pick, plain
from lfp.report.rows import read_report
from lfp.report.sentences.common import size_of
from lfp.report.sentences.words import is_among, size_in_errors
from lfp.report.summary import compare_models

Outcome = Literal["yes", "no", "in part", "not measured"]
MARKS: Mapping[Outcome, str] = {"yes": "✓", "no": "✗", "in part": "◐", "not measured": "–"}


@dataclass(frozen=True)
class Finding:
    """What a part of a check compares, whether it holds (None if not measured), its figures, and their section.

    One that `is_thin` holds, but rests on little: it counts as holding in part.
    """

    name: str
    holds: bool | None
    says: str
    section: str
    is_thin: bool = False

    @property
    def outcome(self) -> Outcome:
        """Return what the finding says by itself."""
        return "in part" if self.holds and self.is_thin else combine([self.holds])


@dataclass(frozen=True)
class Check:
    """A question about the run, and what was found."""

    question: str
    findings: tuple[Finding, ...]

    @property
    def outcome(self) -> Outcome:
        """Return what the findings that were measured say together."""
        if any(finding.outcome == "in part" for finding in self.findings):
            return "in part"
        return combine([finding.holds for finding in self.findings])


def combine(holds: Sequence[bool | None]) -> Outcome:
    """Return yes or no where all that were measured (not None) agree, in part where they do not."""
    known = {value for value in holds if value is not None}
    if len(known) == 1:
        return "yes" if known.pop() else "no"
    return "in part" if known else "not measured"


def is_above_zero(row: ResultRow | None) -> bool | None:
    """Tell whether a figure's whole 95 % interval is above zero; None without an interval."""
    if row is None or not _are_known(row.value, row.ci_low, row.ci_high):
        return None
    return bool((row.ci_low or 0.0) > 0.0)


def is_beyond_null(row: ResultRow | None) -> bool | None:
    """Tell whether a figure is beyond chance; None without a null.

    Its value has to be above what 95 % of nulls reach, and its interval, where there is one, above their mean.
    """
    if row is None or not _are_known(row.value, row.null_high):
        return None
    lowest = row.value if row.ci_low is None else row.ci_low
    return row.beats_null and bool(lowest > (row.null_mean or 0.0))


def read_checks(store: Store, report: Report | None = None) -> tuple[Check, ...]:
    """Return the four checks of a bundle; its report is read unless the caller has it."""
    probe, n = queries.common.headline(store), queries.run.count_samples(store)
    return check_run(
        read_report(store) if report is None else report,
        target=probe.target if probe else None,
        labeller=queries.common.main_labeller(store),
        writing=Writing(queries.run.written_words(store), n) if n else None,
    )


def check_run(
    report: Report, *, target: str | None = None, labeller: str | None = None, writing: Writing | None = None
) -> tuple[Check, ...]:
    """Return the four checks.

    `target` is the headline probe's, `labeller` the one whose labels are shown, and `writing` what both models wrote.
    """
    is_new = (_compare_writing(writing), _compare_twins(report), _compare_base(report, target))
    evidence = (_check_labels(report, labeller), _check_interventions(report), _check_ablations(report))
    return (
        Check("Did the reward move?", _check_pairs(report) if _is_of_pairs(report) else (_check_reward(report),)),
        Check("Is it in the model?", (_check_model(report),)),
        Check("Is it new?", is_new),
        Check("Do labels and interventions hold?", evidence),
    )


def write_check(check: Check) -> str:
    """Return a check as a line of text."""
    says = " ".join(f"{name_finding(check, finding)}: {finding.says}" for finding in check.findings)
    return f"{MARKS[check.outcome]} {check.question} {check.outcome.capitalize()}. {says}"


def name_finding(check: Check, finding: Finding) -> str:
    """Return a finding's name, and whether it holds where the check has several."""
    return f"{finding.name}, {finding.outcome}" if len(check.findings) > 1 else finding.name


def _check_reward(report: Report) -> Finding:
    rows = report.get("reward", ())
    base, tuned, change = (
        pick(rows, metric="reward", model=model, group=None) for model in ("base", "tuned", "difference")
    )
    holds = is_above_zero(change)
    if change is None or holds is None or base is None or tuned is None:
        return _unmeasured("Mean reward", "reward", _RUN)
    fell = change.ci_high is not None and change.ci_high < 0.0
    says = (
        f"{plain(base.value)} before tuning, {plain(tuned.value)} after, over {count(change.n)} continuations; change "
        f"{estimate(change, is_signed=True)}."
    )
    if not holds:
        says += " It fell." if fell else " The interval includes zero."
    return Finding("Mean reward", holds, says, "reward")


def _check_pairs(report: Report) -> tuple[Finding, ...]:
    """Judge what tuning on pairs moves: how often the implicit reward prefers the chosen of held-out responses."""
    rows = report.get("preference_accuracy", ())
    keys = {"model": "difference", "target": "implicit_reward"}
    whole = pick(rows, metric="accuracy", **keys)
    holds = is_beyond_null(whole)
    if whole is None or holds is None:
        return (_unmeasured("On held-out pairs", "preference_accuracy", _RUN),)
    says = (
        "tuning raised the log-probability of the chosen response more than the rejected one’s in a share of "
        f"{estimate(whole)} of {count(whole.n)} pairs; {_chance(whole, 'swapped pairs')}."
    )
    reward = _check_reward(report)
    if reward.holds is not None:
        says += f" The config’s reward, which tuning on pairs does not see: {reward.says}"
    findings = [Finding("On held-out pairs", holds, says, "preference_accuracy")]
    controlled = pick(rows, metric="accuracy_length_controlled", **keys)
    holds = is_beyond_null(controlled)
    if controlled is not None and holds is not None:
        says = f"a share of {estimate(controlled)}; {_chance(controlled, 'swapped pairs')}."
        findings.append(Finding("With the responses’ length controlled", holds, says, "preference_accuracy"))
    return tuple(findings)


def _check_model(report: Report) -> Finding:
    if _is_of_pairs(report):
        row = pick(
            report.get("preference_accuracy", ()), metric="accuracy", model="difference", target="implicit_reward"
        )
        holds = is_beyond_null(row)
        if row is not None and holds is not None:
            says = (
                f"it prefers the chosen response in a share of {estimate(row)} of {count(row.n)} held-out pairs; "
                f"{_chance(row, 'swapped pairs')}."
            )
            return Finding("Implicit reward", holds, says, "preference_accuracy")
    rows = report.get("implicit_reward", ())
    row = pick(rows, metric="tau", words="all", target="implicit_reward") or pick(rows, metric="tau", words="all")
    holds = is_beyond_null(row)
    if row is None or holds is None:
        command = "python -m precompute run CONFIG.toml --out DIR, with a feedback.lexicon that scores words"
        return _unmeasured("Implicit reward", "implicit_reward", command)
    does, beyond = ("ranks", "") if holds else ("does not rank", " beyond chance")
    says = (
        f"how much likelier tuning made a word {does} {count(row.n)} words as the reward does{beyond}, τ = "
        f"{estimate(row)}; {_chance(row, 'shuffles')}."
    )
    return Finding("Implicit reward", holds, says, "implicit_reward")


def _compare_writing(writing: Writing | None) -> Finding:
    """Judge the words of both models' continuations; were the models alike, any would pass in 5 % of runs at most."""
    if writing is None:
        command = "python -m precompute run CONFIG.toml --out DIR, which lets both models continue held-out texts"
        return _unmeasured("In what it writes", WRITING, command)
    if not writing.words:
        says = f"no word is written by one model alone after six of {count(writing.n)} prompts, so none can be tested."
        return Finding("In what it writes", None, says, WRITING)
    risen, fallen = split_words(writing.words)
    if not risen and not fallen:
        says = (
            f"none of {count(len(writing.words))} words is in more, or in fewer, of the tuned model’s "
            f"{count(writing.n)} continuations than of the base model’s (sign test over prompts, false discovery rate "
            f"{_RATE})."
        )
        return Finding("In what it writes", False, says, WRITING)
    more, fewer = (count(len(found)) if found else "none" for found in (risen, fallen))
    is_thin = len(risen) + len(fallen) < _FEW * len(writing.words)
    few = f" Fewer than {100 * _FEW:g} % of the words differ: thin evidence." if is_thin else ""
    says = (
        f"of {count(len(writing.words))} words in {count(writing.n)} continuations of the same prompts, the tuned "
        f"model writes {more} in more and {fewer} in fewer than the base model"
        f" (first: {_name_words(risen, fallen)}; sign test over prompts, false discovery rate {_RATE}: models that are "
        f"alike would have any such word in at most {_RATE} of runs).{few}"
    )
    return Finding("In what it writes", True, says, WRITING, is_thin)


def _name_words(*lists: Sequence[WrittenWord]) -> str:
    """Return the first word of each list with their counts, base to tuned."""
    named = [f"“{word.word}” {count(word.n_base)} → {count(word.n_tuned)}" for found in lists for word in found[:1]]
    return ", ".join(named)


def _compare_base(report: Report, target: str | None) -> Finding:
    found = compare_models(report, target)
    holds = is_above_zero(found.difference) if found else None
    section = "preference_accuracy" if found and found.target == "preference" else "kendall_tau"
    if found is None or holds is None:
        return _unmeasured("As a probe reads it", section, _RUN)
    does = "predicts held-out pairs" if found.target == "preference" else "ranks held-out words by their reward"
    better = "better" if holds else "no better"
    says = (
        f"a probe of {TARGETS.get(found.target, found.target)} {does} {better} from the tuned model’s features: "
        f"{found.score} {plain(found.tuned.value)}, base {plain(found.base.value)}, difference "
        f"{estimate(found.difference, is_signed=True)}."
    )
    if not holds:
        says += " The base model’s features may already tell these apart, so this probe shows nothing new."
    elif count_dictionaries(found.difference.group) == 1 and found.difference.inputs == "sae":
        says += " Other seeds of the dictionaries are not in the interval."
    return Finding("As a probe reads it", holds, says, section)


def _compare_twins(report: Report) -> Finding:
    rows = report.get("twins", ())
    n, found = pick(rows, metric="twins"), pick(rows, metric="words_differing")
    holds = is_beyond_null(found)
    if n is None or found is None or holds is None:
        command = "python -m precompute run CONFIG.toml --out DIR --set twins.n=8"
        return _unmeasured("Against twins", "twins", command)
    says = (
        f"{count(found.value)} of {count(found.n)} words are preferred otherwise than by {count(n.value)} models tuned "
        "on the same feedback by other seeds (false discovery rate 10 %); each of these differs from the others in at "
        f"most {count(found.null_high)}.{_name_preferred(rows, found)}"
    )
    return Finding("Against twins", holds, says, "twins")


def _name_preferred(rows: Sequence[ResultRow], found: ResultRow) -> str:
    """Name the first word preferred more, and less, than by the twins, of those that differ; empty without any."""
    named = []
    for metric, how in (("preferred_more", "more"), ("preferred_less", "less")):
        top = max((row for row in rows if row.metric == metric), key=size_in_errors, default=None)
        if top is not None and is_among(top, found):
            word = str(top.group).removeprefix("word:")
            named.append(f"{how} “{word}”, by {estimate(top, is_signed=True)} nats")
    return f" First: {'; '.join(named)}." if named else ""


def _check_labels(report: Report, labeller: str | None) -> Finding:
    rows = [
        row
        for row in report.get("label_scores", ())
        if row.metric == "detection" and keys_of(row).get("features") == "all"
    ]
    rows.sort(key=lambda row: keys_of(row)["labeller"] != labeller)
    row = rows[0] if rows else None
    holds = is_beyond_null(row)
    if row is None or holds is None:
        return _unmeasured("Labels", "label_scores", "python -m precompute label BUNDLE --labeller offline-tokens")
    do = "predict" if holds else "do no better than others at predicting"
    says = (
        f"those by {keys_of(row)['labeller']} {do} where {count(row.n)} features fire in held-out texts, balanced "
        f"accuracy {estimate(row)}; {_chance(row, 'exchanged labels')}."
    )
    return Finding("Labels", holds, says, "label_scores")


def _check_interventions(report: Report) -> Finding:
    """Judge whether credits predict what removing what tuning changed of single features does."""
    row = pick(report.get("interventions", ()), metric="rank_correlation", group="credit")
    holds = is_beyond_null(row)
    if row is None or holds is None:
        command = "python -m precompute run CONFIG.toml --out DIR, with feature_credits.interventions above 0"
        return _unmeasured("Interventions", "interventions", command)
    do = "agree" if holds else "agree no better than chance"
    says = (
        f"credits {do} with what removing tuning’s change of each of {count(row.n)} features does to the implicit "
        f"reward, rank correlation {estimate(row)}; {_chance(row, 'shuffles')}."
    )
    return Finding("Interventions", holds, says, "interventions")


def _check_ablations(report: Report) -> Finding:
    """Judge groups of features that were removed, at a false discovery rate of 5 % over the groups."""
    rows = report.get("ablation", ())
    groups = {row.group for row in rows if row.metric == "features"}
    judged = [
        row
        for row in rows
        if row.metric == "contrast" and row.group in groups and _are_known(row.value, row.null_high, row.null_p)
    ]
    if not judged:
        return _unmeasured("Ablations", "ablation", "python -m precompute ablate BUNDLE")
    flags = benjamini_hochberg(np.array([row.null_p for row in judged], np.float64))
    passed = [row for row, flag in zip(judged, flags.tolist(), strict=True) if flag and _excludes_zero(row)]
    row = max(passed or judged, key=_effect_in_nulls)
    group = f"the features {_GROUPS.get(str(row.group), f'of group {row.group}')}"
    reach = f"controls, 95 % of which stay within ±{plain(row.null_high)}"
    if passed:
        says = f"removing {group} changes the mean reward by {estimate(row, is_signed=True)} beyond matched {reach}."
    else:
        says = (
            f"removing any of {len(judged)} groups of features changes the mean reward no more than matched controls; "
            f"largest, {group}: {estimate(row, is_signed=True)} beyond {reach}."
        )
    return Finding("Ablations", bool(passed), says, "ablation")


def _effect_in_nulls(row: ResultRow) -> float:
    """Return the size of an effect over what its controls reach."""
    return size_of(row) / (row.null_high or 1.0)


_RUN = "python -m precompute run CONFIG.toml --out DIR"
"""The command that measures what a report lacks."""
_RATE = f"{100 * RATE:g} %"
_FEW = 0.05
"""Share of the tested words below which a difference in writing is thin evidence."""
WRITING = "completions"
"""What a finding on both models' continuations rests on: a table, and no section of the report."""
_GROUPS: Mapping[str, str] = {
    "related": "labelled related",
    "weighted": "that raise the estimate most",
    "both": "that are labelled related and raise the estimate most",
}
"""How sentences name groups of features that were removed."""


def _is_of_pairs(report: Report) -> bool:
    return any(row.target == "preference" for row in report.get("preference_accuracy", ()))


def _excludes_zero(row: ResultRow) -> bool:
    return not _are_known(row.ci_low, row.ci_high) or not (row.ci_low or 0.0) <= 0.0 <= (row.ci_high or 0.0)


def _chance(row: ResultRow, what: str) -> str:
    return f"95 % of {what} are below {plain(row.null_high)}"


def _unmeasured(name: str, section: str, command: str) -> Finding:
    return Finding(name, None, f"to measure it, {command}.", section)


def _are_known(*values: float | None) -> bool:
    return all(value is not None and math.isfinite(value) for value in values)
