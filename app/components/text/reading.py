"""One text, and a preference pair: totals, scores per token, margins, and what length alone would predict."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from app.components.html import panels
from app.components.text.tokens import Row
from lfp.bundle.queries.common import Probe
from lfp.bundle.queries.run import ForecastFeature
from lfp.bundle.queries.texts import Pair, ScoreLimits, Text
from lfp.evaluation.results import ResultRow
from lfp.report.formatting import interval, pick, plain, signed
from lfp.util.sanitize import shortened

TEXT_COLUMNS = ("text_id", "text", "gap", "feedback", "predicted", "implicit_reward", "rating")
_MOST_FATES = 12
PAIR_COLUMNS = ("pair_id", "chosen_response", "rejected_response", "margin", "implicit_margin", "length", "split")


def target_name(probe: Probe) -> str:
    """Return what the headline probe estimates."""
    names = {"implicit_reward": "implicit reward", "delta": "activation difference", "feedback": "reward"}
    return names.get(probe.target, probe.target)


def scores(text: Text) -> dict[str, str]:
    """Return a text's scores as a whole, by name."""
    return {
        "reward": signed(text.feedback),
        "implicit reward": _nats(text.implicit_reward),
        "probe estimate": signed(text.predicted, 3),
    }


def _nats(value: float | None) -> str:
    return "–" if value is None else f"{signed(value)} nats"


def totals(text: Text, *, source: str) -> str:
    """Write the text's scores as a whole, and where it is from."""
    pairs = scores(text)
    if text.rating is not None:
        pairs["rating"] = plain(text.rating, 0)
    if text.role != "text":
        pairs["role"] = f"{text.role}, pair {text.pair_id}"
    return panels.facts({**pairs, "split": text.split.replace("_", " "), "source": source})


def score_rows(text: Text, limits: ScoreLimits, probe: Probe | None) -> list[Row]:
    """Return reward, implicit reward and probe estimate per token."""
    target = target_name(probe) if probe else ""
    return [
        Row("reward", text.token_feedback, limits.feedback, "lexicon value"),
        Row("implicit reward", text.token_implicit_reward, limits.implicit_reward, "nats"),
        Row("probe estimate", text.token_predicted, limits.predicted, target),
    ]


def for_screen(rows: pa.Table, columns: Sequence[str], *, longest: int, start: str = "") -> pa.Table:
    """Return some columns of texts or pairs for the screen, each text on one line of at most `longest` characters.

    Of a text its `start`, which others have too, is left out; responses are shown from their beginning.
    """
    shown = {name: rows[name] for name in columns}
    for name in {"text", "chosen_response", "rejected_response"}.intersection(columns):
        left_out = start if name == "text" else ""
        lines = [shortened(text.removeprefix(left_out), longest) for text in rows[name].to_pylist()]
        shown[name] = pa.array(lines, pa.string())
    if "split" in shown:
        shown["split"] = pc.replace_substring(shown["split"], "_", " ")
    return pa.table(shown)


def first_token(text: Text, probe: Probe | None) -> int:
    """Return the first token to show: the response's, if the estimate reads nothing before it."""
    reads_response = probe is not None and probe.pooling == "response"
    return text.response_start if reads_response and text.response_start < len(text.token_starts) else 0


def largest_tokens(parts: Sequence[str], rewards: Sequence[float | None], most: int = 3) -> str:
    """Say which tokens have the largest implicit reward, by size; nothing where none is known."""
    known = [(part.strip(), value) for part, value in zip(parts, rewards, strict=False) if value and part.strip()]
    first = sorted(known, key=lambda each: -abs(each[1]))[:most]
    listed = ", ".join(f"“{part}” {signed(value)}" for part, value in first)
    return f"Largest implicit reward of a token, nats: {listed}." if first else ""


def shared_prompt(chosen: Text, rejected: Text, probe: Probe | None) -> str:
    """Return the prompt of both responses, if it is the same and not shown with them; else an empty string."""
    prompts = [
        text.text[: text.token_starts[first_token(text, probe)] if text.token_starts else 0]
        for text in (chosen, rejected)
    ]
    return prompts[0] if prompts[0] == prompts[1] else ""


def margins(pair: Pair) -> str:
    """Write whether estimate, implicit reward and length each prefer the chosen response, and by how much."""
    marks = ""
    for score, margin in {
        "estimate": pair.margin, "implicit reward": pair.implicit_margin, "length alone": pair.length,
    }.items():  # fmt: skip
        if not margin:
            marks += panels.badge(f"{score}: {'not known' if margin is None else 'no preference'}")
        else:
            marks += panels.badge(f"{score}: {'right' if margin > 0 else 'wrong'}", "up" if margin > 0 else "down")
    return marks + panels.facts(
        {
            "margin of the estimate": signed(pair.margin, 3),
            "margin of the implicit reward": _nats(pair.implicit_margin),
            "longer by": f"{pair.length:+,} tokens".replace("-", "−"),
            "split": pair.split.replace("_", " "),
        }
    )


def length_note(pair: Pair) -> str:
    """Write the lengths of both responses, and whether preferring the longer one is right here."""
    long, short = max(pair.chosen_tokens, pair.rejected_tokens), min(pair.chosen_tokens, pair.rejected_tokens)
    if not pair.length:
        return panels.note(f"Both responses have {long:,} tokens, so length alone has no preference.")
    which, right = ("chosen", "right") if pair.length > 0 else ("rejected", "wrong")
    return panels.note(
        f"The {which} response is longer: {long:,} against {short:,} tokens. Preferring the longer one is {right} here."
    )


def accuracy_table(figures: Sequence[ResultRow]) -> str:
    """Write how often each score prefers the chosen response of held-out pairs; a note if that was not measured."""
    tuned = {"model": "tuned", "inputs": "sae", "target": "preference"}
    measured = {
        "probe estimate": pick(figures, metric="accuracy", **tuned),
        "probe estimate, length controlled": pick(figures, metric="accuracy_length_controlled", **tuned),
        "longer response": pick(figures, metric="accuracy_of_length"),
        "implicit reward": pick(figures, metric="accuracy", model="difference", target="implicit_reward"),
    }
    rows = []
    for name, row in measured.items():
        if row is not None:
            span = interval(row.ci_low, row.ci_high)
            rows.append([name, f"{plain(row.value)}  [{span}]" if span else plain(row.value), plain(row.null_high)])
    if not rows:
        return panels.note("Pair accuracy was not measured in this run.")
    n = max((row.n or 0 for row in measured.values() if row), default=0)
    says = f"{n:,} held-out pairs, 95 % intervals. Guessing: 0.50." if n else "Held-out pairs. Guessing: 0.50."
    return panels.table(["", "pair accuracy", "chance"], rows, strong=[0]) + panels.note(says)


def fates(features: Sequence[ForecastFeature], fate: str) -> str:
    """Write the features of one fate, those furthest from what was expected of them first."""
    found = [
        (feature.preferred - (feature.expected or 0.0), feature)
        for feature in features
        if feature.status == fate and feature.preferred is not None
    ]
    if not found:
        return panels.note("None.")
    found.sort(key=lambda pair: (-abs(pair[0]), pair[1].feature_id))
    rows = [
        [f"#{feature.feature_id}", " ".join(feature.tokens[:5]), signed(feature.in_data), signed(feature.preferred),
         signed(feature.expected), signed(feature.moved), signed(feature.credit, 3)]
        for _, feature in found[:_MOST_FATES]
    ]  # fmt: skip
    return panels.table(["feature", "fires on", "in the data", "learned", "expected", "moved", "credit, nats"], rows)
