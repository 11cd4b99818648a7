"""Stages `labels`, by a labeller without a network, and `findings`: what follows from the tables of earlier stages."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lfp.bundle.schema import as_table
from lfp.config import ProbesConfig
from lfp.evaluation.drift import Drift, Firing, Weights, flips, largest, share_carried, status_count, statuses
from lfp.evaluation.findings.texts import TextFeatures, pca_explained
from lfp.evaluation.findings.words import Words, error_by_frequency, queues, token_sentiment, word_gap_rows
from lfp.evaluation.module_credits import (
    SAME_POSITION,
    Credits,
    check_rows,
    credit_rows,
    group_rows,
    modules_read,
    with_twins,
)
from lfp.evaluation.results import DICTIONARIES, STATUSES, ResultRow
from lfp.evaluation.statistics.discoveries import RATE
from lfp.evaluation.statistics.resampling import Draws, number_pairs, scaled, with_null_of_sizes
from lfp.evaluation.words import text_rows
from lfp.labels.evidence import read_evidence
from lfp.labels.result_rows import label_results, label_rows
from lfp.labels.selection import select_features
from lfp.labels.token_rule import OfflineTokens, read_densities, read_effects
from lfp.texts.lexicon import lexicon_of
from lfp.util.types import Floats, floats
from precompute.run.inputs import RANDOM_DECODER, read_places
from precompute.run.work_folder import Output, Run
from precompute.stages.models.credits import read_credits
from precompute.stages.probes.word_gaps import Unexplained

_TOP_DRIFTED, _FEWEST = 20, 10
_WORD_QUEUES = {"gap_predicted_true": ("predicted", "true"), "gap_implicit_true": ("implicit", "true")}
_TEXT_QUEUES = {**_WORD_QUEUES, "gap_true_rating": ("true", "rating")}
_TEXT_JUDGES = {"predicted": "predicted", "implicit": "implicit_reward", "true": "feedback", "rating": "rating"}
_SETTINGS = ("variant", "width", "l1", "k", "l0_weight", "seed")


def run_labels(run: Run, output: Output) -> None:
    """Write the table `labels`: a description of every feature, scored on held-out examples."""
    config = run.config.labels
    labeller = OfflineTokens(
        lexicon_of(run.config.feedback, beside=run.config_dir),
        related_threshold=config.related_threshold,
        repeats=config.repeats,
        effects=read_effects(run.made),
        densities=read_densities(run.made),
    )
    evidence = list(read_evidence(run.made, n_scored=config.scored_examples))
    output.table("labels", label_rows(labeller.label(evidence), labeller.name))


def run(run: Run, output: Output) -> None:
    """Write the table `drift`, and the rows of the report that follow from earlier tables."""
    config = run.config
    draws = Draws(config.probes.bootstraps, config.probes.permutations, config.seed)
    headline = next(row for row in run.table("probes", "probes").to_pylist() if row["is_headline"])
    drift = _compute_drift(run, headline)
    with np.load(run.folder("probes") / "unexplained.npz") as stored:
        unexplained = Unexplained(**stored)
    table = _drift_table(drift, unexplained, probe_id=headline["probe_id"])
    output.table("drift", table)
    activations = run.table("texts", "activations").sort_by("text_id")
    texts = run.table("texts", "texts").sort_by("text_id")
    sampled = texts.filter(pc.is_in(texts["text_id"], activations["text_id"]))
    features = TextFeatures.from_tables(activations, sampled, n_features=len(drift.status))

    def tables(name: str) -> pa.Table:
        return table if name == "drift" else run.made(name)

    groups = select_features(tables, config.labels, seed=config.seed)
    output.results(
        [
            *_credit_results(run, draws),
            *_word_results(run, headline, draws),
            *pca_explained(features, draws),
            *_text_results(sampled, config.probes, draws),
            *label_results(tables, groups, draws, main=config.labels.labeller),
            *_drift_results(run, drift, headline, draws),
            *_unexplained_results(unexplained, n_tokens=run.json("features", "texts")["n_tokens"]),
            *_dictionary_results(run),
        ]
    )


def _credit_results(run: Run, draws: Draws) -> Iterator[ResultRow]:
    """Report which modules carry the implicit reward, and how much those carry that the dictionaries read."""
    credits, facts, places = read_credits(run), run.json("credits", "facts"), read_places(run)
    checks = run.json("credits", "texts").values()
    error, nodes = (np.array([check[name] for check in checks]) for name in ("credit_error", "credit_nodes"))
    yield from check_rows(error, nodes, facts["forward_passes"])

    def report(found: Credits) -> Iterator[ResultRow]:
        yield from credit_rows(found, draws)
        if not found.is_nothing:
            members = found.select(modules_read(found.modules, places))
            yield from group_rows(found, members, DICTIONARIES, draws)

    twins = [list(report(read_credits(run, f"twin-{number}"))) for number in range(facts["twins"])]
    yield from with_twins(list(report(credits)), twins)
    yield from report(read_credits(run, SAME_POSITION))


def _word_results(run: Run, headline: dict[str, Any], draws: Draws) -> list[ResultRow]:
    """Judge words: their sentiment, errors by frequency, and the words on which the judges disagree most."""
    vocabulary = run.table("probes", "vocabulary")
    excess, gap, error, q = (floats(vocabulary, f"implicit_{name}") for name in ("excess", "gap", "excess_se", "gap_q"))
    scatter = np.divide(error * gap, excess, out=np.ones_like(gap), where=np.abs(excess) > 0)  # error over noise
    gaps = word_gap_rows(vocabulary["word"].to_pylist(), gap, draws, spreads=scatter, flagged=q <= RATE)
    if not run.table("probes", "triples").num_rows:  # no word is scored
        return gaps
    words = Words.from_vocabulary(vocabulary, headline)
    judges = {"predicted": words.shown, "implicit": words.implicit, "true": words.true}
    names = [f"word:{word}" for word in words.words]
    return [
        *token_sentiment(words),
        *error_by_frequency(words, draws),
        *queues(names, judges, _WORD_QUEUES, draws),
        *gaps,
    ]


def _text_results(sampled: pa.Table, config: ProbesConfig, draws: Draws) -> list[ResultRow]:
    """Judge the sampled texts, which stand for the corpus: disagreements, and implicit reward against feedback.

    The two sides of a pair are resampled together. There is no row `implicit_reward` where fewer than ten texts have
    both, or where all have the same feedback.
    """
    judges = {name: floats(sampled, column) for name, column in _TEXT_JUDGES.items()}
    names = [f"text:{text_id}" for text_id in sampled["text_id"].to_pylist()]
    rows = queues(names, judges, _TEXT_QUEUES, draws)
    true, implicit = judges["true"], judges["implicit"]
    known = ~np.isnan(true) & ~np.isnan(implicit)
    if known.sum() < _FEWEST or np.ptp(true[known]) == 0:
        return rows
    groups = number_pairs(sampled["pair_id"].to_pylist())[known]
    keys = {"model": "difference", "target": "implicit_reward", "group": "texts"}
    return [*rows, *text_rows(true[known], implicit[known], config, seed=draws.seed, groups=groups, **keys)]


def _compute_drift(run: Run, headline: dict[str, Any]) -> Drift:
    """Compare each feature's firing and weight in both models, as the headline probe sees them.

    The base model's weights are those of the probe of the same target on its activations through the tuned model's
    dictionary, where there is one.
    """
    features = run.table("features", "features").sort_by("feature_id")
    density, base_density = floats(features, "density"), floats(features, "base_density")
    firing = Firing(
        density_tuned=density,
        density_base=base_density,
        mean_tuned=density * floats(features, "mean_activation"),
        mean_base=base_density * floats(features, "base_mean_activation"),
        n_tokens=run.json("features", "texts")["n_tokens"],
    )
    table = run.table("probes", "weights").sort_by("feature_id")

    with np.load(run.folder("probes") / "weight_nulls.npz") as stored:
        nulls = {name: stored[name].astype(np.float64) for name in stored.files}

    def weights_of(probe: dict[str, Any]) -> Weights:
        rows = table.filter(pc.equal(table["probe_id"], probe["probe_id"]))
        return Weights(floats(rows, "weight"), floats(rows, "null_high"), nulls.get(probe["inputs"]))

    wanted = {"target": headline["target"], "inputs": "sae_of_base"}
    of_base = [row for row in run.table("probes", "probes").to_pylist() if wanted.items() <= row.items()]
    return Drift(statuses(firing), firing, weights_of(headline), weights_of(of_base[0]) if of_base else None)


def _drift_table(drift: Drift, unexplained: Unexplained, *, probe_id: int) -> pa.Table:
    n = len(drift.status)
    without_base = np.full(n, drift.base is None)
    base = np.zeros(n) if drift.base is None else drift.base.values
    return as_table(
        "drift",
        {
            "feature_id": np.arange(n),
            "probe_id": np.full(n, probe_id),
            "status": [STATUSES[i] for i in drift.status],
            "sign_flipped": pa.array(drift.flipped, mask=without_base),
            "weight": drift.weights.values,
            "weight_base": pa.array(base, mask=without_base),
            "contribution": drift.contribution,
            "contribution_base": drift.contribution_base,
            "drifted_contribution": drift.drifted,
            "rank": _rank(drift.drifted),
            "share": drift.share,
            "unexplained_contribution": unexplained.contribution,
            "unexplained_rank": _rank(unexplained.contribution),
        },
    )


def _rank(values: Floats) -> NDArray[np.int64]:
    """Rank values by size, from 1; of equal values the lower number comes first."""
    ranks = np.empty(len(values), np.int64)
    ranks[np.argsort(-np.abs(values), kind="stable")] = np.arange(1, len(values) + 1)
    return ranks


def _drift_results(run: Run, drift: Drift, headline: dict[str, Any], draws: Draws) -> list[ResultRow]:
    """Report counts by status in both dictionaries, what each status carries, flipped signs, and the most drifted."""
    with np.load(run.folder("features") / "mirror.npz") as stored:  # both models through the base model's dictionary
        names = ("density_tuned", "density_base", "mean_tuned", "mean_base")
        arrays = {name: stored[name].astype(np.float64) for name in names}
        mirrored = Firing(**arrays, n_tokens=int(stored["n_tokens"]))
    own, mirror = drift.status[drift.firing.is_live], statuses(mirrored)[mirrored.is_live]
    rows = [*_status_results(own, mirror, "sae", draws), *_status_results(mirror, own, "base_sae", draws)]
    keys = {"model": "difference", **{key: headline[key] for key in ("target", "inputs", "probe_id")}}
    for i, status in enumerate(STATUSES):
        carried = share_carried(drift, i, draws=draws.permutations, rng=draws.rng())
        rows.append(ResultRow.from_estimate("drift", "carried_share", carried, group=status, **keys))
    if drift.base is not None:
        flipped = flips(drift, draws=draws.permutations, rng=draws.rng())
        rows.append(ResultRow.from_estimate("drift", "sign_flips", flipped, **keys))
    for feature, estimate in largest(drift, _TOP_DRIFTED):
        group = f"feature:{feature}"
        rows.append(ResultRow.from_estimate("drift", "drifted_contribution", estimate, group=group, **keys))
    return rows


def _status_results(own: NDArray[np.int64], mirror: NDArray[np.int64], inputs: str, draws: Draws) -> list[ResultRow]:
    """Report how many live features of a dictionary have each status, and their share."""
    rows = []
    for status, name in enumerate(STATUSES):
        count = status_count(own, mirror, status, draws=draws.bootstraps, rng=draws.rng())
        for metric, figure in (("count", count), ("share", scaled(count, 1 / max(1, len(own))))):
            rows.append(ResultRow.from_estimate("drift", metric, figure, model="difference", inputs=inputs, group=name))
    return rows


def _unexplained_results(unexplained: Unexplained, *, n_tokens: int) -> list[ResultRow]:
    """Report the features that carry most of the unexplained part; the k-th's null is the k-th over shuffled words."""
    top = np.argsort(-np.abs(unexplained.contribution), kind="stable")[:_TOP_DRIFTED]
    nulls = -np.sort(-np.abs(unexplained.nulls), axis=1)[:, : len(top)]
    return [
        ResultRow.from_estimate(
            "drift",
            "unexplained_contribution",
            with_null_of_sizes(float(unexplained.contribution[feature]), n_tokens, nulls[:, place]),
            model="tuned",
            group=f"feature:{feature}",
        )
        for place, feature in enumerate(top)
    ]


def _dictionary_results(run: Run) -> list[ResultRow]:
    """Report every metric of every dictionary of the run; `group` states what it was trained with."""
    rows = []
    for row in run.json("saes", "saes"):
        if row["source"] == RANDOM_DECODER:
            continue
        group = ",".join(f"{name}={row[name]}" for name in _SETTINGS if row.get(name) is not None)
        keys = {"layer": row["layer"], "site": row["site"], "model": row["model"], "group": group}
        for metric in ("fvu", "l0", "dead_fraction", "mmcs", "ce_recovered"):
            if row[metric] is not None:
                rows.append(ResultRow.from_estimate("sae_sweep", metric, row[metric], **keys))
    return rows
