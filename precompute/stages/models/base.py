"""Stage `base`: the base model, trained from scratch here or checked to load."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from lfp.config import PRETRAIN
from lfp.evaluation.results import ResultRow
from precompute.run.inputs import load_role, read_texts
from precompute.run.work_folder import Output, Run

if TYPE_CHECKING:
    from lfp.ml.models.pretraining import PretrainReport

_CURVE_POINTS = 20


def run(run: Run, output: Output) -> None:
    """Write facts.json, and for a model made here the folder model/ and the report's row `base_model`."""
    config = run.config
    if config.model.base != PRETRAIN:
        output.json("facts", {"parameters": load_role(run, "base").n_parameters})
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
    output.results(_result_rows(report))


def _result_rows(report: PretrainReport) -> list[ResultRow]:
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
