"""Stage `saes`: dictionaries of every place that the run reads, in every size, on each model of the pair."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from lfp.errors import ConfigError
from lfp.evaluation.results import ResultRow
from lfp.ml.sae.formats import write_sae
from lfp.util.types import Place
from precompute.run.inputs import load_role, read_places, read_texts, sae_folder, tokenize_texts
from precompute.run.work_folder import Output, Run
from precompute.stages.features.pretrained import load_pretrained

if TYPE_CHECKING:
    from torch import Tensor

    from lfp.ml.models.loading import LanguageModel
    from lfp.ml.models.tokenization import TokenizedText
    from lfp.ml.sae.autoencoders import Sae
    from lfp.ml.sae.quality import RecoveredLoss
    from lfp.ml.sae.training import ActivationSource, SaeTrainer

_HELD_OUT_TOKENS = 20_000
_CROSS_ENTROPY_TEXTS = 200
_METRICS = ("fvu", "l0", "dead_fraction", "ce_recovered", "mmcs")


def run(run: Run, output: Output) -> None:
    """Write a folder per dictionary, saes.json, stability.json (of the kept features), notes.json, and rows.

    The rows are `sae_quality`, and `sae_check` of pretrained dictionaries, which are checked before any is trained.

    Raises ConfigError for a pretrained dictionary of a layer or site that the run does not read.
    """
    places = read_places(run)
    layers, sites = sorted({place.layer for place in places}), dict.fromkeys(place.site for place in places)
    for pretrained in run.config.sae.pretrained:
        if pretrained.layer not in layers:
            raise ConfigError(
                f"sae.pretrained names layer {pretrained.layer}, but the selected layers are {layers}; "
                "raise layers.count or drop the entry"
            )
        if pretrained.site not in sites:
            raise ConfigError(
                f"sae.pretrained names site {pretrained.site}, but layers.sites are {', '.join(sites)}; add it there"
                " or drop the entry"
            )
    subjects = {model: Subject(run, model) for model in ("tuned", "base")}
    given = {
        model: load_pretrained(run, model, functools.partial(subject.collect, "train"))
        for model, subject in subjects.items()
    }
    rows: list[dict[str, Any]] = []
    stability: dict[str, list[float]] = {}
    for model, subject in subjects.items():
        for place, saes in _make(run, output, subject, given[model].saes).items():
            stable = _match_features(saes)
            rows += _judge(run, subject, saes, stable)
            stability[sae_folder(model, place)] = stable
            for number, sae in enumerate(saes):
                write_sae(sae, output.folder / sae_folder(model, place, number))
    output.json("saes", rows)
    output.json("stability", stability)
    output.json("notes", [note for found in given.values() for note in found.notes])
    output.results(
        [
            *(row for found in given.values() for row in found.rows),
            *(
                ResultRow.from_estimate(
                    "sae_quality",
                    metric,
                    row[metric],
                    layer=row["layer"],
                    site=row["site"],
                    model=row["model"],
                    group=f"width={row['width']},seed={row['seed']}",
                )
                for row in rows
                for metric in _METRICS
                if row[metric] is not None
            ),
        ]
    )


@dataclass(frozen=True)
class Subject:
    """A model of the pair, and what its dictionaries are trained on and judged by; all of it loaded when first used."""

    run: Run
    role: str

    @cached_property
    def model(self) -> LanguageModel:
        """Model that the dictionaries read."""
        return load_role(self.run, self.role)

    @cached_property
    def places(self) -> list[Place]:
        """Places that the run reads."""
        return read_places(self.run)

    def texts(self, split: str) -> list[TokenizedText]:
        """Tokenize the texts of a split, in an order drawn by the seed."""
        texts = tokenize_texts(self.run, self.model, read_texts(self.run, split))
        return [texts[i] for i in np.random.default_rng(self.run.config.seed).permutation(len(texts))]

    def source(self) -> ActivationSource:
        """Open the training batches of all places: held in memory, or streamed where the config has a buffer."""
        from lfp.ml.sae.training import HeldActivations, StreamedActivations

        config, seed = self.run.config.sae, self.run.config.seed
        if config.buffer_tokens is None:
            held = self.collect("train", config.train_tokens)
            device = self.run.config.model.device
            placed = {place: values.to(device) for place, values in held.items()}
            return HeldActivations(placed, config.batch_tokens, seed)
        return StreamedActivations(
            self.model,
            self.texts("train"),
            self.places,
            batch_tokens=config.batch_tokens,
            buffer_tokens=config.buffer_tokens,
            batch_texts=self.run.config.stats.batch_texts,
            prepend_bos=self.run.config.model.prepend_bos,
            seed=seed,
        )

    @cached_property
    def held_out(self) -> dict[Place, Tensor]:
        """Held-out activations [n, d_in] by place."""
        return self.collect("held_out", _HELD_OUT_TOKENS)

    def collect(self, split: str, n_tokens: int) -> dict[Place, Tensor]:
        """Collect activations [n_tokens, d_in] by place from the texts of a split, fewer where it has fewer tokens."""
        import torch

        from lfp.ml.models.activations import stream

        parts: dict[Place, list[Tensor]] = {place: [] for place in self.places}
        n = 0
        for tokens in stream(
            self.model,
            self.texts(split),
            places=self.places,
            batch_texts=self.run.config.stats.batch_texts,
            prepend_bos=self.run.config.model.prepend_bos,
        ):
            for place, part in parts.items():
                part.append(tokens.outputs[place])
            n += len(tokens.ids)
            if n >= n_tokens:
                break
        return {place: torch.cat(part)[:n_tokens] for place, part in parts.items()}

    @cached_property
    def recovered_loss(self) -> RecoveredLoss:
        """Measure of the cross-entropy that dictionaries recover on held-out texts."""
        from lfp.ml.sae.quality import RecoveredLoss

        return RecoveredLoss(
            self.model,
            self.texts("held_out")[:_CROSS_ENTROPY_TEXTS],
            batch_texts=self.run.config.stats.batch_texts,
            prepend_bos=self.run.config.model.prepend_bos,
        )


def _make(run: Run, output: Output, subject: Subject, pretrained: Mapping[Place, Sae]) -> dict[Place, list[Sae]]:
    """Train the dictionaries of every place without a pretrained one; the first of a place has the kept features."""
    from lfp.ml.sae.training import train_saes, unit_scale

    source = subject.source()
    sample = {place: outputs.to(run.config.model.device) for place, outputs in source.sample().items()}
    scales = {place: unit_scale(outputs) for place, outputs in sample.items()}
    for place, sae in pretrained.items():
        sae.info = replace(sae.info, scale=scales[place])
    trainers = [
        trainer
        for place in subject.places
        if place not in pretrained
        for trainer in _build_trainers(run, subject.role, place, sample[place], scales[place])
    ]
    checkpoint = output.scratch / f"{subject.role}.pt"
    trained = train_saes(trainers, source, checkpoint=checkpoint, progress=run.progress) if trainers else []
    return {
        place: [pretrained[place]] if place in pretrained else [sae.cpu() for sae in trained if sae.info.place == place]
        for place in subject.places
    }


def _build_trainers(run: Run, model: str, place: Place, sample: Tensor, scale: float) -> list[SaeTrainer]:
    """Build trainers: every size on the tuned model, the first on the base model; a repeated size gets a new seed."""
    from lfp.ml.sae.autoencoders import SaeInfo
    from lfp.ml.sae.training import SaeTrainer

    config, d_in = run.config.sae, sample.shape[1]
    sizes = config.expansion if model == "tuned" else config.expansion[:1]
    return [
        SaeTrainer(
            SaeInfo(
                layer=place.layer,
                site=place.site,
                width=size * d_in,
                d_in=d_in,
                scale=scale,
                seed=run.config.seed + sizes[:number].count(size),
                model=model,
                **config.of_variant(),
            ),
            config,
            sample,
        )
        for number, size in enumerate(sizes)
    ]


def _match_features(saes: Sequence[Sae]) -> list[float]:
    """Return the cosine of each kept feature with its Hungarian match in the next dictionary; their mean is the MMCS.

    A feature without a match, where the next dictionary is smaller, has 0. Empty where there is no other dictionary.
    """
    from torch.nn.functional import normalize

    from lfp.ml.sae.quality import matched_cosines

    if len(saes) == 1:
        return []
    kept, other = (normalize(sae.W_dec.detach(), dim=1) for sae in saes[:2])
    stability = np.zeros(len(kept))
    if len(kept) <= len(other):
        stability[:] = matched_cosines(kept, other)[0].numpy()
    else:
        cosines, matches = matched_cosines(other, kept)
        stability[matches.numpy()] = cosines.numpy()
    return stability.tolist()


def _judge(run: Run, subject: Subject, saes: Sequence[Sae], stability: Sequence[float]) -> list[dict[str, Any]]:
    from lfp.ml.sae.quality import quality

    rows = []
    for number, sae in enumerate(saes):
        measured = quality(sae, subject.held_out[sae.info.place])
        mmcs = float(np.mean(stability)) if len(stability) and number < 2 else None
        used = subject.role == "tuned" and number == 0
        rows.append(
            row(sae, vars(measured) | {"ce_recovered": subject.recovered_loss.measure(sae), "mmcs": mmcs}, is_used=used)
        )
        run.progress("saes: judged", number + 1, len(saes), measured.fvu)
    return rows


def row(sae: Sae, measured: Mapping[str, float | None], *, is_used: bool) -> dict[str, Any]:
    """Build a row of `saes`, and its scale."""
    names = ("layer", "site", "variant", "width", "seed", "l1", "k", "l0_weight", "model", "source", "scale")
    return {name: getattr(sae.info, name) for name in names} | {"tied": sae.tied, "is_used": is_used, **measured}
