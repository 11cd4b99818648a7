"""Sequence classifiers as reward models: the right logit, padding that changes nothing, cuts that are counted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

from lfp.config import FeedbackConfig
from lfp.errors import ModelError
from lfp.ml.models.reward_model import RewardModel, load_reward_model
from tests.lfp.ml.conftest import ModelBuilder, build_tokenizer

TEXTS = ["good", "A terrible, boring film; the plot was bad.", "", "What a waste of time."]
SIZES: dict[str, dict[str, Any]] = {
    "bert": {"intermediate_size": 32, "max_position_embeddings": 40},
    "roberta": {"intermediate_size": 32, "max_position_embeddings": 42},
    "gpt_neox": {"intermediate_size": 32, "max_position_embeddings": 40},
}


def save(folder: Path, *, architecture: str = "bert", labels: int = 1, **changes: Any) -> Path:
    """A random classifier with its tokenizer."""
    tokenizer = build_tokenizer(folder)
    sizes = SIZES[architecture] | {
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "vocab_size": len(tokenizer) + 1,
        "pad_token_id": len(tokenizer) if architecture == "bert" else 1,
        "num_labels": labels,
        "initializer_range": 0.5,
    }
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = AutoConfig.for_model(architecture, **(sizes | changes))
        AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    return folder


def load(folder: Path, **keys: Any) -> RewardModel:
    config = FeedbackConfig(**({"reward": "classifier", "classifier": str(folder), "classifier_batch": 2} | keys))
    return load_reward_model(str(folder), config)


def alone(folder: Path, text: str) -> torch.Tensor:
    """Logits [labels] of one text, unpadded, straight from transformers."""
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = tokenizer(text)["input_ids"] or [tokenizer.eos_token_id]
    with torch.no_grad():
        return model(input_ids=torch.tensor([ids])).logits[0].double()


@pytest.mark.parametrize("architecture", SIZES)
def test_a_single_logit_is_the_reward_whatever_texts_stand_beside(tmp_path: Path, architecture: str) -> None:
    folder = save(tmp_path, architecture=architecture)
    rewards = load(folder)(TEXTS)
    assert rewards == pytest.approx([alone(folder, text).item() for text in TEXTS], abs=1e-5)
    assert rewards[::-1] == pytest.approx(load(folder, classifier_batch=9)(TEXTS[::-1]), abs=1e-5)
    assert len({round(reward, 4) for reward in rewards}) == len(TEXTS)


def test_a_causal_model_without_a_padding_token_gets_one(tmp_path: Path) -> None:
    folder = save(tmp_path, architecture="gpt_neox", pad_token_id=None)
    assert load(folder)(TEXTS) == pytest.approx([alone(folder, text).item() for text in TEXTS], abs=1e-5)


@pytest.mark.parametrize(
    ("labels", "changes", "keys", "expected"),
    [
        (2, {}, {}, lambda z: z[1] - z[0]),
        (2, {}, {"classifier_label": "LABEL_0"}, lambda z: z[0] - z[1]),
        (3, {}, {"classifier_label": "LABEL_1"}, lambda z: z[1] - torch.logsumexp(z[[0, 2]], 0)),
        (3, {"problem_type": "multi_label_classification"}, {"classifier_label": "LABEL_2"}, lambda z: z[2]),
    ],
    ids=["two", "two, named", "three, named", "many true at once"],
)
def test_of_more_labels_the_log_odds_are_the_reward(
    tmp_path: Path,
    labels: int,
    changes: dict[str, Any],
    keys: dict[str, Any],
    expected: Callable[[torch.Tensor], torch.Tensor],
) -> None:
    folder = save(tmp_path, labels=labels, **changes)
    rewards = load(folder, **keys)(TEXTS)
    assert rewards == pytest.approx([expected(alone(folder, text)).item() for text in TEXTS], abs=1e-5)


def test_log_odds_are_those_of_the_softmax(tmp_path: Path) -> None:
    folder = save(tmp_path, labels=3)
    share = alone(folder, "good").softmax(0)[1]
    assert load(folder, classifier_label="LABEL_1")(["good"])[0] == pytest.approx(
        torch.log(share / (1 - share)).item(), abs=1e-5
    )


@pytest.mark.parametrize("architecture", SIZES)
def test_what_does_not_fit_is_cut_and_counted(tmp_path: Path, architecture: str) -> None:
    model = load(save(tmp_path, architecture=architecture))
    assert model.max_tokens == 40
    long, longer = "good " * 60, "good " * 90
    first, second, short = model([long, longer, "good"])
    assert (first, model.truncated) == (pytest.approx(second, abs=1e-5), 2)
    assert short != pytest.approx(first, abs=1e-3)


def test_a_tokenizer_that_reads_less_than_the_model_decides(tmp_path: Path) -> None:
    folder = save(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(folder, model_max_length=7)
    tokenizer.save_pretrained(folder)
    assert load(folder).max_tokens == 7


def test_one_text_has_one_reward_always(tmp_path: Path) -> None:
    model = load(save(tmp_path, architecture="gpt_neox"))
    torch.rand(3)
    assert model(TEXTS) == model(TEXTS)
    assert not any(parameter.requires_grad for parameter in model.model.parameters())


@pytest.mark.parametrize(
    ("labels", "keys", "says"),
    [
        (3, {}, "has the labels LABEL_0, LABEL_1, LABEL_2; name the one .* feedback.classifier_label"),
        (2, {"classifier_label": "good"}, "classifier_label 'good': .* has the labels LABEL_0, LABEL_1"),
        (1, {"classifier_label": "good"}, "classifier_label 'good': .* has the labels LABEL_0;"),
    ],
)
def test_a_label_that_cannot_be_chosen(tmp_path: Path, labels: int, keys: dict[str, str], says: str) -> None:
    with pytest.raises(ModelError, match=says):
        load(save(tmp_path, labels=labels), **keys)


def test_a_language_model_is_no_classifier(tmp_path: Path, model_builder: ModelBuilder) -> None:
    with pytest.raises(ModelError, match=r"its weights lack score\.weight, so it was not trained to classify"):
        load(model_builder(tmp_path))


def test_a_folder_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such folder"):
        load(tmp_path / "nowhere")
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ModelError, match="does not load as a sequence classifier"):
        load(tmp_path)
