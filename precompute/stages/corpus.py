"""Stage `corpus`: the texts of the run, generated, read from a file, or from preference pairs."""

from __future__ import annotations

from dataclasses import asdict

import pyarrow as pa

from lfp.corpus import CorpusText, find_source, number, read_corpus
from lfp.feedback import read_pairs
from precompute.reviews import generate, word_count_error
from precompute.run import Output, Run

_DEMO_TEXTS = 8000


def run(run: Run, output: Output) -> None:
    """Writes corpus.parquet, and facts.json with what is known of the texts."""
    config = run.config
    facts: dict[str, float] = {}
    if config.tune.method == "dpo" and config.tune.pairs:
        texts, facts = _pairs(run, config.tune.pairs)
    elif config.corpus.source == "demo":
        texts, facts = _demo(run)
    else:
        texts = read_corpus(config.corpus, beside=run.beside, seed=config.seed)
    facts["texts"] = len(texts)
    output.table("corpus", pa.Table.from_pylist([asdict(text) for text in texts], schema=_SCHEMA))
    output.json("facts", facts)


_SCHEMA = pa.schema(
    [
        ("text_id", pa.int64()),
        ("text", pa.string()),
        ("source", pa.string()),
        ("split", pa.string()),
        ("rating", pa.float64()),
        ("role", pa.string()),
        ("pair_id", pa.int64()),
        ("response_start", pa.int64()),
    ]
)


def _demo(run: Run) -> tuple[list[CorpusText], dict[str, float]]:
    reviews = generate(run.config.corpus.n_texts or _DEMO_TEXTS, run.config.seed)
    rows = list({review.text: float(review.rating) for review in reviews}.items())
    n_held_out = max(1, round(run.config.corpus.held_out_share * len(rows)))
    texts = number(rows[:-n_held_out], rows[-n_held_out:], source="demo grammar")
    return texts, {"word_count_error": word_count_error(reviews)}


def _pairs(run: Run, name: str) -> tuple[list[CorpusText], dict[str, float]]:
    """Both sides of every pair as texts; a held-out share of pairs is set aside whole."""
    path = find_source(name, beside=run.beside)
    pairs, ties = read_pairs(path)
    n_held_out = max(1, round(run.config.corpus.held_out_share * len(pairs)))
    texts: list[CorpusText] = []
    for pair_id, pair in enumerate(pairs[: run.config.corpus.n_texts]):
        split = "held_out" if pair_id % max(2, round(len(pairs) / n_held_out)) == 1 else "train"
        for role, response in (("chosen", pair.chosen), ("rejected", pair.rejected)):
            texts.append(
                CorpusText(len(texts), pair.prompt + response, path.name, split, None, role, pair_id, len(pair.prompt))
            )
    return texts, {"ties_dropped": float(ties)}
