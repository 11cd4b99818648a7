"""A label that a bundle keeps: the prompts it came from, built again from the bundle's rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lfp.labels import prompts
from lfp.labels.prompts import Description, Relation
from lfp.labels.protocol import Excerpt
from lfp.labels.questions import Question
from lfp.queries import Label


@dataclass(frozen=True)
class Rebuilt:
    """The prompts of a label's description and of whether that is related, and the hash of both."""

    describe: Question[Description]
    relate: Question[Relation]
    sha256: str


def rebuild(label: Label, excerpts: Sequence[Excerpt], *, max_activation: float) -> Rebuilt:
    """The prompts that a label came from; `excerpts` are those it names, as `evidence.kept_excerpts` finds them.

    They are the very ones where their hash is the label's `prompt_sha256`. Raises LabelError for prompts of a version
    that this program does not know.
    """
    describe, relate = prompts.rebuilt(
        label.prompt_version,
        excerpts,
        max_activation=max_activation,
        description=label.description or "",
        task=label.task or "",
    )
    return Rebuilt(describe, relate, prompts.sha256([describe, relate]))
