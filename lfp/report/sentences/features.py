"""What results say of features: drift, credits, interventions, and how labels agree with weights."""

from __future__ import annotations

from collections.abc import Mapping

from lfp.evaluation.results import ResultRow
from lfp.report.figures import lines
from lfp.report.formatting import count, estimate, percent, pick, plain, with_interval
from lfp.report.sentences.common import ABSENT, Rows, against_chance, name_estimates, size_of


def agreement_facts(rows: Rows) -> dict[str, str]:
    """Return the agreement of one labeller's labels with weights in numbers, by name; empty without a large weight."""
    if not has_weighty({row.metric: row for row in rows}):
        return {}
    return name_estimates(rows, {"odds_ratio": "odds ratio", "kappa": "Cohen’s κ", "accuracy": "agreement"})


def drift_sentence(rows: Rows) -> str:
    """Say how tuning changed when features fire, and what of it is beyond chance (section `drift`)."""
    born = pick(rows, metric="count", inputs="sae", group="born")
    gone = pick(rows, metric="count", inputs="base_sae", group="gone")
    carried = [row for row in rows if row.metric == "carried_share" and row.group != "steady"]
    parts = ["How tuning changed when features fire; both models are read through the same dictionary."]
    if born and gone:
        parts.append(
            f"{count(born.value)} of {count(born.n)} features of the tuned model’s dictionary are new, "
            f"{count(gone.value)} of {count(gone.n)} of the base model’s are gone{_exchanged(born, gone)}. "
            f"{_counted_in_twins(rows)}"
        )
    if carried:
        share = percent(sum(row.value for row in carried))
        parts.append(f"Features whose firing changed carry {share} of the change of the estimate.")
    largest = [row for row in rows if row.metric == "drifted_contribution" and row.null_high is not None]
    if born and born.null_p is not None:
        parts.append(
            "Chance in this older bundle is too easily passed: its counts take features as independent, and its "
            "changes of contribution are compared with weights shuffled among features."
        )
    elif largest:
        beyond = sum(abs(row.value) > (row.null_high or 0.0) for row in largest)
        parts.append(
            f"Of the {count(len(largest))} features whose contribution changed most, {count(beyond)} changed more than "
            "95 % of those at the same rank in probes of shuffled feedback."
        )
    return " ".join(parts)


def _counted_in_twins(rows: Rows) -> str:
    """Say how many features change in twins, which other seeds of the same tuning made."""
    says = []
    for group, name in (("gone", "gone"), ("strengthened", "stronger"), ("weakened", "weaker")):
        found = pick(rows, metric="twin_count", group=group)
        if found is not None and found.null_mean is not None:
            says.append(f"{count(found.value)} {name} ({plain(found.null_mean, 1)} in a twin)")
    if not says:
        return "How these counts would differ in another tuning on the same feedback is not known from one."
    return f"In a part of the texts, of the base model’s features: {', '.join(says)}."


def _exchanged(born: ResultRow, gone: ResultRow) -> str:
    """Say what both counts are on average with the models exchanged; empty where the report does not."""
    if born.null_mean is None or gone.null_mean is None:
        return ""
    return f" (with the models exchanged, on average {count(born.null_mean)} and {count(gone.null_mean)})"


def feature_credits_sentence(rows: Rows) -> str:
    """Say how much of their modules' credit features carry, and which carries most."""
    shares = [row for row in rows if row.metric == "features_share" and row.group == "same_position"]
    if not shares:
        return _NO_CHANGE if pick(rows, metric="check") else ABSENT
    values = sorted(row.value for row in shares)
    span = percent(values[0]) if len(values) == 1 else f"{percent(values[0])} to {percent(values[-1])}"
    where = "the module" if len(values) == 1 else f"their modules ({len(values)} layers and sites)"
    says = [f"Features carry {span} of what {where} changed in the log-probability of the next token."]
    controls = sorted(row.value for row in rows if row.metric == "control_share" and row.group == "same_position")
    if controls:
        carried = percent(controls[0]) + (f" to {percent(controls[-1])}" if controls[1:] else "")
        says.append(f"Features trained with a frozen random decoder carry {carried}.")
    constant = sorted(row.value for row in rows if row.metric == "bias_share" and row.group == "same_position")
    if constant and constant[-1] > _NOTED_SHARE:
        says.append(f"Up to {percent(constant[-1])} is the same at every token: the dictionary's bias.")
    top = max((row for row in rows if row.metric == "credit"), key=size_of, default=None)
    if top is not None:
        says.append(f"Largest: {str(top.group).replace(':', ' ')}, {estimate(top, is_signed=True)} nats per token.")
    return " ".join([*says, _beside_twins(rows)])


def _beside_twins(rows: Rows) -> str:
    """Say how many features' credits are not the twins'."""
    n, found = pick(rows, metric="twins"), pick(rows, metric="beyond_twins")
    if n is None or found is None:
        return "Without twins nothing says which of these credits another seed of the same tuning would give too."
    says = (
        f"Beside {count(n.value)} twins tuned by other seeds, the credits of {count(found.value)} of {count(found.n)} "
        "features differ (false discovery rate 10 %)"
    )
    if found.null_mean is None or found.null_high is None:
        return f"{says}."
    others = f"{plain(found.null_mean, 1)} on average, {count(found.null_high)} at most"
    return f"{says}; of each twin beside the others, {others}."


_NOTED_SHARE = 0.05
_NO_CHANGE = "Tuning changed nothing that the modules read write: the credits of all features are 0."


def interventions_sentence(rows: Rows) -> str:
    """Say how well credits predict what taking features out does, beside weights and drift."""
    found = {str(row.group): row for row in rows if row.metric == "rank_correlation"}
    credit = found.get("credit")
    if credit is None:
        return ABSENT
    says = [
        f"The {count(credit.n or 0)} features of largest credit, each taken out of what tuning changed: predicted and "
        f"measured effects on the implicit reward have a rank correlation of {estimate(credit)}. "
        f"{against_chance(credit)}".strip()
    ]
    names = {"weight": "probe weights", "drift": "drift"}
    others = [f"{plain(found[name].value)} by {says_}" for name, says_ in names.items() if name in found]
    if others:
        says.append(f"The same is {' and '.join(others)}.")
    sizes = {str(row.group): row for row in rows if row.metric == "size"}
    if {"feature", "control"} <= sizes.keys() and sizes["control"].value > 0:
        ratio = sizes["feature"].value / sizes["control"].value
        says.append(f"Their effects are {plain(ratio, 1)} times those of matched controls.")
    return " ".join(says)


def has_weighty(found: Mapping[str, ResultRow]) -> bool:
    """Tell whether any labelled feature has a large weight; odds ratios without one are of the correction for zeros."""
    counts = [found[name].value for name in ("related_and_weighty", "weighty_only") if name in found]
    return not counts or sum(counts) > 0


def agreement_sentence(found: Mapping[str, ResultRow]) -> str:
    """Say whether features labelled related have large weights; `found` are one labeller's rows by metric."""
    odds = found.get("odds_ratio")
    if odds is None:
        return ""
    if not has_weighty(found):
        return "No labelled feature has a large weight, so nothing can be said of what labels predict."
    if odds.beats_null:
        return f"Features labelled related have large weights more often than the others: odds ratio {estimate(odds)}."
    reach = f"; shuffled labels reach {plain(odds.null_high)}" if odds.null_high is not None else ""
    return f"No association between “related” labels and probe weight: odds ratio {estimate(odds)}{reach}."


def labels_sentence(rows: Rows) -> str:
    """Say how many labellers' labels predict which features matter (section `label_agreement`)."""
    kappas = [row for row in rows if row.metric == "kappa"]
    passed = sum(row.beats_null for row in kappas)
    says = "Labels predict which features matter" if passed else "Labels do not predict which features matter"
    return f"{says}: {passed} of {len(kappas)} tests beat shuffled labels."


def labellers_sentence(rows: Rows) -> str:
    """Say how labellers compare on the features that both labelled (section `labellers`)."""
    says = []
    for row in rows:
        keys = lines.keys_of(row)
        if row.metric == "detection_difference":
            says.append(
                f"On the same {row.n} features {keys['labeller']} detects {estimate(row, is_signed=True)} better than "
                f"{keys['against']}."
            )
        elif row.metric == "shared_word":
            chance = f", {percent(row.null_mean)} of features paired at random" if row.null_mean is not None else ""
            says.append(f"Their descriptions have a word in common for {percent(row.value)} of features{chance}.")
    return " ".join(says)


SCORES = {
    "detection": "Share of held-out texts that the label sorts right into firing and silent (balanced). "
    "Chance: another feature’s label.",
    "fuzzing": "Share of marked tokens of held-out texts that the label sorts right into firing and silent (balanced).",
    "agreement": "How often a label made again from other examples agrees on whether the feature is related.",
}
"""What the scores of labels are, by metric."""


def label_scores_sentence(rows: Rows) -> str:
    """Say how well each labeller's labels predict where features fire (section `label_scores`)."""
    parts = ["How well labels predict on which held-out examples their feature fires: mean balanced accuracy."]
    for row in rows:
        keys = lines.keys_of(row)
        if row.metric == "detection" and keys.get("features") == "all":
            other = f" (another feature’s label: {plain(row.null_mean)})" if row.null_mean is not None else ""
            parts.append(f"{keys['labeller']}: {estimate(row)}{other}.")
    return " ".join(parts)


def firing_change(found: Mapping[str, ResultRow]) -> tuple[str, str] | None:
    """Say how much more often related features fire where the estimate is high, and by how many percentage points."""
    change = found.get("related_high_less_rest")
    if change is None or change.ci_low is None or change.ci_high is None:
        return None
    does = "more often" if change.ci_low > 0 else "less often" if change.ci_high < 0 else "about as often"
    return does, with_interval(100 * change.value, 100 * change.ci_low, 100 * change.ci_high, is_signed=True)


def frequencies_sentence(found: Mapping[str, ResultRow]) -> str:
    """Say whether related features fire more where the estimate is high; `found` are rows by group."""
    change = firing_change(found)
    if change is None:
        return "High: the texts in the top quarter of the headline estimate."
    does, says = change
    return (
        f"On texts in the top quarter of the headline estimate, features labelled related fire {does}: {says} "
        "percentage points. Chance: as many random features that fire as often."
    )
