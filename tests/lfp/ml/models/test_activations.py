"""Streaming a pair of models: what plain Hugging Face models give, padding and hooks leaving no trace."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from lfp.errors import DataError, ModelError
from lfp.ml.models import activations
from lfp.ml.models.activations import (
    Observer,
    PairTokens,
    Tokens,
    compare_predictions,
    implicit_reward,
    stream,
    stream_pair,
)
from lfp.ml.models.loading import LanguageModel, load_model
from lfp.ml.models.runtime import finish_later
from lfp.ml.models.tokenization import TokenizedText, tokenize
from lfp.util.types import Place

Pair = tuple[LanguageModel, LanguageModel]
TEXTS = ["The movie was good and the acting was great.", "", "Bad.", " a great view of the sea", "What a waste of time"]
LAYERS = (0, 1)
PLACES = tuple(Place(layer) for layer in LAYERS)


@cache
def hugging_face(folder: str) -> Any:
    """The same weights without TransformerLens."""
    return AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()


def alone(model: LanguageModel, ids: list[int]) -> tuple[Tensor, dict[Place, Tensor]]:
    """Logits [seq, d_vocab] and MLP outputs [seq, d] by place of one unpadded row through the plain model."""
    plain, outputs, handles = hugging_face(model.name), {}, []
    writes = "post_feedforward_layernorm" if plain.config.model_type == "gemma2" else "mlp"
    for name, module in plain.named_modules():
        if name.endswith(tuple(f".{layer}.{writes}" for layer in LAYERS)):
            place = Place(int(name.split(".")[-2]))
            handles.append(module.register_forward_hook(lambda m, x, y, place=place: outputs.update({place: y[0]})))
    with torch.no_grad():
        logits = plain(torch.tensor([ids])).logits[0]
    for handle in handles:
        handle.remove()
    return logits, outputs


def tokens_of(model: LanguageModel, texts: list[str] = TEXTS) -> list[TokenizedText]:
    return tokenize(model.tokenizer, texts, context=20)


def joined(parts: list[Tokens]) -> Tokens:
    outputs = {place: torch.cat([part.outputs[place] for part in parts]) for place in parts[0].outputs}
    fields = (torch.cat([getattr(part, name) for part in parts]) for name in ("rows", "positions", "ids"))
    return Tokens(*fields, outputs)


def streamed(model: LanguageModel, texts: list[TokenizedText], *, batch_texts: int = 3, bos: bool = True) -> Tokens:
    return joined(list(stream(model, texts, places=PLACES, batch_texts=batch_texts, prepend_bos=bos)))


def paired(pair: Pair, texts: list[TokenizedText], *, bos: bool = True) -> list[PairTokens]:
    return list(stream_pair(pair[1], pair[0], texts, places=PLACES, batch_texts=3, prepend_bos=bos))


def n_hooks(model: LanguageModel) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.network.modules())


def same(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, atol=3e-5, rtol=1e-4)


def spoiled(folder: Path, builder: Callable[..., Path], part: str) -> LanguageModel:
    """A GPT-NeoX with a weight that is not a number, under the first name that holds `part`."""
    builder(folder)
    plain = AutoModelForCausalLM.from_pretrained(folder)
    parameter = next(value for name, value in plain.named_parameters() if part in name)
    parameter.data.view(-1)[0] = float("nan")
    plain.save_pretrained(folder)
    return load_model(str(folder))


@pytest.mark.parametrize("bos", [True, False])
def test_outputs_are_those_of_each_text_run_alone(pair: Pair, bos: bool) -> None:
    model = pair[0]
    texts = [text for text in tokens_of(model) if bos or text.token_ids]
    found = streamed(model, texts, bos=bos)
    lead = [model.bos_id] if bos else []
    for row, text in enumerate(texts):
        own = found.rows == row
        assert found.ids[own].tolist() == list(text.token_ids)
        assert found.positions[own].tolist() == list(range(len(text.token_ids)))
        if text.token_ids:
            _, outputs = alone(model, [*lead, *text.token_ids])
            for place in PLACES:
                same(found.outputs[place][own], outputs[place][len(lead) :])


def test_neither_padding_nor_the_leading_token_is_given_out(neox: LanguageModel) -> None:
    texts = tokens_of(neox)
    lengths = [len(text.token_ids) for text in texts]
    assert len(set(lengths)) > 3 and 0 in lengths
    found = streamed(neox, texts, batch_texts=len(texts))
    assert len(found.rows) == sum(lengths) == len(found.outputs[Place(0)])
    assert torch.bincount(found.rows, minlength=len(texts)).tolist() == lengths


def test_batches_come_in_order_and_do_not_change_the_outputs(neox: LanguageModel) -> None:
    texts = tokens_of(neox)
    one, all_ = streamed(neox, texts, batch_texts=1), streamed(neox, texts, batch_texts=9)
    assert one.rows.tolist() == sorted(one.rows.tolist()) == all_.rows.tolist()
    same(one.outputs[Place(1)], all_.outputs[Place(1)])


def test_only_the_places_asked_for_are_kept(neox: LanguageModel) -> None:
    (found,) = stream(neox, tokens_of(neox), places=[Place(2, "attn_out")], batch_texts=9, prepend_bos=True)
    assert list(found.outputs) == [Place(2, "attn_out")]


def test_the_implicit_reward_is_the_difference_of_log_probabilities(pair: Pair) -> None:
    base, tuned = pair
    texts = tokens_of(base)
    parts = paired(pair, texts)
    reward, advantage = (
        torch.cat([getattr(part, f"implicit_{name}") for part in parts]) for name in ("reward", "advantage")
    )
    rows = torch.cat([part.tuned.rows for part in parts])
    for row, text in enumerate(texts):
        ids = [base.bos_id, *text.token_ids]
        of_tuned, of_base = (alone(model, ids)[0].double().softmax(-1) for model in (tuned, base))
        for t, token in enumerate(text.token_ids):
            every = of_tuned[t].log() - of_base[t].log()
            expected = every[token], every[token] - (of_base[t] * every).sum()
            same(torch.stack([reward[rows == row][t], advantage[rows == row][t]]).double(), torch.stack(expected))
    assert reward.abs().max() > 0.1


def test_both_models_see_the_same_tokens(pair: Pair) -> None:
    for part in paired(pair, tokens_of(pair[0])):
        for name in ("rows", "positions", "ids"):
            assert torch.equal(getattr(part.tuned, name), getattr(part.base, name))
        for model, found in ((pair[1], part.tuned), (pair[0], part.base)):
            first = found.rows == found.rows[0]
            _, outputs = alone(model, [model.bos_id, *found.ids[first].tolist()])
            same(found.outputs[Place(1)][first], outputs[Place(1)][1:])


@pytest.mark.parametrize("bos", [True, False])
def test_the_first_token_has_a_reward_only_after_a_leading_token(pair: Pair, bos: bool) -> None:
    texts = [text for text in tokens_of(pair[0]) if text.token_ids]
    for part in paired(pair, texts, bos=bos):
        for values in (part.implicit_reward, part.implicit_advantage):
            assert torch.equal(values.isnan(), (part.tuned.positions == 0) & (not bos))


def test_a_model_against_itself_has_no_implicit_reward(neox: LanguageModel) -> None:
    for part in paired((neox, neox), tokens_of(neox)):
        assert not part.implicit_reward.any() and not part.implicit_advantage.any()


def test_the_advantage_has_mean_zero_under_the_base_model() -> None:
    tuned, base = torch.randn(2, 7, generator=torch.Generator().manual_seed(0)).double()
    compared = compare_predictions(tuned.expand(7, -1), base.expand(7, -1))
    _, advantage = implicit_reward(*compared, torch.arange(7))
    assert (base.softmax(-1) * advantage).sum().item() == pytest.approx(0.0, abs=1e-12)


def test_hooks_are_gone_afterwards(neox: LanguageModel) -> None:
    before = n_hooks(neox)
    batches = stream(neox, tokens_of(neox), places=PLACES, batch_texts=1, prepend_bos=True)
    next(batches)
    assert n_hooks(neox) == before, "none between two batches either"
    list(batches)
    assert n_hooks(neox) == before


def test_hooks_are_gone_after_an_exception(neox: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    before = n_hooks(neox)
    unknown = TokenizedText("?", (10**6,), (0,), False)
    monkeypatch.setattr(
        "lfp.ml.models.activations.check_token_ids", lambda model, ids: None
    )  # so that the pass itself fails
    with pytest.raises(IndexError):
        streamed(neox, [unknown])
    assert n_hooks(neox) == before
    assert neox.lock.acquire(blocking=False), "the lock is free again"
    neox.lock.release()


def test_counting_hooks_sees_one_that_is_left_behind(neox: LanguageModel) -> None:
    before = n_hooks(neox)
    with neox.hooks({Place(0): torch.clone}):
        assert n_hooks(neox) > before


def test_a_weight_that_is_not_a_number_names_its_layer(tmp_path: Path, model_builder: Callable[..., Path]) -> None:
    model = spoiled(tmp_path, model_builder, "layers.1.mlp")
    before = n_hooks(model)
    with pytest.raises(
        DataError, match=r"^layer 1: the MLP output is not finite in text \d, in the batch of texts 0 to"
    ):
        streamed(model, tokens_of(model))
    assert n_hooks(model) == before


def test_a_fault_after_the_layers_asked_for_does_not_pass_as_no_reward(
    tmp_path: Path, model_builder: Callable[..., Path], neox: LanguageModel
) -> None:
    model = spoiled(tmp_path, model_builder, "final_layer_norm")
    with pytest.raises(DataError, match="the implicit reward is not finite"):
        paired((neox, model), tokens_of(neox))


def test_a_token_id_the_model_does_not_have_is_named(neox: LanguageModel) -> None:
    texts = tokens_of(neox)
    texts[2] = replace(texts[2], token_ids=(neox.d_vocab, *texts[2].token_ids[1:]))
    with pytest.raises(ModelError, match=f"text 2 has token id {neox.d_vocab}"):
        streamed(neox, texts)


@pytest.mark.parametrize("bos", [True, False])
def test_an_observer_sees_both_models_at_the_chosen_tokens(pair: Pair, bos: bool) -> None:
    base, tuned = pair
    texts = [text for text in tokens_of(base) if bos or text.token_ids]
    n = sum(len(text.token_ids) for text in texts)
    chosen = torch.rand(n, generator=torch.Generator().manual_seed(1)) < 0.6
    seen: list[tuple[Tensor, Tensor]] = []
    observer = Observer(chosen, lambda of_base, difference: seen.append((of_base, difference)))
    settings = {"places": PLACES, "batch_texts": 2, "prepend_bos": bos}
    parts = list(stream_pair(tuned, base, texts, observe=observer, **settings))
    rewards = torch.cat([part.implicit_reward for part in parts])
    ids = torch.cat([part.tuned.ids for part in parts])
    defined = chosen & rewards.isfinite()
    assert 0 < defined.sum() == sum(len(of_base) for of_base, _ in seen) and (bos or not rewards.isfinite().all())
    of_base, difference = (torch.cat(values) for values in zip(*seen, strict=True))
    same(difference.gather(1, ids[defined, None])[:, 0], rewards[defined])
    lead = [base.bos_id] if bos else []
    whole = []
    for text in texts:
        if text.token_ids:
            logits, _ = alone(base, [*lead, *text.token_ids])
            whole.append(logits.log_softmax(-1)[: len(text.token_ids)] if bos else logits.log_softmax(-1)[:-1])
    same(of_base, torch.cat(whole)[defined if bos else defined[rewards.isfinite()]])
    unobserved = list(stream_pair(tuned, base, texts, **settings))
    assert torch.equal(torch.cat([part.implicit_reward for part in unobserved]).nan_to_num(), rewards.nan_to_num())


def test_a_pass_that_starts_a_batch_ahead_gives_the_same(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a card, where the next batch runs while the host works on this one."""
    texts, expected = tokens_of(pair[0]), paired(pair, tokens_of(pair[0]))
    monkeypatch.setattr(activations, "finish_later", lambda started, ahead: finish_later(started, ahead=ahead + 1))
    for found, own in zip(paired(pair, texts), expected, strict=True):
        torch.testing.assert_close(found.implicit_reward, own.implicit_reward, rtol=0, atol=0, equal_nan=True)
        torch.testing.assert_close(found.tuned.outputs, own.tuned.outputs, rtol=0, atol=0)
        assert found.base.ids.tolist() == own.base.ids.tolist()


def test_what_is_started_ahead_is_finished_in_order() -> None:
    events: list[str] = []

    def start(number: int) -> Callable[[], int]:
        events.append(f"start {number}")
        return lambda: events.append(f"finish {number}") or number

    assert list(finish_later(map(start, range(3)), ahead=1)) == [0, 1, 2]
    assert events == ["start 0", "start 1", "finish 0", "start 2", "finish 1", "finish 2"]
