"""A sequence classifier, from a folder or the hub, as a reward model that gives each text one number."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from lfp.config import FeedbackConfig
from lfp.errors import ModelError
from lfp.ml.models.sources import failure_reason, from_pretrained, locate, place_on_device
from lfp.ml.models.tokenization import pad
from lfp.util.dependencies import OUT_OF_REACH

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Score = Callable[[torch.Tensor], torch.Tensor]
"""Turns logits [texts, labels] into rewards [texts]."""


@dataclass
class RewardModel:
    """Rewards of texts by a sequence classifier; call it with a list of texts.

    Texts of similar length are batched together, padded and masked; a text longer than the model's positions is
    truncated at the end. A text without tokens is read as `empty_id` alone.
    """

    model: Any
    tokenizer: PreTrainedTokenizerBase
    score: Score
    pad_id: int
    empty_id: int
    max_tokens: int
    batch: int
    truncated: int = 0
    """Texts truncated so far."""

    def __call__(self, texts: list[str]) -> list[float]:
        """Return one reward per text, in order."""
        ids = [self._token_ids(text) for text in texts]
        by_length = sorted(range(len(ids)), key=lambda row: len(ids[row]))
        device = next(self.model.parameters()).device
        rewards = torch.zeros(len(texts), dtype=torch.float64)
        for start in range(0, len(texts), self.batch):
            rows = by_length[start : start + self.batch]
            input_ids, mask = pad([ids[row] for row in rows], pad_id=self.pad_id)
            with torch.inference_mode():
                logits = self.model(input_ids=input_ids.to(device), attention_mask=mask.to(device)).logits
            rewards[rows] = self.score(logits.double().cpu())
        return rewards.tolist()

    def _token_ids(self, text: str) -> list[int]:
        ids = self.tokenizer(text, truncation=False, verbose=False)["input_ids"]
        if len(ids) > self.max_tokens:
            self.truncated += 1
            # the tokenizer truncates, because it may end a text with a special token
            ids = self.tokenizer(text, truncation=True, max_length=self.max_tokens)["input_ids"]
        return list(ids) or [self.empty_id]


def load_reward_model(name: str, config: FeedbackConfig, *, device: str = "cpu") -> RewardModel:
    """Load a sequence classifier from a local folder or the hub, in float32 and without gradients.

    With one logit, that logit is the reward; with two labels, the log-odds of the second; with more, the log-odds of
    `config.classifier_label`. Raises ModelError when it does not load or has no such label.
    """
    model, tokenizer = _load(name, config.classifier_revision)
    model = place_on_device(model, device).requires_grad_(False)
    n_embedded = model.get_input_embeddings().weight.shape[0]
    special = [
        token_id
        for token_id in (tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id)
        if token_id is not None and token_id < n_embedded
    ]
    if not special:
        raise ModelError(
            f"feedback.classifier {name}: its tokenizer has no padding, beginning or end token that the model embeds;"
            " put the tokenizer's files beside the model's"
        )
    if model.config.pad_token_id is None:  # a causal model needs it to find the last token of a padded text
        model.config.pad_token_id = special[0]
    return RewardModel(
        model,
        tokenizer,
        score=_build_score(name, model.config, config.classifier_label),
        pad_id=model.config.pad_token_id,
        empty_id=special[-1],
        max_tokens=_count_positions(model, tokenizer),
        batch=config.classifier_batch,
    )


def _load(name: str, revision: str | None) -> tuple[Any, PreTrainedTokenizerBase]:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    source, local_only = locate(name, key="feedback.classifier")
    options = {"revision": revision, "local_files_only": local_only}
    try:
        model, info = from_pretrained(
            AutoModelForSequenceClassification, source, dtype=torch.float32, output_loading_info=True, **options
        )
        tokenizer = from_pretrained(AutoTokenizer, source, **options)
    except Exception as error:  # including those of whatever HTTP library the hub's client uses
        reason = failure_reason(error) if Path(source).is_dir() or not local_only else OUT_OF_REACH
        raise ModelError(
            f"feedback.classifier {name}: does not load as a sequence classifier ({reason});"
            " --set feedback.classifier=FOLDER, one that save_pretrained wrote, or name a classifier of the hub"
        ) from error
    if info["missing_keys"]:
        missing = sorted(info["missing_keys"])[0]
        raise ModelError(
            f"feedback.classifier {name}: its weights lack {missing}, so it was not trained to classify; name one that"
            " was"
        )
    return model, tokenizer


def _count_positions(model: Any, tokenizer: PreTrainedTokenizerBase) -> int:
    """Count the tokens a model has positions for; RoBERTa's numbering starts behind its padding index."""
    positions = getattr(model.config, "max_position_embeddings", None) or tokenizer.model_max_length
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and getattr(module, "padding_idx", None) is not None:
            positions = module.num_embeddings - module.padding_idx - 1
    return int(min(positions, tokenizer.model_max_length))


def _build_score(name: str, config: Any, label: str | None) -> Score:
    """Build what reduces logits to a reward. Raises ModelError where a label must be named, or does not exist."""
    labels = [str(config.id2label[i]) for i in range(config.num_labels)]
    if label is not None and label not in labels:
        raise ModelError(
            f"feedback.classifier_label {label!r}: {name} has the labels {', '.join(labels)}; name one of them"
        )
    if label is None and len(labels) > 2:
        raise ModelError(
            f"feedback.classifier {name}: has the labels {', '.join(labels)}; name the one whose log-odds are to be the"
            " reward in feedback.classifier_label"
        )
    chosen = labels.index(label) if label is not None else len(labels) - 1
    if len(labels) == 1 or config.problem_type == "multi_label_classification":
        return lambda logits: logits[:, chosen]
    others = [i for i in range(len(labels)) if i != chosen]
    return lambda logits: logits[:, chosen] - logits[:, others].logsumexp(dim=1)
