"""Probes of words: every target on every kind of inputs, judged on the words of the fold that they never saw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import scipy.sparse as sp

from lfp.evaluation.results import ResultRow
from lfp.evaluation.words import ScoredWords
from lfp.probes.folds import HeldOutErrors, Penalties, row_folds
from lfp.texts.vocabulary import word_folds
from lfp.util.types import Floats, Ints
from precompute.run.executor import Report, Shelf
from precompute.run.work_folder import Run
from precompute.stages.probes import word_rows
from precompute.stages.probes.fitting import (
    Judged,
    WordProbe,
    fit_rows,
    fit_words,
    map_fits,
    measure_errors,
    predict_words,
)
from precompute.stages.probes.inputs import COMPARED, WITH_ALPHA_OF, Encoded, Inputs, Kept, encode_kept
from precompute.stages.probes.targets import (
    POOLING,
    WORD_TARGETS,
    Rows,
    SharedTokens,
    Words,
    delta_rows,
    feedback_rows,
    implicit_rows,
    overlap_rows,
    rows_before,
)
from precompute.stages.probes.triples import TriplePoints
from precompute.stages.probes.word_gaps import Unexplained, fit_unexplained
from precompute.stages.probes.word_rows import Key

_RANDOM_ROWS = ("sae", "token_identity")
"""Inputs whose probes are fitted on the paper's split too."""
BUNDLES = "sae"
"""The inputs that are the bundle's features."""
_BEFORE = "before"
SHOWN = ("sae", "base_sae")
"""Inputs whose predictions of words the vocabulary shows."""


@dataclass(frozen=True)
class Task:
    """What every word probe is fitted and judged on; `lasts` are the rows of the target feedback, by slot and by word.

    `shared` has the tokens of the words of each fold; `excess` [words] is the part of the implicit advantage that the
    stated feedback does not explain, beyond noise.
    `points` is None where no word is scored: then the implicit reward alone is a target.
    """

    run: Run
    kept: Kept
    words: Words
    scored: ScoredWords
    points: TriplePoints | None
    lasts: tuple[Ints, Ints]
    shared: SharedTokens
    excess: Floats

    def for_worker(self) -> Task:
        """Return it as another process gets it."""
        return replace(self, run=self.run.for_worker())


@dataclass(frozen=True)
class WordProbes:
    """Word probes, the random split's predictions [words, 1 + nulls], and mean features of words by inputs.

    `over_tokens` sums over a word's tokens, `at_last` [words, columns] is of its last token; both only of shown inputs.
    `before` [words, 1] by model are predictions of the implicit reward from features at the token before;
    `unexplained` and `overlap`, how words share tokens with rows, are of the bundle's features only.
    """

    probes: dict[Key, WordProbe]
    random: dict[Key, Floats]
    over_tokens: dict[str, Judged]
    at_last: dict[str, sp.csr_array]
    before: dict[str, Floats]
    unexplained: dict[str, Unexplained]
    overlap: dict[str, list[ResultRow]]


def judge_words(
    of_words: WordProbes,
    ids: Mapping[Key, int],
    task: Task,
    reseeded: Sequence[tuple[Inputs, Inputs]],
    scratch: Path | None = None,
) -> list[ResultRow]:
    """Judge every probe on the words that the lexicon scores; see `fit_word_probes` for `scratch`."""
    words, scored = task.words, task.scored
    return [
        *word_rows.held_out_rows(of_words.probes, ids, scored),
        *word_rows.random_rows(of_words.random, scored),
        *word_rows.before_rows(of_words.before, scored),
        *word_rows.difference_rows(of_words.probes, _refit_words(task, reseeded, scratch), scored),
        *word_rows.measured_rows(words, scored),
        *of_words.overlap[BUNDLES],
    ]


def fit_word_probes(task: Task, inputs: Sequence[Inputs], scratch: Path | None = None) -> WordProbes:
    """Fit every target on every kind of inputs.

    `scratch` is the folder that keeps what workers of a cluster did.
    """
    found = WordProbes({}, {}, {}, {}, {}, {}, {})
    fit = partial(_fit_kind, task.for_worker(), _choose_alphas(task, inputs, scratch))
    sizes, shelf = [_n_fits(task, kind.name) for kind in inputs], Shelf(scratch, "words")
    for of_kind in map_fits(task.run, fit, inputs, what="probes: words", sizes=sizes, shelf=shelf):
        for name, part in vars(of_kind).items():
            getattr(found, name).update(part)
    return found


@dataclass(frozen=True)
class _Alphas:
    """Alphas that the two sides of a comparison share, by target and kind; the others choose their own."""

    chosen: Mapping[Key, Penalties]

    def of(self, target: str, name: str) -> Penalties | None:
        return self.chosen.get((target, WITH_ALPHA_OF.get(name, name)))


def _choose_alphas(task: Task, inputs: Sequence[Inputs], scratch: Path | None) -> _Alphas:
    """Choose the alpha of each comparison by the errors of both sides.

    Taus fall as alpha rises, while errors hardly change: with an alpha each, a difference of tau can be that of alphas.
    """
    compared = [kind for kind in inputs if kind.name in {*COMPARED, *COMPARED.values()}]
    measure, shelf = partial(_measure_kind, task.for_worker()), Shelf(scratch, "alphas")
    errors = map_fits(task.run, measure, compared, what="probes: alphas", shelf=shelf)
    found = dict(zip((kind.name for kind in compared), errors, strict=True))
    chosen: dict[Key, Penalties] = {}
    for tuned, base in COMPARED.items():
        for target, own in found[tuned].items():
            known = [errors for errors in (own, found[base][target]) if errors is not None]
            if known:
                alphas = HeldOutErrors.total(known).choose(np.asarray(task.run.config.probes.alphas, float))
                chosen |= {(target, tuned): alphas, (target, base): alphas}
    return _Alphas(chosen)


def _measure_kind(task: Task, kind: Inputs, report: Report) -> dict[str, HeldOutErrors | None]:
    """Compute the errors by which alphas are chosen, by target."""
    encoded = _encode(task, kind)
    rows = {target: _rows(target, task, kind, encoded) for target in _targets(task)}
    if kind.name in SHOWN:
        rows[_BEFORE] = _rows_before(task, kind, encoded)
    errors = {target: measure_errors(kind, of_target, task.run.config.probes) for target, of_target in rows.items()}
    report(1)
    return errors


def _refit_words(task: Task, reseeded: Sequence[tuple[Inputs, Inputs]], scratch: Path | None) -> word_rows.Again:
    """Predict words from the dictionaries of every further seed, each with folds of its own and without nulls."""
    refit, shelf = partial(_refit_seed, task.for_worker()), Shelf(scratch, "reseeded-words")
    found = map_fits(
        task.run, refit, list(enumerate(reseeded, start=1)), what="probes: other dictionaries", shelf=shelf
    )
    return {target: [of_seed[target] for of_seed in found] for target in WORD_TARGETS}


def _refit_seed(
    task: Task, of_seed: tuple[int, tuple[Inputs, Inputs]], report: Report
) -> dict[str, tuple[Floats, Floats]]:
    """Predict words [words] from the tuned and the base model's dictionary of a further seed, by target."""
    config, (number, sides) = task.run.config.probes, of_seed
    fold_of = word_folds(task.words.words, n_folds=config.folds, seed=task.run.config.seed + number)
    folds = np.array([fold_of[word] for word in task.words.words], np.int64)
    other = replace(
        task,
        words=replace(task.words, folds=folds),
        scored=replace(task.scored, shuffled=task.scored.shuffled[:0]),
        shared=SharedTokens.from_words(task.kept, folds, config),
    )
    found, of_sides = {}, [_prepare(other, kind) for kind in sides]
    for target in WORD_TARGETS:
        known = [errors for side in of_sides if (errors := side[target].errors) is not None]
        alphas = HeldOutErrors.total(known).choose(np.asarray(config.alphas, float)) if known else None
        tuned, base = (
            predict_words(kind, side[target].rows, side[target].judged, config=config, alphas=alphas)
            for kind, side in zip(sides, of_sides, strict=True)
        )
        found[target] = tuned, base
    report(1)
    return found


@dataclass(frozen=True)
class _Prepared:
    """What a probe is fitted on, the words that it predicts, and the errors that choose its alpha."""

    rows: Rows
    judged: Judged
    errors: HeldOutErrors | None


def _prepare(task: Task, inputs: Inputs) -> dict[str, _Prepared]:
    """Prepare a probe of every target."""
    encoded, made = _encode(task, inputs), {}
    for target in WORD_TARGETS:
        rows = _rows(target, task, inputs, encoded)
        errors = measure_errors(inputs, rows, task.run.config.probes)
        made[target] = _Prepared(rows, _judged(target, encoded, task), errors)
    return made


def _judged(target: str, encoded: Encoded, task: Task) -> Judged:
    """Return what words are predicted from: their last tokens, or the sum over their tokens."""
    if POOLING[target] == "last":
        return Judged(encoded.words.at_last, np.ones(len(task.words.folds)), task.words.folds)
    return Judged(encoded.words.over_tokens, encoded.words.tokens, task.words.folds)


def _targets(task: Task) -> tuple[str, ...]:
    return WORD_TARGETS if task.points is not None else ("implicit_reward",)


def _n_fits(task: Task, inputs: str) -> int:
    """Return how many fits `_fit_kind` makes."""
    n_splits = 1 + (inputs in _RANDOM_ROWS)
    return n_splits * len(_targets(task)) + (inputs == BUNDLES) + (inputs in SHOWN)


def _encode(task: Task, inputs: Inputs) -> Encoded:
    """Encode the kept tokens: means of words, and the rows that probes are fitted on."""
    kept = task.kept
    wanted = {"sample": kept.sample, "lasts": task.lasts[0]}
    if inputs.name in SHOWN:
        wanted[_BEFORE] = np.unique(kept.before[kept.before >= 0])
    return encode_kept(task.kept, inputs.encode, source=inputs.source, n_words=len(task.words.words), rows=wanted)


def _rows_before(task: Task, inputs: Inputs, encoded: Encoded) -> Rows:
    """Return the rows of the implicit reward with the features before it."""
    known = task.kept.before[task.kept.before >= 0]
    at = np.searchsorted(np.unique(known), known)
    return rows_before(_rows("implicit_reward", task, inputs, encoded), encoded.rows[_BEFORE][at], task.kept)


def _fit_kind(task: Task, alphas: _Alphas, inputs: Inputs, report: Report) -> WordProbes:
    """Fit every target on a kind of inputs."""
    config, seed, name = task.run.config.probes, task.run.config.seed, inputs.name
    kept, encoded = task.kept, _encode(task, inputs)
    found = WordProbes({}, {}, {}, {}, {}, {}, {})
    over_tokens = _judged("implicit_reward", encoded, task)
    for target in _targets(task):
        rows = _rows(target, task, inputs, encoded)
        judged = _judged(target, encoded, task)
        found.probes[target, name] = fit_words(
            target, inputs, rows, judged, scored=task.scored.rows, config=config, alphas=alphas.of(target, name)
        )
        report(1)
        if name in _RANDOM_ROWS:
            # the paper's split holds out rows, not words, so that a word is on both sides
            folds = row_folds(len(rows.words), n_folds=config.folds, seed=seed)
            found.random[target, name] = fit_rows(inputs, replace(rows, folds=folds, barred=None), judged, config)
            report(1)
    if name == BUNDLES:
        if len(task.scored.rows):
            rows = _rows("implicit_reward", task, inputs, encoded)
            ids = kept.token_ids[kept.sample]
            found.overlap[name] = overlap_rows(rows, ids, kept, task.words, task.scored.rows)
        found.unexplained[name] = fit_unexplained(
            encoded.rows["sample"], kept.words[kept.sample], inputs.place_of, task.words, task.excess, config, seed=seed
        )
        report(1)
    if name in SHOWN:
        found.over_tokens[name] = over_tokens
        found.at_last[name] = encoded.words.at_last
        rows = _rows_before(task, inputs, encoded)
        found.before[inputs.model] = fit_rows(inputs, rows, over_tokens, config, alphas=alphas.of(_BEFORE, name))
        report(1)
    return found


def _rows(target: str, task: Task, inputs: Inputs, encoded: Encoded) -> Rows:
    if target == "feedback":
        ids = task.kept.token_ids[task.lasts[0]]
        return feedback_rows(
            encoded.rows["lasts"], task.lasts[1], task.words, task.scored, shared=task.shared, token_ids=ids
        )
    if target == "implicit_reward":
        return implicit_rows(task.run, encoded.rows["sample"], task.kept, task.words, shared=task.shared)
    assert task.points is not None
    points, neutral = task.points.encoded(inputs.source, inputs.encode)
    row_of = {word: i for i, word in enumerate(task.words.words)}
    rows = np.array([row_of.get(word, -1) for word in task.points.words[: points.shape[0]]], np.int64)
    return delta_rows(
        points,
        neutral,
        rows,
        task.words,
        task.scored,
        inputs.place_of,
        shared=task.shared,
        token_ids=task.points.token_ids[: points.shape[0]],
    )
