"""The autoencoders: their formula, and that nothing is lost on disk."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from lfp.errors import ModelError
from lfp.ml.sae import Dictionary, TiedReluSae, load_sae
from tests.lfp.builders import tiny_sae

WEIGHTS = "sae_weights.safetensors"
OUTPUTS = torch.randn(40, 6, generator=torch.Generator().manual_seed(9)) * 3


def unit_rows(sae: TiedReluSae) -> np.ndarray:
    rows = sae.rows.numpy().astype(float)
    return rows / np.sqrt((rows**2).sum(axis=1, keepdims=True))


def test_encoding_is_its_formula() -> None:
    sae = tiny_sae()
    expected = np.maximum(0, 0.37 * OUTPUTS.numpy() @ unit_rows(sae).T + sae.b_enc.numpy())
    assert 0.1 < (expected > 0).mean() < 0.9
    np.testing.assert_allclose(sae.encode(OUTPUTS).numpy(), expected, atol=1e-5)


def test_decoding_is_its_formula_with_the_scale_undone() -> None:
    sae = tiny_sae()
    features = sae.encode(OUTPUTS)
    expected = (features.numpy() @ unit_rows(sae) + sae.b_dec.numpy()) / 0.37
    np.testing.assert_allclose(sae.decode(features).numpy(), expected, rtol=1e-4, atol=1e-5)


def test_decoder_rows_have_unit_length_whatever_the_weights() -> None:
    sae = tiny_sae()
    before = sae.encode(OUTPUTS)
    sae.rows.mul_(7.0)
    torch.testing.assert_close(sae.decoder.norm(dim=1), torch.ones(12))
    torch.testing.assert_close(sae.encode(OUTPUTS), before)


def test_a_perfect_dictionary_gives_the_outputs_back() -> None:
    sae = tiny_sae(width=6)
    sae.rows.copy_(torch.eye(6))
    sae.b_enc.zero_()
    sae.b_dec.zero_()
    torch.testing.assert_close(sae.decode(sae.encode(OUTPUTS.abs())), OUTPUTS.abs())


def test_saving_keeps_every_field_and_every_bit(tmp_path: Path) -> None:
    sae = tiny_sae(scale=1 / 3, layer=4, seed=11)
    sae.save(tmp_path / "deep" / "er")
    again = load_sae(tmp_path / "deep" / "er")
    assert again.info == sae.info
    assert set(json.loads((tmp_path / "deep" / "er" / "cfg.json").read_text())) == set(asdict(sae.info))
    for name, tensor in sae.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor)
    assert torch.equal(again.encode(OUTPUTS), sae.encode(OUTPUTS))
    assert not any(parameter.requires_grad for parameter in again.parameters())


def test_saving_twice_writes_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        tiny_sae().save(tmp_path / name)
    for file in ("cfg.json", WEIGHTS):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


@pytest.mark.parametrize(
    "change",
    [
        lambda tensors: tensors.pop("b_enc"),
        lambda tensors: tensors.update(threshold=torch.zeros(12)),
        lambda tensors: tensors.update(b_dec=torch.zeros(7)),
        lambda tensors: tensors.update(rows=tensors["rows"].T.contiguous()),
    ],
    ids=["missing", "extra", "wrong width", "transposed"],
)
def test_tensors_that_do_not_fit_the_config_are_refused(tmp_path: Path, change: object) -> None:
    tiny_sae().save(tmp_path)
    tensors = load_file(tmp_path / WEIGHTS)
    change(tensors)  # type: ignore[operator]
    save_file(tensors, tmp_path / WEIGHTS)
    with pytest.raises(ModelError, match=WEIGHTS):
        load_sae(tmp_path)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("cfg.json", None),
        (WEIGHTS, None),
        ("cfg.json", b"{"),
        ("cfg.json", b"[1]"),
        ("cfg.json", b'{"layer": 0}'),
        (WEIGHTS, b"cut short"),
        (WEIGHTS, b""),
    ],
)
def test_a_folder_that_is_no_autoencoder_is_named(tmp_path: Path, file: str, content: bytes | None) -> None:
    tiny_sae().save(tmp_path)
    (tmp_path / file).unlink()
    if content is not None:
        (tmp_path / file).write_bytes(content)
    with pytest.raises(ModelError, match=tmp_path.name):
        load_sae(tmp_path)


def test_an_unknown_field_in_the_config_is_refused(tmp_path: Path) -> None:
    tiny_sae().save(tmp_path)
    info = json.loads((tmp_path / "cfg.json").read_text()) | {"threshold": 1}
    (tmp_path / "cfg.json").write_text(json.dumps(info))
    with pytest.raises(ModelError, match="threshold"):
        load_sae(tmp_path)


def test_a_dictionary_lays_layers_side_by_side_in_order() -> None:
    late, early = tiny_sae(layer=5, width=3), tiny_sae(layer=2, width=4, seed=1)
    dictionary = Dictionary([late, early])
    assert (dictionary.layers, dictionary.n_features) == ((2, 5), 7)
    assert dictionary.layer_of.tolist() == [2] * 4 + [5] * 3
    assert dictionary.index_of.tolist() == [0, 1, 2, 3, 0, 1, 2]
    features = dictionary.encode({5: OUTPUTS, 2: OUTPUTS + 1})
    assert torch.equal(features, torch.cat([early.encode(OUTPUTS + 1), late.encode(OUTPUTS)], dim=1))
    assert torch.equal(torch.cat(dictionary.decoders), torch.cat([early.decoder, late.decoder]))
