"""A run in short: what was tuned towards what, its reward before and after, tuned against base, and what it cost.

Costs come from the manifest, since no table depends on the clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lfp.bundle.manifest import Manifest
from lfp.config import PRETRAIN, TUNE
from lfp.evaluation.results import Report, ResultRow
from lfp.report.figures.lines import TARGETS
from lfp.report.formatting import estimate, pick, plain, with_interval
from lfp.report.sentences.common import against_base
from lfp.report.sentences.sections import sentence
from lfp.util.sanitize import source_name

_FIRST = ("reward", "implicit_reward", "module_credits")
"""Sections whose sentences a summary begins with."""


@dataclass(frozen=True)
class Comparison:
    """The same probe on the tuned model, on the base model, and the difference; what it is fitted to."""

    target: str
    tuned: ResultRow
    base: ResultRow
    difference: ResultRow
    score: str
    """What the values are, as people say it."""


def compare_models(report: Report, target: str | None) -> Comparison | None:
    """Return tuned against base for the headline probe's target, else for the first target that has all three."""
    for name in dict.fromkeys([target, "delta", "feedback", "implicit_reward", "preference"]):
        is_pairs = name == "preference"
        if is_pairs:
            rows, keys = report.get("preference_accuracy", ()), {"metric": "accuracy"}
        else:
            rows = [row for row in report.get("kendall_tau", ()) if row.split in ("held_out_words", None)]
            keys = {"metric": "tau", "words": "all"}
        tuned = pick(rows, model="tuned", inputs="sae", target=name, **keys)
        base = pick(rows, model="base", inputs="base_sae", target=name, **keys)
        difference = pick(rows, model="difference", inputs="sae", target=name, **keys)
        if name and tuned and base and difference:
            return Comparison(name, tuned, base, difference, "pair accuracy" if is_pairs else "Kendall’s τ")
    return None


def summarise(report: Report, target: str | None) -> list[str]:
    """Return the run in a few sentences: the reward, where its parts sit in the model, and tuned against base."""
    found = [sentence(name, report[name]) for name in _FIRST if report.get(name)]
    compared = compare_models(report, target)
    if compared is not None:
        ranks = (
            "picks the chosen response of held-out pairs"
            if compared.target == "preference"
            else "ranks held-out words by their reward"
        )
        null = compared.tuned.null_high
        chance = "" if null is None else f" (chance {plain(null)})"
        found.append(
            f"A linear probe of {TARGETS.get(compared.target, compared.target)} on the tuned model’s features "
            f"{ranks} with {compared.score} = {estimate(compared.tuned)}{chance}; on the base model’s features with "
            f"{estimate(compared.base)}. The difference is {estimate(compared.difference, is_signed=True)}. "
            f"{against_base(compared.difference)}{_explained(report, compared.target)}"
        )
    return found


def _explained(report: Report, target: str) -> str:
    """Say how much of its own target the probe explains on held-out words; empty where the report does not."""
    shares = [
        pick(report.get("kendall_tau", ()), metric="r2_of_target", target=target, inputs=inputs)
        for inputs in ("sae", "base_sae")
    ]
    tuned, base = shares
    if tuned is None or base is None:
        return ""
    return (
        f" Of the variance of its target on tokens of these words it explains {estimate(tuned)}, on the base model’s "
        f"features {estimate(base)} (R²)."
    )


def what_was_tuned(manifest: Manifest) -> str:
    """Say which model was tuned towards what, on which texts."""
    names = {role: model.name for role, model in manifest.models.items()}
    base, tuned = names.get("base", PRETRAIN), names.get("tuned", TUNE)
    scratch = "small model trained from scratch"
    if tuned == TUNE:
        subject = f"A {scratch}," if base == PRETRAIN else f"{base},"
    else:
        subject = f"{tuned} is a {scratch}" if base == PRETRAIN else f"{tuned} is {base}"
    tune = manifest.config.get("tune", {})
    if tune.get("method") == "dpo" and tune.get("pairs"):
        texts = f"the pairs “{source_name(tune['pairs'])}”"
    else:
        texts = f"the corpus “{source_name(manifest.config.get('corpus', {}).get('source', 'unnamed'))}”"
    if manifest.config.get("model", {}).get("tuned", TUNE) != TUNE:
        reward = "feedback elsewhere"
    else:
        reward = "preference pairs (DPO)" if is_tuned_on_pairs(manifest) else "the lexicon’s reward (GRPO)"
    return f"{subject} tuned on {reward}, over {texts}, with seed {manifest.seed}."


def is_tuned_on_pairs(manifest: Manifest) -> bool:
    """Tell whether the run tuned its model on preference pairs, which no reward of texts takes part in."""
    own = manifest.config.get("model", {}).get("tuned", TUNE) == TUNE
    return own and manifest.config.get("tune", {}).get("method") == "dpo"


def reward_facts(report: Report) -> dict[str, str]:
    """Return, by name: mean reward before and after, KL from the base model, and what was learned of words."""
    rewards, rows = report.get("reward", ()), report.get("implicit_reward", ())
    base, tuned, change = (
        pick(rewards, metric="reward", model=model, group=None) for model in ("base", "tuned", "difference")
    )
    kl = pick(rewards, metric="kl_per_token")
    implicit = pick(rows, metric="tau", words="all", target="implicit_reward") or pick(rows, metric="tau", words="all")
    chance = f" (chance {plain(implicit.null_high)})" if implicit and implicit.null_high is not None else ""
    found = {
        "mean reward, before → after": f"{plain(base.value)} → {plain(tuned.value)}" if base and tuned else "",
        "change of reward": estimate(change, is_signed=True) if change else "",
        "KL from base": f"{with_interval(kl.value, kl.ci_low, kl.ci_high)} nats per token" if kl else "",
        "implicit reward against reward, τ": estimate(implicit) + chance if implicit else "",
    }
    return {name: value for name, value in found.items() if value}


@dataclass(frozen=True)
class StageCost:
    """A stage, or all of them, in minutes and megabytes of 10^6 bytes; None where something is not known."""

    stage: str
    minutes: float
    cpu_minutes: float | None
    peak_rss_mb: float | None


def stage_costs(manifest: Manifest) -> list[StageCost]:
    """Return the cost of each stage, in the order they ran; empty where the bundle does not say."""
    costs = []
    for stage in manifest.stages:
        cpu_minutes = None if stage.cpu_seconds is None else stage.cpu_seconds / 60
        costs.append(StageCost(stage.name, stage.seconds / 60, cpu_minutes, stage.peak_rss_mb))
    return costs


def total_cost(stages: Sequence[StageCost]) -> StageCost:
    """Return all stages as one: minutes are summed where every stage has them, and the peak is the largest."""
    cpu_minutes = [stage.cpu_minutes for stage in stages if stage.cpu_minutes is not None]
    peaks = [stage.peak_rss_mb for stage in stages if stage.peak_rss_mb is not None]
    return StageCost(
        "all",
        sum(stage.minutes for stage in stages),
        sum(cpu_minutes) if cpu_minutes and len(cpu_minutes) == len(stages) else None,
        max(peaks, default=None),
    )


def cost_rows(manifest: Manifest) -> list[ResultRow]:
    """Return section `cost` of the report: minutes, cpu_minutes and peak_rss_mb of each stage, then the machine.

    `group` is the stage, or the processor with its cores and memory_gb, or the GPU with their number.
    """
    figures = [
        (stage.stage, metric, getattr(stage, metric))
        for stage in stage_costs(manifest)
        for metric in ("minutes", "cpu_minutes", "peak_rss_mb")
    ]
    if machine := manifest.hardware:
        processor = machine.processor or "processor"
        figures += [(processor, "cores", machine.cores), (processor, "memory_gb", machine.memory_gb)]
        figures += [(machine.gpu, "gpus", 1)] if machine.gpu else []
    return [
        ResultRow.from_estimate("cost", metric, value, group=group)
        for group, metric, value in figures
        if value is not None
    ]


def credit_shares(rows: Sequence[ResultRow]) -> dict[tuple[int | None, str | None, bool], float]:
    """Map each layer, site, and whether it is the control's, to the share of the module's credit that features carry.

    The control is a dictionary trained with a frozen random decoder.
    """
    metrics = {"features_share": False, "control_share": True}
    return {
        (row.layer, row.site, metrics[row.metric]): row.value
        for row in rows
        if row.metric in metrics and row.group == "same_position"
    }
