"""One feature as HTML: heading, numbers, drift, the texts where it contributes, neighbours, and its ablations."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from app.components.html import panels
from app.components.text.reading import target_name
from lfp.audit import share_interval
from lfp.bundle.queries.common import Probe
from lfp.bundle.queries.feature import (
    Feature,
    FeatureDrift,
    Label,
    Neighbour,
    TextPart,
    TextParts,
)
from lfp.evaluation.results import FEATURE, is_inert, passes
from lfp.report.formatting import count, digits_for, interval, percent, plain, signed
from lfp.util.sanitize import escaped, shortened, token_text
from lfp.util.types import SITE_NAMES

Where = Callable[[int], str]
"""Returns the address of a feature's or a text's page."""

KINDS: Mapping[str, tuple[str, str]] = {
    "decoder_cosine": ("Similar decoder directions", "cosine of decoder rows, within one dictionary"),
    "coactivation": ("Active in the same contexts", "estimated share of contexts in common"),
}
"""Kinds of neighbours: the heading, and what the value is."""

_GROUPS: Mapping[str, str] = {
    "related": "features labelled related",
    "weighted": "features that raise the estimate most",
    "both": "features labelled related that raise the estimate most",
    "chosen": "features chosen by hand",
}
STATUSES: Mapping[str, str] = {
    "born": "New: hardly fires in the base model.",
    "strengthened": "Fires more than in the base model.",
    "steady": "Fires about as in the base model.",
    "weakened": "Fires less than in the base model.",
    "gone": "Lost: hardly fires in the tuned model.",
}


def best_label(labels: Sequence[Label]) -> Label | None:
    """Return the label to judge: of labels, best first, the first that did not fail."""
    return next((label for label in labels if label.status == "ok" and label.description), None)


def heading(
    feature: Feature,
    labels: Sequence[Label],
    probe: Probe | None,
    *,
    named: tuple[str, str],
    with_site: bool = False,
) -> str:
    """Write number, name, what it does to the estimate, and badges for its place, relation and weight.

    `named` is its title and what has to be said of that (`naming.page_title`).
    """
    label = best_label(labels)
    title, of_title = named
    if probe is None:
        says = "This bundle has no probe."
    elif feature.weight is None:
        says = "No probe reads this feature."
    elif feature.beats_null is False:
        says = f"Its weight in the estimate of the {target_name(probe)} is within chance."
    else:
        says = f"{'Raises' if feature.weight >= 0 else 'Lowers'} the estimated {target_name(probe)}."
    place = f"layer {feature.layer}" + (f", {SITE_NAMES.get(feature.site, feature.site)}" if with_site else "")
    marks = [panels.badge(place), panels.badge(f"index {feature.index} in its dictionary")]
    if label and label.related is not None:
        relation = "labelled related to the feedback" if label.related else "labelled not related to the feedback"
        marks.append(panels.badge(relation, "good" if label.related else ""))
    if feature.weight is not None:
        span = interval(feature.ci_low, feature.ci_high, 3)
        text = f"weight {signed(feature.weight, 3)}" + (f" [{span}]" if span else "")
        marks.append(panels.badge(text, "up" if feature.weight >= 0 else "down"))
    if feature.beats_null is not None:
        marks.append(panels.badge(_chance(feature), "good" if feature.beats_null else ""))
    says = f"{of_title} {says}".strip()
    return panels.heading(f"Feature {feature.feature_id}", title, says) + "".join(marks)


def contribution(feature: Feature, *, n_features: int) -> str:
    """Write what the headline probe makes of the feature; its rank is out of `n_features`."""
    if feature.weight is None:
        return panels.note("The headline probe does not read this feature.")
    pairs = {
        "weight": signed(feature.weight, 4),
        "mean contribution per token": signed(feature.mean_contribution, 5),
        "share of all contributions": percent(feature.share),
        "rank": f"{count(feature.rank)} of {count(n_features)}",
    }
    if feature.null_high is not None:
        pairs["95 % of shuffled weights"] = f"up to {plain(feature.null_high, 4)}"
    if feature.q is not None:
        pairs["false discovery rate"] = plain(feature.q, 3)
    return panels.facts(pairs)


def _chance(feature: Feature) -> str:
    """Say how the weight compares with those of shuffled targets; older bundles know no false discovery rate."""
    if feature.q is None:
        return "weight above 95 % of shuffled ones" if feature.beats_null else "weight not distinguishable from chance"
    beyond = "beyond chance" if feature.beats_null else "not distinguishable from chance"
    return f"weight {beyond} (false discovery rate 5 %)"


def bucket_sentence(bucket: int, highest: int) -> str:
    """Say what the examples of a bucket are; `highest` is the number of intervals of activation quantiles."""
    if bucket == 0:
        return "Strongest examples, one per context. Text outside the stored window is grey."
    if bucket == -2:
        return "Near misses: same token or a co-active feature, but this one stays silent."
    if bucket < 0:
        return "Random tokens from all texts in which the feature is silent."
    names = {1: "lowest", 2: "second-lowest", 3: "second-highest", 4: "highest"}
    which = f"{names[bucket]} activation quartile" if highest == 4 else f"activation interval {bucket} of {highest}"
    return f"Random examples from the {which}."


def contribution_mark(weight: float | None, activation: float) -> str:
    """Write a token's contribution to the estimate, weight times activation; empty if no probe reads the feature."""
    if weight is None:
        return ""
    value = weight * activation
    return f'<i class="{panels.direction(value)}">{signed(value, 4)}</i>' if value else "<i>no contribution</i>"


def activity(feature: Feature) -> str:
    """Write how often and how strongly the feature is active, tuned beside base."""
    rows = [
        ["density", percent(feature.density), percent(feature.base_density)],
        ["mean where active", plain(feature.mean_activation), plain(feature.base_mean_activation)],
        ["largest", plain(feature.max_activation), "–"],
    ]
    if feature.base_cosine is not None:
        rows.append(["cosine of its directions", plain(feature.base_cosine), ""])
    notes = [f"Its mean activation over all tokens changed by {signed(feature.shift, 4)}."]
    return panels.table(["", "tuned", "base"], rows) + panels.note(" ".join(notes))


def latent_scaling(feature: Feature) -> str:
    """Write by what factors the feature's direction explains each model's activations; empty where not measured."""
    if feature.scale_tuned is None:
        return ""
    rows = [
        ["factor of its direction", plain(feature.scale_tuned), plain(feature.scale_base)],
        ["the same on the error", plain(feature.scale_tuned_error), plain(feature.scale_base_error)],
    ]
    says = (
        "Latent scaling: by what factor its direction explains each model’s activations on held-out texts, as far as "
        "the dictionary reconstructs them, and on what other features leave. 0: the direction is not in that model. It "
        "is taken for the tuned model’s alone where the base factor is below 0.5 of the tuned, and 0.2 on the error."
    )
    return panels.table(["", "tuned", "base"], rows) + panels.note(says)


def drift(found: FeatureDrift | None, *, n_features: int) -> str:
    """Write how the feature changed in tuning; its rank is out of `n_features`."""
    if found is None:
        return panels.note("This run did not measure drift.")
    flipped = " Its probe weight changed sign." if found.sign_flipped else ""
    pairs = {
        "contribution per token (tuned)": signed(found.contribution, 5),
        "contribution per token (base)": signed(found.contribution_base, 5),
        "change": f"{signed(found.drifted_contribution, 5)}, rank {count(found.rank)} of {count(n_features)}",
        "weight, tuned and base": f"{signed(found.weight, 3)} and {signed(found.weight_base, 3)}",
    }
    return panels.note(f"{STATUSES.get(found.status, found.status)}{flipped}") + panels.facts(pairs)


def texts(parts: TextParts, *, where: Where, start: str = "") -> str:
    """Write in which texts the feature contributes most, and how often it does so against the reward.

    Of a text its `start`, which others have too, is left out.
    """
    if not parts.n_texts:
        return panels.note("This bundle holds no texts with activations.")
    if not parts.n_active:
        return panels.note(f"It contributes to none of the {count(parts.n_texts)} sampled texts.")
    verb = "raises" if (parts.mean or 0) >= 0 else "lowers"
    says = (
        f"It {verb} the estimate of {count(parts.n_active)} of the {count(parts.n_texts)} sampled texts, by "
        f"{plain(abs(parts.mean or 0), 4)} on average. Most in:"
    )
    body = panels.note(says) + _text_list(parts.largest, where, start)
    interval_ = share_interval(parts.n_against, parts.n_judged)
    if interval_ is None:
        return body
    low, high = interval_
    against = (
        f"In {count(parts.n_against)} of {count(parts.n_judged)} texts, {percent(parts.n_against / parts.n_judged)} "
        f"[{percent(low)} to {percent(high)}], it moves the estimate away from the reward: up where the reward is "
        "below average, or down where it is above. Chance: 50 %."
    )
    worst = panels.note("Most in:") + _text_list(parts.against[:3], where, start) if parts.against else ""
    return f"{body}<h4>Against the reward</h4>{panels.note(against)}{worst}"


def _text_list(parts: Sequence[TextPart], where: Where, start: str) -> str:
    return panels.moved_list(
        [
            panels.Moved(
                part.contribution,
                signed(part.contribution, 4),
                escaped(shortened(part.text.removeprefix(start), 170)),
                f"{panels.anchor(where(part.text_id), f'text {part.text_id}')} · estimate "
                f"{signed(part.predicted, 3)} · reward {signed(part.feedback)}",
            )
            for part in parts
        ]
    )


def neighbours(found: Sequence[Neighbour], *, where: Where, most: int = 8) -> str:
    """Write a list of neighbours of each kind, nearest first."""
    if not found:
        return panels.note("This bundle holds no neighbours of it.")
    lists = ""
    for kind, (name, says) in KINDS.items():
        items = ""
        for near in [near for near in found if near.kind == kind][:most]:
            unlabelled = f"no label; fires on {token_text(near.top_token)}" if near.top_token else "no label"
            label = panels.cut(near.description, 70) if near.description else escaped(unlabelled)
            weight = "<i></i>"
            if near.weight is not None:
                title = f"weight {signed(near.weight, 4)}"
                weight = f'<i class="{panels.direction(near.weight)}" title="{title}">{signed(near.weight, 3)}</i>'
            items += (
                f"<li>{panels.anchor(where(near.neighbour_id), f'#{near.neighbour_id}')}"
                f'<span class="name" dir="auto">{label}</span>{weight}<b>{plain(near.value)}</b></li>'
            )
        if items:
            lists += f"<section><h4>{escaped(name)}</h4>{panels.note(says)}<ol>{items}</ol></section>"
    return f'<div class="lfp-nears">{lists}</div>'


def ablations(rows: Sequence[Mapping[str, Any]], *, reward: str, target: str) -> str:
    """Write each ablation of the feature; `reward` and `target` name what is measured and what is estimated."""
    if not rows:
        return panels.note("Not ablated in this run.")
    body = "".join(_ablation(row) for row in rows)
    terms = (
        f"Predicted is in the estimate’s unit ({target} per token), measured in {reward}: compare signs and order, not "
        "sizes. Measured is beyond the mean of controls, similar features removed instead."
    )
    return f'<div class="lfp-receipts">{body}</div>{panels.note(terms)}'


def _ablation(row: Mapping[str, Any]) -> str:
    n = len(row["features"])
    what = "By itself" if row["kind"] == FEATURE or n == 1 else f"Among {n} {_GROUPS.get(row['kind'], '')}"
    if row["scale"]:
        what += f", scaled by {plain(row['scale'])}"
    digits = digits_for(row["ci_low"], row["ci_high"])
    reach, (value, low, high) = row["contrast_reach"], _measured(row)
    pairs = {
        "measured": f"{signed(value, digits)} [{interval(low, high, digits)}]",
        "controls": "none" if reach is None else f"± {plain(reach, digits)}",
        "predicted": signed(row["predicted_effect"], 4),
        "completions": count(row["n_completions"]),
    }
    kind, says = verdict(row)
    return (
        f"<section><h4>{escaped(what)}</h4>{_strip(row)}{panels.facts(pairs)}"
        f'<p class="verdict {kind}">{escaped(says)}</p></section>'
    )


def _measured(row: Mapping[str, Any]) -> tuple[float, float, float]:
    """Return the effect beyond the mean of controls with its interval; without controls, the effect itself."""
    kind = "ci" if row["contrast"] is None else "contrast"
    value = row["effect"] if row["contrast"] is None else row["contrast"]
    return value, row[f"{kind}_low"], row[f"{kind}_high"]


def verdict(row: Mapping[str, Any]) -> tuple[str, str]:
    """Judge whether an ablation had an effect: good, weak or none, and one sentence."""
    if row["contrast_p"] is None:
        return "none", "There are too few controls to compare with."
    if passes(row):
        same = row["predicted_effect"] is None or row["predicted_effect"] * row["contrast"] > 0
        agrees = "as the estimate predicts" if same else "opposite to what the estimate predicts"
        verb = "lowers" if row["contrast"] < 0 else "raises"
        return "good" if same else "weak", f"Removing it {verb} the reward more than controls do, {agrees}."
    if is_inert(row):
        return "none", "No effect detected: the interval includes 0, and other controls differ as much."
    return "weak", "The interval excludes 0, but other controls differ as much."


def _strip(row: Mapping[str, Any]) -> str:
    """Draw the effect and its interval over the range of the controls, with zero in the middle."""
    reach, (value, low, high) = row["contrast_reach"] or 0.0, _measured(row)
    end = 1.05 * max(abs(low), abs(high), abs(value), reach) or 1.0

    marks: list[panels.Mark] = [("zero", 0, None)]
    if reach:
        marks.append(("chance", -reach, reach))
    marks += [("span", low, high), ("point", value, None)]
    key = '<span class="span">effect beyond controls, 95 % interval</span><span class="chance">95 % of controls</span>'
    strip = f'<div class="lfp-strip">{panels.strip(marks, 50, 50 / end)}</div>'
    return f'<div aria-hidden="true">{strip}<div class="lfp-key">{key}</div></div>'
