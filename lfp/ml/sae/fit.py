"""Check a dictionary made elsewhere on activations of its place, before anything long runs with it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from lfp.errors import ModelError
from lfp.ml.sae.autoencoders import Sae
from lfp.ml.sae.quality import SaeQuality, quality
from lfp.ml.sae.training import unit_scale

_VALUES_AT_ONCE = 2**26
"""Features of a batch held at once."""
_POOR = 0.5
"""Share of the variance left unexplained above which a dictionary is noted as a poor fit."""
_DENSE = 0.25
"""Share of the features active per token above which it is."""


@dataclass(frozen=True)
class Fit:
    """How a dictionary fits activations."""

    measured: SaeQuality
    note: str | None
    """A sentence on a fit that is poor, but not so poor that nothing can come of it."""


def check_fit(sae: Sae, activations: Tensor, *, input_scale: float = 1.0) -> Fit:
    """Measure a dictionary, with an `input_scale` folded into it, on activations [n, d_in] of its place.

    Where it fits poorly, the factors of the usual conventions are tried on the activations: those that give a mean
    square norm of 1 and of d_in. Raises ModelError where no feature is ever active, and where the reconstructions are
    further from the activations than their mean is: it is then of another site, layer or model, or of another scale,
    which the error names.
    """
    info, batch_tokens = sae.info, max(1, _VALUES_AT_ONCE // sae.info.width)
    measured = quality(sae, activations, batch_tokens=batch_tokens)
    remedy = None
    if (measured.l0 == 0 or measured.fvu > _POOR) and info.normalize == "none":
        unit = unit_scale(activations)
        factors = (unit, unit * math.sqrt(info.d_in))
        scaled = {factor: quality(sae, activations * factor, batch_tokens=batch_tokens) for factor in factors}
        best = min(scaled, key=lambda factor: scaled[factor].fvu)
        if scaled[best].fvu <= _POOR:  # a factor that silences nearly everything comes close to 1
            left = f"{scaled[best].fvu:.0%} of the variance unexplained"
            remedy = f"with input_scale = {best * input_scale:.4g} in its entry it leaves {left}"
    where = f"{info.site} of layer {info.layer}, {len(activations):,} tokens of the {info.model} model"
    if measured.l0 == 0:
        raise ModelError(
            f"{info.source}: no feature of layer {info.layer} fires: wrong scale, site or model ({where});"
            f" {remedy or 'pass a dictionary of that place and model'}"
        )
    if measured.fvu > 1:
        raise ModelError(
            f"{info.source}: its reconstructions are further off than the mean, {measured.fvu:.3g} of the variance"
            f" unexplained ({where}): wrong {'scale, ' * bool(remedy)}site, layer or model;"
            f" {remedy or 'pass a dictionary of that place and model'}"
        )
    return Fit(measured, _note(sae, measured, remedy))


def _note(sae: Sae, measured: SaeQuality, remedy: str | None) -> str | None:
    """Say what is poor about a fit, in one sentence; None where nothing is."""
    info, found = sae.info, []
    if measured.fvu > _POOR:
        found.append(f"leaves {measured.fvu:.0%} of the variance unexplained")
    if measured.l0 > _DENSE * info.width:
        found.append(f"has {measured.l0 / info.width:.0%} of its features active per token")
    if not found:
        return None
    place = f"{info.site} of layer {info.layer} of the {info.model} model"
    return f"The dictionary {info.source} {' and '.join(found)} on {place}{f'; {remedy}' if remedy else ''}."
