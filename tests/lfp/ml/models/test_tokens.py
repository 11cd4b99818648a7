from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lfp.errors import ModelError
from lfp.ml.models.loading import LanguageModel
from lfp.ml.models.tokenization import TokenizedText, batches, pad, tokenize

TEXTS = ["The movie was good.", " naïve 😀  spaces\n\n and 中文 tails ", "Good", ""]


def slices(text: TokenizedText) -> list[str]:
    ends = (*text.token_starts[1:], len(text.text))
    return [text.text[start:end] for start, end in zip(text.token_starts, ends, strict=False)]


def test_slices_give_the_text_back(pair: tuple[LanguageModel, LanguageModel]) -> None:
    tokenizer = pair[0].tokenizer
    for text, tokens in zip(TEXTS, tokenize(tokenizer, TEXTS, context=100), strict=True):
        assert tokens.text == text and not tokens.truncated
        assert "".join(slices(tokens)) == text
        assert tokenizer.decode(tokens.token_ids) == text


def test_a_space_belongs_to_the_token_after_it(neox: LanguageModel) -> None:
    (tokens,) = tokenize(neox.tokenizer, ["The movie was good."], context=100)
    assert slices(tokens) == [neox.tokenizer.decode([token_id]) for token_id in tokens.token_ids]
    assert " was" in slices(tokens)


@given(st.text(max_size=40))
def test_any_text_survives(neox: LanguageModel, text: str) -> None:
    (tokens,) = tokenize(neox.tokenizer, [text], context=500)
    assert "".join(slices(tokens)) == text
    assert list(tokens.token_starts) == sorted(tokens.token_starts)


def test_truncation_cuts_text_and_tokens_alike(neox: LanguageModel) -> None:
    (whole,) = tokenize(neox.tokenizer, TEXTS[:1], context=100)
    (cut,) = tokenize(neox.tokenizer, TEXTS[:1], context=3)
    assert cut.truncated
    assert cut.token_ids == whole.token_ids[:3]
    assert slices(cut) == slices(whole)[:3]


def test_no_texts(neox: LanguageModel) -> None:
    assert tokenize(neox.tokenizer, [], context=4) == []


def test_a_tokenizer_without_offsets_is_refused() -> None:
    slow = SimpleNamespace(is_fast=False, name_or_path="somewhere")
    with pytest.raises(ModelError, match=r"somewhere.*offsets"):
        tokenize(slow, ["a"], context=4)


def test_batches_keep_the_order_and_pad_on_the_right(neox: LanguageModel) -> None:
    texts = tokenize(neox.tokenizer, TEXTS, context=8)
    found = list(batches(texts, bos_id=neox.bos_id, pad_id=7, batch_texts=3))
    assert [batch.rows for batch in found] == [(0, 1, 2), (3,)]
    for batch in found:
        assert batch.n_bos == 1
        assert batch.input_ids.dtype == batch.attention_mask.dtype == torch.int64
        for row, ids, mask in zip(batch.rows, batch.input_ids, batch.attention_mask, strict=True):
            length = len(texts[row].token_ids) + 1
            assert ids[:length].tolist() == [neox.bos_id, *texts[row].token_ids]
            assert (ids[length:] == 7).all()
            assert mask.tolist() == [1] * length + [0] * (len(mask) - length)


def test_an_empty_text_needs_a_bos(neox: LanguageModel) -> None:
    texts = tokenize(neox.tokenizer, ["good", ""], context=8)
    (batch,) = batches(texts, bos_id=5, pad_id=0, batch_texts=8)
    assert batch.input_ids[1, 0] == 5 and batch.attention_mask[1].sum() == 1
    with pytest.raises(ModelError, match="text 1 has no tokens"):
        list(batches(texts, bos_id=None, pad_id=0, batch_texts=8))


def test_padding_on_the_left() -> None:
    ids, mask = pad([[1, 2, 3], [4]], pad_id=9, left=True)
    assert ids.tolist() == [[1, 2, 3], [9, 9, 4]]
    assert mask.tolist() == [[1, 1, 1], [0, 0, 1]]


def test_padded_rows_match_unpadded_ones(pair: tuple[LanguageModel, LanguageModel]) -> None:
    model = pair[0]
    texts = tokenize(model.tokenizer, TEXTS, context=40)
    (batch,) = batches(texts, bos_id=model.bos_id, pad_id=model.pad_id, batch_texts=8)
    with torch.no_grad():
        together = model.forward(batch.input_ids, batch.attention_mask).logits
        for row, text in enumerate(texts):
            ids = torch.tensor([[model.bos_id, *text.token_ids]])
            alone = model.network(ids).logits[0]
            torch.testing.assert_close(together[row, : len(alone)], alone, atol=2e-5, rtol=1e-4)
