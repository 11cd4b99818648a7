"""Stage `features`: one pass over the corpus fills statistics, examples, word means and the probe's tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp

from lfp.progress import Progress
from lfp.vocabulary import TokenWords, Vocabulary, commonest_tokens, token_words
from precompute import feature_tables, pair
from precompute.run import Output, Run

if TYPE_CHECKING:
    from lfp.ml.activations import PairTokens
    from lfp.ml.feature_stats import FeatureStats
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
    """Writes the tables of features, vocabulary.json, word means and the probe's tokens."""
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

    from lfp.ml.active import encode_active
    from lfp.ml.feature_stats import TokenFeatures

    of_tuned, of_base = dictionaries
    values, base_values = of_tuned.encode(tokens.tuned.outputs).cpu(), of_base.encode(tokens.base.outputs).cpu()
    rows = tokens.tuned.rows.numpy()
    filled.stats.update(
        TokenFeatures(
            values=values,
            base_values=encode_active(of_tuned, tokens.base.outputs),
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
    stability = run.json("saes", "stability")
    stable = [
        np.array(stability[f"tuned-{layer}"] or [np.nan] * int((dictionary.layer_of == layer).sum()), float)
        for layer in dictionary.layers
    ]
    output.table("features", feature_tables.features(stats, dictionary, tuned, np.concatenate(stable)))
    output.table("decoders", feature_tables.decoders(dictionary))
    output.table("histograms", feature_tables.histograms(stats))
    output.table("examples", feature_tables.examples(stats))
    output.table("neighbours", feature_tables.neighbours(stats, dictionary))
