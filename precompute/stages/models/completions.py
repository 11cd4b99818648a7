"""Stage `completions`: base and tuned model write on from the same held-out prefixes; reward and KL."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from lfp.bundle.schema import as_table
from lfp.evaluation.results import Estimate, ResultRow
from lfp.evaluation.statistics.resampling import mean_interval
from lfp.texts.lexicon import words_of
from precompute.run.inputs import load_pair, load_reward, read_texts, tokenize_texts
from precompute.run.work_folder import Output, Run
from precompute.stages.models.text_tables import completion_rows

_SEED_OFFSET = 1  # other draws than those the model was tuned on


def run(run: Run, output: Output) -> None:
    """Writes completions.parquet, counts.json (words a model wrote) and the report's `reward` row."""
    from lfp.ml.models.generation import mean_kl_per_token, prefixes, sample_completions

    config = run.config
    base, tuned = load_pair(run)
    texts = tokenize_texts(run, base, read_texts(run, "held_out"))
    drawn = prefixes(
        texts,
        n=config.tune.eval_prefixes,
        token_range=config.tune.prefix_tokens,
        seed=config.seed + _SEED_OFFSET,
        bos_id=base.bos_id if config.model.prepend_bos else None,
    )
    written = {
        role: sample_completions(
            model,
            drawn,
            n_tokens=config.tune.completion_tokens,
            temperature=config.tune.temperature,
            seed=config.seed + _SEED_OFFSET,
        )
        for role, model in (("base", base), ("tuned", tuned))
    }
    reward = load_reward(run.config, run.config_dir)
    rewards = {role: np.array(reward([one.text for one in texts])) for role, texts in written.items()}
    rows = [
        row
        for role, texts in written.items()
        for row in completion_rows(
            texts, base, group=role, model=role, prompt_ids=range(len(texts)), rewards=rewards[role].tolist()
        )
    ]
    output.table("completions", as_table("completions", rows))
    output.json(
        "counts",
        {role: Counter(w.word for one in texts for w in words_of(one.text)) for role, texts in written.items()},
    )
    kl = mean_kl_per_token(tuned, base, written["tuned"])
    output.results(_results(rewards["base"], rewards["tuned"], kl, n=config.probes.bootstraps, seed=config.seed))


def _results(base: Any, tuned: Any, kl: float, *, n: int, seed: int) -> list[ResultRow]:
    """Mean reward of each model and their paired difference, with intervals over prefixes."""
    rows = []
    for model, values in (("base", base), ("tuned", tuned), ("difference", tuned - base)):
        low, high = mean_interval(values, n=n, rng=np.random.default_rng(seed))
        rows.append(
            ResultRow.from_estimate(
                "reward", "reward", Estimate(float(values.mean()), len(values), low, high), model=model
            )
        )
    return [*rows, ResultRow.from_estimate("reward", "kl_per_token", kl, model="tuned", n=len(tuned))]
