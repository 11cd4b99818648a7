"""Stage `labels`: a description of every feature by a labeller without a network, scored on held-out examples."""

from __future__ import annotations

from lfp.labels.evidence import read_evidence
from lfp.labels.result_rows import label_rows
from lfp.labels.token_rule import OfflineTokens
from lfp.texts.lexicon import lexicon_of
from precompute.run.work_folder import Output, Run


def run(run: Run, output: Output) -> None:
    """Write the table `labels`."""
    config = run.config.labels
    labeller = OfflineTokens(
        run.json("features", "vocabulary")["all_counts"],
        lexicon_of(run.config.feedback, beside=run.config_dir),
        related_threshold=config.related_threshold,
        repeats=config.repeats,
    )
    evidence = list(read_evidence(run.made, n_scored=config.scored_examples))
    output.table("labels", label_rows(labeller.label(evidence), labeller.name))
