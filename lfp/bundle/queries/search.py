"""Ranked searches for features: by a token, by meaning, and by a sentence, from what the bundle stores.

By meaning is BM25 over words, with no model and nothing to download. A feature's document is the words of its stored
examples (the word that holds the peak counts whole, the four before it 0.3 and the three after it 0.2, each times the
activation relative to the feature's largest), its top tokens, and its labels. It is scored by the query: words are
looked up in an index of the stored texts, and DuckDB joins their places with the examples, so that nothing is kept per
feature. On the demo's 91 labels of readers, which are not indexed then, a label finds its feature among 2,304 with a
mean reciprocal rank of 0.87 (labels shuffled: 0.03, 95 % below 0.05); `docs/LOG.md` has what else was tried. Latent
semantic analysis, feedback from the first results and expansion by co-firing words were worse or no better; a small
embedding model is a download of tens of megabytes and torch. What BM25 cannot do is abstraction: without the words
that it quotes, a label finds its feature at 0.10, and "pronoun" finds what is labelled so, not "he" and "she".
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lfp.bundle.queries.common import look_up
from lfp.bundle.store.connection import Store
from lfp.bundle.word_index import WordIndex, word_index
from lfp.texts.words import words_of
from lfp.util.types import Floats, Ints

MOST_FOUND = 500
"""Features that a ranked search lists."""
TOKEN_ROLES: Mapping[str, tuple[str, ...]] = {
    "any": ("top_tokens", "promotes", "pos_logits", "demotes", "neg_logits"),
    "fires on": ("top_tokens",),
    "promotes": ("promotes", "pos_logits"),
    "demotes": ("demotes", "neg_logits"),
}
"""What a feature may have to do with a token, and the columns that say so."""
_SAYS = {
    "top_tokens": "fires on it: {:.2g} of its activation",
    "promotes": "promotes it: credit {:+.2g} nats",
    "demotes": "demotes it: credit {:+.2g} nats",
    "pos_logits": "raises its logit by {:.2g}",
    "neg_logits": "lowers its logit by {:.2g}",
}
_STEPS = {0: 1.0, 1: 0.3, 2: 0.3, 3: 0.3, 4: 0.3, -1: 0.2, -2: 0.2, -3: 0.2}
"""What a word counts for a peak that stands so many words after it."""
_K1, _TOP_TOKEN, _LABEL = 1.2, 3.0, 2.0
_MOST_PLACES, _MOST_READ = 100_000, 200
"""Places of a word that are joined with examples, and its occurrences that are read in stored activations."""


@dataclass(frozen=True)
class Found:
    """What a ranked search found: features best first, their scores, and what each matched, in words.

    `n` counts all matches, of which the first MOST_FOUND are listed; `says` tells what was searched.
    """

    ids: tuple[int, ...]
    scores: tuple[float, ...]
    whys: tuple[str, ...]
    n: int
    says: str


def by_token(store: Store, token: str, *, role: str = "any") -> Found:
    """Rank the features that have a token among those they fire on, promote or demote, by its share of that list.

    Spaces around it and capitals count for nothing. Raises ConfigError for an unknown role.
    """
    wanted, best, whys = token.strip().lower(), dict[int, float](), dict[int, list[str]]()
    for column in look_up(TOKEN_ROLES, role):
        rows = store.rows(_TOKEN.format(column=column, where=_HOLDS.get(column, _LISTS).format(column=column)),
                          {"token": wanted}) if wanted else []  # fmt: skip
        for row in rows:
            id_ = row["feature_id"]
            best[id_] = max(best.get(id_, 0.0), row["share"])
            whys.setdefault(id_, []).append(_SAYS[column].format(row["value"]))
    says = f"Features with the token “{wanted}” in their lists, by its share of the list."
    return _ranked(best, {id_: " · ".join(parts) for id_, parts in whys.items()}, says)


def by_meaning(store: Store, query: str, *, with_labels: bool = True) -> Found:
    """Rank the features whose examples, top tokens and labels hold a query's words, by BM25: see above.

    A word that no text holds stands for the held words most like it in spelling. Without `with_labels` labels are not
    read.
    """
    index, wanted = word_index(store), Counter(word.word for word in words_of(query))
    near = {word: index.nearest(word) for word in wanted if word not in index.words}
    forms = {word: (word, *near.get(word, ())) for word in wanted}
    frequencies = _term_frequencies(store, index, forms, with_labels=with_labels)
    n = max(store.manifest.tables["features"].rows, 1)
    scores, hits = dict[int, float](), dict[int, dict[str, float]]()
    for word, frequency in frequencies.items():
        rarity = float(np.log1p((n - len(frequency) + 0.5) / (len(frequency) + 0.5)))
        for id_, count in frequency.items():
            part = wanted[word] * rarity * count * (_K1 + 1) / (count + _K1)
            scores[id_] = scores.get(id_, 0.0) + part
            hits.setdefault(id_, {})[word] = part
    whys = {id_: ", ".join(sorted(parts, key=lambda word: -parts[word])[:5]) for id_, parts in hits.items()}
    spelt = "".join(
        f" No text holds “{word}”: {', '.join(others)} stand for it." if others else f" No text holds “{word}”."
        for word, others in near.items()
    )
    n_texts = store.manifest.tables["texts"].rows
    read = f" Of {n_texts:,} stored texts the first {index.n_texts:,} are read." if index.n_texts < n_texts else ""
    says = f"Features whose examples, top tokens or labels hold these words, rare words first (BM25).{spelt}{read}"
    return _ranked(scores, whys, says)


def by_stored_words(store: Store, sentence: str) -> Found:
    """Rank the features that fire on a sentence's words in the texts whose activations are stored.

    The score is the mean activation on a word's tokens, over the feature's largest activation anywhere; the word where
    that is highest counts. It is exact for those texts, and says nothing of the sentence as a whole.
    """
    index, best, whys = word_index(store), dict[int, float](), dict[int, str]()
    kept = store.query("SELECT text_id FROM activations")["text_id"].to_numpy()
    words = list(dict.fromkeys(word.word for word in words_of(sentence)))
    places = [index.occurrences(word) for word in words]
    places = [there[np.isin(index.text_ids[there], kept)][:_MOST_READ] for there in places]
    for row in _mean_activations(store, index, places):
        word, id_, n = row["word"], row["feature_id"], len(places[row["word"]])
        score = row["total"] / n
        if score > best.get(id_, 0.0):
            best[id_], whys[id_] = score, f"“{words[word]}”: on {row['n']} of {n}"
    missing = [word for word, there in zip(words, places, strict=True) if not len(there)]
    lacking = f" Not in them: {', '.join(missing)}." if missing else ""
    says = (
        f"No model was run. These features fire on the sentence’s words where they stand in {len(kept):,} stored texts "
        f"({sum(map(len, places)):,} places were read). Match is the mean activation there, as a share of the "
        f"feature’s largest.{lacking}"
    )
    return _ranked(best, whys, says)


def by_activations(store: Store, tokens: Sequence[str], features: Ints, positions: Ints, values: Iterable[float], *,
                   says: str) -> Found:  # fmt: skip
    """Rank the features that are active on a text that models have read, in the unit of `by_stored_words`."""
    largest = {row["feature_id"]: row["max_activation"] for row in store.rows(
        "SELECT feature_id, max_activation FROM features WHERE feature_id IN (SELECT unnest($ids::INTEGER[]))",
        {"ids": np.unique(features).tolist()})}  # fmt: skip
    best, whys = dict[int, float](), dict[int, str]()
    for id_, position, value in zip(features.tolist(), positions.tolist(), values, strict=True):
        score = value / largest[id_] if largest.get(id_) else 0.0
        if score > best.get(id_, 0.0):
            best[id_], whys[id_] = score, f"“{tokens[position].strip()}”: {value:.3g}"
    return _ranked(best, whys, says)


def _ranked(scores: Mapping[int, float], whys: Mapping[int, str], says: str) -> Found:
    ids = sorted(scores, key=lambda id_: (-scores[id_], id_))[:MOST_FOUND]
    most = f" The best {MOST_FOUND:,} of {len(scores):,} are listed." if len(scores) > MOST_FOUND else ""
    return Found(
        tuple(ids), tuple(scores[id_] for id_ in ids), tuple(whys[id_] for id_ in ids), len(scores), says + most
    )


def _term_frequencies(
    store: Store, index: WordIndex, forms: Mapping[str, Sequence[str]], *, with_labels: bool
) -> dict[str, dict[int, float]]:
    """Return by word how often features' documents hold any of its forms, for the features where they do."""
    words = list(forms)
    found: dict[str, dict[int, float]] = {word: defaultdict(float) for word in words}
    if not words:
        return {}
    parts = []
    for number, word in enumerate(words):
        around = _around(index, np.concatenate([index.occurrences(form) for form in forms[word]])[:_MOST_PLACES])
        parts.append((np.full(len(around[0]), number), *around))
    columns = [np.concatenate(part).tolist() for part in zip(*parts, strict=True)]
    bound = dict(zip(("words", "texts", "positions", "weights"), columns, strict=True))
    for row in store.rows(_EXAMPLES, bound) if bound["texts"] else []:
        found[words[row["word"]]][row["feature_id"]] += row["tf"]
    of_form = {form: word for word in words for form in forms[word]}
    for row in store.rows(_TOP_TOKENS, {"forms": list(of_form)}):
        found[of_form[row["form"]]][row["feature_id"]] += _TOP_TOKEN * row["value"]
    for row in store.rows(_LABELS, {"forms": list(of_form)}) if with_labels else []:
        if row["form"] in {word.word for word in words_of(row["description"])}:
            found[of_form[row["form"]]][row["feature_id"]] += _LABEL
    return found


def _around(index: WordIndex, places: Ints) -> tuple[Ints, Ints, Floats]:
    """Return the tokens at and around these occurrences: their texts, positions, and what the word counts there."""
    found = []
    for step, weight in _STEPS.items():
        at = places + step
        there = (at >= 0) & (at < len(index.text_ids))
        at, of = at[there], places[there]
        at, positions = _tokens(index, at[index.text_ids[at] == index.text_ids[of]])
        found.append((index.text_ids[at], positions, np.full(len(at), weight)))
    texts, positions, weights = (np.concatenate(part) for part in zip(*found, strict=True))
    return texts, positions, weights


def _tokens(index: WordIndex, at: Ints) -> tuple[Ints, Ints]:
    """Return each token of these occurrences: the occurrence that it is of, and its position."""
    lengths = index.last[at] - index.first[at] + 1
    each = np.repeat(at, lengths)
    offsets = np.arange(len(each)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return each, index.first[each] + offsets


def _mean_activations(store: Store, index: WordIndex, places: Sequence[Ints]) -> list[dict[str, Any]]:
    """Sum each feature's largest activation on the tokens of each word's occurrences, relative to its largest."""
    at, positions = _tokens(index, np.concatenate([np.empty(0, np.int64), *places]))
    if not len(at):
        return []
    words = np.repeat(np.arange(len(places)), [len(_tokens(index, there)[0]) for there in places])
    bound = {"words": words, "occurrences": at, "texts": index.text_ids[at], "positions": positions}
    return store.rows(_MEANS, {name: values.tolist() for name, values in bound.items()})


_LISTS = "list_contains([lower(trim(item.token)) FOR item IN {column}], $token)"
_HOLDS = {"top_tokens": "contains(token_words, chr(10) || $token || chr(10))"}
_TOKEN = """
SELECT feature_id, max(item.value) AS value, max(abs(item.value)) / any_value(total) AS share FROM (
    SELECT feature_id, unnest({column}) AS item, list_sum([abs(item.value) FOR item IN {column}]) AS total
    FROM feature_table WHERE {where}
) WHERE lower(trim(item.token)) = $token AND total > 0 GROUP BY feature_id
"""
_EXAMPLES = """
WITH places AS (
    SELECT word, text_id, position, max(weight) AS weight
    FROM (SELECT unnest($words::INTEGER[]) AS word, unnest($texts::BIGINT[]) AS text_id,
                 unnest($positions::INTEGER[]) AS position, unnest($weights::DOUBLE[]) AS weight)
    GROUP BY ALL
)
SELECT word, feature_id, sum(weight * activation / max_activation) AS tf
FROM (SELECT feature_id, text_id, position, activation FROM examples WHERE bucket >= 0) e
JOIN places USING (text_id, position)
JOIN (SELECT feature_id, max_activation FROM features WHERE max_activation > 0) f USING (feature_id)
GROUP BY ALL HAVING tf > 0
"""
_TOP_TOKENS = """
SELECT form, feature_id, sum(item.value) AS value FROM (
    SELECT form, feature_id, unnest(top_tokens) AS item
    FROM feature_table JOIN (SELECT unnest($forms::VARCHAR[]) AS form) f
        ON contains(token_words, chr(10) || form || chr(10))
) WHERE lower(trim(item.token)) = form GROUP BY ALL
"""
_LABELS = """
SELECT form, feature_id, string_agg(description, chr(10)) AS description FROM (
    SELECT form, feature_id, description
    FROM feature_table JOIN (SELECT unnest($forms::VARCHAR[]) AS form) f ON contains(description_words, form)
    UNION SELECT form, feature_id, description
    FROM (SELECT feature_id, description, lower(description) AS small FROM labels WHERE status = 'ok') l
    JOIN (SELECT unnest($forms::VARCHAR[]) AS form) f ON contains(small, form)
) GROUP BY ALL
"""
_MEANS = """
WITH places AS (
    SELECT unnest($words::INTEGER[]) AS word, unnest($occurrences::BIGINT[]) AS occurrence,
        unnest($texts::BIGINT[]) AS text_id, unnest($positions::INTEGER[]) AS position
),
active AS (
    SELECT text_id, unnest(positions) AS position, unnest(feature_ids) AS feature_id, unnest("values") AS value
    FROM activations WHERE text_id IN (SELECT text_id FROM places)
),
fired AS (
    SELECT word, occurrence, feature_id, max(value) AS value FROM active JOIN places USING (text_id, position)
    GROUP BY ALL
)
SELECT word, feature_id, sum(value / max_activation) AS total, count(*) AS n
FROM fired JOIN (SELECT feature_id, max_activation FROM features WHERE max_activation > 0) f USING (feature_id)
GROUP BY ALL
"""
