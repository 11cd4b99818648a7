from __future__ import annotations

import pytest
import torch

from lfp.ml.models import predictions
from lfp.ml.models.loading import LanguageModel, load_model
from lfp.ml.models.predictions import read_states

IDS = torch.tensor([[1, 5, 9, 40, 7, 0], [3, 3, 80, 2, 11, 12]])
MASK = torch.tensor([[1, 1, 1, 1, 1, 0], [1, 1, 1, 1, 1, 1]])


@torch.no_grad()
def test_every_architectures_logits_are_computed_from_its_states_in_chunks(
    every_pair: tuple[LanguageModel, LanguageModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = every_pair[0]
    whole = model.forward(IDS, MASK).logits[MASK.bool()]
    states = read_states(model, IDS, MASK).take(MASK.bool())
    monkeypatch.setattr(predictions, "_CHUNK_ENTRIES", 3 * model.d_vocab)
    rows = list(states.chunks())
    assert [row.stop - row.start for row in rows] == [3, 3, 3, 2]
    torch.testing.assert_close(torch.cat([states.logits(row) for row in rows]), whole, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(model.forward(IDS, MASK).logits[MASK.bool()], whole, atol=0, rtol=0)
    softcap = getattr(model.network.config, "final_logit_softcapping", None)
    assert softcap is None or whole.abs().max() < softcap


@torch.no_grad()
def test_logits_of_half_precision_become_float32(every_pair: tuple[LanguageModel, LanguageModel]) -> None:
    model = load_model(every_pair[0].name, dtype="bfloat16")
    states = read_states(model, IDS, MASK).take(MASK.bool())
    assert states.values.dtype == torch.bfloat16 == model.forward(IDS, MASK).logits.dtype
    found, whole = states.logits(slice(None)), model.forward(IDS, MASK).logits[MASK.bool()].float()
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, whole, atol=0.05 * whole.abs().max().item(), rtol=0)
