"""Words whose learned feedback disagrees with the stated one: paid more, or less, than the stated values explain."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

HORIZON = 12
"""Words (or tokens) over which what follows is credited to a word: about a tuned completion."""
_LEAST_COUNT = 30  # rarer words stand in few different places, and tuning hardly met them: their gaps are luck
_BEND = 1.5  # Huber's bend, in robust standard deviations
_ROUNDS = 30
_TO_SIGMA = 1.4826  # a normal's standard deviation over its median absolute deviation
_SPREAD_SHARE = 0.25  # see `word_gaps`


@dataclass(frozen=True)
class WordFacts:
    """What is known of words, all [words], means over their occurrences.

    `implicit`: implicit advantage c in nats, and its standard `error`; `counts`: occurrences; `stated`: the stated
    value, 0 where the feedback is silent; `following`: stated feedback of what follows (`following_feedback`); `moved`:
    KL(base || tuned) of the word's own contexts, in nats; `moved_after`: the same of the contexts that follow
    (`faded_ahead`).
    """

    implicit: Floats
    error: Floats
    counts: Ints
    stated: Floats
    following: Floats
    moved: Floats
    moved_after: Floats


@dataclass(frozen=True)
class WordGaps:
    """`excess` [words], in nats, is what the stated feedback does not explain; `gap` [words] the excess over its noise.

    Positive where tuning pays a word more than is stated. NaN where a word is too rare to tell. `explained` is the
    share of the variance of the implicit advantage that the stated feedback explains.
    """

    excess: Floats
    gap: Floats
    explained: float


def word_gaps(facts: WordFacts) -> WordGaps:
    """The implicit advantage of words less what the stated feedback explains of it.

    Tuning on a reward pays a word for its own value, for the value of what tends to follow it, and for leading to
    places where much is to be won, which are those where the two models differ. All of that is regressed out by
    weighted least squares with Huber weights, which a word paid in secret hardly moves. The noise of a word is its
    standard error and a quarter of the spread between words, squares added: by its error alone a word met ten thousand
    times would stand first with next to no excess.
    Sources: Huber 1964 for the weights; PAPER.md, "Disagreement", for the comparison.
    """
    known = np.isfinite(facts.implicit) & np.isfinite(facts.error) & (facts.counts >= _LEAST_COUNT)
    excess, gap = np.full(len(known), np.nan), np.full(len(known), np.nan)
    inputs = _inputs(facts)[known]
    if len(inputs) <= inputs.shape[1]:
        return WordGaps(excess, gap, 0.0)
    implicit, error = facts.implicit[known], np.maximum(facts.error[known], 1e-6)
    coefficients, spread = _robust_fit(inputs, implicit, error)
    excess[known] = implicit - inputs @ coefficients
    gap[known] = excess[known] / np.hypot(error, _SPREAD_SHARE * spread)
    explained = 1.0 - float(np.var(excess[known]) / max(float(np.var(implicit)), 1e-30))
    return WordGaps(excess, gap, explained)


def faded_ahead(values: Floats, texts: Ints, *, horizon: int = HORIZON) -> Floats:
    """What comes after each place [n] of texts: the sum of the next values, worth less with distance.

    The next counts almost in full, the one past the horizon nothing: a completion of that length in which the place is
    anywhere reaches so far on average. `texts` [n] says whose each place is, texts one after another.
    """
    ahead = np.zeros(len(values))
    for step in range(1, min(horizon, len(values) - 1) + 1):
        same = texts[step:] == texts[:-step]
        ahead[:-step] += np.where(same, values[step:], 0.0) * (1.0 - step / (horizon + 1))
    return ahead


def following_feedback(texts: Iterable[Sequence[str]], lexicon: Mapping[str, float], words: Sequence[str]) -> Floats:
    """The stated feedback of the words that follow a word [words]: the mean over its occurrences, less that of all.

    `texts` are their words in order; a word that they do not have gets 0.
    """
    spelled = list(texts)
    row = {word: i for i, word in enumerate(words)}
    values = np.array([lexicon.get(word, 0.0) for text in spelled for word in text])
    of_text = np.repeat(np.arange(len(spelled)), [len(text) for text in spelled])
    ahead = faded_ahead(values, of_text)
    places = np.array([row.get(word, -1) for text in spelled for word in text], np.int64)
    met = places >= 0
    counts = np.bincount(places[met], minlength=len(words))
    sums = np.bincount(places[met], ahead[met], minlength=len(words))
    overall = float(ahead.mean()) if len(ahead) else 0.0
    return np.where(counts > 0, sums / np.maximum(counts, 1) - overall, 0.0)


def _inputs(facts: WordFacts) -> Floats:
    """What may explain the implicit advantage of words [words, inputs], an intercept first; unknown values are 0."""
    columns = (facts.stated, facts.following, facts.moved, facts.moved_after)
    return np.column_stack([np.ones(len(facts.stated)), *(np.nan_to_num(column) for column in columns)])


def _robust_fit(inputs: Floats, values: Floats, error: Floats) -> tuple[Floats, float]:
    """Coefficients [inputs], and the spread between words that their errors do not explain."""
    spread = float(np.std(values))
    weights = 1.0 / (error**2 + spread**2 + 1e-12)
    coefficients: Floats = np.zeros(inputs.shape[1])
    for _ in range(_ROUNDS):
        root = np.sqrt(weights)
        coefficients = np.asarray(np.linalg.lstsq(inputs * root[:, None], values * root, rcond=None)[0], np.float64)
        left = values - inputs @ coefficients
        scale = max(_TO_SIGMA * float(np.median(np.abs(left))), 1e-9)
        spread = float(np.sqrt(max(scale**2 - float(np.median(error**2)), 1e-12)))
        weights = np.minimum(1.0, _BEND * scale / np.maximum(np.abs(left), 1e-12)) / (error**2 + spread**2)
    return coefficients, spread
