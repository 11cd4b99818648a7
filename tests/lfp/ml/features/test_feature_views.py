"""Logits a feature moves against derivatives of the real model; tokens it fires on; the map."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from lfp.ml.features.display import logit_tokens, sampled_tokens
from lfp.ml.features.examples import Examples, no_examples
from lfp.ml.models.loading import LanguageModel, load_model

FINAL_NORM = {
    "gpt_neox": "gpt_neox.final_layer_norm",
    "gpt_neo": "transformer.ln_f",
    "gemma": "model.norm",
    "llama": "model.norm",
}
DECODERS = torch.nn.functional.normalize(torch.randn(600, 32, generator=torch.Generator().manual_seed(1)), dim=1)
"""More rows than are worked on at once."""


@pytest.fixture(scope="module", params=FINAL_NORM)
def model(
    request: pytest.FixtureRequest, model_builder: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> LanguageModel:
    """One whose final norm has a gain worth folding in; a new model's is all ones."""
    folder = model_builder(tmp_path_factory.mktemp("views"), architecture=request.param)
    plain = AutoModelForCausalLM.from_pretrained(folder)
    norm = plain.get_submodule(FINAL_NORM[request.param])
    norm.weight.data = torch.randn(32, generator=torch.Generator().manual_seed(2))
    plain.save_pretrained(folder)
    return load_model(str(folder))


def true_logits(model: LanguageModel, row: Tensor) -> Tensor:
    """How the logits of the model as loaded by Hugging Face change, centred, when a residual moves along `row`.

    At a residual of unit variance, at right angles to the row and of mean 0, where the norm's own denominator is still.
    """
    plain = AutoModelForCausalLM.from_pretrained(model.name)
    norm = plain.get_submodule(FINAL_NORM[plain.config.model_type])
    across = torch.randn(32, generator=torch.Generator().manual_seed(3))
    basis = torch.linalg.qr(torch.stack([row, torch.ones(32), across], dim=1))[0]
    residual = basis[:, 2] * 32**0.5
    up, down = (plain.get_output_embeddings()(norm(residual + step * row)) for step in (0.05, -0.05))
    change = (up - down) / 0.1
    return change - change.mean()


def test_logits_are_what_the_model_makes_of_a_row(model: LanguageModel) -> None:
    raised, lowered = logit_tokens(model, DECODERS, n=5)
    assert len(raised) == len(lowered) == 600
    for feature in (0, 511, 512, 599):
        logits = true_logits(model, DECODERS[feature]).detach()
        order = logits.argsort(descending=True)
        for found, ids in ((raised[feature], order[:5]), (lowered[feature], order.flip(0)[:5])):
            assert [shown["token"] for shown in found] == [model.tokenizer.decode([token]) for token in ids.tolist()]
            np.testing.assert_allclose([shown["value"] for shown in found], logits[ids].tolist(), rtol=1e-3, atol=3e-4)


def test_raised_logits_come_largest_first_and_lowered_ones_lowest_first(model: LanguageModel) -> None:
    raised, lowered = logit_tokens(model, DECODERS[:3], n=366)
    for up, down in zip(raised, lowered, strict=True):
        values = [shown["value"] for shown in up]
        assert values == sorted(values, reverse=True)
        assert [shown["value"] for shown in down] == pytest.approx(values[::-1])
        assert sum(values) == pytest.approx(0.0, abs=1e-3)


def sample(features: list[int], token_ids: list[int], activations: list[float]) -> Examples:
    ints, hashes = np.zeros(len(features), np.int64), np.zeros(len(features), np.uint64)
    of, ids = np.array(features, np.int64), np.array(token_ids, np.int64)
    return Examples(of, hashes, np.array(activations, np.float32), ints, ints, ids, hashes, no_examples(1).windows)


def test_tokens_are_told_by_their_share_of_the_activation(neox: LanguageModel) -> None:
    decode = neox.tokenizer.decode
    found = sampled_tokens(
        sample([0, 0, 0, 0, 2, 2], [40, 41, 40, 42, 41, 40], [1.0, 5.0, 3.0, 1.0, 0.5, 0.5]), 4, neox.tokenizer, n=2
    )
    assert found == [
        [{"token": decode([41]), "value": 0.5}, {"token": decode([40]), "value": 0.4}],
        [],
        [{"token": decode([40]), "value": 0.5}, {"token": decode([41]), "value": 0.5}],
        [],
    ]


def test_shares_of_all_tokens_add_up(neox: LanguageModel) -> None:
    rng = np.random.default_rng(0)
    features, ids, values = rng.integers(3, size=90), rng.integers(60, size=90), rng.exponential(size=90)
    found = sampled_tokens(sample(features.tolist(), ids.tolist(), values.tolist()), 3, neox.tokenizer, n=60)
    for feature, tokens in enumerate(found):
        assert sum(shown["value"] for shown in tokens) == pytest.approx(1.0)
        assert len(tokens) == len(set(ids[features == feature].tolist()))
        shares = [shown["value"] for shown in tokens]
        assert shares == sorted(shares, reverse=True)


def test_no_sample_gives_no_tokens(neox: LanguageModel) -> None:
    assert sampled_tokens(sample([], [], []), 2, neox.tokenizer, n=3) == [[], []]
