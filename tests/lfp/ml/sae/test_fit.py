"""A dictionary made elsewhere is measured first: one that cannot be of its place is an error, a doubtful one a note."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from lfp.errors import DataError, ModelError
from lfp.ml.sae.autoencoders import SAES, Normalize, Sae, SaeInfo
from lfp.ml.sae.fit import check_fit
from lfp.ml.sae.readers.stored import Weights, scale_inputs

D_IN = 8
ACTIVATIONS = 40 * torch.randn(500, D_IN, generator=torch.Generator().manual_seed(4))


def both_signs(threshold: float = 0.0, normalize: Normalize = "none", **changes: Any) -> Sae:
    """A dictionary of the axes and their opposites, which rebuilds every input beyond the threshold."""
    info = SaeInfo(0, 2 * D_IN, D_IN, 1.0, None, 0, "tuned", "jumprelu", normalize=normalize, source="org/axes")
    sae = SAES["jumprelu"](info).requires_grad_(False)
    axes = torch.cat([torch.eye(D_IN), -torch.eye(D_IN)])
    sae.encoder.copy_(axes)
    sae.W_dec.copy_(axes)
    sae.get_parameter("threshold").fill_(threshold)
    for name, value in changes.items():
        sae.get_parameter(name).copy_(value)
    return sae


def test_a_dictionary_that_rebuilds_its_place_passes_without_a_note() -> None:
    fit = check_fit(both_signs(threshold=20.0), ACTIVATIONS)
    assert fit.note is not None and "active per token" in fit.note  # half of a complete basis: dense, not poor
    sparse = check_fit(both_signs(threshold=60.0), ACTIVATIONS)
    assert sparse.measured.l0 < 4 and sparse.measured.fvu == pytest.approx(0.5, abs=0.05)


def test_the_figures_are_those_of_the_quality_on_the_same_tokens() -> None:
    fit = check_fit(both_signs(), ACTIVATIONS)
    assert fit.measured.fvu == pytest.approx(0.0, abs=1e-9)
    assert fit.measured.l0 == pytest.approx(D_IN) and fit.measured.dead_fraction == 0.0


def test_a_dictionary_that_never_fires_is_an_error() -> None:
    with pytest.raises(
        ModelError, match=r"^org/axes: no feature of layer 0 fires: wrong scale, site or model \(.*500 tok"
    ):
        check_fit(both_signs(b_enc=torch.full((2 * D_IN,), -1e9)), ACTIVATIONS)


@pytest.mark.parametrize("size", [1.0, math.sqrt(D_IN)])
def test_a_factor_that_helps_is_named_and_folded_in_it_does(size: float) -> None:
    """`size` is the norm that the dictionary expects of its inputs; these are a thousandth of that."""
    inputs = ACTIVATIONS * 1e-3 * size / ACTIVATIONS.double().pow(2).sum(1).mean().sqrt().item()
    sae = both_signs(threshold=0.05 * size)
    with pytest.raises(
        ModelError, match=r"no feature .* fires: .*; with input_scale = [\d.]+ in its entry it leaves"
    ) as caught:
        check_fit(sae, inputs)
    named = re.search(r"input_scale = ([\d.]+)", str(caught.value))
    assert named is not None
    weights = Weights(sae.encoder, sae.W_dec, sae.b_enc, sae.b_dec, sae.get_parameter("threshold"))
    folded = scale_inputs(weights, float(named[1]))
    assert folded.threshold is not None
    assert check_fit(both_signs(threshold=folded.threshold[0].item()), inputs).measured.fvu < 0.01


def test_a_factor_that_would_help_is_in_the_note_where_some_features_fire() -> None:
    half = check_fit(both_signs(threshold=30.0), ACTIVATIONS * 0.3)
    assert half.note is None or "input_scale" not in half.note  # no usual factor is larger
    inputs = ACTIVATIONS / ACTIVATIONS.double().pow(2).sum(1).mean().sqrt().item()
    note = check_fit(both_signs(threshold=0.7), inputs).note
    assert note is not None and re.search(r"leaves \d+% of the variance unexplained .*; with input_scale = 2.828", note)


def test_a_dictionary_of_another_place_is_an_error() -> None:
    generator = torch.Generator().manual_seed(5)
    other = both_signs(W_dec=5 * torch.randn(2 * D_IN, D_IN, generator=generator))
    with pytest.raises(
        ModelError, match=r"further off than the mean, \d+(\.\d+)? of the variance unexplained .*: wrong site"
    ):
        check_fit(other, ACTIVATIONS)


def test_a_dictionary_of_another_scale_is_an_error_with_the_scale_to_set() -> None:
    """Its bias of half a standard deviation of what it expects is five of what it gets."""
    inputs = ACTIVATIONS / 400
    with pytest.raises(ModelError, match=r"wrong scale, site, layer or model; with input_scale = 10 in"):
        check_fit(both_signs(b_dec=torch.full((D_IN,), 0.5)), inputs)
    with pytest.raises(
        ModelError, match=r"input_scale = 20(\.\d+)? in"
    ):  # where 2 is in the entry, and in the dictionary
        check_fit(both_signs(b_dec=torch.full((D_IN,), 0.5)), inputs, input_scale=2.0)


def test_normalising_dictionaries_have_no_scale_to_try() -> None:
    with pytest.raises(ModelError, match=r"no feature of layer 0 fires: .*; pass a dictionary of that place"):
        check_fit(both_signs(threshold=1e9, normalize="layer_norm"), ACTIVATIONS)


@pytest.mark.parametrize("values", [torch.zeros(50, D_IN), torch.ones(50, D_IN)])
def test_activations_without_variance_are_named(values: Tensor) -> None:
    with pytest.raises(DataError, match="are all alike"):
        check_fit(both_signs(), values)


def test_a_long_name_of_a_release_is_the_subject_of_the_note() -> None:
    sae = both_signs()
    sae.info = replace(sae.info, source="gemma-scope-2b-pt-res/layer_3")
    note = check_fit(sae, ACTIVATIONS).note
    assert note is not None and note.startswith("The dictionary gemma-scope-2b-pt-res/layer_3 has 50% of its features")
