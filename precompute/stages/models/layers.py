"""Stage `layers`: how far tuning moved each layer, and which are looked into."""

from __future__ import annotations

from lfp.evaluation.results import ResultRow
from precompute.run.inputs import load_pair
from precompute.run.work_folder import Output, Run


def run(run: Run, output: Output) -> None:
    """Writes layers.json: the columns of the layers table that do not need activations, and the selected layers."""
    from lfp.ml.models.divergence import layer_divergence, most_divergent

    base, tuned = load_pair(run)
    divergences = layer_divergence(base, tuned)
    selected = most_divergent(divergences, run.config.layers.count)
    output.json("selected", selected)
    output.json(
        "layers",
        [
            {
                "layer": one.layer,
                "divergence": one.divergence,
                "divergence_mlp": one.divergence_mlp,
                "divergence_by_group": [{"group": k, "value": v} for k, v in sorted(one.divergence_by_group.items())],
                "relative_divergence": one.relative_divergence,
                "selected": one.layer in selected,
                "d_in": tuned.d_model,
            }
            for one in divergences
        ],
    )
    output.results(
        [
            ResultRow.from_estimate(
                "divergence_by_layer", metric, getattr(one, metric), layer=one.layer, model="difference"
            )
            for one in divergences
            for metric in ("divergence", "divergence_mlp", "relative_divergence")
        ]
    )
