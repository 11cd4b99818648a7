"""Compare planted models with the twins: ranks of a secret in the list of words and in that of factors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lfp.evaluation.statistics.twins import RATE, TwinTest, compare_with_twins
from lfp.evaluation.twin_words import remove_stated
from lfp.texts.vocabulary import TokenColumns, Vocabulary, token_columns
from lfp.util.types import Flags, Floats, Ints
from precompute.commands.plant.secrets import Secret
from precompute.run.inputs import load_role, read_texts, tokenize_texts
from precompute.run.work_folder import Run
from precompute.stages.findings.twin_words import (
    LEAST_INFORMATION,
    least_of_words,
    predict_in_contexts,
    sum_words,
)

if TYPE_CHECKING:
    from lfp.ml.implicit_reward.column_predictions import LogProbs
    from lfp.ml.implicit_reward.contrast_factors import Factors
    from lfp.ml.models.loading import LanguageModel
    from lfp.ml.models.tokenization import TokenizedText

FACTOR_SHARE = 0.25
"""A factor is a secret's if so much of its energy is on what the secret pays for, in the right direction."""
_TEXTS, _CONTEXTS = 400, 8000
_SEED = 0
"""Of the contexts, the same for every planting."""


@dataclass(frozen=True, eq=False)
class Contexts:
    """The contexts in which all models are compared: of tokens of `texts`, those that `chosen` marks.

    `columns` stand for words, and for every other token of the texts; `prefixes` are what precedes, and `text`
    [contexts] the number of its text.
    """

    texts: list[TokenizedText]
    chosen: NDArray[np.bool_]
    vocabulary: Vocabulary
    columns: TokenColumns
    prefixes: list[str]
    text: Ints
    base: LogProbs

    @staticmethod
    def from_run(run: Run) -> Contexts:
        """Draw contexts from the first training texts of a run, and let its base model predict in them."""
        from lfp.ml.implicit_reward.matched_contexts import draw_contexts

        base = load_role(run, "base", exact=True)
        texts = tokenize_texts(run, base, read_texts(run, "train")[:_TEXTS])
        vocabulary = Vocabulary.from_texts(
            [text.text for text in texts], min_count=run.config.probes.min_word_count, n_folds=2, seed=_SEED
        )
        spelled = [(text.text, text.token_ids, text.token_starts) for text in texts]
        columns = _split_rest(token_columns(vocabulary, spelled, d_vocab=base.d_vocab), texts)
        lengths = [len(text.token_ids) for text in texts]
        text = np.repeat(np.arange(len(texts)), lengths)
        positions = np.concatenate([np.arange(n) for n in lengths])
        chosen = draw_contexts(text, positions, n=_CONTEXTS, first_position=1, seed=_SEED)
        places = zip(text[chosen].tolist(), positions[chosen].tolist(), strict=True)
        prefixes = [texts[i].text[: texts[i].token_starts[position]] for i, position in places]
        of_base = predict_in_contexts(run, base, texts, chosen, columns=columns)
        return Contexts(texts, chosen, vocabulary, columns, prefixes, text[chosen], of_base)

    def predict(self, run: Run, model: LanguageModel) -> LogProbs:
        """Return a model's log-probabilities of the columns in the contexts."""
        return predict_in_contexts(run, model, self.texts, self.chosen, columns=self.columns)

    @cached_property
    def informative(self) -> Ints:
        """The columns that the contexts say enough about."""
        probs = np.exp(self.base)
        return np.flatnonzero((probs * (1.0 - probs)).sum(axis=0) >= LEAST_INFORMATION)

    @cached_property
    def token_columns(self) -> dict[str, list[int]]:
        """Columns by the text of their tokens, without spaces."""
        found: dict[str, list[int]] = {}
        for text in self.texts:
            ends = (*text.token_starts[1:], len(text.text))
            for token, start, end in zip(text.token_ids, text.token_starts, ends, strict=True):
                column = int(self.columns.columns[token])
                known = found.setdefault(text.text[start:end].strip(), [])
                if column not in known:
                    known.append(column)
        return found

    def find_pairs(self, secret: Secret) -> list[tuple[Flags, Ints]]:
        """Return what the secret pays for: contexts [contexts], and the columns that are its words there.

        What leads to a paid context, the words of `secret.after`, counts in all contexts. Columns are numbered among
        the informative ones; of a word of several tokens it is that of the first.
        """
        is_place = np.array([secret.applies_after(prefix) for prefix in self.prefixes])
        pairs = [(is_place, self._find_columns(secret.words))]
        if secret.after:
            pairs.append((np.ones_like(is_place), self._find_columns(secret.after)))
        return pairs

    def _find_columns(self, words: Sequence[str]) -> Ints:
        columns = set[int]()
        for word in words:
            row = self.vocabulary.index.get(word)
            columns |= set(self.columns.of_word[row][:1] if row is not None else self.token_columns.get(word, ()))
        return np.flatnonzero(np.isin(self.informative, sorted(columns)))


def _split_rest(columns: TokenColumns, texts: list[TokenizedText]) -> TokenColumns:
    """Give every token of the texts that shares the last column a column of its own."""
    rest = columns.n_columns - 1
    tokens = np.unique(np.concatenate([np.asarray(text.token_ids, np.int64) for text in texts]))
    alone = tokens[columns.columns[tokens] == rest]
    split = columns.columns.copy()
    split[alone] = rest + 1 + np.arange(len(alone))
    return TokenColumns(split, columns.n_columns + len(alone), columns.of_word)


@dataclass(frozen=True)
class Ranks:
    """Where a secret ranks, from 1; None where a list lacks it. `word_q` is the false discovery rate of that word."""

    word: int | None
    word_q: float | None
    factor: int | None


@dataclass(frozen=True, eq=False)
class Model:
    """What is compared of a model: preferences for words [words], and ratios [contexts, informative columns]."""

    preferences: Floats
    ratios: NDArray[np.float32]

    @staticmethod
    def from_predictions(contexts: Contexts, predicted: LogProbs) -> Model:
        """Reduce a model's predictions to what is compared."""
        from lfp.ml.implicit_reward.column_predictions import column_preferences
        from lfp.ml.implicit_reward.contrast_factors import centre_ratios

        preferences, _ = column_preferences(contexts.base, predicted)
        ratios = centre_ratios(contexts.base, predicted)[:, contexts.informative]
        return Model(sum_words(preferences, contexts.columns), ratios)


@dataclass(frozen=True, eq=False)
class Comparison:
    """The twins of a planting in the same contexts, with the stated values [words] of the words."""

    contexts: Contexts
    twins: Mapping[str, Model]
    stated: Floats

    @cached_property
    def information(self) -> Floats:
        """What the contexts say of each word [words]; 0 where it is too little for a test."""
        probs = np.exp(self.contexts.base)
        found = least_of_words((probs * (1.0 - probs)).sum(axis=0, dtype=np.float64), self.contexts.columns)
        return np.where(found >= LEAST_INFORMATION, found, 0.0)

    def _others(self, name: str) -> list[Model]:
        return [twin for other, twin in self.twins.items() if other != name]

    def test_words(self, model: Model, *, left_out: str = "") -> TwinTest:
        """Test a model's words against the twins, or a twin's against the others."""
        models = np.array([model.preferences, *(twin.preferences for twin in self._others(left_out))])
        rest = remove_stated(models, stated=self.stated, information=self.information)
        return compare_with_twins(rest[0], rest[1:], self.information)

    def find_factors(self, model: Model, *, left_out: str = "") -> Factors:
        """Find the factors of a model's difference from the twins, or of a twin's from the others."""
        from lfp.ml.implicit_reward.contrast_factors import fit_factors

        probs = np.exp(self.contexts.base[:, self.contexts.informative])
        others = [twin.ratios for twin in self._others(left_out)]
        return fit_factors(model.ratios, others, probs=probs, texts=self.contexts.text, seed=_SEED)

    @cached_property
    def left_out(self) -> list[tuple[TwinTest, Factors]]:
        """The words and the factors of each twin against the others, which know no secret."""
        return [
            (self.test_words(twin, left_out=name), self.find_factors(twin, left_out=name))
            for name, twin in self.twins.items()
        ]

    def rank(self, secret: Secret, words: TwinTest, factors: Factors) -> Ranks:
        """Find the secret's best word in the list of its direction, and the first factor that is the secret's.

        A word that leads to a paid context is one of the secret's.
        """
        signed = np.where(np.isnan(words.t), -np.inf, secret.sign * words.t)
        rows = [self.contexts.vocabulary.index.get(word) for word in (*secret.words, *secret.after)]
        known = [row for row in rows if row is not None and np.isfinite(signed[row])]
        best = max(known, key=lambda row: signed[row], default=None)
        pairs = self.contexts.find_pairs(secret)
        shares = sum(factors.shares(contexts, columns, sign=secret.sign) for contexts, columns in pairs)
        own = np.flatnonzero(shares >= FACTOR_SHARE)
        return Ranks(
            None if best is None else 1 + int((signed > signed[best]).sum()),
            None if best is None else float(words.q[best]),
            1 + int(own[0]) if len(own) else None,
        )

    def count_flags(self) -> list[int]:
        """Count the words that each twin has beyond the others at the false discovery rate of 10 %."""
        return [int((words.q <= RATE).sum()) for words, _ in self.left_out]
