"""Tables of features, made from the statistics of the pass over the corpus."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lfp.bundle.schema import as_table
from lfp.probes.linear_algebra import principal_components
from lfp.util.types import Floats

if TYPE_CHECKING:
    from lfp.ml.features.differences import Direction
    from lfp.ml.features.examples import Examples
    from lfp.ml.features.statistics import FeatureStats
    from lfp.ml.models.loading import LanguageModel
    from lfp.ml.sae.autoencoders import Dictionary

_TOP_TOKENS = 10
_SILENT, _NEAR_MISS = -1, -2
_EXAMPLES_BY = [("feature_id", "ascending"), ("bucket", "ascending"), ("rank", "ascending")]


def features(
    stats: FeatureStats,
    dictionary: Dictionary,
    tuned: LanguageModel,
    stability: NDArray[np.float64],
    of_pair: Mapping[str, Floats],
) -> pa.Table:
    """Build the table `features`; `stability` [features] is NaN where there is no other dictionary to compare with.

    `of_pair` are further columns [features], which compare the models; NaN stands for null.
    """
    import torch

    from lfp.ml.features.display import logit_tokens, sampled_tokens

    decoders = torch.cat(dictionary.decoders).cpu()
    raised, lowered = logit_tokens(tuned, decoders, n=_TOP_TOKENS)
    places = principal_components(decoders.numpy().astype(np.float64))
    columns: dict[str, Any] = {
        "feature_id": np.arange(dictionary.n_features),
        "layer": np.array([place.layer for place in dictionary.places])[dictionary.place_of],
        "site": np.array([place.site for place in dictionary.places])[dictionary.place_of],
        "index": dictionary.index_of,
        "density": stats.tuned.density,
        "n_active": stats.tuned.n_active,
        "mean_activation": stats.tuned.mean_where_active,
        "max_activation": stats.tuned.max,
        "base_density": stats.base.density,
        "base_mean_activation": stats.base.mean_where_active,
        "shift": (stats.tuned.sum - stats.base.sum) / stats.tuned.n_tokens,
        "stability": pa.array(stability, mask=np.isnan(stability)),
        "decoder_norm": decoders.norm(dim=1).numpy(),
        "top_tokens": sampled_tokens(stats.sample.examples(), dictionary.n_features, tuned.tokenizer, n=_TOP_TOKENS),
        "pos_logits": raised,
        "neg_logits": lowered,
        "x": places[:, 0],
        "y": places[:, 1],
        **{name: pa.array(values, mask=np.isnan(values)) for name, values in of_pair.items()},
    }
    return as_table("features", columns)


def differences(directions: Sequence[Direction], tuned: LanguageModel, n_tokens: int) -> pa.Table:
    """Build the table `differences`; each direction is read through the unembedding at its own size."""
    import torch

    from lfp.ml.features.display import logit_tokens

    sized = [row.vector if row.rank == 0 else row.vector * row.size for row in directions]
    raised, lowered = logit_tokens(tuned, torch.stack(sized), n=_TOP_TOKENS)
    columns = {
        "layer": [row.place.layer for row in directions],
        "site": [row.place.site for row in directions],
        "rank": [row.rank for row in directions],
        "share": [row.share for row in directions],
        "size": [row.size for row in directions],
        "n_tokens": [n_tokens] * len(directions),
        "pos_logits": raised,
        "neg_logits": lowered,
        "vector": [row.vector.numpy() for row in directions],
    }
    return as_table("differences", columns)


def decoders(dictionary: Dictionary) -> pa.Table:
    """Build the table `decoders`."""
    vectors = [row for rows in dictionary.decoders for row in rows.half().cpu().numpy()]
    return as_table("decoders", {"feature_id": np.arange(dictionary.n_features), "vector": vectors})


def histograms(stats: FeatureStats) -> pa.Table:
    """Build the table `histograms`."""
    n_features = len(stats.tuned.counts)
    columns = {
        "feature_id": np.arange(n_features),
        "edges": [stats.tuned.edges.astype(np.float32)] * n_features,
        "counts": list(stats.tuned.counts),
        "base_counts": list(stats.base.counts),
    }
    return as_table("histograms", columns)


def examples(stats: FeatureStats) -> pa.Table:
    """Build the table `examples`: largest activations, draws from each interval of the random sample, silent tokens."""
    from lfp.ml.features.display import quantile_buckets, ranks

    config = stats.config
    top, sample, silent = stats.top.examples(), stats.sample.examples(), stats.silent.examples()
    intervals, rows = quantile_buckets(
        sample, intervals=config.quantile_intervals, per_interval=config.examples_per_interval
    )
    parts = [
        (np.full(len(silent.features), _SILENT), silent),
        (np.zeros(len(top.features), np.int64), top),
        (intervals, sample.take(rows)),
    ]
    tables = [_example_rows(buckets, ranks(part, buckets), part) for buckets, part in parts]
    return pa.concat_tables(tables).sort_by(_EXAMPLES_BY)


def with_near_misses(examples: pa.Table, near: Examples) -> pa.Table:
    """Add near misses, sorted by feature, to the table `examples`."""
    from lfp.ml.features.grouping import rank_within

    buckets = np.full(len(near.features), _NEAR_MISS)
    rows = _example_rows(buckets, rank_within(near.features), near)
    return pa.concat_tables([examples, rows]).sort_by(_EXAMPLES_BY)


def neighbours(stats: FeatureStats, dictionary: Dictionary) -> pa.Table:
    """Build the table `neighbours`, of both kinds."""
    from lfp.ml.features.neighbours import decoder_neighbours

    kinds = {
        "coactivation": stats.sketches.neighbours(stats.config.neighbours),
        "decoder_cosine": decoder_neighbours(dictionary.decoders, stats.config.neighbours),
    }
    parts = []
    for kind, pairs in kinds.items():
        columns = {
            "feature_id": pairs.features,
            "kind": pa.repeat(kind, len(pairs.features)),
            "rank": pairs.ranks,
            "neighbour_id": pairs.others,
            "value": pairs.values,
        }
        parts.append(as_table("neighbours", columns))
    return pa.concat_tables(parts).sort_by([(key, "ascending") for key in ("feature_id", "kind", "rank")])


def _example_rows(buckets: NDArray[np.int64], ranked: NDArray[np.int64], shown: Examples) -> pa.Table:
    starts, values = shown.windows.lists()
    columns = {
        "feature_id": shown.features,
        "bucket": buckets,
        "rank": ranked,
        "text_id": shown.text_ids,
        "position": shown.positions,
        "activation": shown.activations,
        "window_start": shown.positions + shown.windows.low,
        "window_values": pa.ListArray.from_arrays(pa.array(starts, pa.int32()), pa.array(values)),
    }
    return as_table("examples", columns)
