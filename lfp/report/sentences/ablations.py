"""What results say of ablations: groups and single features against matched controls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lfp.evaluation.results import ResultRow, passes
from lfp.evaluation.statistics.discoveries import RATE
from lfp.report.figures import lines
from lfp.report.formatting import count, estimate, pick, plain, signed, with_interval
from lfp.report.sentences.common import Rows


def effects_sentence(rows: Sequence[lines.Ablation]) -> str:
    """Say which ablated groups change the reward more than their matched controls."""
    groups = lines.ablated_groups(rows)
    judged = [row for row in groups if row["contrast_p"] is not None]
    if not judged:
        return "No group can be judged: its layers have too few other features for matched controls."
    runs, clean = groups[0].get("clean_runs") or 1, groups[0].get("reward_clean")
    before = f"Mean reward before: {plain(groups[0]['reward_before'] if clean is None else clean)}"
    before += f", over {runs} runs." if runs > 1 else "."
    passed = [row for row in judged if passes(row)]
    if not passed:
        return f"No group changes the reward more than its matched controls do. {before}"
    changes = [
        f"{lines.group_name(row)}, "
        f"{with_interval(row['contrast'], row['contrast_low'], row['contrast_high'], is_signed=True)}, where 95 % of "
        f"controls stay within ±{plain(row['contrast_reach'])}"
        for row in passed
    ]
    others = " The other groups do not." if len(passed) < len(judged) else ""
    return (
        f"Removing these changes the reward beyond the mean of their matched controls: {'; '.join(changes)}.{others} "
        f"{before}"
    )


def singles_sentence(rows: Rows) -> str:
    """Say how predicted and measured effects of single features correlate; empty where the report does not."""
    rank = pick(rows, metric="predicted_measured")
    if rank is None:
        return ""
    reach = f"; chance {signed(rank.null_high)}" if rank.null_high is not None else ""
    verb = "correlate" if rank.beats_null else "do not correlate"
    return (
        f"Predicted and measured effects of single features {verb} (Spearman {estimate(rank, is_signed=True)}{reach})."
    )


def inert_sentence(n_inert: int, n: int, halves: Sequence[float], n_completions: int | None) -> str:
    """Say how many of `n` features that were ablated alone show no effect, and how small an effect could be seen.

    `halves` are half the widths of their intervals.
    """
    half = sum(halves) / len(halves)
    return (
        f"{n_inert} of the {n} features with the largest weights show no effect when removed alone: compared with the "
        f"mean of controls, the interval includes 0 and other controls differ as much. With {count(n_completions)} "
        "completions, effects smaller than "
        f"about {plain(half)} are undetectable."
    )


def ablation_sentence(rows: Rows) -> str:
    """Say what taking each group of features out did, against its controls (section `ablation`)."""
    of_group: dict[str, dict[str, ResultRow]] = {}
    for row in rows:
        of_group.setdefault(str(row.group), {})[row.metric] = row
    groups = {name: found for name, found in of_group.items() if "features" in found}
    scaled = any(found["scale"].value for found in groups.values() if "scale" in found)
    parts = [
        f"Mean reward of completions with features {'scaled' if scaled else 'removed'}, with the same prefixes and "
        "seeds, against the mean of matched random features of the same layers."
    ]
    parts += [_group_sentence(name, found) for name, found in groups.items()]
    parts.append(singles_sentence(rows))
    inert = pick(rows, metric="inert_count")
    singles = [found for name, found in of_group.items() if name.startswith("feature:") and "effect" in found]
    alone = [found.get("contrast", found["effect"]) for found in singles]
    halves = [(row.ci_high - row.ci_low) / 2 for row in alone if row.ci_low is not None and row.ci_high is not None]
    if inert and halves:
        parts.append(inert_sentence(int(inert.value), inert.n or len(alone), halves, alone[0].n))
    return " ".join(part for part in parts if part)


_LOOSE = 1.5  # times the energy of the controls
_CLEARLY = 1.5  # times what 95 % of controls stay within


def _group_sentence(name: str, found: Mapping[str, ResultRow]) -> str:
    """Say whether a group beats its controls, at what cost in perplexity, and how well the controls match."""
    contrast = found.get("contrast")
    if contrast is None or contrast.null_high is None or contrast.null_p is None:
        return f"Group {name}: not judged, its layers have too few other features for matched controls."
    differs = f"{estimate(contrast, is_signed=True)} beyond the mean of its controls"
    says = (
        f"Group {name}: {differs}, {_size_of_contrast(contrast)} (95 % of controls stay within "
        f"±{plain(contrast.null_high)}; p {plain(contrast.null_p, 4)})"
    )
    if "perplexity_ratio" in found:
        says += f"; perplexity {plain(found['perplexity_ratio'].value)} times the controls’"
    if "energy_ratio" in found:
        energy = found["energy_ratio"].value
        loose = "" if 1 / _LOOSE < energy < _LOOSE else ", a loose match"
        says += f"; activation energy {plain(energy)} times the controls’{loose}"
    return f"{says}."


def _size_of_contrast(contrast: ResultRow) -> str:
    """Say how a contrast compares with how far controls differ among themselves; it has a reach and a p."""
    reach = contrast.null_high or 0.0
    if (contrast.null_p or 0.0) > RATE:
        return "no more than controls differ"
    return "more than controls differ" if abs(contrast.value) < _CLEARLY * reach else "far more than controls differ"
