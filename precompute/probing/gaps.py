"""How far the learned feedback of words is from the stated one, by what the pass over the corpus found out."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from lfp.evaluation.word_gaps import WordFacts, WordGaps, following_feedback, word_gaps
from lfp.texts.lexicon import words_of
from lfp.util.types import Floats
from precompute import pair
from precompute.probing.targets import Words
from precompute.run import Run


def gaps_of(run: Run, words: Words, lexicon: Mapping[str, float]) -> WordGaps:
    """The gaps of the vocabulary's words; `lexicon` is the stated feedback."""
    texts = [[word.word for word in words_of(text.text)] for text in pair.statistics_texts(run)]
    means, ahead = words.means, _ahead(run)
    return word_gaps(
        WordFacts(
            implicit=means["advantage"],
            error=means["advantage_error"],
            counts=means["n"].astype(np.int64),
            stated=np.nan_to_num(words.values),
            following=following_feedback(texts, lexicon, words.words),
            after=ahead["after"],
            before=ahead["before"],
            moved=means["moved"],
            moved_after=means["moved_after"],
        )
    )


def _ahead(run: Run) -> dict[str, Floats]:
    """What stage `rollouts` found [words]."""
    with np.load(run.folder("rollouts") / "rollouts.npz") as stored:
        return {name: stored[name] for name in stored.files}
