"""Score texts token by token for browsing, and search them for near misses: each shard a pure function of its texts."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from lfp.probes.attribution import ActiveText, LinearProbe, raw_ledger, text_ledger, token_predictions
from lfp.probes.pooling import pool, pool_dense
from lfp.texts.corpus import CorpusText
from lfp.texts.lexicon import lexicon_of, token_feedback
from lfp.util.types import Flags, Floats, Ints
from precompute.run.executor import Report, Shelf, Task, map_in_order, split_rows
from precompute.run.inputs import load_dictionary, load_pair, mark_responses, tokenize_texts
from precompute.run.work_folder import Run
from precompute.stages.features.near_misses import prepare_near_misses

if TYPE_CHECKING:
    from lfp.ml.features.near_misses import NearMisses
    from lfp.ml.models.activations import PairTokens
    from lfp.ml.models.loading import LanguageModel
    from lfp.ml.models.tokenization import TokenizedText
    from lfp.ml.sae.autoencoders import Dictionary
    from lfp.ml.sae.quality import RawSplit


@dataclass(frozen=True)
class _RawProbe:
    """The probe of the headline's target on raw activations: `coef` [sum of d_in], and its split over the features."""

    coef: Floats
    intercept: float
    split: RawSplit


@dataclass(frozen=True)
class _Scorer:
    """What texts are scored with: dictionaries, lexicon, the headline probe, and the raw probe where there is one."""

    dictionary: Dictionary
    lexicon: Mapping[str, float]
    headline: LinearProbe
    raw: _RawProbe | None


@dataclass(frozen=True)
class _Batch:
    """The tokens of some whole texts: `text_of` [tokens] is their text in the batch, `responses` its tokens."""

    tokens: PairTokens
    features: sp.csr_array
    text_of: Ints
    responses: Sequence[Flags]


@dataclass(frozen=True)
class ScoredText:
    """A text's rows of three tables, and its features' means over its tokens [1, features].

    The row of `texts` lacks `feedback`, `pca_x` and `pca_y`, which are found for all texts at once; that of
    `activations` is None where they are not stored.
    """

    row: dict[str, Any]
    scores: dict[str, Any]
    activations: dict[str, Any] | None
    mean: sp.csr_array


@dataclass(frozen=True)
class TextShard:
    """Whole texts, the tokens of each that are its response, and ids of texts whose activations are stored."""

    texts: Sequence[CorpusText]
    tokenized: Sequence[TokenizedText]
    responses: Sequence[Flags]
    stored: frozenset[int]


@dataclass(frozen=True)
class TextWorker:
    """Both models (tuned, base), what texts are scored with, and what begins a search for near misses."""

    run: Run
    models: tuple[LanguageModel, LanguageModel]
    scorer: _Scorer
    begin_near_misses: Callable[[], NearMisses]

    @staticmethod
    def load(run: Run) -> TextWorker:
        """Load models, dictionaries and probes."""
        base, tuned = load_pair(run)
        return TextWorker(run, (tuned, base), _load_scorer(run), prepare_near_misses(run, tuned))

    def __call__(self, shard: TextShard, report: Report) -> tuple[list[ScoredText], NearMisses]:
        """Score a shard's texts in order, and offer all of their tokens to the search for near misses."""
        from lfp.ml.features.active import encode_active
        from lfp.ml.features.examples import Batch
        from lfp.ml.features.grouping import Places
        from lfp.ml.implicit_reward.changes import watch_changes
        from lfp.ml.models.activations import stream_pair
        from lfp.ml.sae.views import find_change_places, view_places

        dictionary, config = self.scorer.dictionary, self.run.config
        text_ids = np.array([text.text_id for text in shard.texts], np.int64)
        found, near = list[ScoredText](), self.begin_near_misses()
        for tokens in stream_pair(
            *self.models,
            shard.tokenized,
            places=dictionary.places,
            changes=watch_changes(*self.models, find_change_places(dictionary)),
            batch_texts=config.stats.batch_texts,
            prepend_bos=config.model.prepend_bos,
        ):
            rows = tokens.tuned.rows.numpy()
            first, last = int(rows[0]), int(rows[-1]) + 1
            entries = encode_active(dictionary, view_places(dictionary, tokens, "tuned"))
            positions, ids = tokens.tuned.positions.numpy(), tokens.tuned.ids.numpy()
            near.update(Batch(Places(text_ids[rows], positions, ids), entries))
            shape = (entries.n_tokens, entries.n_features)
            features = sp.csr_array((entries.values, entries.features, entries.offsets), shape=shape)
            batch, span = _Batch(tokens, features, rows - first, shard.responses[first:last]), slice(first, last)
            found += _score_batch(self.scorer, batch, shard.texts[span], shard.tokenized[span], shard.stored)
            report(last - first)
        return found, near


def score_texts(
    run: Run, texts: list[CorpusText], stored: frozenset[int], shelf: Shelf
) -> tuple[list[ScoredText], NearMisses]:
    """Score all texts, here or by the workers of a cluster, and search their tokens for near misses.

    Activations are of texts whose ids are `stored`; `shelf` keeps what workers did.
    """
    worker = TextWorker.load(run)
    tokenized = tokenize_texts(run, worker.models[0], texts)
    responses = mark_responses(texts, tokenized)
    spans = split_rows(len(texts), size=run.config.cluster.shard_texts, batch=run.config.stats.batch_texts)
    cuts = [slice(span.start, span.stop) for span in spans]
    shards = [TextShard(texts[cut], tokenized[cut], responses[cut], stored) for cut in cuts]
    load = partial(TextWorker.load, run.for_worker())
    task = Task("texts", [len(span) for span in spans], load, shelf, run.progress)
    found, near = list[ScoredText](), worker.begin_near_misses()
    for scored, searched in map_in_order(run.executor, worker, shards, task):
        found += scored
        near.merge(searched)
    return found, near


def _load_scorer(run: Run) -> _Scorer:
    """Load the dictionaries and the headline's probes, weights in single precision as a reader of the bundle has."""
    from lfp.ml.sae.quality import split_raw

    dictionary, file = load_dictionary(run, "tuned"), run.folder("probes") / "raw.npz"
    probe = next(row for row in run.table("probes", "probes").to_pylist() if row["is_headline"])
    weights = run.table("probes", "weights").sort_by("feature_id")
    of_probe = np.asarray(weights["probe_id"]) == probe["probe_id"]
    weight = np.asarray(weights["weight"])[of_probe].astype(float)
    raw = None
    if file.is_file():
        stored = np.load(file)
        raw = _RawProbe(stored["coef"], float(stored["intercept"]), split_raw(dictionary, stored["coef"]))
    lexicon = lexicon_of(run.config.feedback, beside=run.config_dir)
    return _Scorer(dictionary, lexicon, LinearProbe(weight, probe["intercept"], probe["pooling"]), raw)


def _score_batch(
    scorer: _Scorer,
    batch: _Batch,
    texts: Sequence[CorpusText],
    tokenized: Sequence[TokenizedText],
    stored: Container[int],
) -> Iterator[ScoredText]:
    """Score a batch's texts; activations are of those whose ids are `stored`."""
    means = sp.csr_array(pool(batch.features, batch.text_of, how="mean").astype(np.float32))
    raw_estimates = None if scorer.raw is None else _estimate_raw(scorer, scorer.raw, batch)
    bounds = np.searchsorted(batch.text_of, np.arange(len(texts) + 1))
    for i, (text, tokens) in enumerate(zip(texts, tokenized, strict=True)):
        span = slice(int(bounds[i]), int(bounds[i + 1]))
        entries, response = batch.features[span].tocoo(), batch.responses[i]
        active = ActiveText(
            entries.row.astype(np.int64),
            entries.col.astype(np.int64),
            entries.data.astype(np.float64),
            entries.shape[0],
            int(np.argmax(response)) if response.any() else len(response),
            response,
        )
        predicted_raw, miss, token_misses = None, None, None
        if scorer.raw is not None and raw_estimates is not None:
            predicted_raw, token_misses = raw_estimates[i]
            miss = _find_miss(scorer.headline.pooling, scorer.raw, active, predicted_raw, token_misses)
        reward = batch.tokens.implicit_reward[span].double().numpy()
        advantage = batch.tokens.implicit_advantage[span].double().numpy()
        row = {
            "text_id": text.text_id,
            "source": text.source,
            "split": text.split,
            "role": text.role,
            "pair_id": text.pair_id,
            "text": tokens.text,
            "token_ids": list(tokens.token_ids),
            "token_starts": list(tokens.token_starts),
            "response_start": active.response_start,
            "rating": text.rating,
            "predicted": text_ledger(active, scorer.headline).predicted,
            "predicted_raw": predicted_raw,
            "sae_miss": miss,
            "implicit_reward": float(np.nansum(reward[response] if response.any() else reward)),
        }
        scores = {
            "text_id": text.text_id,
            "feedback": token_feedback(_stated(text, tokens), tokens.token_starts, scorer.lexicon),
            "implicit_reward": [None if np.isnan(value) else float(value) for value in reward],
            "implicit_advantage": [None if np.isnan(value) else float(value) for value in advantage],
            "predicted": token_predictions(active, scorer.headline),
            "sae_miss": token_misses,
            "in_response": response if text.responses else None,
        }
        yield ScoredText(row, scores, _store(active, text.text_id) if text.text_id in stored else None, means[[i]])


def _store(active: ActiveText, text_id: int) -> dict[str, Any]:
    """Return a text's row of `activations`."""
    return {
        "text_id": text_id,
        "positions": active.positions,
        "feature_ids": active.features,
        "values": active.values.astype(np.float32),
    }


def _stated(text: CorpusText, tokens: TokenizedText) -> str:
    """Return what the lexicon is applied to: of a dialogue what the assistant wrote, in place."""
    return text.blanked[: len(tokens.text)] if text.spans else tokens.text


def _estimate_raw(scorer: _Scorer, raw: _RawProbe, batch: _Batch) -> list[tuple[float, Floats]]:
    """Return the raw probe's estimate of each text, and what the dictionaries lose of it at each token [n_tokens]."""
    from lfp.ml.sae.quality import raw_misses

    outputs = batch.tokens.tuned.outputs
    side_by_side = np.hstack([outputs[place].double().cpu().numpy() for place in scorer.dictionary.places])
    is_response = np.concatenate(batch.responses)
    pooled = pool_dense(side_by_side, batch.text_of, how=scorer.headline.pooling, response=is_response)
    misses = raw_misses(scorer.dictionary, raw.coef, outputs, batch.features)
    by_text = np.split(misses, np.flatnonzero(np.diff(batch.text_of)) + 1)
    return list(zip((pooled @ raw.coef + raw.intercept).tolist(), by_text, strict=True))


def _find_miss(
    pooling: str, raw: _RawProbe, active: ActiveText, predicted: float, token_misses: Floats
) -> float | None:
    """Return the part of a text's raw estimate that the dictionaries lose.

    The largest of several outputs is not a sum over tokens, so under max it is all that the pooled features leave.
    """
    if pooling != "max":
        return float(active.shares(pooling) @ token_misses)
    if raw.split.weights is None or raw.split.bias is None:
        return None
    kept = LinearProbe(raw.split.weights, raw.intercept, pooling)
    return predicted - raw_ledger(active, kept, bias=raw.split.bias, miss=0.0).predicted
