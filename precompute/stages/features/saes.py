"""Stage `saes`: autoencoders of every chosen layer, in every size, on each model of the pair."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lfp.config import PretrainedSae
from lfp.errors import ConfigError
from lfp.evaluation.results import ResultRow
from lfp.ml.sae.formats import write_sae
from precompute.run.inputs import load_role, read_texts, resolve_folder, sae_folder, tokenize_texts
from precompute.run.work_folder import Output, Run

if TYPE_CHECKING:
    from torch import Tensor

    from lfp.ml.models.loading import LanguageModel
    from lfp.ml.models.tokenization import TokenizedText
    from lfp.ml.sae.autoencoders import Sae
    from lfp.ml.sae.batches import ActivationSource
    from lfp.ml.sae.training import SaeTrainer

_HELD_OUT_TOKENS = 20_000
_CROSS_ENTROPY_TEXTS = 200
_METRICS = ("fvu", "l0", "dead_fraction", "ce_recovered", "mmcs")


def run(run: Run, output: Output) -> None:
    """Writes a folder an autoencoder, saes.json, stability.json (of the features kept) and `sae_quality` rows."""
    _check_pretrained(run)
    rows: list[dict[str, Any]] = []
    stability: dict[str, list[float]] = {}
    for model in ("tuned", "base"):
        subject = Subject(run, model)
        for layer, saes in _make(run, output, subject).items():
            stable = _stability(saes)
            rows += _rows(run, subject, saes, stable)
            stability[f"{model}-{layer}"] = stable
            for number, sae in enumerate(saes):
                write_sae(sae, output.folder / sae_folder(model, layer, number))
    output.json("saes", rows)
    output.json("stability", stability)
    output.results([_figure(row, metric) for row in rows for metric in _METRICS if row[metric] is not None])


@dataclass(frozen=True)
class Subject:
    """A model of the pair and what its autoencoders are trained on and judged by, loaded when asked for."""

    run: Run
    role: str

    @cached_property
    def model(self) -> LanguageModel:
        """The model."""
        return load_role(self.run, self.role)

    @cached_property
    def layers(self) -> list[int]:
        """The chosen layers."""
        return self.run.json("layers", "selected")

    def texts(self, split: str) -> list[TokenizedText]:
        """The texts of a split, in an order drawn by the seed."""
        texts = tokenize_texts(self.run, self.model, read_texts(self.run, split))
        return [texts[i] for i in np.random.default_rng(self.run.config.seed).permutation(len(texts))]

    def source(self) -> ActivationSource:
        """Training batches of all layers: activations held in memory, or streamed where the config has a buffer."""
        from lfp.ml.sae.batches import HeldActivations, StreamedActivations

        config, seed = self.run.config.sae, self.run.config.seed
        if config.buffer_tokens is None:
            held = self.collect("train", config.train_tokens)
            return HeldActivations(self.placed(held), config.batch_tokens, seed)
        return StreamedActivations(
            self.model,
            self.texts("train"),
            self.layers,
            batch_tokens=config.batch_tokens,
            buffer_tokens=config.buffer_tokens,
            batch_texts=self.run.config.stats.batch_texts,
            prepend_bos=self.run.config.model.prepend_bos,
            seed=seed,
        )

    def placed(self, outputs: Mapping[int, Tensor]) -> dict[int, Tensor]:
        """Outputs by layer on the device the config names."""
        return {layer: values.to(self.run.config.model.device) for layer, values in outputs.items()}

    @cached_property
    def held_out(self) -> dict[int, Tensor]:
        """Held-out MLP outputs [n, d_in] by layer."""
        return self.collect("held_out", _HELD_OUT_TOKENS)

    def collect(self, split: str, n_tokens: int) -> dict[int, Tensor]:
        """MLP outputs [n, d_in] by layer of the tokens of a split's texts, until there are `n_tokens`."""
        import torch

        from lfp.ml.models.activations import stream

        parts: dict[int, list[Tensor]] = {layer: [] for layer in self.layers}
        n = 0
        for tokens in stream(
            self.model,
            self.texts(split),
            layers=self.layers,
            batch_texts=self.run.config.stats.batch_texts,
            prepend_bos=self.run.config.model.prepend_bos,
        ):
            for layer, part in parts.items():
                part.append(tokens.outputs[layer])
            n += len(tokens.ids)
            if n >= n_tokens:
                break
        return {layer: torch.cat(part)[:n_tokens] for layer, part in parts.items()}

    @cached_property
    def _judging_texts(self) -> list[TokenizedText]:
        return self.texts("held_out")[:_CROSS_ENTROPY_TEXTS]

    def ce_recovered(self, sae: Sae) -> float | None:
        """Cross-entropy that the autoencoder recovers on held-out texts."""
        from lfp.ml.sae.quality import ce_recovered

        return ce_recovered(
            self.model,
            sae,
            self._judging_texts,
            batch_texts=self.run.config.stats.batch_texts,
            prepend_bos=self.run.config.model.prepend_bos,
        )


def _make(run: Run, output: Output, subject: Subject) -> dict[int, list[Sae]]:
    """The autoencoders of every layer, the one whose features are kept first: read where the config names them."""
    from lfp.ml.sae.training import train_saes, unit_scale

    source = subject.source()
    sample = subject.placed(source.sample())
    scales = {layer: unit_scale(outputs) for layer, outputs in sample.items()}
    given = {one.layer: _read(one, subject, scales[one.layer]) for one in _pretrained(run, subject.role)}
    trainers = [
        trainer
        for layer in subject.layers
        if layer not in given
        for trainer in _trainers(run, subject.role, layer, sample[layer], scales[layer])
    ]
    checkpoint = output.scratch / f"{subject.role}.pt"
    trained = train_saes(trainers, source, checkpoint=checkpoint, progress=run.progress) if trainers else []
    return {
        layer: [given[layer]] if layer in given else [sae.cpu() for sae in trained if sae.info.layer == layer]
        for layer in subject.layers
    }


def _trainers(run: Run, model: str, layer: int, sample: Tensor, scale: float) -> list[SaeTrainer]:
    """Every size on the tuned model, a size named twice with another seed; on the base model the first alone."""
    from lfp.ml.sae.autoencoders import SaeInfo
    from lfp.ml.sae.training import SaeTrainer

    config, d_in = run.config.sae, sample.shape[1]
    sizes = config.expansion if model == "tuned" else config.expansion[:1]
    return [
        SaeTrainer(
            SaeInfo(
                layer=layer,
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


def _pretrained(run: Run, model: str) -> list[PretrainedSae]:
    return [one for one in run.config.sae.pretrained if one.model == model]


def _check_pretrained(run: Run) -> None:
    """Before any training: raises ConfigError for an autoencoder of a layer that is not looked into."""
    layers = run.json("layers", "selected")
    for one in run.config.sae.pretrained:
        if one.layer not in layers:
            raise ConfigError(
                f"sae.pretrained names layer {one.layer}, but the chosen layers are {layers}; "
                "raise layers.count or drop the entry"
            )


def _read(one: PretrainedSae, subject: Subject, scale: float) -> Sae:
    from lfp.ml.sae.formats import locate_sae, read_sae

    named = resolve_folder(one.folder, subject.run.config_dir)
    source = Path(named).name if Path(named).is_dir() else named  # no folder of the machine it was made on
    folder, d_in = locate_sae(named, one.revision), subject.model.d_model
    return read_sae(folder, layer=one.layer, model=one.model, scale=scale, d_in=d_in, source=source)


def _stability(saes: Sequence[Sae]) -> list[float]:
    """Cosine of each kept feature with its Hungarian match in the next dictionary; their mean is the MMCS.

    A feature without a match, where the other size is the smaller, has 0. Empty where there is no other.
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


def _rows(run: Run, subject: Subject, saes: Sequence[Sae], stability: Sequence[float]) -> list[dict[str, Any]]:
    from lfp.ml.sae.quality import quality

    rows = []
    for number, sae in enumerate(saes):
        measured = quality(sae, subject.held_out[sae.info.layer])
        mmcs = float(np.mean(stability)) if len(stability) and number < 2 else None
        used = subject.role == "tuned" and number == 0
        rows.append(row(sae, vars(measured) | {"ce_recovered": subject.ce_recovered(sae), "mmcs": mmcs}, is_used=used))
        run.progress("saes: judged", number + 1, len(saes), measured.fvu)
    return rows


def row(sae: Sae, measured: Mapping[str, float | None], *, is_used: bool) -> dict[str, Any]:
    """A row of `saes`, and the scale beside it."""
    info = sae.info
    return {
        "layer": info.layer,
        "variant": info.variant,
        "width": info.width,
        "seed": info.seed,
        "tied": sae.tied,
        "l1": info.l1,
        "k": info.k,
        "l0_weight": info.l0_weight,
        "is_used": is_used,
        "model": info.model,
        "source": info.source,
        "scale": info.scale,
        **measured,
    }


def _figure(row: dict[str, Any], metric: str) -> ResultRow:
    group = f"width={row['width']},seed={row['seed']}"
    return ResultRow.from_estimate(
        "sae_quality", metric, row[metric], layer=row["layer"], model=row["model"], group=group
    )
