"""Stage `texts`: the texts kept for browsing, scored token by token, some with all their activations; near misses."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from lfp.bundle.schema import as_table
from lfp.probes.attribution import ActiveText, LinearProbe, raw_ledger, text_ledger, token_predictions
from lfp.probes.pooling import first_response_token, pool, pool_dense, principal_places
from lfp.texts.corpus import CorpusText
from lfp.texts.lexicon import lexicon_of
from lfp.util.types import Floats, Ints
from precompute.run.inputs import load_dictionary, load_pair, load_reward, read_statistics_texts, tokenize_texts
from precompute.run.work_folder import Output, Run
from precompute.stages.features import near_miss_search, tables
from precompute.stages.models.text_tables import Estimates, ScoredText, activation_row, score_row, text_row

if TYPE_CHECKING:
    from lfp.ml.features.near_misses import NearMisses
    from lfp.ml.interventions.raw_probe import RawSplit
    from lfp.ml.models.activations import PairTokens
    from lfp.ml.models.loading import LanguageModel
    from lfp.ml.models.tokenization import TokenizedText
    from lfp.ml.sae.autoencoders import Dictionary


@dataclass(frozen=True)
class _Raw:
    """The raw probe of the headline's target: `coef` [sum of d_in], and what it gives features and their biases."""

    coef: Floats
    intercept: float
    split: RawSplit


@dataclass(frozen=True)
class _Scorer:
    """What texts are scored by: the autoencoders, the headline as the bundle states it, the raw probe where one is."""

    dictionary: Dictionary
    headline: LinearProbe
    raw: _Raw | None


@dataclass(frozen=True)
class _Batch:
    """The tokens of some whole texts: `of` [tokens] is their text, from 0; `starts` [texts] begins its response."""

    tokens: PairTokens
    features: sp.csr_array
    of: Ints
    starts: Ints

    @property
    def positions(self) -> Ints:
        """Each token's place in its text [tokens]."""
        return np.asarray(self.tokens.tuned.positions.numpy(), np.int64)

    @property
    def is_response(self) -> NDArray[np.bool_]:
        """Which tokens are of a response [tokens]."""
        return self.positions >= self.starts[self.of]


def run(run: Run, output: Output) -> None:
    """Writes texts, token_scores, activations, and the features stage's examples with near misses beside them."""
    texts = read_statistics_texts(run)
    sampled = _sampled(run, texts)
    in_examples = set(run.table("features", "examples")["text_id"].to_pylist())
    kept = [text for text in texts if text.text_id in sampled or text.text_id in in_examples]
    models = load_pair(run)
    near = near_miss_search.begin(run, models[1])
    reward, lexicon = load_reward(run.config, run.config_dir), lexicon_of(run.config.feedback, beside=run.config_dir)
    rows: list[dict[str, Any]] = []
    scores: list[dict[str, Any]] = []
    activations: list[dict[str, Any]] = []
    means: list[sp.csr_array] = []
    for scored, mean in _score(run, models, kept, near):
        rows.append(text_row(scored))
        scores.append(score_row(scored, lexicon))
        means.append(mean)
        if scored.text.text_id in sampled:
            activations.append(activation_row(scored))
    feedback = reward([row["text"] for row in rows])
    places = principal_places(sp.csr_array(sp.vstack(means, format="csr")))
    for row, value, place in zip(rows, feedback, places, strict=True):
        row |= {"feedback": value, "pca_x": place[0], "pca_y": place[1]}
    for name, values in (("texts", rows), ("token_scores", scores), ("activations", activations)):
        output.table(name, as_table(name, values))
    output.table("examples", tables.with_near_misses(run.table("features", "examples"), near.examples()))


def _sampled(run: Run, texts: list[CorpusText]) -> set[int]:
    """Ids of the texts whose activations are kept: held-out ones first, then others, drawn by the seed.

    The two sides of a pair are drawn together, so that the difference of their estimates can be split over features.
    """
    order = np.random.default_rng(run.config.seed).permutation(len(texts))
    drawn = sorted((texts[i] for i in order), key=lambda text: text.split != "held_out")
    first: dict[int | None, int] = {}  # where each pair's first side was drawn
    for at, text in enumerate(drawn):
        if text.pair_id is not None:
            first.setdefault(text.pair_id, at)
    drawn = [text for _, text in sorted(enumerate(drawn), key=lambda one: first.get(one[1].pair_id, one[0]))]
    return {text.text_id for text in drawn[: run.config.stats.store_texts]}


def _scorer(run: Run) -> _Scorer:
    from lfp.ml.interventions.raw_probe import split_raw

    dictionary, file = load_dictionary(run, "tuned"), run.folder("probes") / "raw.npz"
    if not file.is_file():
        return _Scorer(dictionary, _headline(run), None)
    stored = np.load(file)
    split = split_raw(dictionary, stored["coef"])
    return _Scorer(dictionary, _headline(run), _Raw(stored["coef"], float(stored["intercept"]), split))


def _headline(run: Run) -> LinearProbe:
    """Weights [features] as the bundle states them, in single precision: what a reader of it multiplies."""
    probe = next(row for row in run.table("probes", "probes").to_pylist() if row["is_headline"])
    weights = run.table("probes", "weights").sort_by("feature_id")
    mine = np.asarray(weights["probe_id"]) == probe["probe_id"]
    return LinearProbe(np.asarray(weights["weight"])[mine].astype(float), probe["intercept"], probe["pooling"])


def _score(
    run: Run, models: tuple[LanguageModel, LanguageModel], texts: list[CorpusText], near: NearMisses
) -> Iterator[tuple[ScoredText, sp.csr_array]]:
    """Each text with its mean features [1, features]; `near` is offered all of them."""
    from lfp.ml.features.active import encode_active
    from lfp.ml.models.activations import stream_pair

    base, tuned = models
    scorer, tokenized = _scorer(run), tokenize_texts(run, tuned, texts)
    text_ids = np.array([text.text_id for text in texts], np.int64)
    starts = np.array([_response_start(*one) for one in zip(texts, tokenized, strict=True)], np.int64)
    done = 0
    for tokens in stream_pair(
        tuned,
        base,
        tokenized,
        layers=scorer.dictionary.layers,
        batch_texts=run.config.stats.batch_texts,
        prepend_bos=run.config.model.prepend_bos,
    ):
        rows = tokens.tuned.rows.numpy()
        first, last = int(rows[0]), int(rows[-1]) + 1
        entries = encode_active(scorer.dictionary, tokens.tuned.outputs)
        near.update(near_miss_search.batch_of(text_ids[rows], tokens.tuned, entries))
        shape = (entries.n_tokens, entries.n_features)
        features = sp.csr_array((entries.values, entries.features, entries.offsets), shape=shape)
        batch = _Batch(tokens, features, rows - first, starts[first:last])
        yield from _scored(scorer, batch, texts[first:last], tokenized[first:last])
        done = last
        run.progress("texts", done, len(texts), float(done))


def _response_start(text: CorpusText, tokens: TokenizedText) -> int:
    return first_response_token(tokens.token_starts, text.response_start)


def _scored(
    scorer: _Scorer, batch: _Batch, texts: list[CorpusText], tokenized: list[TokenizedText]
) -> Iterator[tuple[ScoredText, sp.csr_array]]:
    means = sp.csr_array(pool(batch.features, batch.of, how="mean").astype(np.float32))
    raw = [None] * len(texts) if scorer.raw is None else _raw_estimates(scorer, scorer.raw, batch)
    bounds = np.searchsorted(batch.of, np.arange(len(texts) + 1))
    for i, text in enumerate(texts):
        mine = slice(int(bounds[i]), int(bounds[i + 1]))
        active = _active(batch.features[mine], int(batch.starts[i]))
        scored = ScoredText(
            text,
            tokenized[i],
            active,
            batch.tokens.implicit_reward[mine].double().numpy(),
            batch.tokens.implicit_advantage[mine].double().numpy(),
            _estimates(scorer, active, raw[i]),
        )
        yield scored, means[[i]]


def _active(features: sp.csr_array, response_start: int) -> ActiveText:
    entries = features.tocoo()
    values = entries.data.astype(np.float64)
    return ActiveText(
        entries.row.astype(np.int64), entries.col.astype(np.int64), values, features.shape[0], response_start
    )


def _raw_estimates(scorer: _Scorer, raw: _Raw, batch: _Batch) -> list[tuple[float, Floats]]:
    """Of each text the raw probe's estimate, and what the autoencoders miss of it at each token by itself."""
    from lfp.ml.interventions.raw_probe import raw_misses

    outputs = batch.tokens.tuned.outputs
    side_by_side = np.hstack([outputs[layer].double().cpu().numpy() for layer in scorer.dictionary.layers])
    pooled = pool_dense(side_by_side, batch.of, how=scorer.headline.pooling, response=batch.is_response)
    misses = raw_misses(scorer.dictionary, raw.coef, outputs, batch.features)
    of_texts = np.split(misses, np.flatnonzero(np.diff(batch.of)) + 1)
    return list(zip((pooled @ raw.coef + raw.intercept).tolist(), of_texts, strict=True))


def _estimates(scorer: _Scorer, active: ActiveText, raw: tuple[float, Floats] | None) -> Estimates:
    predicted = text_ledger(active, scorer.headline).predicted
    of_tokens = token_predictions(active, scorer.headline)
    if scorer.raw is None or raw is None:
        return Estimates(predicted, of_tokens)
    return Estimates(predicted, of_tokens, raw[0], _miss(scorer, scorer.raw, active, raw), raw[1])


def _miss(scorer: _Scorer, raw: _Raw, active: ActiveText, estimate: tuple[float, Floats]) -> float | None:
    """The part of a text's raw estimate that the autoencoders do not keep.

    The largest of several outputs is no sum over tokens, so under max it is all that the pooled features leave.
    """
    pooling, (predicted, token_misses) = scorer.headline.pooling, estimate
    if pooling != "max":
        return float(active.shares(pooling) @ token_misses)
    if raw.split.weights is None or raw.split.bias is None:
        return None
    kept = LinearProbe(raw.split.weights, raw.intercept, pooling)
    return predicted - raw_ledger(active, kept, bias=raw.split.bias, miss=0.0).predicted
