"""Stages `forecast`, what preference data hold of the base model's features, and `receipt`, what tuning made of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import scipy.sparse as sp

from lfp.bundle.forecasts import hash_forecast
from lfp.bundle.schema import as_table
from lfp.errors import ConfigError
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
from lfp.probes.pooling import pool
from lfp.texts.corpus import CorpusText
from lfp.util.types import Flags, Floats, Ints, Place, floats
from precompute.run.inputs import load_alone, load_pair, mark_responses, read_texts, tokenize_texts
from precompute.run.work_folder import Output, Run
from precompute.stages.features.subjects import Subject

if TYPE_CHECKING:
    from torch import Tensor

    from lfp.ml.models.loading import LanguageModel
    from lfp.ml.models.tokenization import TokenizedText
    from lfp.ml.sae.autoencoders import Dictionary, Sae

_DEPTH = 2 / 3
"""Share of the layers below the one that is read, where the config names none."""
_TOP_TOKENS = 8
_LEAST_TOKENS = 5
"""Rarer tokens are not named as what a feature fires on."""
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
    sae = _train_dictionary(run, output, base, _choose_place(run, base))
    write_sae(sae, output.folder / "dictionary")
    dictionary = Dictionary([sae]).to(config.model.device)
    pairs = _read_pairs(run, base, "train")
    pooled, tokens = _pool_base(run, base, dictionary, pairs)
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
    pairs = _read_pairs(run, base, "held_out")
    pooled, change, rewards = _pool_both(run, (tuned, base), dictionary, pairs)
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


def _choose_place(run: Run, base: LanguageModel) -> Place:
    """Return where the base model is read: the config's layer, or two thirds up. Raises ConfigError."""
    layer = run.config.forecast.layer
    if layer is None:
        layer = min(base.n_layers - 1, round(_DEPTH * base.n_layers))
    if layer >= base.n_layers:
        raise ConfigError(f"forecast.layer is {layer}, but the base model has {base.n_layers} layers; count from 0")
    return Place(layer)


@dataclass(frozen=True)
class _BaseSubject(Subject):
    """The base model at a place that is chosen before there is a pair."""

    chosen: tuple[Place, ...] = ()

    @cached_property
    def places(self) -> list[Place]:
        """Places that are read."""
        return list(self.chosen)


def _train_dictionary(run: Run, output: Output, base: LanguageModel, place: Place) -> Sae:
    """Train a dictionary of the first size of `sae.expansion` on the base model's activations at a place."""
    from lfp.ml.sae.autoencoders import SaeInfo
    from lfp.ml.sae.training import SaeTrainer, train_saes, unit_scale

    config = run.config.sae
    source = _BaseSubject(run, "base", base, chosen=(place,)).source()
    sample: Tensor = source.sample()[place].to(run.config.model.device)
    info = SaeInfo(
        layer=place.layer,
        site=place.site,
        width=config.expansion[0] * sample.shape[1],
        d_in=sample.shape[1],
        scale=unit_scale(sample),
        seed=run.config.seed,
        model="base",
        trained_on="base",
        **config.of_variant(),
    )
    trainer = SaeTrainer(info, config, sample)
    (sae,) = train_saes([trainer], source, checkpoint=output.scratch / "dictionary.pt", progress=run.progress)
    return sae.cpu()


@dataclass(frozen=True)
class _Pairs:
    """Chosen texts, then rejected texts in the same order; what follows is of pairs."""

    tokenized: list[TokenizedText]
    responses: list[Any]
    lengths: Floats
    """Tokens of the response, chosen minus rejected."""
    conversation: Ints


def _read_pairs(run: Run, model: LanguageModel, split: str) -> _Pairs:
    """Read at most `forecast.pairs` pairs of a split, evenly spaced, whose sides differ within the context."""
    texts = sorted(read_texts(run, split), key=lambda text: (text.role, text.pair_id))  # chosen before rejected
    half = len(texts) // 2
    tokenized = tokenize_texts(run, model, texts)
    marked = mark_responses(texts, tokenized)
    usable = [
        i
        for i in range(half)
        if tokenized[i].token_ids != tokenized[half + i].token_ids and marked[i].any() and marked[half + i].any()
    ]
    n = min(run.config.forecast.pairs, len(usable))
    chosen = [usable[int(i * len(usable) / n)] for i in range(n)]
    rows = [*chosen, *(half + i for i in chosen)]
    lengths = np.array([marked[i].sum() for i in rows], float)
    return _Pairs(
        [tokenized[i] for i in rows],
        [marked[i] for i in rows],
        lengths[:n] - lengths[n:],
        np.array([_conversation(texts[i]) for i in chosen], np.int64),
    )


def _conversation(text: CorpusText) -> int:
    return int(text.pair_id or 0) if text.conversation is None else text.conversation


@dataclass
class _TokenSums:
    """How strongly each feature fires on each token [d_vocab, features], summed; and how often tokens occur."""

    sums: sp.csr_array
    counts: Ints
    active: Ints
    n_tokens: int = 0

    def add(self, ids: Ints, features: sp.csr_array) -> None:
        """Add tokens [n] with their features [n, features]."""
        marks = sp.csr_array((np.ones(len(ids)), (ids, np.arange(len(ids)))), shape=(len(self.counts), len(ids)))
        self.sums = sp.csr_array(self.sums + marks @ features)
        self.counts += np.bincount(ids, minlength=len(self.counts))
        self.active += np.diff(features.tocsc().indptr)
        self.n_tokens += len(ids)

    @property
    def density(self) -> Floats:
        """Share of tokens that each feature is active on."""
        return np.asarray(self.active / max(1, self.n_tokens))

    def name_top(self, model: LanguageModel, features: Ints) -> list[list[dict[str, Any]]]:
        """Name the tokens that each feature fires most on, on average, with those means."""
        common = np.flatnonzero(self.counts >= _LEAST_TOKENS)
        means = (sp.diags_array(1.0 / np.maximum(self.counts[common], 1)) @ self.sums[common]).tocsc()
        named = []
        for feature in features.tolist():
            entries = slice(means.indptr[feature], means.indptr[feature + 1])
            values, rows = means.data[entries], means.indices[entries]
            top = np.argsort(-values, kind="stable")[:_TOP_TOKENS]
            named.append(
                [{"token": model.tokenizer.decode([int(common[rows[i]])]), "value": float(values[i])} for i in top]
            )
        return named


def _pool_base(run: Run, base: LanguageModel, dictionary: Dictionary, pairs: _Pairs) -> tuple[Floats, _TokenSums]:
    """Average the base model's features over each response [texts, features], and sum them by token."""
    from lfp.ml.models.activations import stream

    parts = []
    shape = (base.d_vocab, dictionary.n_features)
    tokens = _TokenSums(sp.csr_array(shape), np.zeros(shape[0], np.int64), np.zeros(shape[1], np.int64))
    config = run.config
    for read in stream(
        base,
        pairs.tokenized,
        places=dictionary.places,
        batch_texts=config.stats.batch_texts,
        prepend_bos=config.model.prepend_bos,
    ):
        features = _encode(dictionary, read.outputs)
        rows = read.rows.numpy()
        is_response = np.concatenate(pairs.responses[int(rows[0]) : int(rows[-1]) + 1])
        parts.append(pool(features, rows - rows[0], how="response", response=is_response).toarray())
        tokens.add(read.ids.numpy()[is_response], sp.csr_array(features[np.flatnonzero(is_response)]))
        run.progress("forecast: texts of pairs", int(rows[-1]) + 1, len(pairs.tokenized), float(rows[-1] + 1))
    return np.concatenate(parts), tokens


def _pool_both(
    run: Run, models: tuple[LanguageModel, LanguageModel], dictionary: Dictionary, pairs: _Pairs
) -> tuple[Floats, Floats, Floats]:
    """Average features over each response: the base model's, and what tuning changed [texts, features].

    Also the implicit reward of each response [texts], in nats. `models` are tuned and base.
    """
    from lfp.ml.models.activations import stream_pair

    pooled, changes, rewards = list[Floats](), list[Floats](), list[Floats]()
    config = run.config
    for read in stream_pair(
        *models,
        pairs.tokenized,
        places=dictionary.places,
        batch_texts=config.stats.batch_texts,
        prepend_bos=config.model.prepend_bos,
    ):
        tuned, base = (_encode(dictionary, side.outputs) for side in (read.tuned, read.base))
        rows = read.tuned.rows.numpy()
        text_of, is_response = rows - rows[0], np.concatenate(pairs.responses[int(rows[0]) : int(rows[-1]) + 1])
        for parts, features in ((pooled, base), (changes, sp.csr_array(tuned - base))):
            parts.append(pool(features, text_of, how="response", response=is_response).toarray())
        reward = read.implicit_reward.nan_to_num().double().numpy()
        rewards.append(np.asarray(np.bincount(text_of, reward * is_response), np.float64))
        run.progress("receipt: texts of pairs", int(rows[-1]) + 1, len(pairs.tokenized), float(rows[-1] + 1))
    return np.concatenate(pooled), np.concatenate(changes), np.concatenate(rewards)


def _encode(dictionary: Dictionary, outputs: dict[Place, Tensor]) -> sp.csr_array:
    from lfp.ml.features.active import encode_active

    found = encode_active(dictionary, outputs)
    entries = found.values.astype(np.float64), found.features, found.offsets
    return sp.csr_array(entries, shape=(found.n_tokens, found.n_features))


def _measure_credits(
    run: Run, models: tuple[LanguageModel, LanguageModel], dictionary: Dictionary, pairs: _Pairs
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
        prepend_bos=config.model.prepend_bos,
        counted=[pairs.responses[i] for i in rows],
    )
    for done, (row, text) in enumerate(zip(rows, split, strict=True)):
        sign = 1.0 if done < len(chosen) else -1.0
        of_text = np.bincount(text.features, text.credits[PATHS.index("full")], minlength=dictionary.n_features)
        parts[done % len(chosen)] += sign * of_text
        run.progress("receipt: credits of pairs", done + 1, len(rows), float(row))
    return parts, np.array(chosen)
