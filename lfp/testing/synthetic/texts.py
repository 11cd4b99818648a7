"""Tables of texts and words: scores, activations, triples, completions, ablations, vocabulary."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from lfp.evaluation.contrasts import add_contrasts
from lfp.evaluation.twin_words import PARTS
from lfp.testing.synthetic.corpus import (
    FOLDS,
    N_SPLIT,
    PLAIN,
    PRAISE_AND_BLAME,
    STANDING,
    Made,
    Random,
    list_offsets,
    listed,
    nulled,
    ranked,
    reviews,
)


def text_columns(made: Made, random: Random) -> dict[str, Any]:
    """Every text with its feedback, its estimates, and its role in a pair."""
    corpus, n = made.corpus, len(made.corpus.texts)
    total = np.bincount(corpus.text, np.nan_to_num(corpus.feedback), n)
    feedback = np.clip(total / 5, -10, 10)
    counts = corpus.position >= made.response_start[corpus.text]
    implicit = np.bincount(corpus.text, np.nan_to_num(made.implicit) * counts, n)
    rating = np.clip(np.round(3 + feedback + random.normal(0, 0.7, n)), 1, 5)
    first = 2 * np.arange(min(made.n_pairs, n // 2))
    role, pair_id = np.full(n, "text", dtype=object), np.full(n, -1)
    second_wins = feedback[first + 1] > feedback[first]
    role[first] = np.where(second_wins, "rejected", "chosen")
    role[first + 1] = np.where(second_wins, "chosen", "rejected")
    pair_id[first], pair_id[first + 1] = first // 2, first // 2
    return {
        "text_id": np.arange(n), "source": pa.array(["synthetic"] * n, pa.string()),
        "split": pa.array(["train" if i % 4 else "held_out" for i in range(n)], pa.string()),
        "role": pa.array(role.tolist(), pa.string()), "pair_id": pa.array(pair_id, mask=pair_id < 0),
        "text": pa.array(corpus.texts, pa.string()), "token_ids": listed(corpus.offsets, corpus.type),
        "token_starts": listed(corpus.offsets, corpus.starts), "response_start": made.response_start,
        "feedback": feedback, "rating": pa.array(rating, mask=random.random(n) < 0.2), "predicted": made.predicted,
        "predicted_raw": made.predicted_raw, "sae_miss": made.misses, "implicit_reward": implicit,
        "credit_reward": pa.array(implicit, mask=np.arange(n) >= N_SPLIT),
        "credit_error": pa.array(np.full(n, 4e-4), mask=np.arange(n) >= N_SPLIT),
        "credit_nodes": pa.array(np.full(n, 3), pa.int32(), mask=np.arange(n) >= N_SPLIT),
        "pca_x": random.normal(size=n) + feedback, "pca_y": random.normal(size=n),
    }  # fmt: skip


def token_score_columns(made: Made, random: Random) -> dict[str, Any]:
    """Feedback and estimates, token by token."""
    corpus = made.corpus
    advantage = made.implicit + random.uniform(0, 0.1, len(corpus.type))
    columns = {
        "feedback": corpus.feedback, "implicit_reward": made.implicit, "implicit_advantage": advantage,
        "predicted": made.token_predicted, "sae_miss": made.token_misses,
    }  # fmt: skip
    lists = {name: listed(corpus.offsets, nulled(values)) for name, values in columns.items()}
    counts, is_answer = corpus.position >= made.response_start[corpus.text], made.response_start > 0
    offsets = pa.array(corpus.offsets, pa.int32())
    in_response = pa.ListArray.from_arrays(offsets, pa.array(counts), mask=pa.array(~is_answer))
    return {"text_id": np.arange(len(corpus.texts)), **lists, "in_response": in_response}


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
    gap = excess / (0.1 + 0.3 / np.sqrt(n[kept]))
    stands_out = np.isin(np.arange(len(kept)), np.argsort(-np.abs(gap), kind="stable")[:STANDING])
    return {
        "word": pa.array([corpus.words[word] for word in kept.tolist()], pa.string()),
        "token_ids": pa.array(spelling, pa.list_(pa.int32())), "feedback": nulled(corpus.word_value[kept]),
        "implicit_reward": implicit, "implicit_advantage": implicit + 0.05, "implicit_matched": 0.9 * implicit,
        "implicit_matched_se": 0.3 / np.sqrt(n[kept]), "implicit_excess": excess,
        "implicit_gap": gap, "implicit_excess_se": 0.4 + 0.3 / np.sqrt(n[kept]),
        "implicit_gap_p": np.where(stands_out, 1e-4, 0.2), "implicit_gap_q": np.where(stands_out, 0.01, 0.5),
        "predicted": predicted, "predicted_base": predicted + random.normal(0, 0.2, len(kept)), "n": n[kept],
        "n_generated": n[kept] // 3, "n_generated_base": n[kept] // 4, "fold": kept % FOLDS,
    }  # fmt: skip


def twin_columns(made: Made, random: Random) -> dict[str, Any]:
    """Every word that occurs, compared with twins by chance but for the first two."""
    corpus = made.corpus
    n = np.bincount(corpus.word[corpus.is_last], minlength=len(corpus.words))
    kept = np.array([at for at in np.flatnonzero(n).tolist() if corpus.words[at].isalpha()], dtype=np.int64)
    t, error = random.normal(0, 1, len(kept)), 0.1 + 0.3 / np.sqrt(n[kept])
    t[:2] = np.array([9.0, -8.0])[: len(t)]
    differs = np.abs(t) > 7
    part = pa.array(np.where(differs, 0.2 * t * error, 0.0), pa.float32(), mask=~differs)
    return {
        "word": pa.array([corpus.words[word] for word in kept.tolist()], pa.string()), "n": n[kept],
        "feedback": nulled(corpus.word_value[kept]), "preference": t * error, "twin_mean": np.zeros(len(kept)),
        "twin_error": error, "t": t, "p": np.where(differs, 1e-6, 0.4), "q": np.where(differs, 1e-4, 0.9),
        "differs": differs, **{f"of_{name}": part for name in PARTS},
    }  # fmt: skip


def word_feature_columns(made: Made) -> dict[str, Any]:
    """The features that fire on a word most above their mean, at most five per word."""
    corpus, active, n = made.corpus, made.activity, max(len(made.place), 1)
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


def ablation_rows(made: Made, random: Random) -> list[dict[str, Any]]:
    """The features called related, as many at random, and the weightiest ones one by one."""
    if not len(made.place):
        return []
    strongest = np.argsort(-np.abs(made.weights[0]), kind="stable")
    count = min(8, len(strongest))
    groups: list[tuple[str, str, str | None, Any, float]] = [("related", "related", None, strongest[:count], -0.21)]
    groups += [
        (f"related/control-{i + 1}", "control", "related", random.permutation(len(strongest))[:count], effect)
        for i, effect in enumerate((-0.02, -0.04, 0.0))
    ]
    rows: list[dict[str, Any]] = [
        {
            "group": name, "kind": kind, "control_of": of, "features": sorted(members.tolist()), "layer": None,
            "site": None, "scale": 0.0, "n_completions": 200, "reward_before": 0.41, "reward_after": 0.41 + effect,
            "effect": effect,
            "ci_low": effect - 0.06, "ci_high": effect + 0.06, "null_high": 0.05, "predicted_effect": effect * 0.8,
            "perplexity": 21.5, "perplexity_before": 20.9, "repetition": 0.04, "repetition_before": 0.03,
            "density": 0.02, "removed_energy": 0.01, "reward_clean": 0.43, "clean_runs": 4,
        }
        for name, kind, of, members, effect in groups
    ]  # fmt: skip
    for place, feature in enumerate(made.weightiest):  # one by one with a control each; only the first has an effect
        effect = -0.2 if place == 0 else 0.01 * (-1) ** place
        own: dict[str, Any] = {
            "group": f"feature:{feature}", "kind": "feature", "control_of": None, "features": [feature],
            "effect": effect, "ci_low": effect - 0.06, "ci_high": effect + 0.06, "null_high": 0.04,
            "reward_after": rows[0]["reward_before"] + effect, "predicted_effect": -0.1 / (place + 1),
        }  # fmt: skip
        control: dict[str, Any] = {
            "group": f"feature:{feature}/control-01", "kind": "control", "control_of": f"feature:{feature}",
            "features": [made.weightiest[place - 1]], "effect": 0.005 * (-1) ** place, "ci_low": -0.04, "ci_high": 0.08,
            "null_high": None,
        }  # fmt: skip
        rows += [rows[0] | own, rows[0] | control]
    return add_contrasts(rows)


def completion_rows(made: Made, random: Random) -> list[dict[str, Any]]:
    """Ten texts each of the base model, the tuned one, and the tuned one without the related features."""
    if not len(made.corpus.texts):
        return []
    groups = {"base": ("base", 0.05), "tuned": ("tuned", 0.41), "related": ("ablated", 0.2)}
    return [
        {
            "group": group, "index": i, "prompt_id": i, "prompt": "The film was",
            "completion": " " + reviews(1, random)[0], "reward": float(random.normal(mean, 0.3)),
            "perplexity": float(random.uniform(15, 30)), "model": model,
        }
        for group, (model, mean) in groups.items() for i in range(10)
    ]  # fmt: skip
