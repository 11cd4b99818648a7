"""The features that carry most of the implicit reward or of an estimate: name, size, next tokens, an example."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from app.components.html import panels
from lfp.bundle.queries.credits import Leaders, LeadingFeature
from lfp.evaluation.results import ResultRow
from lfp.report.credits import features_share_sentence, is_carried, read_share
from lfp.report.formatting import count, percent, plain, share, with_power
from lfp.util.sanitize import escaped, token_text

Where = Callable[[int], str]
"""Returns the address of a feature's page."""
TextWhere = Callable[[int, int], str]
"""Returns the address of a text on which a feature is shown."""
_TOKENS = 3


def title(leaders: Leaders, shares: Sequence[ResultRow] = (), modules: Sequence[ResultRow] = ()) -> str:
    """Say how much of the implicit reward features can show (`modules`), and what share the leading have.

    `shares` say whether features carry any of their modules' credit.
    """
    n = len(leaders.features)
    who = f"{n} feature{'' if n == 1 else 's'}"
    if not n:
        return "Features that carry most"
    if leaders.by_credit:
        read = read_share(modules)
        can_show = "" if read is None else f"Features can show {percent(read.value)} of the implicit reward; "
        none = "" if is_carried(shares) else "; all features together carry none of their modules’ beyond zero"
        return f"{can_show}{who} carry {percent(leaders.share)} of all features’ credit{none}"
    return f"{who} make {percent(leaders.share)} of a probe’s estimate, by size"


def sentence(leaders: Leaders, shares: Sequence[ResultRow] = (), modules: Sequence[ResultRow] = ()) -> str:
    """Say what the sizes are, how much all features carry, and what the tokens and the example show."""
    if not leaders.features:
        return "This bundle has neither credits nor a probe, so no feature stands out."
    n = count(leaders.n_features)
    if leaders.by_credit:
        read = read_share(modules)
        says = "" if read is None else f"Their dictionaries read modules of {share(read)} of all credit by size. "
        return (
            f"{says}{features_share_sentence(shares)}Credit: what tuning’s change of a feature carries of the implicit "
            f"reward, with its 95 % interval over texts; the share of the first {len(leaders.features)} is of "
            f"the sizes of all {n} features’ credits. Tokens: next tokens that it promotes and "
            "demotes most, by credit. Example: the token of its largest credit."
        )
    return (
        "This run did not split the implicit reward over features. These contribute most to a linear probe’s estimate, "
        f"by the mean size of their contribution per token; shares are of all {n} features. Tokens: those whose logit "
        "its direct path raises and lowers most. Example: its strongest activation."
    )


def listed(leaders: Leaders, *, feature_href: Where, text_href: TextWhere) -> str:
    """Return the features as a list, largest first."""
    rows = "".join(_row(feature, leaders.by_credit, feature_href, text_href) for feature in leaders.features)
    return f'<ol class="lfp-leading">{rows}</ol>' if rows else ""


def _row(feature: LeadingFeature, by_credit: bool, feature_href: Where, text_href: TextWhere) -> str:
    name = panels.cut(feature.description or "no label", 160)
    up, down = ("promotes", "demotes") if by_credit else ("raises", "lowers")
    says = " · ".join(
        f"{verb} {_tokens(items)}" for verb, items in ((up, feature.promotes), (down, feature.demotes)) if items
    )
    number = feature.feature_id
    return (
        f'<li><div class="side">{_size(feature, by_credit)}</div>'
        f"<div><p>{panels.anchor(feature_href(number), f'#{number}')} {name}</p>"
        f"<small>{escaped(says)}</small></div>{_example(feature, text_href)}</li>"
    )


def _size(feature: LeadingFeature, by_credit: bool) -> str:
    if not by_credit:
        return f"<b>{plain(feature.value, 4)}</b><small>mean size of contribution per token</small>"
    carried = with_power(feature.value, feature.ci_low, feature.ci_high)
    return f'<b class="{panels.direction(feature.value)}">{carried}</b><small>nats per token</small>'


def _tokens(items: Sequence[Mapping[str, Any]]) -> str:
    tokens = (token_text(str(item["token"])) for item in items[:_TOKENS])
    return ", ".join(f"“{token.strip('␣') or token}”" for token in tokens)


def _example(feature: LeadingFeature, text_href: TextWhere) -> str:
    found = feature.example
    if found is None:
        return "<div></div>"
    link = panels.anchor(text_href(found.text_id, feature.feature_id), f"text {found.text_id}")
    return (
        f'<div><p dir="auto">{escaped(found.before)}<b>{escaped(found.token)}</b>{escaped(found.after)}</p>'
        f"<small>{link}</small></div>"
    )
