"""Tables of texts: `texts`, `token_scores`, `activations`, `triples`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from lfp.synthetic.arrays import Array, Random, list_offsets, listed, nulled
from lfp.synthetic.made import FOLDS, Made
from lfp.synthetic.reviews import PLAIN, PRAISE_AND_BLAME


def text_columns(made: Made, random: Random) -> dict[str, Any]:
    """Every text with its feedback and its estimates."""
    corpus, n = made.corpus, len(made.corpus.texts)
    total = np.bincount(corpus.text, np.nan_to_num(corpus.feedback), n)
    feedback = np.clip(total / 5, -10, 10)
    implicit = np.bincount(corpus.text, np.nan_to_num(made.implicit), n)
    rating = np.clip(np.round(3 + feedback + random.normal(0, 0.7, n)), 1, 5)
    return {
        "text_id": np.arange(n), "source": pa.array(["synthetic"] * n, pa.string()),
        "split": pa.array(["train" if i % 4 else "held_out" for i in range(n)], pa.string()),
        **_pairs(made.n_pairs, feedback),
        "text": pa.array(corpus.texts, pa.string()), "token_ids": listed(corpus.offsets, corpus.type),
        "token_starts": listed(corpus.offsets, corpus.starts), "response_start": made.response_start,
        "feedback": feedback, "rating": pa.array(rating, mask=random.random(n) < 0.2), "predicted": made.predicted,
        "predicted_raw": made.predicted_raw, "sae_miss": made.misses, "implicit_reward": implicit,
        "pca_x": random.normal(size=n) + feedback, "pca_y": random.normal(size=n),
    }  # fmt: skip


def _pairs(n_pairs: int, feedback: Array) -> dict[str, Any]:
    """Roles of the texts and the pairs they are of."""
    n, first = len(feedback), 2 * np.arange(min(n_pairs, len(feedback) // 2))
    role, pair_id = np.full(n, "text", dtype=object), np.full(n, np.nan)
    second_wins = feedback[first + 1] > feedback[first]
    role[first] = np.where(second_wins, "rejected", "chosen")
    role[first + 1] = np.where(second_wins, "chosen", "rejected")
    pair_id[first], pair_id[first + 1] = first // 2, first // 2
    return {
        "role": pa.array(role.tolist(), pa.string()),
        "pair_id": pa.array([None if np.isnan(one) else int(one) for one in pair_id.tolist()], pa.int64()),
    }


def token_score_columns(made: Made, random: Random) -> dict[str, Any]:
    """The same, token by token."""
    corpus = made.corpus
    advantage = made.implicit + random.uniform(0, 0.1, len(corpus.type))
    columns = {
        "feedback": corpus.feedback, "implicit_reward": made.implicit, "implicit_advantage": advantage,
        "predicted": made.token_predicted, "sae_miss": made.token_misses,
    }  # fmt: skip
    lists = {name: listed(corpus.offsets, nulled(values)) for name, values in columns.items()}
    return {"text_id": np.arange(len(corpus.texts)), **lists}


def activation_columns(made: Made) -> dict[str, Any]:
    """What fires on the texts whose activations are kept."""
    active, n = made.activity, len(made.kept)
    text = made.corpus.text[active.token] if len(active.token) else active.token
    is_kept = text < n
    offsets = list_offsets(text[is_kept], n)
    return {
        "text_id": made.kept, "positions": listed(offsets, made.corpus.position[active.token[is_kept]]),
        "feature_ids": listed(offsets, active.feature[is_kept]), "values": listed(offsets, active.value[is_kept]),
    }  # fmt: skip


def triple_rows(made: Made, random: Random) -> list[dict[str, Any]]:
    """A few sentences with their target word replaced; the target is the fourth token."""
    n = 20 if len(made.corpus.texts) else 0
    praise_words, blame_words = PRAISE_AND_BLAME["adjective"]
    rows = []
    for i in range(n):
        noun, praise, blame = (str(random.choice(c)) for c in (PLAIN["noun"], praise_words, blame_words))
        chosen = {"positive": praise, "negative": blame, "neutral": "long"}
        row: dict[str, Any] = {"triple_id": i, "fold": i % FOLDS}
        for name, word in chosen.items():
            row |= {name: f"The {noun} was {word}.", f"{name}_word": word, f"{name}_position": 3}
        rows.append(row)
    return rows
