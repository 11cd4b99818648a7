"""Train the dictionaries of places: all together from one reading of the models, or each place by a worker."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from lfp.errors import ConfigError
from lfp.util.types import Place, Progress
from precompute.run.executor import IN_PROCESS, Report, Shelf, Task, map_in_order
from precompute.run.inputs import RANDOM_DECODER
from precompute.run.progress import silent
from precompute.run.work_folder import Run
from precompute.stages.features.subjects import Subject

if TYPE_CHECKING:
    from torch import Tensor

    from lfp.ml.sae.autoencoders import Sae, SaeInfo
    from lfp.ml.sae.training import SaeTrainer


class Trained(NamedTuple):
    """The scale of a place's activations, and the dictionaries trained there in order, on the CPU."""

    scale: float
    saes: list[Sae]


@dataclass(frozen=True)
class Training:
    """What is trained: the dictionaries of the subject's places but those `given`, whose scale alone is measured.

    The first of a place continues that of `start`, where there is one. A checkpoint's file begins with `checkpoint`.
    """

    run: Run
    subject: Subject
    start: Mapping[Place, Sae]
    given: frozenset[Place]
    checkpoint: Path

    def by_place(self) -> dict[Place, Trained]:
        """Train all.

        In one process places share one reading of the models; workers, where there are any, take a place each and read
        the models for it. Either way a dictionary has the same batches, so it is the same to the bit.
        """
        places = self.subject.places
        if self.run.executor is IN_PROCESS or len(places) < 2 or self.subject.stands_in:
            return self.train(places, self.run.progress)
        apart = self.run.for_worker()
        load = _LoadTraining(replace(self, run=apart, subject=self.subject.unloaded(apart)))
        shelf = Shelf(self.checkpoint.parent, self.checkpoint.name)
        task = Task("dictionaries: places", [1] * len(places), load, shelf, self.run.progress)
        return dict(zip(places, map_in_order(self.run.executor, self, places, task), strict=True))

    def __call__(self, place: Place, report: Report) -> Trained:
        """Train the dictionaries of one place."""
        trained = self.train([place], silent)[place]
        report(1)
        return trained

    def train(self, places: list[Place], progress: Progress) -> dict[Place, Trained]:
        """Train the dictionaries of places together."""
        from lfp.ml.sae.training import train_saes, unit_scale

        is_part = len(places) < len(self.subject.places)
        subject = self.subject.narrow(places) if is_part else self.subject
        source = subject.source()
        sample = {place: outputs.to(self.run.config.model.device) for place, outputs in source.sample().items()}
        scales = {place: unit_scale(outputs) for place, outputs in sample.items()}
        trainers = [
            trainer
            for place in places
            for trainer in _build_trainers(
                self.run,
                subject,
                place,
                sample[place],
                scales[place],
                start=self.start.get(place),
                is_given=place in self.given,
            )
        ]
        name = f"{self.checkpoint.name}-{places[0].layer}-{places[0].site}" if is_part else self.checkpoint.name
        checkpoint = self.checkpoint.with_name(f"{name}.pt")
        trained = train_saes(trainers, source, checkpoint=checkpoint, progress=progress) if trainers else []
        return {
            place: Trained(scales[place], [sae.cpu() for sae in trained if sae.info.place == place]) for place in places
        }


@dataclass(frozen=True)
class _LoadTraining:
    """Brings a training to another process, which loads the models when they are first read."""

    training: Training

    def __call__(self) -> Training:
        """Return it."""
        return self.training


def _build_trainers(
    run: Run, subject: Subject, place: Place, sample: Tensor, scale: float, *, start: Sae | None, is_given: bool
) -> list[SaeTrainer]:
    """Build trainers: every size of the features' dictionary, the first of others; a repeated size gets a new seed.

    The control with a random decoder comes last; it alone where the dictionary `is_given`.
    """
    from lfp.ml.sae.autoencoders import SaeInfo
    from lfp.ml.sae.training import SaeTrainer

    config, d_in = run.config.sae, sample.shape[1]
    d_model = d_in // 2 if subject.reads == "crosscoder" else d_in
    is_of_features = subject.role == "tuned" and not subject.is_control
    sizes = config.expansion if is_of_features else config.expansion[:1]
    infos = [
        SaeInfo(
            layer=place.layer,
            site=place.site,
            width=size * d_model,
            d_in=d_in,
            scale=scale,
            seed=run.config.seed + sizes[:number].count(size),
            model=subject.role,
            trained_on=subject.reads,
            **config.of_variant(),
        )
        for number, size in enumerate(sizes)
    ]
    trainers = [] if is_given else [SaeTrainer(info, config, sample) for info in infos]
    if start is not None:
        first, settings = _continue_info(start, infos[0])
        trainers[0] = SaeTrainer(first, config.model_copy(update=settings), sample, start=start)
    if is_of_features and "trained_random_sae" in run.config.probes.controls:
        untied: dict[str, Any] = {"variant": "relu" if config.variant == "tied_relu" else config.variant}
        info = replace(infos[0], source=RANDOM_DECODER, **untied)
        trainers.append(SaeTrainer(info, config.model_copy(update=untied), sample, frozen_decoder=True))
    return trainers


def _continue_info(start: Sae, info: SaeInfo) -> tuple[SaeInfo, dict[str, Any]]:
    """Describe a dictionary that continues another, and the settings of `sae` that differ. Raises ConfigError."""
    old = start.info
    if old.normalize != "none":
        raise ConfigError(
            f"{old.source}: normalises its inputs ({old.normalize}), so it cannot be trained on; set sae.trained_on to"
            " tuned"
        )
    settings = {"variant": old.variant} | ({"k": old.k} if old.k is not None else {})
    kept: dict[str, Any] = {name: getattr(old, name) for name in ("width", "d_in", "variant", "k", "l1", "l0_weight")}
    return replace(info, **kept, trained_on="base_finetuned"), settings
