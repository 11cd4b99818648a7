"""Stage `twin_words`: every word's preference in the tuned model and in its twins, and where the difference lies."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lfp.bundle.schema import as_table
from lfp.evaluation.results import ResultRow
from lfp.evaluation.statistics.twins import RATE
from lfp.evaluation.twin_words import PARTS, SECTION, TwinWords
from lfp.texts.lexicon import lexicon_of
from lfp.texts.vocabulary import TokenColumns
from lfp.util.types import Floats, Ints
from precompute.run.inputs import load_pair, name_texts
from precompute.run.work_folder import Output, Run
from precompute.stages.features.corpus_pass import PassCorpus, build_corpus
from precompute.stages.models.twins import load_twins

if TYPE_CHECKING:
    from lfp.ml.implicit_reward.column_predictions import LogProbs
    from lfp.ml.models.loading import LanguageModel
    from lfp.ml.models.tokenization import TokenizedText

LEAST_INFORMATION = 1.0
"""Of a word that is tested: as much as four contexts have where the base model gives it one half."""
_SPLIT_WORDS = 10
"""Words whose difference is split, those of the smallest q."""
_SPLIT_TEXTS = 12
"""Texts of a word in which its implicit reward is split."""


def run(run: Run, output: Output, *, with_lexicon: bool = False) -> None:
    """Write the table `twins` and its rows of the report; without twins the table is empty."""
    if not run.config.twins.n:
        output.table("twins", as_table("twins", []))
        return
    base, tuned = load_pair(run, exact=True)
    corpus = build_corpus(run, tuned, with_lexicon=with_lexicon)
    lexicon = lexicon_of(run.config.feedback, beside=run.config_dir)
    stated = np.array([lexicon.get(word, np.nan) for word in corpus.vocabulary.words])
    preferences, information = _measure(run, base, [tuned], load_twins(run), corpus=corpus)
    information = np.where(information >= LEAST_INFORMATION, information, 0.0)
    found = TwinWords.compare(preferences[0], preferences[1:], stated=stated, information=information)
    parts = _split(run, base, tuned, found, corpus=corpus)
    rows = []
    for i in np.flatnonzero(~np.isnan(found.test.p)).tolist():
        q = float(found.test.q[i])
        rows.append(
            {
                "word": corpus.vocabulary.words[i],
                "n": int(corpus.vocabulary.counts[i]),
                "feedback": None if np.isnan(stated[i]) else float(stated[i]),
                "preference": float(found.tuned[i]),
                "twin_mean": float(found.twins[:, i].mean()),
                "twin_error": float(found.test.error[i]),
                "t": float(found.test.t[i]),
                "p": float(found.test.p[i]),
                "q": q,
                "differs": q <= RATE,
                **{f"of_{part}": None for part in PARTS},
                **({} if i not in parts else {f"of_{part}": value for part, value in parts[i].items()}),
            }
        )
    output.table("twins", as_table("twins", rows))
    output.results([*found.rows(corpus.vocabulary.words), *_part_rows(list(parts.values()))])


def _measure(
    run: Run,
    base: LanguageModel,
    tuned: Iterable[LanguageModel],
    twins: Iterable[LanguageModel],
    *,
    corpus: PassCorpus,
) -> tuple[Floats, Floats]:
    """Return the preferences [models, words] of tuned models and twins, and the words' information [words]."""
    from lfp.ml.implicit_reward.column_predictions import column_preferences

    def predict(model: LanguageModel) -> LogProbs:
        return predict_in_contexts(run, model, corpus.texts, corpus.contexts, columns=corpus.columns)

    of_base, rows, information = predict(base), list[Floats](), np.zeros(0)
    for models in (tuned, twins):
        for model in models:
            preferences, of_columns = column_preferences(of_base, predict(model))
            rows.append(sum_words(preferences, corpus.columns))
            information = least_of_words(of_columns, corpus.columns)
            run.progress("twins: models", len(rows), run.config.twins.n + 1, float(len(rows)))
    return np.array(rows), information


def predict_in_contexts(
    run: Run,
    model: LanguageModel,
    texts: Sequence[TokenizedText],
    contexts: NDArray[np.bool_],
    *,
    columns: TokenColumns,
) -> LogProbs:
    """Return a model's log-probabilities of columns in the contexts of the marked tokens, in batches of the config."""
    from lfp.ml.implicit_reward.column_predictions import predict_columns

    return predict_columns(
        model,
        texts,
        contexts,
        columns=columns.columns,
        n_columns=columns.n_columns,
        batch_texts=run.config.stats.batch_texts,
        prepend_bos=run.config.model.prepend_bos,
    )


def sum_words(of_columns: Floats, columns: TokenColumns) -> Floats:
    """Sum values of columns over those of each word [words]; NaN for a word without columns."""
    return np.array([of_columns[list(own)].sum() if own else np.nan for own in columns.of_word])


def least_of_words(of_columns: Floats, columns: TokenColumns) -> Floats:
    """Return the smallest value among each word's columns [words]; 0 for a word without columns."""
    return np.array([of_columns[list(own)].min() if own else 0.0 for own in columns.of_word])


@dataclass(frozen=True)
class Excerpts:
    """Texts with some events, such as a word, each marked where its event stands.

    `groups` [texts] says which event a text was chosen for, `n` [texts] how often it has it.
    """

    texts: list[TokenizedText]
    text_ids: list[int]
    counted: list[NDArray[np.bool_]]
    groups: Ints
    n: Ints

    @staticmethod
    def join(parts: Sequence[Excerpts]) -> Excerpts:
        """Put excerpts of one or more events after each other."""
        texts = [text for part in parts for text in part.texts]
        text_ids = [text_id for part in parts for text_id in part.text_ids]
        counted = [flags for part in parts for flags in part.counted]
        groups, n = (np.concatenate([getattr(part, name) for part in parts]) for name in ("groups", "n"))
        return Excerpts(texts, text_ids, counted, groups, n)


def _split(
    run: Run, base: LanguageModel, tuned: LanguageModel, found: TwinWords, *, corpus: PassCorpus
) -> dict[int, dict[str, float]]:
    """Split the difference in implicit reward of the words that differ between parts of the model, by word.

    It is the mean credit of each part at the word in the tuned model less the mean of the twins'.
    """
    order = np.argsort(found.test.q, kind="stable")[:_SPLIT_WORDS]
    chosen = [int(i) for i in order if found.test.q[i] <= RATE]
    if not chosen:
        return {}
    excerpts = _find_excerpts(chosen, corpus)
    of_tuned = credit_parts(run, base, tuned, excerpts)
    of_twins = np.mean([credit_parts(run, base, twin, excerpts) for twin in load_twins(run)], axis=0)
    parts = {}
    for word in chosen:
        rows = excerpts.groups == word
        n = int(excerpts.n[rows].sum())
        difference = (of_tuned - of_twins)[rows].sum(axis=0) / max(n, 1)
        parts[word] = dict(zip(PARTS, difference.tolist(), strict=True))
    return parts


def _find_excerpts(words: Sequence[int], corpus: PassCorpus) -> Excerpts:
    tokens, numbers = corpus.tokens, {text_id: i for i, text_id in enumerate(dict.fromkeys(corpus.tokens.text_ids))}
    row_of = np.array([numbers[text_id] for text_id in tokens.text_ids])
    ids, texts, text_ids, counted, of_word, n = list(numbers), [], list[int](), [], [], []
    for word in words:
        for row in np.unique(row_of[tokens.words == word])[:_SPLIT_TEXTS]:
            inside = row_of == row
            texts.append(corpus.texts[row])
            text_ids.append(int(ids[row]))
            counted.append((tokens.words == word)[inside])
            of_word.append(word)
            n.append(int(((tokens.words == word) & tokens.is_last)[inside].sum()))
    return Excerpts(texts, text_ids, counted, np.array(of_word), np.array(n))


def credit_parts(run: Run, base: LanguageModel, model: LanguageModel, excerpts: Excerpts) -> Floats:
    """Return the credits [texts, parts] of a model's implicit reward at the marked tokens."""
    from lfp.ml.implicit_reward.ledger import module_credits

    with name_texts(excerpts.text_ids):
        found = module_credits(
            base,
            model,
            excerpts.texts,
            counted=excerpts.counted,
            batch_texts=run.config.stats.batch_texts,
            batch_key="stats.batch_texts",
            prepend_bos=run.config.model.prepend_bos,
            progress=run.progress,
        )
    credits = np.zeros((len(excerpts.texts), len(PARTS)))
    for column, module in enumerate(found.modules):
        credits[:, _part_of(module.kind)] += found.credits[:, column]
    return credits


def _part_of(kind: str) -> int:
    return PARTS.index(kind if kind in PARTS else "norms")


def _part_rows(parts: Sequence[dict[str, float]]) -> list[ResultRow]:
    """Say which share of the differences of all split words each part makes, by size."""
    total = sum(abs(value) for of_word in parts for value in of_word.values())
    return [
        ResultRow.from_estimate(
            SECTION, "part", sum(abs(of_word[part]) for of_word in parts) / total, group=part, n=len(parts)
        )
        for part in PARTS
        if total
    ]
