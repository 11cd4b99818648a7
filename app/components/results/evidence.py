"""Titles of the panels of Evidence: each states what the panel shows of this run, beside its null."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd

from app.components.results.report import CELLS, Gap
from lfp.evaluation.results import ResultRow, controls_in
from lfp.report.checks import is_above_zero, is_beyond_null
from lfp.report.figures import lines
from lfp.report.formatting import count, estimate, percent, pick, plain, share, signed, with_interval
from lfp.report.sentences.common import Rows
from lfp.report.sentences.features import firing_change, has_weighty

DRAWS = 501
"""The words and resamples of them, behind the title that no figure of the report answers."""


def words(row: ResultRow | None, n: int, *, first: str, second: str) -> str:
    """Say whether one score of `n` words ranks them as another does; `row` is their rank correlation."""
    if row is None or not math.isfinite(row.value):
        return f"{first} and {second} of {count(n)} words"
    how_many = f"{count(row.n or n)} words"
    if row.ci_high is not None and row.ci_high < 0.0:
        does = f"ranks {how_many} contrary to the {second}"
    else:
        holds = is_beyond_null(row) if row.null_high is not None else is_above_zero(row)
        does = f"{'does not rank' if holds is False else 'ranks'} {how_many} as the {second} does"
    score = "Spearman’s ρ" if row.metric == "spearman" else "τ"
    return f"{first} {does}: {score} = {estimate(row)}{_chance(row)}"


def rank_words(first: Sequence[float | None], second: Sequence[float | None]) -> ResultRow | None:
    """Compute Spearman's rank correlation of two scores of words, with its interval over words; None for few."""
    both = np.array([pair for pair in zip(first, second, strict=True) if None not in pair], float)
    if len(both) < 3:
        return None
    drawn = np.random.default_rng(0).integers(len(both), size=(len(both), DRAWS))
    drawn[:, 0] = np.arange(len(both))
    a, b = (pd.DataFrame(both[:, side][drawn]).rank() for side in (0, 1))
    value, *others = a.corrwith(b).fillna(0.0).tolist()
    low, high = np.quantile(others, [0.025, 0.975]).tolist()
    return ResultRow(report_row="", metric="spearman", value=value, ci_low=low, ci_high=high, n=len(both))


def taus(rows: Rows, target: str, *, words: str) -> str:
    """Say how well the probe on features ranks held-out words by their reward, tuned and base."""
    held = [row for row in rows if row.split in ("held_out_words", None) and row.target == target]
    tuned = pick(held, metric="tau", model="tuned", inputs="sae", words=words)
    base = pick(held, metric="tau", model="base", inputs="base_sae", words=words)
    which = "held-out words" if words == "all" else f"held-out {words} words"
    if tuned is None:
        return f"No probe on the tuned model’s features ranks {which} in this run"
    of_base = "" if base is None else f"; on the base model’s {estimate(base)}"
    return f"On the tuned model’s features the probe ranks {which} with τ = {estimate(tuned)}{_chance(tuned)}{of_base}"


def errors(rows: Rows) -> str:
    """Say how far the estimate of a held-out word is from its reward, against shuffled estimates."""
    whole = pick(rows, group="all")
    if whole is None:
        return "How far estimates are from rewards, by word frequency"
    says = f"The estimate of a held-out word is off by {estimate(whole)} lexicon points on average"
    if whole.null_mean is None:
        return says
    is_below = whole.ci_high is not None and whole.ci_high < whole.null_mean
    than = "less than" if is_below else "no less than"
    return f"{says}, {than} shuffled estimates ({plain(whole.null_mean)})"


def gaps(metric: str, found: Sequence[Gap]) -> str:
    """Say how large the largest gap of a list is, and whether chance reaches as far."""
    top = max(found, key=lambda gap: abs(gap.gap), default=None)
    if top is None:
        return "Largest disagreements"
    name = f"“{top.name}”" if top.kind == "word" else f"text {top.name}"
    unit = "standard errors" if metric.endswith("_paid") else "of the range of ranks"
    says = f"The largest gap is {signed(top.gap)} {unit}, {name}"
    if top.chance is None:
        return says
    side = "beyond" if abs(top.gap) > abs(top.chance) else "within"
    return f"{says}: {side} chance ({plain(abs(top.chance))})"


def pairs(rows: Rows) -> str:
    """Say in which share of held-out pairs the probe picks the chosen response, tuned and base."""
    tuned = pick(rows, metric="accuracy", model="tuned", inputs="sae", target="preference")
    base = pick(rows, metric="accuracy", model="base", inputs="base_sae", target="preference")
    if tuned is None:
        return "No probe on the tuned model’s features picks responses of pairs in this run"
    of_base = "" if base is None else f"; on the base model’s in {share(base)}"
    return (
        f"On the tuned model’s features the probe picks the chosen response in {share(tuned)} of held-out "
        f"pairs{_chance(tuned, percent)}{of_base}"
    )


def calibration(rows: Rows) -> str:
    """Say whether the preference probe is as sure as it should be: whether its slope is 1."""
    slope = pick(rows, metric="calibration_slope", inputs="sae", model="tuned", target="preference")
    if slope is None or slope.ci_low is None or slope.ci_high is None:
        return "How sure the probe is, against how often it is right"
    does = "is over-confident" if slope.ci_high < 1.0 else "is under-confident" if slope.ci_low > 1.0 else ""
    return f"The probe {does or 'is not clearly over- or under-confident'}: slope {estimate(slope)}, 1 if calibrated"


def components(rows: Rows) -> str:
    """Say how much of the texts' variance two principal components explain, each against its null."""
    shares = [row for row in rows if row.metric == "explained_share"]
    if not shares:
        return "Texts on two principal components"
    each = [f"{share(row)}{_chance(row, percent)}" for row in shares]
    return f"Of the variance of texts, the first component explains {'; the second '.join(each)}"


def counts(found: Mapping[str, ResultRow]) -> str:
    """Say how many features labelled related have a large weight, and how many of the others."""
    (both, related_only), (weighty_only, neither) = (
        [int(found[name].value) if name in found else 0 for name in row] for row in CELLS
    )
    n = both + related_only + weighty_only + neither
    if not has_weighty(found):
        return f"None of {count(n)} labelled features has a large weight: there is nothing for labels to predict"
    says = (
        f"{count(both)} of {count(both + related_only)} features labelled related have a large weight, "
        f"{count(weighty_only)} of {count(weighty_only + neither)} others"
    )
    odds = found.get("odds_ratio")
    if odds is None or odds.null_high is None:
        return says
    return f"{says}: {'beyond' if odds.beats_null else 'within'} what shuffled labels reach"


def beliefs(rows: Rows, labeller: str) -> str:
    """Say whether features that a labeller is surer are related have larger weights."""
    own = (row for row in rows if lines.keys_of(row).get("labeller") == labeller)
    row = pick(own, metric="rank_correlation")
    if row is None:
        return "Label confidence and probe weight"
    does = "have larger weights" if row.value > 0.0 else "have smaller weights"
    is_chance = row.null_high is not None and abs(row.value) <= row.null_high
    reach = "" if row.null_high is None else f"{'within' if is_chance else 'beyond'} chance (±{plain(row.null_high)})"
    what = "have neither larger nor smaller weights" if is_chance else does
    return f"Features more surely labelled related {what}: rank correlation {estimate(row, is_signed=True)}, {reach}"


def scores(rows: Rows, metric: str, labeller: str) -> str:
    """Say how well a labeller's labels do by one score, over all features that were scored."""
    own = [row for row in rows if row.metric == metric and lines.keys_of(row).get("labeller") == labeller]
    whole = next((row for row in own if lines.keys_of(row).get("features") == "all"), None)
    if whole is None:
        return "Do labels predict when the feature fires?"
    if metric == "agreement":
        return f"A label made again says the same of the feedback in {share(whole)} of repeats"
    what = "texts" if metric == "detection" else "tokens"
    verb = "do not predict" if is_beyond_null(whole) is False else "predict"
    chance = "" if whole.null_high is None else f"; another feature’s label reaches {plain(whole.null_high)}"
    return (
        f"Labels {verb} which held-out {what} their features fire on: balanced accuracy {estimate(whole)} of "
        f"{count(whole.n)} features{chance}"
    )


def frequencies(found: Mapping[str, ResultRow]) -> str:
    """Say whether features labelled related fire more where the estimate is high."""
    change = firing_change(found)
    if change is None:
        return "Do related features fire where the estimate is high?"
    does, points = change
    return f"Where the estimate is high, features labelled related fire {does}: {points} percentage points"


def fluency(rows: Sequence[lines.Ablation]) -> str:
    """Say in how many groups the text is harder to predict for the base model than with any matched control removed."""
    judged = [(row, controls_in(row, rows)) for row in lines.ablated_groups(rows)]
    known = [
        (row["perplexity"], [control["perplexity"] for control in controls])
        for row, controls in judged
        if controls and row["perplexity"] is not None
    ]
    if not known:
        return "Is the text still fluent?"
    worse = sum(value > max(others) for value, others in known)
    largest, before = max(value for value, _ in known), judged[0][0].get("perplexity_before")
    groups = f"{worse} of {len(known)} groups" if len(known) > 1 else f"{worse} of 1 group"
    unchanged = "" if before is None else f", unchanged model {plain(before, 1)}"
    return (
        f"Removing {groups} makes the text less fluent than all matched controls do: perplexity up to "
        f"{plain(largest, 1)}{unchanged}"
    )


def singles(rows: Rows) -> str:
    """Say whether predicted and measured effects of single features correlate."""
    rank = pick(rows, metric="predicted_measured")
    if rank is None:
        return "Predicted and measured effects"
    verb = "do not correlate" if is_beyond_null(rank) is False else "correlate"
    return (
        f"Predicted and measured effects of {count(rank.n)} features {verb}: Spearman "
        f"{estimate(rank, is_signed=True)}{_chance(rank)}"
    )


def inert(n_inert: int, n: int, effects: Sequence[tuple[float, float, float]]) -> str:
    """Say how many of `n` features with large weights show no effect when removed alone, and the largest effect."""
    says = f"{n_inert} of the {n} features with the largest weights show no effect when removed alone"
    if not effects:
        return says
    largest = max(effects, key=lambda effect: abs(effect[0]))
    return f"{says}; the largest is {with_interval(*largest, is_signed=True)} in mean reward"


def _chance(row: ResultRow, written: Callable[[float], str] = plain) -> str:
    """Say on which side of its null a figure is; empty where it has none."""
    beyond = is_beyond_null(row)
    if beyond is None or row.null_high is None:
        return ""
    return f", {'above' if beyond else 'not clearly above'} chance ({written(row.null_high)})"
