"""Rows of the report as lines of a chart, named as people say them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from lfp.evaluation.results import MAIN_KINDS, ResultRow, controls_in
from lfp.report.figures.intervals import Line
from lfp.report.formatting import count, percent, pick, plain, reading_order, sort_rows

Ablation = Mapping[str, Any]
"""A row of the table `ablations`."""

INPUTS = {
    "sae": "features",
    "base_sae": "features, own dictionary",
    "sae_of_base": "features, the tuned model’s dictionary",
    "raw": "raw activations",
    "base_raw": "raw activations",
    "random_sae": "random dictionary",
    "trained_random_sae": "dictionary with a random decoder",
    "difference_in_means": "raw activations, difference in means",
    "token_identity": "token identity only",
    "sae_before": "features one token earlier",
}
"""What a probe reads."""

TARGETS = {
    "implicit_reward": "implicit reward",
    "implicit_advantage": "centred implicit reward",
    "implicit_matched": "in matched contexts",
    "delta": "activation differences",
    "feedback": "reward",
    "preference": "preferences",
}
"""What a probe is fitted to, or what is measured without one."""

SIDES = {
    "related_high": "related features, texts of high estimate",
    "related_rest": "related features, other texts",
    "all_high": "all features, texts of high estimate",
    "all_rest": "all features, other texts",
}
"""Groups of section `activation_frequency`."""

MEMBERS = {
    "weighted": "largest weights",
    "drifted": "drifted most",
    "stable": "in both dictionaries",
    "random": "random sample",
}
"""Groups of features whose labels are scored apart."""

KINDS = {
    "related": "labelled related",
    "weighted": "raise the estimate most",
    "both": "both",
    "chosen": "chosen by a person",
}
"""Groups of features that are ablated."""


TUNING = {
    "reward": ("mean reward", "of a step’s completions"),
    "margin": ("mean margin", "β × nats"),
    "kl": ("KL from the base model", "nats per token"),
    "accuracy": ("accuracy", "share of pairs"),
}
"""Metrics of section `tuning` that are drawn, with their names and units: the one that is tuned for, then the other."""


def tuning_change(rows: Sequence[ResultRow]) -> str:
    """Say how far a tuning came, from the means of its first and last steps: reward and KL, or margin and accuracy."""
    curves = tuning_curves(rows)
    goal = next((metric for metric in ("reward", "margin") if metric in curves), None)
    if goal is None:
        return "This run has no curve of reward or margin"
    (first, before), (last, after) = curves[goal][0], curves[goal][-1]
    moved = "rose" if after > before else "fell" if after < before else "stayed"
    says = f"{TUNING[goal][0].capitalize()} {moved} from {plain(before)} to {plain(after)} over {count(last)} steps"
    if first == last:
        says = f"{TUNING[goal][0].capitalize()} of {plain(after)} in {count(last)} steps"
    if "kl" in curves:
        says += f", at {plain(curves['kl'][-1][1])} nats per token from the base model"
    elif "accuracy" in curves:
        says += f", with {percent(curves['accuracy'][-1][1])} of pairs on the right side"
    return says


def tuning_curves(rows: Sequence[ResultRow]) -> dict[str, list[tuple[int, float]]]:
    """Return the curves of section `tuning` by metric: (last step, mean) of consecutive steps."""
    curves: dict[str, list[tuple[int, float]]] = {}
    for row in rows:
        if (row.group or "").isdecimal() and math.isfinite(row.value):
            curves.setdefault(row.metric, []).append((int(row.group or 0), row.value))
    return {metric: sorted(curve) for metric, curve in curves.items()}


def rewards(rows: Sequence[ResultRow]) -> list[Line]:
    """Mean reward of completions of each model, and the change (section `reward`)."""
    shown = sort_rows([row for row in rows if row.metric == "reward" and row.group is None], "model")
    names = {"tuned": "tuned model", "base": "base model", "difference": "tuned minus base"}
    return [Line.from_row(names.get(row.model or "", row.model or ""), row) for row in shown]


def implicit_rewards(rows: Sequence[ResultRow]) -> list[Line]:
    """Kendall's tau of implicit rewards with the reward, by what is measured and of what (`implicit_reward`)."""
    shown = sort_rows([row for row in rows if row.metric == "tau"], "target", "words", "group")
    lines = []
    for row in shown:
        words = f"{row.words} words" if row.words else ""
        name = ", ".join(filter(None, [TARGETS.get(row.target or "", row.target or ""), words, row.group]))
        lines.append(Line.from_row(name, row))
    return lines


def targets(rows: Sequence[ResultRow]) -> list[str]:
    """Return what the probes of these rows are fitted to, in reading order."""
    return sorted({row.target for row in rows if row.target}, key=reading_order)


def probes(rows: Sequence[ResultRow], metric: str, target: str, *, words: str = "all") -> list[Line]:
    """A metric of every probe of a target on held-out words, tuned before base before their difference.

    The mark is the ceiling of a probe that knows signs only, where the report has one.
    """
    held = [row for row in rows if row.split in ("held_out_words", None) and row.target == target]
    shown = [row for row in held if row.metric == metric and row.words == words]
    shown = sorted(sort_rows(shown, "inputs", "model"), key=lambda row: row.model == "difference")
    lines = []
    for row in shown:
        ceiling = pick(held, metric="sign_ceiling", model=row.model, inputs=row.inputs)
        mark = ceiling.value if ceiling and metric == "tau" and words == "all" else None
        lines.append(Line.from_row(probe_name(row), row, mark=mark))
    return lines


def probe_name(row: ResultRow) -> str:
    """Return which model and inputs a row is of."""
    inputs = INPUTS.get(row.inputs or "", row.inputs or "")
    if row.model == "difference":
        return f"tuned minus base, {inputs}" if inputs else "tuned minus base"
    return " · ".join(part for part in (row.model, inputs) if part)


def pairs(rows: Sequence[ResultRow]) -> list[Line]:
    """How often each probe picks the chosen response of held-out pairs, and how often length alone does."""
    names = {"accuracy": "", "accuracy_length_controlled": ", length controlled"}
    scored = [row for row in rows if row.metric in names]
    fitted = [row for row in scored if row.model != "difference"]
    fitted.sort(key=lambda row: (row.target != "preference", row.metric))
    lines = [
        Line.from_row(f"{probe_name(row)}{names[row.metric]}", row) for row in sort_rows(fitted, "inputs", "model")
    ]
    for row in rows:
        if row.metric in names and row.target == "implicit_reward":
            lines.append(Line.from_row(f"implicit reward, no probe{names[row.metric]}", row))
        elif row.metric == "accuracy_of_length":
            lines.append(Line.from_row("the longer response", row))
    return lines


def pair_differences(rows: Sequence[ResultRow]) -> list[Line]:
    """Pair accuracy on the tuned model minus that on the base model, by inputs."""
    shown = [row for row in rows if row.metric == "accuracy" and row.model == "difference" and row.inputs]
    return [Line.from_row(probe_name(row), row, two_sided=True) for row in sort_rows(shown, "inputs")]


def errors(rows: Sequence[ResultRow]) -> list[Line]:
    """Mean error of the estimate by how often a word was written; the mark is the mean of shuffled estimates."""
    names = {"all": "all words", "0": "words never written", "1": "written once"}

    def first_number(row: ResultRow) -> int:
        found = re.match(r"\d+", row.group or "")
        return int(found.group()) if found else 0

    ordered = sorted(rows, key=lambda row: (row.group != "all", first_number(row)))
    return [
        Line(
            f"{names.get(row.group or '', f'written {row.group} times')} ({count(row.n)})",
            row.value, row.ci_low, row.ci_high, mark=row.null_mean,
        )
        for row in ordered
    ]  # fmt: skip


def keys_of(row: ResultRow) -> dict[str, str]:
    """Return the keys within a row's group, such as labeller and features: `labeller=a,features=all`.

    A labeller's name may itself hold a comma; the key after it is the last.
    """
    head, _, last = (row.group or "").rpartition(",")
    if not head.startswith("labeller=") or not last:
        return {}
    name, is_pair, value = last.partition("=")
    return {"labeller": head.removeprefix("labeller="), **({name: value} if is_pair else {"group": last})}


def kappas(rows: Sequence[ResultRow]) -> list[Line]:
    """Agreement of each labeller with the weights, as Cohen's kappa (section `label_agreement`)."""
    against = {"beats_null": "weights beyond chance", "top_decile": "top tenth of weights"}
    lines = []
    for row in rows:
        if row.metric == "kappa":
            keys = keys_of(row)
            name = f"{keys['labeller']}: {against.get(keys.get('against', ''), '')}" if keys else str(row.group)
            lines.append(Line.from_row(name, row))
    return lines


def label_scores(rows: Sequence[ResultRow], metric: str, labeller: str) -> list[Line]:
    """A labeller's mean scores by group of features, with what another feature's label scores as chance."""
    shown = [row for row in rows if row.metric == metric and keys_of(row).get("labeller") == labeller]
    shown.sort(key=lambda row: keys_of(row).get("features") != "all")
    names = [keys_of(row).get("features", "") for row in shown]
    return [
        Line.from_row(f"{MEMBERS.get(name, name)} ({count(row.n)} features)", row)
        for name, row in zip(names, shown, strict=True)
    ]


def frequencies(rows: Sequence[ResultRow], metric: str, labeller: str | None = None) -> dict[str, ResultRow]:
    """How often features fire, by group: a labeller's own rows where there are any, else the run's labeller's."""
    scored = [row for row in rows if row.metric == metric]
    own = {keys_of(row)["group"]: row for row in scored if labeller and keys_of(row).get("labeller") == labeller}
    return own or {str(row.group): row for row in scored if not keys_of(row)}


def frequency_lines(found: Mapping[str, ResultRow]) -> list[Line]:
    """Related and all features, on texts of high estimate and on the others."""
    return [Line.from_row(name, found[group]) for group, name in SIDES.items() if group in found]


def ablated_groups(rows: Sequence[Ablation]) -> list[Ablation]:
    """Return the ablated groups of features, without controls and single features, in reading order."""
    groups = [row for row in rows if row["kind"] in MAIN_KINDS]
    return sorted(groups, key=lambda row: (MAIN_KINDS.index(row["kind"]), row["group"]))


def effects(rows: Sequence[Ablation]) -> list[Line]:
    """What removing each group does beyond its controls: their mean is 0, they are dots, and 95 % of them is chance.

    Without controls it is the effect itself.
    """
    lines = []
    for row in ablated_groups(rows):
        reach, kind = row["contrast_reach"], "ci" if row["contrast"] is None else "contrast"
        effects = [control["effect"] for control in controls_in(row, rows)]
        mean = sum(effects) / len(effects) if effects else 0.0
        dots, low = tuple(effect - mean for effect in effects), None if reach is None else -reach
        value = row["effect"] if row["contrast"] is None else row["contrast"]
        lines.append(Line(group_name(row), value, row[f"{kind}_low"], row[f"{kind}_high"], low, reach, dots))
    return lines


def perplexities(rows: Sequence[Ablation]) -> list[Line]:
    """Perplexity of the text written without each group, controls as dots, the intact model's as a mark."""
    return [
        Line(
            group_name(row),
            row["perplexity"],
            dots=tuple(control["perplexity"] for control in controls_in(row, rows)),
            mark=row.get("perplexity_before"),
        )
        for row in ablated_groups(rows)
    ]


def group_name(row: Ablation) -> str:
    """Return what was ablated or scaled, and how many features that is."""
    n, kind = len(row["features"]), KINDS.get(row["kind"], row["kind"])
    name = row["group"] if row["kind"] == "chosen" else kind
    scaled = f", ×{plain(row['scale'], 1)}" if row["scale"] else ""
    return f"{name} ({n} feature{'s' if n != 1 else ''}{scaled})"
