"""Stages `base`, `tuned` and `layers`: both models, made here or checked to load, and the layers that tuning moved."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from lfp.bundle.schema import as_table
from lfp.config import PRETRAIN, TUNE
from lfp.errors import ConfigError
from lfp.evaluation.module_credits import layer_shares
from lfp.evaluation.results import ResultRow
from lfp.ml.models.sources import GGUF, save_network
from lfp.util.types import Place
from precompute.run.inputs import load_alone, load_pair, read_texts
from precompute.run.work_folder import Output, Run
from precompute.stages.models.credits import read_credits
from precompute.stages.models.tuning import tune_base

if TYPE_CHECKING:
    from lfp.ml.models.loading import LanguageModel
    from lfp.ml.models.pretraining import PretrainReport

_CURVE_POINTS = 20


def run_base(run: Run, output: Output) -> None:
    """Write facts.json, for a model made here or unpacked from a GGUF file the folder model/, and the report's rows."""
    config = run.config
    if config.model.base != PRETRAIN:
        from lfp.ml.models.predictions import try_batch

        model = load_alone(run, "base")
        try_batch(model, batch_texts=config.stats.batch_texts, context=config.model.context)
        output.json("facts", {"parameters": model.n_parameters, "layers": model.n_layers})
        _keep_unpacked(model, config.model.base, output)
        return
    from lfp.ml.models.pretraining import pretrain

    report = pretrain(
        [text.text for text in read_texts(run, "train")],
        config.pretrain,
        context=config.model.context,
        seed=config.seed,
        folder=output.folder / "model",
        held_out=[text.text for text in read_texts(run, "held_out")],
        device=config.model.device,
        scratch=output.scratch,
        progress=run.progress,
    )
    output.json("facts", asdict(report))
    output.results(_learning_rows(report))


def _keep_unpacked(model: LanguageModel, name: str, output: Output) -> None:
    if name.lower().endswith(GGUF):
        save_network(model.network, model.tokenizer, output.folder / "model")


def _learning_rows(report: PretrainReport) -> list[ResultRow]:
    """Report bits per byte, tokens read, the step that was kept, the last loss, and both learning curves by step."""
    every = -(-len(report.learning_curve) // _CURVE_POINTS)
    curves = {"train_loss": report.learning_curve[every - 1 :: every], "held_out_bits": report.held_out_curve}
    bits = report.held_out_bits_per_byte
    figures: list[tuple[str, float, dict[str, Any]]] = [
        *([("bits_per_byte", bits, {"split": "held_out"})] if bits is not None else []),
        ("tokens", report.tokens, {}),
        ("kept_step", report.kept_step, {}),
        ("train_loss", report.final_loss, {}),
        *((metric, value, {"group": str(step)}) for metric, curve in curves.items() for step, value in curve),
    ]
    return [
        ResultRow.from_estimate("base_model", metric, value, model="base", **keys) for metric, value, keys in figures
    ]


def run_tuned(run: Run, output: Output) -> None:
    """Write facts.json, the table `tuning`, the folder model/ for a model made or unpacked here, and checkpoints."""
    config = run.config
    if config.model.tuned != TUNE:
        _, model = load_pair(run, trust_base=False)
        output.json("facts", {"parameters": model.n_parameters})
        output.table("tuning", as_table("tuning", []))
        _keep_unpacked(model, config.model.tuned, output)
        return
    report = tune_base(run, output.folder / "model", seed=config.seed, scratch=output.scratch)
    output.json("facts", {"steps": report.steps, "dropped": report.dropped, "seconds": report.seconds})
    points = [
        {"step": step, "metric": metric, "value": value}
        for metric, curve in report.curves.items()
        for step, value in curve
    ]
    output.table("tuning", as_table("tuning", points))


def check_chosen_layers(run: Run) -> None:
    """Raise ConfigError for a chosen layer that the base model lacks; known as soon as stage `base` is done."""
    model, chosen = run.config.model, run.config.layers.chosen
    if not chosen:
        return
    n_layers = run.config.pretrain.n_layers if model.base == PRETRAIN else run.json("base", "facts")["layers"]
    if max(chosen) >= n_layers:
        raise ConfigError(
            f"layers.chosen names layer {max(chosen)}, and {model.base} has layers 0 to {n_layers - 1}; name one of"
            " these"
        )


def run_layers(run: Run, output: Output) -> None:
    """Write layers.json, the columns of the table `layers` that need no activations, and places.json."""
    from lfp.ml.models.divergence import layer_divergence, most_moved

    base, tuned = load_pair(run)
    layers, config = layer_divergence(base, tuned), run.config.layers
    size = [layer.divergence for layer in layers]
    if config.by == "credit" and not config.chosen:
        size = layer_shares(read_credits(run), config.sites, len(layers)).tolist()
    selected = sorted(config.chosen) or most_moved(size, config.count)
    output.json("places", [Place(layer, site) for layer in selected for site in config.sites])
    output.json(
        "layers",
        [
            asdict(layer)
            | {
                "divergence_by_group": [{"group": k, "value": v} for k, v in sorted(layer.divergence_by_group.items())],
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
