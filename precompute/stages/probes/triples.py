"""Triples for the probes stage, made from the corpus by the lexicon or by a language model, and read by both models."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import scipy.sparse as sp

from lfp.bundle.schema import as_table
from lfp.config import LanguageModelConfig
from lfp.errors import ConfigError, DataError
from lfp.evaluation.results import ResultRow
from lfp.texts.lexicon import lexicon_of
from lfp.texts.triples import DrawnTriples, Triple, make_triples, make_triples_by_language_model
from lfp.texts.words import Word, word_tokens
from lfp.util.types import Floats32, Ints, Place
from precompute.run.inputs import load_pair, load_role, read_texts
from precompute.run.work_folder import Run
from precompute.stages.probes.inputs import Inputs, watch_inputs

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from lfp.ml.models.loading import LanguageModel
    from lfp.ml.models.tokenization import TokenizedText

Encode = Callable[[Floats32, Ints], sp.csr_array]
ROLES = ("positive", "negative", "neutral")


def draw_triples(run: Run) -> DrawnTriples:
    """Make triples from the corpus in the way that `probes.triples_by` names, and count what was dropped."""
    config, texts = run.config.probes, [text.said for text in read_texts(run)]
    lexicon = lexicon_of(run.config.feedback, beside=run.config_dir)
    bounds: dict[str, Any] = {
        "n": config.triples,
        "strong_quantile": config.strong_quantile,
        "min_count": config.min_word_count,
        "seed": run.config.seed,
    }
    tokenizer = load_role(run, "tuned").tokenizer
    if config.triples_by == "language_model":
        from lfp.labels.client.client import Client, ClientConfig
        from lfp.labels.rewriting import LanguageModelRewriter

        if config.triples_model is None:
            raise ConfigError("probes.triples_model: no model is named; name a model that the server lists")
        server, cache = run.language_model or LanguageModelConfig(), run.work / "answers"  # kept for a resumed run
        settings = ClientConfig(config.triples_model, **dict(server), cache=cache)
        rewriter = LanguageModelRewriter(Client(settings), run.progress)
        drawn = make_triples_by_language_model(texts, lexicon, rewriter, **bounds)
    else:

        @functools.cache
        def count_tokens(word: str) -> int:
            return len(tokenizer.encode(f" {word}", add_special_tokens=False))

        drawn = make_triples(texts, lexicon, **bounds, n_tokens=count_tokens)
    return _drop_cut(drawn, tokenizer, run.config.model.context)


def triples_results(drawn: DrawnTriples) -> list[ResultRow]:
    """Report how many triples there are, and how many sentences were dropped, by reason."""
    total = len(drawn.triples) + sum(drawn.dropped.values())
    dropped = [
        ResultRow.from_estimate("triples", "dropped", n, group=reason, n=total) for reason, n in drawn.dropped.items()
    ]
    return [ResultRow.from_estimate("triples", "kept", len(drawn.triples), n=total), *dropped]


def triple_rows(triples: Sequence[Triple], points: TriplePoints | None, folds: Mapping[str, int]) -> pa.Table:
    """Build the table `triples`, empty without points."""
    if points is None:
        return as_table("triples", [])
    positions = dict(zip(ROLES, points.positions.reshape(len(ROLES), -1).tolist(), strict=True))
    rows = [
        {role: getattr(triple, role) for role in ROLES}
        | {f"{role}_word": getattr(triple, f"{role}_word") for role in ROLES}
        | {f"{role}_position": positions[role][i] for role in ROLES}
        | {"triple_id": i, "fold": int(folds.get(triple.positive_word, 0))}
        for i, triple in enumerate(triples)
    ]
    return as_table("triples", rows)


def _drop_cut(drawn: DrawnTriples, tokenizer: PreTrainedTokenizerBase, context: int) -> DrawnTriples:
    """Drop triples whose target words the models would not read to the end. Raises DataError where none is left."""
    from lfp.ml.models.tokenization import tokenize

    cut = set()
    for role in ROLES:
        texts = tokenize(tokenizer, [getattr(triple, role) for triple in drawn.triples], context=context)
        for i, (text, triple) in enumerate(zip(texts, drawn.triples, strict=True)):
            if len(text.text) < triple.start + len(getattr(triple, f"{role}_word")):
                cut.add(i)
    kept = tuple(triple for i, triple in enumerate(drawn.triples) if i not in cut)
    if not kept:
        raise DataError(f"model.context {context}: it cuts the target word of every triple; raise it")
    return DrawnTriples(kept, {**drawn.dropped, **({"cut by the context": len(cut)} if cut else {})})


@dataclass(frozen=True)
class TriplePoints:
    """The target words of `n` triples, all positive, then all negative, then all neutral: everything is [3 n].

    `positions` and `token_ids` are of a target's last token, `outputs` what is encoded of it by `Inputs.source`: a
    model's activations [3 n, sum of d_model], or what a dictionary reads of both models' [3 n, sum of d_in].
    """

    words: list[str]
    positions: Ints
    token_ids: Ints
    outputs: Mapping[str, Floats32]

    def encoded(self, source: str, encode: Encode) -> tuple[sp.csr_array, sp.csr_array]:
        """Encode the positive, then the negative points [2 n, columns], and the neutral partner of each."""
        n, encoded = len(self.words) // len(ROLES), encode(self.outputs[source], self.token_ids)
        neutral = encoded[2 * n :]
        return encoded[: 2 * n], sp.csr_array(sp.vstack([neutral, neutral], format="csr"))


def collect_points(
    run: Run, triples: Sequence[Triple], places: Sequence[Place], inputs: Sequence[Inputs]
) -> TriplePoints:
    """Run both models over the sentences of the triples, for kinds of inputs.

    Raises DataError where there is no triple.
    """
    from lfp.ml.models.tokenization import tokenize

    if not triples:
        raise DataError("no triple could be made of the corpus; pass more texts, or a lexicon with words of both signs")
    base, tuned = load_pair(run)
    placed = [
        (getattr(triple, role), triple.start, getattr(triple, f"{role}_word")) for role in ROLES for triple in triples
    ]
    texts = tokenize(tuned.tokenizer, [text for text, _, _ in placed], context=run.config.model.context)
    lasts = []
    for text, (_, start, word) in zip(texts, placed, strict=True):
        target = Word(word, start, start + len(word))
        tokens = word_tokens([target], text.token_starts, len(text.text))[0]
        lasts.append(tokens[-1] if tokens else len(text.token_ids) - 1)  # else the context cut the word
    positions = np.array(lasts)
    ids = np.array([text.token_ids[at] for text, at in zip(texts, positions.tolist(), strict=True)])
    outputs = _read_at(run, (tuned, base), texts, positions, places, inputs)
    return TriplePoints([word for _, _, word in placed], positions, ids, outputs)


def _read_at(
    run: Run,
    models: tuple[LanguageModel, LanguageModel],
    texts: list[TokenizedText],
    positions: Ints,
    places: Sequence[Place],
    inputs: Sequence[Inputs],
) -> dict[str, Floats32]:
    """Return what inputs encode of a position of each text, by source, [texts, columns]; `models` are tuned, base."""
    from lfp.ml.sae.views import stream_both

    kinds = {kind.source: kind for kind in inputs}
    parts: dict[str, list[Floats32]] = {source: [] for source in kinds}
    for pair in stream_both(
        *models,
        texts,
        places=places,
        batch_texts=128,
        prepend_bos=run.config.model.prepend_bos,
        changes=watch_inputs(models, inputs),
    ):
        at = np.flatnonzero(positions[pair.tuned.rows.numpy()] == pair.tuned.positions.numpy())
        for source, kind in kinds.items():
            parts[source].append(kind.read(pair)[at])
    return {source: np.concatenate(found) for source, found in parts.items()}
