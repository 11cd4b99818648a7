"""Stage `saes`: dictionaries of every selected layer, in every size, on each model of the pair."""

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
    from lfp.ml.sae.training import ActivationSource, SaeTrainer

_HELD_OUT_TOKENS = 20_000
_CROSS_ENTROPY_TEXTS = 200
_METRICS = ("fvu", "l0", "dead_fraction", "ce_recovered", "mmcs")


def run(run: Run, output: Output) -> None:
    """Write a folder per dictionary, saes.json, stability.json (of the kept features) and the rows `sae_quality`.

    Raises ConfigError for a pretrained dictionary of a layer or site that the run does not read.
    """
    selected = run.json("layers", "selected")
    for pretrained in run.config.sae.pretrained:
        if pretrained.layer not in selected:
            raise ConfigError(
                f"sae.pretrained names layer {pretrained.layer}, but the selected layers are {selected}; "
                "raise layers.count or drop the entry"
            )
        if pretrained.site != "mlp_out":
            raise ConfigError(
                f"sae.pretrained names site {pretrained.site}, but runs read mlp_out only; drop the entry"
            )
    rows: list[dict[str, Any]] = []
    stability: dict[str, list[float]] = {}
    for model in ("tuned", "base"):
        subject = Subject(run, model)
        for layer, saes in _make(run, output, subject).items():
            stable = _match_features(saes)
            rows += _judge(run, subject, saes, stable)
            stability[f"{model}-{layer}"] = stable
            for number, sae in enumerate(saes):
                write_sae(sae, output.folder / sae_folder(model, layer, number))
    output.json("saes", rows)
    output.json("stability", stability)
    output.results(
        [
            ResultRow.from_estimate(
                "sae_quality",
                metric,
                row[metric],
                layer=row["layer"],
                model=row["model"],
                group=f"width={row['width']},seed={row['seed']}",
            )
            for row in rows
            for metric in _METRICS
            if row[metric] is not None
        ]
    )


@dataclass(frozen=True)
class Subject:
    """A model of the pair, and what its dictionaries are trained on and judged by; all of it loaded when first used."""

    run: Run
    role: str

    @cached_property
    def model(self) -> LanguageModel:
        """Model whose layers the dictionaries read."""
        return load_role(self.run, self.role)

    @cached_property
    def layers(self) -> list[int]:
        """Selected layers."""
        return self.run.json("layers", "selected")

    def texts(self, split: str) -> list[TokenizedText]:
        """Tokenize the texts of a split, in an order drawn by the seed."""
        texts = tokenize_texts(self.run, self.model, read_texts(self.run, split))
        return [texts[i] for i in np.random.default_rng(self.run.config.seed).permutation(len(texts))]

    def source(self) -> ActivationSource:
        """Open the training batches of all layers: held in memory, or streamed where the config has a buffer."""
        from lfp.ml.sae.training import HeldActivations, StreamedActivations

        config, seed = self.run.config.sae, self.run.config.seed
        if config.buffer_tokens is None:
            held = self.collect("train", config.train_tokens)
            device = self.run.config.model.device
            placed = {layer: values.to(device) for layer, values in held.items()}
            return HeldActivations(placed, config.batch_tokens, seed)
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

    @cached_property
    def held_out(self) -> dict[int, Tensor]:
        """Held-out MLP outputs [n, d_in] by layer."""
        return self.collect("held_out", _HELD_OUT_TOKENS)

    def collect(self, split: str, n_tokens: int) -> dict[int, Tensor]:
        """Collect MLP outputs [n_tokens, d_in] by layer from the texts of a split, fewer where it has fewer tokens."""
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
    def judging_texts(self) -> list[TokenizedText]:
        """Held-out texts on which cross-entropy is measured."""
        return self.texts("held_out")[:_CROSS_ENTROPY_TEXTS]

    def ce_recovered(self, sae: Sae) -> float | None:
        """Measure the share of cross-entropy that the dictionary recovers on held-out texts."""
        from lfp.ml.sae.quality import ce_recovered

        return ce_recovered(
            self.model,
            sae,
            self.judging_texts,
            batch_texts=self.run.config.stats.batch_texts,
            prepend_bos=self.run.config.model.prepend_bos,
        )


def _make(run: Run, output: Output, subject: Subject) -> dict[int, list[Sae]]:
    """Train the dictionaries of every layer, or read pretrained ones; the first of a layer has the kept features."""
    from lfp.ml.sae.training import train_saes, unit_scale

    source = subject.source()
    sample = {layer: outputs.to(run.config.model.device) for layer, outputs in source.sample().items()}
    scales = {layer: unit_scale(outputs) for layer, outputs in sample.items()}
    given = {
        pretrained.layer: _read_pretrained(pretrained, subject, scales[pretrained.layer])
        for pretrained in run.config.sae.pretrained
        if pretrained.model == subject.role
    }
    trainers = [
        trainer
        for layer in subject.layers
        if layer not in given
        for trainer in _build_trainers(run, subject.role, layer, sample[layer], scales[layer])
    ]
    checkpoint = output.scratch / f"{subject.role}.pt"
    trained = train_saes(trainers, source, checkpoint=checkpoint, progress=run.progress) if trainers else []
    return {
        layer: [given[layer]] if layer in given else [sae.cpu() for sae in trained if sae.info.layer == layer]
        for layer in subject.layers
    }


def _build_trainers(run: Run, model: str, layer: int, sample: Tensor, scale: float) -> list[SaeTrainer]:
    """Build trainers: every size on the tuned model, the first on the base model; a repeated size gets a new seed."""
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


def _read_pretrained(config: PretrainedSae, subject: Subject, scale: float) -> Sae:
    from lfp.ml.sae.formats import locate_sae, read_sae

    name = resolve_folder(config.folder, subject.run.config_dir)
    source = Path(name).name if Path(name).is_dir() else name  # bundles do not name folders of this machine
    folder, d_in = locate_sae(name, config.revision), subject.model.d_model
    return read_sae(
        folder, layer=config.layer, site=config.site, model=config.model, scale=scale, d_in=d_in, source=source
    )


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
        measured = quality(sae, subject.held_out[sae.info.layer])
        mmcs = float(np.mean(stability)) if len(stability) and number < 2 else None
        used = subject.role == "tuned" and number == 0
        rows.append(row(sae, vars(measured) | {"ce_recovered": subject.ce_recovered(sae), "mmcs": mmcs}, is_used=used))
        run.progress("saes: judged", number + 1, len(saes), measured.fvu)
    return rows


def row(sae: Sae, measured: Mapping[str, float | None], *, is_used: bool) -> dict[str, Any]:
    """Build a row of `saes`, and its scale."""
    names = ("layer", "variant", "width", "seed", "l1", "k", "l0_weight", "model", "source", "scale")
    return {name: getattr(sae.info, name) for name in names} | {"tied": sae.tied, "is_used": is_used, **measured}
