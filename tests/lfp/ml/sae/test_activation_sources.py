"""Sources of training batches: any step found again, every token of a buffer once, nothing run in vain."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from lfp.errors import DataError
from lfp.ml.models.activations import Tokens
from lfp.ml.models.loading import LanguageModel, load_model
from lfp.ml.models.tokenization import TokenizedText, tokenize
from lfp.ml.sae import training
from lfp.ml.sae.training import HeldActivations, StreamedActivations
from lfp.util.types import Place
from tests.lfp.ml.conftest import SENTENCES, build_model

OUTPUTS = {Place(layer): torch.arange(50.0)[:, None] * torch.tensor([1.0, layer]) for layer in (2, 5)}


def held(*, seed: int = 0, batch_tokens: int = 8) -> HeldActivations:
    return HeldActivations(OUTPUTS, batch_tokens, seed)


def first(source: HeldActivations | StreamedActivations, n: int, *, start: int = 0) -> list[dict[int, Tensor]]:
    return [dict(batch) for batch in islice(source.batches(start), n)]


def same(found: Sequence[dict[int, Tensor]], expected: Sequence[dict[int, Tensor]]) -> bool:
    return len(found) == len(expected) and all(
        own.keys() == expected_batch.keys() and all(torch.equal(own[place], expected_batch[place]) for place in own)
        for own, expected_batch in zip(found, expected, strict=True)
    )


@given(st.integers(0, 40), st.integers(0, 2**31))
def test_a_step_of_held_activations_has_its_batch_whatever_came_before(start: int, seed: int) -> None:
    source = held(seed=seed)
    assert same(first(source, 3, start=start), first(source, start + 3)[start:])


def test_held_batches_draw_the_same_tokens_at_every_place() -> None:
    for batch in first(held(), 5):
        assert batch[Place(2)].shape == (8, 2)
        assert torch.equal(batch[Place(5)], batch[Place(2)] * torch.tensor([1.0, 2.5]))
        assert set(batch[Place(2)][:, 0].tolist()) <= set(range(50))


def test_held_batches_follow_from_the_seed_and_the_step_alone() -> None:
    torch.rand(3)  # the global generator must not matter
    one = first(held(), 6)
    assert same(first(held(), 6), one)
    assert not same(first(held(seed=1), 6), one)
    assert all(not torch.equal(one[i][Place(2)], one[j][Place(2)]) for i in range(6) for j in range(i))


def test_every_held_token_is_drawn_in_time() -> None:
    drawn = torch.cat([batch[Place(2)][:, 0] for batch in first(held(), 300)])
    counts = torch.bincount(drawn.long(), minlength=50)
    assert counts.min() > 24 and counts.max() < 80, "48 times each, give or take"


def test_the_sample_of_held_activations_is_all_of_them() -> None:
    assert held().sample() is OUTPUTS


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_an_activation_that_is_not_finite_is_named(value: float) -> None:
    outputs = {place: values.clone() for place, values in OUTPUTS.items()}
    outputs[Place(5)][[17, 30], 1] = value
    with pytest.raises(DataError, match=r"^layer 5: the activation of token 17 is not finite; check the model"):
        HeldActivations(outputs, 8, 0)


def texts_of(lengths: Sequence[int]) -> list[TokenizedText]:
    """Texts whose token ids count through all of them."""
    ends = [sum(lengths[: i + 1]) for i in range(len(lengths))]
    return [
        TokenizedText("?" * n, tuple(range(end - n, end)), tuple(range(n)), False)
        for n, end in zip(lengths, ends, strict=True)
    ]


class IdsForOutputs:
    """In place of running a model: a token's output is its id and the layer. Keeps what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[list[TokenizedText]] = []

    def __call__(
        self,
        model: object,
        texts: Sequence[TokenizedText],
        *,
        places: Sequence[Place],
        batch_texts: int,
        prepend_bos: bool,
    ) -> Iterator[Tokens]:
        self.asked.append(list(texts))
        for i in range(0, len(texts), batch_texts):
            ids = torch.tensor([token for text in texts[i : i + batch_texts] for token in text.token_ids])
            outputs = {place: torch.stack([ids, torch.full_like(ids, place.layer)], 1).float() for place in places}
            yield Tokens(ids, ids, ids, outputs)


def streamed(
    texts: Sequence[TokenizedText],
    *,
    model: LanguageModel | None = None,
    batch: int = 4,
    buffer: int = 20,
    seed: int = 0,
) -> StreamedActivations:
    return StreamedActivations(
        model=model,  # type: ignore[arg-type]
        texts=texts,
        places=(Place(0), Place(2)),
        batch_tokens=batch,
        buffer_tokens=buffer,
        batch_texts=3,
        prepend_bos=True,
        seed=seed,
    )


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> IdsForOutputs:
    stand_in = IdsForOutputs()
    monkeypatch.setattr(training, "stream", stand_in)
    return stand_in


@given(
    st.lists(st.integers(0, 9), min_size=3, max_size=12).filter(lambda lengths: sum(lengths) >= 4),
    st.integers(1, 4),
    st.integers(4, 30),
    st.integers(0, 25),
)
def test_a_stream_goes_through_every_buffer_once(lengths: list[int], batch: int, buffer: int, start: int) -> None:
    """Of whatever lengths, empty texts too: no token twice in a buffer, none left but the rest below a batch."""
    texts = texts_of(lengths)
    with pytest.MonkeyPatch.context() as patch:
        fake = IdsForOutputs()
        patch.setattr(training, "stream", fake)
        source = streamed(texts, batch=batch, buffer=buffer)
        found = first(source, 30)
        asked = [[token for text in part for token in text.token_ids] for part in fake.asked]
        assert same(first(source, 30 - start, start=start), found[start:]), "any step is found again"
    step = 0
    for tokens in asked:
        drawn = [batch[Place(0)][:, 0].int().tolist() for batch in found[step : step + len(tokens) // batch]]
        step += len(tokens) // batch
        seen = [token for part in drawn for token in part]
        assert all(len(part) == batch for part in drawn)
        assert len(set(seen)) == len(seen) and set(seen) <= set(tokens)
        assert batch <= len(tokens) < buffer + max(lengths)
        if step < 30:
            assert len(tokens) - len(seen) < batch


def test_every_pass_runs_over_every_text_in_another_order(fake: IdsForOutputs) -> None:
    texts = texts_of([5] * 12)
    first(streamed(texts), 45)  # 15 batches a pass
    passes = [[text for part in fake.asked[i : i + 3] for text in part] for i in (0, 3, 6)]
    for i, one in enumerate(passes):
        assert sorted(text.token_ids for text in one) == [text.token_ids for text in texts]
        assert all(one != other for other in passes[:i])


def test_tokens_of_a_buffer_are_mixed_and_layers_stay_together(fake: IdsForOutputs) -> None:
    found = first(streamed(texts_of([5] * 12)), 5)
    buffer = [token for text in fake.asked[0] for token in text.token_ids]
    drawn = [int(token) for batch in found for token in batch[Place(0)][:, 0]]
    assert len(fake.asked) == 1 and sorted(drawn) == sorted(buffer) and drawn != buffer
    for batch in found:
        assert torch.equal(batch[Place(2)][:, 0], batch[Place(0)][:, 0])
        assert batch[Place(0)][:, 1].unique().tolist() == [0] and batch[Place(2)][:, 1].unique().tolist() == [2]


def test_buffers_that_are_skipped_are_not_run(fake: IdsForOutputs) -> None:
    source = streamed(texts_of([5] * 12))
    expected = first(source, 30)
    passed = fake.asked[4]
    fake.asked.clear()
    assert same(first(source, 4, start=21), expected[21:25])
    assert fake.asked == [passed], "step 21 is the second batch of the fifth buffer of five"


def test_the_sample_of_a_stream_is_its_first_buffer(fake: IdsForOutputs) -> None:
    sample = streamed(texts_of([5] * 12)).sample()
    assert sample.keys() == {Place(0), Place(2)}
    assert sample[Place(2)][:, 0].tolist() == [token for text in fake.asked[0] for token in text.token_ids]
    first(streamed(texts_of([5] * 12)), 1)
    assert fake.asked[1] == fake.asked[0]


def test_a_stream_follows_from_its_seed(fake: IdsForOutputs) -> None:
    texts = texts_of([5] * 12)
    one = first(streamed(texts), 6)
    assert same(first(streamed(texts), 6), one)
    assert not same(first(streamed(texts, seed=1), 6), one)
    assert fake.asked[0] == fake.asked[2] != fake.asked[4], "which texts make a buffer follows from it too"


@pytest.mark.parametrize(("n_texts", "buffer"), [(1, 20), (6, 5)], ids=["the texts", "the buffer"])
def test_a_batch_larger_than_the_texts_or_the_buffer_is_refused(n_texts: int, buffer: int) -> None:
    with pytest.raises(
        DataError, match=rf"^the texts hold {5 * n_texts} tokens and the buffer {buffer}, less than a batch of 6; lower"
    ):
        streamed(texts_of([5] * n_texts), batch=6, buffer=buffer)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    folder: Path = build_model(tmp_path_factory.mktemp("models") / "neox")
    return load_model(str(folder))


def rows_of(outputs: Tensor) -> Counter[tuple[float, ...]]:
    return Counter(tuple(row) for row in outputs.tolist())


def test_outputs_of_a_model_are_streamed_and_found_again(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """The batches of a buffer hold the outputs that the model gives for its texts, and later ones are found alone."""
    texts = tokenize(model.tokenizer, SENTENCES, context=20)
    source = streamed(texts, model=model, batch=4, buffer=25)
    runs: list[list[TokenizedText]] = []
    real = training.stream

    def counted(model: LanguageModel, texts: Sequence[TokenizedText], **how: object) -> Iterator[Tokens]:
        runs.append(list(texts))
        return real(model, texts, **how)  # type: ignore[arg-type]

    monkeypatch.setattr(training, "stream", counted)
    sample, found = source.sample(), first(source, 20)
    n_first = len(sample[Place(0)]) // 4
    assert len(runs) > 3 and runs[1] == runs[0] and 1 < n_first < 20
    for place in (Place(0), Place(2)):
        drawn = torch.cat([batch[place] for batch in found[:n_first]])
        assert rows_of(drawn) <= rows_of(sample[place]) and len(sample[place]) - len(drawn) < 4
    n_runs = len(runs)
    assert same(first(source, 20 - n_first, start=n_first), found[n_first:])
    assert len(runs) - n_runs == n_runs - 2, "the first buffer is not run again"
