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
    """Writes the folder model/ where the model is made here, how well it learned, and facts.json either way."""
    config = run.config
    if config.model.base != PRETRAIN:
        model = load_role(run, "base")
        output.json("facts", {"parameters": model.n_parameters})
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
    output.results(_figures(report))


def _figures(report: PretrainReport) -> list[ResultRow]:
    """Bits a byte, tokens read, the step that was kept, and both curves by step."""
    bits = report.held_out_bits_per_byte
    told = {"tokens": report.tokens, "kept_step": report.kept_step, "train_loss": report.final_loss}
    figures = [_figure("bits_per_byte", bits, split="held_out")] if bits is not None else []
    figures += [_figure(metric, value) for metric, value in told.items()]
    every = -(-len(report.learning_curve) // _CURVE_POINTS)
    curves = {"train_loss": report.learning_curve[every - 1 :: every], "held_out_bits": report.held_out_curve}
    return figures + [
        _figure(metric, value, group=str(step)) for metric, curve in curves.items() for step, value in curve
    ]


def _figure(metric: str, value: float, **keys: Any) -> ResultRow:
    return ResultRow.from_estimate("base_model", metric, value, model="base", **keys)
