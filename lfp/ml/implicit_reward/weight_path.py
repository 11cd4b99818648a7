"""The straight path of weights from a base to its tuned model, and the derivative of log-probabilities along it.

A module's part of the derivative at a position is its output's gradient times the derivative of that output in the
direction of tuning, with the module's input held fixed. Modules are found by the parameters that changed: whatever owns
one is watched, whether it is known by name or not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache, cached_property, partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, jvp
from torch.utils._pytree import tree_leaves, tree_map
from transformers.pytorch_utils import Conv1D

from lfp.errors import ModelError
from lfp.ml.implicit_reward.assembled_moves import Leaf, assemble_moves, differentiating_forwards
from lfp.ml.implicit_reward.watched_modules import (
    FULL,
    SAME_POSITION,
    Call,
    Module,
    Tally,
    Watched,
    cut_gradient,
    detach,
    differentiate_twice,
)
from lfp.ml.models.divergence import place_parameter
from lfp.ml.models.loading import LanguageModel
from lfp.ml.models.sites import attention_module
from lfp.ml.models.tokenization import Batch

Watch = Callable[[ExitStack, Tally], None]
"""Puts hooks on the network until the stack closes; `active` of the tally has the paths of a gradient."""


@dataclass(frozen=True, eq=False)
class WeightPath:
    """The straight path of weights from base to tuned.

    `start` and `change` hold parameters by name, in float32 or higher; `leaves` the modules that own a parameter that
    changed, by name, and `columns` their places in `modules`. `unknown` names the leaves whose kind is `other`.
    """

    base: LanguageModel
    start: Mapping[str, Tensor]
    change: Mapping[str, Tensor]
    leaves: Mapping[str, nn.Module]
    modules: tuple[Module, ...]
    columns: Mapping[str, int]
    """Also of the attention modules that contain a leaf."""
    unknown: tuple[str, ...]
    switches: tuple[str, ...]
    """Modules that return whole numbers, such as routers that choose experts: the path has jumps there, which no
    derivative sees."""

    @staticmethod
    def between(base: LanguageModel, tuned: LanguageModel) -> WeightPath:
        """Find what changed. Raises ModelError naming the first parameter of another shape.

        Rows of tokens that only one of the models has stay as they are. The network of an adapter has other names for
        its base's parameters, which are found by their memory.
        """
        names = {value.data_ptr(): name for name, value in base.parameters.items()}
        start, change = {}, {}
        for own, value in base.network.named_parameters(remove_duplicate=False):  # tied weights under every name
            name = names.get(value.data_ptr())
            if name is None:
                continue  # the adapter's own
            start[own] = value.detach().to(torch.promote_types(value.dtype, torch.float32))
            difference = _subtract(base, tuned, name, start[own])
            if bool(difference.any()):
                change[own] = difference
        owners = {name.rpartition(".")[0] for name in change}
        leaves = {name: module for name, module in base.network.named_modules() if name in owners}
        heads = {
            id(base.network.get_input_embeddings()): Module(None, "embedding"),
            id(base.network.get_output_embeddings()): Module(None, "unembedding"),
        }
        of_leaf = {name: heads.get(id(module)) or _find_module(name) for name, module in leaves.items()}
        switches = _find_switches(base) if change else ()
        other = {Module(None, "other")} if switches else set()
        modules = tuple(sorted({*of_leaf.values(), *other}, key=_order))
        columns = {name: modules.index(module) for name, module in of_leaf.items()}
        unknown = tuple(name for name, module in of_leaf.items() if module.kind == "other")
        names_of = {id(module): name for name, module in base.network.named_modules()}
        for layer in range(base.n_layers):
            if Module(layer, "attention") in modules:
                outer = names_of[id(attention_module(base.network, layer))]
                columns[outer] = modules.index(Module(layer, "attention"))
        return WeightPath(base, start, change, leaves, modules, columns, unknown, switches)

    def weights(self, at: float) -> dict[str, Tensor]:
        """Return the parameters at a point of the path, 0 for the base and 1 for the tuned model."""
        return {
            name: value + at * self.change[name] if name in self.change else value for name, value in self.start.items()
        }

    @torch.no_grad()
    def log_probs(self, batch: Batch, counted: Tensor, at: float) -> Tensor:
        """Return log-probabilities [texts, seq - 1] of the tokens after the first, 0 where `counted` is not set."""
        with self.base.selected():
            return self._select_log_probs(self._run(batch, self.weights(at)), batch, counted)

    def differentiate(self, batch: Batch, counted: Tensor, at: float, *, same_position: bool = False) -> Tensor:
        """Return the derivative of the log-likelihoods along the path [paths, texts, seq, modules], float64.

        `counted` [texts, seq] marks the tokens whose log-probabilities add up; parts stand at the positions that were
        written to. The paths are the full one and, on demand, that on the same position. Raises DataError where a
        gradient is not finite.
        """
        tally, weights = Tally(batch, self.modules, (FULL, SAME_POSITION)[: 1 + same_position]), self.weights(at)

        def watch(stack: ExitStack, tally: Tally) -> None:
            self._watch(stack, tally, weights)

        self._run_passes(tally, batch, counted, weights, watch)
        return tally.credits

    def observe(self, batch: Batch, counted: Tensor, weights: Mapping[str, Tensor], watch: Watch) -> None:
        """Run the passes of both paths at some weights, with the hooks that `watch` puts on the network alone."""
        self._run_passes(Tally(batch, (), (FULL, SAME_POSITION)), batch, counted, weights, watch)

    def _run_passes(
        self, tally: Tally, batch: Batch, counted: Tensor, weights: Mapping[str, Tensor], watch: Watch
    ) -> None:
        """Run a pass forward, and one backward for each kind of path; the hooks stay until the first has ended."""
        with self.base.selected(), torch.enable_grad(), ExitStack() as stack:
            self._cut_keys_and_values(stack, tally)
            watch(stack, tally)
            heads = self._split_at_head(stack)
            logits = self._run(batch, weights)
            stack.close()  # the backward pass calls modules again, which must not be watched
            loss = self._select_log_probs(logits, batch, counted).sum()
            if loss.requires_grad:
                tally.run_backward(loss, heads)

    def _run(self, batch: Batch, weights: Mapping[str, Tensor]) -> Tensor:
        named = {name: weights[name] for name, _ in self.base.network.named_parameters() if name in weights}
        inputs = self.base.inputs(batch.input_ids, batch.attention_mask)
        logits: Tensor = functional_call(self.base.network, named, kwargs=inputs | {"use_cache": False}).logits
        return logits[..., : self.base.d_vocab]

    def _select_log_probs(self, logits: Tensor, batch: Batch, counted: Tensor) -> Tensor:
        ids = batch.input_ids[:, 1:, None].to(logits.device)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        chosen = logits[:, :-1].log_softmax(-1).gather(-1, ids).squeeze(-1)
        return torch.where(counted[:, 1:].to(logits.device), chosen, 0.0).double()

    def _watch(self, stack: ExitStack, tally: Tally, weights: Mapping[str, Tensor]) -> None:
        """Hook what changed until the stack closes; on the same position attention modules are watched as a whole."""
        attention = self._attention if SAME_POSITION in tally.paths else {}
        for name, module in self.leaves.items():
            is_inside = any(name.startswith(f"{outer}.") for outer in attention)
            paths = (FULL,) if is_inside else tally.paths
            hook = partial(self._on_output, tally, weights, name, paths, is_leaf=True)
            stack.callback(module.register_forward_hook(hook, with_kwargs=True).remove)
        for name in attention:
            if name in self.columns:
                module = self.base.network.get_submodule(name)
                hook = partial(self._on_output, tally, weights, name, (SAME_POSITION,), is_leaf=False)
                stack.callback(module.register_forward_hook(hook, with_kwargs=True).remove)

    def _cut_keys_and_values(self, stack: ExitStack, tally: Tally) -> None:
        """Hook keys and values, which are constants on the same position, until the stack closes."""
        if SAME_POSITION not in tally.paths:
            return
        for name, keys_and_values in self._attention.items():
            module = self.base.network.get_submodule(name)
            for leaf, queries in keys_and_values.items():
                cut = partial(cut_gradient, tally, queries)
                stack.callback(module.get_submodule(leaf).register_forward_hook(cut).remove)

    def _on_output(
        self,
        tally: Tally,
        weights: Mapping[str, Tensor],
        name: str,
        paths: tuple[int, ...],
        module: nn.Module,
        args: Any,
        kwargs: Any,
        output: Any,
        *,
        is_leaf: bool,
    ) -> Any:
        """Watch what a module returns; how tuning moves it is computed once for all paths."""
        call = Call(module, name, tree_map(detach, args), tree_map(detach, kwargs))
        if is_leaf:
            move = cache(partial(self.move, call, weights))
            if paths != tally.paths and Leaf.is_known(module):  # inside attention, which moves as a whole too
                tally.leaves.append(Leaf(module, output.detach(), move))
        else:
            move = cache(partial(self.move_whole, call, weights, tally.leaves))
        return tally.watch(output, Watched(name, self.columns[name], paths, move))

    def _split_at_head(self, stack: ExitStack) -> list[Tensor]:
        """Return a list that gets the unembedding's input when the network runs, a tensor that no hook is on."""
        found: list[Tensor] = []

        def keep(_: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
            if not args or not args[0].requires_grad:
                return None
            found[:] = [args[0].view_as(args[0])]
            return (found[0], *args[1:])

        head = self.base.network.get_output_embeddings()
        if head is not None:
            stack.callback(head.register_forward_pre_hook(keep).remove)
        return found

    @cached_property
    def _attention(self) -> dict[str, dict[str, Tensor]]:
        """Which columns of attention's linear layers are queries, by attention module and layer.

        Found by what they do: a query acts on its own position alone, so that the output at the second position has no
        gradient with respect to a query at the first.
        """
        network, calls = self.base.network, dict[str, Call]()
        modules = {id(module): name for name, module in network.named_modules()}
        with self.base.selected(), torch.no_grad(), ExitStack() as stack:
            for layer in range(self.base.n_layers):
                module = attention_module(network, layer)
                name = modules[id(module)]

                def note(module: nn.Module, args: Any, kwargs: Any, name: str = name) -> None:
                    calls[name] = Call(module, name, args, kwargs)

                stack.callback(module.register_forward_pre_hook(note, with_kwargs=True).remove)
            ids = torch.arange(4)[None] % self.base.d_vocab
            self.base.forward(ids, torch.ones_like(ids), use_cache=False)
            stack.close()
            return {name: call.find_queries() for name, call in calls.items()}

    @torch.no_grad()
    def move_whole(self, call: Call, weights: Mapping[str, Tensor], leaves: Sequence[Leaf]) -> list[Tensor]:
        """Return the derivatives of a module's outputs along the path, all parameters inside moving.

        `leaves` are the linear layers of the forward pass whose outputs and moves are known, which saves most of it.
        """
        inside = set(call.module.modules())
        known = [leaf for leaf in leaves if leaf.module in inside]
        owned = {id(value) for leaf in known for value in leaf.module.parameters(recurse=False)}
        names = call.parameter_names()
        values = {key: weights[name] for key, name in names.items() if name in weights}
        change = {
            key: self.change[names[key]]
            for key, value in call.module.named_parameters()
            if names[key] in self.change and id(value) not in owned
        }
        try:
            return assemble_moves(call.run, values, change, known)
        except NotImplementedError:  # an operation without forward differentiation
            return self.move(call, weights, is_leaf=False)

    @torch.no_grad()
    def move(self, call: Call, weights: Mapping[str, Tensor], *, is_leaf: bool = True) -> list[Tensor]:
        """Return the derivatives of a module's outputs along the path, its inputs held fixed.

        Of a leaf its own parameters move, of other modules all inside. Linear layers and embeddings are linear in their
        parameters, so that their derivative is what the change itself gives.
        """
        module, inside = call.module, call.parameter_names()
        own = {key: inside[key] for key, _ in module.named_parameters(recurse=not is_leaf)}
        change = {key: self.change[name] for key, name in own.items() if name in self.change}
        if type(module) in (nn.Linear, Conv1D, nn.Embedding) and len(call.args) == 1 and not call.kwargs:
            inputs, weight = call.args[0], change.get("weight")
            if weight is None:
                return [change["bias"].expand(*inputs.shape[:-1], -1)]
            if isinstance(module, nn.Embedding):
                return [F.embedding(inputs, weight)]
            return [F.linear(inputs, weight if isinstance(module, nn.Linear) else weight.T, change.get("bias"))]
        now = {key: weights[name] for key, name in inside.items() if name in weights}
        fixed = {key: value for key, value in now.items() if key not in change}
        with differentiating_forwards():
            moving = {key: now[key] for key in change}
            run = partial(call.run_changed, fixed)
            try:
                moved: list[Tensor] = jvp(run, (moving,), (change,))[1]
            except NotImplementedError:  # an operation without forward differentiation, as experts' grouped products
                moved = differentiate_twice(run, moving, change)
        return moved


def _find_switches(model: LanguageModel) -> tuple[str, ...]:
    """Name the modules among whose outputs are whole numbers."""
    found: list[str] = []

    def look(name: str, _: nn.Module, __: Any, output: Any) -> None:
        if any(isinstance(value, Tensor) and value.dtype == torch.int64 for value in tree_leaves(output)):
            found.append(name)

    ids = torch.arange(4)[None] % model.d_vocab
    with model.selected(), torch.no_grad(), ExitStack() as stack:
        for name, module in model.network.base_model.named_modules():
            if name:
                stack.callback(module.register_forward_hook(partial(look, name)).remove)
        model.forward(ids, torch.ones_like(ids), use_cache=False)
    return tuple(found)


def _subtract(base: LanguageModel, tuned: LanguageModel, name: str, before: Tensor) -> Tensor:
    """Return tuned minus base of a parameter; 0 in rows of tokens that the pair does not share. Raises ModelError."""
    after = tuned.parameters.get(name)
    if after is None or (after.shape != before.shape and not _are_rows_of_tokens(base, after.shape, before.shape)):
        raise ModelError(f"{tuned.name}: {name} is missing or of another shape than in {base.name}")
    if after.shape == before.shape:
        return after.detach().to(before) - before
    difference, shared = torch.zeros_like(before), slice(base.d_vocab)
    difference[shared] = after.detach()[shared].to(before) - before[shared]
    return difference


def _are_rows_of_tokens(base: LanguageModel, after: torch.Size, before: torch.Size) -> bool:
    """Whether two shapes differ in their first size alone, and both have rows for all tokens that the pair shares."""
    return len(after) == len(before) and after[1:] == before[1:] and min(after[0], before[0]) >= base.d_vocab


def _find_module(name: str) -> Module:
    """Name the module that a leaf belongs to, by the leaf's name."""
    place = place_parameter(name)
    if place is not None:
        layer, group = place
        return Module(layer, group if group in ("attention", "mlp", "norm") else "other")  # type: ignore[arg-type]
    last = name.rpartition(".")[2]
    if "norm" in last or last.startswith("ln"):
        return Module(None, "final_norm")
    return Module(None, "embedding" if "embed" in last or last in ("wpe", "wte") else "other")


def _order(module: Module) -> tuple[int, int, str]:
    """Order modules as data flows: the embedding, the layers, the final norm, the unembedding."""
    before = module.kind == "embedding"
    return (0 if before else 1 if module.layer is not None else 2, module.layer or 0, module.kind)
