"""What a feature carries of the implicit reward as HTML: numbers, next tokens, examples, and its intervention."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from app.components.html import panels
from lfp.bundle.queries.excerpts import CreditExample
from lfp.bundle.queries.feature import FeatureCredit, Intervention
from lfp.report.formatting import count, plain, with_interval, with_power
from lfp.util.sanitize import escaped

Where = Callable[[int], str]
"""Returns the address of a text's page."""


def facts(found: FeatureCredit | None, *, n_features: int) -> str:
    """Write what tuning's change of the feature carries of the implicit reward; its rank is out of `n_features`."""
    if found is None:
        return panels.note("This run did not split the implicit reward over features.")
    unexplained = with_power(found.unexplained_credit, is_signed=False)
    pairs = {
        "nats per token": with_power(found.credit, found.ci_low, found.ci_high),
        "rank": f"{count(found.rank)} of {count(n_features)}",
        "absolute, per token": with_power(found.abs_credit, is_signed=False),
        "beyond stated feedback": f"{unexplained}, rank {count(found.unexplained_rank)}",
    }
    return panels.facts(pairs) + panels.note(_beside_twins(found))


def _beside_twins(found: FeatureCredit) -> str:
    """Say whether the feature's credit is one that twins, tuned by other seeds, have too."""
    if found.twin_difference is None or found.twin_error is None or found.twin_q is None:
        return "Not compared with twins: another seed of the same tuning may have given it the same credit."
    which = "Beyond its twins" if found.beyond_twins else "Not beyond its twins"
    away, chance = with_power(found.twin_difference), with_power(found.twin_error, is_signed=False)
    return (
        f"{which}: its credit is {away} nats per token away from their mean, of which another twin is {chance} away by "
        f"chance (false discovery rate {plain(found.twin_q, 2)})."
    )


def tokens(found: FeatureCredit) -> tuple[str, str]:
    """Write the next tokens that the feature promotes, and those that it demotes."""
    lists = (found.promotes, 1, "Promotes no token."), (found.demotes, -1, "Demotes no token.")
    promoted, demoted = (panels.token_bars(items[:8], sign=sign) if items else panels.note(none)
                         for items, sign, none in lists)  # fmt: skip
    return promoted, demoted


def examples(examples: Sequence[CreditExample], *, where: Where) -> str:
    """Write the tokens at which the feature carries most of a text's implicit reward."""
    return panels.moved_list(
        [
            panels.Moved(
                example.credit,
                with_power(example.credit),
                f"{escaped(example.before)}<b>{escaped(example.token)}</b>{escaped(example.after)}",
                panels.anchor(where(example.text_id), f"text {example.text_id}"),
            )
            for example in examples
        ]
    )


def intervention(found: Intervention | None) -> str:
    """Write what taking the feature out of what tuning changed does, beside what its credit predicts and controls."""
    if found is None:
        return panels.note("Not taken out of what tuning changed in this run.")
    effect = with_power(found.effect, found.ci_low, found.ci_high)
    controls = None if found.control is None else f"± {with_power(found.control, is_signed=False)}"
    pairs = {
        "implicit reward changes by": f"{effect} nats per token",
        "its credit predicts": with_power(found.by_credit),
        "matched controls, mean size": controls,
    }
    low, high = found.reward_ci_low, found.reward_ci_high
    if found.reward_effect is not None and low is not None and high is not None:
        pairs["mean reward changes by"] = with_interval(found.reward_effect, low, high, is_signed=True)
    low, high = found.reward_contrast_low, found.reward_contrast_high
    if found.reward_contrast is not None and low is not None and high is not None:
        pairs["beyond matched controls"] = with_interval(found.reward_contrast, low, high, is_signed=True)
    kind, says = verdict(found)
    return (
        f'<div class="lfp-receipts"><section><h4>Taken out of what tuning changed</h4>{panels.facts(pairs)}'
        f'<p class="verdict {kind}">{escaped(says)}</p></section></div>'
    )


def verdict(found: Intervention) -> tuple[str, str]:
    """Judge an intervention: good, weak or none, and one sentence."""
    if found.ci_low <= 0.0 <= found.ci_high:
        return "none", "No effect detected: the interval includes 0."
    if found.control is not None and abs(found.effect) <= found.control:
        return "weak", "The interval excludes 0, but matched controls change it as much on average."
    agrees = found.by_credit * found.effect > 0
    verb = "lowers" if found.effect < 0 else "raises"
    end = "as its credit predicts" if agrees else "opposite to what its credit predicts"
    return "good" if agrees else "weak", f"Removing it {verb} the implicit reward, {end}."
