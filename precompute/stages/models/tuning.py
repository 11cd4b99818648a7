"""Tune the base model of a run on its feedback: by the stages `tuned` and `twins`, and for planted models."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from lfp.texts.corpus import CorpusText
from lfp.texts.lexicon import Reward
from lfp.texts.preferences import PreferencePair
from lfp.util.types import Progress
from precompute.run.inputs import count_prompt_tokens, load_alone, load_reward, read_texts, tokenize_texts
from precompute.run.work_folder import Run

if TYPE_CHECKING:
    from lfp.ml.models.finetuning.training import TuneOptions, TuneReport
    from lfp.ml.models.loading import LanguageModel


def tune_base(
    run: Run, folder: Path, *, seed: int, scratch: Path, reward: Reward | None = None, progress: Progress | None = None
) -> TuneReport:
    """Tune the run's base model by `[tune]` into `folder`; what an interrupted attempt left in `scratch` is used.

    `reward` replaces the run's stated reward. Prefixes and everything else random are drawn by `seed`. Raises what
    `tune_grpo` and `tune_dpo` raise.
    """
    from lfp.ml.models.finetuning.dpo import tune_dpo
    from lfp.ml.models.finetuning.grpo import tune_grpo
    from lfp.ml.models.finetuning.network import find_plain_folder

    config, base = run.config, load_alone(run, "base")
    base_folder = find_plain_folder(base, scratch / "base")
    options: TuneOptions = {
        "device": config.model.device,
        "dtype": config.model.dtype,
        "base_name": config.model.base,
        "scratch": scratch,
        "progress": progress or run.progress,
    }
    leading = _leading_token(run, base)
    if config.tune.method == "dpo":
        pairs = [replace(pair, prompt=pair.prompt.removeprefix(leading)) for pair in read_training_pairs(run)]
        del base  # the trainer loads its own
        return tune_dpo(base_folder, pairs, config.tune, seed=seed, folder=folder, **options)
    prefixes = [prefix.removeprefix(leading) for prefix in _draw_prefixes(run, base, seed=seed)]
    del base
    stated = reward or load_reward(config, run.config_dir)
    return tune_grpo(base_folder, prefixes, stated, config.tune, seed=seed, folder=folder, **options)


def _draw_prefixes(run: Run, base: LanguageModel, *, seed: int) -> Sequence[str]:
    from lfp.ml.models.generation import prefix_strings

    texts, tune = read_texts(run, "train"), run.config.tune
    tokenized = tokenize_texts(run, base, texts)
    return prefix_strings(
        tokenized,
        n=tune.steps * tune.prompts_per_step,
        token_range=tune.prefix_tokens,
        seed=seed,
        prompts=count_prompt_tokens(texts, tokenized),
    )


def _leading_token(run: Run, base: LanguageModel) -> str:
    """Return the beginning-of-sequence token that a chat template writes itself, which the trainer would double."""
    is_chat = any(text.spans for text in read_texts(run))
    return "" if run.config.model.prepend_bos or not is_chat else str(base.tokenizer.bos_token or "")


def read_training_pairs(run: Run) -> list[PreferencePair]:
    """Read the pairs that are not held out, put together again from the texts of the corpus."""
    sides: dict[int | None, dict[str, CorpusText]] = defaultdict(dict)
    for text in read_texts(run, "train"):
        sides[text.pair_id][text.role] = text
    pairs = []
    for pair in sides.values():
        chosen, rejected, split = pair["chosen"].text, pair["rejected"].text, pair["chosen"].response_start
        pairs.append(PreferencePair(chosen[:split], chosen[split:], rejected[split:]))
    return pairs
