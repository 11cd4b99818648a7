from __future__ import annotations

import math
import random
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from lfp.config import AdapterConfig, TuneConfig
from lfp.errors import ModelError, TrainingError
from lfp.ml.models.finetuning.dpo import tune_dpo
from lfp.ml.models.finetuning.grpo import tune_grpo
from lfp.ml.models.finetuning.network import bos_text, number_positions_from_first_token
from lfp.ml.models.finetuning.training import TuneReport
from lfp.ml.models.loading import load_model
from lfp.ml.models.tokenization import pad
from lfp.texts.preferences import PreferencePair
from tests.lfp.ml.conftest import build_model, build_without_special_tokens

PREFIXES = ["The movie", "A terrible", "I love this", "What a", "Good", "The plot was", "bad", "The acting and"]
PAIRS = [PreferencePair(prefix, " great view", " bad ending") for prefix in PREFIXES]
SMALL = {"prompts_per_step": 4, "group_size": 4, "completion_tokens": 6, "pairs_batch": 4, "learning_rate": 1e-2}
Models = dict[str, tuple[Path, Path]]


def letters(completions: Sequence[str]) -> list[float]:
    """An easy reward: how many of a completion's characters are among the first letters of the alphabet."""
    return [sum(letter in "abcdefgh" for letter in text) / max(1, len(text)) for text in completions]


def grpo(folder: Path, base: Path, *, reward: Any = letters, seed: int = 0, **changes: Any) -> TuneReport:
    config = TuneConfig(**(SMALL | {"steps": 2} | changes))
    return tune_grpo(base, PREFIXES, reward, config, seed=seed, folder=folder)


def weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


def test_grpo_raises_an_easy_reward(folders: Models, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reported: list[tuple[str, int, int, float]] = []
    report = tune_grpo(
        folders["gpt_neox"][0],
        PREFIXES,
        letters,
        TuneConfig(**SMALL, steps=25),
        seed=0,
        folder=tmp_path,
        progress=lambda *what: reported.append(what),
    )
    rewards = [value for _, value in report.curves["reward"]]
    assert mean(rewards[-5:]) > mean(rewards[:5]) + 0.2
    assert [step for step, _ in report.curves["reward"]] == list(range(1, 26))
    assert all(math.isfinite(value) for _, value in report.curves["loss"])
    assert reported == [("tune", step, 25, value) for step, value in report.curves["reward"]]
    assert report.steps == 25 and capsys.readouterr().out == ""


def test_the_tuned_folder_holds_model_and_tokenizer_only(folders: Models, tmp_path: Path) -> None:
    base = folders["gpt_neox"][0]
    grpo(tmp_path / "tuned", base)
    assert {file.name for file in (tmp_path / "tuned").iterdir()} == {file.name for file in base.iterdir()}
    assert str(base) not in (tmp_path / "tuned" / "config.json").read_text()
    tuned = load_model(str(tmp_path / "tuned"))
    assert tuned.tokenizer.get_vocab() == AutoTokenizer.from_pretrained(base).get_vocab()


@pytest.mark.parametrize("method", ["grpo", "dpo"])
def test_one_seed_gives_one_model(folders: Models, tmp_path: Path, method: str) -> None:
    def tune(name: str, seed: int) -> bytes:
        torch.rand(3)
        base, config = folders["gpt_neox"][0], TuneConfig(**SMALL, steps=2)
        if method == "grpo":
            tune_grpo(base, PREFIXES, letters, config, seed=seed, folder=tmp_path / name)
        else:
            tune_dpo(base, PAIRS, config, seed=seed, folder=tmp_path / name)
        return weights(tmp_path / name)

    first = tune("first", 0)
    assert first == tune("again", 0)
    assert first != tune("other", 1)
    assert first != weights(folders["gpt_neox"][0])


NO_SPECIAL = "no special tokens"


@pytest.mark.parametrize("method", ["grpo", "dpo"])
@pytest.mark.parametrize("architecture", ["gpt2", "opt", "bloom", "mpt", "mixtral", NO_SPECIAL])
def test_every_architecture_can_be_tuned(tmp_path: Path, architecture: str, method: str) -> None:
    base = tmp_path / "base"
    if architecture == NO_SPECIAL:
        build_without_special_tokens(base)
    else:
        build_model(base, architecture=architecture)
    for adapter in (None, AdapterConfig(r=4)):
        config = TuneConfig(**SMALL, steps=3, adapter=adapter)
        folder = tmp_path / ("adapter" if adapter else "full")
        if method == "grpo":
            report = tune_grpo(base, PREFIXES, letters, config, seed=0, folder=folder)
        else:
            report = tune_dpo(base, PAIRS, config, seed=0, folder=folder)
        (first, *_, last) = report.curves["kl" if method == "grpo" else "margin"]
        assert first == (1, 0.0), "model and reference differ before the first step"
        assert last[0] == 3 and last[1] != 0.0


def test_dpo_raises_the_margin(folders: Models, tmp_path: Path) -> None:
    base, config = folders["gpt_neox"][0], TuneConfig(**SMALL, steps=8, beta=0.1)
    report = tune_dpo(base, PAIRS, config, seed=0, folder=tmp_path)
    margins = [value for _, value in report.curves["margin"]]
    assert margins[0] == pytest.approx(0.0, abs=1e-4)
    assert margins[-1] > 0.2
    assert report.curves["loss"][-1][1] < report.curves["loss"][0][1] == pytest.approx(math.log(2), abs=1e-4)
    assert _margin(tmp_path) > _margin(base) + 1.0


def _margin(folder: Path) -> float:
    """Mean log-probability of the chosen less that of the rejected, beginning-of-sequence token first."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)

    def score(prompt: str, response: str) -> float:
        ids = [0, *tokenizer(prompt).input_ids, *tokenizer(response).input_ids]
        with torch.no_grad():
            log_probs = model(torch.tensor([ids])).logits[0].log_softmax(-1)
        start = len(tokenizer(prompt).input_ids) + 1
        return sum(log_probs[at - 1, ids[at]].item() for at in range(start, len(ids)))

    return mean(score(pair.prompt, pair.chosen) - score(pair.prompt, pair.rejected) for pair in PAIRS)


def test_one_bos_leads_every_prompt(folders: Models) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folders["gpt_neox"][0])
    assert tokenizer(bos_text(tokenizer) + " good").input_ids == [0, *tokenizer(" good").input_ids]
    adds_its_own = AutoTokenizer.from_pretrained(folders["gpt_neox"][0], add_bos_token=True)
    assert adds_its_own(bos_text(adds_its_own) + " good").input_ids == [0, *tokenizer(" good").input_ids]


def test_padding_on_the_left_does_not_move_positions(folders: Models) -> None:
    model = AutoModelForCausalLM.from_pretrained(folders["gpt_neo"][0]).eval()
    number_positions_from_first_token(model)
    input_ids, mask = pad([[5, 6, 7, 8], [9, 10]], pad_id=0, left=True)
    with torch.no_grad():
        together = model(input_ids=input_ids, attention_mask=mask).logits[1, -2:]
        alone = model(input_ids=torch.tensor([[9, 10]])).logits[0]
    torch.testing.assert_close(together, alone, atol=2e-5, rtol=1e-4)


def test_the_reward_sees_completions_only(folders: Models, tmp_path: Path) -> None:
    seen: list[str] = []

    def reward(completions: list[str]) -> list[float]:
        seen.extend(completions)
        return [float(i) for i in range(len(completions))]

    grpo(tmp_path, folders["gpt_neox"][0], reward=reward)
    assert len(seen) == 2 * 4 * 4
    assert not any(text.startswith(tuple(PREFIXES)) or "<|endoftext|>" in text for text in seen)


def test_global_generators_are_left_alone(folders: Models, tmp_path: Path) -> None:
    def states() -> tuple[Any, ...]:
        return random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()

    before = states()
    grpo(tmp_path, folders["gpt_neox"][0], steps=1)
    assert states() == before


def test_tuning_never_touches_the_network(folders: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[Any] = []
    monkeypatch.setattr(socket, "getaddrinfo", lambda *where, **_: tried.append(where))
    grpo(tmp_path, folders["gpt_neox"][0], steps=1)
    assert tried == []


def raises(completions: list[str]) -> list[float]:
    raise ValueError("no such lexicon")


@pytest.mark.parametrize(
    ("reward", "match"),
    [
        (raises, r"fails on 16 texts \(ValueError: no such lexicon\)"),
        (lambda completions: [0.0] * 3, "returned 3 values for 16 texts"),
        (lambda completions: [0.0, 1.0, math.nan] + [0.0] * 13, "returned nan for text 2, "),
        (lambda completions: [math.inf] * 16, "returned inf for text 0, "),
    ],
)
def test_a_reward_that_is_wrong(folders: Models, tmp_path: Path, reward: Callable[..., Any], match: str) -> None:
    with pytest.raises(TrainingError, match=match):
        grpo(tmp_path, folders["gpt_neox"][0], reward=reward)


def test_a_reward_that_never_changes(folders: Models, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"the reward is 0\.5 for every completion of 2 steps"):
        grpo(tmp_path, folders["gpt_neox"][0], reward=lambda completions: [0.5] * len(completions))


def test_a_loss_that_is_not_a_number(folders: Models, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"the loss is nan at step \d; lower tune\.learning_rate"):
        tune_dpo(
            folders["gpt_neox"][0],
            PAIRS,
            TuneConfig(**(SMALL | {"learning_rate": 1e30}), steps=4),
            seed=0,
            folder=tmp_path,
        )


def test_too_few_prefixes(folders: Models, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"8 prefixes are too few for a step of 9; lower tune\.prompts_per_step"):
        grpo(tmp_path, folders["gpt_neox"][0], prompts_per_step=9)


def test_completions_that_do_not_fit(folders: Models, tmp_path: Path) -> None:
    with pytest.raises(
        TrainingError, match=r"62 more do not fit the model's 64 positions; lower tune\.completion_tokens"
    ):
        grpo(tmp_path, folders["gpt_neox"][0], completion_tokens=62)


def test_pairs_whose_prompt_does_not_fit_are_counted(folders: Models, tmp_path: Path) -> None:
    base, config = folders["gpt_neox"][0], TuneConfig(**SMALL, steps=1)
    long = PreferencePair("good " * 70, "good", "bad")
    assert tune_dpo(base, [*PAIRS, long], config, seed=0, folder=tmp_path).dropped == 1
    with pytest.raises(TrainingError, match="every pair's prompt alone fills the model's 64 positions"):
        tune_dpo(base, [long], config, seed=0, folder=tmp_path)


def test_no_pairs(folders: Models, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="no preference pairs"):
        tune_dpo(folders["gpt_neox"][0], [], TuneConfig(**SMALL), seed=0, folder=tmp_path)


def test_no_base(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"nowhere: no config\.json"):
        grpo(tmp_path, tmp_path / "nowhere")
