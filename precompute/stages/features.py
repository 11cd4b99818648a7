"""Stage `features`: one pass over the corpus fills statistics, examples, word means and the probe's tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import scipy.sparse as sp

from lfp.progress import Progress
from lfp.schema import as_table
from lfp.vocabulary import TokenWords, Vocabulary, commonest_tokens, token_words
from precompute import pair
from precompute.run import Output, Run

if TYPE_CHECKING:
    from lfp.ml.activations import PairTokens
    from lfp.ml.feature_stats import Examples, FeatureStats
    from lfp.ml.models import LanguageModel
    from lfp.ml.sae import Dictionary
    from lfp.ml.tokens import TokenizedText
    from lfp.ml.words import TokenSample, WordMeans


@dataclass
class _Pass:
    """What the one pass fills."""

    stats: FeatureStats
    tuned_words: WordMeans
    base_words: WordMeans
    sample: TokenSample


def run(run: Run, output: Output) -> None:
    """Writes features, decoders, histograms and examples, vocabulary.json, word means and the probe's tokens."""
    base, tuned = pair.load_pair(run)
    texts = pair.statistics_texts(run)
    tokenized = pair.tokenized(run, tuned, texts)
    probes = run.config.probes
    vocabulary = Vocabulary.of(
        [text.text for text in tokenized], min_count=probes.min_word_count, n_folds=probes.folds, seed=run.config.seed
    )
    dictionaries = pair.dictionary(run, "tuned"), pair.dictionary(run, "base")
    filled = _fill(run, (tuned, base), tokenized, dictionaries, vocabulary, [text.text_id for text in texts])
    _write_tables(output, run, filled.stats, dictionaries[0], tuned)
    _write_words(output, vocabulary, filled)
    spelled = [(text.text, text.token_ids, text.token_starts) for text in tokenized]
    output.json("word_tokens", commonest_tokens(vocabulary, spelled))
    output.json("texts", {"n_texts": len(texts), "n_tokens": filled.stats.tuned.n_tokens})


def _fill(
    run: Run,
    models: tuple[LanguageModel, LanguageModel],
    texts: list[TokenizedText],
    dictionaries: tuple[Dictionary, Dictionary],
    vocabulary: Vocabulary,
    text_ids: list[int],
) -> _Pass:
    from lfp.ml.activations import stream_pair
    from lfp.ml.feature_stats import FeatureStats
    from lfp.ml.words import TokenSample, WordMeans

    of_tuned, of_base = dictionaries
    n_tokens = sum(len(text.token_ids) for text in texts)
    filled = _Pass(
        FeatureStats(of_tuned.n_features, run.config.stats),
        WordMeans(len(vocabulary.words), of_tuned.n_features),
        WordMeans(len(vocabulary.words), of_base.n_features),
        TokenSample(min(1.0, run.config.probes.max_rows / n_tokens), run.config.seed),
    )
    words = [token_words(vocabulary, text.text, text.token_starts) for text in texts]
    ids = np.array(text_ids, np.int64)
    passed = stream_pair(
        *models,
        texts,
        layers=of_tuned.layers,
        batch_texts=run.config.stats.batch_texts,
        prepend_bos=run.config.model.prepend_bos,
    )
    done = 0
    for tokens in passed:
        _update(filled, tokens, dictionaries, words, ids, vocabulary)
        done += len(tokens.tuned.ids)
        _tell(run.progress, done, n_tokens)
    return filled


def _tell(progress: Progress, done: int, total: int) -> None:
    progress("features: tokens", done, total, float(done))


def _update(
    filled: _Pass,
    tokens: PairTokens,
    dictionaries: tuple[Dictionary, Dictionary],
    words: list[TokenWords],
    text_ids: np.ndarray,
    vocabulary: Vocabulary,
) -> None:
    import torch

    from lfp.ml.feature_stats import TokenFeatures

    of_tuned, of_base = dictionaries
    values, base_values = of_tuned.encode(tokens.tuned.outputs), of_base.encode(tokens.base.outputs)
    rows = tokens.tuned.rows.numpy()
    filled.stats.update(
        TokenFeatures(
            values=values,
            base_values=of_tuned.encode(tokens.base.outputs),
            text_ids=text_ids[rows],
            positions=tokens.tuned.positions.numpy(),
            token_ids=tokens.tuned.ids.numpy(),
        )
    )
    in_batch = [words[row] for row in np.unique(rows)]
    word, last = np.concatenate([w.words for w in in_batch]), np.concatenate([w.is_last for w in in_batch])
    scores = tokens.implicit_reward, tokens.implicit_advantage
    for means, features in ((filled.tuned_words, values), (filled.base_words, base_values)):
        means.update(torch.from_numpy(word), torch.from_numpy(last), features, *scores)
    filled.sample.update(
        values, base_values, tokens.implicit_reward, _folds(word, tokens.tuned.ids.numpy(), vocabulary)
    )


def _folds(words: np.ndarray, token_ids: np.ndarray, vocabulary: Vocabulary) -> np.ndarray:
    """A token's fold is its word's; a token of no word of the vocabulary goes by its own id."""
    n_folds = int(vocabulary.folds.max()) + 1
    return np.where(words >= 0, vocabulary.folds[words], token_ids % n_folds)


def _write_words(output: Output, vocabulary: Vocabulary, filled: _Pass) -> None:
    output.json(
        "vocabulary",
        {
            "words": vocabulary.words,
            "counts": vocabulary.counts.tolist(),
            "folds": vocabulary.folds.tolist(),
            "all_counts": vocabulary.all_counts,
        },
    )
    for role, means in (("tuned", filled.tuned_words), ("base", filled.base_words)):
        np.savez(output.folder / f"words-{role}.npz", allow_pickle=False, **means.means())
    sample = filled.sample.tokens()
    sp.save_npz(output.folder / "sample-tuned.npz", sample.tuned)
    sp.save_npz(output.folder / "sample-base.npz", sample.base)
    np.savez(output.folder / "sample.npz", reward=sample.reward, folds=sample.folds)


def _write_tables(output: Output, run: Run, stats: FeatureStats, dictionary: Dictionary, tuned: LanguageModel) -> None:
    import torch

    from lfp.ml.feature_views import logit_tokens, map_of_rows, sampled_tokens

    tokenizer, n_top = tuned.tokenizer, 10
    decoders = torch.cat(dictionary.decoders)
    raised, lowered = logit_tokens(tuned, decoders, n=n_top)
    places = map_of_rows(decoders.numpy())
    stability = run.json("saes", "stability")
    stable = np.concatenate(
        [
            np.array(stability[f"tuned-{layer}"] or [np.nan] * int((dictionary.layer_of == layer).sum()), float)
            for layer in dictionary.layers
        ]
    )
    top = sampled_tokens(stats.sample.examples(), dictionary.n_features, tokenizer, n=n_top)
    columns: dict[str, Any] = {
        "feature_id": np.arange(dictionary.n_features),
        "layer": dictionary.layer_of,
        "index": dictionary.index_of,
        "density": stats.tuned.density,
        "n_active": stats.tuned.n_active,
        "mean_activation": stats.tuned.mean_where_active,
        "max_activation": stats.tuned.max,
        "base_density": stats.base.density,
        "base_mean_activation": stats.base.mean_where_active,
        "shift": (stats.tuned.sum - stats.base.sum) / stats.tuned.n_tokens,
        "stability": pa.array(stable, mask=np.isnan(stable)),
        "decoder_norm": decoders.norm(dim=1).numpy(),
        "top_tokens": top,
        "pos_logits": raised,
        "neg_logits": lowered,
        "x": places[:, 0],
        "y": places[:, 1],
    }
    output.table("features", as_table("features", columns))
    output.table(
        "decoders",
        as_table(
            "decoders",
            {
                "feature_id": columns["feature_id"],
                "vector": list(decoders.half().numpy()),
            },
        ),
    )
    output.table(
        "histograms",
        as_table(
            "histograms",
            {
                "feature_id": columns["feature_id"],
                "edges": [stats.tuned.edges.astype(np.float32)] * dictionary.n_features,
                "counts": list(stats.tuned.counts),
                "base_counts": list(stats.base.counts),
            },
        ),
    )
    output.table("examples", _examples(run, stats))


def _examples(run: Run, stats: FeatureStats) -> pa.Table:
    """Top examples as bucket 0, and those drawn from each quantile interval of the random sample."""
    from lfp.ml.feature_stats import quantile_buckets

    config = run.config.stats
    top, sample = stats.top.examples(), stats.sample.examples()
    buckets, rows = quantile_buckets(
        sample, intervals=config.quantile_intervals, per_interval=config.examples_per_interval
    )
    parts = [(np.zeros(len(top.features), np.int64), top), (buckets, sample.take(rows))]
    return pa.concat_tables([_example_rows(bucket, examples) for bucket, examples in parts])


def _example_rows(buckets: np.ndarray, examples: Examples) -> pa.Table:
    from lfp.ml.feature_stats import ranks

    windows, reach = examples.windows, examples.windows.shape[1] // 2
    first = np.argmax(~np.isnan(windows), axis=1)
    return as_table(
        "examples",
        {
            "feature_id": examples.features,
            "bucket": buckets,
            "rank": ranks(examples, buckets),
            "text_id": examples.text_ids,
            "position": examples.positions,
            "activation": examples.activations,
            "window_start": examples.positions - reach + first,
            "window_values": [row[~np.isnan(row)] for row in windows],
        },
    )
