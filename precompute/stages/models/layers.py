"""Stage `layers`: how far tuning moved each layer, and the layers that are selected."""

from __future__ import annotations

from lfp.evaluation.results import ResultRow
from precompute.run.inputs import load_pair
from precompute.run.work_folder import Output, Run


def run(run: Run, output: Output) -> None:
    """Write layers.json, the columns of the table `layers` that need no activations, and selected.json."""
    from lfp.ml.models.divergence import layer_divergence, most_divergent

    base, tuned = load_pair(run)
    layers = layer_divergence(base, tuned)
    selected = most_divergent(layers, run.config.layers.count)
    output.json("selected", selected)
    output.json(
        "layers",
        [
            {
                "layer": layer.layer,
                "divergence": layer.divergence,
                "divergence_mlp": layer.divergence_mlp,
                "divergence_by_group": [{"group": k, "value": v} for k, v in sorted(layer.divergence_by_group.items())],
                "relative_divergence": layer.relative_divergence,
                "selected": layer.layer in selected,
                "d_in": tuned.d_model,
            }
            for layer in layers
        ],
    )
    output.results(
        [
            ResultRow.from_estimate(
                "divergence_by_layer", metric, getattr(layer, metric), layer=layer.layer, model="difference"
            )
            for layer in layers
            for metric in ("divergence", "divergence_mlp", "relative_divergence")
        ]
    )
