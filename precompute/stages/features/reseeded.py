"""Stage `reseeded`: the kept dictionaries of both models from other seeds, to see how far results hang on them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lfp.ml.sae.formats import write_sae
from lfp.util.types import ROLES, Place, Role
from precompute.run.inputs import read_places, sae_folder
from precompute.run.work_folder import Output, Run
from precompute.stages.features.subjects import Subject

if TYPE_CHECKING:
    from lfp.ml.sae.autoencoders import Dictionary

_SEED_OFFSET = 100
"""Seeds of repeated sizes lie right after the run's."""


def run(run: Run, output: Output) -> None:
    """Train a dictionary of the first size per place, model and further seed, on the same activations, in one pass.

    Nothing is trained, and nothing else of the config read, where the run asks for no further seed.
    """
    from lfp.ml.sae.autoencoders import SaeInfo
    from lfp.ml.sae.training import SaeTrainer, train_saes, unit_scale

    seeds = range(1, run.config.probes.dictionary_seeds)
    if not seeds:
        return
    config = run.config.sae
    for role in ROLES:
        subject = Subject(run, role)
        source = subject.source()
        trainers = []
        for place, outputs in source.sample().items():
            sample = outputs.to(run.config.model.device)
            for number in seeds:
                info = SaeInfo(
                    layer=place.layer,
                    site=place.site,
                    width=config.expansion[0] * sample.shape[1],
                    d_in=sample.shape[1],
                    scale=unit_scale(sample),
                    seed=run.config.seed + _SEED_OFFSET * number,
                    model=role,
                    trained_on=subject.reads,
                    **config.of_variant(),
                )
                trainers.append(SaeTrainer(info, config, sample))
        checkpoint = output.scratch / f"{role}.pt"
        for sae in train_saes(trainers, source, checkpoint=checkpoint, progress=run.progress):
            number = (sae.info.seed - run.config.seed) // _SEED_OFFSET
            write_sae(sae.cpu(), output.folder / _name(number, role, sae.info.place))


def load_reseeded(run: Run, role: Role, number: int) -> Dictionary:
    """Load the dictionaries of a model of seed `number`, from 1; 0 are the run's own."""
    from lfp.ml.sae.autoencoders import Dictionary
    from lfp.ml.sae.formats import load_sae

    folder = run.folder("reseeded")
    saes = [load_sae(folder / _name(number, role, place)) for place in read_places(run)]
    return Dictionary(saes).to(run.config.model.device)


def _name(number: int, role: Role, place: Place) -> str:
    return f"seed{number}-{sae_folder(role, place)}"
