"""Stage `texts`: the texts kept for browsing, scored token by token, some with all their activations; near misses."""

from __future__ import annotations

import scipy.sparse as sp

from lfp.bundle.schema import as_table
from lfp.probes.linear_algebra import principal_components
from precompute.run.executor import Shelf
from precompute.run.inputs import load_reward, order_texts, read_statistics_texts
from precompute.run.work_folder import Output, Run
from precompute.stages.features import tables
from precompute.stages.features.text_scores import score_texts


def run(run: Run, output: Output) -> None:
    """Write the tables texts, token_scores and activations, and the features stage's examples with near misses."""
    texts = read_statistics_texts(run)
    first = order_texts(texts, seed=run.config.seed)[: run.config.stats.store_texts]
    sampled = frozenset(text.text_id for text in first)
    in_examples = set(run.table("features", "examples")["text_id"].to_pylist())
    splits = {int(text_id): columns for text_id, columns in run.json("credits", "texts").items()}
    wanted = sampled | in_examples | splits.keys()
    kept = [text for text in texts if text.text_id in wanted]
    scored, near = score_texts(run, kept, sampled, Shelf(output.scratch, "texts"))
    rows = [text.row for text in scored]
    stated = [text.said if text.spans else row["text"] for text, row in zip(kept, rows, strict=True)]
    feedback = load_reward(run.config, run.config_dir)(stated)
    places = principal_components(sp.csr_array(sp.vstack([text.mean for text in scored], format="csr")))
    for row, value, place in zip(rows, feedback, places, strict=True):
        row |= {"feedback": value, "pca_x": place[0], "pca_y": place[1], **splits.get(row["text_id"], {})}
    output.table("texts", as_table("texts", rows))
    output.table("token_scores", as_table("token_scores", [text.scores for text in scored]))
    stored = [text.activations for text in scored if text.activations is not None]
    output.table("activations", as_table("activations", stored))
    output.table("examples", tables.with_near_misses(run.table("features", "examples"), near.examples()))
