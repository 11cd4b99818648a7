"""What a pass at a point of the path of weights shows of dictionaries' places: movements of writes, and gradients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, jvp
from torch.utils._pytree import tree_map
from transformers.models.bloom.modeling_bloom import BloomGelu

from lfp.evaluation.feature_credits import PATHS
from lfp.ml.implicit_reward.assembled_moves import Leaf, differentiating_forwards
from lfp.ml.implicit_reward.watched_modules import Call, Tally, detach
from lfp.ml.implicit_reward.weight_path import WeightPath
from lfp.ml.models.sites import Writer, find_writer, site_module
from lfp.ml.models.tokenization import Batch
from lfp.ml.sae.autoencoders import Sae
from lfp.util.types import Reads

N_PATHS = len(PATHS)
_STEP = 1e-4
"""Of a difference along the path, whose length is 1."""


@dataclass(eq=False)
class Write:
    """What the pass shows of a place: how tuning moves its write, and the write's gradients.

    `moved` is [tokens of the batch, d_model], `read` [tokens, d_in] what the dictionary reads, and `gradients` [paths,
    tokens, d_model]; they are empty where tuning changed nothing in the module.
    """

    reads: Reads
    writer: Writer
    name: str
    norm: str
    call: Call | None = None
    written: Tensor | None = None
    """What the module returned, where a norm scales it."""
    leaves: list[Leaf] = field(default_factory=list)
    read: Tensor = field(default_factory=lambda: torch.zeros(0))
    moved: Tensor = field(default_factory=lambda: torch.zeros(0))
    gradients: Tensor = field(default_factory=lambda: torch.zeros(0))
    _found: dict[int, Tensor] = field(default_factory=dict)

    def is_changed(self, path: WeightPath) -> bool:
        """Whether tuning changed a parameter of the module."""
        return any(f"{self.name}.{key}" in path.change for key, _ in self.writer.module.named_parameters())

    def watch(
        self, stack: ExitStack, tally: Tally, site: nn.Module, path: WeightPath, weights: Mapping[str, Tensor]
    ) -> None:
        """Hook what the module reads, its linear layers, and what stands at its site, until the stack closes."""

        def note(_: nn.Module, args: Any, kwargs: Any) -> None:
            self.call = Call(self.writer.module, self.name, *tree_map(detach, (args, kwargs)))

        def keep_leaf(name: str, module: nn.Module, args: Any, kwargs: Any, output: Tensor) -> None:
            call = Call(module, name, tree_map(detach, args), tree_map(detach, kwargs))
            self.leaves.append(Leaf(module, output.detach(), cache(partial(path.move, call, weights))))

        def keep_written(_: nn.Module, __: Any, output: Any) -> None:
            self.written = (output[0] if isinstance(output, tuple) else output).detach()

        def keep(_: nn.Module, __: Any, output: Any) -> Any:
            found = output[0] if isinstance(output, tuple) else output
            self.read = found.detach().flatten(0, -2)
            starts = not found.requires_grad  # nothing before it has a gradient that is wanted
            if starts:
                found = found.detach().requires_grad_()
            found.register_hook(partial(self._keep_gradient, tally))
            if not starts:
                return None
            changed = found.clone()  # which may be changed in place
            return (changed, *output[1:]) if isinstance(output, tuple) else changed

        stack.callback(self.writer.reads.register_forward_pre_hook(note, with_kwargs=True).remove)
        for key, module in self.writer.module.named_modules():
            name = f"{self.name}.{key}"
            if Leaf.is_known(module) and name in path.leaves:
                stack.callback(module.register_forward_hook(partial(keep_leaf, name), with_kwargs=True).remove)
        if self.writer.norm is not None:
            stack.callback(self.writer.writes.register_forward_hook(keep_written).remove)
        stack.callback(site.register_forward_hook(keep).remove)

    def _keep_gradient(self, tally: Tally, gradient: Tensor) -> None:
        for path in tally.active:
            self._found[path] = gradient.flatten(0, -2).clone()  # the next pass may add to it in place

    @torch.no_grad()
    def finish(self, path: WeightPath, weights: Mapping[str, Tensor]) -> None:
        """Compute how tuning moves the write, and stack the gradients; what was kept of the pass is let go."""
        call, self.call = self.call, None
        assert call is not None
        if self._found:  # a loss without tokens has no gradients
            self.gradients = torch.stack([self._found[number] for number in range(N_PATHS)])
            self.moved = self._move(path, call, weights).flatten(0, -2)
            if self.reads == "change":
                self.read = self.moved
            elif self.reads == "pair":
                ends = [_run(call, path.weights(at)) for at in (1.0, 0.0)]
                self.read = torch.cat([self._scale(weights, end).flatten(0, -2) for end in ends], dim=-1)
        self._found, self.leaves, self.written = {}, [], None

    def _move(self, path: WeightPath, call: Call, weights: Mapping[str, Tensor]) -> Tensor:
        """Return the derivative of what is written along the path, the module's inputs held fixed."""
        if any(isinstance(module, BloomGelu) for module in call.module.modules()):
            moved = _difference(path, call, weights)
        else:
            moved = path.move_whole(call, weights, self.leaves)[0]
        if self.writer.norm is None:
            return moved
        assert self.written is not None
        with differentiating_forwards():
            scaled: Tensor = jvp(partial(self._scale, weights), (self.written.view_as(moved),), (moved,))[1]
        return scaled

    def _scale(self, weights: Mapping[str, Tensor], written: Tensor) -> Tensor:
        """Apply the norm between the module and the residual stream, where there is one."""
        if self.writer.norm is None:
            return written
        own = {key: weights[f"{self.norm}.{key}"] for key, _ in self.writer.norm.named_parameters()}
        scaled: Tensor = functional_call(self.writer.norm, own, (written,))
        return scaled


def _run(call: Call, weights: Mapping[str, Tensor]) -> Tensor:
    return call.run({key: weights[name] for key, name in call.parameter_names().items() if name in weights})[0]


def _difference(path: WeightPath, call: Call, weights: Mapping[str, Tensor]) -> Tensor:
    """Return the derivative of a module's output by differences in double precision.

    For functions that cannot be differentiated forwards, such as BLOOM's activation.
    """
    twice = replace(call, args=tree_map(_to_double, call.args), kwargs=tree_map(_to_double, dict(call.kwargs)))
    ends = []
    for step in (_STEP, -_STEP):
        stepped = {
            key: weights[name].double() + (step * path.change[name].double() if name in path.change else 0.0)
            for key, name in call.parameter_names().items()
            if name in weights
        }
        ends.append(twice.run(stepped)[0])
    return ((ends[0] - ends[1]) / (2.0 * _STEP)).float()


def observe_writes(
    path: WeightPath, batch: Batch, counted: Tensor, saes: Sequence[Sae], at: float
) -> list[Write | None]:
    """Run a pass at a point of the path; return what it shows of dictionaries' places, None where nothing changed."""
    network, weights = path.base.network, path.weights(at)
    names = {id(module): name for name, module in network.named_modules()}
    writes: list[Write | None] = []
    for sae in saes:
        writer = find_writer(network, sae.info.place)
        name = names.get(id(writer.module), names[id(writer.reads)].rpartition(".")[0])
        norm = "" if writer.norm is None else names[id(writer.norm)]
        write = Write(sae.info.reads, writer, name, norm)
        writes.append(write if write.is_changed(path) else None)
    changed = [(sae, write) for sae, write in zip(saes, writes, strict=True) if write is not None]

    def observe(stack: ExitStack, tally: Tally) -> None:
        for sae, write in changed:
            write.watch(stack, tally, site_module(network, sae.info.place), path, weights)

    if changed:
        path.observe(batch, counted, weights, observe)
    with path.base.selected():
        for _, write in changed:
            write.finish(path, weights)
    return writes


def _to_double(value: Any) -> Any:
    return value.double() if isinstance(value, Tensor) and value.is_floating_point() else value
