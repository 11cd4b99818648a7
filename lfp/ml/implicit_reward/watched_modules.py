"""Modules watched in passes forward and backward: their calls, and the credits that gradients on their outputs give."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten
from transformers.pytorch_utils import Conv1D

from lfp.errors import ModelError, TextError
from lfp.ml.implicit_reward.assembled_moves import Leaf
from lfp.ml.models.tokenization import Batch

Kind = Literal["embedding", "attention", "mlp", "norm", "final_norm", "unembedding", "other"]
FULL, SAME_POSITION = 0, 1
"""Kinds of path, as `WeightPath.differentiate` orders them."""


class Module(NamedTuple):
    """A part of the model that credit is given to; `layer` is None outside the layers."""

    layer: int | None
    kind: Kind

    def __str__(self) -> str:
        return self.kind.replace("_", " ") if self.layer is None else f"layer {self.layer}, {self.kind}"


class Watched(NamedTuple):
    """A module that is watched: its column of credits, the paths it counts on, and how tuning moves its outputs."""

    name: str
    column: int
    paths: tuple[int, ...]
    move: Callable[[], list[Tensor]]


class Tally:
    """The credits of one batch at one point, filled by hooks on gradients in a backward pass per path."""

    def __init__(self, batch: Batch, modules: tuple[Module, ...], paths: tuple[int, ...]) -> None:
        self.batch, self.modules, self.paths = batch, modules, paths
        self.active: tuple[int, ...] = ()
        self.leaves: list[Leaf] = []
        """Linear layers inside modules that move as a whole."""
        self.credits = torch.zeros(len(paths), *batch.input_ids.shape, len(modules), dtype=torch.float64)

    def watch(self, output: Any, watched: Watched) -> Any:
        """Return a module's output with hooks on the gradients of its tensors."""
        values, spec = tree_flatten(output)
        places = [place for place, value in enumerate(values) if _is_floating(value)]
        for number, place in enumerate(places):
            if not values[place].requires_grad:
                values[place] = values[place].detach().requires_grad_()
            if len(places) > 1:  # one may be computed from another, which is no gradient from outside
                values[place] = values[place].view_as(values[place])
            values[place].register_hook(partial(self._give_credit, watched, number))
        return tree_unflatten(values, spec)

    def run_backward(self, loss: Tensor, heads: list[Tensor]) -> None:
        """Run backward passes on every path; they share the part down to the head's input, where there is one."""
        root, gradient = loss, None
        if heads:
            self.active = self.paths
            root, gradient = heads[0], torch.autograd.grad(loss, heads)[0]
        for path in self.paths:
            self.active = (path,)
            root.backward(gradient, retain_graph=path != self.paths[-1])

    def _give_credit(self, watched: Watched, number: int, gradient: Tensor) -> None:
        active = [path for path in watched.paths if path in self.active]
        if not active:
            return
        shape = self.batch.input_ids.shape
        if gradient.shape[0] not in (shape[0], shape.numel()):
            raise ModelError(
                f"{watched.name}: all texts of a batch share its output, so that they cannot be separated; set"
                " credits.batch_texts, feature_credits.batch_texts and stats.batch_texts to 1"
            )
        parts = (gradient.double() * watched.move()[number]).reshape(*shape, -1).sum(-1).cpu()
        if not bool(torch.isfinite(parts).all()):
            text = self.batch.rows[int((~torch.isfinite(parts)).any(1).nonzero()[0])]
            module = self.modules[watched.column]
            raise TextError(
                text, f"the gradient in {module} ({watched.name}) is not finite; check both models' weights"
            )
        for path in active:
            self.credits[path, ..., watched.column] += parts


@dataclass(frozen=True, eq=False)
class Call:
    """A module of a network with the arguments of a call."""

    module: nn.Module
    name: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]

    def parameter_names(self) -> dict[str, str]:
        """Return the network's names of the parameters inside, by the module's own."""
        prefix = f"{self.name}." if self.name else ""
        return {key: prefix + key for key, _ in self.module.named_parameters()}

    def run(self, weights: Mapping[str, Tensor]) -> list[Tensor]:
        """Call the module with other weights; return the tensors of numbers in what it returns."""
        output = functional_call(self.module, dict(weights), self.args, dict(self.kwargs))
        return [value for value in tree_leaves(output) if _is_floating(value)]

    def run_changed(self, fixed: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> list[Tensor]:
        """Call the module with the weights of both mappings."""
        return self.run({**fixed, **weights})

    def find_queries(self) -> dict[str, Tensor]:
        """Return a mask [columns] of the queries for every layer inside that writes keys or values."""
        outputs: dict[str, Tensor] = {}

        def keep(name: str, _: nn.Module, __: Any, output: Tensor) -> Tensor:
            outputs[name] = output if output.requires_grad else output.detach().requires_grad_()
            return outputs[name]

        with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH), ExitStack() as stack:
            for name, module in self.module.named_modules():
                if isinstance(module, nn.Linear | Conv1D):
                    stack.callback(module.register_forward_hook(partial(keep, name)).remove)
            second = self.run({})[0][:, 1]
            values = torch.linspace(1.0, 2.0, second.shape[-1], device=second.device)
            gradients = torch.autograd.grad((second * values).sum(), list(outputs.values()), allow_unused=True)
        masks = {
            name: (gradient[:, 0] == 0).all(0)
            for name, gradient in zip(outputs, gradients, strict=True)
            if gradient is not None
        }
        return {name: mask for name, mask in masks.items() if not bool(mask.all())}


def differentiate_twice(
    run: Callable[[Mapping[str, Tensor]], list[Tensor]], at: Mapping[str, Tensor], direction: Mapping[str, Tensor]
) -> list[Tensor]:
    """Return the derivative of outputs in a direction from reverse differentiation alone.

    The gradient of outputs weighted by u is linear in u; its own gradient along the direction is the derivative.
    """
    with torch.enable_grad():
        inputs = {key: value.detach().requires_grad_() for key, value in at.items()}
        outputs = run(inputs)
        weights = [torch.zeros_like(output, requires_grad=True) for output in outputs]
        pairs = zip(outputs, weights, strict=True)
        weighted = torch.stack([(output * weight).sum() for output, weight in pairs if output.requires_grad]).sum()
        gradients = torch.autograd.grad(weighted, list(inputs.values()), create_graph=True, allow_unused=True)
        steps = zip(gradients, direction.values(), strict=True)
        along = torch.stack([(gradient * step).sum() for gradient, step in steps if gradient is not None]).sum()
        moved = torch.autograd.grad(along, weights, allow_unused=True)
    return [torch.zeros_like(output) if value is None else value for output, value in zip(outputs, moved, strict=True)]


def cut_gradient(tally: Tally, kept: Tensor, _: nn.Module, __: Any, output: Tensor) -> None:
    """Keep the gradients of kept columns alone, on the path of the same position; a forward hook."""
    if output.requires_grad:
        output.register_hook(lambda gradient: gradient * kept if tally.active == (SAME_POSITION,) else None)


def _is_floating(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


def detach(value: Any) -> Any:
    """Detach a tensor; return anything else as it is."""
    return value.detach() if isinstance(value, Tensor) else value
