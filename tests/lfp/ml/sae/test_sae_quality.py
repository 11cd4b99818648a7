"""Quality of autoencoders against naive numpy, matching against all assignments, and the cross-entropy they keep."""

from __future__ import annotations

from itertools import permutations
from typing import Any, get_args

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lfp.errors import DataError, ModelError
from lfp.ml.models.loading import LanguageModel
from lfp.ml.models.tokenization import TokenizedText, tokenize
from lfp.ml.sae.autoencoders import Sae, SaeInfo, TiedReluSae, Variant
from lfp.ml.sae.quality import RecoveredLoss, SaeQuality, matched_cosines, quality
from lfp.util.types import Place
from tests.lfp.builders import tiny_sae

D_IN = 16
OUTPUTS = torch.randn(300, D_IN, generator=torch.Generator().manual_seed(3)) * 2 + 0.5


def naive_quality(sae: Sae, outputs: Tensor) -> SaeQuality:
    x = outputs.numpy().astype(float)
    features = sae.encode(outputs).numpy().astype(float)
    error = x - (features @ sae.W_dec.numpy() + sae.b_dec.numpy())
    dead = sum(not (features[:, i] > 0).any() for i in range(features.shape[1]))
    return SaeQuality(
        (error**2).sum() / ((x - x.mean(axis=0)) ** 2).sum(),
        float(np.mean([(row > 0).sum() for row in features])),
        dead / features.shape[1],
    )


@pytest.mark.parametrize("variant", get_args(Variant))
@pytest.mark.parametrize("batch_tokens", [7, 1000])
def test_quality_is_what_numpy_says(variant: Variant, batch_tokens: int) -> None:
    sae = tiny_sae(variant=variant, width=20, d_in=D_IN)
    sae.b_enc[:5] = -100.0
    found, expected = quality(sae, OUTPUTS, batch_tokens=batch_tokens), naive_quality(sae, OUTPUTS)
    assert found.fvu == pytest.approx(expected.fvu, rel=1e-5)
    assert (found.l0, found.dead_fraction) == (pytest.approx(expected.l0), pytest.approx(expected.dead_fraction))
    assert expected.dead_fraction >= 0.25


def test_the_mean_alone_leaves_all_variance_unexplained() -> None:
    sae = tiny_sae(d_in=D_IN)
    sae.b_enc.fill_(-1e6)
    sae.b_dec.copy_(OUTPUTS.mean(0))
    assert quality(sae, OUTPUTS) == SaeQuality(pytest.approx(1.0), 0.0, 1.0)


def test_outputs_without_variance_are_refused() -> None:
    with pytest.raises(DataError, match="layer 0: the 4 held-out activations are all alike"):
        quality(tiny_sae(d_in=D_IN), torch.full((4, D_IN), 0.7))


@pytest.mark.parametrize("seed", range(4))
def test_matches_are_the_best_of_all_assignments(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    small, large = (F.normalize(torch.randn(n, 3, generator=generator), dim=1) for n in (4, 6))
    cosines, matches = matched_cosines(small, large)
    totals = {
        chosen: sum((small[i] @ large[j]).item() for i, j in enumerate(chosen)) for chosen in permutations(range(6), 4)
    }
    best = max(totals, key=totals.__getitem__)
    assert tuple(matches.tolist()) == best
    assert cosines.sum().item() == pytest.approx(totals[best])
    torch.testing.assert_close(cosines, (small * large[matches]).sum(1))


def test_a_dictionary_inside_another_is_matched_exactly() -> None:
    generator = torch.Generator().manual_seed(0)
    large = F.normalize(torch.randn(24, D_IN, generator=generator), dim=1)
    order = torch.randperm(24, generator=generator)[:9]
    cosines, matches = matched_cosines(large[order], large)
    assert matches.tolist() == order.tolist()
    torch.testing.assert_close(cosines, torch.ones(9))


class Perfect(TiedReluSae):
    """Gives back what it is given."""

    def reconstruct(self, outputs: Tensor) -> Tensor:
        return outputs.clone()


def at_layer(sae: Sae, layer: int = 1) -> Sae:
    sae.info = SaeInfo(layer, sae.info.width, 32, 1.0, None, 0, "tuned", sae.info.variant, sae.info.k)
    return sae


def zero_decoding() -> Sae:
    sae = at_layer(tiny_sae(d_in=32))
    sae.b_enc.fill_(-1e6)
    sae.b_dec.zero_()
    return sae


@pytest.fixture(scope="module")
def texts(neox: LanguageModel, sentences: list[str]) -> list[TokenizedText]:
    return tokenize(neox.tokenizer, sentences, context=24)


def naive_losses(model: LanguageModel, text: TokenizedText, edit: Any, *, prepend_bos: bool) -> list[float]:
    """One text alone, unpadded: minus the log-probability of each token that something precedes."""
    lead = [model.bos_id] if prepend_bos else []
    ids = torch.tensor([lead + list(text.token_ids)])

    def hook(output: Tensor) -> Tensor:
        return torch.stack([
            torch.stack([row[i] if i < len(lead) else edit(row[i : i + 1])[0] for i in range(len(row))])
            for row in output
        ])  # fmt: skip

    with torch.no_grad(), model.hooks({Place(1): hook}):
        log_p = model.network(ids).logits.double().log_softmax(-1)[0]
    return [-log_p[i - 1, ids[0, i]].item() for i in range(1, ids.shape[1])]


@pytest.mark.parametrize("prepend_bos", [True, False])
@pytest.mark.parametrize("variant", ["relu", "topk"])
def test_recovered_cross_entropy_is_the_naive_one(
    neox: LanguageModel, texts: list[TokenizedText], prepend_bos: bool, variant: Variant
) -> None:
    sae = at_layer(tiny_sae(variant=variant, d_in=32, width=48, seed=2))
    sae.encoder.mul_(0.05)
    totals = [
        sum(sum(naive_losses(neox, text, edit, prepend_bos=prepend_bos)) for text in texts)
        for edit in (lambda x: x, sae.reconstruct, torch.zeros_like)
    ]
    expected = (totals[2] - totals[1]) / (totals[2] - totals[0])
    if totals[2] <= totals[0]:
        pytest.fail("this model predicts no worse without the layer; take another seed")
    for batch_texts in (1, 2, 32):
        found = RecoveredLoss(neox, texts, batch_texts=batch_texts, prepend_bos=prepend_bos).measure(sae)
        assert found == pytest.approx(expected, rel=1e-3, abs=1e-4)


def test_a_perfect_autoencoder_recovers_all_and_a_zero_decoding_one_nothing(
    neox: LanguageModel, texts: list[TokenizedText]
) -> None:
    perfect = at_layer(Perfect(SaeInfo(1, 12, 32, 1.0, None, 0, "tuned")))
    recovered = RecoveredLoss(neox, texts, batch_texts=2, prepend_bos=True)
    assert [recovered.measure(sae) for sae in (perfect, zero_decoding(), perfect)] == [1.0, 0.0, 1.0]


def test_where_the_model_predicts_no_worse_with_zero_there_is_nothing_to_recover(
    neox: LanguageModel, texts: list[TokenizedText]
) -> None:
    """Of single texts, as the layer of a random model helps some and harms others."""
    harmed = []
    for text in texts:
        clean, zeroed = (
            sum(naive_losses(neox, text, edit, prepend_bos=True)) for edit in (lambda x: x, torch.zeros_like)
        )
        found = RecoveredLoss(neox, [text], batch_texts=1, prepend_bos=True).measure(zero_decoding())
        harmed.append(zeroed <= clean)
        assert (found is None) == harmed[-1]
    assert 0 < sum(harmed) < len(texts)


def test_texts_without_a_token_to_predict_tell_nothing(neox: LanguageModel) -> None:
    one = [TokenizedText("a", (5,), (0,), False)]
    assert RecoveredLoss(neox, one, batch_texts=2, prepend_bos=False).measure(zero_decoding()) is None


def test_an_autoencoder_gone_wrong_and_tokens_of_another_model_are_refused(
    neox: LanguageModel, texts: list[TokenizedText]
) -> None:
    sae = zero_decoding()
    sae.b_dec.fill_(float("nan"))
    with pytest.raises(DataError, match="layer 1: the cross-entropy is not finite"):
        RecoveredLoss(neox, texts, batch_texts=2, prepend_bos=True).measure(sae)
    with pytest.raises(ModelError, match="text 0 has token id"):
        RecoveredLoss(neox, [TokenizedText("a", (10**6,), (0,), False)], batch_texts=2, prepend_bos=True).measure(sae)


def test_the_model_is_as_it_was_afterwards(neox: LanguageModel, texts: list[TokenizedText]) -> None:
    ids = torch.tensor([texts[0].token_ids])
    with torch.no_grad():
        before = neox.network(ids).logits
        RecoveredLoss(neox, texts, batch_texts=2, prepend_bos=True).measure(zero_decoding())
        assert torch.equal(neox.network(ids).logits, before)
