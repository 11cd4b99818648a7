"""What the tuned model writes after the same prefixes, with the same draws, while something in it is changed."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lfp.config import RunConfig
from lfp.texts.lexicon import Reward
from lfp.util.types import Floats

if TYPE_CHECKING:
    from lfp.ml.models.generation import Completion
    from lfp.ml.models.loading import LanguageModel
    from lfp.ml.models.runtime import Batches
    from lfp.ml.models.tokenization import TokenizedText

_SEEDS_APART = 1_000


@dataclass(frozen=True, eq=False)
class Writer:
    """Lets the tuned model complete the same prefixes with the same draws each time, and scores what it writes.

    `reward` is None where the feedback is pairs: then a completion's score is its implicit reward, by the unchanged
    models. Where memory is full, batches are halved, once.
    """

    config: RunConfig
    base: LanguageModel
    tuned: LanguageModel
    prefixes: Sequence[tuple[int, ...]]
    reward: Reward | None
    seed: int
    batches: Batches

    @staticmethod
    def open(
        config: RunConfig,
        base: LanguageModel,
        tuned: LanguageModel,
        texts: Sequence[TokenizedText],
        *,
        prompts: Sequence[int | None],
        reward: Reward | None,
        seed: int,
    ) -> Writer:
        """Draw the beginnings of texts by the seed; none where all texts are shorter.

        All have the same length, but those of texts that have a number of tokens among `prompts` end there.
        """
        from lfp.ml.models.generation import prefixes
        from lfp.ml.models.runtime import Batches

        length, drawn = config.ablation.prefix_tokens, list[tuple[int, ...]]()
        usable = [
            (text, prompt)
            for text, prompt in zip(texts, prompts, strict=True)
            if (len(text.token_ids) >= length if prompt is None else prompt < len(text.token_ids))
        ]
        if usable:
            drawn = prefixes(
                [text for text, _ in usable],
                n=config.ablation.completions,
                token_range=(length, length),
                seed=seed,
                bos_id=tuned.bos_id if config.model.prepend_bos else None,
                prompts=[prompt for _, prompt in usable],
            )
        batches = Batches(config.ablation.batch, "completions", "ablation.batch", tuned.device)
        return Writer(config, base, tuned, drawn, reward, seed, batches)

    def write(self, change: AbstractContextManager[None] | None = None, *, run: int = 0) -> list[Completion]:
        """Write within `change`, what changes the tuned model; a `run` beyond the first has other draws."""
        from lfp.ml.models.generation import sample_completions

        tune = self.config.tune
        with nullcontext() if change is None else change:
            return sample_completions(
                self.tuned,
                self.prefixes,
                n_tokens=tune.completion_tokens,
                temperature=tune.temperature,
                seed=self.seed + _SEEDS_APART * run,
                batches=self.batches,
            )

    def score(self, written: Sequence[Completion], *, of_base: Floats | None = None) -> Floats:
        """Return the completions' scores; `of_base` are their log-likelihoods under the base model, where known."""
        from lfp.ml.models.generation import log_likelihoods

        if self.reward is not None:
            return np.array(self.reward([completion.text for completion in written]), np.float64)
        of_base = log_likelihoods(self.base, written).numpy() if of_base is None else of_base
        return np.asarray(log_likelihoods(self.tuned, written).numpy() - of_base, np.float64)

    def score_clean_runs(self) -> Floats:
        """Return the scores [runs, completions] of what the unchanged model writes, each run with its own draws."""
        return np.array([self.score(self.write(run=run)) for run in range(self.config.ablation.clean_runs)])
