"""The headline of a run: tuned, base, and tuned minus base, each beside its null; and what the reward did."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from app.components.charts.intervals import told
from app.components.html.numbers import plain
from app.components.html.panels import Headline
from app.components.html.wording import pick
from lfp.bundle.queries.common import Probe
from lfp.evaluation.results import ResultRow

TARGETS = {
    "implicit_reward": "implicit reward",
    "delta": "activation differences",
    "feedback": "true feedback",
    "preference": "preferences",
}
"""What a probe may be fitted to, as people say it."""
_ROLES = (("tuned", "sae"), ("base", "base_sae"), ("difference", "sae"))


def compared(figures: Mapping[str, Sequence[ResultRow]], probe: Probe | None) -> list[Headline]:
    """Three large figures, of the headline probe's target where the report has them, else of the first that has all.

    `figures` are the rows `kendall_tau` and `preference_accuracy` of the report; empty where neither compares.
    """
    targets = [probe.target] if probe else []
    for target in dict.fromkeys([*targets, "delta", "feedback", "implicit_reward", "preference"]):
        found = _three(figures, target)
        if len(found) == len(_ROLES):
            return _cards(found, figures, target)
    return []


def targets(rows: Sequence[ResultRow], probe: Probe | None) -> dict[str, str]:
    """What the probes of these figures are fitted to, by the name people say, the headline probe's target first."""
    held = dict.fromkeys(row.target for row in rows if row.target)
    ordered = sorted(held, key=lambda target: probe is None or target != probe.target)
    return {TARGETS.get(target, target): target for target in ordered}


def _three(figures: Mapping[str, Sequence[ResultRow]], target: str) -> list[ResultRow]:
    if target == "preference":
        rows, keys = figures.get("preference_accuracy", ()), {"metric": "accuracy"}
    else:
        rows = [row for row in figures.get("kendall_tau", ()) if row.split in ("held_out_words", None)]
        keys = {"metric": "tau", "words": "all"}
    found = (pick(rows, model=model, inputs=inputs, target=target, **keys) for model, inputs in _ROLES)
    return [row for row in found if row is not None]


def _cards(found: Sequence[ResultRow], figures: Mapping[str, Sequence[ResultRow]], target: str) -> list[Headline]:
    tuned, base, change = found
    score = "accuracy" if target == "preference" else "Kendall’s τ"
    does = (
        "tells the chosen response of pairs it never saw"
        if target == "preference"
        else "orders words it never saw by their true feedback"
    )
    fitted = f"A probe of {TARGETS[target]}, read from" if target != "preference" else "A preference probe, read from"
    return [
        _card(
            f"Tuned model, {score}",
            tuned,
            f"{fitted} the tuned model’s features, {does} this well. {against_chance(tuned)}",
            ceiling=_ceiling(figures, tuned),
        ),
        _card(
            f"Base model, {score}",
            base,
            f"The same probe of the model before any feedback, with its own dictionary. {against_chance(base)}",
            ceiling=_ceiling(figures, base),
        ),
        _card("Tuned minus base", change, verdict(change), is_change=True),
    ]


def _card(
    name: str, row: ResultRow, sentence: str, *, ceiling: float | None = None, is_change: bool = False
) -> Headline:
    return Headline(
        name, row.value, sentence.strip(), is_change=is_change, low=row.ci_low, high=row.ci_high, chance=row.null_high,
        chance_low=None if is_change else row.null_mean, ceiling=ceiling,
    )  # fmt: skip


def _ceiling(figures: Mapping[str, Sequence[ResultRow]], row: ResultRow) -> float | None:
    keys = {"model": row.model, "inputs": row.inputs, "target": row.target, "split": row.split}
    found = pick(figures.get("kendall_tau", ()), metric="sign_ceiling", **keys)
    return found.value if found else None


def against_chance(row: ResultRow) -> str:
    """Whether a figure is above its null; nothing where it has none."""
    if row.null_high is None:
        return ""
    side = "above" if row.value > row.null_high else "not above"
    return f"Shuffled feedback reaches {plain(row.null_high)} one time in twenty; this is {side} it."


def verdict(change: ResultRow) -> str:
    """What a difference of tuned and base says, by where its interval lies."""
    if change.ci_low is None or change.ci_high is None:
        return "Its interval is not known."
    if change.ci_low > 0:
        return "The tuned model’s features say more than the base model’s: zero is below the interval."
    if change.ci_high < 0:
        return (
            "The base model’s features, which no feedback reached, say more. High figures on the tuned model are then "
            "no evidence that the feedback put them there."
        )
    return "Zero is within the interval: the base model may have known as much before any feedback."


def run_facts(figures: Mapping[str, Sequence[ResultRow]]) -> dict[str, str]:
    """Beside the headline: mean reward before and after, how far the model strayed, and what was learned of words."""
    rewards = figures.get("reward", ())
    base, tuned, change = (
        pick(rewards, metric="reward", model=model, group=None) for model in ("base", "tuned", "difference")
    )
    kl = pick(rewards, metric="kl_per_token")
    rows = figures.get("implicit_reward", ())
    implicit = pick(rows, metric="tau", words="all", target="implicit_reward") or pick(rows, metric="tau", words="all")
    found = {
        "mean reward, before → after": f"{plain(base.value)} → {plain(tuned.value)}" if base and tuned else "",
        "change of reward": told(change.value, change.ci_low, change.ci_high, is_signed=True) if change else "",
        "KL from base": f"{told(kl.value, kl.ci_low, kl.ci_high)} nats a token" if kl else "",
        "implicit reward against true, τ": told(implicit.value, implicit.ci_low, implicit.ci_high) if implicit else "",
    }
    return {name: value for name, value in found.items() if value}
