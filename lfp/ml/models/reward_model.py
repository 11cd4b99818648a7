"""A sequence classifier as a reward model: one number a text, from the hub or a folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from lfp.config import FeedbackConfig
from lfp.errors import ModelError
from lfp.ml.models.loading import locate, quiet_files
from lfp.util.hub import OUT_OF_REACH

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Score = Callable[[torch.Tensor], torch.Tensor]
"""Rewards [texts] of logits [texts, labels]."""


@dataclass
class RewardModel:
    """Rewards of texts by a sequence classifier; call it with a list of texts.

    Texts go through in batches of like length, padded and masked; what is longer than the model reads is cut at the
    end. A text without a token is read as the end-of-sequence token alone, where the tokenizer has one.
    """

    model: Any
    tokenizer: PreTrainedTokenizerBase
    score: Score
    pad_id: int
    empty_id: int
    """What a text without a token is read as."""
    max_tokens: int
    batch: int
    truncated: int = 0
    """Texts cut so far."""

    def __call__(self, texts: list[str]) -> list[float]:
        """One reward a text, in order."""
        ids = [self._token_ids(text) for text in texts]
        rewards = torch.zeros(len(texts), dtype=torch.float64)
        for rows in _batches(ids, self.batch):
            rewards[rows] = self._rewards([ids[row] for row in rows])
        return rewards.tolist()

    def _token_ids(self, text: str) -> list[int]:
        ids = self.tokenizer(text, truncation=False, verbose=False)["input_ids"]
        if len(ids) > self.max_tokens:
            self.truncated += 1
            # the tokenizer cuts, since it may close a text with a token of its own
            ids = self.tokenizer(text, truncation=True, max_length=self.max_tokens)["input_ids"]
        return list(ids) or [self.empty_id]

    def _rewards(self, ids: Sequence[Sequence[int]]) -> torch.Tensor:
        device, width = next(self.model.parameters()).device, max(map(len, ids))
        filled = torch.full((len(ids), width), self.pad_id)
        mask = torch.zeros((len(ids), width), dtype=torch.long)
        for row, each in enumerate(ids):
            filled[row, : len(each)] = torch.tensor(each)
            mask[row, : len(each)] = 1
        with torch.inference_mode():
            logits = self.model(input_ids=filled.to(device), attention_mask=mask.to(device)).logits
        return self.score(logits.double().cpu())


def load_reward_model(name: str, config: FeedbackConfig, *, device: str = "cpu") -> RewardModel:
    """The sequence classifier in a local folder, or of that name on the hub, in float32 and without gradients.

    Of one logit, that logit is the reward; of two labels, the log-odds of the second; of more, the log-odds of
    `config.classifier_label`. Raises ModelError when it does not load or the label is not to be had.
    """
    model, tokenizer = _load(name, config.classifier_revision)
    try:
        model = model.to(device).eval().requires_grad_(False)
    except (RuntimeError, AssertionError) as error:
        reason = _first_line(error)
        raise ModelError(f"model.device {device}: cannot be used here ({reason}); --set model.device=cpu") from error
    special = _special_ids(name, model, tokenizer)
    if model.config.pad_token_id is None:  # by which a causal model finds the last token of a padded text
        model.config.pad_token_id = special[0]
    return RewardModel(
        model,
        tokenizer,
        score=_score(name, model.config, config.classifier_label),
        pad_id=model.config.pad_token_id,
        empty_id=special[-1],
        max_tokens=_max_tokens(model, tokenizer),
        batch=config.classifier_batch,
    )


def _batches(ids: Sequence[Sequence[int]], size: int) -> Iterator[list[int]]:
    """Rows in batches, short texts first, so that little is padded."""
    order = sorted(range(len(ids)), key=lambda row: len(ids[row]))
    return (order[start : start + size] for start in range(0, len(order), size))


def _load(name: str, revision: str | None) -> tuple[Any, PreTrainedTokenizerBase]:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    source, local_only = locate(name, key="feedback.classifier")
    where = {"revision": revision, "local_files_only": local_only}
    try:
        with quiet_files():
            model, info = AutoModelForSequenceClassification.from_pretrained(
                source, dtype=torch.float32, output_loading_info=True, **where
            )
            tokenizer = AutoTokenizer.from_pretrained(source, **where)
    except Exception as error:  # among them those of whatever HTTP library the hub's client uses
        reason = _first_line(error) if Path(source).is_dir() or not local_only else OUT_OF_REACH
        raise ModelError(
            f"feedback.classifier {name}: does not load as a sequence classifier ({reason});"
            " --set feedback.classifier=FOLDER, one that save_pretrained wrote, or name a classifier of the hub"
        ) from error
    if info["missing_keys"]:
        lost = sorted(info["missing_keys"])[0]
        raise ModelError(
            f"feedback.classifier {name}: its weights lack {lost}, so it was not trained to classify; name one that was"
        )
    return model, tokenizer


def _special_ids(name: str, model: Any, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Ids that may fill a row, best first, the last of them the end of a sequence, where there is one."""
    n_known = model.get_input_embeddings().weight.shape[0]
    wanted = (tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id)
    found = [token_id for token_id in wanted if token_id is not None and token_id < n_known]
    if not found:
        raise ModelError(
            f"feedback.classifier {name}: its tokenizer has no padding, beginning or end token that the model embeds;"
            " put the tokenizer's files beside the model's"
        )
    return found


def _max_tokens(model: Any, tokenizer: PreTrainedTokenizerBase) -> int:
    """Tokens the model has positions for; RoBERTa and its kin count theirs from behind the padding's."""
    positions = getattr(model.config, "max_position_embeddings", None) or tokenizer.model_max_length
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and getattr(module, "padding_idx", None) is not None:
            positions = module.num_embeddings - module.padding_idx - 1
    return int(min(positions, tokenizer.model_max_length))


def _score(name: str, config: Any, label: str | None) -> Score:
    """What makes one number of a text's logits. Raises ModelError where a label has to be named, or is not there."""
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
    at = labels.index(label) if label is not None else len(labels) - 1
    if len(labels) == 1 or config.problem_type == "multi_label_classification":
        return lambda logits: logits[:, at]
    others = [i for i in range(len(labels)) if i != at]
    return lambda logits: logits[:, at] - logits[:, others].logsumexp(dim=1)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
