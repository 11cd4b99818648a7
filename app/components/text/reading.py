"""Panels of one text, and of a preference pair: totals, margins, and what length alone would say."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from app.components.html import panels, wording
from app.components.html.numbers import interval, plain, signed
from app.components.html.wording import pick
from app.components.text.tokens import Row
from lfp.bundle.queries.common import Probe
from lfp.bundle.queries.texts import Pair, ScoreLimits, Text
from lfp.evaluation.results import ResultRow
from lfp.util.sanitize import shortened


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


LIST_ORDER = ("pair_id", "chosen_response", "rejected_response", "margin", "implicit_margin", "length", "split")


def listed(rows: pa.Table) -> pa.Table:
    """Pairs for the screen, each response on one line."""
    for name in ("chosen_response", "rejected_response"):
        lines = [shortened(text, 110) for text in rows[name].to_pylist()]
        rows = rows.set_column(rows.schema.get_field_index(name), name, pa.array(lines, pa.string()))
    return rows.select(list(LIST_ORDER))


def first_shown(text: Text, probe: Probe | None) -> int:
    """The first token that is shown: the response's, where the estimate reads nothing before it."""
    reads_response = probe is not None and probe.pooling == "response"
    return text.response_start if reads_response and text.response_start < len(text.token_starts) else 0


def prompt(chosen: Text, rejected: Text, probe: Probe | None) -> str:
    """What both answer, where it is the same and not shown with the responses; else nothing."""
    starts = [text.token_starts[first_shown(text, probe)] if text.token_starts else 0 for text in (chosen, rejected)]
    asked = [text.text[:start] for text, start in zip((chosen, rejected), starts, strict=True)]
    return asked[0] if asked[0] == asked[1] else ""


def margins(pair: Pair) -> str:
    """Whether estimate, implicit reward and length each prefer the side that was chosen."""
    marks = [_mark("estimate", pair.margin), _mark("implicit reward", pair.implicit_margin)]
    facts = {
        "margin of the estimate": signed(pair.margin, 3),
        "margin of the implicit reward": f"{signed(pair.implicit_margin)} nats"
        if pair.implicit_margin is not None
        else "–",
        "longer by": f"{pair.length:+,} tokens".replace("-", "−"),
        "split": pair.split.replace("_", " "),
    }
    return "".join([*marks, _mark("length alone", pair.length)]) + panels.facts(facts)


def side(text: Text, *, tokens: int) -> str:
    """One side's totals."""
    return panels.facts(
        {
            "response": f"{tokens:,} token{'s' if tokens != 1 else ''}",
            "true feedback": signed(text.feedback),
            "implicit reward": f"{signed(text.implicit_reward)} nats" if text.implicit_reward is not None else "–",
            "probe estimate": signed(text.predicted, 3),
        }
    )


def length(pair: Pair) -> str:
    """The lengths of this pair's responses, and how a judge of length alone does on it."""
    long, short = max(pair.chosen_tokens, pair.rejected_tokens), min(pair.chosen_tokens, pair.rejected_tokens)
    if not pair.length:
        return panels.note(f"Both responses have {long:,} tokens: length alone cannot tell them apart.")
    which = "chosen" if pair.length > 0 else "rejected"
    right = "right" if pair.length > 0 else "wrong"
    return panels.note(
        f"The {which} response is longer, {long:,} tokens to {short:,}. A judge that prefers the longer one would be "
        f"{right} here."
    )


def accuracies(figures: Sequence[ResultRow]) -> str:
    """How often each judge is right on held-out pairs; a note where the bundle does not say."""
    tuned = {"model": "tuned", "inputs": "sae", "target": "preference"}
    judges = {
        "the estimate": pick(figures, metric="accuracy", **tuned),
        "the estimate, length controlled": pick(figures, metric="accuracy_length_controlled", **tuned),
        "the longer response": pick(figures, metric="accuracy_of_length"),
        "the implicit reward": pick(figures, metric="accuracy", model="difference", target="implicit_reward"),
    }
    rows = [[name, _accuracy(row), plain(row.null_high)] for name, row in judges.items() if row]
    if not rows:
        return panels.note("How often each judge is right was not measured in this run.")
    n = max((row.n or 0 for row in judges.values() if row), default=0)
    says = f"On {n:,} held-out pairs, with 95 % intervals. A half is guessing." if n else "On held-out pairs."
    return panels.table(["right on held-out pairs", "share", "chance reaches"], rows, strong=[0]) + panels.note(says)


def _accuracy(row: ResultRow) -> str:
    span = interval(row.ci_low, row.ci_high)
    return f"{plain(row.value)}  [{span}]" if span else plain(row.value)


def _mark(judge: str, margin: float | None) -> str:
    if margin is None:
        return panels.badge(f"{judge}: not known")
    if not margin:
        return panels.badge(f"{judge}: no preference")
    return panels.badge(f"{judge}: {'right' if margin > 0 else 'wrong'}", "up" if margin > 0 else "down")
