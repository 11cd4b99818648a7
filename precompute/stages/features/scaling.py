"""Latent scaling of the run's dictionaries, and of dictionaries trained with the models exchanged."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lfp.evaluation.results import ResultRow
from lfp.util.types import Floats, Place, Role
from precompute.run.inputs import sae_folder
from precompute.run.work_folder import Output
from precompute.stages.features.subjects import PairSubject

if TYPE_CHECKING:
    from lfp.ml.sae.autoencoders import Sae
    from lfp.ml.sae.latent_scaling import Factors

Saes = Mapping[Place, "Sae"]
_COLUMNS = (
    "scale_tuned", "scale_base", "scale_tuned_error", "scale_base_error", "is_tuned_only", "base_cosine",
    "base_norm_share",
)  # fmt: skip
"""Columns of `features` in scaling.npz, each after the folder of its dictionary and a slash."""


def scale_latents(
    output: Output, pair: PairSubject, trained: Mapping[Role, Saes], train_exchanged: Callable[[], Saes]
) -> list[ResultRow]:
    """Write scaling.npz, and return rows that count the features of one model alone.

    Beside those of the tuned model alone, rows of the model `base` count the features of the base model alone in a
    dictionary made in the same way with the models exchanged: the base model's own, the same where the models share
    one, or one that `train_exchanged` trains.

    Features of changes are not counted, nor flagged: a change is in what the tuned model writes and not in what the
    base model writes whatever tuning did, so that twins tuned by seeds only have as many.
    """
    from lfp.ml.sae.latent_scaling import fit_factors

    found = {place: fit_factors(sae, pair.held_out_pairs) for place, sae in trained["tuned"].items()}
    started = trained["base"] if pair.trained_on == "base_finetuned" else {}
    arrays = {
        f"{sae_folder('tuned', place)}/{name}": values
        for place, sae in trained["tuned"].items()
        for name, values in _pair_columns(sae, found[place], started.get(place)).items()
    }
    np.savez(output.folder / "scaling.npz", allow_pickle=False, **arrays)
    if pair.trained_on == "change":
        return list(_ratio_rows(found, "tuned"))
    if pair.trained_on in ("shared", "crosscoder"):
        mirrored = {place: fit_factors(sae, pair.held_out_pairs, "base") for place, sae in trained["tuned"].items()}
    elif pair.trained_on == "tuned":
        mirrored = {place: fit_factors(sae, pair.held_out_pairs, "base") for place, sae in trained["base"].items()}
    else:
        exchanged = pair.held_out_pairs.exchange()
        mirrored = {place: fit_factors(sae, exchanged) for place, sae in train_exchanged().items()}
    return [*count_rows(found, "tuned"), *count_rows(mirrored, "base")]


def read_pair_columns(folder: Path, places: Sequence[Place]) -> dict[str, Floats]:
    """Return the columns of `features` in scaling.npz [features], NaN for null."""
    with np.load(folder / "scaling.npz") as stored:
        return {
            name: np.concatenate([stored[f"{sae_folder('tuned', place)}/{name}"] for place in places])
            for name in _COLUMNS
        }


def _pair_columns(sae: Sae, factors: Factors, start: Sae | None) -> dict[str, Floats]:
    """Compute a dictionary's columns; `start` is the base model's dictionary that it continues."""
    from lfp.ml.sae.latent_scaling import compare_decoders

    cosine, share = compare_decoders(sae, start)
    values = (
        factors.tuned,
        factors.base,
        factors.tuned_error,
        factors.base_error,
        np.where(factors.is_known & (sae.info.reads != "change"), factors.is_exclusive, np.nan),
        cosine,
        share,
    )
    return dict(zip(_COLUMNS, values, strict=True))


def count_rows(found: Mapping[Place, Factors], model: str) -> Iterator[ResultRow]:
    """Count the features of a model alone, by place and in all places, among those that have factors."""
    counts = {place: (int(factors.is_exclusive.sum()), int(factors.is_known.sum())) for place, factors in found.items()}
    for place, (exclusive, known) in counts.items():
        keys = {"model": model, "layer": place.layer, "site": place.site, "n": known}
        yield ResultRow.from_estimate("latent_scaling", "exclusive", exclusive, **keys)  # type: ignore[arg-type]
    yield from _ratio_rows(found, model)
    exclusive, known = (sum(part) for part in zip(*counts.values(), strict=True))
    yield ResultRow.from_estimate("latent_scaling", "exclusive", exclusive, model=model, n=known)


def _ratio_rows(found: Mapping[Place, Factors], model: str) -> Iterator[ResultRow]:
    """Report the median ratio of the factors of each place."""
    for place, factors in found.items():
        known = int(factors.is_known.sum())
        keys = {"model": model, "layer": place.layer, "site": place.site, "n": known}
        for metric, ratio in (("median_ratio", factors.ratio), ("median_ratio_error", factors.ratio_error)):
            if known:
                value = float(np.median(ratio[factors.is_known]))
                yield ResultRow.from_estimate("latent_scaling", metric, value, **keys)  # type: ignore[arg-type]
