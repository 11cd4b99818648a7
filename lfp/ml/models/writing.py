"""Let a language model write texts: openings continued as the beginning of its answer, in its chat template."""

from __future__ import annotations

from collections.abc import Sequence

from lfp.errors import ModelError
from lfp.ml.models.generation import Completion, sample_completions
from lfp.ml.models.loading import LanguageModel
from lfp.texts.openings import Opening


def continue_openings(
    model: LanguageModel,
    openings: Sequence[Opening],
    *,
    n_tokens: int,
    least_tokens: int,
    temperature: float,
    seed: int,
) -> list[Completion]:
    """Sample a continuation of each opening. Raises ModelError for a model without a chat template."""
    tokenizer = model.tokenizer
    if not tokenizer.chat_template:
        raise ModelError(f"{model.name}: has no chat template to be asked in; name a model that was tuned to chat")
    prompts = []
    for opening in openings:
        asked = [{"role": "user", "content": opening.instruction}]
        before = tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
        prompts.append(tokenizer(before + opening.text, add_special_tokens=False)["input_ids"])
    return sample_completions(
        model, prompts, n_tokens=n_tokens, least_tokens=least_tokens, temperature=temperature, seed=seed
    )
