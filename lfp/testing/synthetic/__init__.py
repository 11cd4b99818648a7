"""Synthetic bundles of any size from a seed, for tests and benchmarks: every table is filled and consistent."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lfp.bundle.forecasts import hash_forecast
from lfp.bundle.manifest import Description, ModelInfo
from lfp.bundle.schema import as_table
from lfp.bundle.writer import BundleWriter
from lfp.config import RunConfig
from lfp.testing.synthetic import credits, examples, feature_credits, features, results, texts
from lfp.testing.synthetic.corpus import LEXICON, Made, Random, cut, make, reviews
from lfp.testing.synthetic.results import LABELLER, MODEL_LABELLER
from lfp.util.types import Place, Site

__all__ = ["LABELLER", "LEXICON", "MODEL_LABELLER", "make_bundle"]

_HOOKS: dict[Site, str] = {
    "mlp_out": "mlp.hook_out",
    "resid_post": "hook_resid_post",
    "attn_out": "hook_attn_out",
}


def make_bundle(
    path: Path,
    *,
    n_features: int = 64,
    n_texts: int = 40,
    n_layers: int = 3,
    sites: Sequence[Site] = ("mlp_out",),
    seed: int = 0,
    title: str = "Synthetic reviews, praised",
    pooling: str = "mean",
    n_pairs: int = 0,
    extra_texts: Sequence[str] = (),
    n_examples: int | None = None,
) -> Path:
    """Write a valid synthetic bundle to `path` and return the path.

    The same arguments give the same tables. The features are of `n_layers` layers, at each of the `sites`. `pooling`
    is that of the probes; `extra_texts` come first, unchanged; the first `n_pairs` pairs of texts are preference pairs,
    in which the text with more feedback was chosen. `n_examples` of the examples in the texts are kept, evenly over the
    features; all of them by default. A million features and 20 million examples take minutes and 5 GB of memory.
    """
    random = np.random.default_rng(seed)
    corpus = cut([*extra_texts, *reviews(n_texts, random)])
    places = sorted(Place(layer, site) for layer in range(n_layers) for site in sites)
    made = make(corpus, n_features=n_features, places=places, pooling=pooling, random=random, n_pairs=n_pairs)
    config = RunConfig.model_validate({
        "title": title, "seed": seed, "licence": "CC0-1.0", "notes": "Made up from a seed; no model was run.",
        "layers": {"count": n_layers, "sites": list(sites)}, "corpus": {"source": "synthetic"},
    })  # fmt: skip
    models = {}
    for role in ("base", "tuned"):
        digest = hashlib.sha256(f"{role} {seed} {n_features} {len(corpus.texts)}".encode()).hexdigest()
        models[role] = ModelInfo(name=f"synthetic-{role}", revision=None, parameters=1_200_000, sha256=digest)
    description = Description(
        title=title,
        config=config.model_dump(mode="json"),
        seed=seed,
        models=models,
        hook_points=[f"blocks.{place.layer}.{_HOOKS[place.site]}" for place in places],
        labeller=LABELLER,
        versions={"lfp": "0.1.0"},
        licence=config.licence,
        notes=config.notes,
        forecast_sha256=hash_forecast(as_table("forecast", results.forecast_columns())) if n_pairs else None,
    )
    with BundleWriter(path, description) as writer:
        for table, parts in _tables(made, random, n_examples, has_pairs=n_pairs > 0):
            writer.write_parts(table, (as_table(table, rows) for rows in parts))
    return path


def _tables(
    made: Made, random: Random, n_examples: int | None, *, has_pairs: bool
) -> Iterator[tuple[str, Iterable[Any]]]:
    """Yield each table's name and its columns (or rows, where few) in parts, generated on demand."""
    layers, saes = features.layer_rows(made, random), features.sae_rows(made, random)
    columns = features.feature_columns(made, random)
    yield "layers", [layers]
    yield "saes", [saes]
    yield "features", [columns]
    yield "decoders", [features.decoder_columns(made, random)]
    yield "histograms", [features.histogram_columns(made, random)]
    places = examples.thinned(examples.example_places(made, random), n_examples)
    yield "examples", examples.example_parts(made, places)
    of_texts = texts.text_columns(made, random)
    yield "texts", [of_texts]
    yield "module_credits", [credits.module_credit_columns(made, of_texts)]
    yield "word_credits", [credits.word_credit_columns(made)]
    yield "token_scores", [texts.token_score_columns(made, random)]
    yield "activations", [texts.activation_columns(made)]
    yield "triples", [texts.triple_rows(made, random)]
    yield "vocabulary", [texts.vocabulary_columns(made, random)]
    yield "word_features", [texts.word_feature_columns(made)]
    yield "probes", [features.probe_rows(made)]
    yield "weights", [features.weight_columns(made, random)]
    drift = features.drift_columns(made, columns)
    yield "drift", [drift]
    rows = results.result_rows(made, layers, saes, drift)
    yield "results", [[*rows, *(results.forecast_rows() if has_pairs else ())]]
    if has_pairs:
        yield "forecast", [results.forecast_columns()]
    yield "neighbours", [features.neighbour_columns(made, random)]
    yield "labels", [results.label_columns(made, random, places, columns["max_activation"])]
    yield "ablations", [texts.ablation_rows(made, random)]
    yield "completions", [texts.completion_rows(made, random)]
    yield "tuning", [results.tuning_rows()]
    yield "trajectory", [credits.trajectory_table_rows(made)]
    yield "twins", [texts.twin_columns(made, random)]
    entries = feature_credits.credit_entries(made, random)
    yield "feature_credits", [feature_credits.feature_credit_columns(made, entries)]
    yield "credit_sums", [feature_credits.credit_sum_columns(made, entries)]
    of_features = feature_credits.credit_columns(made, entries, random)
    yield "credits", [of_features]
    yield "feature_trajectory", [credits.feature_trajectory_rows(made, np.asarray(of_features["credit"], float))]
    yield "interventions", [feature_credits.intervention_rows(made, of_features, random)]
    yield "differences", [results.difference_rows(made)]
