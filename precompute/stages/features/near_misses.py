"""What near misses of a run's features are expected by: their first top tokens, and the features active beside them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lfp.util.types import Ints
from precompute.run.work_folder import Run

if TYPE_CHECKING:
    from lfp.ml.features.near_misses import NearMisses
    from lfp.ml.models.loading import LanguageModel

_TOP_TOKENS, _LEAST_SHARE, _NEIGHBOURS = 5, 0.02, 3
_BROKEN = "\ufffd"  # how parts of a character are spelled, the same for many tokens


def prepare_near_misses(run: Run, tuned: LanguageModel) -> Callable[[], NearMisses]:
    """Return what begins a search for near misses of the run's features, which all expect the same.

    It expects nothing where the config wants none.
    """
    from lfp.ml.features.near_misses import Lists, NearMisses

    stats, features = run.config.stats, run.table("features", "features").select(["feature_id", "top_tokens"])
    n_features, wanted = len(features), slice(None if stats.near_misses else 0)
    spelled = [tuned.tokenizer.decode([token]) for token in range(len(tuned.tokenizer))]
    owners, ids = top_token_ids(features["top_tokens"], spelled)
    neighbours = run.table("features", "neighbours")
    is_near = pc.and_(pc.equal(neighbours["kind"], "coactivation"), pc.less(neighbours["rank"], _NEIGHBOURS))
    near = neighbours.filter(is_near)
    return partial(
        NearMisses,
        Lists.from_pairs(ids[wanted], owners[wanted], tuned.d_vocab),
        Lists.from_pairs(near["neighbour_id"].to_numpy()[wanted], near["feature_id"].to_numpy()[wanted], n_features),
        stats.near_misses,
        stats.window,
    )


def top_token_ids(top_tokens: pa.ChunkedArray, spelled: Sequence[str]) -> tuple[Ints, Ints]:
    """Return features and the ids of their first top tokens, as two arrays; `spelled` is the string of every id.

    Where several ids have the same string, all of them are returned.
    """
    from lfp.ml.features.grouping import rank_within
    from lfp.ml.features.near_misses import Lists

    lists = top_tokens.combine_chunks()
    of, flat = pc.list_parent_indices(lists).to_numpy(), pc.list_flatten(lists)
    tokens, shares = flat.field("token"), flat.field("value").to_numpy()
    whole = ~pc.match_substring(tokens, _BROKEN).to_numpy(zero_copy_only=False)
    kept = np.flatnonzero((rank_within(of) < _TOP_TOKENS) & (shares >= _LEAST_SHARE) & whole)
    names = pa.array(spelled, pa.string()).dictionary_encode()
    by_name = Lists.from_pairs(names.indices.to_numpy(), np.arange(len(spelled)), len(names.dictionary))
    found = pc.index_in(tokens.take(kept), names.dictionary).to_numpy()
    rows, ids = (np.concatenate(parts) for parts in zip(*by_name.pairs(found), strict=True))
    return of[kept][rows].astype(np.int64), ids
