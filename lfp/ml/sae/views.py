"""What a dictionary reads of a pair of models at a token, made of both models' activations.

Every part of a run that encodes features goes through here, so that it does not depend on what they were trained on:

| reads | features of the tuned model | features of the base model |
| --- | --- | --- |
| activations | of the tuned model's activations | of the base model's activations |
| change | of the change at the tuned model's inputs | of the change at the base model's inputs |
| pair | of both models' activations | of the base model's in the place of both |

The change is what the tuned model's module writes minus what the base model's writes for the same input; of the
residual stream, which no module of one input writes, it is tuned minus base, and so the same for both models.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from lfp.ml.models.activations import Changes, Tokens, stream
from lfp.ml.models.loading import LanguageModel
from lfp.ml.models.tokenization import TokenizedText
from lfp.ml.sae.autoencoders import Dictionary, Sae
from lfp.util.types import Place, Role


class Pair(Protocol):
    """The same tokens through both models, as `PairTokens` has them."""

    @property
    def tuned(self) -> Tokens:
        """The tokens through the tuned model."""

    @property
    def base(self) -> Tokens:
        """The tokens through the base model."""


@dataclass(frozen=True)
class TokenPair:
    """The same tokens through both models, without what the models predict."""

    tuned: Tokens
    base: Tokens

    def take(self, rows: slice) -> TokenPair:
        """Select tokens."""
        return TokenPair(_take(self.tuned, rows), _take(self.base, rows))

    def exchange(self) -> TokenPair:
        """Call the base model tuned and the tuned model base."""
        return TokenPair(_negate(self.base), _negate(self.tuned))

    @staticmethod
    def concatenate(parts: Sequence[TokenPair]) -> TokenPair:
        """Concatenate the tokens of one or more parts."""
        return TokenPair(_concatenate([part.tuned for part in parts]), _concatenate([part.base for part in parts]))


def view_pair(sae: Sae, pair: Pair, role: Role) -> Tensor:
    """Return what an autoencoder reads for the features of one model, [n, d_in]."""
    own, place = pair.tuned if role == "tuned" else pair.base, sae.info.place
    if sae.info.reads == "pair":
        return torch.cat([own.outputs[place], pair.base.outputs[place]], dim=1)
    if sae.info.reads == "change" and place.site != "resid_post":
        return own.changes[place]
    if sae.info.reads == "change":
        return pair.tuned.outputs[place] - pair.base.outputs[place]
    return own.outputs[place]


def view_places(dictionary: Dictionary, pair: Pair, role: Role) -> dict[Place, Tensor]:
    """Return what each autoencoder of a dictionary reads, by place, for `Dictionary.encode`."""
    return {sae.info.place: view_pair(sae, pair, role) for sae in dictionary.saes}


def find_change_places(dictionary: Dictionary) -> list[Place]:
    """List the places whose changes a dictionary reads."""
    return [sae.info.place for sae in dictionary.saes if sae.info.reads == "change"]


def stream_both(
    tuned: LanguageModel,
    base: LanguageModel,
    texts: Sequence[TokenizedText],
    *,
    places: Sequence[Place],
    batch_texts: int,
    prepend_bos: bool,
    changes: Changes | None = None,
) -> Iterator[TokenPair]:
    """Yield both models' activations at places, and what tuning changed at some, one batch of texts at a time."""
    options = {"places": places, "batch_texts": batch_texts, "prepend_bos": prepend_bos, "changes": changes}
    streams = (stream(model, texts, **options) for model in (tuned, base))  # type: ignore[arg-type]
    for pair in zip(*streams, strict=True):
        yield TokenPair(*pair)


def _take(tokens: Tokens, rows: slice) -> Tokens:
    return replace(
        tokens,
        rows=tokens.rows[rows],
        positions=tokens.positions[rows],
        ids=tokens.ids[rows],
        outputs={place: values[rows] for place, values in tokens.outputs.items()},
        changes={place: values[rows] for place, values in tokens.changes.items()},
    )


def _negate(tokens: Tokens) -> Tokens:
    return replace(tokens, changes={place: -values for place, values in tokens.changes.items()})


def _concatenate(parts: Sequence[Tokens]) -> Tokens:
    return Tokens(
        rows=torch.cat([part.rows for part in parts]),
        positions=torch.cat([part.positions for part in parts]),
        ids=torch.cat([part.ids for part in parts]),
        outputs={place: torch.cat([part.outputs[place] for part in parts]) for place in parts[0].outputs},
        changes={place: torch.cat([part.changes[place] for part in parts]) for place in parts[0].changes},
    )
