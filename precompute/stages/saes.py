"""Stage `saes`: autoencoders of every chosen layer, in every size, on each model of the pair."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lfp.report import result
from precompute import pair
from precompute.run import Output, Run

if TYPE_CHECKING:
    from torch import Tensor

    from lfp.ml.sae import TiedReluSae

_HELD_OUT_TOKENS = 20_000


def run(run: Run, output: Output) -> None:
    """Writes a folder an autoencoder, saes.json, stability.json (of the features kept) and `sae_quality` rows."""
    rows: list[dict[str, Any]] = []
    stability: dict[str, list[float]] = {}
    for model in ("tuned", "base"):
        train = _collect(run, model, "train", run.config.sae.train_tokens)
        held_out = _collect(run, model, "held_out", _HELD_OUT_TOKENS)
        for layer in run.json("layers", "selected"):
            trained = _train_sizes(run, output, model, layer, train[layer], held_out[layer])
            rows += trained.rows
            stability[f"{model}-{layer}"] = trained.stability
    output.json("saes", rows)
    output.json("stability", stability)
    output.results(
        [
            _figure(row, metric)
            for row in rows
            for metric in ("fvu", "l0", "dead_fraction", "mmcs")
            if row[metric] is not None
        ]
    )


@dataclass(frozen=True)
class _Trained:
    """The rows of `saes` of one layer and model, and the stability of the features kept (empty with one size)."""

    rows: list[dict[str, Any]]
    stability: list[float]


def _collect(run: Run, model: str, split: str, n_tokens: int) -> dict[int, Tensor]:
    """MLP outputs [n, d_in] by layer of tokens of texts drawn by the seed, until there are `n_tokens`."""
    import torch

    from lfp.ml.activations import stream

    loaded = pair.load(run, model)
    texts = pair.tokenized(run, loaded, pair.corpus_texts(run, split))
    order = np.random.default_rng(run.config.seed).permutation(len(texts))
    layers = run.json("layers", "selected")
    parts: dict[int, list[Tensor]] = {layer: [] for layer in layers}
    n = 0
    for tokens in stream(
        loaded,
        [texts[i] for i in order],
        layers=layers,
        batch_texts=run.config.stats.batch_texts,
        prepend_bos=run.config.model.prepend_bos,
    ):
        for layer in layers:
            parts[layer].append(tokens.outputs[layer])
        n += len(tokens.ids)
        if n >= n_tokens:
            break
    return {layer: torch.cat(part)[:n_tokens] for layer, part in parts.items()}


def _train_sizes(run: Run, output: Output, model: str, layer: int, train: Tensor, held_out: Tensor) -> _Trained:
    """Every size on the tuned model; on the base model only the size whose features are kept."""
    from lfp.ml.sae import SaeInfo
    from lfp.ml.sae_training import quality, train_sae, unit_scale

    config = run.config.sae
    scale, d_in = unit_scale(train), train.shape[1]
    saes: list[TiedReluSae] = []
    rows = []
    for expansion in config.expansion if model == "tuned" else config.expansion[:1]:
        info = SaeInfo(layer, expansion * d_in, d_in, scale, config.l1, run.config.seed, model)
        sae = train_sae(train, config, info, progress=run.progress)
        sae.save(output.folder / f"{model}-layer{layer}-x{expansion}")
        saes.append(sae)
        rows.append(_row(sae, quality(sae, held_out), is_used=model == "tuned" and len(saes) == 1))
    if len(saes) == 1:
        return _Trained(rows, [])
    stability = _stability(saes[0], saes[1])
    for row in rows[:2]:
        row["mmcs"] = float(np.mean(stability))
    return _Trained(rows, stability)


def _stability(kept: TiedReluSae, other: TiedReluSae) -> list[float]:
    """Cosine of each kept feature with its Hungarian match in the other size; their mean is the MMCS.

    A feature without a match, where the other size is the smaller, has 0.
    """
    from lfp.ml.sae_training import matched_cosines

    stability = np.zeros(kept.info.width)
    if kept.info.width <= other.info.width:
        stability[:] = matched_cosines(kept.decoder, other.decoder)[0].numpy()
    else:
        cosines, matches = matched_cosines(other.decoder, kept.decoder)
        stability[matches.numpy()] = cosines.numpy()
    return stability.tolist()


def _row(sae: TiedReluSae, measured: Any, *, is_used: bool) -> dict[str, Any]:
    info = sae.info
    return {
        "layer": info.layer,
        "variant": info.variant,
        "width": info.width,
        "seed": info.seed,
        "tied": True,
        "l1": info.l1,
        "k": None,
        "is_used": is_used,
        "model": info.model,
        "fvu": measured.fvu,
        "l0": measured.l0,
        "dead_fraction": measured.dead_fraction,
        "ce_recovered": None,
        "mmcs": None,
        "scale": info.scale,
    }


def _figure(row: dict[str, Any], metric: str) -> dict[str, Any]:
    return result(
        "sae_quality", metric, row[metric], layer=row["layer"], model=row["model"], group=f"width={row['width']}"
    )
