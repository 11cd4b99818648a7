"""One feature as HTML: heading, numbers, drift, the texts it weighs in, neighbours, what removing it did."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from app.components.html import panels, wording
from app.components.html.numbers import count, digits_for, interval, percent, plain, signed
from lfp.bundle.queries.common import Probe
from lfp.bundle.queries.feature import Feature, FeatureDrift, Label, Neighbour, TextPart, TextParts
from lfp.evaluation.ablation_rows import FEATURE, is_inert, passes
from lfp.util.sanitize import escaped, shortened, token_text


def heading(feature: Feature, labels: Sequence[Label], probe: Probe | None) -> str:
    """Number, description, and badges: where it lives, what labellers and the headline probe make of it."""
    label = wording.best_label(labels)
    title = label.description if label and label.description else f"Feature {feature.feature_id}, not described"
    says = wording.weight_sentence(feature, probe) if probe else "This bundle holds no probe."
    return panels.heading(f"Feature {feature.feature_id}", title, says) + "".join(_badges(feature, label))


def _badges(feature: Feature, label: Label | None) -> list[str]:
    marks = [panels.badge(f"layer {feature.layer}"), panels.badge(f"row {feature.index} of its dictionary")]
    if label and label.related is not None:
        says = "related to the feedback" if label.related else "not related to the feedback"
        marks.append(panels.badge(says, "good" if label.related else ""))
    if feature.weight is not None:
        span = interval(feature.ci_low, feature.ci_high, 3)
        text = f"weight {signed(feature.weight, 3)}" + (f" [{span}]" if span else "")
        marks.append(panels.badge(text, "up" if feature.weight >= 0 else "down"))
    if feature.beats_null is not None:
        says = "beats its null" if feature.beats_null else "does not beat its null"
        marks.append(panels.badge(says, "good" if feature.beats_null else ""))
    return marks


def contribution(feature: Feature, *, n_features: int) -> str:
    """What the headline probe makes of it; `n_features` is what its rank is out of."""
    if feature.weight is None:
        return panels.note("The headline probe does not read this feature.")
    pairs = {
        "weight": signed(feature.weight, 4),
        "mean contribution a token": signed(feature.mean_contribution, 5),
        "share of all contributions": percent(feature.share),
        "rank": f"{count(feature.rank)} of {count(n_features)}",
    }
    if feature.null_high is not None:
        pairs["chance reaches"] = plain(feature.null_high, 4)
    return panels.facts(pairs)


def added(weight: float | None, activation: float) -> str:
    """What one token adds to the estimate, as HTML: weight times activation; nothing where no probe reads it."""
    if weight is None:
        return ""
    value = weight * activation
    return f'<i class="{"up" if value >= 0 else "down"}">{signed(value, 4)}</i>' if value else "<i>adds nothing</i>"


def activity(feature: Feature) -> str:
    """How often and how strongly it is active, tuned beside base."""
    rows = [
        ["density", percent(feature.density), percent(feature.base_density)],
        ["mean where active", plain(feature.mean_activation), plain(feature.base_mean_activation)],
        ["largest", plain(feature.max_activation), "–"],
    ]
    moved = f"Over all tokens its mean activation moved by {signed(feature.shift, 4)}."
    return panels.table(["", "tuned", "base"], rows) + panels.note(moved)


Where = Callable[[int], str]
"""The address of a feature's or a text's page."""


KINDS: Mapping[str, tuple[str, str]] = {
    "decoder_cosine": ("Writes in like directions", "cosine of decoder rows, of one layer"),
    "coactivation": ("Fires in the same contexts", "estimated share of contexts in common"),
}
"""Kinds of neighbours: what they share, and what the value is."""


_GROUPS: Mapping[str, str] = {
    "related": "features called related to the feedback",
    "weighted": "features that raise the estimate most",
    "both": "features called related that raise the estimate most",
    "chosen": "features named by a person",
}


_STATUSES: Mapping[str, str] = {
    "born": "Tuning made it fire: on the base model it hardly does.",
    "strengthened": "Tuning made it fire more.",
    "steady": "Tuning hardly changed how it fires.",
    "weakened": "Tuning made it fire less.",
    "gone": "Tuning all but silenced it.",
}


def drift(found: FeatureDrift | None, *, n_features: int) -> str:
    """What tuning did to a feature; `n_features` is what its rank is out of."""
    if found is None:
        return panels.note("What tuning did to it was not measured.")
    flipped = " Its weight has the other sign on the base model." if found.sign_flipped else ""
    pairs = {
        "adds a token, tuned": signed(found.contribution, 5),
        "adds a token, base": signed(found.contribution_base, 5),
        "drifted by": f"{signed(found.drifted_contribution, 5)}, rank {count(found.rank)} of {count(n_features)}",
        "weight, tuned and base": f"{signed(found.weight, 3)} and {signed(found.weight_base, 3)}",
    }
    return panels.note(f"{_STATUSES.get(found.status, found.status)}{flipped}") + panels.facts(pairs)


def texts(parts: TextParts, *, where: Where) -> str:
    """Where a feature adds to or takes from the estimate, and where it does so against the true feedback."""
    if not parts.n_texts:
        return panels.note("This bundle keeps the activations of no text.")
    if not parts.n_active:
        return panels.note(f"It moves the estimate of none of the {count(parts.n_texts)} texts kept.")
    verb = "raises" if (parts.mean or 0) >= 0 else "lowers"
    says = (
        f"It {verb} the estimate of {count(parts.n_active)} of the {count(parts.n_texts)} texts kept, by "
        f"{plain(abs(parts.mean or 0), 4)} on average. Most in these:"
    )
    body = panels.note(says) + _text_list(parts.largest, where)
    if not parts.n_judged:
        return body
    low, high = wilson(parts.n_against, parts.n_judged)
    against = (
        f"In {count(parts.n_against)} of {count(parts.n_judged)} texts, {percent(parts.n_against / parts.n_judged)} "
        f"[{percent(low)} to {percent(high)}], it pushes the estimate away from the true feedback: up where that is "
        "below the average, or down where it is above. A feature that knows nothing does so in about half."
    )
    worst = panels.note("Most in these:") + _text_list(parts.against[:3], where) if parts.against else ""
    return f"{body}<h4>Against the true feedback</h4>{panels.note(against)}{worst}"


def _text_list(parts: Sequence[TextPart], where: Where) -> str:
    largest = max((abs(part.contribution) for part in parts), default=0.0) or 1.0
    items = "".join(
        f'<li><div class="side"><b class="{"up" if part.contribution >= 0 else "down"}">'
        f'{signed(part.contribution, 4)}</b><span class="bar {"up" if part.contribution >= 0 else "down"}" '
        f'style="--w:{100 * abs(part.contribution) / largest:.1f}"></span></div>'
        f'<div><p dir="auto">{escaped(shortened(part.text, 170))}</p><small>'
        f"{panels.anchor(where(part.text_id), f'text {part.text_id}')} · estimate {signed(part.predicted, 3)} · "
        f"true feedback {signed(part.feedback)}</small></div></li>"
        for part in parts
    )
    return f'<ol class="lfp-moved">{items}</ol>'


def wilson(k: int, n: int, *, z: float = 1.96) -> tuple[float, float]:
    """The 95 % interval of a share of k in n (Wilson, 1927)."""
    centre, spread = k / n + z * z / (2 * n), z * math.sqrt(k / n * (1 - k / n) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    return max((centre - spread) / scale, 0.0), min((centre + spread) / scale, 1.0)


def neighbours(found: Sequence[Neighbour], *, where: Where, most: int = 8) -> str:
    """A list of each kind, nearest first."""
    if not found:
        return panels.note("No neighbours were kept of it.")
    lists = "".join(
        _near(name, says, [one for one in found if one.kind == kind][:most], where)
        for kind, (name, says) in KINDS.items()
    )
    return f'<div class="lfp-nears">{lists}</div>'


def _near(name: str, says: str, found: Sequence[Neighbour], where: Where) -> str:
    if not found:
        return ""
    items = "".join(
        f"<li>{panels.anchor(where(one.neighbour_id), f'#{one.neighbour_id}')}"
        f'<span class="name" dir="auto">{escaped(_name(one))}</span>{_weight(one)}<b>{plain(one.value)}</b></li>'
        for one in found
    )
    return f"<section><h4>{escaped(name)}</h4>{panels.note(says)}<ol>{items}</ol></section>"


def _name(one: Neighbour) -> str:
    if one.description:
        return shortened(one.description, 70)
    return f"not described; fires on {token_text(one.top_token)}" if one.top_token else "not described"


def _weight(one: Neighbour) -> str:
    if one.weight is None:
        return "<i></i>"
    kind = "up" if one.weight >= 0 else "down"
    return f'<i class="{kind}" title="weight {signed(one.weight, 4)}">{signed(one.weight, 3)}</i>'


def ablations(rows: Sequence[Mapping[str, Any]], *, reward: str, target: str) -> str:
    """A receipt for each time the feature was taken out; `reward` and `target` name what is measured and estimated."""
    if not rows:
        return panels.note("It was taken out of no generation: neither by itself nor in a group.")
    body = "".join(_receipt(row) for row in rows)
    terms = (
        f"Predicted is in the estimate’s unit ({target} a token), measured in {reward}: compare signs and order, not "
        "sizes. Controls are features like it that were taken out in its stead."
    )
    return f'<div class="lfp-receipts">{body}</div>{panels.note(terms)}'


def _receipt(row: Mapping[str, Any]) -> str:
    others = len(row["features"]) - 1
    what = "By itself" if row["kind"] == FEATURE or not others else f"Among {others + 1} {_GROUPS.get(row['kind'], '')}"
    if row["scale"]:
        what += f", scaled by {plain(row['scale'])}"
    digits = digits_for(row["ci_low"], row["ci_high"])
    reach = row["null_high"]
    pairs = {
        "measured": f"{signed(row['effect'], digits)} [{interval(row['ci_low'], row['ci_high'], digits)}]",
        "controls reach": "no control" if reach is None else f"± {plain(reach, digits)}",
        "predicted": signed(row["predicted_effect"], 4),
        "completions": count(row["n_completions"]),
    }
    kind, says = verdict(row)
    return (
        f"<section><h4>{escaped(what)}</h4>{_strip(row)}{panels.facts(pairs)}"
        f'<p class="verdict {kind}">{escaped(says)}</p></section>'
    )


def verdict(row: Mapping[str, Any]) -> tuple[str, str]:
    """Whether an ablation did anything, as good, weak or none, and one sentence."""
    if row["null_high"] is None:
        return "none", "There are no controls to hold it against."
    if passes(row):
        same = row["predicted_effect"] is None or row["predicted_effect"] * row["effect"] > 0
        agrees = "as the estimate says" if same else "the other way than the estimate says"
        verb = "lowers" if row["effect"] < 0 else "raises"
        return "good" if same else "weak", f"Taking it out {verb} the reward more than controls do, {agrees}."
    if is_inert(row):
        return "none", "Inert: no effect is seen, as the interval holds zero and controls reach as far."
    return "weak", "Zero is outside the interval, but controls reach as far."


def _strip(row: Mapping[str, Any]) -> str:
    """The effect and its interval over what controls reach, about zero."""
    reach = row["null_high"] or 0.0
    end = 1.05 * max(abs(row["ci_low"]), abs(row["ci_high"]), abs(row["effect"]), reach) or 1.0

    def at(value: float) -> str:
        return f"{50 + 50 * value / end:.1f}%"

    def span(kind: str, low: float, high: float) -> str:
        return f'<span class="{kind}" style="left:{at(low)};width:{50 * (high - low) / end:.1f}%"></span>'

    marks = [f'<span class="zero" style="left:{at(0)}"></span>']
    if reach:
        marks.append(span("chance", -reach, reach))
    marks.append(span("span", row["ci_low"], row["ci_high"]))
    marks.append(f'<span class="point" style="left:{at(row["effect"])}"></span>')
    key = '<span class="span">effect on the reward, 95 % interval</span><span class="chance">what controls reach</span>'
    return (
        f'<div aria-hidden="true"><div class="lfp-strip">{"".join(marks)}</div><div class="lfp-key">{key}</div></div>'
    )
