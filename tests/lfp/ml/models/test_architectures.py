"""Sites, divergence by group and the final norm of every architecture."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor

from lfp.ml.features.display import logit_tokens, probe_norm
from lfp.ml.models.divergence import layer_divergence
from lfp.ml.models.loading import LanguageModel, load_model
from lfp.util.types import SITES, Place
from tests.lfp.ml.conftest import build_model

Pair = tuple[LanguageModel, LanguageModel]
IDS = torch.tensor([[1, 5, 9, 40, 7, 0], [3, 3, 80, 2, 11, 12]])
MLP = re.compile(r"\.(mlp|ffn|fc1|fc2|block_sparse_moe)\.")


def read_sites(model: LanguageModel) -> dict[Place, Tensor]:
    kept: dict[Place, Tensor] = {}
    places = [Place(layer, site) for layer in (0, 1) for site in SITES]
    with torch.no_grad(), model.hooks({place: partial(kept.__setitem__, place) for place in places}):
        model.forward(IDS, torch.ones_like(IDS))
    return kept


def check_writes(model: LanguageModel) -> None:
    """What a layer adds to the residual stream is what its attention and its MLP write."""
    kept = read_sites(model)
    assert all(value.shape == (*IDS.shape, model.d_model) for value in kept.values())
    factor = getattr(model.network.config, "residual_multiplier", 1.0)  # Granite scales what both write
    written = factor * (kept[Place(1, "attn_out")] + kept[Place(1, "mlp_out")])
    change = kept[Place(1, "resid_post")] - kept[Place(0, "resid_post")]
    torch.testing.assert_close(change, written, atol=2e-5, rtol=1e-4)
    assert min(value.abs().max().item() for value in kept.values()) > 1e-3


def test_a_layer_adds_what_its_attention_and_mlp_write(every_pair: Pair) -> None:
    check_writes(every_pair[0])


@pytest.mark.parametrize(
    "changes",
    [{"parallel_attn": False}, {"new_decoder_architecture": True, "num_kv_heads": 2}, {"alibi": True, "bias": True}],
)
def test_every_falcon_adds_what_it_writes(tmp_path: Path, changes: dict[str, object]) -> None:
    check_writes(load_model(str(build_model(tmp_path, architecture="falcon", **changes))))


def test_divergence_is_split_by_group(every_pair: Pair) -> None:
    base, tuned = every_pair
    found = layer_divergence(base, tuned)
    assert [row.layer for row in found] == list(range(base.n_layers))
    for row in found:
        before = {key: value for key, value in base.parameters.items() if f".{row.layer}." in key}
        change = {key: (tuned.parameters[key] - value).norm().item() for key, value in before.items()}
        assert row.divergence_mlp == pytest.approx(sum(value for key, value in change.items() if MLP.search(key)))
        assert row.divergence_mlp > 0 and row.divergence_by_group["attention"] > 0
        assert set(row.divergence_by_group) == {"attention", "mlp", "norm"}
        assert row.divergence == pytest.approx(sum(change.values()))


@torch.no_grad()
def test_the_final_norm_is_found_with_its_gain(every_pair: Pair) -> None:
    """A feature's logits are those by which a small step along its decoder row moves the network's, up to scale."""
    model = every_pair[0]
    body, width = model.network.get_decoder(), model.d_model
    states: list[Tensor] = []
    with model.hooks({Place(model.n_layers - 1, "resid_post"): states.append}):
        model.forward(IDS[:1], torch.ones_like(IDS[:1]))
    state = states[0][0, -1].double()
    norm = [module for name, module in body.named_children() if "norm" in name or name.startswith("ln_")][-1].double()
    row = torch.randn(width, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    head = model.network.get_output_embeddings().weight.double()
    moved = (norm(state + 1e-4 * row) - norm(state - 1e-4 * row)) / 2e-4  # along the row, and back along the state
    is_centred = probe_norm(norm.float(), width)[1]
    centred = state - state.mean() if is_centred else state
    size = centred.pow(2).mean().sqrt()
    flat = row - row.mean() if is_centred else row
    moved += norm_gain(norm.double(), width) * centred * (flat @ centred) / (width * size**3)
    norm.float()
    expected = head @ moved * size
    expected = (expected - expected.mean())[: len(model.tokenizer)]
    raised, lowered = logit_tokens(model, row.float()[None], n=5)
    assert [each["value"] for each in raised[0]] == pytest.approx(expected.topk(5).values.tolist(), rel=2e-3)
    assert [each["value"] for each in lowered[0]] == pytest.approx(
        expected.topk(5, largest=False).values.tolist(), rel=2e-3
    )


def norm_gain(norm: torch.nn.Module, width: int) -> Tensor:
    """The gain by the weights, as each kind of norm has it."""
    weight = dict(norm.named_parameters()).get("weight", torch.ones(width, dtype=torch.float64))
    return weight + 1.0 if type(norm).__name__.startswith("Gemma") else weight
