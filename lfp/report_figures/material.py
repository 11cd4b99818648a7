"""What figures of the report are drawn from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lfp.queries import DriftedFeature
from lfp.report_cells import Figure


@dataclass(frozen=True)
class Material:
    """What figures are drawn from: the report, scored words, sampled texts, and the features that drifted most.

    `words` have word, feedback, implicit_reward, shown (the estimate on the lexicon's range) and n; `texts` pca_x,
    pca_y and feedback.
    """

    report: Mapping[str, Sequence[Figure]]
    words: Sequence[Mapping[str, Any]]
    texts: Sequence[Mapping[str, Any]]
    drifted: Sequence[DriftedFeature]
