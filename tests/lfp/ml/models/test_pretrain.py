from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from lfp.config import PretrainConfig
from lfp.errors import CorpusError, TrainingError
from lfp.ml.models import pretraining
from lfp.ml.models.loading import check_context, load_model
from lfp.ml.models.pretraining import PretrainReport, pretrain

TEXTS = [f"The {thing} was {how}." for thing in ("movie", "food", "view") for how in ("good", "bad", "great")] * 8
SMALL = {"vocab_size": 320, "d_model": 16, "n_layers": 2, "n_heads": 2, "steps": 40, "batch": 16, "learning_rate": 1e-2}
Trained = tuple[Path, PretrainReport]


def train(folder: Path, *, seed: int = 0, progress: Callable[..., None] | None = None, **changes: object) -> Trained:
    config = PretrainConfig(**(SMALL | changes))
    report = pretrain(TEXTS, config, context=12, seed=seed, folder=folder, held_out=TEXTS[:4], progress=progress)
    return folder, report


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return train(tmp_path_factory.mktemp("pretrained"))


def test_the_loss_falls(trained: Trained) -> None:
    _, report = trained
    assert report.steps == 40 and report.tokens > 40 * 16 * 4
    assert report.learning_curve[-1] == (40, report.final_loss)
    assert report.final_loss < 0.5 * report.learning_curve[0][1]


def test_the_folder_loads_as_any_model_does(trained: Trained) -> None:
    model = load_model(str(trained[0]))
    assert (model.n_layers, model.d_model, model.bos_id) == (2, 16, 0)
    check_context(model, 2 * 12 + 8)
    loaded = AutoModelForCausalLM.from_pretrained(trained[0]).config
    assert loaded.model_type == "gpt_neox" and loaded.bos_token_id == loaded.eos_token_id == 0


def test_the_tokenizer_keeps_frequent_words_whole(trained: Trained) -> None:
    tokenizer = AutoTokenizer.from_pretrained(trained[0])
    assert tokenizer.convert_ids_to_tokens(tokenizer("The movie was good.")["input_ids"])[-2] == "Ġgood"
    assert tokenizer("The").input_ids[0] != tokenizer.bos_token_id
    special = {tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id, tokenizer.unk_token_id}
    assert special == {0}
    assert tokenizer.decode(tokenizer("naïve 😀  spaces").input_ids) == "naïve 😀  spaces"


def test_held_out_bits_are_what_transformers_computes(trained: Trained) -> None:
    folder, report = trained
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    nats = n_bytes = 0.0
    for text in TEXTS[:4]:
        ids = torch.tensor([[0, *tokenizer(text).input_ids, 0]])
        nats += model(ids, labels=ids).loss.item() * (ids.shape[1] - 1)
        n_bytes += len(text.encode())
    assert report.held_out_bits_per_byte == pytest.approx(nats / math.log(2) / n_bytes, rel=1e-4)


@pytest.mark.parametrize("context", [3, 7, 12, 100])
def test_whole_texts_are_read_to_their_end_and_each_token_is_predicted_once(trained: Trained, context: int) -> None:
    tokenizer = AutoTokenizer.from_pretrained(trained[0])
    texts = ["The movie was good.", "", "The view was great. " * 5, "The"]
    pieces = pretraining._sequences(tokenizer, texts, context, whole=True)
    whole = [[0, *tokenizer(text).input_ids, 0] for text in texts if text]
    assert [token for piece in pieces for token in piece[1:]] == [token for text in whole for token in text[1:]]
    assert all(2 <= len(piece) <= context + 1 for piece in pieces)
    starts = [piece[0] for piece in pieces]
    assert starts == [text[at] for text in whole for at in range(0, len(text) - 1, context)]


def test_whole_texts_teach_what_stands_beyond_the_context(tmp_path: Path) -> None:
    texts = [f"{start} movie was good. {start} end was bad." for start in ("The", "This", "That")] * 16
    options = {"context": 4, "seed": 0, "held_out": ["bad."]}
    short = pretrain(texts, PretrainConfig(**SMALL), folder=tmp_path / "short", **options)
    whole = pretrain(texts, PretrainConfig(**SMALL, whole_texts=True), folder=tmp_path / "whole", **options)
    assert whole.held_out_bits_per_byte < short.held_out_bits_per_byte


def test_a_training_that_is_killed_goes_on_to_the_same_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def kill(_: str, step: int, *__: object) -> None:
        if step in (13, 27):
            raise KeyboardInterrupt

    monkeypatch.setattr(pretraining, "_CHECKPOINT_S", 0.0)
    options = {"context": 12, "seed": 0, "held_out": TEXTS[:9]}
    config = PretrainConfig(**SMALL, evaluations=4)
    whole = pretrain(TEXTS, config, folder=tmp_path / "whole", **options)
    scratch, steps = tmp_path / "scratch", []
    scratch.mkdir()
    for attempt in range(3):
        reported = (lambda name, step, *rest: (steps.append(step), kill(name, step, *rest))) if attempt < 2 else None
        with suppress(KeyboardInterrupt):
            parts = pretrain(TEXTS, config, folder=tmp_path / "parts", scratch=scratch, progress=reported, **options)
    assert steps == [*range(1, 14), *range(14, 28)]
    first, second = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "parts"))
    assert first == second
    assert replace(parts, seconds=0.0) == replace(whole, seconds=0.0)


def test_the_weights_that_predict_held_out_texts_best_are_kept(tmp_path: Path) -> None:
    few = ["The movie was good.", "The food was bad."]  # memorised: other texts become ever less likely
    held_out = [f"A {thing} of a {how} day, it seems" for thing in ("tale", "hint") for how in ("long", "rainy")]
    config = PretrainConfig(**(SMALL | {"steps": 60}), evaluations=12)
    report = pretrain(few * 40, config, context=12, seed=0, folder=tmp_path, held_out=held_out)
    curve = dict(report.held_out_curve)
    assert list(curve) == [5 * i for i in range(1, 13)]
    assert report.kept_step == min(curve, key=curve.__getitem__) < 60
    model, tokenizer = AutoModelForCausalLM.from_pretrained(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
    assert pretraining._bits_per_byte(model, tokenizer, held_out[::2], 12) == pytest.approx(curve[report.kept_step])
    judged = pretraining._bits_per_byte(model, tokenizer, held_out[1::2], 12)
    assert report.held_out_bits_per_byte == pytest.approx(judged)


def test_without_evaluations_the_last_weights_are_kept(trained: Trained) -> None:
    assert trained[1].kept_step == 40 and trained[1].held_out_curve == ()


def test_one_seed_gives_one_model(trained: Trained, tmp_path: Path) -> None:
    torch.rand(3)
    again, _ = train(tmp_path / "again")
    other, _ = train(tmp_path / "other", seed=1)
    files = [(folder / "model.safetensors").read_bytes() for folder in (trained[0], again, other)]
    assert files[0] == files[1] != files[2]
    assert (again / "tokenizer.json").read_text() == (trained[0] / "tokenizer.json").read_text()


def test_the_global_generator_is_left_alone(tmp_path: Path) -> None:
    before = torch.get_rng_state()
    train(tmp_path, steps=1)
    assert torch.equal(torch.get_rng_state(), before)


def test_progress_is_told_every_step(tmp_path: Path) -> None:
    reported: list[tuple[str, int, int, float]] = []
    train(tmp_path, steps=3, progress=lambda *what: reported.append(what))
    assert [what[:3] for what in reported] == [("pretrain", step, 3) for step in (1, 2, 3)]
    assert all(math.isfinite(what[3]) for what in reported)


def test_rows_are_drawn_once_an_epoch_and_alike_in_length() -> None:
    lengths = list(range(1, 101))
    order = pretraining._batch_order(lengths, batch=10, seed=0)
    epoch = [next(order) for _ in range(10)]
    assert sorted(row for rows in epoch for row in rows) == list(range(100))
    assert all(max(rows) - min(rows) == 9 for rows in epoch)
    assert epoch != [next(order) for _ in range(10)]


def test_a_text_that_is_cut_does_not_end(trained: Trained) -> None:
    tokenizer = AutoTokenizer.from_pretrained(trained[0])
    whole, cut = (pretraining._sequences(tokenizer, TEXTS[:1], context)[0] for context in (50, 3))
    assert whole[0] == whole[-1] == 0
    assert cut == whole[:4]


def test_bits_per_byte_of_cut_texts_are_of_the_tokens_before_the_cut(trained: Trained) -> None:
    folder, _ = trained
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    texts = ["The movie was great.", "naïve 😀😀 views", "The"]  # the second is cut within a character
    nats = n_bytes = 0.0
    for text in texts:
        ids = tokenizer(text).input_ids
        row = torch.tensor([[0, *ids[:6], *([0] if len(ids) <= 6 else [])]])
        nats += model(row, labels=row).loss.item() * (row.shape[1] - 1)
        n_bytes += sum(len(tokenizer.convert_ids_to_tokens(token)) for token in ids[:6])
    assert [len(tokenizer(text).input_ids) > 6 for text in texts] == [False, True, False]
    got = pretraining._bits_per_byte(model, tokenizer, texts, 6)
    assert got == pytest.approx(nats / math.log(2) / n_bytes, rel=1e-4)


def test_padding_does_not_change_the_loss(trained: Trained) -> None:
    model = AutoModelForCausalLM.from_pretrained(trained[0])
    rows = [[0, 5, 6, 7, 8, 0], [0, 9, 0]]
    together, count = pretraining._loss(model, rows)
    alone = [pretraining._loss(model, [row]) for row in rows]
    assert count == 7
    assert together.item() == pytest.approx(sum(loss.item() * n for loss, n in alone) / 7, rel=1e-5)


def test_no_texts(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="no texts"):
        pretrain(["", ""], PretrainConfig(**SMALL), context=12, seed=0, folder=tmp_path)


def test_a_loss_that_is_not_a_number(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"loss is nan at step \d+; lower pretrain\.learning_rate"):
        train(tmp_path, learning_rate=1e30)
