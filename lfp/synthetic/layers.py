"""Tables of what was trained: `layers` and `saes`."""

from __future__ import annotations

from typing import Any

from lfp.synthetic.arrays import Random
from lfp.synthetic.made import D_IN, Made


def layer_rows(made: Made, random: Random) -> list[dict[str, Any]]:
    """The layers with features, and as many again that were not selected, less divergent."""
    rows = []
    for layer in range(2 * made.n_layers):
        selected = layer < made.n_layers
        whole = float(random.uniform(0.6, 1.1) if selected else random.uniform(0.2, 0.5))
        groups = dict(zip(("attention", "mlp", "norm"), whole * random.dirichlet([4, 5, 1]), strict=True))
        rows.append({
            "layer": layer, "divergence": whole, "divergence_mlp": groups["mlp"],
            "divergence_by_group": [{"group": name, "value": value} for name, value in groups.items()],
            "relative_divergence": whole / 40, "selected": selected, "d_in": D_IN,
            "scale": float(random.uniform(0.1, 2)) if selected else None,
        })  # fmt: skip
    return rows


def sae_rows(made: Made, random: Random) -> list[dict[str, Any]]:
    """Two sizes a layer on each model; the larger on the tuned model is the one whose features are the bundle's."""
    if not len(made.layer):
        return []
    size = max(len(made.layer) // made.n_layers // 2, 1)
    return [
        {
            "layer": layer, "variant": "tied_relu", "width": width, "seed": seed, "tied": True, "l1": 1e-3, "k": None,
            "l0_weight": None, "source": "trained",
            "is_used": model == "tuned" and width == 2 * size, "model": model, "fvu": float(random.uniform(0.08, 0.3)),
            "l0": float(random.uniform(8, 14)), "dead_fraction": float(random.uniform(0, 0.1)),
            "ce_recovered": float(random.uniform(0.85, 0.99)), "mmcs": float(random.uniform(0.5, 0.8)),
        }
        for layer in range(made.n_layers) for width in (size, 2 * size) for seed, model in enumerate(("tuned", "base"))
    ]  # fmt: skip
