"""Two runs beside each other: facts, what was set otherwise, figures, matched features."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from app.components.feature.drift import LONGEST
from lfp.bundle.comparison import KEYS, FigurePair, MatchedFeatures
from lfp.bundle.manifest import Manifest
from lfp.report.formatting import count, interval, percent, place_name, plain
from lfp.util.sanitize import shortened
from lfp.util.types import SITE_NAMES

MATCH_SORTS = ("similarity", "difference", "weight")
ONLY_ONE = (
    "Add a second bundle to compare: set LFP_BUNDLES to both folders, separated by a comma, or to a folder that holds "
    "both, and start again."
)
ONLY_ONE_PUBLIC = "This explorer offers only one bundle, so there is nothing to compare."


def facts(this: Manifest, other: Manifest) -> tuple[list[str], list[list[str]], list[int]]:
    """Return heads, rows and which rows differ: what either run is."""
    here, there = _facts(this), _facts(other)
    rows = [[name, value, there[name]] for name, value in here.items()]
    return ["", "this run", "the other"], rows, [at for at, row in enumerate(rows) if row[1] != row[2]]


def _facts(manifest: Manifest) -> dict[str, str]:
    models = {role: f"{model.name} · {model.sha256[:12]}" for role, model in manifest.models.items()}
    return {
        "title": shortened(manifest.title, 120),
        "bundle": manifest.bundle_id,
        "made": manifest.created_at[:10],
        "base model": models.get("base", "–"),
        "tuned model": models.get("tuned", "–"),
        "seed": str(manifest.seed),
        "features": count(manifest.tables["features"].rows),
        "texts": count(manifest.tables["texts"].rows),
        "labeller": manifest.labeller,
    }


def settings(differences: Sequence[tuple[str, Any, Any]]) -> tuple[list[str], list[list[str]]]:
    """Return heads and rows: keys of the config that differ, with both values."""
    rows = []
    for name, *values in differences:
        texts = [value if isinstance(value, str) else json.dumps(value, ensure_ascii=False) for value in values]
        cells = zip(values, texts, strict=True)
        rows.append([name, *("–" if value is None else shortened(text, 160) for value, text in cells)])
    return ["key", "this run", "the other"], rows


def figure_name(pair: FigurePair) -> str:
    """Return a figure's keys as its name, without its report row."""
    parts = [pair.one.metric]
    for name in KEYS:
        value = getattr(pair.one, name)
        if name == "layer" and value is not None:
            parts.append(place_name(value, pair.one.site))
        elif name not in ("report_row", "metric", "site") and value not in (None, ""):
            parts.append(str(value))
    return " · ".join(part.replace("_", " ") for part in parts)


def figures(pairs: Sequence[FigurePair]) -> pa.Table:
    """Return a row per figure: its value and interval in either run, and the difference with its interval."""
    return pa.table({
        "figure": [shortened(figure_name(pair), 120) for pair in pairs],
        "one": [pair.one.value for pair in pairs],
        "one_interval": [interval(pair.one.ci_low, pair.one.ci_high) for pair in pairs],
        "other": [pair.other.value for pair in pairs],
        "other_interval": [interval(pair.other.ci_low, pair.other.ci_high) for pair in pairs],
        "difference": [pair.difference for pair in pairs],
        "difference_interval": [interval(*(pair.interval or (None, None))) for pair in pairs],
        "differs": [_differs(pair) for pair in pairs],
        "one_chance": pa.array([pair.one.null_high for pair in pairs], pa.float64()),
        "other_chance": pa.array([pair.other.null_high for pair in pairs], pa.float64()),
    })  # fmt: skip


def _differs(pair: FigurePair) -> str:
    """Return a mark where zero is outside the difference's interval."""
    found = pair.interval
    if found is None:
        return "–"
    return "✓" if not found[0] <= 0 <= found[1] else ""


def few_differ(pairs: Sequence[FigurePair]) -> str:
    """Say how many figures differ, against how many would by chance."""
    known = [pair for pair in pairs if pair.interval is not None]
    if not known:
        return f"{count(len(pairs))} metrics in both; none has an interval in both."
    n = sum(_differs(pair) == "✓" for pair in known)
    return (
        f"{count(len(pairs))} metrics in both. {count(n)} of the {count(len(known))} with intervals differ; about "
        f"{_by_chance(known)} would by chance."
    )


def differences_title(n_facts: int, n_keys: int) -> str:
    """Say in how many facts and keys of their configs two runs differ."""
    if not n_keys:
        return f"The runs have the same config and differ in {n_facts} other fact{'s' if n_facts != 1 else ''}"
    return f"The configs of the runs differ in {count(n_keys)} key{'s' if n_keys != 1 else ''}"


def metrics_title(pairs: Sequence[FigurePair]) -> str:
    """Say how many figures of both reports differ, against how many would by chance."""
    known = [pair for pair in pairs if pair.interval is not None]
    if not known:
        return f"{count(len(pairs))} metrics in both runs, none with an interval in both"
    n = sum(_differs(pair) == "✓" for pair in known)
    return f"{count(n)} of {count(len(known))} metrics differ; about {_by_chance(known)} would by chance"


def matches_title(found: MatchedFeatures) -> str:
    """Say how many features of this run have a match in the other beyond chance."""
    pairs, here = found.pairs.num_rows, found.looked_at[0]
    if not here:
        return "No feature of this run can be compared"
    share = f" ({percent(pairs / here)})" if pairs else ""
    return f"{count(pairs)} of {count(here)} features{share} have a match in the other run beyond chance"


def _by_chance(known: Sequence[FigurePair]) -> str:
    """Return how many of so many metrics would differ by chance."""
    return count(max(1, round(0.05 * len(known))))


def matched_sentence(found: MatchedFeatures) -> str:
    """What was matched with what, how many found their like, and what chance reaches."""
    pairs, (here, there), (all_here, all_there) = found.pairs.num_rows, found.looked_at, found.held
    how = {
        "decoder cosine": "Both runs read the same tuned model, so features are matched by decoder direction.",
        "what they fire on": "The runs read different models, so features are matched by the tokens they fire on.",
    }[found.by]
    cut = ""
    if (here, there) != (all_here, all_there):
        cut = f" Only the {count(here)} and {count(there)} that contribute most were compared."
    share = f" ({percent(pairs / here)} of this run’s)" if here else ""
    return (
        f"{how}{cut} {count(pairs)} pairs{share}; {count(here - pairs)} here and {count(there - pairs)} there have no "
        f"match above {plain(found.chance)} (95 % of chance matches are below this)."
    )


def sorted_pairs(pairs: pa.Table, *, by: str, descending: bool) -> pa.Table:
    """Return matched features in one of MATCH_SORTS' orders; differences and weights by size."""
    column = {"difference": "difference", "weight": "weight_one"}.get(by, "similarity")
    values = [(abs(value) if value is not None else -1.0) for value in pairs[column].to_pylist()]
    order = sorted(range(len(values)), key=lambda at: -values[at] if descending else values[at])
    return pairs.take(pa.array(order, pa.int64()))


def match_table(pairs: pa.Table) -> pa.Table:
    """Return matched features for the screen: each run's columns, weights with their intervals."""
    rows = pairs.to_pylist()
    made: dict[str, Any] = {"similarity": [row["similarity"] for row in rows]}
    for side in ("one", "other"):
        made[f"feature_id_{side}"] = pairs[f"feature_id_{side}"]
        made[f"layer_{side}"] = pairs[f"layer_{side}"]
        if any(row[f"site_{side}"] != "mlp_out" for row in rows):
            made[f"site_{side}"] = [SITE_NAMES.get(row[f"site_{side}"], row[f"site_{side}"]) for row in rows]
        made[f"description_{side}"] = [shortened(row[f"description_{side}"] or "", LONGEST) for row in rows]
        made[f"weight_{side}"] = pairs[f"weight_{side}"]
        made[f"interval_{side}"] = [interval(row[f"ci_low_{side}"], row[f"ci_high_{side}"]) for row in rows]
    return pa.table(made | {"difference": pairs["difference"]})


def match_names(pairs: pa.Table) -> dict[str, tuple[str, int]]:
    """Return names to choose a matched feature by: which run's, one or other, and its number."""
    names = {}
    for row in pairs.to_pylist():
        for side, where in (("one", "here"), ("other", "there")):
            described = shortened(row[f"description_{side}"] or "no label", 60)
            names[f"#{row[f'feature_id_{side}']} {where} · {described}"] = (side, row[f"feature_id_{side}"])
    return names
