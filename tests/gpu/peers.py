"""A training step of a top-k dictionary in other libraries, on activations in memory, for comparison."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Step = Callable[[], object]


def sparsify_step(activations: Tensor, width: int, *, k: int) -> Step:
    """Return a step of sparsify's `SparseCoder`: forward, backward, Adam, and decoder rows of unit length."""
    from sparsify import SparseCoder, SparseCoderConfig

    config = SparseCoderConfig(num_latents=width, k=min(k, width // 8))
    coder: Any = SparseCoder(activations.shape[1], config, device=activations.device)
    optimizer = torch.optim.Adam(coder.parameters(), lr=1e-3, fused=True)

    def step() -> None:
        optimizer.zero_grad()
        coder(activations).fvu.backward()
        coder.remove_gradient_parallel_to_decoder_directions()
        optimizer.step()
        coder.set_decoder_norm_to_unit_norm()

    return step


def sae_lens_step(activations: Tensor, width: int, *, k: int) -> Step:
    """Return a step of SAELens' `TopKTrainingSAE`: forward, backward and Adam."""
    from sae_lens.saes.sae import TrainStepInput
    from sae_lens.saes.topk_sae import TopKTrainingSAE, TopKTrainingSAEConfig

    config = TopKTrainingSAEConfig(
        d_in=activations.shape[1], d_sae=width, k=min(k, width // 8), device=str(activations.device)
    )
    sae: Any = TopKTrainingSAE(config)
    optimizer = torch.optim.Adam(sae.parameters(), lr=1e-3, fused=True)
    dead = torch.zeros(width, dtype=torch.bool, device=activations.device)
    batch = TrainStepInput(activations, {}, dead, 0, False)

    def step() -> None:
        optimizer.zero_grad()
        sae.training_forward_pass(batch).loss.backward()
        optimizer.step()

    return step


STEPS: dict[str, Callable[..., Step]] = {"sparsify": sparsify_step, "SAELens": sae_lens_step}
