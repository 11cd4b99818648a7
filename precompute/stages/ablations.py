"""Stage `ablations`: what the tuned model writes without the features that the findings call important."""

from __future__ import annotations

from lfp.bundle.schema import as_table
from precompute import pair, truth
from precompute.ablating import Ablated, Request, Tables, ablate
from precompute.run import Output, Run


def run(run: Run, output: Output) -> None:
    """Writes ablations, the completions of its main groups, and the figures that single features give."""
    done = ablate(_request(run), run.progress) if run.config.ablation.completions else Ablated([], [], [])
    output.table("ablations", as_table("ablations", done.ablations))
    output.table("completions", as_table("completions", done.completions))
    output.results(done.results)


def _request(run: Run) -> Request:
    base, tuned = pair.load_pair(run)
    return Request(
        config=run.config,
        base=base,
        tuned=tuned,
        dictionary=pair.dictionary(run, "tuned"),
        tables=_tables(run),
        texts=pair.tokenized(run, base, pair.corpus_texts(run, "held_out")),
        reward=truth.reward(run) if run.config.tune.method == "grpo" else None,
    )


def _tables(run: Run) -> Tables:
    return Tables(
        features=run.table("features", "features"),
        probes=run.table("probes", "probes"),
        weights=run.table("probes", "weights"),
        labels=run.table("labels", "labels"),
        labeller=run.config.labels.labeller,
    )
