"""Inputs of probes: features, the controls that they are compared with, and the tokens that both are read on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from lfp.util.types import ROLES, Floats, Floats32, Ints, Place, Role
from precompute.run.inputs import RANDOM_DECODER, load_dictionaries, load_dictionary
from precompute.run.work_folder import Run
from precompute.stages.features.reseeded import load_reseeded

if TYPE_CHECKING:
    import torch

    from lfp.ml.models.activations import Changes
    from lfp.ml.models.loading import LanguageModel
    from lfp.ml.sae.autoencoders import Dictionary
    from lfp.ml.sae.views import Pair

MODELS: dict[str, Role] = {
    "sae": "tuned",
    "raw": "tuned",
    "base_sae": "base",
    "base_raw": "base",
    "sae_of_base": "base",
    "random_sae": "tuned",
    "trained_random_sae": "tuned",
    "difference_in_means": "tuned",
    "token_identity": "tuned",
}
"""Every kind of inputs, and the model whose activations it reads; token identity reads none and counts as tuned."""
DIFFERENCE_IN_MEANS = "difference_in_means"
"""Raw activations, along the difference of two means in place of a ridge."""
CONTROLS = ("random_sae", "trained_random_sae", DIFFERENCE_IN_MEANS, "token_identity")
"""Kinds that a config may leave out."""
OF_THE_BUNDLE = ("sae", "sae_of_base")
"""Kinds whose columns are the features of the bundle."""
COMPARED = {"sae": "base_sae", "raw": "base_raw"}
"""The tuned model's inputs, and the base model's by the same recipe."""
WITH_ALPHA_OF = {"sae_of_base": "sae", "random_sae": "sae", "trained_random_sae": "sae"}
"""Kinds that are compared with the tuned model's features too, and so have their alpha."""
_CHUNK = 2**14
"""Tokens encoded at a time."""


def probe_keys(target: str, inputs: str, split: str) -> dict[str, Any]:
    """Return what names a probe and how it is judged in rows of the report."""
    return {"model": MODELS[inputs], "target": target, "inputs": inputs, "split": split}


@dataclass(frozen=True)
class Inputs:
    """A kind of inputs. `encode` turns activations of its model and token ids [tokens] into a matrix [tokens, columns].

    `place_of` [columns] numbers the blocks of columns that enter a fit with unit mean square norm each. Where its
    `dictionary` reads more than a model's activations, `encode` takes what it reads in place of them.
    """

    name: str
    place_of: Ints
    encode: Callable[[Floats32, Ints], sp.csr_array]
    dictionary: Dictionary | None = None
    number: int = 0
    """Which of the dictionaries from several seeds it reads through, 0 for the run's own."""

    @property
    def key(self) -> str:
        """Its name, followed by the number of a further seed."""
        return f"{self.name}:{self.number}" if self.number else self.name

    @property
    def model(self) -> Role:
        """The model whose activations it reads."""
        return MODELS[self.name]

    @property
    def source(self) -> str:
        """What of tokens it encodes, a key of `Kept.outputs`: activations of its model, or what a dictionary reads."""
        return f"{self.model}_view" if self.dictionary and self.dictionary.reads_pair else self.model

    def read(self, pair: Pair) -> Floats32:
        """Return what it encodes of tokens [tokens, columns], places side by side in order."""
        import torch

        from lfp.ml.sae.views import view_places

        own = (pair.tuned if self.model == "tuned" else pair.base).outputs
        if self.dictionary and self.dictionary.reads_pair:
            own = view_places(self.dictionary, pair, self.model)
        return torch.cat([own[place].float() for place in sorted(own)], dim=1).numpy()


def build_inputs(run: Run, kept: Kept) -> tuple[Inputs, ...]:
    """Build every kind of inputs that the config asks for, in the order of `MODELS`."""
    of_tuned, of_base = load_dictionaries(run)
    dictionaries = {
        "sae": of_tuned,
        "base_sae": of_base,
        "sae_of_base": of_tuned,
        "random_sae": _build_random(run, of_tuned, kept),
    }
    left_out = set(CONTROLS) - set(run.config.probes.controls)
    if "trained_random_sae" not in left_out:
        dictionaries["trained_random_sae"] = load_dictionary(run, RANDOM_DECODER)
    block_of = np.repeat(np.arange(len(of_tuned.saes)), [sae.info.d_model for sae in of_tuned.saes])
    made = {name: Inputs(name, each.place_of, partial(_features, each), each) for name, each in dictionaries.items()}
    made |= {name: Inputs(name, block_of, raw_columns) for name in ("raw", "base_raw", DIFFERENCE_IN_MEANS)}
    ids = kept.corpus_token_ids
    made["token_identity"] = Inputs("token_identity", np.zeros(len(ids), np.int64), partial(one_hot, ids))
    return tuple(made[name] for name in MODELS if name not in left_out)


def watch_inputs(models: tuple[LanguageModel, LanguageModel], inputs: Sequence[Inputs]) -> Changes | None:
    """Return what reads the changes that inputs need of `models` (tuned, base); None where they need none."""
    from lfp.ml.implicit_reward.changes import watch_changes
    from lfp.ml.sae.views import find_change_places

    places = [find_change_places(kind.dictionary) for kind in inputs if kind.dictionary is not None]
    return watch_changes(*models, sorted({place for of_kind in places for place in of_kind}))


def build_reseeded(run: Run) -> list[tuple[Inputs, Inputs]]:
    """Build the features of tuned and base model through their dictionaries of every further seed."""
    found = []
    for number in range(1, run.config.probes.dictionary_seeds):
        sides = {name: load_reseeded(run, MODELS[name], number) for name in ("sae", "base_sae")}
        tuned, base = (
            Inputs(name, each.place_of, partial(_features, each), number=number) for name, each in sides.items()
        )
        found.append((tuned, base))
    return found


def by_place(outputs: Floats32, dictionary: Dictionary) -> dict[Place, torch.Tensor]:
    """Split what a dictionary reads [tokens, sum of d_in] into that of each place, [tokens, d_in]."""
    import torch

    ends = np.cumsum([sae.info.d_in for sae in dictionary.saes])[:-1]
    parts = np.split(outputs, ends, axis=1)
    return {
        place: torch.from_numpy(np.ascontiguousarray(part))
        for place, part in zip(dictionary.places, parts, strict=True)
    }


def _build_random(run: Run, like: Dictionary, kept: Kept) -> Dictionary:
    """Build a dictionary of random directions with the L0 of the used dictionaries, centred on the sample's mean."""
    import torch

    from lfp.ml.sae.quality import random_dictionary

    l0 = {Place(row["layer"], row["site"]): row["l0"] for row in run.json("saes", "saes") if row["is_used"]}
    ends = np.cumsum([sae.info.d_model for sae in like.saes])[:-1]
    centres = np.split(kept.mean_outputs("tuned"), ends)
    return random_dictionary(
        like,
        l0=[l0[place] for place in like.places],
        centres={place: torch.from_numpy(centre) for place, centre in zip(like.places, centres, strict=True)},
        seed=run.config.seed,
    )


def _features(dictionary: Dictionary, outputs: Floats32, token_ids: Ints) -> sp.csr_array:  # noqa: ARG001 (the form of encode)
    from lfp.ml.features.active import encode_active

    found = encode_active(dictionary, by_place(outputs, dictionary))
    return sp.csr_array((found.values, found.features, found.offsets), shape=(found.n_tokens, found.n_features))


def raw_columns(outputs: Floats32, token_ids: Ints) -> sp.csr_array:  # noqa: ARG001 (the form of encode)
    """Return activations as they are, all of their entries stored."""
    n, width = outputs.shape
    columns = np.tile(np.arange(width, dtype=np.int32), n)
    return sp.csr_array((np.asarray(outputs).ravel(), columns, np.arange(n + 1) * width), shape=(n, width))


def one_hot(known: Ints, outputs: Floats32, token_ids: Ints) -> sp.csr_array:  # noqa: ARG001 (the form of encode)
    """Return a column per known token id; any other token has a row of zeros."""
    columns = np.minimum(np.searchsorted(known, token_ids), len(known) - 1)
    is_known = known[columns] == token_ids
    offsets = np.concatenate([[0], np.cumsum(is_known)])
    ones = np.ones(int(is_known.sum()), np.float32)
    return sp.csr_array((ones, columns[is_known], offsets), shape=(len(token_ids), len(known)))


@dataclass(frozen=True)
class Kept:
    """Tokens by slot, and the occurrences of words among them (see `lfp.ml.implicit_reward.word_occurrences.Drawn`).

    `words` (-1 for none), `token_ids`, `reward` and `advantage` (r_t and c_t, NaN where undefined) are [slots];
    `sample` [rows] are slots drawn evenly, `before` [rows] those of the tokens before, -1 for none; occurrence i of
    `occurrence_words[i]` has the slots `occurrence_starts[i]` to `occurrence_ends[i] - 1`. `outputs` by model are
    [slots, sum of d_model], on disk; beside them, as `tuned_view` and `base_view`, what a dictionary reads that needs
    both models, [slots, sum of d_in].
    """

    words: Ints
    token_ids: Ints
    reward: Floats
    advantage: Floats
    sample: Ints
    before: Ints
    occurrence_words: Ints
    occurrence_starts: Ints
    occurrence_ends: Ints
    corpus_token_ids: Ints
    outputs: Mapping[str, NDArray[np.float32]]

    @staticmethod
    def load(run: Run) -> Kept:
        """Load what the features stage kept."""
        folder = run.folder("features")
        with np.load(folder / "kept.npz") as stored:
            files: dict[str, Path] = {role: folder / f"outputs-{role}.npy" for role in ROLES}
            files |= {f"{role}_view": folder / f"views-{role}.npy" for role in ROLES}
            outputs = {name: np.load(file, mmap_mode="r") for name, file in files.items() if file.is_file()}
            return Kept(**stored, outputs=outputs)

    def __getstate__(self) -> dict[str, Any]:
        """Send what is on disk to another process as files, which it opens for itself."""
        sent = {
            name: Path(of_slots.filename) if isinstance(of_slots, np.memmap) and of_slots.filename else of_slots
            for name, of_slots in self.outputs.items()
        }
        return vars(self) | {"outputs": sent}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Open the files."""
        opened = {
            name: np.load(sent, mmap_mode="r") if isinstance(sent, Path) else sent
            for name, sent in state["outputs"].items()
        }
        vars(self).update(state | {"outputs": opened})

    def mean_outputs(self, model: str) -> NDArray[np.float32]:
        """Return the mean activations [sum of d_in] of the sampled tokens."""
        total = np.zeros(self.outputs[model].shape[1])
        for part in np.array_split(self.sample, len(self.sample) // _CHUNK + 1):
            total += self.outputs[model][part].sum(axis=0, dtype=np.float64)
        return (total / max(1, len(self.sample))).astype(np.float32)

    def lasts_of(self, is_wanted: NDArray[np.bool_], limit: int) -> tuple[Ints, Ints]:
        """Return slots of the last tokens of the wanted words' occurrences, ascending, and the word of each.

        Of more than `limit`, as many of every word as fit are kept, so that frequent words lose tokens first.
        """
        chosen = np.flatnonzero(is_wanted[self.occurrence_words])
        words = self.occurrence_words[chosen]
        rank = np.arange(len(words)) - np.searchsorted(words, words)
        per_word = int(rank.max(initial=0)) + 1
        while per_word > 1 and (rank < per_word).sum() > limit:
            per_word -= 1
        kept = rank < per_word
        return self.occurrence_ends[chosen[kept]] - 1, words[kept]


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
    """A kind of inputs over the kept tokens: means of words, and the requested rows, by name."""

    words: WordFeatures
    rows: Mapping[str, sp.csr_array]


def encode_kept(
    kept: Kept,
    encode: Callable[[NDArray[np.float32], Ints], sp.csr_array],
    *,
    source: str,
    n_words: int,
    rows: Mapping[str, Ints],
) -> Encoded:
    """Encode all slots of `Kept.outputs` in chunks.

    Features of the slots in `rows`, ascending and by name, are returned as they are.
    """
    averaging, tokens = _averaging(kept, n_words)
    parts: dict[str, list[sp.csr_array]] = {name: [] for name in rows}
    means: dict[str, sp.csr_array] = {}
    n_slots = len(kept.words)
    for start in range(0, n_slots, _CHUNK):
        end = min(n_slots, start + _CHUNK)
        features = encode(np.array(kept.outputs[source][start:end]), kept.token_ids[start:end])
        for name, slots in rows.items():
            low, high = np.searchsorted(slots, [start, end])
            parts[name].append(features[slots[low:high] - start])
        for name, weights in averaging.items():
            part = sp.csr_array(weights[start:end].T @ features)
            means[name] = means[name] + part if name in means else part
    words = WordFeatures(means["at_last"], means["over_tokens"], tokens)
    return Encoded(words, {name: sp.csr_array(sp.vstack(some, format="csr")) for name, some in parts.items()})


def _averaging(kept: Kept, n_words: int) -> tuple[dict[str, sp.csr_array], Floats]:
    """Return the weight of slots in the means of words, [slots, words] by name, and tokens per occurrence [words]."""
    words, starts, ends = kept.occurrence_words, kept.occurrence_starts, kept.occurrence_ends
    lengths = ends - starts
    share = 1.0 / np.bincount(words, minlength=n_words)[words]
    inside = np.repeat(starts - np.cumsum(lengths) + lengths, lengths) + np.arange(lengths.sum())
    shape = (len(kept.words), n_words)
    averaging = {
        "at_last": sp.csr_array((share, (ends - 1, words)), shape=shape),
        "over_tokens": sp.csr_array((np.repeat(share, lengths), (inside, np.repeat(words, lengths))), shape=shape),
    }
    return averaging, np.bincount(words, lengths * share, minlength=n_words).astype(np.float64)


def scaled_columns(features: sp.csr_array, scales: Floats) -> sp.csr_array:
    """Multiply each column by its factor; entries that are not stored stay so."""
    return sp.csr_array((features.data * scales[features.indices], features.indices, features.indptr), features.shape)
