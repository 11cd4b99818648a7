"""The inputs of probes: the tuned model's features, and every control they are compared with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp

from lfp.util.types import Floats32, Ints
from precompute import pair
from precompute.probing.kept import Kept
from precompute.run import Run

if TYPE_CHECKING:
    import torch

    from lfp.ml.sae.autoencoders import Dictionary

MODELS = {
    "sae": "tuned",
    "raw": "tuned",
    "base_sae": "base",
    "base_raw": "base",
    "sae_of_base": "base",
    "random_sae": "tuned",
    "token_identity": "tuned",
}
"""Every kind of inputs, and the model whose activations they are; token identity reads none and goes with tuned."""
CONTROLS = ("random_sae", "token_identity")
"""Kinds that a config may leave out."""
OF_THE_BUNDLE = ("sae", "sae_of_base")
"""Kinds whose columns are the features of the bundle."""
COMPARED = {"sae": "base_sae", "raw": "base_raw"}
"""The tuned model's inputs, and the base model's by the same recipe."""


@dataclass(frozen=True)
class Inputs:
    """One kind of inputs. `encode` makes MLP outputs of its model and token ids [tokens] a matrix [tokens, columns].

    `layer_of` [columns] numbers the blocks of columns that enter a fit with unit mean square norm each.
    """

    name: str
    layer_of: Ints
    encode: Callable[[Floats32, Ints], sp.csr_array]

    @property
    def model(self) -> str:
        """The model whose MLP outputs it reads."""
        return MODELS[self.name]


def all_inputs(run: Run, kept: Kept) -> tuple[Inputs, ...]:
    """Every kind of inputs that the config wants, in the order of `MODELS`."""
    of_tuned, of_base = pair.dictionary(run, "tuned"), pair.dictionary(run, "base")
    dictionaries = {
        "sae": of_tuned,
        "base_sae": of_base,
        "sae_of_base": of_tuned,
        "random_sae": _random(run, of_tuned, kept),
    }
    block_of = np.repeat(np.array(of_tuned.layers, np.int64), [sae.info.d_in for sae in of_tuned.saes])
    made = {name: Inputs(name, one.layer_of, partial(_features, one)) for name, one in dictionaries.items()}
    made |= {name: Inputs(name, block_of, raw_columns) for name in ("raw", "base_raw")}
    ids = kept.corpus_token_ids
    made["token_identity"] = Inputs("token_identity", np.zeros(len(ids), np.int64), partial(one_hot, ids))
    left_out = set(CONTROLS) - set(run.config.probes.controls)
    return tuple(made[name] for name in MODELS if name not in left_out)


def by_layer(outputs: Floats32, dictionary: Dictionary) -> dict[int, torch.Tensor]:
    """MLP outputs as the dictionary takes them: [tokens, d_in] by layer."""
    import torch

    ends = np.cumsum([sae.info.d_in for sae in dictionary.saes])[:-1]
    parts = np.split(outputs, ends, axis=1)
    return {
        layer: torch.from_numpy(np.ascontiguousarray(part))
        for layer, part in zip(dictionary.layers, parts, strict=True)
    }


def _random(run: Run, like: Dictionary, kept: Kept) -> Dictionary:
    """Random directions with the used autoencoders' L0, centred on the mean output of sampled tokens."""
    from lfp.ml.sae.quality import random_dictionary

    l0 = {row["layer"]: row["l0"] for row in run.json("saes", "saes") if row["is_used"]}
    centres = by_layer(kept.mean_outputs("tuned")[None], like)
    return random_dictionary(
        like,
        l0=[l0[layer] for layer in like.layers],
        centres={layer: centre[0] for layer, centre in centres.items()},
        seed=run.config.seed,
    )


def _features(dictionary: Dictionary, outputs: Floats32, token_ids: Ints) -> sp.csr_array:  # noqa: ARG001 (the form of encode)
    from lfp.ml.features.active import encode_active

    found = encode_active(dictionary, by_layer(outputs, dictionary))
    return sp.csr_array((found.values, found.features, found.offsets), shape=(found.n_tokens, found.n_features))


def raw_columns(outputs: Floats32, token_ids: Ints) -> sp.csr_array:  # noqa: ARG001 (the form of encode)
    """MLP outputs as they are, all of their entries stored."""
    n, width = outputs.shape
    columns = np.tile(np.arange(width, dtype=np.int32), n)
    return sp.csr_array((np.asarray(outputs).ravel(), columns, np.arange(n + 1) * width), shape=(n, width))


def one_hot(known: Ints, outputs: Floats32, token_ids: Ints) -> sp.csr_array:  # noqa: ARG001 (the form of encode)
    """A column a known token id; a token that is none of them has a row of zeros."""
    columns = np.minimum(np.searchsorted(known, token_ids), len(known) - 1)
    is_known = known[columns] == token_ids
    offsets = np.concatenate([[0], np.cumsum(is_known)])
    ones = np.ones(int(is_known.sum()), np.float32)
    return sp.csr_array((ones, columns[is_known], offsets), shape=(len(token_ids), len(known)))
