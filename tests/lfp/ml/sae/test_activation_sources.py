"""Sources of training batches: any step found again, every token of a buffer once, nothing run in vain."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from lfp.errors import DataError
from lfp.ml.models.activations import stream
from lfp.ml.models.loading import LanguageModel, load_model
from lfp.ml.models.tokenization import TokenizedText, tokenize
from lfp.ml.sae.activation_sources import HeldActivations, StreamedActivations, shorten_rows
from lfp.util.types import Place
from tests.lfp.ml.conftest import SENTENCES, build_model

PLACES = (Place(0), Place(2))
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

    def __call__(self, texts: Sequence[TokenizedText]) -> dict[Place, Tensor]:
        self.asked.append(list(texts))
        ids = torch.tensor([token for text in texts for token in text.token_ids])
        return {place: torch.stack([ids, torch.full_like(ids, place.layer)], 1).float() for place in PLACES}


def streamed(
    texts: Sequence[TokenizedText],
    *,
    read: Callable[[Sequence[TokenizedText]], Mapping[Place, Tensor]],
    batch: int = 4,
    buffer: int = 20,
    seed: int = 0,
    rows_per_token: int = 1,
) -> StreamedActivations:
    return StreamedActivations(
        read, texts, batch_tokens=batch, buffer_tokens=buffer, seed=seed, rows_per_token=rows_per_token
    )


@pytest.fixture
def fake() -> IdsForOutputs:
    return IdsForOutputs()


@given(
    st.lists(st.integers(0, 9), min_size=3, max_size=12).filter(lambda lengths: sum(lengths) >= 4),
    st.integers(1, 4),
    st.integers(4, 30),
    st.integers(0, 25),
)
def test_a_stream_goes_through_every_buffer_once(lengths: list[int], batch: int, buffer: int, start: int) -> None:
    """Of whatever lengths, empty texts too: no token twice in a buffer, none left but the rest below a batch."""
    texts = texts_of(lengths)
    fake = IdsForOutputs()
    source = streamed(texts, read=fake, batch=batch, buffer=buffer)
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
    first(streamed(texts, read=fake), 45)  # 15 batches a pass
    passes = [[text for part in fake.asked[i : i + 3] for text in part] for i in (0, 3, 6)]
    for i, one in enumerate(passes):
        assert sorted(text.token_ids for text in one) == [text.token_ids for text in texts]
        assert all(one != other for other in passes[:i])


def test_tokens_of_a_buffer_are_mixed_and_layers_stay_together(fake: IdsForOutputs) -> None:
    found = first(streamed(texts_of([5] * 12), read=fake), 5)
    buffer = [token for text in fake.asked[0] for token in text.token_ids]
    drawn = [int(token) for batch in found for token in batch[Place(0)][:, 0]]
    assert len(fake.asked) == 1 and sorted(drawn) == sorted(buffer) and drawn != buffer
    for batch in found:
        assert torch.equal(batch[Place(2)][:, 0], batch[Place(0)][:, 0])
        assert batch[Place(0)][:, 1].unique().tolist() == [0] and batch[Place(2)][:, 1].unique().tolist() == [2]


def test_buffers_that_are_skipped_are_not_run(fake: IdsForOutputs) -> None:
    source = streamed(texts_of([5] * 12), read=fake)
    expected = first(source, 30)
    passed = fake.asked[4]
    fake.asked.clear()
    assert same(first(source, 4, start=21), expected[21:25])
    assert fake.asked == [passed], "step 21 is the second batch of the fifth buffer of five"


def test_the_sample_of_a_stream_is_its_first_buffer(fake: IdsForOutputs) -> None:
    sample = streamed(texts_of([5] * 12), read=fake).sample()
    assert sample.keys() == {Place(0), Place(2)}
    assert sample[Place(2)][:, 0].tolist() == [token for text in fake.asked[0] for token in text.token_ids]
    first(streamed(texts_of([5] * 12), read=fake), 1)
    assert fake.asked[1] == fake.asked[0]


def test_a_stream_follows_from_its_seed(fake: IdsForOutputs) -> None:
    texts = texts_of([5] * 12)
    one = first(streamed(texts, read=fake), 6)
    assert same(first(streamed(texts, read=fake), 6), one)
    assert not same(first(streamed(texts, read=fake, seed=1), 6), one)
    assert fake.asked[0] == fake.asked[2] != fake.asked[4], "which texts make a buffer follows from it too"


@pytest.mark.parametrize(("n_texts", "buffer"), [(1, 20), (6, 5)], ids=["the texts", "the buffer"])
def test_a_batch_larger_than_the_texts_or_the_buffer_is_refused(n_texts: int, buffer: int) -> None:
    fake = IdsForOutputs()
    with pytest.raises(
        DataError, match=rf"^the texts hold {5 * n_texts} tokens and the buffer {buffer}, less than a batch of 6; lower"
    ):
        streamed(texts_of([5] * n_texts), read=fake, batch=6, buffer=buffer)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    folder: Path = build_model(tmp_path_factory.mktemp("models") / "neox")
    return load_model(str(folder))


def rows_of(outputs: Tensor) -> Counter[tuple[float, ...]]:
    return Counter(tuple(row) for row in outputs.tolist())


def test_outputs_of_a_model_are_streamed_and_found_again(model: LanguageModel) -> None:
    """The batches of a buffer hold the outputs that the model gives for its texts, and later ones are found alone."""
    texts = tokenize(model.tokenizer, SENTENCES, context=20)
    runs: list[list[TokenizedText]] = []

    def read(texts: Sequence[TokenizedText]) -> dict[Place, Tensor]:
        runs.append(list(texts))
        parts = list(stream(model, texts, places=PLACES, batch_texts=3, prepend_bos=True))
        return {place: torch.cat([part.outputs[place] for part in parts]) for place in PLACES}

    source = streamed(texts, read=read, batch=4, buffer=25)
    sample, found = source.sample(), first(source, 20)
    n_first = len(sample[Place(0)]) // 4
    assert len(runs) > 3 and runs[1] == runs[0] and 1 < n_first < 20
    for place in (Place(0), Place(2)):
        drawn = torch.cat([batch[place] for batch in found[:n_first]])
        assert rows_of(drawn) <= rows_of(sample[place]) and len(sample[place]) - len(drawn) < 4
    n_runs = len(runs)
    assert same(first(source, 20 - n_first, start=n_first), found[n_first:])
    assert len(runs) - n_runs == n_runs - 2, "the first buffer is not run again"


def test_rows_of_both_models_are_mixed_in_a_buffer(fake: IdsForOutputs) -> None:
    """Where a token has two rows, a pass over the texts has twice the batches, and every row is drawn once."""

    def twice(texts: Sequence[TokenizedText]) -> dict[Place, Tensor]:
        rows = fake(texts)
        return {place: torch.cat([values, values + 1000]) for place, values in rows.items()}

    texts = texts_of([5] * 4)
    source = streamed(texts, read=twice, buffer=20, rows_per_token=2)
    found = first(source, 10)
    drawn = [int(token) for batch in found for token in batch[Place(0)][:, 0]]
    assert sorted(drawn) == [*range(20), *range(1000, 1020)]
    assert any(0 < sum(batch[Place(0)][:, 0] >= 1000) < 4 for batch in found)
    assert same(first(source, 3, start=7), found[7:])


def test_very_long_rows_are_shortened_and_no_others() -> None:
    rows = torch.randn(200, 8, generator=torch.Generator().manual_seed(0))
    rows[3] *= 1000.0
    rows[7] = 0.0
    found = shorten_rows(rows)
    assert found[3].norm() == pytest.approx(4.0 * float(rows.norm(dim=1).median()), rel=1e-5)
    assert torch.nn.functional.cosine_similarity(found[3], rows[3], dim=0) == pytest.approx(1.0)
    others = torch.arange(200) != 3
    assert torch.equal(found[others], rows[others])
    assert torch.equal(shorten_rows(torch.zeros(5, 8)), torch.zeros(5, 8))
