"""Stage `findings`: figures read off the tables of the stages before it, and what tuning did to each feature."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lfp.bundle.schema import as_table
from lfp.config import ProbesConfig
from lfp.evaluation.drift import Drift, Firing, Weights, flips, largest, share_carried, status_count, statuses
from lfp.evaluation.findings.disagreements import paid_otherwise, queues
from lfp.evaluation.findings.texts import TextFeatures, pca_explained
from lfp.evaluation.findings.words import Words, error_by_frequency, token_sentiment
from lfp.evaluation.results import STATUSES, ResultRow
from lfp.evaluation.statistics.resampling import Draws, beside_sizes, scaled
from lfp.evaluation.words import text_rows
from lfp.labels.result_rows import label_results
from lfp.labels.selection import select_features
from lfp.util.arrow import floats
from lfp.util.types import Floats
from precompute.run.work_folder import Output, Run
from precompute.stages.probes.word_gaps import Unexplained

_TOP_DRIFTED, _FEWEST = 20, 10
_WORD_QUEUES = {"gap_predicted_true": ("predicted", "true"), "gap_implicit_true": ("implicit", "true")}
_TEXT_QUEUES = {**_WORD_QUEUES, "gap_true_rating": ("true", "rating")}
_SETTINGS = ("variant", "width", "l1", "k", "l0_weight", "seed")


def run(run: Run, output: Output) -> None:
    """Writes drift, and the rows of the report that follow from earlier tables."""
    probes = run.config.probes
    draws = Draws(probes.bootstraps, probes.permutations, run.config.seed)
    found = drift_of(run)
    unexplained = Unexplained.load(run)
    sampled, drift = _sampled(run), _drift_table(run, found, unexplained)
    output.table("drift", drift)
    features = TextFeatures.of(
        run.table("texts", "activations").sort_by("text_id"), sampled, n_features=len(found.status)
    )
    output.results(
        [
            *_words(run, draws),
            *pca_explained(features, draws),
            *_text_queues(sampled, draws),
            *_implicit_of_texts(sampled, probes, run.config.seed),
            *_labels(run, drift, draws),
            *_drift(run, found, draws),
            *_unexplained(unexplained, run),
            *_sae_sweep(run),
        ]
    )


def headline(run: Run) -> dict[str, Any]:
    """The headline's row of `probes`."""
    return next(row for row in run.table("probes", "probes").to_pylist() if row["is_headline"])


def _words(run: Run, draws: Draws) -> list[ResultRow]:
    vocabulary = run.table("probes", "vocabulary")
    words = Words.of(vocabulary, headline(run))
    judges = {"predicted": words.shown, "implicit": words.implicit, "true": words.true}
    names = [f"word:{word}" for word in words.words]
    return [
        *token_sentiment(words),
        *error_by_frequency(words, draws),
        *queues(names, judges, _WORD_QUEUES, draws),
        *paid_otherwise(vocabulary["word"].to_pylist(), floats(vocabulary, "implicit_gap"), draws),
    ]


def _text_queues(sampled: pa.Table, draws: Draws) -> list[ResultRow]:
    """Of the sampled texts, which stand for the corpus; texts kept for an example's sake do not."""
    judges = {name: floats(sampled, column) for name, column in _TEXT_JUDGES.items()}
    names = [f"text:{text_id}" for text_id in sampled["text_id"].to_pylist()]
    return queues(names, judges, _TEXT_QUEUES, draws)


def _implicit_of_texts(sampled: pa.Table, config: ProbesConfig, seed: int) -> list[ResultRow]:
    """The implicit reward of texts against their feedback, the two sides of a pair drawn together.

    No row where fewer than ten texts have both, or all the same feedback.
    """
    true, implicit, pair_id = (floats(sampled, name) for name in ("feedback", "implicit_reward", "pair_id"))
    known = ~np.isnan(true) & ~np.isnan(implicit)
    if known.sum() < _FEWEST or np.ptp(true[known]) == 0:
        return []
    groups = np.where(np.isnan(pair_id), -1 - np.arange(len(pair_id)), pair_id)[known].astype(np.int64)
    keys = {"model": "difference", "target": "implicit_reward", "group": "texts"}
    return text_rows(true[known], implicit[known], config, seed=seed, groups=groups, **keys)


_TEXT_JUDGES = {"predicted": "predicted", "implicit": "implicit_reward", "true": "feedback", "rating": "rating"}


def _sampled(run: Run) -> pa.Table:
    """Rows of `texts` whose activations were kept, in the order of `activations`."""
    texts = run.table("texts", "texts").sort_by("text_id")
    return texts.filter(pc.is_in(texts["text_id"], run.table("texts", "activations")["text_id"]))


def _labels(run: Run, drift: pa.Table, draws: Draws) -> list[ResultRow]:
    """Each labeller against the headline's weights and against held-out examples."""

    def tables(name: str) -> pa.Table:
        return drift if name == "drift" else run.made(name)

    config = run.config
    groups = select_features(tables, config.labels, seed=config.seed)
    return label_results(tables, groups, draws, main=config.labels.labeller)


def _weight_rows(run: Run, probe_id: int) -> pa.Table:
    weights = run.table("probes", "weights")
    return weights.filter(pc.equal(weights["probe_id"], probe_id)).sort_by("feature_id")


def drift_of(run: Run) -> Drift:
    """What tuning did to each feature, as the headline probe sees it."""
    features, probe = run.table("features", "features").sort_by("feature_id"), headline(run)
    density, base_density = floats(features, "density"), floats(features, "base_density")
    firing = Firing(
        density_tuned=density,
        density_base=base_density,
        mean_tuned=density * floats(features, "mean_activation"),
        mean_base=base_density * floats(features, "base_mean_activation"),
        n_tokens=run.json("features", "texts")["n_tokens"],
    )
    return Drift(statuses(firing), firing, _weights(run, probe["probe_id"]), _base_weights(run, probe["target"]))


def _weights(run: Run, probe_id: int) -> Weights:
    rows = _weight_rows(run, probe_id)
    return Weights(floats(rows, "weight"), floats(rows, "null_high"))


def _base_weights(run: Run, target: str) -> Weights | None:
    """Weights of the probe of the same target on the base model's activations through the tuned model's dictionary."""
    wanted = {"target": target, "inputs": "sae_of_base"}
    found = [row for row in run.table("probes", "probes").to_pylist() if wanted.items() <= row.items()]
    return _weights(run, found[0]["probe_id"]) if found else None


def _drift_table(run: Run, found: Drift, unexplained: Unexplained) -> pa.Table:
    n = len(found.status)
    without_base = np.full(n, found.base is None)
    base = np.zeros(n) if found.base is None else found.base.values
    return as_table(
        "drift",
        {
            "feature_id": np.arange(n),
            "probe_id": np.full(n, headline(run)["probe_id"]),
            "status": [STATUSES[i] for i in found.status],
            "sign_flipped": pa.array(found.flipped, mask=without_base),
            "weight": found.weights.values,
            "weight_base": pa.array(base, mask=without_base),
            "contribution": found.contribution,
            "contribution_base": found.contribution_base,
            "drifted_contribution": found.drifted,
            "rank": _ranks(found.drifted),
            "share": found.share,
            "unexplained_contribution": unexplained.contribution,
            "unexplained_rank": _ranks(unexplained.contribution),
        },
    )


def _ranks(values: Floats) -> NDArray[np.int64]:
    """Each value's rank by size, from 1; of equal ones the lower number first."""
    ranks = np.empty(len(values), np.int64)
    ranks[np.argsort(-np.abs(values), kind="stable")] = np.arange(1, len(values) + 1)
    return ranks


def _drift(run: Run, found: Drift, draws: Draws) -> list[ResultRow]:
    """Counts by status in either model's dictionary, what each status carries, flipped signs, the most drifted."""
    probe, mirrored = headline(run), _mirror(run)
    own, mirror = found.status[found.firing.is_live], statuses(mirrored)[mirrored.is_live]
    probed = {
        "model": "difference",
        "target": probe["target"],
        "inputs": probe["inputs"],
        "probe_id": probe["probe_id"],
    }
    sizes = {"draws": draws.permutations}
    top = largest(found, _TOP_DRIFTED, **sizes, rng=draws.rng())
    return [
        *_status_rows(own, mirror, "sae", draws),
        *_status_rows(mirror, own, "base_sae", draws),
        *(
            ResultRow.from_estimate(
                "drift", "carried_share", share_carried(found, i, **sizes, rng=draws.rng()), group=name, **probed
            )
            for i, name in enumerate(STATUSES)
        ),
        *_flip_rows(found, draws, probed),
        *(
            ResultRow.from_estimate("drift", "drifted_contribution", estimate, group=f"feature:{feature}", **probed)
            for feature, estimate in top
        ),
    ]


def _unexplained(found: Unexplained, run: Run) -> list[ResultRow]:
    """The features that carry most of what is not explained; the null of the k-th is the k-th when words are dealt."""
    n_tokens = run.json("features", "texts")["n_tokens"]
    top = np.argsort(-np.abs(found.contribution), kind="stable")[:_TOP_DRIFTED]
    nulls = -np.sort(-np.abs(found.nulls), axis=1)[:, : len(top)]
    return [
        ResultRow.from_estimate(
            "drift",
            "unexplained_contribution",
            beside_sizes(float(found.contribution[feature]), n_tokens, nulls[:, place]),
            model="tuned",
            group=f"feature:{feature}",
        )
        for place, feature in enumerate(top)
    ]


def _flip_rows(found: Drift, draws: Draws, keys: Mapping[str, Any]) -> list[ResultRow]:
    if found.base is None:
        return []
    return [
        ResultRow.from_estimate("drift", "sign_flips", flips(found, draws=draws.permutations, rng=draws.rng()), **keys)
    ]


def _status_rows(own: NDArray[np.int64], mirror: NDArray[np.int64], inputs: str, draws: Draws) -> list[ResultRow]:
    rows = []
    for status, name in enumerate(STATUSES):
        count = status_count(own, mirror, status, draws=draws.bootstraps, rng=draws.rng())
        for metric, figure in (("count", count), ("share", scaled(count, 1 / max(1, len(own))))):
            rows.append(ResultRow.from_estimate("drift", metric, figure, model="difference", inputs=inputs, group=name))
    return rows


def _mirror(run: Run) -> Firing:
    """Both models through the base model's dictionary, as the features stage left it."""
    with np.load(run.folder("features") / "mirror.npz") as stored:
        firing: Mapping[str, Any] = {name: stored[name].astype(np.float64) for name in _MIRROR}
        return Firing(**firing, n_tokens=int(stored["n_tokens"]))


_MIRROR = ("density_tuned", "density_base", "mean_tuned", "mean_base")


def _sae_sweep(run: Run) -> list[ResultRow]:
    """A figure a metric of every autoencoder of the run; `group` names what it was trained with."""
    return [
        ResultRow.from_estimate(
            "sae_sweep", metric, row[metric], layer=row["layer"], model=row["model"], group=_trained_with(row)
        )
        for row in run.json("saes", "saes")
        for metric in ("fvu", "l0", "dead_fraction", "mmcs", "ce_recovered")
        if row[metric] is not None
    ]


def _trained_with(row: Mapping[str, Any]) -> str:
    return ",".join(f"{name}={row[name]}" for name in _SETTINGS if row.get(name) is not None)
