"""GRPO: tune a model on the reward of its own completions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from lfp.config import TuneConfig
from lfp.errors import TrainingError
from lfp.ml.models.finetuning.network import (
    bos_text,
    count_positions,
    load_network,
    number_positions_from_first_token,
    prepare_network,
)
from lfp.ml.models.finetuning.training import (
    QuietTrainer,
    TuneJob,
    TuneOptions,
    TuneReport,
    isolate_trainer,
    run_trainer,
)
from lfp.texts.rewards import checked

if TYPE_CHECKING:
    from lfp.texts.lexicon import Reward

_FIGURES = {"reward": "reward", "kl": "kl", "entropy": "entropy", "loss": "loss"}


def tune_grpo(
    base_folder: Path,
    prefixes: Sequence[str],
    reward: Reward,
    config: TuneConfig,
    *,
    seed: int,
    folder: Path,
    **options: Unpack[TuneOptions],
) -> TuneReport:
    """Tune the base model on a reward of its completions of `prefixes` (GRPO, Shao et al. 2024); save it to `folder`.

    Each step draws `prompts_per_step` prefixes and `group_size` completions of each. `reward` gets completions only,
    without special tokens. Raises TrainingError when the reward fails or never changes, or the loss is not finite.
    """
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    if len(prefixes) < config.prompts_per_step:
        raise TrainingError(
            f"tune: {len(prefixes)} prefixes are too few for a step of"
            f" {config.prompts_per_step}; lower tune.prompts_per_step"
        )

    class Trainer(QuietTrainer, GRPOTrainer):
        pass

    job = TuneJob(config=config, seed=seed, folder=folder, **options)
    check_rewards = checked(reward, name="of the tuning")
    extremes: set[float] = set()

    def reward_completions(completions: list[str], **_: Any) -> list[float]:
        rewards = check_rewards(completions)
        seen = {*extremes, *rewards}
        extremes.clear()
        extremes.update((min(seen), max(seen)))
        return rewards

    with isolate_trainer(job) as output_dir:
        network, tokenizer = load_network(base_folder, dtype=job.weights_dtype)
        prompts = [bos_text(tokenizer) + prefix for prefix in prefixes]
        _check_room(max(map(len, tokenizer(prompts)["input_ids"])), network, config)
        adapter = prepare_network(network, config)
        arguments = GRPOConfig(
            **job.arguments(output_dir),
            per_device_train_batch_size=config.prompts_per_step * config.group_size // config.gradient_accumulation,
            num_generations=config.group_size,
            max_completion_length=config.completion_tokens,
            temperature=config.temperature,
        )
        trainer = Trainer(
            model=network,
            reward_funcs=reward_completions,
            args=arguments,
            train_dataset=Dataset.from_dict({"prompt": prompts}),
            processing_class=tokenizer,
            peft_config=adapter,
        )
        _end_at_known_tokens(trainer)
        for tuned_or_reference in filter(None, (network, trainer.ref_model)):
            number_positions_from_first_token(tuned_or_reference)
        report = run_trainer(trainer, job, {curve: (key, 1.0) for curve, key in _FIGURES.items()}, watched="reward")
    if len(extremes) == 1 and len({value for _, value in report.curves["reward"]}) == 1:
        raise TrainingError(
            f"tune: the reward is {extremes.pop()} for every completion of {config.steps} steps, so nothing was"
            " learned; give a reward that differs between texts, or raise tune.completion_tokens"
        )
    return report


def _check_room(longest: int, network: Any, config: TuneConfig) -> None:
    """Raise TrainingError where the longest prefix and its completion do not fit the network's positions."""
    n_positions = count_positions(network)
    if n_positions is not None and longest + config.completion_tokens > n_positions:
        raise TrainingError(
            f"tune: a prefix of {longest} tokens and {config.completion_tokens} more do not fit the model's"
            f" {n_positions} positions; lower tune.completion_tokens or tune.prefix_tokens"
        )


def _end_at_known_tokens(trainer: Any) -> None:
    """Let completions run to their full length where neither tokenizer nor model names a token that ends a text."""
    ends = [token_id for token_id in trainer.eos_token_ids if token_id is not None]
    if ends != trainer.eos_token_ids:
        trainer.eos_token_ids = ends
        trainer.generation_kwargs["eos_token_id"] = trainer.generation_config.eos_token_id = ends or None
