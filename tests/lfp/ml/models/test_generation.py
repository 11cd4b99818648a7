from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from transformers import AutoModelForCausalLM

from lfp.errors import CorpusError, ModelError
from lfp.ml.models.generation import (
    Completion,
    log_likelihoods,
    mean_kl_per_token,
    prefix_strings,
    prefixes,
    repetition,
    sample_completions,
)
from lfp.ml.models.loading import LanguageModel
from lfp.ml.models.tokenization import TokenizedText, tokenize
from lfp.util.types import Place

Pair = tuple[LanguageModel, LanguageModel]


@pytest.fixture(scope="module")
def starts(neox: LanguageModel, sentences: list[str]) -> list[tuple[int, ...]]:
    """Prefixes of unequal lengths; all tiny models share one vocabulary."""
    texts = tokenize(neox.tokenizer, sentences, context=20)
    return prefixes(texts, n=12, token_range=(1, 6), seed=0, bos_id=neox.bos_id)


def without_eos(model: LanguageModel) -> LanguageModel:
    """The model with a tokenizer that knows no end, so that completions have full length."""
    tokenizer = SimpleNamespace(eos_token_id=None, decode=model.tokenizer.decode)
    return replace(model, tokenizer=tokenizer)


def test_prefixes_begin_texts(neox: LanguageModel, sentences: list[str]) -> None:
    texts = tokenize(neox.tokenizer, sentences, context=20)
    found = prefixes(texts, n=11, token_range=(2, 5), seed=3, bos_id=9)
    beginnings = {text.token_ids[:length] for text in texts for length in range(2, 6)}
    assert len(found) == 11
    assert all(each[0] == 9 and each[1:] in beginnings for each in found)
    assert {len(each) - 1 for each in found} == {2, 3, 4, 5}
    assert found == prefixes(texts, n=11, token_range=(2, 5), seed=3, bos_id=9)
    assert found != prefixes(texts, n=11, token_range=(2, 5), seed=4, bos_id=9)
    assert prefixes(texts, n=11, token_range=(2, 5), seed=3, bos_id=None) == [each[1:] for each in found]


def test_prefix_strings_are_the_same_prefixes(neox: LanguageModel, sentences: list[str]) -> None:
    texts = tokenize(neox.tokenizer, sentences, context=20)
    ids = prefixes(texts, n=20, token_range=(2, 9), seed=3, bos_id=None)
    strings = prefix_strings(texts, n=20, token_range=(2, 9), seed=3)
    assert [tuple(neox.tokenizer(string).input_ids) for string in strings] == ids


def test_texts_too_short_for_a_prefix() -> None:
    texts = [TokenizedText("a", (1,), (0,), False)]
    with pytest.raises(CorpusError, match=r"no text has the 2 tokens.*tune\.prefix_tokens"):
        prefixes(texts, n=3, token_range=(2, 5), seed=0, bos_id=None)


def test_completions_are_a_function_of_the_seed(pair: Pair, starts: list[tuple[int, ...]]) -> None:
    model = pair[0]
    found = sample_completions(model, starts, n_tokens=6, temperature=1.0, seed=0)
    assert found == sample_completions(model, starts, n_tokens=6, temperature=1.0, seed=0)
    assert found != sample_completions(model, starts, n_tokens=6, temperature=1.0, seed=1)
    assert [each.prefix_ids for each in found] == starts
    for each in found:
        assert each.text == model.tokenizer.decode(each.token_ids, skip_special_tokens=True)
        assert len(each.token_ids) == 6 or each.token_ids[-1] == model.tokenizer.eos_token_id


def test_completions_do_not_depend_on_the_batch(pair: Pair, starts: list[tuple[int, ...]]) -> None:
    model = without_eos(pair[0])
    together = sample_completions(model, starts, n_tokens=6, temperature=1.0, seed=0)
    alone = sample_completions(model, starts, n_tokens=6, temperature=1.0, seed=0, batch=1)
    assert together == alone


def test_completions_without_a_cache_are_the_same(pair: Pair, starts: list[tuple[int, ...]]) -> None:
    model = without_eos(pair[0])
    hf_model = AutoModelForCausalLM.from_pretrained(model.name, attn_implementation="eager").eval()
    uniform = torch.rand(len(starts), 6, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    found = sample_completions(model, starts, n_tokens=6, temperature=0.7, seed=4)
    for completion, quantiles in zip(found, uniform, strict=True):
        ids = list(completion.prefix_ids)
        for quantile in quantiles:
            with torch.no_grad():
                logits = hf_model(torch.tensor([ids])).logits[0, -1]
            cumulative = (logits.double() / 0.7).softmax(-1).cumsum(-1)
            ids.append(int((cumulative <= quantile).sum()))
        assert completion.token_ids == tuple(ids[len(completion.prefix_ids) :])


def test_tokens_come_as_often_as_the_model_says(neox: LanguageModel, starts: list[tuple[int, ...]]) -> None:
    model = without_eos(neox)
    found = sample_completions(model, [starts[0]] * 4000, n_tokens=1, temperature=1.0, seed=0, batch=4000)
    counts = torch.bincount(torch.tensor([each.token_ids[0] for each in found]), minlength=neox.d_vocab) / 4000
    with torch.no_grad():
        expected = neox.network(torch.tensor([starts[0]])).logits[0, -1].softmax(-1)
    assert (counts - expected).abs().max() < 4 * (expected.max() / 4000).sqrt()


def test_completions_stop_at_the_end_of_text(neox: LanguageModel, starts: list[tuple[int, ...]]) -> None:
    common = sample_completions(without_eos(neox), starts, n_tokens=8, temperature=1.0, seed=0)
    eos = common[0].token_ids[3]
    tokenizer = SimpleNamespace(eos_token_id=eos, decode=neox.tokenizer.decode)
    found = sample_completions(replace(neox, tokenizer=tokenizer), starts, n_tokens=8, temperature=1.0, seed=0)
    assert found[0].token_ids[-1] == eos
    for whole, cut in zip(common, found, strict=True):
        assert cut.token_ids == whole.token_ids[: len(cut.token_ids)]
        assert eos not in cut.token_ids[:-1]


def test_hooks_take_part(neox: LanguageModel, starts: list[tuple[int, ...]]) -> None:
    plain = sample_completions(neox, starts, n_tokens=6, temperature=1.0, seed=0)
    with neox.hooks({Place(2): torch.zeros_like}):
        hooked = sample_completions(neox, starts, n_tokens=6, temperature=1.0, seed=0)
    assert hooked != plain
    assert plain == sample_completions(neox, starts, n_tokens=6, temperature=1.0, seed=0)


def test_kl_matches_a_plain_computation(pair: Pair, starts: list[tuple[int, ...]]) -> None:
    base, tuned = pair
    completions = sample_completions(tuned, starts, n_tokens=5, temperature=1.0, seed=0)
    hf_base, hf_tuned = (AutoModelForCausalLM.from_pretrained(model.name).eval() for model in pair)
    values = []
    for each in completions:
        for end in range(len(each.token_ids)):
            ids = torch.tensor([[*each.prefix_ids, *each.token_ids[:end]]])
            with torch.no_grad():
                log_p, log_q = (model(ids).logits[0, -1].double().log_softmax(-1) for model in (hf_tuned, hf_base))
            values.append((log_p.exp() * (log_p - log_q)).sum())
    expected = torch.stack(values).mean().item()
    assert mean_kl_per_token(tuned, base, completions, batch=5) == pytest.approx(expected, rel=1e-3)


def test_a_model_has_no_kl_to_itself(neox: LanguageModel, starts: list[tuple[int, ...]]) -> None:
    completions = sample_completions(neox, starts, n_tokens=5, temperature=1.0, seed=0)
    assert mean_kl_per_token(neox, neox, completions) == 0.0


def test_kl_needs_a_token(neox: LanguageModel) -> None:
    with pytest.raises(ModelError, match="no completion has a token"):
        mean_kl_per_token(neox, neox, [Completion((1,), (), "")])


def test_no_prefixes(neox: LanguageModel) -> None:
    assert sample_completions(neox, [], n_tokens=5, temperature=1.0, seed=0) == []


@pytest.mark.parametrize(
    ("prefix", "match"),
    [
        ((), "prefix 1 is empty"),
        ((0,) * 60, r"prefix 1 of 60 tokens and 5 more do not fit its 64 positions"),
        ((0, 9999), "text 1 has token id 9999"),
    ],
)
def test_prefixes_the_model_cannot_take(neox: LanguageModel, prefix: tuple[int, ...], match: str) -> None:
    with pytest.raises(ModelError, match=match):
        sample_completions(neox, [(0,), prefix], n_tokens=5, temperature=1.0, seed=0)


def test_log_likelihoods_are_sums_over_the_completions_tokens(pair: Pair, starts: list[tuple[int, ...]]) -> None:
    model = pair[0]
    completions = sample_completions(model, starts, n_tokens=5, temperature=1.0, seed=0)
    hf_model = AutoModelForCausalLM.from_pretrained(model.name).eval()
    expected = []
    for each in completions:
        ids = torch.tensor([[*each.prefix_ids, *each.token_ids]])
        with torch.no_grad():
            log_probs = hf_model(ids).logits[0].double().log_softmax(-1)
        places = range(len(each.prefix_ids), ids.shape[1])
        expected.append(sum(log_probs[i - 1, ids[0, i]].item() for i in places))
    assert log_likelihoods(model, completions, batch=5).tolist() == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize(
    ("token_ids", "share"),
    [((1, 2), 0.0), ((1, 2, 3, 4), 0.0), ((7, 7, 7, 7), 0.5), ((1, 2, 3, 1, 2, 3), 0.25)],
)
def test_repetition_is_the_share_of_trigrams_met_before(token_ids: tuple[int, ...], share: float) -> None:
    """Each completion by itself: the same text written twice repeats nothing."""
    one = Completion((0,), token_ids, "")
    assert repetition([one]) == repetition([one, one]) == share
    assert repetition([]) == 0.0
