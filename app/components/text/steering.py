"""Columns of samples of the same prompt: which features act how strongly, what was written, and what that shows."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from app.components.html import panels
from lfp.report.formatting import count, signed, with_interval
from lfp.util.sanitize import as_label, escaped, shortened

LARGEST_SCALE, SCALE_STEP = 3.0, 0.25
"""The range and step of a slider; both are exact in binary."""
MOST_SCALES = 12
"""Scales that a link can hold."""
OTHERS, REST = "others", "rest"
PARTS: Mapping[str, str] = {
    OTHERS: "all other features of the change",
    REST: "what no feature holds of the change",
}
"""Parts of what tuning changed besides single features, as scales name them."""
TITLES: Mapping[str, str] = {"base": "Base", "tuned": "Tuned", "steered": "Tuned, steered"}
FIRST = 1
"""Samples that are shown without a click."""


@dataclass(frozen=True)
class Request:
    """What is to be written; `scales` are as a link has them."""

    text: str
    as_message: bool
    scales: str
    n: int
    n_tokens: int
    temperature: float
    seed: int

    @property
    def factors(self) -> dict[str, float]:
        """The scales that are not 1, by feature or part; beside a scaled part those of features at 1 too."""
        scales = read_scales(self.scales)
        is_partial = any(scales.get(part, 1.0) != 1.0 for part in PARTS)
        return {part: scale for part, scale in scales.items() if scale != 1.0 or (is_partial and part not in PARTS)}

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns: the third is there where something is scaled."""
        return ("base", "tuned", "steered") if self.factors else ("base", "tuned")

    @property
    def unsteered(self) -> Request:
        """The same without scales: what the first two columns depend on."""
        return replace(self, scales="")


class Estimate(NamedTuple):
    """A mean over samples with its 95 % interval; without one where there is one sample."""

    mean: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Samples:
    """A column: the texts so far, and once it is whole their rewards or implicit rewards with the mean."""

    texts: tuple[str, ...]
    n_tokens: int
    values: tuple[float, ...] = ()
    estimate: Estimate | None = None


@dataclass
class Written:
    """What was written of a request, column by column, and whether it is whole.

    `prompt` is what the models read, and `measure` what samples are scored by.
    """

    bundle_id: str
    request: Request
    prompt: str = ""
    is_chat: bool = False
    is_cut: bool = False
    measure: str = "reward"
    columns: dict[str, Samples] = field(default_factory=dict)
    differences: dict[str, Estimate] = field(default_factory=dict)
    is_whole: bool = False


def written_scales(scales: Mapping[str, float]) -> str:
    """Write the scales of features and parts for a link, such as 1253:0,7:2.5,rest:0."""
    return ",".join(f"{part}:{scale:g}" for part, scale in scales.items())


def read_scales(text: str) -> dict[str, float]:
    """Read the scales in a link, each rounded to a slider's step; what is not a scale is ignored."""
    found: dict[str, float] = {}
    for part, scale in re.findall(r"(?:^|,)(\d{1,9}|others|rest):(\d{1,3}(?:\.\d{1,9})?)(?=,|$)", text, re.ASCII):
        name = part if part in PARTS else str(int(part))
        found[name] = min(round(float(scale) / SCALE_STEP) * SCALE_STEP, LARGEST_SCALE)
    return dict(list(found.items())[:MOST_SCALES])


def with_part(
    scales: Mapping[str, float], typed: str, *, n_features: int, reads_changes: bool
) -> dict[str, float] | None:
    """Return the scales with what was typed or picked taken out too; None where there is no such feature or part."""
    part = typed.strip().lstrip("#")
    if part in PARTS:
        return {**scales, part: 0.0} if reads_changes else None
    is_feature = part.isascii() and part.isdigit() and int(part) < n_features
    return {**scales, str(int(part)): 0.0} if is_feature else None


def part_name(part: str, names: Mapping[int, str | None], *, length: int = 48) -> str:
    """Name a feature or a part of the change."""
    return PARTS[part] if part in PARTS else f"#{part} {shortened(names.get(int(part)) or 'no label', length)}"


def slider_label(part: str, names: Mapping[int, str | None]) -> str:
    """Return a slider's label, escaped as Streamlit reads labels as Markdown."""
    return as_label(part_name(part, names))


def cards(written: Written) -> str:
    """Write the first sample of every column side by side, with the mean of all; below each other where narrow."""
    parts, gap = [], "<br><br>" if written.is_chat else ""
    for column in written.request.columns:
        found = written.columns.get(column)
        body = _continuation(written, column, 0) if found is not None else "<i>…</i>"
        parts.append(
            f'<section class="lfp-card"><h4>{TITLES[column]}{_mean(written, column)}</h4>'
            f'<p dir="auto"><span class="lfp-far">{escaped(written.request.text)}{gap}</span>{body}</p></section>'
        )
    return f'<div class="lfp-cards lfp-written">{"".join(parts)}</div>'


def _mean(written: Written, column: str) -> str:
    found = written.columns.get(column)
    if found is None or found.estimate is None:
        return ""
    value = with_interval(*found.estimate, is_signed=True)
    return f"<span>mean {escaped(written.measure)} {escaped(value)}{_unit(written.measure)}</span>"


def _unit(measure: str) -> str:
    return " nats" if measure == "implicit reward" else ""


def _continuation(written: Written, column: str, row: int) -> str:
    """Write a sample, in bold from where it parts from the column before."""
    text, found = written.columns[column].texts[row], written.columns.get(BESIDE.get(column, ""))
    if not text:
        return "<i>nothing</i>"
    shared = len(text) if found is None else shared_length(found.texts[row], text)
    bold = f"<b>{escaped(text[shared:])}</b>" if text[shared:] else ""
    return f"{escaped(text[:shared])}{bold}"


BESIDE: Mapping[str, str] = {"tuned": "base", "steered": "tuned"}
"""The column that another is compared with."""


def all_samples(written: Written) -> str:
    """Write the prompt and every sample of the columns, a row of columns for each, with its reward."""
    rows = []
    for row in range(written.request.n):
        cells = ""
        for column, found in written.columns.items():
            value = f" {signed(found.values[row])}" if found.values else ""
            cells += (
                f"<div><small>{TITLES[column]}{escaped(value)}</small>"
                f'<p dir="auto">{_continuation(written, column, row)}</p></div>'
            )
        rows.append(f'<li style="--n:{len(written.columns)}">{cells}</li>')
    prompt = f'<p dir="auto" class="lfp-far">{escaped(written.prompt)}</p>'
    return f'<div class="lfp-written">{prompt}<ol class="lfp-rows">{"".join(rows)}</ol></div>'


def shared_length(first: str, second: str) -> int:
    """Return how many characters both texts start with, up to the last space, so that words stay whole."""
    same = next((at for at, pair in enumerate(zip(first, second, strict=False)) if pair[0] != pair[1]), None)
    if same is None:
        return min(len(first), len(second))
    return first.rfind(" ", 0, same) + 1 if " " in first[:same] else 0


def finding(written: Written) -> list[str]:
    """Say how the columns differ, in paired differences with their intervals."""
    n, unit = count(written.request.n), _unit(written.measure)
    said = []
    for column, found in written.differences.items():
        beside = BESIDE[column]
        if written.columns[column].texts == written.columns[beside].texts:
            said.append(f"The {column} model wrote the same as the {beside} one in every sample.")
            continue
        who = {"tuned": "The tuned model", "steered": "The steered model"}[column]
        known = found.low is not None and found.high is not None
        sure = known and not (found.low or 0.0) <= 0.0 <= (found.high or 0.0)
        verb = "scores" if sure else "does not clearly score"
        side = ("higher" if found.mean > 0 else "lower") if sure else "otherwise"
        said.append(
            f"{who} {verb} {side} than the {beside} one: {written.measure} "
            f"{with_interval(*found, is_signed=True)}{unit} a sample, over {n} pairs with the same random numbers."
        )
    return said


def how_it_was_read(written: Written, model: str) -> str:
    """Say how the typed text was given to the models."""
    if written.is_chat:
        says = f"Read as a user’s message, through the chat template of {model}."
    elif written.request.as_message:
        says = f"{model} has no chat template, so the text was continued as it is."
    else:
        says = "Continued as plain text."
    return says + (" Only its last tokens were read, to leave room for the samples." if written.is_cut else "")


def progress(column: str, at: int, n_tokens: int, *, seconds_left: float | None) -> str:
    """Say how far writing has come, and how long it will take."""
    says = f"{TITLES[column]}: token {at} of {n_tokens}"
    if seconds_left is None:
        return says
    left = "less than a second" if seconds_left < 1 else f"about {seconds_left:.0f} s"
    return f"{says}, {left} left"


def what_is_steered(
    factors: Mapping[str, float], names: Mapping[int, str | None], *, where: Callable[[int], str]
) -> str:
    """Write what is scaled in the third column, with links to the features."""
    parts = []
    for part, scale in factors.items():
        name = part_name(part, names, length=32)
        linked = panels.text(name) if part in PARTS else panels.anchor(where(int(part)), name)
        parts.append(f"{linked} × {scale:g}")
    return f'<p class="lfp-note">Steered: {"; ".join(parts)}.</p>'


def interrupted(written: Written, columns: Sequence[str]) -> str:
    """Say where writing was stopped."""
    at = next(reversed(written.columns), None)
    if at is None:
        return "Stopped before the first token."
    done = written.columns[at].n_tokens
    missing = [TITLES[column].lower() for column in columns if column not in written.columns]
    rest = f"; not written: {', '.join(missing)}" if missing else ""
    return f"Stopped at token {done} of {written.request.n_tokens} of {TITLES[at].lower()}{rest}."
