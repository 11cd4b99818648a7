"""Stage `base`: the base model, trained from scratch here or checked to load."""

from __future__ import annotations

from dataclasses import asdict

from lfp.config import PRETRAIN
from precompute import pair
from precompute.run import Output, Run


def run(run: Run, output: Output) -> None:
    """Writes the folder model/ where the model is made here, and facts.json either way."""
    config = run.config
    if config.model.base != PRETRAIN:
        model = pair.load(run, "base")
        output.json("facts", {"parameters": model.n_parameters})
        return
    from lfp.ml.pretrain import pretrain

    report = pretrain(
        [text.text for text in pair.corpus_texts(run, "train")],
        config.pretrain,
        context=config.model.context,
        seed=config.seed,
        folder=output.folder / "model",
        held_out=[text.text for text in pair.corpus_texts(run, "held_out")],
        device=config.model.device,
        scratch=output.scratch,
        progress=run.progress,
    )
    output.json("facts", asdict(report))
