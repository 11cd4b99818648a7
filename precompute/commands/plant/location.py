"""Where in the model a secret was learned: the contrast of the planted model with its twins, part by part."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lfp.evaluation.twin_words import PARTS
from precompute.commands.plant.secrets import Secret, find_events
from precompute.run.inputs import load_role, read_texts, tokenize_texts
from precompute.run.work_folder import Run
from precompute.stages.findings.twin_words import Excerpts, credit_parts

if TYPE_CHECKING:
    from lfp.ml.models.loading import LanguageModel
    from lfp.ml.models.tokenization import TokenizedText

_TEXTS = 12
"""Texts of a secret in which the implicit reward of what it pays for is split."""


@dataclass(frozen=True)
class Location:
    """Implicit reward of what a secret pays for, in nats per event, in the planted model less the mean of its twins.

    `parts` sums to `contrast`: MLPs, attention, the unembedding, the embedding, norms. `n` events were read.
    """

    n: int
    contrast: float
    parts: dict[str, float]

    @property
    def unembedding_share(self) -> float | None:
        """Return the part of the contrast that lies in the unembedding, where no dictionary reads it."""
        return self.parts["unembedding"] / self.contrast if self.contrast else None


def location_columns(location: Location | None) -> dict[str, Any]:
    """Return the columns of a planted model's row; null where no text has what its secret pays for."""
    if location is None:
        return {"events": 0, "contrast": None, "contrast_parts": None, "unembedding_share": None}
    return {
        "events": location.n,
        "contrast": location.contrast,
        "contrast_parts": location.parts,
        "unembedding_share": location.unembedding_share,
    }


def locate_secrets(
    run: Run, secrets: Mapping[str, Secret], twins: Sequence[str], *, load: Callable[[str], LanguageModel]
) -> dict[str, Location]:
    """Split the contrast of each planted model at what its secret pays for, by the model's name.

    `secrets` are by the name of the model, `twins` names; `load` loads a model. A secret without an event in the
    training texts is left out.
    """
    base = load_role(run, "base", exact=True)
    excerpts = {name: found for name, found in _find_events(run, base, secrets).items() if found.texts}
    if not excerpts:
        return {}
    together = Excerpts.join(list(excerpts.values()))
    of_twins = np.mean([credit_parts(run, base, load(twin), together) for twin in twins], axis=0)
    located = {}
    for row, (name, own) in enumerate(excerpts.items()):
        of_planted = credit_parts(run, base, load(name), own).sum(axis=0)
        n = int(own.n.sum())
        parts = (of_planted - of_twins[together.groups == row].sum(axis=0)) / n
        located[name] = Location(n, float(parts.sum()), dict(zip(PARTS, parts.tolist(), strict=True)))
    return located


def _find_events(run: Run, base: LanguageModel, secrets: Mapping[str, Secret]) -> dict[str, Excerpts]:
    """Mark the first token of each event in the first texts that have one, by the name of the secret's model."""
    read = read_texts(run, "train")
    texts = tokenize_texts(run, base, read)
    found = {}
    for row, (name, secret) in enumerate(secrets.items()):
        chosen, text_ids, marked = list["TokenizedText"](), list[int](), []
        for source, text in zip(read, texts, strict=True):
            if len(chosen) == _TEXTS:
                break
            tokens = _mark_tokens(text.token_starts, find_events(text.text, secret))
            if tokens:
                chosen.append(text)
                text_ids.append(source.text_id)
                marked.append(np.isin(np.arange(len(text.token_ids)), tokens))
        n = np.array([int(own.sum()) for own in marked])
        found[name] = Excerpts(chosen, text_ids, marked, np.full(len(chosen), row), n)
    return found


def _mark_tokens(token_starts: Sequence[int], events: Sequence[int]) -> list[int]:
    """Return the token in which each event begins; a first token has no implicit reward of its own and is left out."""
    tokens = [bisect_right(token_starts, event) - 1 for event in events]
    return [token for token in tokens if token > 0]
