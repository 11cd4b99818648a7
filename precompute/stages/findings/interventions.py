"""Stage `interventions`: features taken out of what tuning changed, one by one, against what their credits predict."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lfp.bundle.schema import as_table
from lfp.evaluation.findings.ablation import Candidates, Group, matched_controls
from lfp.evaluation.findings.interventions import CleanRuns, Measured, intervention_results, intervention_rows
from lfp.evaluation.results import FEATURE
from lfp.evaluation.statistics.resampling import Draws, number_pairs
from lfp.util.types import Flags, Floats, Ints, floats
from precompute.run.executor import Report, Shelf, Task, map_in_order
from precompute.run.inputs import (
    count_prompt_tokens,
    load_dictionary,
    load_pair,
    load_reward,
    read_texts,
    tokenize_texts,
)
from precompute.run.work_folder import Output, Run
from precompute.stages.findings.feature_credits import choose_texts, tokens_of
from precompute.stages.findings.rewarded_writing import Writer
from precompute.stages.models.completions import number_prefixes

if TYPE_CHECKING:
    from lfp.ml.implicit_reward.changes import ChangeOfWrites
    from lfp.ml.models.loading import LanguageModel
    from lfp.ml.models.runtime import Batches
    from lfp.ml.models.tokenization import TokenizedText
    from lfp.ml.sae.autoencoders import Dictionary

_SEED_OFFSET = 4  # other samples than tuning, completions, rollouts and ablations had


def run(run: Run, output: Output) -> None:
    """Write the table interventions and the rows `interventions`; empty where no feature has a credit."""
    table = run.table("feature_credits", "credits")
    chosen = np.flatnonzero(table["rank"].to_numpy() <= run.config.feature_credits.interventions)
    chosen = chosen[table["credit"].to_numpy()[chosen] != 0]
    rows = choose_texts(run)[: run.config.feature_credits.intervention_texts] if len(chosen) else []
    if not rows:
        output.table("interventions", as_table("interventions", []))
        output.results([])
        return
    bench = _Bench.open(run, rows)
    order = chosen[np.argsort(table["rank"].to_numpy()[chosen])].tolist()
    controls = _match_controls(bench, order, run)
    rewarded = {*order[: run.config.feature_credits.rewarded]}
    wanted = [_Wanted(feature, None, feature in rewarded) for feature in order]
    wanted += [_Wanted(control, of, of in rewarded) for of, control in controls.items()]
    load = _LoadBench(run.for_worker(), rows)
    task = Task("interventions", [1] * len(wanted), load, Shelf(output.scratch, "interventions"), run.progress)
    measured = map_in_order(run.executor, bench, wanted, task)
    draws = Draws(run.config.probes.bootstraps, run.config.probes.permutations, run.config.seed)
    found = intervention_rows(
        measured,
        _predict(run, rows, bench),
        n_tokens=bench.n_tokens,
        groups=number_pairs([row["pair_id"] for row in rows]),
        clean=bench.clean_runs,
        places=[bench.dictionary.places[number] for number in bench.dictionary.place_of],
        energy=bench.energy,
        draws=draws,
    )
    output.table("interventions", as_table("interventions", found))
    output.results(intervention_results(found, draws))


class _Wanted(NamedTuple):
    """A feature to take out, the one that it is a control of, and whether completions are rewarded without it too."""

    feature: int
    control_of: int | None
    by_reward: bool


@dataclass(frozen=True)
class _LoadBench:
    """Loads in another process what interventions are measured on."""

    run: Run
    rows: list[dict[str, Any]]

    def __call__(self) -> _Bench:
        """Load models, dictionary and texts."""
        return _Bench.open(self.run, self.rows)


@dataclass(frozen=True, eq=False)
class _Bench:
    """What interventions are measured on: the pair, its texts, and prefixes whose completions are rewarded.

    `writer` and `clean_runs` are None where no completions are wanted or all held-out texts are shorter than a prefix.
    """

    run: Run
    pair: ChangeOfWrites
    dictionary: Dictionary
    texts: list[TokenizedText]
    counted: list[Flags]
    batches: Batches
    clean: Floats
    density: Floats
    energy: Floats
    writer: Writer | None
    clean_runs: CleanRuns | None

    @staticmethod
    def open(run: Run, rows: list[dict[str, Any]]) -> _Bench:
        from lfp.ml.implicit_reward.changes import ChangeOfWrites
        from lfp.ml.interventions.changes import measure_codes, text_log_probs
        from lfp.ml.models.runtime import Batches

        settings, prepend_bos = run.config.feature_credits, run.config.model.prepend_bos
        base, tuned = load_pair(run, exact=True)
        pair, dictionary, texts = ChangeOfWrites(tuned, base), load_dictionary(run, "tuned"), list(map(tokens_of, rows))
        batches = Batches(settings.batch_texts, "interventions", "feature_credits.batch_texts", tuned.device)
        counted = [row["counted"] for row in rows]
        clean = text_log_probs(tuned, texts, batches=batches, prepend_bos=prepend_bos, counted=counted)
        density, energy = measure_codes(pair, dictionary, texts, batches=batches, prepend_bos=prepend_bos)
        writer = _open_writer(run, base, tuned) if settings.rewarded and run.config.ablation.completions else None
        runs = None if writer is None else CleanRuns(writer.score_clean_runs(), number_prefixes(writer.prefixes))
        return _Bench(run, pair, dictionary, texts, counted, batches, clean, density, energy, writer, runs)

    @property
    def n_tokens(self) -> Ints:
        """Tokens of each text that count: those of its response where it has a prompt."""
        return np.array([flags.sum() for flags in self.counted], np.int64)

    def __call__(self, wanted: _Wanted, report: Report) -> Measured:
        """Take a feature out; return what it does to the texts, and to completions where wanted and possible."""
        from lfp.ml.interventions.changes import scaling_changes, text_log_probs

        prepend_bos = self.run.config.model.prepend_bos
        feature, control_of, by_reward = wanted
        site = self.dictionary.places[int(self.dictionary.place_of[feature])].site

        def take_out() -> AbstractContextManager[None]:
            return scaling_changes(self.pair, self.dictionary, {feature: 0.0}, prepend_bos=prepend_bos)

        with take_out():
            after = text_log_probs(
                self.pair.tuned, self.texts, batches=self.batches, prepend_bos=prepend_bos, counted=self.counted
            )
        scores = None
        if by_reward and self.writer is not None and site == "mlp_out":
            scores = self.writer.score(self.writer.write(take_out()))
        report(1)
        return Measured(feature, control_of, after - self.clean, scores)


def _open_writer(run: Run, base: LanguageModel, tuned: LanguageModel) -> Writer | None:
    """Draw prefixes of held-out texts; None where all texts are shorter."""
    config = run.config
    held_out = read_texts(run, "held_out")
    texts = tokenize_texts(run, tuned, held_out)
    prompts = count_prompt_tokens(held_out, texts)
    reward = load_reward(config, run.config_dir) if config.tune.method == "grpo" else None
    seed = config.seed + _SEED_OFFSET
    writer = Writer.open(config, base, tuned, texts, prompts=prompts, reward=reward, seed=seed)
    return writer if writer.prefixes else None


def _match_controls(bench: _Bench, order: list[int], run: Run) -> dict[int, int]:
    """Match a feature of little credit to each, by how often and how strongly it is in the change.

    Each is another feature, as far as a place has enough.
    """
    n = bench.dictionary.n_features
    nothing = np.zeros(n)
    known = Candidates(
        places=bench.dictionary.places,
        place=bench.dictionary.place_of,
        weight=nothing,
        mean_contribution=nothing,
        mean_abs_contribution=nothing,
        related=nothing > 0,
        confidence=nothing,
        density=bench.density,
        energy=bench.energy,
        mean_activation=nothing,
    )
    controls: dict[int, int] = {}
    for feature in order[: run.config.feature_credits.controls]:
        group = Group(f"feature:{feature}", FEATURE, (feature,))
        avoided = [*order, *controls.values()]
        for control in matched_controls(known, group, avoided=avoided, n=1, seed=run.config.seed + feature):
            controls[feature] = control.features[0]
    return controls


def _predict(run: Run, rows: list[dict[str, Any]], bench: _Bench) -> dict[str, Floats]:
    """Return what taking each feature out would do, by its credit on these texts, its weight, and its drift.

    Credits are in nats per token; the other two are in units of the headline's target, NaN where it reads no feature.
    """
    n = bench.dictionary.n_features
    credits = run.table("feature_credits", "feature_credits")
    credits = credits.filter(pc.is_in(credits["text_id"], pa.array([row["text_id"] for row in rows], pa.int64())))
    features, values = (pc.list_flatten(credits[name]).to_numpy() for name in ("feature_ids", "credits"))
    predictions = {"credit": -np.bincount(features, values, n) / bench.n_tokens.sum()}
    headline = next(row for row in run.table("probes", "probes").to_pylist() if row["is_headline"])
    weights = run.table("probes", "weights")
    weights = weights.filter(pc.equal(weights["probe_id"], headline["probe_id"]))
    for name, table, column in (
        ("weight", weights, "mean_contribution"),
        ("drift", run.table("findings", "drift"), "drifted_contribution"),
    ):
        predictions[name] = np.full(n, np.nan)
        predictions[name][table["feature_id"].to_numpy()] = -floats(table, column)
    return predictions
