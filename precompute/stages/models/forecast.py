"""Stages `forecast`, what preference data hold of the base model's features, and `receipt`, what tuning made of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from lfp.bundle.forecasts import hash_forecast
from lfp.bundle.schema import as_table
from lfp.evaluation.feature_credits import PATHS
from lfp.evaluation.forecast import (
    Means,
    Measured,
    Receipt,
    difference_at_equal_length,
    judge_forecast,
    mean_of_groups,
    measure_without,
    name_fates,
    preference_at_equal_length,
    swapped_differences,
)
from lfp.evaluation.results import FATES, RATE, ResultRow
from lfp.evaluation.statistics.discoveries import adjusted_p
from lfp.util.types import Flags, Floats, Ints, floats
from precompute.run.inputs import load_alone, load_pair, name_texts
from precompute.run.work_folder import Output, Run
from precompute.stages.models.forecast_inputs import (
    Pairs,
    choose_place,
    pool_base,
    pool_both,
    read_pairs,
    train_dictionary,
)

if TYPE_CHECKING:
    from lfp.ml.models.loading import LanguageModel
    from lfp.ml.sae.autoencoders import Dictionary
_LEAST_TEXTS = 10
"""Features that fire in fewer texts are not forecast."""
_OF_CHANCE = "of_chance.npz"
"""Differences in the data, pairs' sides swapped at random [draws, features], and without blocks of conversations."""
_FEWEST_CONVERSATIONS = 3
"""With credits of fewer, the forecast is not compared with them."""
_NODES = 2
"""Nodes of the integral of credits."""


def run_forecast(run: Run, output: Output) -> None:
    """Write the table `forecast`, its hash in facts.json, and the base model's dictionary, before anything is tuned."""
    config = run.config
    from lfp.ml.sae.autoencoders import Dictionary
    from lfp.ml.sae.formats import write_sae

    base = load_alone(run, "base")
    sae = train_dictionary(run, output, base, choose_place(run, base))
    write_sae(sae, output.folder / "dictionary")
    dictionary = Dictionary([sae]).to(config.model.device)
    pairs = read_pairs(run, base, "train")
    pooled, tokens = pool_base(run, base, dictionary, pairs)
    n = len(pairs.conversation)
    spread = pooled.std(axis=0)
    is_live = (spread > 0) & ((pooled > 0).sum(axis=0) >= _LEAST_TEXTS)
    kept = np.flatnonzero(is_live)
    differences = (pooled[:n] - pooled[n:])[:, kept]
    found = difference_at_equal_length(differences, pairs.lengths, pairs.conversation)
    nulls = swapped_differences(
        differences,
        pairs.lengths,
        pairs.conversation,
        n=config.probes.permutations,
        rng=np.random.default_rng(config.seed),
    )

    def measure(rows: Flags) -> Floats:
        return difference_at_equal_length(differences[rows], pairs.lengths[rows], pairs.conversation[rows]).value

    measured = measure_without(measure, pairs.conversation)
    np.savez(output.folder / _OF_CHANCE, allow_pickle=False, nulls=nulls, without=measured.without)
    table = as_table(
        "forecast",
        {
            "feature_id": kept,
            "layer": np.full(len(kept), sae.info.layer),
            "site": [sae.info.site] * len(kept),
            "top_tokens": tokens.name_top(base, kept),
            "density": tokens.density[kept],
            "spread": spread[kept],
            "in_data": found.value,
            "in_data_low": found.low,
            "in_data_high": found.high,
            "in_data_q": adjusted_p(found.p),
            **{name: pa.nulls(len(kept)) for name in _LATER},
        },
    )
    output.table("forecast", table)
    output.json("facts", {"sha256": hash_forecast(table), "pairs": n})


_LATER = (
    "expected", "preferred", "preferred_low", "preferred_high", "preferred_q", "moved", "moved_low", "moved_high",
    "credit", "status",
)  # fmt: skip
"""Columns that are known after tuning."""


def skip(run: Run, output: Output) -> None:  # noqa: ARG001 (the signature of a stage's job)
    """Write facts.json alone: the model is not tuned here on pairs, or no forecast is wanted."""
    output.json("facts", {"sha256": None})


def run_receipt(run: Run, output: Output) -> None:
    """Write the table `forecast` with what tuning changed, the forecast's hash in facts.json, and the report's rows."""
    facts = run.json("forecast", "facts")
    if facts["sha256"] is None:
        output.table("forecast", as_table("forecast", []))
        output.json("facts", facts)
        return
    from lfp.ml.sae.autoencoders import Dictionary
    from lfp.ml.sae.formats import load_sae

    config = run.config
    base, tuned = load_pair(run)
    dictionary = Dictionary([load_sae(run.folder("forecast") / "dictionary")]).to(config.model.device)
    before = run.table("forecast", "forecast")
    kept = before["feature_id"].to_numpy()
    pairs = read_pairs(run, base, "held_out")
    pooled, change, rewards = pool_both(run, (tuned, base), dictionary, pairs)
    half = len(pairs.conversation)
    both, differences = np.concatenate([pairs.conversation] * 2), (pooled[:half] - pooled[half:])[:, kept]
    of_reward = rewards[:half] - rewards[half:]
    moved = mean_of_groups(change[:, kept], both)

    def prefer(rows: Flags) -> Means:
        return preference_at_equal_length(
            differences[rows], of_reward[rows], pairs.lengths[rows], pairs.conversation[rows]
        )

    preferred = prefer(np.ones(half, bool))

    measures = {
        "preferred": measure_without(lambda rows: prefer(rows).value, pairs.conversation),
        "moved": measure_without(lambda rows: change[rows][:, kept].mean(axis=0), both),
    }
    of_pairs, chosen = _measure_credits(run, (tuned, base), dictionary, pairs)
    credit = of_pairs[:, kept].mean(axis=0) if len(chosen) else None
    if len(np.unique(pairs.conversation[chosen])) >= _FEWEST_CONVERSATIONS:
        measures["credit"] = measure_without(
            lambda rows: of_pairs[rows][:, kept].mean(axis=0), pairs.conversation[chosen]
        )
    n, learned_q = len(kept), adjusted_p(preferred.p)
    with np.load(run.folder("forecast") / _OF_CHANCE) as stored:
        judged = _judge(before, measures, (stored["without"], stored["nulls"]), seed=config.seed)
    fates = name_fates(
        floats(before, "in_data"), preferred.value, data_q=floats(before, "in_data_q"), learned_q=learned_q
    )
    columns: dict[str, Any] = {name: before[name].combine_chunks() for name in before.column_names}
    for name, found in {"preferred": preferred, "moved": moved}.items():
        columns |= {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}
    columns |= {"preferred_q": learned_q, "status": fates}
    columns["credit"] = pa.nulls(n) if credit is None else credit
    if "preferred" in judged:
        columns["expected"] = judged["preferred"].expected
    table = as_table("forecast", columns)
    output.table("forecast", table)
    output.json("facts", {**facts, "sha256": hash_forecast(table)})
    output.results(_rows(judged, before, fates))


def _judge(
    before: pa.Table, measures: Mapping[str, Measured], of_chance: tuple[Floats, Floats], *, seed: int
) -> dict[str, Receipt]:
    """Judge the forecast by each measure of what was learned; none where too few features are forecast.

    `of_chance` are the differences in the data without blocks of conversations, and with sides swapped at random.
    """
    found, (without, nulls) = {}, of_chance
    in_data, spread = Measured(floats(before, "in_data"), without), floats(before, "spread")
    for name, learned in measures.items():
        receipt = judge_forecast(in_data, learned, nulls=nulls, spread=spread, seed=seed)
        if receipt is not None:
            found[name] = receipt
    return found


def _rows(judged: Mapping[str, Receipt], before: pa.Table, fates: Sequence[str]) -> list[ResultRow]:
    """Report how well what was learned was forecast, and how many features are on each list."""
    n = before.num_rows
    if not n:
        return []
    keys: dict[str, Any] = {"layer": int(before["layer"][0].as_py())}
    rows = [
        ResultRow.from_estimate(
            "forecast", metric, figure, group=measure, model="difference", split="held_out_features", **keys
        )
        for measure, receipt in judged.items()
        for metric, figure in (("r2", receipt.r2), ("rank_correlation", receipt.rank_correlation))
    ]
    n_in_data = float((floats(before, "in_data_q") <= RATE).sum())
    rows.append(ResultRow.from_estimate("forecast", "in_data_count", n_in_data, n=n, **keys))
    counted = ((fate, float(list(fates).count(fate))) for fate in FATES)
    return [*rows, *(ResultRow.from_estimate("forecast", "count", c, group=fate, n=n, **keys) for fate, c in counted)]


def _measure_credits(
    run: Run, models: tuple[LanguageModel, LanguageModel], dictionary: Dictionary, pairs: Pairs
) -> tuple[Floats, Ints]:
    """Return each feature's part of the implicit reward of chosen minus rejected responses, and which pairs these are.

    The parts [pairs, features] are in nats, on the full path, of at most `forecast.credit_pairs` pairs.
    """
    from lfp.ml.implicit_reward.feature_credits import feature_credits

    n, half, config = run.config.forecast.credit_pairs, len(pairs.conversation), run.config
    chosen = [int(i * half / n) for i in range(min(n, half))] if n else []
    parts = np.zeros((len(chosen), dictionary.n_features))
    if not chosen:
        return parts, np.zeros(0, np.int64)
    rows = [*chosen, *(half + i for i in chosen)]
    tuned, base = models
    split = feature_credits(
        base,
        tuned,
        dictionary,
        [pairs.tokenized[i] for i in rows],
        nodes=_NODES,
        batch_texts=config.stats.batch_texts,
        batch_key="stats.batch_texts",
        prepend_bos=config.model.prepend_bos,
        counted=[pairs.responses[i] for i in rows],
    )
    with name_texts([pairs.text_ids[i] for i in rows]):
        for done, (row, text) in enumerate(zip(rows, split, strict=True)):
            sign = 1.0 if done < len(chosen) else -1.0
            of_text = np.bincount(text.features, text.credits[PATHS.index("full")], minlength=dictionary.n_features)
            parts[done % len(chosen)] += sign * of_text
            run.progress("receipt: credits of pairs", done + 1, len(rows), float(row))
    return parts, np.array(chosen)
