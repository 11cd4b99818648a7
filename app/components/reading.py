"""One text's panels: its totals, and the rows of its score sheet."""

from __future__ import annotations

from app.components import panels, wording
from app.components.numbers import plain, signed
from app.components.tokens import Row
from lfp.bundle.queries.common import Probe
from lfp.bundle.queries.texts import ScoreLimits, Text


def totals(text: Text, *, source: str) -> str:
    """The text's scores as a whole, and where it comes from, as `source` says it."""
    implicit = f"{signed(text.implicit_reward)} nats" if text.implicit_reward is not None else "–"
    pairs = {
        "true feedback": signed(text.feedback),
        "implicit reward": implicit,
        "probe estimate": signed(text.predicted, 3),
    }
    if text.rating is not None:
        pairs["rating"] = plain(text.rating, 0)
    if text.role != "text":
        pairs["role"] = f"{text.role}, pair {text.pair_id}"
    return panels.facts({**pairs, "split": text.split.replace("_", " "), "source": source})


def rows(text: Text, limits: ScoreLimits, probe: Probe | None) -> list[Row]:
    """True feedback, implicit reward and estimate, a value a token."""
    return [
        Row("true feedback", text.token_feedback, limits.feedback, "lexicon value"),
        Row("implicit reward", text.token_implicit_reward, limits.implicit_reward, "nats"),
        Row("probe estimate", text.token_predicted, limits.predicted, wording.target_name(probe) if probe else ""),
    ]
