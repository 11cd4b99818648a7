"""Stage `credits`: the implicit reward of texts and words split exactly over the modules that tuning changed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from lfp.bundle.schema import as_table
from lfp.evaluation.module_credits import (
    FULL,
    SAME_POSITION,
    Credits,
    Key,
    layer_shares,
    word_credits,
)
from lfp.evaluation.results import ELSEWHERE
from lfp.evaluation.statistics.resampling import number_pairs
from lfp.texts.corpus import CorpusText
from lfp.texts.vocabulary import Vocabulary, token_words
from lfp.util.types import SITES, Flags, Floats, Ints
from precompute.run.executor import Shelf
from precompute.run.inputs import load_pair, read_statistics_texts, tokenize_texts
from precompute.run.work_folder import Output, Run
from precompute.stages.features.corpus_pass import build_vocabulary, state_texts
from precompute.stages.models.credit_shards import SplitTexts, read_split_texts, split_reward
from precompute.stages.models.twins import load_twins

if TYPE_CHECKING:
    from lfp.ml.implicit_reward.ledger import ModuleCredits, TokenCredits
    from lfp.ml.models.tokenization import TokenizedText

_ELSEWHERE: Key = (None, ELSEWHERE)


def run(run: Run, output: Output, *, with_lexicon: bool = False) -> None:
    """Write the tables module_credits and word_credits, what `read_credits` reads, and JSON files.

    texts.json holds the columns of the table `texts` that say how a text was split, by its number; layers.json each
    layer's share of credit by site; facts.json the cost and the number of twins; notes.json sentences. Words are those
    of the vocabulary; `with_lexicon` lets entries of the lexicon be words where no spaces are written.
    """
    settings, all_texts = run.config.credits, read_statistics_texts(run)
    base, tuned = load_pair(run, exact=True)
    split = read_split_texts(run, tuned, settings.n_texts)
    texts, tokenized, counted = split
    found = split_reward(run, (base, tuned), split, by_token=settings.by_token, shelf=Shelf(output.scratch, "credits"))
    full, same = collect_credits(found, split)
    _write_credits(output, full, FULL)
    _write_credits(output, same, SAME_POSITION)
    n_twins = 0
    for twin in load_twins(run):
        name = f"twin-{n_twins}"
        shelf = Shelf(output.scratch, name)
        of_twin = split_reward(
            run, (base, twin), split, by_token=0, shelf=shelf, twin=n_twins, base_likelihood=found.base
        )
        _write_credits(output, collect_credits(of_twin, split)[0], name)
        n_twins += 1
    text_ids = [text.text_id for text in texts]
    output.table("module_credits", _text_table(text_ids, full, same))
    vocabulary = build_vocabulary(run, state_texts(all_texts, tokenize_texts(run, tuned, all_texts)), with_lexicon)
    output.table("word_credits", _word_table(vocabulary, found, texts[: len(found.tokens)], tokenized, counted))
    checks = zip(text_ids, found.reward.tolist(), found.error.tolist(), found.nodes.tolist(), strict=True)
    names = ("credit_reward", "credit_error", "credit_nodes")
    output.json("texts", {text_id: dict(zip(names, values, strict=True)) for text_id, *values in checks})
    shares = {site: layer_shares(full, [site], base.n_layers).tolist() for site in SITES}
    output.json("layers", shares)
    output.json("facts", {"forward_passes": found.forward_passes, "twins": n_twins})
    output.json("notes", list(_write_notes(found)))


def _write_credits(output: Output, credits: Credits, name: str) -> None:
    np.savez(
        output.folder / f"{name}.npz",
        allow_pickle=False,
        layers=np.array([-1 if layer is None else layer for layer, _ in credits.modules], np.int64),
        kinds=np.array([kind for _, kind in credits.modules], np.str_),
        values=credits.values,
        reward=credits.reward,
        n_tokens=credits.n_tokens,
        groups=credits.groups,
        **({} if credits.by_token is None else {"by_token": credits.by_token}),
    )


def read_credits(run: Run, name: str = FULL) -> Credits:
    """Read the credits of a run's texts: on the full path, on the same position, or those of a twin, twin-0 and up."""
    with np.load(run.folder("credits") / f"{name}.npz") as stored:
        pairs = zip(stored["layers"].tolist(), stored["kinds"].tolist(), strict=True)
        modules = tuple((None if layer < 0 else layer, kind) for layer, kind in pairs)
        names = ("values", "reward", "n_tokens", "groups", "by_token")
        arrays = {name: stored[name] for name in names if name in stored}
    return Credits(modules, **arrays, path=SAME_POSITION if name == SAME_POSITION else FULL)


def collect_credits(found: ModuleCredits, split: SplitTexts) -> tuple[Credits, Credits]:
    """Return the credits of texts on the full path, and of the first of them on the same position."""
    full = Credits(
        tuple((module.layer, module.kind) for module in found.modules),
        found.credits,
        found.reward,
        np.array([flags.sum() for flags in split.counted], np.int64),
        number_pairs([text.pair_id for text in split.texts]),
    )
    n, same = len(found.tokens), found.same_position
    elsewhere = (found.reward[:n] - same.sum(1))[:, None]
    sizes = [_sum_sizes(text, flags) for text, flags in zip(found.tokens, split.counted[:n], strict=True)]
    return full, replace(
        full,
        modules=(*full.modules, _ELSEWHERE),
        values=np.hstack([same, elsewhere]),
        reward=full.reward[:n],
        n_tokens=full.n_tokens[:n],
        groups=full.groups[:n],
        path=SAME_POSITION,
        by_token=np.array(sizes, np.float64).reshape(n, same.shape[1] + 1),
    )


def _sum_sizes(text: TokenCredits, counted: Flags) -> Floats:
    """Sum a text's absolute credits on the same position over the tokens that count [modules and elsewhere]."""
    parts = np.column_stack([text.same_position, text.reward - text.same_position.sum(1)])
    return np.nan_to_num(np.abs(parts[counted])).sum(0)


def _text_table(text_ids: Sequence[int], *paths: Credits) -> pa.Table:
    parts = []
    for credits in paths:
        n, k = credits.values.shape
        parts.append(
            as_table(
                "module_credits",
                {
                    "text_id": np.repeat(np.asarray(text_ids[:n], np.int64), k),
                    "path": [credits.path] * (n * k),
                    "layer": pa.array([layer for layer, _ in credits.modules] * n, pa.int32()),
                    "module": [kind for _, kind in credits.modules] * n,
                    "credit": credits.values.ravel(),
                },
            )
        )
    return pa.concat_tables(parts)


def _word_table(
    vocabulary: Vocabulary,
    found: ModuleCredits,
    texts: Sequence[CorpusText],
    tokenized: Sequence[TokenizedText],
    counted: Sequence[Flags],
) -> pa.Table:
    """Average the credits before the words of texts over their contexts, of those words whose tokens all count.

    Intervals are over texts, pairs whole.
    """
    from lfp.ml.implicit_reward.word_occurrences import CorpusTokens

    modules: list[Key] = [(module.layer, module.kind) for module in found.modules]
    if not texts or not modules:
        return as_table("word_credits", [])
    tokenized = tokenized[: len(texts)]
    stated = state_texts(texts, tokenized)
    words = [token_words(vocabulary, text, row.token_starts) for text, row in zip(stated, tokenized, strict=True)]
    corpus = CorpusTokens.from_texts(
        [text.text_id for text in texts], [text.token_ids for text in tokenized], words, counted[: len(texts)]
    )
    occurrences = corpus.occurrences()
    spans = occurrences.firsts, occurrences.lasts
    same = np.concatenate([text.same_position for text in found.tokens])
    reward = np.concatenate([text.reward for text in found.tokens])
    paths: dict[str, tuple[list[Key], Floats]] = {
        SAME_POSITION: ([*modules, _ELSEWHERE], np.column_stack([same, reward - same.sum(1)])),
        FULL: (modules, np.concatenate([text.full for text in found.tokens])),
    }
    is_counted = _sum_spans(corpus.in_response[:, None].astype(float), *spans)[:, 0] == spans[1] - spans[0] + 1
    is_counted &= np.isfinite(_sum_spans(reward[:, None], *spans)[:, 0])
    of_text = dict(zip([text.text_id for text in texts], number_pairs([text.pair_id for text in texts]), strict=True))
    groups = np.array([of_text[text_id] for text_id in corpus.text_ids[spans[0][is_counted]].tolist()], np.int64)
    parts = []
    for path, (keys, values) in paths.items():
        of_words = _sum_spans(np.nan_to_num(values), *spans)[is_counted]
        means = word_credits(of_words, occurrences.words[is_counted], len(vocabulary.words), groups=groups)
        used, k = np.flatnonzero(means.n), len(keys)
        ends = {name: getattr(means, name)[used].ravel() for name in ("low", "high")}
        columns: dict[str, Any] = {
            "word": np.repeat(np.array(vocabulary.words, dtype=object)[used], k).tolist(),
            "path": [path] * (len(used) * k),
            "layer": pa.array([layer for layer, _ in keys] * len(used), pa.int32()),
            "module": [kind for _, kind in keys] * len(used),
            "mean": means.mean[used].ravel(),
            "n": np.repeat(means.n[used], k),
        }
        columns |= {f"ci_{name}": pa.array(values, mask=np.isnan(values)) for name, values in ends.items()}
        parts.append(as_table("word_credits", columns))
    return pa.concat_tables(parts)


def _sum_spans(values: Floats, firsts: Ints, lasts: Ints) -> Floats:
    """Sum rows of values [tokens, k] from each first to each last token [occurrences, k]; NaN where one is."""
    total = np.zeros((len(firsts), values.shape[1]))
    for back in range(int((lasts - firsts).max(initial=-1)) + 1):
        inside = np.flatnonzero(lasts - back >= firsts)
        total[inside] += values[lasts[inside] - back]
    return total


def _write_notes(found: ModuleCredits) -> Iterator[str]:
    """Say what a reader of the credits must know."""
    if not found.modules:
        yield "Base and tuned model are equal: there is no implicit reward to split, and all credits are 0."
    if found.unknown:
        names = ", ".join(found.unknown[:3]) + (f" and {len(found.unknown) - 3} more" if found.unknown[3:] else "")
        yield f"The credit of modules that the ledger has no name for is listed as other: {names}."
    if found.switches:
        yield (
            f"{found.switches[0]} chooses between experts, so that the implicit reward jumps along the path of weights;"
            f" what the integral misses, up to {found.error.max():.2%} of a text's credits, is listed as other."
        )
