"""Write a whole synthetic bundle: every table in order, and its manifest."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lfp.bundle.manifest import Description, ModelInfo
from lfp.bundle.schema import as_table
from lfp.bundle.writer import BundleWriter
from lfp.config import RunConfig
from lfp.testing.synthetic.corpus import Made, Random, cut, make, reviews
from lfp.testing.synthetic.features import (
    decoder_columns,
    drift_columns,
    example_parts,
    example_places,
    feature_columns,
    histogram_columns,
    layer_rows,
    neighbour_columns,
    probe_rows,
    sae_rows,
    thinned,
    weight_columns,
)
from lfp.testing.synthetic.results import (
    LABELLER,
    drift_rows,
    finding_rows,
    label_columns,
    measured_rows,
    preference_rows,
)
from lfp.testing.synthetic.texts import (
    ablation_rows,
    activation_columns,
    completion_rows,
    text_columns,
    token_score_columns,
    triple_rows,
    vocabulary_columns,
    word_feature_columns,
)


def make_bundle(
    path: Path,
    *,
    n_features: int = 64,
    n_texts: int = 40,
    n_layers: int = 3,
    seed: int = 0,
    title: str = "Synthetic reviews, praised",
    pooling: str = "mean",
    n_pairs: int = 0,
    extra_texts: Sequence[str] = (),
    n_examples: int | None = None,
) -> Path:
    """Write a valid synthetic bundle to `path` and return the path.

    The same arguments give the same tables. `pooling` is that of the probes; `extra_texts` come first, unchanged; the
    first `n_pairs` pairs of texts are preference pairs, in which the text with more feedback was chosen. `n_examples`
    of the examples in the texts are kept, evenly over the features; all of them by default. A million features and 20
    million examples take minutes and 5 GB of memory.
    """
    random = np.random.default_rng(seed)
    corpus = cut([*extra_texts, *reviews(n_texts, random)])
    made = make(corpus, n_features=n_features, n_layers=n_layers, pooling=pooling, random=random, n_pairs=n_pairs)
    with BundleWriter(path, _description(title=title, seed=seed, made=made)) as writer:
        for table, parts in _tables(made, random, n_examples):
            writer.write_parts(table, (as_table(table, rows) for rows in parts))
    return path


def _tables(made: Made, random: Random, n_examples: int | None) -> Iterator[tuple[str, Iterator[Any]]]:
    """Yield each table's name and its columns (or rows, where few) in parts, generated on demand."""
    layers, saes, features = layer_rows(made, random), sae_rows(made, random), feature_columns(made, random)
    yield "layers", iter([layers])
    yield "saes", iter([saes])
    yield "features", iter([features])
    yield "decoders", iter([decoder_columns(made, random)])
    yield "histograms", iter([histogram_columns(made, random)])
    places = thinned(example_places(made, random), n_examples)
    yield "examples", example_parts(made, places)
    yield "texts", iter([text_columns(made, random)])
    yield "token_scores", iter([token_score_columns(made, random)])
    yield "activations", iter([activation_columns(made)])
    yield "triples", iter([triple_rows(made, random)])
    yield "vocabulary", iter([vocabulary_columns(made, random)])
    yield "word_features", iter([word_feature_columns(made)])
    yield "probes", iter([probe_rows(made)])
    yield "weights", iter([weight_columns(made, random)])
    drift = drift_columns(made, features)
    yield "drift", iter([drift])
    pairs = preference_rows() if made.n_pairs else []
    yield "results", iter([[*measured_rows(layers, saes), *pairs, *finding_rows(made), *drift_rows(drift)]])
    yield "neighbours", iter([neighbour_columns(made, random)])
    yield "labels", iter([label_columns(made, random, places, features["max_activation"])])
    yield "ablations", iter([ablation_rows(made, random)])
    yield "completions", iter([completion_rows(made, random)])


def _description(*, title: str, seed: int, made: Made) -> Description:
    config = RunConfig.model_validate({
        "title": title, "seed": seed, "licence": "CC0-1.0", "notes": "Made up from a seed; no model was run.",
        "layers": {"count": made.n_layers}, "corpus": {"source": "synthetic"},
    })  # fmt: skip

    def model(role: str) -> ModelInfo:
        digest = hashlib.sha256(f"{role} {seed} {len(made.layer)} {len(made.corpus.texts)}".encode()).hexdigest()
        return ModelInfo(name=f"synthetic-{role}", revision=None, parameters=1_200_000, sha256=digest)

    return Description(
        title=title,
        config=config.model_dump(mode="json"),
        seed=seed,
        models={"base": model("base"), "tuned": model("tuned")},
        hook_points=[f"blocks.{layer}.mlp.hook_out" for layer in range(made.n_layers)],
        labeller=LABELLER,
        versions={"lfp": "0.1.0"},
        licence=config.licence,
        notes=config.notes,
    )
