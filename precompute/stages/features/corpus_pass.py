"""The single pass of both models over the corpus: what it runs over, and what it fills."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lfp.texts.corpus import CorpusText
from lfp.texts.lexicon import lexicon_of
from lfp.texts.vocabulary import TokenColumns, Vocabulary, token_columns, token_words
from lfp.util.types import ROLES, Floats, Ints
from precompute.run.inputs import mark_responses, read_statistics_texts, tokenize_texts
from precompute.run.work_folder import Run

if TYPE_CHECKING:
    from lfp.ml.features.active import FeatureTotals
    from lfp.ml.features.differences import Differences
    from lfp.ml.features.statistics import FeatureStats
    from lfp.ml.implicit_reward.matched_contexts import MatchedContexts
    from lfp.ml.implicit_reward.word_occurrences import CorpusTokens, Drawn, KeptOutputs
    from lfp.ml.models.activations import PairTokens
    from lfp.ml.models.loading import LanguageModel
    from lfp.ml.models.tokenization import TokenizedText
    from lfp.ml.sae.autoencoders import Dictionary

Dictionaries = tuple["Dictionary", "Dictionary"]
"""The tuned model's, then the base model's: the same object where both share one."""


Spelled = tuple[str, tuple[int, ...], tuple[int, ...]]
"""What words are counted in, with token ids and starts: a text, or its responses alone, in their places."""


@dataclass(frozen=True)
class PassCorpus:
    """What the pass runs over, and what it draws from it.

    `drawn` are the tokens whose activations are kept, `contexts` [tokens] those whose contexts the regression of the
    implicit reward on word and context sees; `columns` are the columns of that regression.
    """

    texts: list[TokenizedText]
    tokens: CorpusTokens
    vocabulary: Vocabulary
    spelled: list[Spelled]
    columns: TokenColumns
    drawn: Drawn
    contexts: NDArray[np.bool_]


@dataclass(frozen=True)
class Filled:
    """What the pass fills; `reward` and `advantage` are [tokens of the corpus], NaN where undefined.

    `stats` see both models through the tuned model's dictionary, `mirror` through the base model's. `views` are what
    the dictionary reads of the kept tokens, empty where those are the activations in `kept`.
    """

    stats: FeatureStats
    mirror: dict[str, FeatureTotals]
    kept: dict[str, KeptOutputs]
    views: dict[str, KeptOutputs]
    differences: Differences
    matched: MatchedContexts
    reward: Floats
    advantage: Floats


def build_corpus(run: Run, tuned: LanguageModel, *, with_lexicon: bool) -> PassCorpus:
    """Tokenize the run's texts, build their vocabulary, and draw tokens and contexts by the run's seed.

    `with_lexicon` lets entries of the lexicon be words where no spaces are written.
    """
    from lfp.ml.implicit_reward.matched_contexts import draw_contexts
    from lfp.ml.implicit_reward.word_occurrences import CorpusTokens, draw

    probes, seed = run.config.probes, run.config.seed
    texts = read_statistics_texts(run)
    tokenized = tokenize_texts(run, tuned, texts)
    responses = mark_responses(texts, tokenized)
    stated = state_texts(texts, tokenized)
    spelled = [(text, row.token_ids, row.token_starts) for text, row in zip(stated, tokenized, strict=True)]
    vocabulary = build_vocabulary(run, stated, with_lexicon)
    words = [token_words(vocabulary, text, token_starts) for text, _, token_starts in spelled]
    tokens = CorpusTokens.from_texts(
        [text.text_id for text in texts], [text.token_ids for text in tokenized], words, responses
    )
    first = 0 if run.config.model.prepend_bos and tuned.bos_id is not None else 1  # else nothing precedes token 0
    return PassCorpus(
        tokenized,
        tokens,
        vocabulary,
        spelled,
        token_columns(vocabulary, spelled, d_vocab=tuned.d_vocab),
        draw(tokens, n_sample=probes.max_rows, per_word=probes.word_occurrences, first_position=first, seed=seed),
        draw_contexts(
            tokens.text_ids,
            tokens.positions,
            n=probes.matched_contexts,
            first_position=first,
            seed=seed,
            counts=tokens.in_response,
        ),
    )


def state_texts(texts: Sequence[CorpusText], tokenized: Sequence[TokenizedText]) -> list[str]:
    """Return what words are counted in: texts cut to their tokens, of dialogues what the assistant wrote, in place."""
    return [text.blanked[: len(tokens.text)] for text, tokens in zip(texts, tokenized, strict=True)]


def build_vocabulary(run: Run, stated: Sequence[str], with_lexicon: bool) -> Vocabulary:
    """Count the words of the run's texts, the same in every stage."""
    probes = run.config.probes
    return Vocabulary.from_texts(
        stated,
        min_count=probes.min_word_count,
        n_folds=probes.folds,
        seed=run.config.seed,
        lexicon=lexicon_of(run.config.feedback, beside=run.config_dir) if with_lexicon else (),
    )


def run_pass(
    run: Run,
    models: tuple[LanguageModel, LanguageModel],
    dictionaries: Dictionaries,
    corpus: PassCorpus,
    folder: Path,
) -> Filled:
    """Run `models` (tuned, base) over the corpus; the outputs that are kept go to `folder`."""
    import torch

    from lfp.ml.features.active import FeatureTotals
    from lfp.ml.features.differences import Differences
    from lfp.ml.features.statistics import FeatureStats
    from lfp.ml.implicit_reward.changes import watch_changes
    from lfp.ml.implicit_reward.matched_contexts import MatchedContexts
    from lfp.ml.implicit_reward.word_occurrences import KeptOutputs
    from lfp.ml.models.activations import Observer, stream_pair
    from lfp.ml.sae.views import find_change_places

    of_tuned, of_base = dictionaries
    n_tokens, width = len(corpus.tokens.token_ids), sum(sae.info.d_model for sae in of_tuned.saes)
    of_views = sum(sae.info.d_in for sae in of_tuned.saes)
    filled = Filled(
        stats=FeatureStats(of_tuned.n_features, run.config.stats),
        mirror={role: FeatureTotals(of_base.n_features) for role in ROLES},
        kept={
            role: KeptOutputs(folder / f"outputs-{role}.npy", corpus.drawn, n_tokens=n_tokens, width=width)
            for role in ROLES
        },
        views={
            role: KeptOutputs(folder / f"views-{role}.npy", corpus.drawn, n_tokens=n_tokens, width=of_views)
            for role in (ROLES if of_tuned.reads_pair else ())
        },
        differences=Differences({sae.info.place: sae.info.d_model for sae in of_tuned.saes}),
        matched=MatchedContexts(corpus.columns.columns, corpus.columns.n_columns),
        reward=np.full(n_tokens, np.nan),
        advantage=np.full(n_tokens, np.nan),
    )
    done = 0
    for tokens in stream_pair(
        *models,
        corpus.texts,
        places=of_tuned.places,
        changes=watch_changes(*models, find_change_places(of_tuned)),
        batch_texts=run.config.stats.batch_texts,
        prepend_bos=run.config.model.prepend_bos,
        observe=Observer(torch.from_numpy(corpus.contexts), filled.matched.update),
    ):
        n = len(tokens.tuned.ids)
        _update(filled, tokens, dictionaries, corpus.tokens, np.arange(done, done + n))
        done += n
        run.progress("features: tokens", done, n_tokens, float(done))
    filled.stats.flush()
    for kept in (*filled.kept.values(), *filled.views.values()):
        kept.values.flush()
    return filled


def _update(filled: Filled, tokens: PairTokens, dictionaries: Dictionaries, corpus: CorpusTokens, places: Ints) -> None:
    """Add a batch of whole texts, whose tokens stand at `places` in the corpus."""
    from lfp.ml.features.active import encode_active
    from lfp.ml.features.grouping import Places
    from lfp.ml.sae.views import view_places

    of_tuned, of_base = dictionaries
    views = {role: view_places(of_tuned, tokens, role) for role in ROLES}
    found = {role: encode_active(of_tuned, views[role]) for role in ROLES}
    filled.stats.update(
        Places(corpus.text_ids[places], corpus.positions[places], corpus.token_ids[places]),
        found["tuned"],
        found["base"],
    )
    outputs = {"tuned": tokens.tuned.outputs, "base": tokens.base.outputs}
    filled.differences.update(outputs["tuned"], outputs["base"])
    for role in ROLES:
        filled.mirror[role].update(found[role] if of_base is of_tuned else encode_active(of_base, outputs[role]))
        filled.kept[role].update(places, outputs[role])
        if filled.views:
            filled.views[role].update(places, views[role])
    filled.reward[places] = tokens.implicit_reward.double().numpy()
    filled.advantage[places] = tokens.implicit_advantage.double().numpy()
