"""Stage `texts`: the texts kept for browsing, scored token by token, some with all their activations."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lfp.attribution import token_predictions
from lfp.corpus import CorpusText
from lfp.feedback import token_feedback, vader_reward
from lfp.schema import as_table
from precompute import pair
from precompute.run import Output, Run

if TYPE_CHECKING:
    from lfp.ml.tokens import TokenizedText

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class _Headline:
    """The headline probe as the bundle states it: weights [features] as stored, and the intercept."""

    weights: Floats
    intercept: float


@dataclass(frozen=True)
class _Scored:
    """A text through both models: its active features by token, implicit reward and advantage."""

    text: CorpusText
    tokens: TokenizedText
    positions: NDArray[np.int64]
    features: NDArray[np.int64]
    values: NDArray[np.float32]
    reward: Floats
    advantage: Floats
    mean_features: NDArray[np.float32]


def run(run: Run, output: Output) -> None:
    """Writes texts, token_scores and activations."""
    texts = pair.statistics_texts(run)
    sampled = _sampled(run, texts)
    in_examples = set(run.table("features", "examples")["text_id"].to_pylist())
    kept = [text for text in texts if text.text_id in sampled or text.text_id in in_examples]
    headline = _headline(run)
    scored = list(_score(run, kept))
    places = _principal_components(np.stack([one.mean_features for one in scored]))
    predictions = [_predict(one, headline) for one in scored]
    output.table(
        "texts",
        as_table(
            "texts",
            [
                _text_row(one, predicted, place)
                for one, predicted, place in zip(scored, predictions, places, strict=True)
            ],
        ),
    )
    output.table(
        "token_scores",
        as_table(
            "token_scores", [_score_row(one, predicted) for one, predicted in zip(scored, predictions, strict=True)]
        ),
    )
    output.table(
        "activations",
        as_table(
            "activations",
            [
                {
                    "text_id": one.text.text_id,
                    "positions": one.positions,
                    "feature_ids": one.features,
                    "values": one.values,
                }
                for one in scored
                if one.text.text_id in sampled
            ],
        ),
    )


def _sampled(run: Run, texts: list[CorpusText]) -> set[int]:
    """Ids of the texts whose activations are kept: held-out ones first, then others, drawn by the seed."""
    order = np.random.default_rng(run.config.seed).permutation(len(texts))
    drawn = sorted((texts[i] for i in order), key=lambda text: text.split != "held_out")
    return {text.text_id for text in drawn[: run.config.stats.store_texts]}


def _headline(run: Run) -> _Headline:
    probe = next(row for row in run.table("probes", "probes").to_pylist() if row["is_headline"])
    weights = run.table("probes", "weights").sort_by("feature_id")
    mine = np.asarray(weights["probe_id"]) == probe["probe_id"]
    return _Headline(np.asarray(weights["weight"])[mine].astype(float), probe["intercept"])


def _score(run: Run, texts: list[CorpusText]) -> Iterator[_Scored]:
    from lfp.ml.activations import stream_pair

    base, tuned = pair.load_pair(run)
    dictionary, tokenized = pair.dictionary(run, "tuned"), pair.tokenized(run, tuned, texts)
    done = 0
    for tokens in stream_pair(
        tuned,
        base,
        tokenized,
        layers=dictionary.layers,
        batch_texts=run.config.stats.batch_texts,
        prepend_bos=run.config.model.prepend_bos,
    ):
        rows = tokens.tuned.rows.numpy()
        features = dictionary.encode(tokens.tuned.outputs).cpu().numpy()
        for row in np.unique(rows):
            mine = rows == row
            reward, advantage = tokens.implicit_reward.numpy()[mine], tokens.implicit_advantage.numpy()[mine]
            yield _scored(texts[row], tokenized[row], features[mine], reward, advantage)
        done += len(np.unique(rows))
        run.progress("texts", done, len(texts), float(done))


def _scored(text: CorpusText, tokens: TokenizedText, features: Any, reward: Floats, advantage: Floats) -> _Scored:
    positions, ids = features.nonzero()
    return _Scored(text, tokens, positions, ids, features[positions, ids], reward, advantage, features.mean(axis=0))


def _predict(one: _Scored, headline: _Headline) -> Floats:
    return token_predictions(
        one.positions,
        one.features,
        one.values.astype(float),
        headline.weights,
        intercept=headline.intercept,
        n_tokens=len(one.tokens.token_ids),
    )


def _text_row(one: _Scored, predicted: Floats, place: Floats) -> dict[str, Any]:
    text, tokens = one.text, one.tokens
    before_response = [start for start in tokens.token_starts if start < text.response_start]
    return {
        "text_id": text.text_id,
        "source": text.source,
        "split": text.split,
        "role": text.role,
        "pair_id": text.pair_id,
        "text": tokens.text,
        "token_ids": list(tokens.token_ids),
        "token_starts": list(tokens.token_starts),
        "response_start": len(before_response),
        "feedback": vader_reward([tokens.text])[0],
        "rating": text.rating,
        "predicted": float(predicted.mean()),
        "predicted_raw": None,
        "sae_miss": None,
        "implicit_reward": float(np.nansum(one.reward)),
        "pca_x": place[0],
        "pca_y": place[1],
    }


def _score_row(one: _Scored, predicted: Floats) -> dict[str, Any]:
    return {
        "text_id": one.text.text_id,
        "feedback": token_feedback(one.tokens.text, one.tokens.token_starts),
        "implicit_reward": _nullable(one.reward),
        "implicit_advantage": _nullable(one.advantage),
        "predicted": predicted,
        "sae_miss": None,
    }


def _nullable(values: Floats) -> list[float | None]:
    return [None if np.isnan(value) else float(value) for value in values]


def _principal_components(means: NDArray[np.float32]) -> Floats:
    """The first two principal components of texts' mean features [texts, 2]."""
    from lfp.ml.feature_views import map_of_rows

    return map_of_rows(means)
