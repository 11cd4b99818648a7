"""Stage `probes`: every target from every kind of inputs and control, with words and pairs judged out of fold."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from threading import Lock
from typing import TypeVar

import numpy as np
import scipy.sparse as sp

from lfp.evaluation.results import ResultRow
from lfp.evaluation.word_gaps import beyond_noise
from lfp.evaluation.words import ScoredWords
from lfp.probes.attribution import display_scale
from lfp.probes.folds import HeldOutErrors, Penalties, row_folds
from lfp.texts.lexicon import lexicon_of
from lfp.texts.triples import DrawnTriples
from lfp.texts.vocabulary import word_folds
from lfp.util.types import Floats, Ints
from precompute.run.inputs import load_dictionary, read_places, read_texts
from precompute.run.work_folder import Output, Run
from precompute.stages.probes import word_rows
from precompute.stages.probes.fitting import (
    Judged,
    Probe,
    WordProbe,
    fit_rows,
    fit_words,
    measure_errors,
    predict_words,
)
from precompute.stages.probes.inputs import (
    COMPARED,
    MODELS,
    WITH_ALPHA_OF,
    Encoded,
    Inputs,
    Kept,
    build_inputs,
    build_reseeded,
    encode_kept,
)
from precompute.stages.probes.pairs import (
    PREFERENCE,
    PairProbe,
    Pairs,
    collect_pairs,
    fit_pairs,
    measure_pair_errors,
    preference_rows,
)
from precompute.stages.probes.tables import (
    Listed,
    RawSide,
    probe_table,
    vocabulary_table,
    weight_table,
    word_feature_table,
)
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
from precompute.stages.probes.triples import TriplePoints, collect_points, draw_triples, triple_rows, triples_results
from precompute.stages.probes.word_gaps import Unexplained, fit_unexplained, measure_gaps
from precompute.stages.probes.word_rows import Key

Fit = TypeVar("Fit")

_RANDOM_ROWS = ("sae", "token_identity")
"""Inputs whose probes are fitted on the paper's split too."""
_BUNDLES = "sae"
"""The inputs that are the bundle's features."""
_BEFORE = "before"
_SHOWN = ("sae", "base_sae")
"""Inputs whose predictions of words the vocabulary shows."""


@dataclass(frozen=True)
class _Task:
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


@dataclass(frozen=True)
class _OfWords:
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


def run(run: Run, output: Output) -> None:
    """Write triples, vocabulary, word_features, probes, weights, raw.npz, unexplained.npz, and rows of the report.

    `raw.npz` is the probe of the headline's target on raw activations: `coef` [sum of d_in] and `intercept`;
    `weight_nulls.npz` has the weights of its shuffled targets by inputs, [features, shuffles].
    Raises DataError where the lexicon or the pairs leave nothing to fit or to judge.
    """
    config, seed = run.config.probes, run.config.seed
    lexicon = lexicon_of(run.config.feedback, beside=run.config_dir)
    words = Words.load(run, lexicon)
    is_pairs = any(text.role == "chosen" for text in read_texts(run))
    counts = words.counts.astype(float)
    scored = ScoredWords.from_vocabulary(words.values, counts, config, seed=seed, is_needed=not is_pairs)
    kept, drawn, points = Kept.load(run), DrawnTriples((), {}), None
    inputs, gaps = build_inputs(run, kept), measure_gaps(run, words, lexicon)
    if len(scored.rows):
        drawn = draw_triples(run)
        points = collect_points(run, drawn.triples, read_places(run), inputs)
    lasts = kept.lasts_of(~np.isnan(words.values), config.max_rows)
    shared = SharedTokens.from_words(kept, words.folds, config)
    task = _Task(run, kept, words, scored, points, lasts, shared, beyond_noise(gaps))
    of_words = _fit_words(task, inputs)
    reseeded = build_reseeded(run)
    pairs = collect_pairs(run, [*inputs, *(kind for sides in reseeded for kind in sides)]) if is_pairs else None
    of_pairs = _fit_pairs(run, pairs, inputs)
    shown = _shown(of_words, of_pairs)
    listed = _listed(of_words.probes, of_pairs, shown, scored)
    ids = {(row.probe.target, row.probe.inputs): i for i, row in enumerate(listed)}
    output.table("triples", triple_rows(drawn.triples, points, dict(zip(words.words, words.folds, strict=True))))
    output.table("vocabulary", vocabulary_table(run, words, shown, gaps))
    output.table("word_features", word_feature_table(run, words, of_words.at_last["sae"]))
    _write_probes(run, output, listed)
    np.savez(output.folder / "unexplained.npz", allow_pickle=False, **vars(of_words.unexplained[_BUNDLES]))
    again = [] if pairs is None else _refit_pairs(run, pairs, reseeded)
    output.results([
        *(_judge_words(of_words, ids, task, reseeded) if len(scored.rows) else []),
        *([] if pairs is None else preference_rows(of_pairs, ids, pairs, again, config, seed=seed)),
        *(triples_results(drawn) if len(scored.rows) else []),
    ])  # fmt: skip


def _judge_words(
    of_words: _OfWords, ids: Mapping[Key, int], task: _Task, reseeded: Sequence[tuple[Inputs, Inputs]]
) -> list[ResultRow]:
    """Judge every probe on the words that the lexicon scores."""
    words, scored = task.words, task.scored
    return [
        *word_rows.held_out_rows(of_words.probes, ids, scored),
        *word_rows.random_rows(of_words.random, scored),
        *word_rows.before_rows(of_words.before, scored),
        *word_rows.difference_rows(of_words.probes, _refit_words(task, reseeded), scored),
        *word_rows.measured_rows(words, scored),
        *of_words.overlap[_BUNDLES],
    ]


def _fit_words(task: _Task, inputs: Sequence[Inputs]) -> _OfWords:
    """Fit every target on every kind of inputs; as many kinds are in memory at a time as there are threads."""
    found = _OfWords({}, {}, {}, {}, {}, {}, {})
    alphas = _choose_alphas(task, inputs)
    report = _count_fits(task.run, "probes: words", sum(_n_fits(kind.name) for kind in inputs))
    for of_kind in _in_threads(task.run, lambda kind: _fit_kind(task, kind, alphas, report), inputs):
        for name, part in vars(of_kind).items():
            getattr(found, name).update(part)
    return found


def _choose_alphas(task: _Task, inputs: Sequence[Inputs]) -> Callable[[str, str], Penalties | None]:
    """Choose the alpha of each comparison by the errors of both sides; return it by target and kind, None: its own.

    Taus fall as alpha rises, while errors hardly change: with an alpha each, a difference of tau can be that of alphas.
    """
    compared = [kind for kind in inputs if kind.name in {*COMPARED, *COMPARED.values()}]
    report = _count_fits(task.run, "probes: alphas", len(compared))

    def measure(kind: Inputs) -> dict[str, HeldOutErrors | None]:
        encoded = _encode(task, kind)
        rows = {target: _rows(target, task, kind, encoded) for target in _targets(task)}
        if kind.name in _SHOWN:
            rows[_BEFORE] = _rows_before(task, kind, encoded)
        errors = {target: measure_errors(kind, of_target, task.run.config.probes) for target, of_target in rows.items()}
        report()
        return errors

    found = dict(zip((kind.name for kind in compared), _in_threads(task.run, measure, compared), strict=True))
    chosen: dict[Key, Penalties] = {}
    for tuned, base in COMPARED.items():
        for target, own in found[tuned].items():
            known = [errors for errors in (own, found[base][target]) if errors is not None]
            if known:
                alphas = HeldOutErrors.total(known).choose(np.asarray(task.run.config.probes.alphas, float))
                chosen |= {(target, tuned): alphas, (target, base): alphas}
    return lambda target, name: chosen.get((target, WITH_ALPHA_OF.get(name, name)))


def _refit_words(task: _Task, reseeded: Sequence[tuple[Inputs, Inputs]]) -> word_rows.Again:
    """Predict words from the dictionaries of every further seed, each with folds of its own and without nulls."""
    run, config = task.run, task.run.config.probes
    found: dict[str, list[tuple[Floats, Floats]]] = {target: [] for target in WORD_TARGETS}
    for number, sides in enumerate(reseeded, start=1):
        run.progress("probes: other dictionaries", number, len(reseeded), float(number))
        fold_of = word_folds(task.words.words, n_folds=config.folds, seed=run.config.seed + number)
        folds = np.array([fold_of[word] for word in task.words.words], np.int64)
        other = replace(
            task,
            words=replace(task.words, folds=folds),
            scored=replace(task.scored, shuffled=task.scored.shuffled[:0]),
            shared=SharedTokens.from_words(task.kept, folds, config),
        )
        of_sides = _in_threads(run, partial(_prepare, other), sides)
        for target in WORD_TARGETS:
            known = [errors for side in of_sides if (errors := side[target].errors) is not None]
            alphas = HeldOutErrors.total(known).choose(np.asarray(config.alphas, float)) if known else None
            tuned, base = (
                predict_words(kind, side[target].rows, side[target].judged, config=config, alphas=alphas)
                for kind, side in zip(sides, of_sides, strict=True)
            )
            found[target].append((tuned, base))
    return found


@dataclass(frozen=True)
class _Prepared:
    """What a probe is fitted on, the words that it predicts, and the errors that choose its alpha."""

    rows: Rows
    judged: Judged
    errors: HeldOutErrors | None


def _prepare(task: _Task, inputs: Inputs) -> dict[str, _Prepared]:
    """Prepare a probe of every target."""
    encoded, made = _encode(task, inputs), {}
    for target in WORD_TARGETS:
        rows = _rows(target, task, inputs, encoded)
        errors = measure_errors(inputs, rows, task.run.config.probes)
        made[target] = _Prepared(rows, _judged(target, encoded, task), errors)
    return made


def _refit_pairs(run: Run, pairs: Pairs, reseeded: Sequence[tuple[Inputs, Inputs]]) -> list[tuple[Floats, Floats]]:
    """Predict held-out pairs from the dictionaries of every further seed, without nulls: margins of both models."""
    config, found = run.config.probes.model_copy(update={"weight_permutations": 0}), []
    for number, sides in enumerate(reseeded, start=1):
        seed = run.config.seed + number
        errors = _in_threads(run, partial(measure_pair_errors, pairs=pairs, config=config, seed=seed), sides)
        alphas = np.asarray(config.alphas, float)[np.argmin(errors[0] + errors[1], axis=0)]
        tuned, base = (fit_pairs(kind, pairs, config, seed=seed, alphas=alphas).margins for kind in sides)
        found.append((tuned, base))
    return found


def _judged(target: str, encoded: Encoded, task: _Task) -> Judged:
    """Return what words are predicted from: their last tokens, or the sum over their tokens."""
    if POOLING[target] == "last":
        return Judged(encoded.words.at_last, np.ones(len(task.words.folds)), task.words.folds)
    return Judged(encoded.words.over_tokens, encoded.words.tokens, task.words.folds)


def _targets(task: _Task) -> tuple[str, ...]:
    return WORD_TARGETS if task.points is not None else ("implicit_reward",)


def _n_fits(inputs: str) -> int:
    """Return how many fits `_fit_kind` makes."""
    n_splits = 1 + (inputs in _RANDOM_ROWS)
    return n_splits * len(WORD_TARGETS) + (inputs == _BUNDLES) + (inputs in _SHOWN)


def _count_fits(run: Run, what: str, total: int) -> Callable[[], None]:
    """Return what counts a fit and reports how many of all are done; threads may call it at the same time."""
    done, lock = 0, Lock()

    def report() -> None:
        nonlocal done
        with lock:
            done += 1
            run.progress(what, done, total, float(done))

    run.progress(what, 0, total, 0.0)
    return report


def _encode(task: _Task, inputs: Inputs) -> Encoded:
    """Encode the kept tokens: means of words, and the rows that probes are fitted on."""
    kept = task.kept
    wanted = {"sample": kept.sample, "lasts": task.lasts[0]}
    if inputs.name in _SHOWN:
        wanted[_BEFORE] = np.unique(kept.before[kept.before >= 0])
    return encode_kept(task.kept, inputs.encode, source=inputs.source, n_words=len(task.words.words), rows=wanted)


def _rows_before(task: _Task, inputs: Inputs, encoded: Encoded) -> Rows:
    """Return the rows of the implicit reward with the features before it."""
    known = task.kept.before[task.kept.before >= 0]
    at = np.searchsorted(np.unique(known), known)
    return rows_before(_rows("implicit_reward", task, inputs, encoded), encoded.rows[_BEFORE][at], task.kept)


def _fit_kind(
    task: _Task, inputs: Inputs, alphas: Callable[[str, str], Penalties | None], report: Callable[[], None]
) -> _OfWords:
    config, seed, name = task.run.config.probes, task.run.config.seed, inputs.name
    kept, encoded = task.kept, _encode(task, inputs)
    found = _OfWords({}, {}, {}, {}, {}, {}, {})
    over_tokens = _judged("implicit_reward", encoded, task)
    for target in _targets(task):
        rows = _rows(target, task, inputs, encoded)
        judged = _judged(target, encoded, task)
        found.probes[target, name] = fit_words(
            target, inputs, rows, judged, scored=task.scored.rows, config=config, alphas=alphas(target, name)
        )
        report()
        if name in _RANDOM_ROWS:
            # the paper's split holds out rows, not words, so that a word is on both sides
            folds = row_folds(len(rows.words), n_folds=config.folds, seed=seed)
            found.random[target, name] = fit_rows(inputs, replace(rows, folds=folds, barred=None), judged, config)
            report()
    if name == _BUNDLES:
        if len(task.scored.rows):
            rows = _rows("implicit_reward", task, inputs, encoded)
            ids = kept.token_ids[kept.sample]
            found.overlap[name] = overlap_rows(rows, ids, kept, task.words, task.scored.rows)
        found.unexplained[name] = fit_unexplained(
            encoded.rows["sample"], kept.words[kept.sample], inputs.place_of, task.words, task.excess, config, seed=seed
        )
        report()
    if name in _SHOWN:
        found.over_tokens[name] = over_tokens
        found.at_last[name] = encoded.words.at_last
        rows = _rows_before(task, inputs, encoded)
        found.before[inputs.model] = fit_rows(inputs, rows, over_tokens, config, alphas=alphas(_BEFORE, name))
        report()
    return found


def _fit_pairs(run: Run, pairs: Pairs | None, inputs: Sequence[Inputs]) -> dict[str, PairProbe]:
    """Fit the preference probe of every kind of inputs; none where the texts are not pairs."""
    if pairs is None:
        return {}
    config, seed = run.config.probes, run.config.seed
    report = _count_fits(run, "probes: pairs", len(inputs))

    compared = [kind for kind in inputs if kind.name in {*COMPARED, *COMPARED.values()}]
    errors = _in_threads(run, lambda kind: measure_pair_errors(kind, pairs, config, seed=seed), compared)
    of_kind = dict(zip((kind.name for kind in compared), errors, strict=True))
    grid = np.asarray(config.alphas, float)
    chosen: dict[str, Floats] = {}
    for tuned, base in COMPARED.items():
        alphas = grid[np.argmin(of_kind[tuned] + of_kind[base], axis=0)]
        chosen |= {tuned: alphas, base: alphas}

    def fit(kind: Inputs) -> PairProbe:
        alphas = chosen.get(WITH_ALPHA_OF.get(kind.name, kind.name))
        fitted = fit_pairs(kind, pairs, config, seed=seed, alphas=alphas)
        report()
        return fitted

    fitted = _in_threads(run, fit, inputs)
    return {kind.name: fit for kind, fit in zip(inputs, fitted, strict=True)}


def _in_threads(run: Run, fit: Callable[[Inputs], Fit], inputs: Sequence[Inputs]) -> list[Fit]:
    """Fit kinds at the same time in the run's threads, each with a single thread of linear algebra.

    A factorisation shared among threads waits for all of them at every step, and takes twenty times as long when
    another program has one of the cores. Kinds are independent, and their results do not depend on the threads.
    """
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(run.config.threads) as pool:
        return list(pool.map(fit, inputs))


def _rows(target: str, task: _Task, inputs: Inputs, encoded: Encoded) -> Rows:
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


def _shown(of_words: _OfWords, of_pairs: Mapping[str, PairProbe]) -> dict[str, Floats]:
    """Return what the headline's target predicts of each word [words], by inputs.

    For the preference probe, whose rows are pairs, that is the estimate of a text made of the word's tokens alone; no
    word is held out from it.
    """
    if not of_pairs:
        return {name: of_words.probes["implicit_reward", name].predicted for name in _SHOWN}
    return {name: of_words.over_tokens[name].features @ of_pairs[name].probe.weights.value for name in _SHOWN}


def _display(predicted: Floats, scored: ScoredWords) -> tuple[float, float]:
    """Return slope and offset of predictions [words] on the lexicon's scale; as they are where no word is scored."""
    return display_scale(predicted[scored.rows], scored.true) if len(scored.rows) else (1.0, 0.0)


def _listed(
    of_words: Mapping[Key, WordProbe],
    of_pairs: Mapping[str, PairProbe],
    shown: Mapping[str, Floats],
    scored: ScoredWords,
) -> list[Listed]:
    """List every probe, the headline first, then by target and inputs."""
    made: dict[Key, Listed] = {}
    for key, fitted in of_words.items():
        display = _display(fitted.predicted, scored)
        made[key] = Listed(fitted.probe, display, len(scored.rows))
    for name, judged in of_pairs.items():
        display = _display(shown[name], scored) if name in shown else (1.0, 0.0)
        made[PREFERENCE, name] = Listed(judged.probe, display, len(judged.margins))
    headline = (PREFERENCE if of_pairs else "implicit_reward", "sae")
    keys = [(target, name) for target in (*WORD_TARGETS, PREFERENCE) for name in MODELS if (target, name) in made]
    return [made[headline], *(made[key] for key in keys if key != headline)]


def _write_probes(run: Run, output: Output, listed: Sequence[Listed]) -> None:
    """Write probes, weights, raw.npz and weight_nulls.npz."""
    from lfp.ml.sae.quality import split_raw

    target = listed[0].probe.target
    raw: Probe = next(row.probe for row in listed if (row.probe.target, row.probe.inputs) == (target, "raw"))
    coef = raw.weights.value
    np.savez(output.folder / "raw.npz", allow_pickle=False, coef=coef, intercept=raw.intercept)
    split = split_raw(load_dictionary(run, "tuned"), coef)
    side = RawSide(split.weights, split.bias, raw.intercept)
    drawn = {
        row.probe.inputs: row.probe.weights.drawn.astype(np.float32)
        for row in listed
        if row.probe.target == target and row.probe.weights.drawn is not None
    }
    np.savez(output.folder / "weight_nulls.npz", allow_pickle=False, **drawn)
    output.table("probes", probe_table(listed, read_places(run), side))
    output.table("weights", weight_table(run, listed, side))
