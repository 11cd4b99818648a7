"""Stage `tuned`: the tuned model, made here by GRPO or DPO, or checked to load."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import asdict

from lfp.config import TUNE
from lfp.texts.corpus import CorpusText
from lfp.texts.preferences import PreferencePair
from precompute.run.inputs import load_reward, load_role, read_texts, tokenize_texts
from precompute.run.work_folder import Output, Run


def run(run: Run, output: Output) -> None:
    """Writes the folder model/ where the model is made here, and facts.json either way."""
    if run.config.model.tuned != TUNE:
        output.json("facts", {"parameters": load_role(run, "tuned").n_parameters})
    elif run.config.tune.method == "grpo":
        _grpo(run, output)
    else:
        _dpo(run, output)


def _grpo(run: Run, output: Output) -> None:
    from lfp.ml.models.finetuning import tune_grpo
    from lfp.ml.models.generation import prefix_strings

    config, base = run.config, load_role(run, "base")
    texts = tokenize_texts(run, base, read_texts(run, "train"))
    n = config.tune.steps * config.tune.prompts_per_step
    prefixes = prefix_strings(texts, n=n, token_range=config.tune.prefix_tokens, seed=config.seed)
    assert base.folder is not None
    report = tune_grpo(
        base.folder,
        prefixes,
        load_reward(run.config, run.config_dir),
        config.tune,
        seed=config.seed,
        folder=output.folder / "model",
        device=run.config.model.device,
        progress=run.progress,
    )
    output.json("facts", asdict(report))


def _dpo(run: Run, output: Output) -> None:
    from lfp.ml.models.finetuning import tune_dpo

    base = load_role(run, "base")
    assert base.folder is not None
    report = tune_dpo(
        base.folder,
        training_pairs(run),
        run.config.tune,
        seed=run.config.seed,
        folder=output.folder / "model",
        device=run.config.model.device,
        progress=run.progress,
    )
    output.json("facts", asdict(report))


def training_pairs(run: Run) -> list[PreferencePair]:
    """The pairs whose texts are not held out, put together again from the corpus."""
    sides: dict[int | None, dict[str, CorpusText]] = defaultdict(dict)
    for text in read_texts(run, "train"):
        sides[text.pair_id][text.role] = text
    return [_pair(each["chosen"], each["rejected"]) for each in sides.values()]


def _pair(chosen: CorpusText, rejected: CorpusText) -> PreferencePair:
    split = chosen.response_start
    return PreferencePair(chosen.text[:split], chosen.text[split:], rejected.text[split:])
