"""Find the modules of a transformers network whose outputs are a layer's sites, and hook them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from lfp.errors import ModelError
from lfp.util.types import Place, Site

Hook = Callable[[Tensor], Tensor | None]
"""Called with a site's activations [batch, seq, d_model]; what it returns, unless None, takes their place."""

_MODULES: Mapping[Site, tuple[str, ...]] = {
    "mlp_out": ("mlp", "ffn", "feed_forward", "fc2"),  # OPT and XGLM have no module around fc1 and fc2
    "attn_out": ("self_attn", "attention", "attn", "self_attention"),
}
_ADDS_RESIDUAL: Mapping[tuple[str, Site], str] = {
    ("bloom", "mlp_out"): "mlp.dense_4h_to_h",
    ("bloom", "attn_out"): "self_attention.dense",
    ("mpt", "mlp_out"): "ffn.down_proj",
}
"""Modules that write to the residual stream where the enclosing one adds the residual stream to its output."""
_NORMS_AFTER: tuple[Mapping[Site, str], ...] = (
    {"attn_out": "post_self_attn_layernorm", "mlp_out": "post_mlp_layernorm"},  # GLM-4
    {
        "attn_out": "post_attention_layernorm",
        "mlp_out": "post_feedforward_layernorm",
    },  # Gemma 2 and 3, OLMo 2, EXAONE 4
)
"""Norms between a module and the residual stream, in layers that have both: they write what the module computed."""


def decoder_layers(network: Any) -> list[nn.Module]:
    """Return the layers of a causal language model, in order. Raises ModelError where they are not found."""
    n_layers = network.config.get_text_config().num_hidden_layers
    for module in network.base_model.modules():
        if isinstance(module, nn.ModuleList) and len(module) == n_layers:
            return list(module)
    raise ModelError(
        f"{network.config.model_type}: none of its modules is a list of {n_layers} layers; pick another architecture"
    )


def site_module(network: Any, place: Place) -> nn.Module:
    """Return the module whose output, or the first part of it, is the activation at a place. Raises ModelError."""
    layers = decoder_layers(network)
    if not 0 <= place.layer < len(layers):
        raise ModelError(f"layer {place.layer}: the model has layers 0 to {len(layers) - 1}; name one of those")
    layer = layers[place.layer]
    if place.site == "resid_post":
        return layer
    model_type = network.config.get_text_config().model_type
    exception = _ADDS_RESIDUAL.get((model_type, place.site))
    if exception is not None:
        return layer.get_submodule(exception)
    after = next((names for names in _NORMS_AFTER if all(hasattr(layer, name) for name in names.values())), None)
    if after is not None:
        return layer.get_submodule(after[place.site])
    return _find_child(layer, place, model_type)


@dataclass(frozen=True, eq=False)
class Writer:
    """What writes to the residual stream at a place: `module` computes it, and `norm`, where there is one, scales it.

    `module` is called with the arguments of `reads`, and its output, or the first part of it, is that of `writes`; both
    are `module` itself except in architectures without a module around the two. The output may include the residual
    stream, which is then an argument.
    """

    module: nn.Module
    reads: nn.Module
    writes: nn.Module
    norm: nn.Module | None

    def write(self, output: Any) -> Tensor:
        """Return what is written at the place, given the module's output."""
        found: Tensor = output[0] if isinstance(output, tuple) else output
        return found if self.norm is None else self.norm.forward(found)


class _FeedForward(nn.Module):
    """The MLP of an architecture whose layers hold its parts themselves."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.fc1, self.activation_fn, self.fc2 = layer.fc1, layer.activation_fn, layer.fc2

    def forward(self, hidden_states: Tensor) -> Tensor:
        output: Tensor = self.fc2.forward(self.activation_fn(self.fc1.forward(hidden_states)))
        return output


def find_writer(network: Any, place: Place) -> Writer:
    """Return what writes at a place. Raises ModelError for the residual stream, which no single module writes."""
    at = site_module(network, place)
    if place.site == "resid_post":
        raise ModelError(
            f"{place}: no single module writes the residual stream; pick mlp_out or attn_out, or take the difference of"
            " the two models' activations there"
        )
    layer: Any = decoder_layers(network)[place.layer]
    module = _find_child(layer, place, network.config.get_text_config().model_type)
    norm = at if at in {getattr(layer, names[place.site], None) for names in _NORMS_AFTER} else None
    if place.site == "mlp_out" and module is getattr(layer, "fc2", None):
        return Writer(_FeedForward(layer), layer.fc1, layer.fc2, norm)
    return Writer(module, module, module, norm)


def attention_module(network: Any, layer: int) -> nn.Module:
    """Return a layer's attention, which may add the residual stream to its output. Raises ModelError."""
    model_type = network.config.get_text_config().model_type
    return _find_child(decoder_layers(network)[layer], Place(layer, "attn_out"), model_type)


def _find_child(layer: nn.Module, place: Place, model_type: str) -> nn.Module:
    for name in _MODULES[place.site]:
        module = getattr(layer, name, None)
        if isinstance(module, nn.Module):
            return module
    raise ModelError(
        f"{model_type}: layer {place.layer} has no module for {place.site} (it has"
        f" {', '.join(name for name, _ in layer.named_children())}); pick another site or architecture"
    )


@contextmanager
def hook_sites(network: Any, hooks: Mapping[Place, Hook]) -> Iterator[None]:
    """Call each function on the activations at its place during the network's forward passes within the context."""
    shape: list[tuple[int, ...]] = []

    def note_shape(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        shape[:] = [tuple((args[0] if args else kwargs["input_ids"]).shape)]

    def call(hook: Hook) -> Callable[..., Any]:
        def on_output(_: nn.Module, __: Any, output: Any) -> Any:
            found = output[0] if isinstance(output, tuple) else output
            # OPT flattens batch and sequence; Falcon adds the attention's output to the MLP's in place
            changed = hook(found.view(*shape[0], found.shape[-1]).clone())
            if changed is None:
                return None
            changed = changed.to(found.dtype).view_as(found)
            return (changed, *output[1:]) if isinstance(output, tuple) else changed

        return on_output

    with ExitStack() as stack:
        handle = network.register_forward_pre_hook(note_shape, with_kwargs=True)
        stack.callback(handle.remove)
        for place, hook in hooks.items():
            stack.callback(site_module(network, place).register_forward_hook(call(hook)).remove)
        yield
