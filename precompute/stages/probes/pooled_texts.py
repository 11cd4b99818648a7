"""Inputs of the texts of pairs, pooled over the tokens of each, shard by shard: each a pure function of its texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp

from lfp.probes.pooling import pool
from lfp.util.types import Flags, Floats
from precompute.run.executor import Report, Shelf, Task, map_in_order, split_rows
from precompute.run.inputs import load_pair, read_places
from precompute.run.work_folder import Run
from precompute.stages.probes.inputs import Inputs, Kept, build_inputs, build_reseeded, watch_inputs

if TYPE_CHECKING:
    from lfp.ml.models.loading import LanguageModel
    from lfp.ml.models.tokenization import TokenizedText


@dataclass(frozen=True)
class PooledTexts:
    """Inputs by kind [texts, columns], pooled over each text's tokens.

    `reward` [texts] sums the implicit reward over the response, and `length` [texts] is its number of tokens.
    """

    features: dict[str, sp.csr_array]
    reward: Floats
    length: Floats


@dataclass(frozen=True)
class PoolShard:
    """Whole texts, and which tokens of each are its response."""

    texts: Sequence[TokenizedText]
    responses: Sequence[Flags]


@dataclass(frozen=True)
class PoolWorker:
    """Both models (tuned, base) and the kinds of inputs that are pooled."""

    run: Run
    models: tuple[LanguageModel, LanguageModel]
    inputs: Sequence[Inputs]

    def __call__(self, shard: PoolShard, report: Report) -> PooledTexts:
        """Run both models over a shard's texts."""
        from lfp.ml.models.activations import stream_pair

        config = self.run.config
        parts: dict[str, list[sp.csr_array]] = {kind.key: [] for kind in self.inputs}
        rewards, lengths = [], []
        for tokens in stream_pair(
            *self.models,
            shard.texts,
            places=read_places(self.run),
            batch_texts=config.stats.batch_texts,
            prepend_bos=config.model.prepend_bos,
            changes=watch_inputs(self.models, self.inputs),
        ):
            rows = tokens.tuned.rows.numpy()
            first, last = int(rows[0]), int(rows[-1])
            is_response, text_of = np.concatenate(shard.responses[first : last + 1]), rows - first
            for kind in self.inputs:
                features = kind.encode(kind.read(tokens), tokens.tuned.ids.numpy())
                parts[kind.key].append(pool(features, text_of, how=config.probes.pooling, response=is_response))
            reward = tokens.implicit_reward.nan_to_num().double().numpy()
            rewards.append(np.bincount(text_of, reward * is_response))
            lengths.append(np.bincount(text_of, is_response))
            report(last + 1 - first)
        features_by_kind = {name: _stack(of_kind) for name, of_kind in parts.items()}
        return PooledTexts(features_by_kind, np.concatenate(rewards), np.concatenate(lengths))


@dataclass(frozen=True)
class LoadPool:
    """Loads in another process both models and the kinds of inputs with these keys."""

    run: Run
    keys: tuple[str, ...]

    def __call__(self) -> PoolWorker:
        """Load models and dictionaries."""
        base, tuned = load_pair(self.run)
        known = [
            *build_inputs(self.run, Kept.load(self.run)),
            *(kind for pair in build_reseeded(self.run) for kind in pair),
        ]
        of_key = {kind.key: kind for kind in known}
        return PoolWorker(self.run, (tuned, base), [of_key[key] for key in self.keys])


def pool_texts(
    worker: PoolWorker, texts: Sequence[TokenizedText], responses: Sequence[Flags], shelf: Shelf
) -> PooledTexts:
    """Pool the inputs of all texts, with `worker` or by the workers of a cluster. `shelf` keeps what these did.

    The response is the whole text where there is no prompt, or where the context has no token of the response.
    """
    run = worker.run
    counted = [response if response.any() else np.ones(len(response), bool) for response in responses]
    spans = split_rows(len(texts), size=run.config.cluster.shard_texts, batch=run.config.stats.batch_texts)
    shards = [PoolShard(texts[span.start : span.stop], counted[span.start : span.stop]) for span in spans]
    load = LoadPool(run.for_worker(), tuple(kind.key for kind in worker.inputs))
    task = Task("probes: texts of pairs", [len(span) for span in spans], load, shelf, run.progress)
    found = map_in_order(run.executor, worker, shards, task)
    return PooledTexts(
        {name: _stack([part.features[name] for part in found]) for name in found[0].features},
        np.concatenate([part.reward for part in found]),
        np.concatenate([part.length for part in found]),
    )


def _stack(parts: Sequence[sp.csr_array]) -> sp.csr_array:
    return sp.csr_array(sp.vstack(parts, format="csr"))
