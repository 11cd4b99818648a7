"""What section `module_credits` says: which modules carry the implicit reward, in a sentence."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from lfp.evaluation.results import DICTIONARIES, ELSEWHERE, RATE, ResultRow
from lfp.evaluation.statistics.discoveries import benjamini_hochberg
from lfp.report.formatting import count, digits_for, estimate, percent, pick, plain, share, signed

NAMES: Mapping[str, str] = {
    "mlp": "MLPs",
    "attention": "attention",
    "unembedding": "the unembedding",
    "embedding": "the embedding",
    "norm": "norms",
    "final_norm": "the final norm",
    "other": "other modules",
}
"""Kinds of modules as sentences name them."""


def name_module(module: str, layer: int | None) -> str:
    """Name one module: MLP 3, attention 3, the unembedding; `elsewhere` is what came through keys and values."""
    if module == ELSEWHERE:
        return "keys and values"
    name = NAMES.get(module, module)
    return name if layer is None else f"{name.removeprefix('the ').removesuffix('s')} {layer}"


def name_place(layer: int | None, site: str | None) -> str:
    """Name the module that writes at a site of a layer: MLP 3, attention 3."""
    return f"{_WRITERS.get(str(site), str(site))} {layer}"


_WRITERS: Mapping[str, str] = {"mlp_out": "MLP", "attn_out": "attention"}


def credits_sentence(rows: Sequence[ResultRow]) -> str:
    """Say how much of the implicit reward the dictionaries can show, and which kinds of modules carry how much."""
    error = pick(rows, metric="error")
    kinds = [row for row in rows if row.metric == "share" and row.layer is None and row.group in NAMES]
    if not kinds:
        return "Base and tuned model are equal: there is no implicit reward to split, and all credits are 0."
    parts = [f"{NAMES[str(row.group)]} {share(row)}" for row in sorted(kinds, key=lambda row: -row.value)]
    read = read_share(rows)
    first = ""
    if read is not None:
        first = (
            f"The modules that the dictionaries read carry {share(read)} of the implicit reward; none of their"
            " features can show the rest. "
        )
    exact = f" They sum to each text’s implicit reward within {percent(error.value)} of their sizes." if error else ""
    return (
        f"{first}By kind of module: {', '.join(parts)}. Shares are of the absolute credits of"
        f" {count(kinds[0].n or 0)} texts, with 95 % intervals over texts.{exact}{_through_attention(rows)}"
    )


def _through_attention(rows: Sequence[ResultRow]) -> str:
    """Say what came through keys and values: token by token, or of texts' sums where the bundle has these alone."""
    by_token = pick(rows, metric="share_by_token", group=ELSEWHERE)
    of_texts = pick(rows, metric="share_same_position", group=ELSEWHERE)
    through = "came through keys and values, those of the token’s own position included"
    if by_token is not None:
        return f" Token by token, {share(by_token)} of the absolute credits {through}."
    if of_texts is not None:
        return f" On the same position, {share(of_texts)} of the absolute credits of texts {through}."
    return ""


def ledger_parts(rows: Sequence[ResultRow]) -> list[ResultRow]:
    """Return what each kind of module carries in nats per token, the largest first: together the implicit reward."""
    parts = [row for row in rows if row.metric == "nats" and row.layer is None and row.group in NAMES]
    return sorted(parts, key=lambda row: -abs(row.value) if math.isfinite(row.value) else math.inf)


def ledger_total(rows: Sequence[ResultRow]) -> str:
    """Write the sum of the parts, with as many decimals as the interval of the largest deserves."""
    parts = ledger_parts(rows)
    digits = digits_for(parts[0].ci_low, parts[0].ci_high) if parts else 2
    return signed(sum(row.value for row in parts), digits)


def layer_title(rows: Sequence[ResultRow]) -> str:
    """Say which module of a layer carries most of the implicit reward."""
    modules = [row for row in rows if row.metric == "share" and row.layer is not None and math.isfinite(row.value)]
    if not modules:
        return "Share of the implicit reward by layer"
    top = max(modules, key=lambda row: row.value)
    return f"Of all layers, {name_module(str(top.group), top.layer)} carries most: {share(top)} of all credit by size"


def ledger_title(rows: Sequence[ResultRow]) -> str:
    """Say which kind of module carries most of the implicit reward."""
    kinds = [row for row in rows if row.metric == "share" and row.layer is None and row.group in NAMES]
    if not kinds:
        return "Where it lives in the model"
    top = max(kinds, key=lambda row: row.value if math.isfinite(row.value) else -math.inf)
    verb = "carry" if str(NAMES[str(top.group)]).endswith("s") else "carries"
    return f"Where it lives: {NAMES[str(top.group)]} {verb} {share(top)} of all credit by size"


def ledger_sentence(rows: Sequence[ResultRow]) -> str:
    """Write the implicit reward as the sum of what each kind of module carries, and how exactly texts add up."""
    parts = ledger_parts(rows)
    if not parts:
        return credits_sentence(rows)
    listed = ", ".join(f"{NAMES[str(row.group)]} {estimate(row, is_signed=True)}" for row in parts)
    error, read = pick(rows, metric="error"), pick(rows, metric="nats", group=DICTIONARIES)
    says = (
        f"The implicit reward of {count(parts[0].n)} texts is {ledger_total(rows)} nats per token, the sum of {listed} "
        "(95 % intervals over texts)."
    )
    if error is not None:
        says += f" In each text the parts sum to its implicit reward within {percent(error.value)} of their sizes."
    if read is not None:
        says += f" The modules that the dictionaries read carry {estimate(read, is_signed=True)} of it."
    return f"{says} By size, parts that cancel in the sum count too."


def read_share(rows: Sequence[ResultRow]) -> ResultRow | None:
    """Return which share of all credit, by size, the modules have that dictionaries read (section `module_credits`)."""
    return pick(rows, metric="share", group=DICTIONARIES)


def is_carried(rows: Sequence[ResultRow]) -> bool:
    """Tell whether features carry any of their modules' credit beyond zero, or this was not measured."""
    found = _feature_shares(rows)
    return not found or not all(_includes_zero(row) for row in found)


def features_share_sentence(rows: Sequence[ResultRow]) -> str:
    """Say of each module that a dictionary reads how much its features carry; empty where it was not measured.

    It ends with a space.
    """
    found = _feature_shares(rows)
    if not found:
        return ""
    parts = [
        f"{share(row)} of the credit of {name_place(row.layer, row.site)}{_beside_control(rows, row)}" for row in found
    ]
    return (
        f"All features together carry {' and '.join(parts)} ({count(found[0].n)} texts, 95 % intervals over texts); "
        "the rest is their dictionary’s bias and what it does not reconstruct. "
    )


def _beside_control(rows: Sequence[ResultRow], row: ResultRow) -> str:
    """Say what features of a random dictionary carry of the same module; empty where it was not measured."""
    control = pick(rows, metric="control_share", group="full", layer=row.layer, site=row.site)
    return "" if control is None else f" (those of a random dictionary {share(control)})"


def _feature_shares(rows: Sequence[ResultRow]) -> list[ResultRow]:
    """Return what features carry of each module's credit on every path, the smallest share first."""
    found = [row for row in rows if row.metric == "features_share" and row.group == "full" and math.isfinite(row.value)]
    return sorted(found, key=lambda row: row.value)


def _includes_zero(row: ResultRow) -> bool:
    return row.ci_low is None or row.ci_high is None or row.ci_low <= 0.0 <= row.ci_high


def trajectory_sentence(rows: Sequence[ResultRow]) -> str:
    """Say when each kind of module had half of its final credit, and which changed their pace beyond smooth growth."""
    halves = sorted((row for row in rows if row.metric == "half"), key=lambda row: row.value)
    if not halves:
        return "Tuning kept no checkpoints."
    parts = [f"{NAMES.get(str(row.group), str(row.group))} at step {plain(row.value, 0)}" for row in halves]
    changes = [row for row in rows if row.metric == "change" and row.null_p is not None]
    beyond = [row for row in changes if row.null_p is not None and row.null_p <= _LEVEL]
    says = ""
    if changes:
        named = [f"{NAMES.get(str(row.group), str(row.group))} after step {plain(row.value, 0)}" for row in beyond]
        says = f" Changes of pace beyond smooth growth (p at most {_LEVEL}): {', '.join(named) or 'none'}."
    reached = f"Half of its final credit was reached by {', '.join(parts)}; equal steps would be at half of all."
    return f"{reached}{says}{_say_when_features_learned(rows)}"


def _say_when_features_learned(rows: Sequence[ResultRow]) -> str:
    """Say when features had half of their credit, and how many changed their pace; empty where they have no figures."""
    halves = sorted(row.value for row in rows if row.metric == "feature_half")
    if not halves:
        return ""
    early, middle, late = (plain(halves[round(share * (len(halves) - 1))], 0) for share in (0.25, 0.5, 0.75))
    says = (
        f" Of the {count(len(halves))} features of largest credit, half had half of their credit by step {middle}"
        f" (quartiles {early} and {late})."
    )
    changes = [row for row in rows if row.metric == "feature_change" and row.null_p is not None]
    if changes:
        p = np.array([row.null_p for row in changes], np.float64)
        beyond = count(int(benjamini_hochberg(p).sum()))
        says += f" {beyond} changed their pace beyond smooth growth (false discovery rate {percent(RATE)})."
    return says


_LEVEL = 0.05
