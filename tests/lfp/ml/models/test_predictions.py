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
def test_logits_of_half_precision_are_of_float32(every_pair: tuple[LanguageModel, LanguageModel]) -> None:
    model = load_model(every_pair[0].name, dtype="bfloat16")
    states = read_states(model, IDS, MASK).take(MASK.bool())
    assert states.values.dtype == torch.bfloat16
    exact = load_model(model.name).network
    exact.load_state_dict({key: value.float() for key, value in model.network.state_dict().items()})
    wide = states.values.float()
    with torch.no_grad():
        found = states.logits(slice(None))
    assert found.dtype == torch.float32
    body = exact.get_decoder()
    fields = {**states.output, "last_hidden_state": wide[None]}
    body.forward = lambda *_, **__: type(states.output)(**fields)
    torch.testing.assert_close(found, exact(IDS[:1], use_cache=False).logits[0], atol=1e-4, rtol=1e-4)
