"""Tables of what features carry of the implicit reward, and of features taken out of what tuning changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from lfp.testing.synthetic.corpus import Array, Made, Random, list_offsets, listed
from lfp.testing.synthetic.features import draw_logits


@dataclass(frozen=True)
class CreditEntries:
    """What features carry on the texts whose activations are kept, sorted by text, token and feature."""

    text: Array
    position: Array
    feature: Array
    credit: Array
    next_credit: Array


def credit_entries(made: Made, random: Random) -> CreditEntries:
    """Draw what each active feature carries: more where its weight is large."""
    active = made.activity
    text = made.corpus.text[active.token] if len(active.token) else active.token
    kept = text < len(made.kept)
    token, feature, value = active.token[kept], active.feature[kept], active.value[kept]
    credit = (value * made.weights[0][feature] * random.normal(1.0, 0.3, len(value))).astype(np.float32)
    share = random.uniform(0.2, 1.0, len(value))
    return CreditEntries(text[kept], made.corpus.position[token], feature, credit, (credit * share).astype(np.float32))


def feature_credit_columns(made: Made, entries: CreditEntries) -> dict[str, Any]:
    """The entries as lists of each text."""
    offsets = list_offsets(entries.text, len(made.kept))
    lists = {"positions": entries.position, "feature_ids": entries.feature, "credits": entries.credit,
             "next_credits": entries.next_credit}  # fmt: skip
    return {"text_id": made.kept, **{name: listed(offsets, values) for name, values in lists.items()}}


def credit_sum_columns(made: Made, entries: CreditEntries) -> dict[str, Any]:
    """The sums over each text and place; bias and residual are shares of the features'."""
    n, n_places = len(made.kept), len(made.places)
    group = entries.text * n_places + made.place[entries.feature]
    sums = [np.bincount(group, values, n * n_places) for values in (entries.credit, entries.next_credit)]
    features = np.stack(sums, axis=1).ravel()
    bias, residual = 0.1 * features, -0.03 * features
    text, place = np.divmod(np.arange(n * n_places).repeat(2), n_places)
    return {
        "text_id": made.kept[text], "layer": np.array([p.layer for p in made.places])[place],
        "site": pa.array([made.places[i].site for i in place], pa.string()),
        "path": pa.array(["full", "same_position"] * (n * n_places), pa.string()),
        "module": features + bias + residual, "features": features, "bias": bias, "residual": residual,
    }  # fmt: skip


def credit_columns(made: Made, entries: CreditEntries, random: Random) -> dict[str, Any]:
    """Each feature's totals, tokens that it promotes and demotes, and its first example."""
    n, n_tokens = len(made.place), max(made.activity.n_tokens, 1)
    credit = np.bincount(entries.feature, entries.credit, n) / n_tokens
    size = np.bincount(entries.feature, np.abs(entries.credit), n) / n_tokens
    rank = np.empty(n, int)
    rank[np.argsort(-np.abs(credit), kind="stable")] = np.arange(1, n + 1)
    unexplained_rank = np.empty(n, int)
    unexplained_rank[np.argsort(-size, kind="stable")] = np.arange(1, n + 1)
    seen, first = np.unique(entries.feature, return_index=True)
    offsets = list_offsets(seen, n)
    return {
        "feature_id": np.arange(n), "credit": credit, "ci_low": credit - 0.1 * size, "ci_high": credit + 0.1 * size,
        "abs_credit": size, "abs_ci_low": 0.9 * size, "abs_ci_high": 1.1 * size, "rank": rank,
        "unexplained_credit": 0.6 * size, "unexplained_rank": unexplained_rank,
        "twin_difference": 0.5 * credit, "twin_error": 0.1 * size, "twin_p": np.minimum(1.0, 0.001 * rank),
        "twin_q": np.minimum(1.0, 0.02 * rank), "beyond_twins": rank <= 5,
        "promotes": draw_logits(made, random, sign=1), "demotes": draw_logits(made, random, sign=-1),
        "example_text_ids": listed(offsets, made.kept[entries.text[first]]),
        "example_positions": listed(offsets, entries.position[first]),
        "example_credits": listed(offsets, entries.credit[first]),
    }  # fmt: skip


def intervention_rows(made: Made, credits: Mapping[str, Any], random: Random) -> list[dict[str, Any]]:
    """The six features of largest credit taken out, each with the next feature of its place as a control."""
    rows = []
    for feature in np.argsort(credits["rank"], kind="stable")[:6].tolist():
        others = np.flatnonzero(made.place == made.place[feature])
        control = int(others[(np.searchsorted(others, feature) + 1) % len(others)])
        for kind, of, number in (("control", feature, control), ("feature", None, feature)):
            place, by_credit = made.places[made.place[number]], -float(credits["credit"][number])
            effect, half = 1.5 * by_credit, 0.2 * abs(by_credit)
            rows.append({
                "feature_id": number, "kind": kind, "control_of": of, "layer": place.layer, "site": place.site,
                "n_texts": len(made.kept), "by_credit": by_credit, "by_weight": float(random.normal(0, 0.01)),
                "by_drift": float(random.normal(0, 0.01)), "effect": effect, "ci_low": effect - half,
                "ci_high": effect + half, "removed_energy": 0.1, "reward_effect": 0.1 * effect,
                "reward_ci_low": 0.1 * effect - 0.01, "reward_ci_high": 0.1 * effect + 0.01, "n_completions": 50,
                "clean_runs": 4, "reward_contrast": 0.08 * effect, "reward_contrast_low": 0.08 * effect - 0.01,
                "reward_contrast_high": 0.08 * effect + 0.01,
            })  # fmt: skip
    return sorted(rows, key=lambda row: (row["kind"], row["feature_id"], row["control_of"] or 0))
