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
    """Write facts.json, and for a model made here the folder model/."""
    config = run.config
    if config.model.tuned != TUNE:
        output.json("facts", {"parameters": load_role(run, "tuned").n_parameters})
        return
    from lfp.ml.models.finetuning import tune_dpo, tune_grpo
    from lfp.ml.models.generation import prefix_strings

    base, folder = load_role(run, "base"), output.folder / "model"
    assert base.folder is not None
    if config.tune.method == "dpo":
        report = tune_dpo(
            base.folder,
            read_training_pairs(run),
            config.tune,
            seed=config.seed,
            folder=folder,
            device=config.model.device,
            progress=run.progress,
        )
    else:
        prefixes = prefix_strings(
            tokenize_texts(run, base, read_texts(run, "train")),
            n=config.tune.steps * config.tune.prompts_per_step,
            token_range=config.tune.prefix_tokens,
            seed=config.seed,
        )
        report = tune_grpo(
            base.folder,
            prefixes,
            load_reward(run.config, run.config_dir),
            config.tune,
            seed=config.seed,
            folder=folder,
            device=config.model.device,
            progress=run.progress,
        )
    output.json("facts", asdict(report))


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
