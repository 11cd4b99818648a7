"""What a forecast reads: a dictionary of the base model, pairs with marked responses, and features over these."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from lfp.errors import ConfigError
from lfp.probes.pooling import pool
from lfp.texts.corpus import CorpusText
from lfp.util.types import Floats, Ints, Place
from precompute.run.inputs import mark_responses, read_texts, tokenize_texts
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


def choose_place(run: Run, base: LanguageModel) -> Place:
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


def train_dictionary(run: Run, output: Output, base: LanguageModel, place: Place) -> Sae:
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
class Pairs:
    """Chosen texts, then rejected texts in the same order; what follows is of pairs."""

    tokenized: list[TokenizedText]
    text_ids: list[int]
    responses: list[Any]
    lengths: Floats
    """Tokens of the response, chosen minus rejected."""
    conversation: Ints


def read_pairs(run: Run, model: LanguageModel, split: str) -> Pairs:
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
    return Pairs(
        [tokenized[i] for i in rows],
        [texts[i].text_id for i in rows],
        [marked[i] for i in rows],
        lengths[:n] - lengths[n:],
        np.array([_conversation(texts[i]) for i in chosen], np.int64),
    )


def _conversation(text: CorpusText) -> int:
    return int(text.pair_id or 0) if text.conversation is None else text.conversation


@dataclass
class TokenSums:
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


def pool_base(run: Run, base: LanguageModel, dictionary: Dictionary, pairs: Pairs) -> tuple[Floats, TokenSums]:
    """Average the base model's features over each response [texts, features], and sum them by token."""
    from lfp.ml.models.activations import stream

    parts = []
    shape = (base.d_vocab, dictionary.n_features)
    tokens = TokenSums(sp.csr_array(shape), np.zeros(shape[0], np.int64), np.zeros(shape[1], np.int64))
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


def pool_both(
    run: Run, models: tuple[LanguageModel, LanguageModel], dictionary: Dictionary, pairs: Pairs
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
