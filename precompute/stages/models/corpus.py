"""Stage `corpus`: the texts of the run, read from a file or from preference pairs."""

from __future__ import annotations

from dataclasses import asdict

import pyarrow as pa

from lfp.texts.corpus import CorpusText, read_corpus
from lfp.texts.preferences import find_preferences, last_words, split_pairs
from precompute.run.work_folder import Output, Run


def run(run: Run, output: Output) -> None:
    """Writes corpus.parquet, and facts.json with what is known of the texts."""
    config = run.config
    facts: dict[str, float] = {}
    if config.tune.method == "dpo" and config.tune.pairs:
        texts, facts = _pairs(run)
    else:
        texts = read_corpus(config.corpus, beside=run.config_dir, seed=config.seed)
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


def _pairs(run: Run) -> tuple[list[CorpusText], dict[str, float]]:
    """Both sides of every pair as texts; a held-out share of pairs, drawn by the seed, is set aside whole."""
    corpus, read = run.config.corpus, find_preferences(run.config.tune, beside=run.config_dir)
    pairs = split_pairs(read.pairs, share=corpus.held_out_share, limit=corpus.n_texts, seed=run.config.seed)
    texts: list[CorpusText] = []
    splits = [("train", pair) for pair in pairs.train] + [("held_out", pair) for pair in pairs.held_out]
    for pair_id, (split, pair) in enumerate(splits):
        prompt = last_words(pair.prompt, corpus.prompt_words)
        for role, response in (("chosen", pair.chosen), ("rejected", pair.rejected)):
            texts.append(
                CorpusText(len(texts), prompt + response, read.source, split, None, role, pair_id, len(prompt))
            )
    return texts, {"ties_dropped": float(read.ties), "shared_dropped": float(pairs.shared)}
