"""Stage `labels`: a description of every feature by a labeller that needs no network."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from lfp.feedback import words_of
from lfp.labels.offline import OfflineTokens
from lfp.labels.protocol import Evidence, Label, ShownExample
from lfp.schema import as_table
from precompute import truth
from precompute.run import Output, Run

_BEFORE = 3


def run(run: Run, output: Output) -> None:
    """Writes labels."""
    labeller = OfflineTokens(
        run.json("features", "vocabulary")["all_counts"],
        truth.lexicon(run),
        related_threshold=run.config.labels.related_threshold,
    )
    rows = [_row(label, labeller.name) for label in labeller.label(list(_evidence(run)))]
    output.table("labels", as_table("labels", rows))


def _evidence(run: Run) -> Iterator[Evidence]:
    """Every feature's examples, as words with the words before them."""
    texts = {row["text_id"]: row for row in run.table("texts", "texts").to_pylist()}
    top: dict[int, list[ShownExample]] = defaultdict(list)
    sample: dict[int, list[ShownExample]] = defaultdict(list)
    for row in run.table("texts", "examples").to_pylist():
        if row["bucket"] >= 0:
            shown = _shown(row, texts[row["text_id"]])
            (top if row["bucket"] == 0 else sample)[row["feature_id"]].append(shown)
    for row in run.table("features", "features").to_pylist():
        feature_id = row["feature_id"]
        yield Evidence(feature_id, row["density"], tuple(top[feature_id]), tuple(sample[feature_id]))


def _shown(example: dict[str, Any], text: dict[str, Any]) -> ShownExample:
    """The word that the token at the example's position is part of; the token's own text where it is of none."""
    starts, position = [*text["token_starts"], len(text["text"])], example["position"]
    start, end = starts[position], starts[position + 1]
    words = words_of(text["text"])
    at = next((word for word in words if word.start < end and word.end > start), None)
    word = at.word if at else text["text"][start:end].strip() or "␣"
    before = tuple(w.word for w in words if w.end <= (at.start if at else start))[-_BEFORE:]
    return ShownExample(example["text_id"], position, word, before, example["activation"])


def _row(label: Label, labeller: str) -> dict[str, Any]:
    return {
        "feature_id": label.feature_id,
        "labeller": labeller,
        "model": label.model,
        "description": label.description,
        "related": label.related,
        "confidence": label.confidence,
        "reason": label.reason,
        "status": "failed" if label.failure else "ok",
        "failure": label.failure,
        "prompt_version": label.prompt_version,
        "examples_used": list(label.examples_used),
    }
