"""Stage `texts`: the texts kept for browsing, scored token by token, some with all their activations; near misses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import scipy.sparse as sp

from lfp.bundle.schema import as_table
from lfp.probes.attribution import ActiveText, LinearProbe, raw_ledger, text_ledger, token_predictions
from lfp.probes.linear_algebra import principal_components
from lfp.probes.pooling import pool, pool_dense
from lfp.texts.corpus import CorpusText
from lfp.texts.lexicon import lexicon_of, token_feedback
from lfp.util.types import Flags, Floats, Ints
from precompute.run.inputs import (
    load_dictionary,
    load_pair,
    load_reward,
    mark_responses,
    order_texts,
    read_statistics_texts,
    tokenize_texts,
)
from precompute.run.work_folder import Output, Run
from precompute.stages.features import tables

if TYPE_CHECKING:
    from lfp.ml.features.near_misses import NearMisses
    from lfp.ml.models.activations import PairTokens
    from lfp.ml.models.loading import LanguageModel
    from lfp.ml.models.tokenization import TokenizedText
    from lfp.ml.sae.autoencoders import Dictionary
    from lfp.ml.sae.quality import RawSplit

_TOP_TOKENS, _LEAST_SHARE, _NEIGHBOURS = 5, 0.02, 3  # what near misses are expected by
_BROKEN = "\ufffd"  # how parts of a character are spelled, the same for many tokens


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
    responses: list[Flags]


@dataclass(frozen=True)
class _ScoredText:
    """A text's rows of `texts` and `token_scores`, its active features, and their means over its tokens [1, features].

    The row of `texts` lacks `feedback`, `pca_x` and `pca_y`, which are found for all texts at once.
    """

    row: dict[str, Any]
    scores: dict[str, Any]
    active: ActiveText
    mean: sp.csr_array


def run(run: Run, output: Output) -> None:
    """Write the tables texts, token_scores and activations, and the features stage's examples with near misses."""
    texts = read_statistics_texts(run)
    sampled = {text.text_id for text in order_texts(texts, seed=run.config.seed)[: run.config.stats.store_texts]}
    in_examples = set(run.table("features", "examples")["text_id"].to_pylist())
    splits = {int(text_id): columns for text_id, columns in run.json("credits", "texts").items()}
    wanted = sampled | in_examples | splits.keys()
    kept = [text for text in texts if text.text_id in wanted]
    models = load_pair(run)
    near = begin_near_misses(run, models[1])
    rows: list[dict[str, Any]] = []
    scores: list[dict[str, Any]] = []
    activations: list[dict[str, Any]] = []
    means: list[sp.csr_array] = []
    for scored in _score_texts(run, models, kept, near):
        rows.append(scored.row)
        scores.append(scored.scores)
        means.append(scored.mean)
        if scored.row["text_id"] in sampled:
            activations.append(
                {
                    "text_id": scored.row["text_id"],
                    "positions": scored.active.positions,
                    "feature_ids": scored.active.features,
                    "values": scored.active.values.astype(np.float32),
                }
            )
    stated = [text.said if text.spans else row["text"] for text, row in zip(kept, rows, strict=True)]
    feedback = load_reward(run.config, run.config_dir)(stated)
    places = principal_components(sp.csr_array(sp.vstack(means, format="csr")))
    for row, value, place in zip(rows, feedback, places, strict=True):
        row |= {"feedback": value, "pca_x": place[0], "pca_y": place[1], **splits.get(row["text_id"], {})}
    for name, values in (("texts", rows), ("token_scores", scores), ("activations", activations)):
        output.table(name, as_table(name, values))
    output.table("examples", tables.with_near_misses(run.table("features", "examples"), near.examples()))


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


def _score_texts(
    run: Run, models: tuple[LanguageModel, LanguageModel], texts: list[CorpusText], near: NearMisses
) -> Iterator[_ScoredText]:
    """Score texts in order, batch by batch, and offer all of their tokens to the search for near misses."""
    from lfp.ml.features.active import encode_active
    from lfp.ml.features.examples import Batch
    from lfp.ml.features.grouping import Places
    from lfp.ml.implicit_reward.changes import watch_changes
    from lfp.ml.models.activations import stream_pair
    from lfp.ml.sae.views import find_change_places, view_places

    base, tuned = models
    scorer, tokenized = _load_scorer(run), tokenize_texts(run, tuned, texts)
    text_ids = np.array([text.text_id for text in texts], np.int64)
    responses = mark_responses(texts, tokenized)
    for tokens in stream_pair(
        tuned,
        base,
        tokenized,
        places=scorer.dictionary.places,
        changes=watch_changes(tuned, base, find_change_places(scorer.dictionary)),
        batch_texts=run.config.stats.batch_texts,
        prepend_bos=run.config.model.prepend_bos,
    ):
        rows = tokens.tuned.rows.numpy()
        first, last = int(rows[0]), int(rows[-1]) + 1
        entries = encode_active(scorer.dictionary, view_places(scorer.dictionary, tokens, "tuned"))
        positions, ids = tokens.tuned.positions.numpy(), tokens.tuned.ids.numpy()
        near.update(Batch(Places(text_ids[rows], positions, ids), entries))
        shape = (entries.n_tokens, entries.n_features)
        features = sp.csr_array((entries.values, entries.features, entries.offsets), shape=shape)
        batch = _Batch(tokens, features, rows - first, responses[first:last])
        yield from _score_batch(scorer, batch, texts[first:last], tokenized[first:last])
        run.progress("texts", last, len(texts), float(last))


def _score_batch(
    scorer: _Scorer, batch: _Batch, texts: list[CorpusText], tokenized: list[TokenizedText]
) -> Iterator[_ScoredText]:
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
        yield _ScoredText(row, scores, active, means[[i]])


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


def begin_near_misses(run: Run, tuned: LanguageModel) -> NearMisses:
    """Start the search for near misses of the run's features; it expects nothing where the config wants none."""
    from lfp.ml.features.near_misses import Lists, NearMisses

    stats, features = run.config.stats, run.table("features", "features").select(["feature_id", "top_tokens"])
    n_features, wanted = len(features), slice(None if stats.near_misses else 0)
    spelled = [tuned.tokenizer.decode([token]) for token in range(len(tuned.tokenizer))]
    owners, ids = top_token_ids(features["top_tokens"], spelled)
    neighbours = run.table("features", "neighbours")
    is_near = pc.and_(pc.equal(neighbours["kind"], "coactivation"), pc.less(neighbours["rank"], _NEIGHBOURS))
    near = neighbours.filter(is_near)
    return NearMisses(
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
