"""The single pass of both models over the corpus, shard by shard: each a pure function of its texts, then merged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from lfp.util.disk import reserve
from lfp.util.types import ROLES, Flags, Floats, Ints
from precompute.run.executor import Report, Shelf, Task, Tree, split_rows
from precompute.run.inputs import load_dictionaries, load_pair
from precompute.run.work_folder import Output, Run
from precompute.stages.features.corpus_pass import PassCorpus

if TYPE_CHECKING:
    from lfp.ml.features.active import FeatureTotals
    from lfp.ml.features.differences import Differences
    from lfp.ml.features.grouping import Places
    from lfp.ml.features.statistics import FeatureStats
    from lfp.ml.implicit_reward.matched_contexts import MatchedContexts
    from lfp.ml.implicit_reward.word_occurrences import KeptOutputs
    from lfp.ml.models.activations import PairTokens
    from lfp.ml.models.loading import LanguageModel
    from lfp.ml.models.tokenization import TokenizedText
    from lfp.ml.sae.autoencoders import Dictionary

Dictionaries = tuple["Dictionary", "Dictionary"]
"""The tuned model's, then the base model's: the same object where both share one."""


@dataclass(frozen=True)
class Sums:
    """What adds up over shards.

    `stats` see both models through the tuned model's dictionary, `mirror` through the base model's.
    """

    stats: FeatureStats
    mirror: dict[str, FeatureTotals]
    differences: Differences
    matched: MatchedContexts

    def merge(self, later: Sums) -> Sums:
        """Add the sums of the texts after these."""
        self.stats.merge(later.stats)
        for role, totals in self.mirror.items():
            totals.merge(later.mirror[role])
        self.differences.merge(later.differences)
        self.matched.merge(later.matched)
        return self


@dataclass(frozen=True)
class Filled:
    """What the pass fills; `reward` and `advantage` are [tokens of the corpus], NaN where undefined."""

    sums: Sums
    reward: Floats
    advantage: Floats


@dataclass(frozen=True)
class PassShard:
    """Whole texts, whose tokens are `places`, all [tokens].

    Of those that `contexts` marks, the regression of the implicit reward sees the context; `first_context` counts those
    of the texts before. `slots` are those of the tokens whose activations are kept, negative for others.
    """

    texts: Sequence[TokenizedText]
    places: Places
    contexts: Flags
    first_context: int
    slots: Ints


@dataclass(frozen=True)
class PassPart:
    """What a shard gives. `kept` are rows by the name of their file, in the order of `slots`.

    They are activations, and where the dictionary reads more than those of one model, what it reads.
    """

    sums: Sums
    reward: Floats
    advantage: Floats
    slots: Ints
    kept: dict[str, NDArray[np.float32]]


@dataclass(frozen=True)
class PassWorker:
    """Both models (tuned, base), their dictionaries, and the columns of the regression [d_vocab]."""

    run: Run
    models: tuple[LanguageModel, LanguageModel]
    dictionaries: Dictionaries
    columns: Ints
    n_columns: int

    def __call__(self, shard: PassShard, report: Report) -> PassPart:
        """Run both models over a shard."""
        import torch

        from lfp.ml.features.active import FeatureTotals
        from lfp.ml.features.differences import Differences
        from lfp.ml.features.statistics import FeatureStats
        from lfp.ml.implicit_reward.changes import watch_changes
        from lfp.ml.implicit_reward.matched_contexts import MatchedContexts
        from lfp.ml.implicit_reward.word_occurrences import KeptOutputs
        from lfp.ml.models.activations import Observer, stream_pair
        from lfp.ml.sae.views import find_change_places

        (of_tuned, of_base), n_tokens = self.dictionaries, len(shard.slots)
        sums = Sums(
            FeatureStats(of_tuned.n_features, self.run.config.stats),
            {role: FeatureTotals(of_base.n_features) for role in ROLES},
            Differences({sae.info.place: sae.info.d_model for sae in of_tuned.saes}),
            MatchedContexts(self.columns, self.n_columns, first=shard.first_context),
        )
        kept = {name: KeptOutputs(shard.slots, width) for name, width in name_kept(of_tuned).items()}
        reward, advantage = np.full(n_tokens, np.nan), np.full(n_tokens, np.nan)
        done = 0
        for tokens in stream_pair(
            *self.models,
            shard.texts,
            places=of_tuned.places,
            changes=watch_changes(*self.models, find_change_places(of_tuned)),
            batch_texts=self.run.config.stats.batch_texts,
            prepend_bos=self.run.config.model.prepend_bos,
            observe=Observer(torch.from_numpy(shard.contexts), sums.matched.update),
        ):
            rows = np.arange(done, done + len(tokens.tuned.ids))
            self._update(sums, kept, tokens, shard.places.take(rows), rows)
            reward[rows] = tokens.implicit_reward.double().numpy()
            advantage[rows] = tokens.implicit_advantage.double().numpy()
            done += len(rows)
            report(len(rows))
        sums.stats.flush()
        (slots, *_) = [rows.slots for rows in kept.values()]
        return PassPart(sums, reward, advantage, slots, {name: rows.values for name, rows in kept.items()})

    def _update(self, sums: Sums, kept: dict[str, KeptOutputs], tokens: PairTokens, places: Places, rows: Ints) -> None:
        """Add a batch of whole texts, which are `rows` of the shard's tokens."""
        from lfp.ml.features.active import encode_active
        from lfp.ml.sae.views import view_places

        of_tuned, of_base = self.dictionaries
        views = {role: view_places(of_tuned, tokens, role) for role in ROLES}
        found = {role: encode_active(of_tuned, views[role]) for role in ROLES}
        sums.stats.update(places, found["tuned"], found["base"])
        outputs = {"tuned": tokens.tuned.outputs, "base": tokens.base.outputs}
        sums.differences.update(outputs["tuned"], outputs["base"])
        for role in ROLES:
            sums.mirror[role].update(found[role] if of_base is of_tuned else encode_active(of_base, outputs[role]))
            for kind, values in (("outputs", outputs), ("views", views)):
                if f"{kind}-{role}" in kept:
                    kept[f"{kind}-{role}"].update(rows, values[role])


def name_kept(dictionary: Dictionary) -> dict[str, int]:
    """Return the width of the rows in each file of kept tokens, by its name."""
    widths = {f"outputs-{role}": sum(sae.info.d_model for sae in dictionary.saes) for role in ROLES}
    if dictionary.reads_pair:
        widths |= {f"views-{role}": sum(sae.info.d_in for sae in dictionary.saes) for role in ROLES}
    return widths


@dataclass(frozen=True)
class LoadPass:
    """Loads in another process what the pass needs."""

    run: Run
    columns: Ints
    n_columns: int

    def __call__(self) -> PassWorker:
        """Load models and dictionaries."""
        base, tuned = load_pair(self.run)
        return PassWorker(self.run, (tuned, base), load_dictionaries(self.run), self.columns, self.n_columns)


def run_pass(
    run: Run,
    models: tuple[LanguageModel, LanguageModel],
    dictionaries: Dictionaries,
    corpus: PassCorpus,
    output: Output,
) -> Filled:
    """Run `models` (tuned, base) over the corpus, and write the rows of the tokens that are kept."""
    n_tokens, columns = len(corpus.tokens.token_ids), corpus.columns
    shards, bounds = _split(run, corpus)
    task = Task(
        "features: tokens",
        np.diff(bounds).tolist(),
        LoadPass(run.for_worker(), columns.columns, columns.n_columns),
        Shelf(output.scratch, "pass"),
        run.progress,
    )
    rows = len(corpus.drawn.tokens)
    files = {
        name: _map_array(output.folder / f"{name}.npy", (rows, width))
        for name, width in name_kept(dictionaries[0]).items()
    }
    reward, advantage = np.full(n_tokens, np.nan), np.full(n_tokens, np.nan)
    tree = Tree(len(shards), Sums.merge)
    worker = PassWorker(run, models, dictionaries, columns.columns, columns.n_columns)
    for number, part in run.executor.map_shards(worker, shards, task):
        tree.add(number, part.sums)
        span = slice(bounds[number], bounds[number + 1])
        reward[span], advantage[span] = part.reward, part.advantage
        for name, file in files.items():
            file[part.slots] = part.kept[name]
    for file in files.values():
        file.flush()
    return Filled(tree.root(), reward, advantage)


def _map_array(file: Path, shape: tuple[int, int]) -> np.memmap[Any, Any]:
    """Map a file of zeros, in numpy's format, whose room on the disk is there. Raises OSError where it is not."""
    mapped = open_memmap(file, mode="w+", dtype=np.float32, shape=shape)
    reserve(file)
    return mapped


def _split(run: Run, corpus: PassCorpus) -> tuple[list[PassShard], Ints]:
    """Split the corpus into shards, and return where the tokens of each begin, with their number at the end."""
    from lfp.ml.features.grouping import Places

    config, tokens = run.config, corpus.tokens
    lengths = [len(text.token_ids) for text in corpus.texts]
    starts = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    spans = split_rows(len(lengths), size=config.cluster.shard_texts, batch=config.stats.batch_texts)
    slots = corpus.drawn.slots(len(tokens.token_ids))
    shards = []
    for rows in spans:
        span = slice(starts[rows.start], starts[rows.stop])
        places = Places(tokens.text_ids[span], tokens.positions[span], tokens.token_ids[span])
        first = int(corpus.contexts[: span.start].sum())
        texts = corpus.texts[rows.start : rows.stop]
        shards.append(PassShard(texts, places, corpus.contexts[span], first, slots[span]))
    return shards, starts[[*(rows.start for rows in spans), len(lengths)]]
