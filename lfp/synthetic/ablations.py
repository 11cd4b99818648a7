"""Tables of generated texts: `ablations` and `completions`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from lfp.synthetic.arrays import Random
from lfp.synthetic.made import Made
from lfp.synthetic.reviews import review


def ablation_rows(made: Made, random: Random) -> list[dict[str, Any]]:
    """The features called related, as many at random, and the weightiest ones one by one."""
    if not len(made.layer):
        return []
    strongest = np.argsort(-np.abs(made.weights[0]), kind="stable")
    count = min(8, len(strongest))
    groups = [("related", "related", None, strongest[:count], -0.21), ("related-control", "control", "related",
              random.permutation(len(strongest))[:count], -0.02)]  # fmt: skip
    rows = [
        {
            "group": name, "kind": kind, "control_of": of, "features": sorted(members.tolist()), "layer": None,
            "scale": 0.0, "n_completions": 200, "reward_before": 0.41, "reward_after": 0.41 + effect, "effect": effect,
            "ci_low": effect - 0.06, "ci_high": effect + 0.06, "null_high": 0.05, "predicted_effect": effect * 0.8,
            "perplexity": 21.5, "perplexity_before": 20.9, "repetition": 0.04, "repetition_before": 0.03,
            "density": 0.02, "removed_energy": 0.01,
        }
        for name, kind, of, members, effect in groups
    ]  # fmt: skip
    return rows + _single_ablations(made.weightiest, rows[0])


def _single_ablations(features: Sequence[int], template: dict[str, Any]) -> list[dict[str, Any]]:
    """A row of `ablations` a single feature and one control of each, the first with an effect, the others inert."""
    rows: list[dict[str, Any]] = []
    for place, feature in enumerate(features):
        effect = -0.2 if place == 0 else 0.01 * (-1) ** place
        own: dict[str, Any] = {
            "group": f"feature:{feature}",
            "kind": "feature",
            "control_of": None,
            "features": [feature],
            "effect": effect,
            "ci_low": effect - 0.06,
            "ci_high": effect + 0.06,
            "null_high": 0.04,
            "reward_after": template["reward_before"] + effect,
            "predicted_effect": -0.1 / (place + 1),
        }
        control: dict[str, Any] = {
            "group": f"feature:{feature}/control-01",
            "kind": "control",
            "control_of": f"feature:{feature}",
            "features": [features[place - 1]],
            "effect": 0.02,
            "ci_low": -0.04,
            "ci_high": 0.08,
            "null_high": None,
        }
        rows += [template | own, template | control]
    return rows


def completion_rows(made: Made, random: Random) -> list[dict[str, Any]]:
    """Ten texts each of the base model, the tuned one, and the tuned one without the related features."""
    if not len(made.corpus.texts):
        return []
    groups = {"base": ("base", 0.05), "tuned": ("tuned", 0.41), "related": ("ablated", 0.2)}
    return [
        {
            "group": group, "index": i, "prompt_id": i, "prompt": "The film was", "completion": " " + review(random),
            "reward": float(random.normal(mean, 0.3)), "perplexity": float(random.uniform(15, 30)), "model": model,
        }
        for group, (model, mean) in groups.items() for i in range(10)
    ]  # fmt: skip
