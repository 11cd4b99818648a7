"""Architectures whose norms follow attention and MLP, beside `test_architectures`: sites hold what is added."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from lfp.ml.models.sites import hook_sites
from lfp.util.types import SITES, Place

SIZES = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64, "vocab_size": 50,
    "max_position_embeddings": 32, "initializer_range": 0.3, "pad_token_id": 0,
}  # fmt: skip
HEADS = {"num_key_value_heads": 2, "head_dim": 8}
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "glm4": HEADS,
    "exaone4": HEADS | {"sliding_window_pattern": 2},
}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_residual_stream_grows_by_what_the_sites_hold(architecture: str) -> None:
    torch.manual_seed(0)
    config = AutoConfig.for_model(architecture, **SIZES, **ARCHITECTURES[architecture])
    network = AutoModelForCausalLM.from_config(config).eval()
    for name, parameter in network.named_parameters():
        if "norm" in name:
            parameter.data.uniform_(0.5, 2.0)  # a norm that is not the identity
    places = [Place(layer, site) for layer in (0, 1) for site in SITES]
    kept: dict[Place, torch.Tensor] = {}
    with torch.no_grad(), hook_sites(network, {place: _keeper(kept, place) for place in places}):
        network(torch.tensor([[3, 7, 11, 2, 9]]))
    written = kept[Place(1, "attn_out")] + kept[Place(1, "mlp_out")]
    torch.testing.assert_close(
        kept[Place(1, "resid_post")] - kept[Place(0, "resid_post")], written, atol=1e-4, rtol=1e-4
    )


def _keeper(kept: dict[Place, torch.Tensor], place: Place) -> Any:
    def keep(values: torch.Tensor) -> None:
        kept[place] = values

    return keep
