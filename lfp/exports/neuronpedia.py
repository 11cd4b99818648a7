"""A bundle's features, examples and labels as the files that Neuronpedia imports, a folder per model and source.

The layout and the columns are those of `importJsonlString` and of the import route of
github.com/hijohnnylin/neuronpedia (apps/webapp/lib/db/import.ts and app/api/admin/import/route.ts), whose tables are
in apps/webapp/prisma/schema.prisma; read at commit ebb8426 of August 2026. Lines of a file must have the same keys, and
a column that a line lacks takes the table's default.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import Any

import numpy as np

from lfp.bundle.manifest import Manifest
from lfp.bundle.queries.feature import Label
from lfp.bundle.queries.whole_features import WholeFeature, whole_features
from lfp.bundle.store.connection import Store
from lfp.errors import ConfigError
from lfp.exports.cards import name_model
from lfp.exports.files import File, json_file
from lfp.report.formatting import plain
from lfp.report.running_text import pieces
from lfp.report.sentences.dictionaries import what_it_reads
from lfp.util.sanitize import source_name
from lfp.util.types import Ints, Place, Progress, Site, floats

CREATOR = "LFP Explorer"
SET_NAMES: Mapping[Site, str] = {"mlp_out": "mlp-out", "resid_post": "resid-post", "attn_out": "attn-out"}
"""Each site as names of source sets have it."""
_BATCH = 1024
"""Features of a file, as in Neuronpedia's own exports."""
_DIGITS = 6
_COSINE, _TOP = "decoder_cosine", 0
_NO_BIN = -1.0
"""Bounds of the bin of a feature's strongest examples, as SAEDashboard writes them."""


def source_id(place: Place, trained_on: str) -> str:
    """Name a dictionary as a source of Neuronpedia, which reads the layer off its beginning: 19-lfp-change-mlp-out."""
    return f"{place.layer}-{_set_name(place.site, trained_on)}"


def neuronpedia_files(
    store: Store, feature_ids: Sequence[int], *, model_id: str, creator_id: str, progress: Progress
) -> Iterator[File]:
    """Yield the files of every dictionary that has one of these features: `model_id`/source/...

    Raises ConfigError where no feature is left.
    """
    if not feature_ids:
        raise ConfigError(f"{store.path}: has no features to export; make a run with dictionaries")
    dictionaries = {Place(row["layer"], row["site"]): row for row in store.rows(_DICTIONARIES)}
    table = store.query('SELECT layer, site, "index" FROM features ORDER BY feature_id')
    indices = floats(table, "index").astype(np.int64)
    places = list(map(Place, table["layer"].to_pylist(), table["site"].to_pylist()))
    by_place: dict[Place, list[int]] = {}
    for number in feature_ids:
        by_place.setdefault(places[number], []).append(number)
    done = 0
    for place, numbers in sorted(by_place.items()):
        trained_on = (dictionaries.get(place) or {}).get("trained_on") or "tuned"
        source = source_id(place, trained_on)
        folder, keys = f"{model_id}/{source}", {"modelId": model_id, "layer": source}
        described = _metadata(store, place, trained_on, model_id=model_id, creator_id=creator_id)
        yield from (json_file(f"{folder}/{name}.jsonl", [row]) for name, row in described.items())
        set_name = _set_name(place.site, trained_on)
        ids = _Ids(f"{store.manifest.key} {source}")
        for batch, start in enumerate(range(0, len(numbers), _BATCH)):
            features, activations, explanations = [], [], []
            for whole in whole_features(store, numbers[start : start + _BATCH]):
                owned = {**keys, "index": str(whole.feature.index), "creatorId": creator_id}
                features.append({**owned, "sourceSetName": set_name, **_neuron(whole, indices)})
                activations += [{**owned, **row, "id": ids.next()} for row in _activations(whole)]
                explanations += [
                    {**keys, "index": owned["index"], "id": ids.next(), "authorId": creator_id, **_explanation(label)}
                    for label in whole.labels
                    if label.status == "ok" and label.description
                ]
            rows = {"features": features, "activations": activations, "explanations": explanations}
            for kind, lines in rows.items():
                if lines:
                    yield json_file(f"{folder}/{kind}/batch-{batch}.jsonl.gz", lines)
            done += len(features)
            progress("neuronpedia: features", done, len(feature_ids), 0.0)


class _Ids:
    """Ids of rows in the form of a cuid; the same export makes the same ones, so that a second import adds nothing."""

    def __init__(self, seed: str) -> None:
        self._seed, self._n = seed, 0

    def next(self) -> str:
        """Return the next id."""
        self._n += 1
        return "c" + hashlib.sha256(f"{self._seed} {self._n}".encode()).hexdigest()[:24]


def _metadata(
    store: Store, place: Place, trained_on: str, *, model_id: str, creator_id: str
) -> dict[str, dict[str, Any]]:
    """Return the one row of each file that describes release, model, source set and source."""
    manifest = store.manifest
    set_name = _set_name(place.site, trained_on)
    reads = what_it_reads(trained_on, place.site, place.layer)
    size = store.rows("SELECT count(*) AS n_layers FROM layers")[0]
    width = store.rows("SELECT max(d_in) AS d_in FROM layers WHERE selected")[0]["d_in"]
    dated = {"createdAt": manifest.created_at}
    owned = {"creatorId": creator_id, "visibility": "PUBLIC", **dated}
    return {
        "release": {
            "name": model_id, "description": manifest.title, "descriptionShort": manifest.title,
            "creatorName": CREATOR, "creatorNameShort": CREATOR, "urls": [], **owned,
        },
        "model": {
            "id": model_id, "displayName": manifest.title, "displayNameShort": model_id, "owner": CREATOR,
            "instruct": bool(manifest.config.get("model", {}).get("chat_template")), "layers": size["n_layers"],
            "neuronsPerLayer": 0, "dimension": width, "inferenceEnabled": False, "updatedAt": manifest.created_at,
            **owned,
        },
        "sourceset": {
            "modelId": model_id, "name": set_name, "description": what_it_reads(trained_on, place.site),
            "type": place.site, "creatorName": CREATOR, "releaseName": model_id, "urls": [], "hasDashboards": True,
            "allowInferenceSearch": False, **owned,
        },
        "source": {
            "id": source_id(place, trained_on), "modelId": model_id, "setName": set_name, "hasDashboards": True,
            "inferenceEnabled": False, "dataset": _corpus(manifest), "num_prompts": store.rows(_N_TEXTS)[0]["n"],
            "num_tokens_in_prompt": manifest.config.get("model", {}).get("context"),
            "notes": f"{reads} {_models(manifest)} Licence: {manifest.licence}. {manifest.notes}".strip(), **owned,
        },
    }  # fmt: skip


def _neuron(whole: WholeFeature, indices: Ints) -> dict[str, Any]:
    """Return what a row of `Neuron` says of a feature; correlations and logit histograms are not in a bundle."""
    feature, counts = whole.feature, whole.histogram
    near = [each for each in whole.neighbours if each.kind == _COSINE]
    edges = counts.edges if counts and sum(counts.counts) else []
    return {
        "maxActApprox": _short(feature.max_activation),
        "frac_nonzero": _short(feature.density),
        "freq_hist_data_bar_values": [_short((low * high) ** 0.5) for low, high in itertools.pairwise(edges)],
        "freq_hist_data_bar_heights": list(counts.counts) if counts and edges else [],
        "pos_str": [item["token"] for item in feature.pos_logits],
        "pos_values": [_short(item["value"]) for item in feature.pos_logits],
        "neg_str": [item["token"] for item in feature.neg_logits],
        "neg_values": [_short(item["value"]) for item in feature.neg_logits],
        "topkCosSimIndices": [int(indices[each.neighbour_id]) for each in near],
        "topkCosSimValues": [_short(each.value) for each in near],
    }


def _activations(whole: WholeFeature) -> Iterator[dict[str, Any]]:
    """Yield rows of `Activation` for the examples that fire: the strongest first, then each interval of quantiles.

    The bin of an interval is what its examples span, and contains its share of the active tokens.
    """
    firing = [row for row in whole.examples if row["bucket"] >= _TOP]
    highest = max((row["bucket"] for row in firing), default=_TOP)
    spans: dict[int, list[float]] = {}
    for row in firing:
        spans.setdefault(row["bucket"], []).append(row["activation"])
    for row in firing:
        bucket, first = row["bucket"], row["window_start"]
        values = [_short(value) for value in row["window_values"]]
        top = max(values)
        yield {
            "tokens": pieces(row["text"], row["token_starts"])[first : first + len(values)],
            "values": values,
            "maxValue": top,
            "maxValueTokenIndex": values.index(top),
            "minValue": min(values),
            "binMin": _NO_BIN if bucket == _TOP else _short(min(spans[bucket])),
            "binMax": _short(max(spans[bucket])),
            "binContains": _NO_BIN if bucket == _TOP else _short(1 / highest),
            "qualifyingTokenIndex": row["position"] - first,
            "dataIndex": str(row["text_id"]),
            "dataSource": source_name(row["source"]),
        }


def _explanation(label: Label) -> dict[str, Any]:
    """Return what a row of `Explanation` says; kinds of explainers are foreign keys there, so the notes name them."""
    scored = "not scored"
    if label.score_detection is not None:
        scored = f"detection {plain(label.score_detection)}"
        if label.score_ci_low is not None and label.score_ci_high is not None:
            scored += f" [{plain(label.score_ci_low)}, {plain(label.score_ci_high)}]"
        scored += f" on {label.score_n} held-out examples"
    return {"description": label.description, "notes": f"by {label.labeller}; {scored}"}


def _set_name(site: str, trained_on: str) -> str:
    """Name a source set; it says where dictionaries read, and what other than the tuned model's activations."""
    kind = "" if trained_on == "tuned" else f"{trained_on.replace('_', '-')}-"
    return f"lfp-{kind}{SET_NAMES.get(site, site)}"  # type: ignore[call-overload]


def _models(manifest: Manifest) -> str:
    """Name the pair."""
    return " ".join(f"The {role} model: {name_model(model)}." for role, model in sorted(manifest.models.items()))


def _corpus(manifest: Manifest) -> str:
    """Name the texts, without folders of the machine that read them."""
    name = str(manifest.config.get("corpus", {}).get("source", ""))
    return name if "://" in name else PurePath(source_name(name)).name


def _short(value: float) -> float:
    """Round to as many digits as a stored float32 nearly has, so that files stay small."""
    return float(f"{value:.{_DIGITS}g}")


_DICTIONARIES = "SELECT layer, site, trained_on FROM saes WHERE is_used"
_N_TEXTS = "SELECT count(*) AS n FROM texts"
