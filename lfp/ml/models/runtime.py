"""How computation runs: a fixed number of threads, checkpoints written whole, and the fastest matrix product."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode


def set_threads(n: int) -> None:
    """Fixes torch's CPU threads: sums are split by their number, so results repeat only with the same one."""
    torch.set_num_threads(n)


def save(state: Any, file: Path) -> None:
    """Puts `state` in place of what the file held."""
    partial = file.with_name(f".{file.name}.partial")
    torch.save(state, partial)
    partial.replace(file)


def load(file: Path | None) -> Any | None:
    """What was saved, on the CPU; None where nothing was, or no file is named."""
    if file is None or not file.is_file():
        return None
    return torch.load(file, map_location="cpu", weights_only=True)


def affine(inputs: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`inputs @ weight.T + bias`: [..., d_in], [width, d_in] and [width] give [..., width].

    Without gradients on a CPU oneDNN makes the float32 product: it uses the whole vector width of processors of every
    maker, where the library behind `F.linear` takes twice as long on some. The two differ by rounding alone.
    """
    plain = torch.is_grad_enabled() or inputs.device.type != "cpu" or inputs.dtype != torch.float32
    if plain or not inputs.numel() or not torch.backends.mkldnn.is_available():
        return F.linear(inputs, weight, bias)
    product: Tensor = torch.ops.mkldnn._linear_pointwise(inputs, weight, bias, "none", [], "")
    return product


class FastLinear(TorchFunctionMode):
    """Within it, in the thread that entered it, every linear layer's product is `affine`'s."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Called by torch in place of each of its functions."""
        return (affine if func is F.linear else func)(*args, **(kwargs or {}))
