"""Stage `completions`: both models complete the same held-out prefixes; mean reward of each, and KL per token."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lfp.bundle.schema import as_table
from lfp.evaluation.results import Estimate, ResultRow
from lfp.evaluation.statistics.resampling import mean_interval
from lfp.texts.words import words_of
from lfp.util.types import Ints
from precompute.run.inputs import count_prompt_tokens, load_pair, load_reward, read_texts, tokenize_texts
from precompute.run.work_folder import Output, Run

if TYPE_CHECKING:
    from lfp.ml.models.generation import Completion
    from lfp.ml.models.loading import LanguageModel

_SEED_OFFSET = 1  # other prefixes and samples than those the model was tuned on


def run(run: Run, output: Output) -> None:
    """Write the table `completions`, counts.json (words by model) and the report's row `reward`."""
    from lfp.ml.models.generation import mean_kl_per_token, prefixes, sample_completions

    config, seed = run.config, run.config.seed + _SEED_OFFSET
    base, tuned = load_pair(run)
    texts = read_texts(run, "held_out")
    tokenized = tokenize_texts(run, base, texts)
    drawn = prefixes(
        tokenized,
        n=config.tune.eval_prefixes,
        token_range=config.tune.prefix_tokens,
        seed=seed,
        bos_id=base.bos_id if config.model.prepend_bos else None,
        prompts=count_prompt_tokens(texts, tokenized),
    )
    reward = load_reward(run.config, run.config_dir)
    completions: dict[str, list[Completion]] = {}
    rewards: dict[str, Any] = {}
    rows: list[dict[str, Any]] = []
    for role, model in (("base", base), ("tuned", tuned)):
        completions[role] = sample_completions(
            model, drawn, n_tokens=config.tune.completion_tokens, temperature=config.tune.temperature, seed=seed
        )
        rewards[role] = np.array(reward([completion.text for completion in completions[role]]))
        rows += completion_rows(
            completions[role],
            base,
            group=role,
            model=role,
            prompt_ids=range(len(drawn)),
            rewards=rewards[role].tolist(),
        )
    output.table("completions", as_table("completions", rows))
    output.json(
        "counts",
        {
            role: Counter(word.word for completion in of_role for word in words_of(completion.text))
            for role, of_role in completions.items()
        },
    )
    results = []
    for role, values in {**rewards, "difference": rewards["tuned"] - rewards["base"]}.items():
        rng = np.random.default_rng(config.seed)
        low, high = mean_interval(values, n=config.probes.bootstraps, rng=rng, groups=number_prefixes(drawn))
        estimate = Estimate(float(values.mean()), len(values), low, high)
        results.append(ResultRow.from_estimate("reward", "reward", estimate, model=role))
    kl = mean_kl_per_token(tuned, base, completions["tuned"])
    results.append(ResultRow.from_estimate("reward", "kl_per_token", kl, model="tuned", n=len(drawn)))
    output.results(results)


def number_prefixes(prefixes: Sequence[tuple[int, ...]]) -> Ints:
    """Number the prefixes [prefixes]; those of the same tokens share a number, and are drawn together."""
    number: dict[tuple[int, ...], int] = {}
    return np.array([number.setdefault(ids, len(number)) for ids in prefixes], np.int64)


def completion_rows(
    completions: Sequence[Completion],
    base: LanguageModel,
    *,
    group: str,
    model: str,
    prompt_ids: Sequence[int],
    rewards: Sequence[float],
    perplexity: Sequence[float] | None = None,
) -> list[dict[str, Any]]:
    """Build rows of `completions`: what `model` wrote in one group, with prompts, rewards and the base's perplexity."""
    return [
        {
            "group": group,
            "index": i,
            "prompt_id": prompt_ids[i],
            "prompt": base.tokenizer.decode(list(completion.prefix_ids), skip_special_tokens=True),
            "completion": completion.text,
            "reward": rewards[i],
            "perplexity": None if perplexity is None else perplexity[i],
            "model": model,
        }
        for i, completion in enumerate(completions)
    ]
