"""Stage `probes`: every target from every kind of inputs and control, with words and pairs judged out of fold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from lfp.evaluation.word_gaps import beyond_noise
from lfp.evaluation.words import ScoredWords
from lfp.probes.attribution import display_scale
from lfp.texts.lexicon import lexicon_of
from lfp.texts.triples import DrawnTriples
from lfp.util.types import Floats
from precompute.run.executor import Report, Shelf
from precompute.run.inputs import load_dictionary, read_places, read_texts
from precompute.run.work_folder import Output, Run
from precompute.stages.probes.fitting import Probe, WordProbe, map_fits
from precompute.stages.probes.inputs import COMPARED, MODELS, WITH_ALPHA_OF, Inputs, Kept, build_inputs, build_reseeded
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
from precompute.stages.probes.targets import WORD_TARGETS, SharedTokens, Words
from precompute.stages.probes.triples import collect_points, draw_triples, triple_rows, triples_results
from precompute.stages.probes.word_gaps import measure_gaps
from precompute.stages.probes.word_probes import BUNDLES, SHOWN, Task, WordProbes, fit_word_probes, judge_words
from precompute.stages.probes.word_rows import Key


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
    task = Task(run, kept, words, scored, points, lasts, shared, beyond_noise(gaps))
    of_words = fit_word_probes(task, inputs, output.scratch)
    reseeded = build_reseeded(run)
    pooled = [*inputs, *(kind for sides in reseeded for kind in sides)]
    pairs = collect_pairs(run, pooled, output.scratch) if is_pairs else None
    of_pairs = _fit_pairs(run, pairs, inputs, output.scratch)
    shown = _shown(of_words, of_pairs)
    listed = _listed(of_words.probes, of_pairs, shown, scored)
    ids = {(row.probe.target, row.probe.inputs): i for i, row in enumerate(listed)}
    output.table("triples", triple_rows(drawn.triples, points, dict(zip(words.words, words.folds, strict=True))))
    output.table("vocabulary", vocabulary_table(run, words, shown, gaps))
    output.table("word_features", word_feature_table(run, words, of_words.at_last["sae"]))
    _write_probes(run, output, listed)
    np.savez(output.folder / "unexplained.npz", allow_pickle=False, **vars(of_words.unexplained[BUNDLES]))
    again = [] if pairs is None else _refit_pairs(run, pairs, reseeded, output.scratch)
    output.results([
        *(judge_words(of_words, ids, task, reseeded, output.scratch) if len(scored.rows) else []),
        *([] if pairs is None else preference_rows(of_pairs, ids, pairs, again, config, seed=seed)),
        *(triples_results(drawn) if len(scored.rows) else []),
    ])  # fmt: skip


def _refit_pairs(
    run: Run, pairs: Pairs, reseeded: Sequence[tuple[Inputs, Inputs]], scratch: Path
) -> list[tuple[Floats, Floats]]:
    """Predict held-out pairs from the dictionaries of every further seed, without nulls: margins of both models."""
    refit, numbered = partial(_refit_seed, run.for_worker(), pairs), list(enumerate(reseeded, start=1))
    shelf = Shelf(scratch, "reseeded-pairs")
    return map_fits(run, refit, numbered, what="probes: pairs by other dictionaries", shelf=shelf)


def _refit_seed(
    run: Run, pairs: Pairs, of_seed: tuple[int, tuple[Inputs, Inputs]], report: Report
) -> tuple[Floats, Floats]:
    """Predict held-out pairs from the dictionaries of a further seed: margins of both models."""
    number, sides = of_seed
    config, seed = run.config.probes.model_copy(update={"weight_permutations": 0}), run.config.seed + number
    total = sum(measure_pair_errors(kind, pairs, config, seed=seed) for kind in sides)
    alphas = np.asarray(config.alphas, float)[np.argmin(total, axis=0)]
    tuned, base = (fit_pairs(kind, pairs, config, seed=seed, alphas=alphas).margins for kind in sides)
    report(1)
    return tuned, base


def _fit_pairs(run: Run, pairs: Pairs | None, inputs: Sequence[Inputs], scratch: Path) -> dict[str, PairProbe]:
    """Fit the preference probe of every kind of inputs; none where the texts are not pairs."""
    if pairs is None:
        return {}
    apart = run.for_worker()
    compared = [kind for kind in inputs if kind.name in {*COMPARED, *COMPARED.values()}]
    errors = map_fits(
        run,
        partial(_measure_kind, apart, pairs),
        compared,
        what="probes: alphas of pairs",
        shelf=Shelf(scratch, "pair-alphas"),
    )
    of_kind = dict(zip((kind.name for kind in compared), errors, strict=True))
    grid = np.asarray(run.config.probes.alphas, float)
    chosen: dict[str, Floats] = {}
    for tuned, base in COMPARED.items():
        alphas = grid[np.argmin(of_kind[tuned] + of_kind[base], axis=0)]
        chosen |= {tuned: alphas, base: alphas}
    fit, shelf = partial(_fit_kind, apart, pairs, chosen), Shelf(scratch, "pair-probes")
    fitted = map_fits(run, fit, inputs, what="probes: pairs", shelf=shelf)
    return {kind.name: of_kind for kind, of_kind in zip(inputs, fitted, strict=True)}


def _measure_kind(run: Run, pairs: Pairs, kind: Inputs, report: Report) -> Floats:
    """Compute the errors by which alphas are chosen."""
    errors = measure_pair_errors(kind, pairs, run.config.probes, seed=run.config.seed)
    report(1)
    return errors


def _fit_kind(run: Run, pairs: Pairs, chosen: Mapping[str, Floats], kind: Inputs, report: Report) -> PairProbe:
    """Fit the preference probe of a kind of inputs, with the alphas of its comparison where it has one."""
    alphas = chosen.get(WITH_ALPHA_OF.get(kind.name, kind.name))
    fitted = fit_pairs(kind, pairs, run.config.probes, seed=run.config.seed, alphas=alphas)
    report(1)
    return fitted


def _shown(of_words: WordProbes, of_pairs: Mapping[str, PairProbe]) -> dict[str, Floats]:
    """Return what the headline's target predicts of each word [words], by inputs.

    For the preference probe, whose rows are pairs, that is the estimate of a text made of the word's tokens alone; no
    word is held out from it.
    """
    if not of_pairs:
        return {name: of_words.probes["implicit_reward", name].predicted for name in SHOWN}
    return {name: of_words.over_tokens[name].features @ of_pairs[name].probe.weights.value for name in SHOWN}


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
