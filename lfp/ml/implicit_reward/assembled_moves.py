"""How tuning moves what a module returns, put together from how it moves the linear layers inside it.

A forward pass has computed what each linear layer returns, and the ledger how tuning moves that. The derivative of the
module that holds them needs neither again: only what lies between the layers, and what a layer makes of a moved input.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import NamedTuple

import torch
import torch.autograd.forward_ad as forward_ad
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers.pytorch_utils import Conv1D


class Leaf(NamedTuple):
    """A linear layer of a forward pass: what it returned, and how tuning moves that, its input held fixed."""

    module: nn.Module
    output: Tensor
    move: Callable[[], list[Tensor]]

    @staticmethod
    def is_known(module: nn.Module) -> bool:
        """Whether a module is a linear layer whose derivative is known to be linear in its input."""
        return type(module) in (nn.Linear, Conv1D)


@contextmanager
def differentiating_forwards() -> Iterator[None]:
    """Context for forward differentiation, of attention too."""
    with sdpa_kernel(SDPBackend.MATH), warnings.catch_warnings():
        # torch 2.13 compiles formulas of derivatives at the first call, by a function that it deprecates
        warnings.filterwarnings("ignore", "`torch.jit", DeprecationWarning)
        yield


@torch.no_grad()
def assemble_moves(
    run: Callable[[Mapping[str, Tensor]], list[Tensor]],
    values: Mapping[str, Tensor],
    change: Mapping[str, Tensor],
    leaves: Sequence[Leaf],
) -> list[Tensor]:
    """Return the derivatives of a module's outputs along the path, its inputs held fixed.

    `run` calls the module with parameters, whose `values` are given by name; `change` has the changes of those that
    belong to none of the `leaves`. Raises NotImplementedError for an operation without forward differentiation.
    """
    with differentiating_forwards(), forward_ad.dual_level(), ExitStack() as stack:
        for leaf in leaves:
            stack.enter_context(_replace_forward(leaf.module, partial(_recall, leaf)))
        moving = {
            key: forward_ad.make_dual(value, change[key]) if key in change else value for key, value in values.items()
        }
        duals = [forward_ad.unpack_dual(output) for output in run(moving)]
    return [torch.zeros_like(dual.primal) if dual.tangent is None else dual.tangent for dual in duals]


def _recall(leaf: Leaf, inputs: Tensor) -> Tensor:
    """Return what a layer returned before, moved by its own change and by that of its input."""
    (moved,) = leaf.move()
    tangent = forward_ad.unpack_dual(inputs).tangent
    if tangent is not None:
        weight = leaf.module.weight
        assert isinstance(weight, Tensor)
        moved = moved + F.linear(tangent, weight.T if isinstance(leaf.module, Conv1D) else weight)
    return forward_ad.make_dual(leaf.output.clone(), moved)  # some modules compute in place


@contextmanager
def _replace_forward(module: nn.Module, forward: Callable[[Tensor], Tensor]) -> Iterator[None]:
    own = module.__dict__.get("forward")
    module.forward = forward
    try:
        yield
    finally:
        del module.forward
        if own is not None:
            module.forward = own
