"""The split of the implicit reward over modules, shard by shard: each a pure function of its texts, then joined."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from lfp.texts.corpus import CorpusText
from lfp.util.types import Flags, Floats
from precompute.run.executor import Report, Shelf, Task, map_in_order, split_rows
from precompute.run.inputs import (
    mark_responses,
    name_texts,
    order_texts,
    read_statistics_texts,
    tokenize_texts,
)
from precompute.run.work_folder import Run
from precompute.stages.models.twins import load_compared

if TYPE_CHECKING:
    from lfp.ml.implicit_reward.ledger import ModuleCredits
    from lfp.ml.models.loading import LanguageModel
    from lfp.ml.models.tokenization import TokenizedText

Models = tuple["LanguageModel", "LanguageModel"]
"""The base model, and the one whose implicit reward is split."""


class SplitTexts(NamedTuple):
    """Texts whose implicit reward is split, and the tokens of each that count for it."""

    texts: list[CorpusText]
    tokenized: list[TokenizedText]
    counted: list[Flags]


@dataclass(frozen=True)
class CreditShard:
    """Texts by their ids, of which the first `n_by_token` are split by token too.

    `base_likelihood` [texts] as in `lfp.ml.implicit_reward.ledger.module_credits`.
    """

    text_ids: Sequence[int]
    tokenized: Sequence[TokenizedText]
    counted: Sequence[Flags]
    n_by_token: int
    base_likelihood: Floats | None


@dataclass(frozen=True)
class CreditWorker:
    """Two models, and the run that says how the difference between them is split."""

    run: Run
    models: Models

    def __call__(self, shard: CreditShard, report: Report) -> ModuleCredits:
        """Split the implicit reward of a shard's texts."""
        from lfp.ml.implicit_reward.ledger import module_credits

        settings, shown = self.run.config.credits, 0

        def show(_name: str, done: int, _total: int, _nodes: float) -> None:
            nonlocal shown
            report(done - shown)
            shown = done

        with name_texts(shard.text_ids):
            return module_credits(
                *self.models,
                shard.tokenized,
                counted=shard.counted,
                n_by_token=shard.n_by_token,
                batch_texts=settings.batch_texts,
                prepend_bos=self.run.config.model.prepend_bos,
                tolerance=settings.tolerance,
                max_nodes=settings.max_nodes,
                base_likelihood=shard.base_likelihood,
                progress=show,
            )


@dataclass(frozen=True)
class LoadCredits:
    """Loads in another process the base model, and the tuned one or the twin of this number."""

    run: Run
    twin: int | None = None

    def __call__(self) -> CreditWorker:
        """Load both models."""
        return CreditWorker(self.run, load_compared(self.run, self.twin))


def read_split_texts(run: Run, model: LanguageModel, n: int) -> SplitTexts:
    """Read the first `n` of the run's texts, those whose activations are stored first.

    Where a text has a prompt, its response counts, as in `texts.implicit_reward`; all of it where none begins.
    """
    texts = order_texts(read_statistics_texts(run), seed=run.config.seed)[:n]
    tokenized = tokenize_texts(run, model, texts)
    counted = [flags if flags.any() else np.ones_like(flags) for flags in mark_responses(texts, tokenized)]
    return SplitTexts(texts, tokenized, counted)


def split_alone(run: Run, models: Models, split: SplitTexts, *, base_likelihood: Floats | None) -> ModuleCredits:
    """Split the implicit reward of texts over modules as `[credits]` says, in this process.

    `base_likelihood` are those of the same texts from another call, which need not be computed again.
    """

    def report(_: int) -> None:
        pass

    return CreditWorker(run, models)(_take(split, range(len(split.texts)), 0, base_likelihood), report)


def split_reward(
    run: Run,
    models: Models,
    split: SplitTexts,
    *,
    by_token: int,
    shelf: Shelf,
    twin: int | None = None,
    base_likelihood: Floats | None = None,
) -> ModuleCredits:
    """Split the implicit reward of texts over modules as `[credits]` says, the first `by_token` by token too.

    The second of `models` is the run's tuned one, or its twin of this number. `shelf` keeps what workers did.
    """
    from lfp.ml.implicit_reward.ledger import join_credits

    spans = split_rows(len(split.texts), size=run.config.cluster.shard_texts, batch=run.config.credits.batch_texts)
    shards = [_take(split, rows, by_token, base_likelihood) for rows in spans]
    load: Callable[[], CreditWorker] = LoadCredits(run.for_worker(), twin)
    task = Task("credits: texts", [len(rows) for rows in spans], load, shelf, run.progress)
    return join_credits(map_in_order(run.executor, CreditWorker(run, models), shards, task))


def _take(split: SplitTexts, rows: range, by_token: int, base_likelihood: Floats | None) -> CreditShard:
    span = slice(rows.start, rows.stop)
    return CreditShard(
        [text.text_id for text in split.texts[span]],
        split.tokenized[span],
        split.counted[span],
        max(0, min(by_token, rows.stop) - rows.start),
        None if base_likelihood is None else base_likelihood[span],
    )
