"""Measure how far tuning moved each layer: the L2 norm of tuned minus base, summed over its parameters."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from lfp.ml.models.loading import LanguageModel
from lfp.util.types import Place, Site

_LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks)\.(\d+)\.(.+)$")
"""`gpt_neox.layers.3.mlp...`, `transformer.h.3.mlp...`, `model.layers.3.mlp...`: layer and name within it."""

_MLP = ("mlp", "ffn", "feed_forward", "fc1", "fc2", "moe")
"""Parts of the names of MLPs; OPT and XGLM have fc1 and fc2 in the layer itself."""
_WRITERS: Mapping[Site, str] = {"mlp_out": "mlp", "attn_out": "attention"}
"""Groups of parameters by the site that they write to."""


@dataclass(frozen=True)
class LayerDivergence:
    """How far tuning moved one layer: sums of L2 norms of its parameters' changes."""

    layer: int
    divergence: float
    divergence_mlp: float
    divergence_by_group: dict[str, float]
    """The sum split into `attention`, `mlp`, `norm`, and `other` where a layer has more."""
    relative_divergence: float
    """`divergence` over the sum of the L2 norms of the base model's parameters of the layer."""


def layer_divergence(base: LanguageModel, tuned: LanguageModel) -> list[LayerDivergence]:
    """Return each layer's divergence, in order: the sum over its parameters of the L2 norm of (tuned - base).

    Marks et al. (NeurIPS 2024) choose the layers to examine by it.
    """
    changes: dict[int, dict[str, float]] = defaultdict(lambda: {"attention": 0.0, "mlp": 0.0, "norm": 0.0})
    sizes: dict[int, float] = defaultdict(float)
    for key, before in base.parameters.items():
        place = place_parameter(key)
        if place is None:
            continue
        layer, group = place
        after = tuned.parameters[key].to(before.device)
        change = torch.linalg.vector_norm(after.float() - before.float()).item()
        changes[layer][group] = changes[layer].get(group, 0.0) + change
        sizes[layer] += torch.linalg.vector_norm(before.float()).item()
    divergences = []
    for layer, by_group in sorted(changes.items()):
        total = sum(by_group.values())
        divergences.append(LayerDivergence(layer, total, by_group["mlp"], dict(by_group), total / sizes[layer]))
    return divergences


def find_unchanged(base: LanguageModel, tuned: LanguageModel, places: Sequence[Place]) -> list[Place]:
    """List the places where tuning changed nothing: no weight of the layer's MLP, or of its attention.

    Of the residual stream, no weight of the layers up to it, and none outside the layers.
    """
    changed = {
        place_parameter(name)
        for name, before in base.parameters.items()
        if not torch.equal(before, tuned.parameters[name].to(before))
    }

    def is_changed(place: Place) -> bool:
        if place.site == "resid_post":
            return any(found is None or found[0] <= place.layer for found in changed)
        return not changed.isdisjoint({(place.layer, _WRITERS[place.site]), (place.layer, "other")})

    return [place for place in places if not is_changed(place)]


def most_moved(sizes: Sequence[float], count: int) -> list[int]:
    """Return the `count` layers of largest size, in order of depth; of equals, the earlier ones."""
    ranked = sorted(range(len(sizes)), key=lambda layer: (-sizes[layer], layer))
    return sorted(ranked[:count])


def place_parameter(name: str) -> tuple[int, str] | None:
    """Return the layer and the group of a parameter or module by its full name; None outside the layers."""
    match = _LAYER.search(name)
    return None if match is None else (int(match[1]), _group(match[2]))


def _group(name: str) -> str:
    """Classify a parameter by its name within a layer, for example `post_attention_layernorm.bias`."""
    part = name.split(".")[0]
    if "norm" in part or part.startswith("ln"):
        return "norm"
    if "att" in part:
        return "attention"
    return "mlp" if any(name in part for name in _MLP) else "other"
