"""The tokens whose MLP outputs stage `features` kept, and what one pass over them gives a kind of inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from lfp.util.types import Floats, Ints
from precompute.run import Run

_CHUNK = 2**14
"""Tokens that are encoded at a time."""


@dataclass(frozen=True)
class Kept:
    """Tokens by slot, and the occurrences of words among them (see `lfp.ml.implicit_reward.word_occurrences.Drawn`).

    `words` (-1 for none), `token_ids`, `reward` and `advantage` (r_t and c_t, NaN where undefined) are [slots];
    `sample` [rows] are slots drawn evenly, `before` [rows] those of the tokens before, -1 for none; occurrence i of
    `occurrence_words[i]` has the slots `starts[i]` to `ends[i] - 1`. `outputs` by model are [slots, sum of d_in], on
    disk.
    """

    words: Ints
    token_ids: Ints
    reward: Floats
    advantage: Floats
    sample: Ints
    before: Ints
    occurrence_words: Ints
    starts: Ints
    ends: Ints
    corpus_token_ids: Ints
    outputs: Mapping[str, NDArray[np.float32]]

    @staticmethod
    def load(run: Run) -> Kept:
        """What the run's features stage kept."""
        folder = run.folder("features")
        with np.load(folder / "kept.npz") as stored:
            return Kept(
                words=stored["words"],
                token_ids=stored["token_ids"],
                reward=stored["reward"],
                advantage=stored["advantage"],
                sample=stored["sample"],
                before=stored["before"],
                occurrence_words=stored["occurrence_words"],
                starts=stored["occurrence_starts"],
                ends=stored["occurrence_ends"],
                corpus_token_ids=stored["corpus_token_ids"],
                outputs={m: np.load(folder / f"outputs-{m}.npy", mmap_mode="r") for m in ("tuned", "base")},
            )

    def mean_outputs(self, model: str) -> NDArray[np.float32]:
        """The mean MLP output [sum of d_in] of the sampled tokens."""
        total = np.zeros(self.outputs[model].shape[1])
        for part in np.array_split(self.sample, len(self.sample) // _CHUNK + 1):
            total += self.outputs[model][part].sum(axis=0, dtype=np.float64)
        return (total / max(1, len(self.sample))).astype(np.float32)

    def lasts_of(self, is_wanted: NDArray[np.bool_], limit: int) -> tuple[Ints, Ints]:
        """Slots of the last tokens of the wanted words' occurrences, ascending, and each one's word.

        Where there are more than `limit`, as many of every word as fit, so that a frequent word gives way first.
        """
        chosen = np.flatnonzero(is_wanted[self.occurrence_words])
        words = self.occurrence_words[chosen]
        rank = np.arange(len(words)) - np.searchsorted(words, words)
        per_word = int(rank.max(initial=0)) + 1
        while per_word > 1 and (rank < per_word).sum() > limit:
            per_word -= 1
        kept = rank < per_word
        return self.ends[chosen[kept]] - 1, words[kept]


@dataclass(frozen=True)
class WordFeatures:
    """Mean features of words over their drawn occurrences, [words, columns].

    `at_last` is of an occurrence's last token, `over_tokens` the sum over its tokens, of which it has `tokens` [words]
    on average; a word without an occurrence has zeros.
    """

    at_last: sp.csr_array
    over_tokens: sp.csr_array
    tokens: Floats


@dataclass(frozen=True)
class Encoded:
    """What one pass over the kept tokens gives a kind of inputs: words' means, and the rows asked for, by name."""

    words: WordFeatures
    rows: Mapping[str, sp.csr_array]


def encode_kept(
    kept: Kept,
    encode: Callable[[NDArray[np.float32], Ints], sp.csr_array],
    *,
    model: str,
    n_words: int,
    rows: Mapping[str, Ints],
) -> Encoded:
    """Encodes all slots, some at a time. `rows` names slots, ascending, whose features are wanted as they are."""
    averaging, tokens = _averaging(kept, n_words)
    parts: dict[str, list[sp.csr_array]] = {name: [] for name in rows}
    means: dict[str, sp.csr_array] = {}
    for start, end in _chunks(len(kept.words)):
        features = encode(np.array(kept.outputs[model][start:end]), kept.token_ids[start:end])
        for name, slots in rows.items():
            low, high = np.searchsorted(slots, [start, end])
            parts[name].append(features[slots[low:high] - start])
        for name, weights in averaging.items():
            part = sp.csr_array(weights[start:end].T @ features)
            means[name] = means[name] + part if name in means else part
    words = WordFeatures(means["at_last"], means["over_tokens"], tokens)
    return Encoded(words, {name: sp.csr_array(sp.vstack(some, format="csr")) for name, some in parts.items()})


def _averaging(kept: Kept, n_words: int) -> tuple[dict[str, sp.csr_array], Floats]:
    """What each slot counts for in each word's means, [slots, words] by name, and tokens an occurrence [words]."""
    words, lengths = kept.occurrence_words, kept.ends - kept.starts
    share = 1.0 / np.bincount(words, minlength=n_words)[words]
    inside = np.repeat(kept.starts - np.cumsum(lengths) + lengths, lengths) + np.arange(lengths.sum())
    shape = (len(kept.words), n_words)
    averaging = {
        "at_last": sp.csr_array((share, (kept.ends - 1, words)), shape=shape),
        "over_tokens": sp.csr_array((np.repeat(share, lengths), (inside, np.repeat(words, lengths))), shape=shape),
    }
    return averaging, np.bincount(words, lengths * share, minlength=n_words).astype(np.float64)


def _chunks(n: int) -> Iterator[tuple[int, int]]:
    return ((start, min(n, start + _CHUNK)) for start in range(0, n, _CHUNK))


def scaled_columns(features: sp.csr_array, scales: Floats) -> sp.csr_array:
    """Each column times its factor; what is not stored stays so."""
    return sp.csr_array((features.data * scales[features.indices], features.indices, features.indptr), features.shape)
