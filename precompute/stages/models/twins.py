"""Stage `twins`: models tuned from the base on the stated feedback by other seeds, the null of "tuning did this".

A claim about the tuned model is compared with the same figure of its twins, which differ from it by chance and by what
was not stated. They are tuned once per base, stated feedback and settings of the tuning, and kept in `twins.folder`,
where every run and every planting finds them again. A stage that uses them names "twins" in its `after` in
precompute/pipeline.py, and reads them one at a time:

    from precompute.stages.models.twins import load_twins

    for twin in load_twins(run):          # nothing where `twins.n` is 0
        values.append(measure(base, twin))
    below = np.mean(values, axis=0)       # compare `measure(base, tuned)` with their mean and spread

Each is a LanguageModel of its own, restricted to the tokens of the pair; adapters are merged as they are loaded. With K
twins a figure of the tuned model differs from their mean by chance with variance s^2 (1 + 1/K), s^2 being that of the
twins (`lfp.evaluation.statistics.twins`).
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel

from lfp.bundle.manifest import file_sha256
from lfp.config import CLASSIFIER, TUNE, RunConfig
from lfp.ml.models.sources import find_model
from lfp.util.disk import sync
from precompute.run.bundle import find_versions
from precompute.run.inputs import (
    find_reward_files,
    find_role,
    load_alone,
    load_options,
    load_pair,
    load_role,
    read_texts,
)
from precompute.run.work_folder import Output, Run
from precompute.stages.models.tuning import tune_base

if TYPE_CHECKING:
    from lfp.ml.models.loading import LanguageModel

_FIRST_SEED = 10_001
"""Of the twins, so that they are the same for runs of every seed."""
_FOLDER = ".twins"
"""Where they are kept by default, beside the bundle."""
_SETTINGS = (
    "method", "steps", "learning_rate", "adapter", "freeze_embeddings", "gradient_accumulation", "beta",
    "prompts_per_step", "group_size", "pairs_batch", "prefix_tokens", "completion_tokens", "temperature",
)  # fmt: skip
"""Keys of `[tune]` that the weights of a tuned model depend on."""
_LIBRARIES = ("torch", "transformers", "trl", "peft", "vaderSentiment")
"""Twins of another version of these would differ from the tuned model by more than chance."""


def run_twins(run: Run, output: Output) -> None:
    """Write twins.json, the seeds, and the folder of each twin: tuned here, or earlier with the same settings."""
    n, seeds = run.config.twins.n, list[int]()
    if n:
        kept, seeds = find_kept(run), draw_seeds(n, other_than=run.config.seed)
        for done, seed in enumerate(seeds):
            run.progress("twins", done, n, float(done))
            link_folder(tune_twin(run, kept, seed=seed), output.folder / _name(seed))
    output.json("twins", seeds)


def draw_seeds(n: int, *, other_than: int) -> list[int]:
    """Return the seeds of n twins, none of them that of the model under test."""
    return [seed for seed in range(_FIRST_SEED, _FIRST_SEED + n + 1) if seed != other_than][:n]


def find_kept(run: Run) -> Path:
    """Return the folder where the twins of the run's base, feedback and settings are kept, whether or not it exists.

    Its name is a hash of all that their weights depend on beside their seed.
    """
    from lfp.ml.models.loading import hash_model

    config, texts = run.config, read_texts(run)
    read = json.dumps(
        [
            [text.text, text.pair_id, text.role, text.response_start, *text.spans]
            for text in texts
            if text.split == "train"
        ]
    )
    facts = {
        "base": hash_model(load_alone(run, "base")),
        "texts": hashlib.sha256(read.encode()).hexdigest(),
        "is_chat": any(text.spans for text in texts),
        "tune": {key: _plain(getattr(config.tune, key)) for key in _SETTINGS},
        "model": [config.model.context, config.model.prepend_bos, config.model.device, config.model.dtype],
        "threads": config.threads,
        "versions": find_versions(_LIBRARIES),
    }
    if config.tune.method == "grpo":
        facts["reward"] = _describe_reward(config, run.config_dir)
    key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
    named = config.twins.folder
    folder = run.work.parent / _FOLDER if named is None else Path(named).expanduser()
    return folder / key


def _describe_reward(config: RunConfig, config_dir: Path | None) -> dict[str, object]:
    """Return what the reward depends on: its name and the files that make it, or the classifier's name on the hub."""
    feedback = config.feedback
    files = [(file.name, file_sha256(file)) for file in find_reward_files(config, config_dir)]
    facts: dict[str, object] = {"reward": feedback.reward, "files": files}
    if feedback.reward == CLASSIFIER:
        of_hub = [] if files else [feedback.classifier, feedback.classifier_revision]
        facts["classifier"] = [*of_hub, feedback.classifier_label, feedback.classifier_batch]
    return facts


def _plain(value: object) -> object:
    return value.model_dump(mode="json") if isinstance(value, BaseModel) else value


def tune_twin(run: Run, kept: Path, *, seed: int) -> Path:
    """Return the folder of a twin, tuned now where it is not there; another process that tunes it is waited for."""
    folder, partial = kept / _name(seed), kept / f".{_name(seed)}"
    with _locked(kept / f"{_name(seed)}.lock"):
        if not folder.is_dir():
            partial.mkdir(exist_ok=True)

            def report(_: str, done: int, total: int, value: float) -> None:
                run.progress(f"twin {seed}", done, total, value)

            tune_base(run, partial / "model", seed=seed, scratch=partial, progress=report)
            sync(partial / "model")
            (partial / "model").rename(folder)
            shutil.rmtree(partial)
    return folder


def _name(seed: int) -> str:
    return f"twin-{seed}"


@contextmanager
def _locked(file: Path) -> Iterator[None]:
    """Hold the operating system's lock of a file; it ends with the process, however that ends."""
    file.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def link_folder(source: Path, folder: Path) -> None:
    """Give the files of a folder a second name in another, or copy them where the file system cannot.

    The other is there when all of them are.
    """
    partial = folder.with_name(f".{folder.name}.linking")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    for file in source.iterdir():
        try:
            os.link(file, partial / file.name)
        except OSError:
            shutil.copy2(file, partial / file.name)
    sync(partial)
    partial.rename(folder)


def load_twins(run: Run) -> Iterator[LanguageModel]:
    """Load the twins of a run one after the other; none where `twins.n` is 0. Raises ModelError."""
    from lfp.ml.models.pairs import read_vocabulary, share_vocabulary

    shared = None
    for seed in run.json("twins", "twins"):
        if run.config.model.tuned != TUNE and shared is None:
            both = [read_vocabulary(find_role(run, role), key=f"model.{role}") for role in ("base", "tuned")]
            shared = share_vocabulary(both[0], both[1], name=run.config.model.tuned)
        twin = load_twin(run, run.folder("twins") / _name(seed))
        yield twin if shared is None else shared.restrict(twin)


def load_compared(run: Run, number: int | None) -> tuple[LanguageModel, LanguageModel]:
    """Load the base model and the twin of this number, or with None the tuned one, both exact. Raises ModelError."""
    if number is None:
        return load_pair(run, exact=True)
    (twin,) = islice(load_twins(run), number, number + 1)
    return load_role(run, "base", exact=True), twin


def load_twin(run: Run, folder: Path) -> LanguageModel:
    """Load one twin, or any model that was tuned from the run's base; an adapter is merged.

    In float32 whatever the run's dtype is. Raises ModelError.
    """
    from lfp.ml.models.loading import load_source, merge_adapter

    source = find_model(str(folder), key="twins")
    if source.is_adapter:
        return merge_adapter(source, find_role(run, "base"), key="twins", **load_options(run, exact=True))
    return load_source(source, key="twins", **load_options(run, exact=True))
