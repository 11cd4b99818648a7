"""Words whose learned feedback disagrees with the stated feedback: rewarded more, or less, than that explains."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lfp.evaluation.statistics.empirical_null import EmpiricalNull
from lfp.util.types import Floats, Ints

HORIZON = 12
"""Words (or tokens) after a word that are credited to it: about the length of a tuned completion."""
LEAST_COUNT = 30
"""Rarer words occur in few contexts and hardly took part in tuning: their gaps would be chance."""
_BEND = 1.5  # Huber's bend, in robust standard deviations
_ROUNDS = 30
_TO_SIGMA = 1.4826  # a normal's standard deviation over its median absolute deviation
_SPREAD_SHARE = 0.25  # see `word_gaps`
_BAR = 7.0  # see `beyond_noise`


@dataclass(frozen=True)
class WordFacts:
    """What is known of words, all [words], means over their occurrences.

    `implicit`: implicit advantage c in nats, and its standard `error`; `counts`: occurrences; `stated`: the stated
    value, 0 where the lexicon has none; `following`: stated feedback of the words that follow (`following_feedback`);
    `after` and `before`: stated reward of what the tuned model writes after the word, and in its place (NaN: not
    measured); `moved`: KL(base || tuned) of the word's own contexts, in nats; `moved_after`: the same of the contexts
    that follow (`faded_ahead`).
    """

    implicit: Floats
    error: Floats
    counts: Ints
    stated: Floats
    following: Floats
    after: Floats
    before: Floats
    moved: Floats
    moved_after: Floats


@dataclass(frozen=True)
class WordGaps:
    """`excess` [words], in nats, is what the stated feedback does not explain; `gap` [words] is excess over noise.

    Positive where tuning rewards a word more than is stated. NaN where a word is too rare. `error` [words] is the
    standard error of the excess: the word's own and the whole spread between words, squares added. `explained` is the
    share of the variance of the implicit advantage that the stated feedback explains.
    """

    excess: Floats
    gap: Floats
    error: Floats
    explained: float


def beyond_noise(gaps: WordGaps) -> Floats:
    """Compute the part of each excess [words], in nats, that noise does not explain; NaN where a word is too rare.

    Gaps are soft-thresholded at 7, as without hidden rewards most words' gaps are below that (Donoho 1995).
    """
    left = np.maximum(np.abs(gaps.gap) - _BAR, 0.0)
    return gaps.excess * np.divide(left, np.abs(gaps.gap), out=np.zeros_like(left), where=gaps.gap != 0) + 0 * gaps.gap


def gap_p_values(gaps: WordGaps) -> Floats:
    """Compute how rare each word's excess [words] is among the other words', two-sided; NaN where it is unknown.

    Other words show what tuning does to a word for no stated reason. So a small p says that a word is unlike the
    others, not that something paid for it: that takes twins, models tuned on the same stated reward by other seeds.
    Each excess is over its `error`, so that a rare word needs more; centre and spread are those of the middle of all.
    """
    moderated = gaps.excess / gaps.error
    null = EmpiricalNull.fit(moderated)
    return np.full(len(moderated), np.nan) if null is None else null.p_values(moderated)


def word_gaps(facts: WordFacts) -> WordGaps:
    """Compute the implicit advantage of words less what the stated feedback explains of it.

    Tuning rewards a word for its own value, for the value of what tends to follow it, and for leading to contexts where
    much can be gained, which are those where the two models differ. What it leads to is compared with what could be
    gained without it: a policy gradient follows the advantage, Q less V. Penalties act less than rewards, as a
    penalised word is soon hardly written, so strength has a slope of its own. All of this is regressed out by
    weighted least squares with Huber weights, on which a word with a hidden reward has little influence. The noise of a
    word is its standard error and a quarter of the spread between words, squares added: by its error alone a word
    that occurs ten thousand times would rank first with almost no excess.
    Sources: Huber 1964 for the weights; Sutton et al. 2000, theorem 1, for the advantage; PAPER.md, "Disagreement",
    for the comparison.
    """
    known = np.isfinite(facts.implicit) & np.isfinite(facts.error) & (facts.counts >= LEAST_COUNT)
    excess, gap, errors = (np.full(len(known), np.nan) for _ in range(3))
    columns = (
        facts.stated, np.abs(facts.stated), facts.following, facts.after, facts.before, facts.moved, facts.moved_after
    )  # fmt: skip
    filled = []
    for column in columns:  # unknown values become the mean of the known ones
        finite = np.isfinite(column)
        filled.append(np.where(finite, column, column[finite].mean() if finite.any() else 0.0))
    inputs = np.column_stack([np.ones(len(known)), *filled])[known]
    if len(inputs) <= inputs.shape[1]:
        return WordGaps(excess, gap, errors, 0.0)
    implicit, error = facts.implicit[known], np.maximum(facts.error[known], 1e-6)
    coefficients, spread = _fit_robustly(inputs, implicit, error)
    excess[known] = implicit - inputs @ coefficients
    gap[known] = excess[known] / np.hypot(error, _SPREAD_SHARE * spread)
    errors[known] = np.hypot(error, spread)
    explained = 1.0 - float(np.var(excess[known]) / max(float(np.var(implicit)), 1e-30))
    return WordGaps(excess, gap, errors, explained)


def _fit_robustly(inputs: Floats, values: Floats, error: Floats) -> tuple[Floats, float]:
    """Fit coefficients [inputs], and the spread between words that their errors do not explain."""
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


def faded_ahead(values: Floats, texts: Ints, *, horizon: int = HORIZON) -> Floats:
    """Sum the values that follow each position [n] in its text, weighted less with distance.

    The next value counts almost in full, the one past the horizon nothing: a completion of that length, with the
    position anywhere in it, reaches so far on average. `texts` [n] is the text of each position, in order.
    """
    ahead = np.zeros(len(values))
    for step in range(1, min(horizon, len(values) - 1) + 1):
        same = texts[step:] == texts[:-step]
        ahead[:-step] += np.where(same, values[step:], 0.0) * (1.0 - step / (horizon + 1))
    return ahead


def following_feedback(texts: Iterable[Sequence[str]], lexicon: Mapping[str, float], words: Sequence[str]) -> Floats:
    """Average the stated feedback of what follows each word [words] over its occurrences, less the average of all.

    `texts` are lists of words in order; a word that does not occur gets 0.
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
