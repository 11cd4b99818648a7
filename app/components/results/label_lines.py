"""Labels in the report: rows as lines of a chart, and the sentences under them."""

from __future__ import annotations

from collections.abc import Sequence

from app.components.charts.intervals import Line, line, told
from app.components.html.numbers import count, plain
from lfp.evaluation.results import ResultRow

SIDES = {
    "related_high": "related features, texts of high estimate",
    "related_rest": "related features, the rest",
    "all_high": "all features, texts of high estimate",
    "all_rest": "all features, the rest",
    "related_high_less_rest": "related features, high less rest",
    "all_high_less_rest": "all features, high less rest",
}
"""Groups of the report row activation_frequency."""
MEMBERS = {
    "weighted": "weighed most",
    "drifted": "drifted most",
    "stable": "stable between dictionaries",
    "random": "drawn at random",
}
"""Groups of features whose labels are scored apart."""


def labellers(rows: Sequence[ResultRow]) -> list[str]:
    """The labellers that a row of the report judges."""
    return list(dict.fromkeys(keys["labeller"] for row in rows if "labeller" in (keys := keys_of(row))))


def keys_of(row: ResultRow) -> dict[str, str]:
    """The keys within a figure's group, such as labeller and features: `labeller=a,features=all`.

    A labeller's name may itself hold a comma; the key after it is the last.
    """
    group = row.group or ""
    head, _, last = group.rpartition(",")
    if not head.startswith("labeller=") or not last:
        return {}
    name, is_pair, value = last.partition("=")
    return {"labeller": head.removeprefix("labeller="), **({name: value} if is_pair else {"group": last})}


def scores(rows: Sequence[ResultRow], labeller: str, metric: str) -> list[Line]:
    """A labeller's mean scores by group of features, beside what another feature's description scores."""
    mine = [row for row in rows if row.metric == metric and keys_of(row).get("labeller") == labeller]
    mine.sort(key=lambda row: keys_of(row).get("features") != "all")
    return [line(f"{_members(row)} ({count(row.n)} features)", row) for row in mine]


def _members(row: ResultRow) -> str:
    name = keys_of(row).get("features", "")
    return MEMBERS.get(name, name)


def frequencies(rows: Sequence[ResultRow], metric: str, labeller: str) -> dict[str, ResultRow]:
    """How often features fire, by group; a labeller's own where the report has them, else the run's labeller's."""
    own = {
        keys_of(row)["group"]: row for row in rows if row.metric == metric and keys_of(row).get("labeller") == labeller
    }
    plain_ones = {row.group: row for row in rows if row.metric == metric and row.group in SIDES}
    return own or {str(group): row for group, row in plain_ones.items()}


def frequency_lines(found: dict[str, ResultRow]) -> list[Line]:
    """Related and all features, on texts of high estimate and on the rest."""
    return [line(SIDES[group], found[group]) for group in list(SIDES)[:4] if group in found]


def frequency_sentence(found: dict[str, ResultRow]) -> str:
    """What related features do where the estimate is high."""
    change = found.get("related_high_less_rest")
    if change is None or change.ci_low is None or change.ci_high is None:
        return "High are the texts in the top quarter of the headline estimate."
    does = (
        "fire more often" if change.ci_low > 0 else "fire less often" if change.ci_high < 0 else "fire about as often"
    )
    says = told(100 * change.value, 100 * change.ci_low, 100 * change.ci_high, is_signed=True)
    return (
        f"On texts in the top quarter of the headline estimate related features {does}: {says} percentage points. "
        "The null is as many features drawn at random."
    )


def agreement(rows: Sequence[ResultRow], labeller: str, against: str) -> dict[str, ResultRow]:
    """A labeller's agreement with one reference, by metric."""
    return {row.metric: row for row in rows if keys_of(row) == {"labeller": labeller, "against": against}}


def agreement_sentence(found: dict[str, ResultRow]) -> str:
    """Whether related features are the weighty ones."""
    odds = found.get("odds_ratio")
    if odds is None:
        return ""
    span = told(odds.value, odds.ci_low, odds.ci_high)
    if odds.null_high is not None and odds.value > odds.null_high:
        return f"Related features are weighty more often than the rest: odds ratio {span}, beyond labels dealt anew."
    reach = f", within what labels dealt anew reach ({plain(odds.null_high)})" if odds.null_high is not None else ""
    return f"Calling a feature related does not tell that the probe weighs it: odds ratio {span}{reach}."


def rank_sentence(rows: Sequence[ResultRow], labeller: str) -> str:
    """How a labeller's confidence and the weights rank together."""
    mine = (row for row in rows if keys_of(row).get("labeller") == labeller)
    figure = next((row for row in mine if row.metric == "rank_correlation"), None)
    if figure is None:
        return ""
    span = told(figure.value, figure.ci_low, figure.ci_high, is_signed=True)
    reach = f"; labels dealt anew reach ±{plain(figure.null_high)}" if figure.null_high is not None else ""
    return f"Rank correlation of belief and size of weight {span}{reach}."
