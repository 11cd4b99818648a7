"""Latent scaling: by which factors a feature's direction explains the base model's and the tuned model's activations.

For a feature with activations f_i and decoder row d, and targets y_i of a model (one per token), the factor is that of
least squares,

    argmin_b sum_i |b f_i d - y_i|^2 = sum_i f_i <d, y_i> / (|d|^2 sum_i f_i^2).

Two targets: what the dictionary reconstructs of the model's activations, and what it leaves with the feature's own part
put back. A feature that tuning brought has a small ratio of the base's factor to the tuned's on both. A small ratio on
the reconstruction and a large one on the error is a feature whose counterpart in the base model was merely not
reconstructed. Source: Minder et al. 2025 (arXiv 2504.02922). Decoder biases are no part of a reconstruction here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lfp.ml.sae.autoencoders import Crosscoder, Sae
from lfp.ml.sae.views import TokenPair, view_pair
from lfp.util.types import Flags, Floats, Role

RECONSTRUCTION_BELOW = 0.5
"""A feature is of one model where the other's factor is below this share of its own on the reconstruction ..."""
ERROR_BELOW = 0.2
"""... and below this share on the error."""
_LEAST_ACTIVE = 10
"""Tokens that a feature must be active on to have factors."""


@dataclass(frozen=True, eq=False)
class Factors:
    """Least-squares factors of every feature [width], NaN where it is active on too few tokens.

    `tuned` and `base` are on reconstructions, `tuned_error` and `base_error` on errors. The feature's activations are
    those in the model `role`.
    """

    role: Role
    tuned: Floats
    base: Floats
    tuned_error: Floats
    base_error: Floats

    @property
    def ratio(self) -> Floats:
        """The other model's factor over that of the model `role`, on the reconstruction."""
        return self._over(self.tuned, self.base)

    @property
    def ratio_error(self) -> Floats:
        """The same on the error."""
        return self._over(self.tuned_error, self.base_error)

    @property
    def is_exclusive(self) -> Flags:
        """Mark the features of the model `role` alone."""
        return (self.ratio < RECONSTRUCTION_BELOW) & (self.ratio_error < ERROR_BELOW)

    @property
    def is_known(self) -> Flags:
        """Mark the features that have factors."""
        return np.isfinite(self.ratio) & np.isfinite(self.ratio_error)

    def _over(self, tuned: Floats, base: Floats) -> Floats:
        own, other = (tuned, base) if self.role == "tuned" else (base, tuned)
        return np.divide(other, own, out=np.full(len(own), np.nan), where=own > 0)


@torch.no_grad()
def fit_factors(sae: Sae, pair: TokenPair, role: Role = "tuned", *, batch_tokens: int = 4096) -> Factors:
    """Fit the factors of an autoencoder's features on both models' activations at the same tokens."""
    device = sae.encoder.device
    decoder = sae.tuned_decoder if role == "tuned" else sae.base_decoder
    sums = torch.zeros(4, sae.info.width, dtype=torch.float64, device=device)
    squares, counts = torch.zeros(2, sae.info.width, dtype=torch.float64, device=device)
    centre = pair.base.outputs[sae.info.place].mean(0).to(device)
    for start in range(0, len(pair.tuned.ids), batch_tokens):
        part = _split(sae, pair.take(slice(start, start + batch_tokens)), role, centre)
        squares += part.code.double().pow(2).sum(0)
        counts += (part.code > 0).sum(0)
        targets = (part.rebuilt[0], part.rebuilt[1], part.error[0], part.error[1])
        sums += torch.stack([(part.code * (target @ decoder.T)).double().sum(0) for target in targets])
        for row, own in ((2, part.own[0]), (3, part.own[1])):  # the feature's own part goes back into the error
            if own is not None:
                code, rows = own
                sums[row] += (part.code * code).double().sum(0) * torch.linalg.vecdot(decoder, rows).double()
    norms = torch.linalg.vecdot(decoder, decoder).double()
    found = torch.where(counts >= _LEAST_ACTIVE, sums / (norms * squares).clamp(min=1e-30), torch.nan).cpu().numpy()
    return Factors(role, found[0], found[1], found[2], found[3])


@dataclass(frozen=True)
class _Split:
    """Codes [n, width] of some tokens; of the tuned model, then the base: reconstruction and error [n, d_model].

    `own` are a feature's codes and decoder rows in that reconstruction, None where there is no reconstruction.
    """

    code: Tensor
    rebuilt: tuple[Tensor, Tensor]
    error: tuple[Tensor, Tensor]
    own: tuple[tuple[Tensor, Tensor] | None, tuple[Tensor, Tensor] | None]


def _split(sae: Sae, pair: TokenPair, role: Role, centre: Tensor) -> _Split:
    """Split both models' activations into reconstruction and error.

    A dictionary of changes reconstructs no activations: its first target is the activations themselves less `centre`
    [d_model], the base model's mean, and the second what the change's other features leave of the tuned model's.
    """
    device = sae.encoder.device
    tuned, base = (tokens.outputs[sae.info.place].to(device) for tokens in (pair.tuned, pair.base))
    of_tuned, of_base = sae.tuned_decoder, sae.base_decoder
    if sae.info.reads == "change":
        code = sae.encode(view_pair(sae, pair, role).to(device))
        tuned, base = tuned - centre, base - centre
        left = tuned - code @ of_tuned - sae.b_dec
        return _Split(code, (tuned, base), (left, base), ((code, of_tuned), None))
    if isinstance(sae, Crosscoder):
        code = sae.encode(view_pair(sae, pair, "tuned").to(device))
        rebuilt = code @ of_tuned, code @ of_base
        d = sae.info.d_model
        error = tuned - rebuilt[0] - sae.b_dec[:d], base - rebuilt[1] - sae.b_dec[d:]
        return _Split(code, rebuilt, error, ((code, of_tuned), (code, of_base)))
    codes = sae.encode(tuned), sae.encode(base)
    rebuilt, rest = zip(*(_rebuild(sae, x, code) for x, code in zip((tuned, base), codes, strict=True)), strict=True)
    own = (codes[0], of_tuned), (codes[1], of_base)
    return _Split(codes[0] if role == "tuned" else codes[1], rebuilt, rest, own)


def _rebuild(sae: Sae, outputs: Tensor, code: Tensor) -> tuple[Tensor, Tensor]:
    """Return what the features rebuild of activations, and what they and the bias leave."""
    rebuilt = sae.reconstruct(outputs)
    return rebuilt - sae.b_dec if sae.info.normalize != "none" else code @ sae.W_dec, outputs - rebuilt


@torch.no_grad()
def compare_decoders(sae: Sae, start: Sae | None) -> tuple[Floats, Floats]:
    """Return each feature's cosine of decoder rows between the models, and the base row's share of both norms, [width].

    Of a crosscoder these are its two decoders; of another the cosine is with `start`, the base model's dictionary that
    it continues. NaN where there is no second row.
    """
    unknown = np.full(sae.info.width, np.nan)
    if isinstance(sae, Crosscoder):
        tuned, base = sae.tuned_decoder.double().cpu(), sae.base_decoder.double().cpu()
        norms = torch.stack([tuned.norm(dim=1), base.norm(dim=1)])
        cosine = torch.cosine_similarity(tuned, base, dim=1).numpy()
        return cosine, (norms[1] / norms.sum(0).clamp(min=1e-30)).numpy()
    if start is None:
        return unknown, unknown
    own, other = (found.W_dec.detach().double().cpu() for found in (sae, start))
    return torch.cosine_similarity(own, other, dim=1).numpy(), unknown
