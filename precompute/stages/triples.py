"""Triples for the probes stage: drawn from the corpus, and their features at the target words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import scipy.sparse as sp
from numpy.typing import NDArray

from lfp.contrast import Triple, make_triples
from lfp.feedback import Word, vader_lexicon, word_tokens
from lfp.schema import as_table
from precompute import pair
from precompute.run import Run

if TYPE_CHECKING:
    from lfp.ml.models import LanguageModel
    from lfp.ml.sae import Dictionary
    from lfp.ml.tokens import TokenizedText

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_ROLES = ("positive", "negative", "neutral")


@dataclass(frozen=True)
class TriplePoints:
    """The positive and the negative points of triples, [2 n] of each: positives first.

    `features` [2 n, features] at the target's last token, `neutral` the same of each point's neutral partner, `words`
    the target words, `signs` +1 or -1; `positions` are all three sentences' target tokens by role.
    """

    features: sp.csr_array
    neutral: sp.csr_array
    words: NDArray[Any]
    signs: Floats
    positions: Mapping[str, list[int]]

    def norms(self, scales: Floats) -> Floats:
        """L2 norm [2 n] of each point's change from its neutral partner, layers scaled."""
        change = (self.features - self.neutral).multiply(scales)
        return np.sqrt(np.asarray(change.multiply(change).sum(axis=1)).ravel())


def draw_triples(run: Run) -> list[Triple]:
    """Triples from the corpus, by the lexicon."""
    config = run.config.probes
    return make_triples(
        [text.text for text in pair.corpus_texts(run)],
        vader_lexicon(),
        n=config.triples,
        strong_quantile=config.strong_quantile,
        min_count=config.min_word_count,
        seed=run.config.seed,
    )


def collect_points(run: Run, model: str, triples: Sequence[Triple]) -> TriplePoints:
    """Both models see the same sentences; a model's features are its own dictionary's."""
    loaded, dictionary = pair.load(run, model), pair.dictionary(run, model)
    by_role, positions = {}, {}
    for role in _ROLES:
        by_role[role], positions[role] = _features_at_target(run, loaded, dictionary, triples, role)
    words = [getattr(triple, f"{role}_word") for role in ("positive", "negative") for triple in triples]
    return TriplePoints(
        sp.csr_array(sp.vstack([by_role["positive"], by_role["negative"]])),
        sp.csr_array(sp.vstack([by_role["neutral"], by_role["neutral"]])),
        np.array(words),
        np.repeat([1.0, -1.0], len(triples)),
        positions,
    )


def triple_rows(triples: Sequence[Triple], points: TriplePoints, folds: Mapping[str, int]) -> pa.Table:
    """The rows of `triples`."""
    rows = [
        {role: getattr(triple, role) for role in _ROLES}
        | {f"{role}_word": getattr(triple, f"{role}_word") for role in _ROLES}
        | {f"{role}_position": points.positions[role][i] for role in _ROLES}
        | {"triple_id": i, "fold": int(folds.get(triple.positive_word, 0))}
        for i, triple in enumerate(triples)
    ]
    return as_table("triples", rows)


def _features_at_target(
    run: Run, model: LanguageModel, dictionary: Dictionary, triples: Sequence[Triple], role: str
) -> tuple[sp.csr_array, list[int]]:
    """Features [n, features] at the last token of each triple's target word, and that token's position."""
    from lfp.ml.activations import stream
    from lfp.ml.tokens import tokenize

    sentences = [getattr(triple, role) for triple in triples]
    texts = tokenize(model.tokenizer, sentences, context=run.config.model.context)
    targets = [_target(text, triple, role) for text, triple in zip(texts, triples, strict=True)]
    parts = []
    for tokens in stream(
        model, texts, layers=dictionary.layers, batch_texts=128, prepend_bos=run.config.model.prepend_bos
    ):
        wanted = np.array([targets[row] for row in tokens.rows.tolist()])
        at_target = np.flatnonzero(wanted == tokens.positions.numpy())
        outputs = {layer: values[at_target] for layer, values in tokens.outputs.items()}
        parts.append(sp.csr_array(dictionary.encode(outputs).cpu().numpy()))
    return sp.csr_array(sp.vstack(parts)), targets


def _target(text: TokenizedText, triple: Triple, role: str) -> int:
    """Position of the last token of the target word; the last token kept, where the context cut the word off."""
    word = Word(getattr(triple, f"{role}_word"), triple.start, triple.start + len(getattr(triple, f"{role}_word")))
    tokens = word_tokens([word], text.token_starts, len(text.text))[0]
    return tokens[-1] if tokens else len(text.token_ids) - 1
