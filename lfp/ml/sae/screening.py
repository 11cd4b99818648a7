"""Which pre-activations pass a threshold, exactly: a low-precision product screens, a float32 product decides.

Where the processor multiplies in bfloat16 that product takes a fraction of the time, and its error is bounded. Whatever
may pass is computed again in float32, so the answer is that of a float32 product.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from lfp.ml.models.runtime import affine
from lfp.ml.sae.sparse_codes import SparseCode, sparse_code

_UNIT = 2.0**-8
"""Largest relative error of rounding to bfloat16, which has eight significant bits."""
_SLACK = 1.02
"""Room for what the bounds leave out: products of two errors, and sums in float32."""
_ABOVE_ZERO = 2.0**-149
"""The least float32 above zero."""
_GROUPS = 128


@dataclass(frozen=True, eq=False)
class Screen:
    """Pre-activations [n, width] of inputs [n, d_in], off by at most `margins` [n, 1] + u |value|, u = 2^-8.

    Without margins they are the float32 product itself.
    """

    values: Tensor
    margins: Tensor | None
    inputs: Tensor
    encoder: Tensor
    b_enc: Tensor

    def above(self, floor: Tensor) -> SparseCode:
        """The entries above `floor` (a scalar, [width] or [n, 1]), with their float32 values."""
        if self.margins is None:
            return sparse_code(self.values > floor, self.values)
        code = self._candidates(floor)
        return code.keep(code.values > _at(code, floor))

    def top_of_rows(self, k: int) -> SparseCode:
        """The k largest entries of every row that are above zero; of equals the first."""
        floor = torch.from_numpy(_kth_largest(self._lower_bounds(k), k))[:, None]
        return self._largest(floor, k, by_row=True)

    def top_of_all(self, k: int) -> SparseCode:
        """The k largest entries of the whole batch that are above zero; of equals the first."""
        floor = torch.from_numpy(_kth_largest(self._lower_bounds(k).reshape(1, -1), k))
        return self._largest(floor, k, by_row=False)

    def _largest(self, floor: Tensor, k: int, *, by_row: bool) -> SparseCode:
        floor.clamp_(min=_ABOVE_ZERO)
        if self.margins is None:
            code = sparse_code(torch.from_numpy(self.values.numpy() >= floor.numpy()), self.values)
        else:
            code = self._candidates(floor)
            code = code.keep(code.values > 0)
        ends = code.offsets if by_row else code.offsets[[0, -1]]
        return code.keep(_in_top(code.values.numpy(), ends.numpy(), k))

    def _candidates(self, floor: Tensor) -> SparseCode:
        """All entries that may be at or above the floor, and some that are not, with their float32 values."""
        assert self.margins is not None
        lowered = (floor - self.margins - _UNIT * _SLACK * floor.abs()).bfloat16()
        lowered = torch.nextafter(lowered, lowered.new_tensor(-torch.inf))
        code = sparse_code(_at_least(self.values, lowered))
        return replace(code, values=code.dots(self.inputs, self.encoder) + code.columns(self.b_enc))

    def _lower_bounds(self, k: int) -> NDArray[np.float32]:
        """Numbers [n, m] whose k-th largest is not above the true one: maxima of 128 groups of features, lowered."""
        n, width = self.values.shape
        grouped = width % _GROUPS == 0 and width >= 4 * _GROUPS and k <= _GROUPS
        values = _largest_of_groups(self.values.view(n, width // _GROUPS, _GROUPS)) if grouped else self.values
        values = values.float()
        return (values if self.margins is None else values - self.margins - _UNIT * _SLACK * values.abs()).numpy()


def screened(inputs: Tensor, encoder: Tensor, b_enc: Tensor, *, bf16: bool = False) -> Screen:
    """Pre-activations inputs @ encoder.T + b_enc of inputs [n, d_in], through bfloat16 where `bf16`.

    By Cauchy and Schwarz the product of rounded factors is off by at most |dx| |w| + |x| |dw|, with dx measured and
    |dw| at most u |w|; the bias is rounded once, and the sum once more.
    """
    if not bf16:
        return Screen(affine(inputs, encoder, b_enc), None, inputs, encoder, b_enc)
    rounded = inputs.bfloat16()
    values = F.linear(rounded, encoder.bfloat16(), b_enc.bfloat16())
    lost = (inputs - rounded).norm(dim=1, keepdim=True) + _UNIT * inputs.norm(dim=1, keepdim=True)
    margins = _SLACK * (lost * encoder.norm(dim=1).max() + _UNIT * b_enc.abs().max())
    return Screen(values, margins, inputs, encoder, b_enc)


def bf16_is_fast() -> bool:
    """Whether this processor multiplies in bfloat16."""
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def _at_least(values: Tensor, floor: Tensor) -> Tensor:
    """Values >= floor, both bfloat16, by their bits where one sign of floor allows it: five times sooner.

    As int16 bits are in order where positive; as uint16 those at or under a negative floor's are not below it.
    """
    if bool((floor < 0).all()):
        return torch.from_numpy(values.view(torch.uint16).numpy() <= floor.view(torch.uint16).numpy())
    if bool((floor >= 0).all()):
        return torch.from_numpy(values.view(torch.int16).numpy() >= floor.view(torch.int16).numpy())
    return values >= floor


def _largest_of_groups(values: Tensor) -> Tensor:
    """Maxima over axis 1 of [n, members, groups]; of bfloat16 by their bits, where negative ones need not be right."""
    if values.dtype != torch.bfloat16:
        return values.amax(1)
    return torch.from_numpy(values.view(torch.int16).numpy().max(axis=1)).view(torch.bfloat16)


def _at(code: SparseCode, floor: Tensor) -> Tensor:
    """The floor at every entry [nnz]."""
    if floor.ndim == 2:
        return floor.squeeze(1)[code.rows]
    return code.columns(floor) if floor.ndim else floor


def _in_top(values: NDArray[np.float32], offsets: NDArray[np.int64], k: int) -> Tensor:
    """Whether each value is among the k largest of its row [nnz]; of equals the first. Row i is `offsets[i:i + 2]`."""
    sizes = np.diff(offsets)
    if sizes.max(initial=0) <= k:
        return torch.ones(len(values), dtype=torch.bool)
    rows = np.repeat(np.arange(len(sizes)), sizes)
    padded = np.full((len(sizes), sizes.max()), -np.inf, np.float32)
    padded[rows, np.arange(len(values)) - offsets[rows]] = values
    kth = _kth_largest(padded, k)[rows]
    kept = values >= kth
    if np.count_nonzero(kept) > np.minimum(sizes, k).sum():
        kept &= ~_late_ties(values == kth, values > kth, rows, offsets, k)
    return torch.from_numpy(kept)


def _late_ties(
    equal: NDArray[np.bool_], above: NDArray[np.bool_], rows: NDArray[np.int64], offsets: NDArray[np.int64], k: int
) -> NDArray[np.bool_]:
    """Those equal to their row's k-th largest for which there is no room left."""
    room = k - np.bincount(rows[above], minlength=len(offsets) - 1)
    before = np.r_[0, np.cumsum(equal)]
    return equal & (before[:-1] - before[offsets[rows]] >= room[rows])


def _kth_largest(values: NDArray[np.float32], k: int) -> NDArray[np.float32]:
    """The k-th largest of every row of [n, m]."""
    place = values.shape[1] - k
    return np.partition(values, place, axis=1)[:, place]
