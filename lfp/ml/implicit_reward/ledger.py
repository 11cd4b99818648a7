"""Split the implicit reward exactly over the modules that tuning changed: the ledger of a pair of models.

For weights theta_a = theta_0 + a (theta_1 - theta_0) between base (0) and tuned (1), the implicit reward of a text is

    r = log p_1 - log p_0 = integral over a from 0 to 1 of < d log p_a / d theta, theta_1 - theta_0 > da,

integrated gradients along the path of weights; the integrand is a sum over parameters, so r splits over modules. A
module's part at a position is its output's gradient times the derivative of that output in the direction of tuning,
with the module's input held fixed. The integral is by Gauss-Legendre nodes, doubled until the sum is close enough.

Two kinds of path. The full path counts what a module writes at a position through every later layer and position. On
the same position, keys and values are constants, so that what is written at a position counts for the prediction of the
next token alone; the rest of a token's implicit reward came through attention from elsewhere.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, jvp
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._pytree import tree_map
from transformers.pytorch_utils import Conv1D

from lfp.errors import DataError, ModelError
from lfp.ml.models.activations import model_batches
from lfp.ml.models.divergence import place_parameter
from lfp.ml.models.loading import LanguageModel
from lfp.ml.models.sites import attention_module
from lfp.ml.models.tokenization import Batch, TokenizedText
from lfp.util.types import Floats

Path = Literal["full", "same_position"]
Kind = Literal["embedding", "attention", "mlp", "norm", "final_norm", "unembedding", "other"]


class Module(NamedTuple):
    """A part of the model that credit is given to; `layer` is None outside the layers."""

    layer: int | None
    kind: Kind


@dataclass(frozen=True, eq=False)
class ModuleCredits:
    """The split of the implicit reward of texts over modules, in nats.

    `credits` [texts, modules] sum over modules to `reward` [texts] up to `error` [texts], the share of the sum of
    absolute credits that is missed. They are of the full path.
    """

    modules: tuple[Module, ...]
    credits: Floats
    reward: Floats
    error: Floats
    nodes: int
    """Nodes of the quadrature that the last batch needed."""


def module_credits(
    base: LanguageModel,
    tuned: LanguageModel,
    texts: Sequence[TokenizedText],
    *,
    batch_texts: int = 8,
    prepend_bos: bool = True,
    tolerance: float = 1e-3,
    max_nodes: int = 64,
) -> ModuleCredits:
    """Split the implicit reward of each text over the modules that differ between base and tuned.

    A batch's nodes are doubled, from those of the batch before, until every text's sum is within `tolerance` of the sum
    of its absolute credits, or `max_nodes` are reached; each takes three forward passes' time. Raises ModelError where
    the models' parameters differ in shape, DataError where a gradient is not finite.
    """
    path = _WeightPath.between(base, tuned)
    credits, rewards, nodes = [np.zeros((0, len(path.modules)))], [np.zeros(0)], 2
    for batch in model_batches(base, texts, batch_texts=batch_texts, prepend_bos=prepend_bos):
        reward = (_log_probs(tuned, batch) - _log_probs(base, batch)).sum(1).cpu().numpy()
        found = path.integrate(batch, nodes).sum(1)
        while nodes < max_nodes and relative_error(found, reward).max() > tolerance:
            nodes = min(2 * nodes, max_nodes)
            found = path.integrate(batch, nodes).sum(1)
        if not np.isfinite(found).all():
            text, module = np.argwhere(~np.isfinite(found))[0]
            raise DataError(
                f"text {batch.rows[text]}: the credit of {path.modules[module]} is not finite; check both models'"
                " weights there"
            )
        credits.append(found)
        rewards.append(reward)
    split, reward = np.concatenate(credits), np.concatenate(rewards)
    return ModuleCredits(path.modules, split, reward, relative_error(split, reward), nodes)


@dataclass(frozen=True, eq=False)
class PositionCredits:
    """The same-position part of each token's implicit reward, by module, in nats.

    For every text, `credits` [tokens, modules] and `reward` [tokens]; both NaN where nothing precedes a token.
    """

    modules: tuple[Module, ...]
    credits: tuple[Floats, ...]
    reward: tuple[Floats, ...]


def position_credits(
    base: LanguageModel,
    tuned: LanguageModel,
    texts: Sequence[TokenizedText],
    *,
    nodes: int,
    batch_texts: int = 8,
    prepend_bos: bool = True,
) -> PositionCredits:
    """Split each token's implicit reward over modules on the same position.

    `nodes` are those that `module_credits` needed. What is missing came through attention from elsewhere. Raises what
    `module_credits` raises.
    """
    path = _WeightPath.between(base, tuned)
    credits, rewards = [], []
    for batch in model_batches(base, texts, batch_texts=batch_texts, prepend_bos=prepend_bos):
        found = path.integrate(batch, nodes, "same_position")
        reward = (_log_probs(tuned, batch) - _log_probs(base, batch)).cpu().numpy()
        for row, text in enumerate(batch.rows):
            span = slice(batch.n_bos, batch.n_bos + len(texts[text].token_ids))
            undefined = np.full(1, np.nan)  # a write at a position is about the token after it
            rewards.append(np.concatenate([undefined, reward[row]])[span])
            credits.append(np.concatenate([np.full_like(found[row, :1], np.nan), found[row, :-1]])[span])
    return PositionCredits(path.modules, tuple(credits), tuple(rewards))


def relative_error(credits: Floats, reward: Floats) -> Floats:
    """Return |sum of credits - reward| over the sum of absolute credits, for each text; 0 where all are 0."""
    size = np.abs(credits).sum(1)
    return np.abs(credits.sum(1) - reward) / np.where(size > 0, size, 1.0)


@dataclass(frozen=True, eq=False)
class _WeightPath:
    """The straight path of weights from base to tuned.

    `start` and `change` hold parameters by name, in float32; `leaves` the modules that own a parameter that changed, by
    name, and `columns` their places in `modules`.
    """

    base: LanguageModel
    start: Mapping[str, Tensor]
    change: Mapping[str, Tensor]
    leaves: Mapping[str, nn.Module]
    modules: tuple[Module, ...]
    columns: Mapping[str, int]
    """Also of the attention modules that contain a leaf."""

    @staticmethod
    def between(base: LanguageModel, tuned: LanguageModel) -> _WeightPath:
        """Find what changed. Raises ModelError naming the first parameter of another shape.

        The network of an adapter has other names for its base's parameters, which are found by their memory.
        """
        names = {value.data_ptr(): name for name, value in base.parameters.items()}
        start, change = {}, {}
        for own, value in base.network.named_parameters(remove_duplicate=False):  # tied weights under every name
            name = names.get(value.data_ptr())
            if name is None:
                continue  # the adapter's own
            after = tuned.parameters.get(name)
            if after is None or after.shape != value.shape:
                raise ModelError(f"{tuned.name}: {name} is missing or of another shape than in {base.name}")
            start[own] = value.detach().float()
            difference = after.detach().to(value.device).float() - start[own]
            if bool(difference.any()):
                change[own] = difference
        owners = {name.rpartition(".")[0] for name in change}
        leaves = {name: module for name, module in base.network.named_modules() if name in owners}
        heads = {
            id(base.network.get_input_embeddings()): Module(None, "embedding"),
            id(base.network.get_output_embeddings()): Module(None, "unembedding"),
        }
        of_leaf = {name: heads.get(id(module)) or _find_module(name) for name, module in leaves.items()}
        modules = tuple(sorted(set(of_leaf.values()), key=_order))
        columns = {name: modules.index(module) for name, module in of_leaf.items()}
        names_of = {id(module): name for name, module in base.network.named_modules()}
        for layer in range(base.n_layers):
            if Module(layer, "attention") in modules:
                outer = names_of[id(attention_module(base.network, layer))]
                columns[outer] = modules.index(Module(layer, "attention"))
        return _WeightPath(base, start, change, leaves, modules, columns)

    def integrate(self, batch: Batch, nodes: int, path: Path = "full") -> Floats:
        """Return credits [texts, seq, modules] at the positions written to, by quadrature with that many nodes."""
        at, weights = np.polynomial.legendre.leggauss(nodes)
        total = np.zeros((*batch.input_ids.shape, len(self.modules)))
        for node, weight in zip(at.tolist(), weights.tolist(), strict=True):
            total += weight / 2.0 * self._differentiate(batch, (1.0 + node) / 2.0, path)
        return total

    def _differentiate(self, batch: Batch, at: float, path: Path) -> Floats:
        """Return the integrand at one node: the derivative of the log-likelihoods [texts, seq, modules]."""
        weights = {
            name: value + at * self.change[name] if name in self.change else value for name, value in self.start.items()
        }
        shape = batch.input_ids.shape
        credits = torch.zeros(*shape, len(self.modules), dtype=torch.float64)
        attention = self._attention if path == "same_position" else {}

        def give_credit(column: int, move: Callable[[], Tensor], gradient: Tensor) -> None:
            parts = (gradient.double() * move()).reshape(*shape, -1)  # OPT flattens batch and sequence
            credits[..., column] += parts.sum(-1).cpu()

        def watch_leaf(name: str, module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
            if not output.requires_grad:
                output = output.detach().requires_grad_()
            move = partial(self._move_leaf, name, module, inputs[0].detach(), weights)
            output.register_hook(partial(give_credit, self.columns[name], move))
            return output

        def watch_attention(name: str, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            call = _Call(module, name, tree_map(_detach, args), tree_map(_detach, kwargs))
            written = output[0] if isinstance(output, tuple) else output
            written.register_hook(partial(give_credit, self.columns[name], partial(self._move_module, call, weights)))

        with self.base.selected(), torch.enable_grad(), ExitStack() as stack:
            for name, module in self.leaves.items():
                if not any(name.startswith(f"{outer}.") for outer in attention):
                    stack.callback(module.register_forward_hook(partial(watch_leaf, name)).remove)
            for name, keys_and_values in attention.items():
                module = self.base.network.get_submodule(name)
                if name in self.columns:
                    hook = module.register_forward_hook(partial(watch_attention, name), with_kwargs=True)
                    stack.callback(hook.remove)
                for leaf, queries in keys_and_values.items():
                    cut = partial(_cut_gradient, queries)
                    stack.callback(module.get_submodule(leaf).register_forward_hook(cut).remove)
            named = {name: weights[name] for name, _ in self.base.network.named_parameters() if name in weights}
            inputs = self.base.inputs(batch.input_ids, batch.attention_mask)
            logits = functional_call(self.base.network, named, kwargs=inputs | {"use_cache": False}).logits
            stack.close()  # the backward pass calls modules again, which must not be watched
            if logits.requires_grad:
                _select_log_probs(logits, batch).sum().backward()
        return credits.numpy()

    @cached_property
    def _attention(self) -> dict[str, dict[str, Tensor]]:
        """Which columns of attention's linear layers are queries, by attention module and layer.

        Found by what they do: a query acts on its own position alone, so that the output at the second position has no
        gradient with respect to a query at the first.
        """
        network, calls = self.base.network, dict[str, _Call]()
        modules = {id(module): name for name, module in network.named_modules()}
        with self.base.selected(), torch.no_grad(), ExitStack() as stack:
            for layer in range(self.base.n_layers):
                module = attention_module(network, layer)
                name = modules[id(module)]

                def note(module: nn.Module, args: Any, kwargs: Any, name: str = name) -> None:
                    calls[name] = _Call(module, name, args, kwargs)

                stack.callback(module.register_forward_pre_hook(note, with_kwargs=True).remove)
            ids = torch.arange(4)[None] % self.base.d_vocab
            self.base.forward(ids, torch.ones_like(ids), use_cache=False)
            stack.close()
            return {name: call.find_queries() for name, call in calls.items()}

    def _move_module(self, call: _Call, weights: Mapping[str, Tensor]) -> Tensor:
        """Return the derivative of a module's output along the path, its inputs held fixed."""
        own = {key: f"{call.name}.{key}" for key, _ in call.module.named_parameters()}
        own = {key: full for key, full in own.items() if full in weights}
        now = {key: weights[full] for key, full in own.items()}
        change = {key: self.change.get(full, torch.zeros_like(weights[full])) for key, full in own.items()}
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), warnings.catch_warnings():
            # torch 2.13 compiles formulas of derivatives at the first call, by a function that it deprecates
            warnings.filterwarnings("ignore", "`torch.jit", DeprecationWarning)
            return jvp(call.run, (now,), (change,))[1]

    def _move_leaf(self, name: str, module: nn.Module, inputs: Tensor, weights: Mapping[str, Tensor]) -> Tensor:
        """Return the derivative of a leaf's output along the path, its inputs held fixed.

        Linear layers, embeddings and norms are affine in their own parameters, so that a difference is a derivative;
        it is taken in double precision, since the change is small beside the output.
        """
        own = {key: f"{name}.{key}" for key, _ in module.named_parameters(recurse=False)}
        change = {key: self.change.get(full, torch.zeros_like(self.start[full])) for key, full in own.items()}
        with torch.no_grad():
            if isinstance(module, nn.Linear):
                return F.linear(inputs, change["weight"], change.get("bias"))
            now = {key: weights[full].double() for key, full in own.items()}
            inputs = inputs.double() if inputs.is_floating_point() else inputs
            after = {key: value + change[key] for key, value in now.items()}
            outputs: list[Tensor] = [functional_call(module, values, (inputs,)) for values in (now, after)]
            return outputs[1] - outputs[0]


@dataclass(frozen=True, eq=False)
class _Call:
    """A module of a network with the arguments of a call."""

    module: nn.Module
    name: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]

    def run(self, weights: Mapping[str, Tensor]) -> Tensor:
        """Call the module with other weights; return the first part of what it returns."""
        output = functional_call(self.module, dict(weights), self.args, dict(self.kwargs))
        return output[0] if isinstance(output, tuple) else output

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
            second = self.run({})[:, 1]
            values = torch.linspace(1.0, 2.0, second.shape[-1], device=second.device)
            gradients = torch.autograd.grad((second * values).sum(), list(outputs.values()), allow_unused=True)
        masks = {
            name: (gradient[:, 0] == 0).all(0)
            for name, gradient in zip(outputs, gradients, strict=True)
            if gradient is not None
        }
        return {name: mask for name, mask in masks.items() if not bool(mask.all())}


def _cut_gradient(kept: Tensor, _: nn.Module, __: Any, output: Tensor) -> None:
    if output.requires_grad:
        output.register_hook(lambda gradient: gradient * kept)


def _detach(value: Any) -> Any:
    return value.detach() if isinstance(value, Tensor) else value


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


def _select_log_probs(logits: Tensor, batch: Batch) -> Tensor:
    """Return log-probabilities of the tokens after the first [texts, seq - 1], 0 where a token is not a text's."""
    counted = batch.text_tokens()[:, 1:].to(logits.device)
    ids = batch.input_ids[:, 1:, None].to(logits.device)
    chosen = logits[:, :-1].float().log_softmax(-1).gather(-1, ids).squeeze(-1)
    return torch.where(counted, chosen, 0.0).double()


@torch.no_grad()
def _log_probs(model: LanguageModel, batch: Batch) -> Tensor:
    return _select_log_probs(model.forward(batch.input_ids, batch.attention_mask, use_cache=False).logits, batch)
