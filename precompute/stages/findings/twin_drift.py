"""Stage `twin_drift`: how many features changed in the tuned model and in its twins, in the base model's dictionary."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lfp.evaluation.drift import Firing, count_beside_twins, statuses
from lfp.evaluation.results import STATUSES, ResultRow
from lfp.util.types import Ints
from precompute.run.inputs import load_dictionaries, load_pair, order_texts, read_statistics_texts, tokenize_texts
from precompute.run.work_folder import Output, Run
from precompute.stages.models.twins import load_twins

if TYPE_CHECKING:
    from lfp.ml.features.active import FeatureTotals
    from lfp.ml.models.loading import LanguageModel
    from lfp.ml.models.tokenization import TokenizedText
    from lfp.ml.sae.autoencoders import Dictionary

_TEXTS = 400
"""Texts that are read, held-out ones first."""


def run(run: Run, output: Output) -> None:
    """Write rows `drift` of the metric twin_count; none without twins, or where the base model has no dictionary.

    In a dictionary that was trained with the tuned model a twin's features change otherwise for that reason alone.
    """
    rows: list[ResultRow] = []
    if run.config.twins.n:
        of_tuned, of_base = load_dictionaries(run)
        if of_base is not of_tuned:
            rows = _count(run, of_base)
    output.results(rows)


def _count(run: Run, dictionary: Dictionary) -> list[ResultRow]:
    base, tuned = load_pair(run, exact=True)
    texts = tokenize_texts(run, base, order_texts(read_statistics_texts(run), seed=run.config.seed)[:_TEXTS])
    before = _total(run, base, dictionary, texts)
    found = [_find_statuses(before, _total(run, tuned, dictionary, texts))]
    for twin in load_twins(run):
        found.append(_find_statuses(before, _total(run, twin, dictionary, texts)))
        run.progress("drift of twins: models", len(found), run.config.twins.n + 1, float(len(found)))
    return [
        ResultRow.from_estimate(
            "drift",
            "twin_count",
            count_beside_twins(found[0], found[1:], status),
            model="difference",
            inputs="base_sae",
            group=name,
        )
        for status, name in enumerate(STATUSES)
    ]


def _total(run: Run, model: LanguageModel, dictionary: Dictionary, texts: list[TokenizedText]) -> FeatureTotals:
    from lfp.ml.features.active import FeatureTotals, encode_active
    from lfp.ml.models.activations import stream

    totals, config = FeatureTotals(dictionary.n_features), run.config
    for read in stream(
        model,
        texts,
        places=dictionary.places,
        batch_texts=config.stats.batch_texts,
        prepend_bos=config.model.prepend_bos,
    ):
        totals.update(encode_active(dictionary, read.outputs))
    return totals


def _find_statuses(before: FeatureTotals, after: FeatureTotals) -> Ints:
    """Return the status of each feature that fires in one of two models, -1 for the others."""
    firing = Firing(after.density, before.density, after.mean, before.mean, before.n_tokens)
    return np.where(firing.is_live, statuses(firing), -1)
