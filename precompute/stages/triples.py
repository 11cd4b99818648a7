"""Triples for the probes stage, drawn from the corpus by the lexicon or by asking a language model."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from lfp.bundle.schema import as_table
from lfp.errors import DataError
from lfp.evaluation.results import result
from lfp.texts.triples import CountTokens, Drawn, Rewriter, Triple, make_triples, make_triples_by_language_model
from precompute import pair, truth
from precompute.probing.points import ROLES, TriplePoints
from precompute.run import Run

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def draw_triples(run: Run) -> Drawn:
    """Triples from the corpus, in the way that `probes.triples_by` names, and what was dropped."""
    config, texts, lexicon = run.config.probes, [text.text for text in pair.corpus_texts(run)], truth.lexicon(run)
    bounds: dict[str, Any] = {
        "n": config.triples,
        "strong_quantile": config.strong_quantile,
        "min_count": config.min_word_count,
        "seed": run.config.seed,
    }
    tokenizer = pair.load(run, "tuned").tokenizer
    if config.triples_by == "language_model":
        drawn = make_triples_by_language_model(texts, lexicon, _rewriter(run), **bounds)
    else:
        drawn = make_triples(texts, lexicon, **bounds, n_tokens=_token_counter(tokenizer))
    return _within_context(drawn, tokenizer, run.config.model.context)


def triples_results(drawn: Drawn) -> list[dict[str, Any]]:
    """The report's rows: how many triples there are, and how many sentences gave none by reason."""
    total = len(drawn.triples) + sum(drawn.dropped.values())
    dropped = [result("triples", "dropped", n, group=reason, n=total) for reason, n in drawn.dropped.items()]
    return [result("triples", "kept", len(drawn.triples), n=total), *dropped]


def triple_rows(triples: Sequence[Triple], points: TriplePoints, folds: Mapping[str, int]) -> pa.Table:
    """The rows of `triples`."""
    positions = dict(zip(ROLES, points.positions.reshape(len(ROLES), -1).tolist(), strict=True))
    rows = [
        {role: getattr(triple, role) for role in ROLES}
        | {f"{role}_word": getattr(triple, f"{role}_word") for role in ROLES}
        | {f"{role}_position": positions[role][i] for role in ROLES}
        | {"triple_id": i, "fold": int(folds.get(triple.positive_word, 0))}
        for i, triple in enumerate(triples)
    ]
    return as_table("triples", rows)


def _rewriter(run: Run) -> Rewriter:
    """Asks the model that the config names; its answers are kept until the run is done."""
    from lfp.labels.client.client import Client, ClientConfig
    from lfp.labels.rewriting import LanguageModelRewriter

    config = ClientConfig.of(run.config.language_model, cache=run.work / "answers")
    return LanguageModelRewriter(Client(config), run.progress)


def _token_counter(tokenizer: PreTrainedTokenizerBase) -> CountTokens:
    """How many tokens a word is read as, after a space."""
    return functools.cache(lambda word: len(tokenizer.encode(f" {word}", add_special_tokens=False)))


def _within_context(drawn: Drawn, tokenizer: PreTrainedTokenizerBase, context: int) -> Drawn:
    """Without the triples of which the models would not read a target word to its end."""
    from lfp.ml.models.tokenization import tokenize

    cut = set()
    for role in ROLES:
        texts = tokenize(tokenizer, [getattr(triple, role) for triple in drawn.triples], context=context)
        for i, (text, triple) in enumerate(zip(texts, drawn.triples, strict=True)):
            if len(text.text) < triple.start + len(getattr(triple, f"{role}_word")):
                cut.add(i)
    kept = tuple(triple for i, triple in enumerate(drawn.triples) if i not in cut)
    if not kept:
        raise DataError(f"model.context {context}: every triple's target word lies beyond it; raise it")
    return Drawn(kept, {**drawn.dropped, **({"cut by the context": len(cut)} if cut else {})})
