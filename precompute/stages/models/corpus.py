"""Stages `corpus`, the texts of the run, and `feedback`, which checks the lexicon and the reward on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from lfp.config import TUNE, VADER
from lfp.texts.corpus import CorpusText, read_corpus
from lfp.texts.lexicon import check_lexicon, lexicon_of
from lfp.texts.preferences import find_preferences, last_words, number_conversations, split_pairs
from lfp.texts.reading.rows import DroppedRows
from lfp.util.dependencies import check_tracker
from precompute.run.inputs import load_chat_by, load_reward, read_texts
from precompute.run.work_folder import Output, Run

_TRIED_TEXTS = 16
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
        ("spans", pa.list_(pa.list_(pa.int64(), 2))),
        ("conversation", pa.int64()),
    ]
)


def run(run: Run, output: Output) -> None:
    """Write the table `corpus`, and facts.json with counts of texts, and of pairs and rows that were dropped."""
    config = run.config
    facts: dict[str, Any] = {}
    if config.tune.method == "dpo":
        texts, facts = _read_pairs(run)
    else:
        dropped, chat = DroppedRows(), load_chat_by(run)
        texts = read_corpus(config.corpus, beside=run.config_dir, seed=config.seed, chat=chat, dropped=dropped)
        facts = _describe_dropped(dropped.counts, dropped.sentence())
    facts["texts"] = len(texts)
    output.table("corpus", _table(texts))
    output.json("facts", facts)


def _table(texts: Sequence[CorpusText]) -> pa.Table:
    return pa.table({name: [getattr(text, name) for text in texts] for name in _SCHEMA.names}, schema=_SCHEMA)


def _describe_dropped(counts: Mapping[str, int], rows: str) -> dict[str, Any]:
    """Return counts of rows by what made them unusable, and the first of them; nothing where all were used."""
    return {"rows_dropped": dict(counts), "first_rows_dropped": rows} if counts else {}


def _read_pairs(run: Run) -> tuple[list[CorpusText], dict[str, Any]]:
    """Read both sides of every pair as texts; a share of the pairs, drawn by the seed, is held out whole."""
    corpus = run.config.corpus
    read = find_preferences(
        run.config.tune, beside=run.config_dir, chat=load_chat_by(run), prompt_words=corpus.prompt_words
    )
    pairs = split_pairs(read.pairs, share=corpus.held_out_share, limit=corpus.n_texts, seed=run.config.seed)
    texts: list[CorpusText] = []
    splits = [("train", pair) for pair in pairs.train] + [("held_out", pair) for pair in pairs.held_out]
    conversations = number_conversations([pair for _, pair in splits], most=len(pairs.held_out))
    for pair_id, (split, pair) in enumerate(splits):
        prompt = pair.prompt if pair.first_turn else last_words(pair.prompt, corpus.prompt_words)
        n_cut = len(pair.prompt) - len(prompt)
        sides = zip(("chosen", "rejected"), (pair.chosen, pair.rejected), pair.spans, strict=True)
        for role, text, spans in sides:
            moved = tuple((start - n_cut, end - n_cut) for start, end in spans)
            whole = prompt + text
            texts.append(
                CorpusText(
                    text_id=len(texts),
                    text=whole,
                    source=read.source,
                    split=split,
                    role=role,
                    pair_id=pair_id,
                    response_start=len(prompt),
                    spans=moved,
                    conversation=conversations[pair_id],
                )
            )
    facts = {"ties_dropped": float(read.ties), "shared_dropped": float(pairs.shared)}
    return texts, facts | _describe_dropped(read.dropped, read.dropped_rows)


def run_feedback(run: Run, output: Output) -> None:
    """Write facts.json, before any model is trained.

    Raises DataError for a lexicon without two values in the corpus, DependencyError where the tracker of the tuning is
    not installed, or what the reward raises.
    """
    if run.config.model.tuned == TUNE:
        check_tracker(run.config.tune.logger)
    rows = read_texts(run)
    texts, is_pairs = [row.said for row in rows], any(row.pair_id is not None for row in rows)
    lexicon = lexicon_of(run.config.feedback, beside=run.config_dir)
    if not is_pairs or run.config.feedback.lexicon != VADER:  # preferences need no lexicon
        check_lexicon(lexicon, texts, name=run.config.feedback.lexicon)
    load_reward(run.config, run.config_dir)(texts[:_TRIED_TEXTS])
    output.json("facts", {"lexicon_words": len(lexicon)})
