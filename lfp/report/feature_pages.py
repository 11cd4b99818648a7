"""One feature as a page of HTML, and lists of features that lead to their pages: without a script, nothing fetched."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from lfp.bundle.manifest import Manifest
from lfp.bundle.queries.feature import Feature, Histogram, Label, Neighbour
from lfp.bundle.queries.whole_features import WholeFeature
from lfp.report.figures.frame import BASE, STRENGTH
from lfp.report.formatting import NONE, count, number, percent, place_name, plain, signed, with_interval, with_power
from lfp.report.html import STYLE, draw_table, folded
from lfp.report.running_text import pieces, shaded
from lfp.report.tables import TextTable
from lfp.util.sanitize import escaped, shortened, token_text

ON_A_PAGE = 1000
"""Features on one page of a list."""
_SHOWN = {0: 20, -2: 5}
"""Examples shown of a bucket; of intervals of quantiles, `_OF_INTERVAL`."""
_OF_INTERVAL, _TOKENS, _NEIGHBOURS = 5, 8, 8
_NO_LABEL = "no label"
_KINDS = {"decoder_cosine": "Similar directions, by cosine", "coactivation": "Active in the same contexts, by share"}


class Listed(NamedTuple):
    """A feature in the list: its number, name, place, and figures as they are written."""

    feature_id: int
    name: str
    place: str
    density: str
    weight: str
    credit: str
    size: float
    """What the list is sorted by: the size of its credit, else of its mean contribution."""


def page_name(feature_id: int) -> str:
    """Name a feature's page, relative to the list."""
    return f"features/{feature_id}.html"


def list_name(page: int) -> str:
    """Name a page of the list, from 0."""
    return "index.html" if page == 0 else f"index-{page + 1}.html"


def list_feature(whole: WholeFeature) -> Listed:
    """Return what the list says of a feature."""
    feature, credit = whole.feature, whole.credit
    size = abs(credit.credit) if credit else feature.mean_abs_contribution or 0.0
    return Listed(
        feature.feature_id,
        shortened(feature.description or _NO_LABEL, 100),
        place_name(feature.layer, feature.site),
        percent(feature.density),
        signed(feature.weight, 3),
        with_power(credit.credit, credit.ci_low, credit.ci_high) if credit else NONE,
        size,
    )


def feature_page(
    whole: WholeFeature, manifest: Manifest, *, around: tuple[int | None, int | None], pages: Iterable[int]
) -> str:
    """Return a feature's page; `around` are the features before and after it, and `pages` those that have a page."""
    feature, known = whole.feature, frozenset(pages)
    steps = [("Previous", around[0]), ("Next", around[1])]
    links = "".join(f' · <a href="{number_}.html">{name}</a>' for name, number_ in steps if number_ is not None)
    top = feature.description or _NO_LABEL
    where = f"Feature {feature.feature_id}, {place_name(feature.layer, feature.site)}, index {feature.index}"
    body = (
        f'<nav class="quiet"><a href="../index.html">All features</a>{links}</nav>\n'
        f'<p class="quiet">{escaped(where)}</p>\n<h1 dir="auto">{escaped(top)}</h1>\n'
        f"{draw_table(_facts(whole))}"
        f"<h2>Where it fires</h2>\n{_examples(whole)}"
        f"<h2>Tokens</h2>\n{draw_table(_tokens(whole))}"
        f"{_histogram(whole.histogram)}"
        f"<h2>Labels</h2>\n{_labels(whole.labels)}"
        f"<h2>Neighbours</h2>\n{_neighbours(whole.neighbours, known)}"
    )
    return _page(f"Feature {feature.feature_id} - {manifest.title}", body, manifest)


def list_pages(features: Sequence[Listed], manifest: Manifest) -> list[str]:
    """Return the pages of the list, features of the largest credit (else contribution) first."""
    order = sorted(features, key=lambda listed: (-listed.size, listed.feature_id))
    n_pages = max(1, math.ceil(len(order) / ON_A_PAGE))
    pages = []
    for page in range(n_pages):
        links = " · ".join(
            f"<b>{at + 1}</b>" if at == page else f'<a href="{list_name(at)}">{at + 1}</a>' for at in range(n_pages)
        )
        rows = "".join(map(_list_row, order[page * ON_A_PAGE : (page + 1) * ON_A_PAGE]))
        heads = "".join(f"<th>{head}</th>" for head in ("feature", "name", "place", "density", "weight", "credit"))
        steps = f'<nav class="quiet">Pages: {links}</nav>\n' if n_pages > 1 else ""
        body = (
            f"<h1>{escaped(manifest.title)}</h1>\n<p>{count(len(order))} features, those of the largest credit first, "
            "or of the largest contribution where credits were not measured. Credit: what tuning’s change of a feature "
            "carries of the implicit reward, in nats per token. Weight: in the probe behind the estimates.</p>\n"
            f'{steps}<div class="wide"><table class="list">\n<thead><tr>{heads}</tr></thead>\n'
            f"<tbody>\n{rows}</tbody></table></div>\n{steps}"
        )
        pages.append(_page(manifest.title, body, manifest))
    return pages


def _list_row(listed: Listed) -> str:
    link = f'<a href="{page_name(listed.feature_id)}">{listed.feature_id}</a>'
    cells = "".join(f"<td>{escaped(cell)}</td>" for cell in listed[2:6])
    return f'<tr><td>{link}</td><td class="title" dir="auto">{escaped(listed.name)}</td>{cells}</tr>\n'


def _page(title: str, body: str, manifest: Manifest) -> str:
    """Return a whole page. Its policy lets no script run and nothing be fetched, whatever the bundle's texts hold."""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; "
        "base-uri 'none'; form-action 'none'\">\n"
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escaped(title)}</title>\n<style>{STYLE}{_STYLE}</style>\n</head>\n<body>\n<main>\n{body}"
        f'<footer class="quiet"><p>Bundle {escaped(manifest.bundle_id)}, made {escaped(manifest.created_at)}; licence '
        f"of the texts: {escaped(manifest.licence)}.</p></footer>\n</main>\n</body>\n</html>\n"
    )


def _facts(whole: WholeFeature) -> TextTable:
    """Return the feature's figures, those measured."""
    feature, credit = whole.feature, whole.credit
    rows = [
        ("active on, tuned model", f"{percent(feature.density)} of tokens"),
        ("active on, base model", f"{percent(feature.base_density)} of tokens"),
        ("largest activation", plain(feature.max_activation)),
        (
            "mean where active, tuned and base",
            f"{plain(feature.mean_activation)}, {plain(feature.base_mean_activation)}",
        ),
    ]
    if feature.weight is not None:
        weight = with_interval(feature.weight, feature.ci_low, feature.ci_high, is_signed=True)
        rows.append(("weight in the probe", f"{weight}{_chance(feature)}"))
        rows.append(("contribution", f"{signed(feature.mean_contribution, 5)} per token, rank {count(feature.rank)}"))
    if credit is not None:
        carried = with_power(credit.credit, credit.ci_low, credit.ci_high)
        rows.append(("credit", f"{carried} nats per token, rank {count(credit.rank)}"))
        if credit.twin_q is not None:
            says = "beyond" if credit.beyond_twins else "not beyond"
            rows.append(("against twins", f"{says} what twins have (false discovery rate {plain(credit.twin_q, 3)})"))
    return TextTable(("", ""), tuple(rows), (False, False))


def _chance(feature: Feature) -> str:
    if feature.beats_null is None:
        return ""
    return f", {'beyond' if feature.beats_null else 'not distinguishable from'} chance"


def _examples(whole: WholeFeature) -> str:
    """Return the examples by bucket: the strongest open, the others folded."""
    buckets: dict[int, list[Mapping[str, Any]]] = {}
    for row in whole.examples:
        buckets.setdefault(row["bucket"], []).append(row)
    highest, html = max(buckets, default=0), ""
    for bucket in sorted(buckets, key=lambda bucket: (bucket < 0, bucket != 0, -bucket)):
        shown = buckets[bucket][: _SHOWN.get(bucket, _OF_INTERVAL)]
        items = "".join(_example(row, whole.feature) for row in shown)
        name = {0: "Strongest, one per context", -2: "Near misses: silent, although a like feature or token is there"}
        title = name.get(bucket, f"Interval {bucket} of {highest} of its activations")
        html += folded(title, f'<ol class="examples">{items}</ol>', is_open=bucket == 0)
    return html or '<p class="quiet">It was active on no token of the corpus.</p>\n'


def _example(row: Mapping[str, Any], feature: Feature) -> str:
    first, values = row["window_start"], row["window_values"]
    parts = pieces(row["text"], row["token_starts"])
    window = shaded(
        parts[first : first + len(values)], values, limit=feature.max_activation, peak=row["position"] - first,
        weight=feature.weight,
    )  # fmt: skip
    cut = ("…" if first else "") + window + ("…" if first + len(values) < len(parts) else "")
    return (
        f'<li><span class="quiet">{plain(row["activation"])}, text {row["text_id"]}</span><p dir="auto">{cut}</p></li>'
    )


def _tokens(whole: WholeFeature) -> TextTable:
    """Return the tokens it fires on, raises and lowers, and, by credit, promotes and demotes, side by side."""
    feature, credit = whole.feature, whole.credit
    columns = {"fires on": feature.top_tokens, "raises": feature.pos_logits, "lowers": feature.neg_logits}
    if credit is not None:
        columns |= {"promotes (credit)": credit.promotes, "demotes (credit)": credit.demotes}
    show = {"fires on": percent}
    cells = [
        [f"{token_text(str(item['token']))}  {show.get(name, signed)(item['value'])}" for item in items[:_TOKENS]]
        for name, items in columns.items()
    ]
    n = max(map(len, cells))
    rows = tuple(tuple(column[at] if at < len(column) else "" for column in cells) for at in range(n))
    return TextTable(tuple(columns), rows, (False,) * len(columns))


def _labels(labels: Sequence[Label]) -> str:
    """Return what each labeller says, the label that names the feature first."""
    rows = tuple(
        (
            label.labeller,
            label.description or f"failed: {label.failure}",
            {True: "yes", False: "no", None: NONE}[label.related],
            NONE
            if label.score_detection is None
            else with_interval(label.score_detection, label.score_ci_low, label.score_ci_high),
            label.reason or "",
        )
        for label in labels
    )
    heads = ("labeller", "label", "related", "detection", "why")
    return draw_table(TextTable(heads, rows, (False, False, False, True, False))) if rows else "<p>None.</p>\n"


def _neighbours(found: Sequence[Neighbour], known: frozenset[int]) -> str:
    """Return the nearest features of each kind; those that were exported too are links."""
    html = ""
    for kind, title in _KINDS.items():
        items = ""
        for near in [each for each in found if each.kind == kind][:_NEIGHBOURS]:
            called = f"#{near.neighbour_id}"
            if near.neighbour_id in known:
                called = f'<a href="{near.neighbour_id}.html">{called}</a>'
            name = escaped(shortened(near.description or _NO_LABEL, 100))
            items += f'<li>{called} <span dir="auto">{name}</span> <b>{plain(near.value)}</b></li>'
        html += f"<h3>{escaped(title)}</h3>\n<ul>{items}</ul>\n" if items else ""
    return html or '<p class="quiet">None is stored.</p>\n'


def _histogram(found: Histogram | None) -> str:
    """Draw how many tokens activate it how strongly, the tuned model filled and the base model as a line."""
    if found is None or not sum(found.counts) + sum(found.base_counts):
        return ""
    filled = [at for at, pair in enumerate(zip(found.counts, found.base_counts, strict=True)) if any(pair)]
    first, last = filled[0], filled[-1] + 1
    counts, base = found.counts[first:last], found.base_counts[first:last]
    highest, width, height = max(*counts, *base, 1), 480, 120
    step = width / len(counts)

    def bars(values: Sequence[int], look: str) -> str:
        return "".join(
            f'<rect x="{at * step:.1f}" y="{height * (1 - value / highest):.1f}" width="{step:.1f}" '
            f'height="{height * value / highest:.1f}" {look}/>'
            for at, value in enumerate(values)
            if value
        )

    drawn = bars(counts, f'fill="{STRENGTH}" fill-opacity="0.6"') + bars(base, f'fill="none" stroke="{BASE}"')
    says = (
        f"Tokens by activation, {number(found.edges[first])} to {number(found.edges[last])} on a logarithmic scale; "
        f"the highest bar is {count(highest)} tokens. Filled: tuned model; outlined: base model."
    )
    return (
        f'<h2>How strongly</h2>\n<svg viewBox="0 -2 {width} {height + 4}" role="img" aria-label="{escaped(says)}">'
        f'{drawn}</svg>\n<p class="quiet">{escaped(says)}</p>\n'
    )


_STYLE = """
a { color: inherit }
h1 { overflow-wrap: anywhere }
h3 { font-size: 1rem; margin: 16px 0 4px }
nav { margin: 0 0 16px }
td { white-space: normal; vertical-align: top }
td.name { overflow-wrap: anywhere }
table.list td { white-space: nowrap }
table.list td.title { white-space: normal; min-width: 16em; overflow-wrap: anywhere }
svg { max-width: 100%; width: 480px; display: block }
ol.examples { list-style: none; padding: 0 }
ol.examples li { border-bottom: 1px solid var(--line); padding: 6px 0 }
.lfp-t { background: color-mix(in srgb, #1a9c8e calc(var(--a, 0) * .54%), transparent); border-radius: .2rem }
.lfp-peak { box-shadow: inset 0 -2px 0 #1a9c8e; font-weight: 600 }
.lfp-far, .lfp-space { color: var(--quiet) }
"""
