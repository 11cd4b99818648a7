"""Stage `tuned`: the tuned model, made here by GRPO or DPO, or checked to load."""

from __future__ import annotations

from dataclasses import asdict

from lfp.config import TUNE
from lfp.corpus import find_source
from lfp.feedback import PreferencePair, read_pairs, vader_reward
from precompute import pair
from precompute.run import Output, Run


def run(run: Run, output: Output) -> None:
    """Writes the folder model/ where the model is made here, and facts.json either way."""
    if run.config.model.tuned != TUNE:
        output.json("facts", {"parameters": pair.load(run, "tuned").n_parameters})
    elif run.config.tune.method == "grpo":
        _grpo(run, output)
    else:
        _dpo(run, output)


def _grpo(run: Run, output: Output) -> None:
    from lfp.ml.finetune import tune_grpo
    from lfp.ml.generation import prefix_strings

    config, base = run.config, pair.load(run, "base")
    texts = pair.tokenized(run, base, pair.corpus_texts(run, "train"))
    n = config.tune.steps * config.tune.prompts_per_step
    prefixes = prefix_strings(texts, n=n, token_range=config.tune.prefix_tokens, seed=config.seed)
    assert base.folder is not None
    report = tune_grpo(
        base.folder,
        prefixes,
        vader_reward,
        config.tune,
        seed=config.seed,
        folder=output.folder / "model",
        device=run.config.model.device,
        progress=run.progress,
    )
    output.json("facts", asdict(report))


def _dpo(run: Run, output: Output) -> None:
    from lfp.ml.finetune import tune_dpo

    base = pair.load(run, "base")
    assert base.folder is not None
    report = tune_dpo(
        base.folder,
        _training_pairs(run),
        run.config.tune,
        seed=run.config.seed,
        folder=output.folder / "model",
        device=run.config.model.device,
        progress=run.progress,
    )
    output.json("facts", asdict(report))


def _training_pairs(run: Run) -> list[PreferencePair]:
    """The pairs whose texts are not held out."""
    kept = {text.pair_id for text in pair.corpus_texts(run, "train")}
    pairs, _ = read_pairs(find_source(str(run.config.tune.pairs), beside=run.beside))
    return [one for pair_id, one in enumerate(pairs) if pair_id in kept]
