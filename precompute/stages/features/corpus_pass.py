"""What the single pass of both models over the corpus runs over, and what it draws from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lfp.texts.corpus import CorpusText
from lfp.texts.lexicon import lexicon_of
from lfp.texts.vocabulary import TokenColumns, Vocabulary, token_columns, token_words
from precompute.run.inputs import mark_responses, read_statistics_texts, tokenize_texts
from precompute.run.work_folder import Run

if TYPE_CHECKING:
    from lfp.ml.implicit_reward.word_occurrences import CorpusTokens, Drawn
    from lfp.ml.models.loading import LanguageModel
    from lfp.ml.models.tokenization import TokenizedText

Spelled = tuple[str, tuple[int, ...], tuple[int, ...]]
"""What words are counted in, with token ids and starts: a text, or its responses alone, in their places."""


@dataclass(frozen=True)
class PassCorpus:
    """What the pass runs over, and what it draws from it.

    `drawn` are the tokens whose activations are kept, `contexts` [tokens] those whose contexts the regression of the
    implicit reward on word and context sees; `columns` are the columns of that regression.
    """

    texts: list[TokenizedText]
    tokens: CorpusTokens
    vocabulary: Vocabulary
    spelled: list[Spelled]
    columns: TokenColumns
    drawn: Drawn
    contexts: NDArray[np.bool_]


def build_corpus(run: Run, tuned: LanguageModel, *, with_lexicon: bool) -> PassCorpus:
    """Tokenize the run's texts, build their vocabulary, and draw tokens and contexts by the run's seed.

    `with_lexicon` lets entries of the lexicon be words where no spaces are written.
    """
    from lfp.ml.implicit_reward.matched_contexts import draw_contexts
    from lfp.ml.implicit_reward.word_occurrences import CorpusTokens, draw

    probes, seed = run.config.probes, run.config.seed
    texts = read_statistics_texts(run)
    tokenized = tokenize_texts(run, tuned, texts)
    responses = mark_responses(texts, tokenized)
    stated = state_texts(texts, tokenized)
    spelled = [(text, row.token_ids, row.token_starts) for text, row in zip(stated, tokenized, strict=True)]
    vocabulary = build_vocabulary(run, stated, with_lexicon)
    words = [token_words(vocabulary, text, token_starts) for text, _, token_starts in spelled]
    tokens = CorpusTokens.from_texts(
        [text.text_id for text in texts], [text.token_ids for text in tokenized], words, responses
    )
    first = 0 if run.config.model.prepend_bos and tuned.bos_id is not None else 1  # else nothing precedes token 0
    return PassCorpus(
        tokenized,
        tokens,
        vocabulary,
        spelled,
        token_columns(vocabulary, spelled, d_vocab=tuned.d_vocab),
        draw(tokens, n_sample=probes.max_rows, per_word=probes.word_occurrences, first_position=first, seed=seed),
        draw_contexts(
            tokens.text_ids,
            tokens.positions,
            n=probes.matched_contexts,
            first_position=first,
            seed=seed,
            counts=tokens.in_response,
        ),
    )


def state_texts(texts: Sequence[CorpusText], tokenized: Sequence[TokenizedText]) -> list[str]:
    """Return what words are counted in: texts cut to their tokens, of dialogues what the assistant wrote, in place."""
    return [text.blanked[: len(tokens.text)] for text, tokens in zip(texts, tokenized, strict=True)]


def build_vocabulary(run: Run, stated: Sequence[str], with_lexicon: bool) -> Vocabulary:
    """Count the words of the run's texts, the same in every stage."""
    probes = run.config.probes
    return Vocabulary.from_texts(
        stated,
        min_count=probes.min_word_count,
        n_folds=probes.folds,
        seed=run.config.seed,
        lexicon=lexicon_of(run.config.feedback, beside=run.config_dir) if with_lexicon else (),
    )
