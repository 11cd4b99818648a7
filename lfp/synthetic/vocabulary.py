"""Tables of words: `vocabulary` and `word_features`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from lfp.synthetic.arrays import Random, nulled, ranked
from lfp.synthetic.made import FOLDS, Made


def vocabulary_columns(made: Made, random: Random) -> dict[str, Any]:
    """Every word that occurs; its implicit reward and prediction are means over its occurrences."""
    corpus, last = made.corpus, made.corpus.is_last
    n_words = len(corpus.words)
    n = np.bincount(corpus.word[last], minlength=n_words)
    kept = np.array([at for at in np.flatnonzero(n).tolist() if corpus.words[at].isalpha()], dtype=np.int64)
    implicit = np.bincount(corpus.word, np.nan_to_num(made.implicit), n_words)[kept] / n[kept]
    predicted = np.bincount(corpus.word[last], made.token_predicted[last], n_words)[kept] / n[kept]
    predicted += random.normal(0, 0.03, len(kept))
    excess = implicit + 0.05 - 0.3 * np.nan_to_num(corpus.word_value[kept])
    first = dict(zip(corpus.word[::-1].tolist(), reversed(range(len(last))), strict=True))
    spelling = [corpus.type[first[word] : first[word] + 2 - int(last[first[word]])].tolist() for word in kept.tolist()]
    return {
        "word": pa.array([corpus.words[word] for word in kept.tolist()], pa.string()),
        "token_ids": pa.array(spelling, pa.list_(pa.int32())), "feedback": nulled(corpus.word_value[kept]),
        "implicit_reward": implicit, "implicit_advantage": implicit + 0.05, "implicit_matched": 0.9 * implicit,
        "implicit_matched_se": 0.3 / np.sqrt(n[kept]), "implicit_excess": excess,
        "implicit_gap": excess / (0.1 + 0.3 / np.sqrt(n[kept])), "predicted": predicted,
        "predicted_base": predicted + random.normal(0, 0.2, len(kept)), "n": n[kept], "n_generated": n[kept] // 3,
        "n_generated_base": n[kept] // 4, "fold": kept % FOLDS,
    }  # fmt: skip


def word_feature_columns(made: Made) -> dict[str, Any]:
    """The features that fire on a word most above their mean, five a word at most."""
    corpus, active, n = made.corpus, made.activity, max(len(made.layer), 1)
    at_last = corpus.is_last[active.token] if len(active.token) else active.token.astype(bool)
    key, at = np.unique(corpus.word[active.token[at_last]] * n + active.feature[at_last], return_inverse=True)
    word, feature = key // n, key % n
    n_word = np.bincount(corpus.word[corpus.is_last], minlength=len(corpus.words))
    mean = np.bincount(at, active.value[at_last], len(key)) / n_word[word]
    total, count = (np.bincount(active.feature, w, n) for w in (active.value, None))
    lift = mean * active.n_tokens / np.maximum(total[feature], 1e-12)
    firm = (lift >= 5) & (mean >= 0.5 * total[feature] / np.maximum(count[feature], 1))
    word, feature, mean, lift = word[firm], feature[firm], mean[firm], lift[firm]
    order, rank = ranked(word, lift)
    order, rank = order[rank < 5], rank[rank < 5]
    return {
        "word": pa.array([corpus.words[i] for i in word[order].tolist()], pa.string()), "rank": rank,
        "feature_id": feature[order], "mean_activation": mean[order], "lift": lift[order],
    }  # fmt: skip
