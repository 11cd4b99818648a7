"""One feature's panels: heading with badges, its part in the prediction, tuned beside base."""

from __future__ import annotations

from collections.abc import Sequence

from app.components import panels, wording
from app.components.numbers import count, interval, percent, plain, signed
from lfp.bundle.queries.common import Probe
from lfp.bundle.queries.feature import Feature, Label


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
