"""Explanations that Neuronpedia exports, as labels of a bundle's features.

A row names a dictionary by `layer`, such as 19-lfp-change-mlp-out or 12-gemmascope-res-16k (the layer's number, then a
name), and a feature of it by `index`. Source: `export_explanations` in utils/neuronpedia-utils/neuronpedia_utils/
export-data.py and lib/utils/source.ts of github.com/hijohnnylin/neuronpedia.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lfp.errors import DataError
from lfp.labels.types import Label
from lfp.texts.reading.rows import read_rows, written
from lfp.util.sanitize import shortened
from lfp.util.types import SITE_NAMES, Place, Site

_VERSION = "neuronpedia-1"
_COLUMNS = ("layer", "index", "description")
_OPTIONAL = ("explanationModelName", "typeName", "createdAt")
_SOURCE = re.compile(r"(\d+)(?:-(.*))?")
_SITES: Mapping[Site, re.Pattern[str]] = {
    "mlp_out": re.compile(r"(?:^|-)mlp(?:-|$)"),
    "resid_post": re.compile(r"(?:^|-)(?:res|resid)(?:-|$)"),
    "attn_out": re.compile(r"(?:^|-)(?:att|attn)(?:-|$)"),
}
"""How names of sources say the site."""


def read_explanations(files: Sequence[Path], features: Mapping[tuple[Place, int], int]) -> list[Label]:
    """Read files, or the files of folders, of explanations as one label per feature.

    `features` are the bundle's, by place and index. Of several explanations of a feature the newest is kept, the first
    of those without a date. Raises CorpusError for a file that cannot be read, and DataError, naming the first row, for
    a layer, site or index that the bundle lacks.
    """
    found: dict[int, tuple[str, Label]] = {}
    for file in _list_files(files):
        for number, row in enumerate(read_rows(file, columns=_COLUMNS, optional=_OPTIONAL)):
            where = f"{file}: row {number}"
            feature_id = _find_feature(row, features, where)
            text = _cell(row["description"]).strip()
            if not text:
                raise DataError(f"{where}, feature {feature_id}, has no description; drop the row")
            date = _cell(row.get("createdAt"))
            if feature_id in found and date <= found[feature_id][0]:
                continue
            reason = f"explained by {_cell(row.get('typeName'))}" if row.get("typeName") else None
            model = _cell(row.get("explanationModelName")) or None
            label = Label(feature_id, text, None, None, reason, (), _VERSION, model)
            found[feature_id] = (date, label)
    return [label for _, label in sorted(found.values(), key=lambda each: each[1].feature_id)]


def _list_files(paths: Iterable[Path]) -> list[Path]:
    """List files as they are, and those of a source's folder, or of its folder `explanations`, by name."""
    files: list[Path] = []
    for path in paths:
        inside = [path]
        if path.is_dir():
            inside = sorted([*path.glob("explanations/*.json*"), *path.glob("*/explanations/*.json*")])
            inside = inside or sorted(path.glob("*.json*"))
        if not inside:
            raise DataError(f"{path}: holds no file of explanations; name the files, or a folder of .jsonl.gz files")
        files += inside
    return files


def _find_feature(row: Mapping[str, Any], features: Mapping[tuple[Place, int], int], where: str) -> int:
    source, index = _cell(row["layer"]), _cell(row["index"])
    parsed = _SOURCE.fullmatch(source)
    if parsed is None:
        raise DataError(f"{where} is of {shortened(source)!r}, which begins with no layer's number; drop the row")
    if not index.isdecimal() or len(index) > 9:
        raise DataError(f"{where} has the index {shortened(index)!r}, which is no feature's number; drop the row")
    layer, name = int(parsed[1]), parsed[2] or ""
    here = sorted({place for place, _ in features if place.layer == layer})
    if not here:
        layers = ", ".join(map(str, sorted({place.layer for place, _ in features}))) or "no layer"
        raise DataError(
            f"{where} is of layer {layer} ({shortened(source)}), but the bundle's features are of {layers};"
            " import explanations of the same dictionary"
        )
    named = [site for site, pattern in _SITES.items() if pattern.search(name)]
    places = [place for place in here if not named or place.site in named]
    if len(places) != 1:
        sites = " and ".join(SITE_NAMES[place.site] for place in here)
        raise DataError(
            f"{where} is of {shortened(source)}, but layer {layer} of the bundle is read at its {sites}; import"
            " explanations of that site, with mlp, res or att in the source's name"
        )
    feature_id = features.get((places[0], int(index)))
    if feature_id is None:
        width = sum(place == places[0] for place, _ in features)
        raise DataError(
            f"{where} is of feature {index} of {shortened(source)}, but the bundle's dictionary there has {width}"
            " features; import explanations of the same dictionary"
        )
    return feature_id


def _cell(value: Any) -> str:
    return written(value) or ""
