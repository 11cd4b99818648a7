"""What dictionaries are trained on and judged by: a model's activations, or what is made of both models'."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Self

import numpy as np

from lfp.config import TrainedOn
from lfp.util.types import Place, Role
from precompute.run.inputs import load_pair, load_role, read_places, read_texts, tokenize_texts
from precompute.run.work_folder import Run

if TYPE_CHECKING:
    from torch import Tensor

    from lfp.ml.models.loading import LanguageModel
    from lfp.ml.models.tokenization import TokenizedText
    from lfp.ml.sae.activation_sources import ActivationSource
    from lfp.ml.sae.quality import RecoveredLoss
    from lfp.ml.sae.views import TokenPair

HELD_OUT_TOKENS = 20_000
_CROSS_ENTROPY_TEXTS = 200


@dataclass(frozen=True)
class Subject:
    """A model of the pair, and what its dictionaries are trained on and judged by; all of it loaded when first used."""

    run: Run
    role: Role
    loaded: LanguageModel | None = None
    """The model, where it is loaded already."""
    is_control: bool = False
    """Whether its dictionaries are of no use but to compare others with: then they have one size."""
    only: tuple[Place, ...] = ()
    """Places that are read where not all of the run's are."""
    stands_in: bool = False
    """Whether models stand in for the run's own, so that another process cannot load them."""

    @cached_property
    def model(self) -> LanguageModel:
        """Model that the dictionaries read."""
        return self.loaded or load_role(self.run, self.role)

    @cached_property
    def places(self) -> list[Place]:
        """Places that are read."""
        return list(self.only) or read_places(self.run)

    def unloaded(self, run: Run) -> Self:
        """Return it without what is loaded, for a run in another process."""
        return replace(self, run=run, loaded=None)

    def narrow(self, places: Sequence[Place]) -> Self:
        """Return it with some of its places, by the same models."""
        return replace(self, only=tuple(places), loaded=self.model)

    @property
    def reads(self) -> str:
        """What its dictionaries are trained on, as `SaeInfo.trained_on` records it."""
        return self.role

    @property
    def rows_per_token(self) -> int:
        """Rows that a token has in what is read."""
        return 1

    def texts(self, split: str) -> list[TokenizedText]:
        """Tokenize the texts of a split, in an order drawn by the seed."""
        texts = tokenize_texts(self.run, self.model, read_texts(self.run, split))
        return [texts[i] for i in np.random.default_rng(self.run.config.seed).permutation(len(texts))]

    def read(self, texts: Sequence[TokenizedText]) -> Iterator[Mapping[Place, Tensor]]:
        """Yield what the dictionaries read of texts [n, d_in], by place, one batch of texts at a time."""
        from lfp.ml.models.activations import stream

        config = self.run.config
        for tokens in stream(
            self.model,
            texts,
            places=self.places,
            batch_texts=config.stats.batch_texts,
            prepend_bos=config.model.prepend_bos,
        ):
            yield tokens.outputs

    def prepare(self, read: Tensor) -> Tensor:
        """Return what is trained on of what the dictionaries read [n, d_in]: all of it as it is."""
        return read

    def source(self) -> ActivationSource:
        """Open the training batches of all places: held in memory, or streamed where the config has a buffer."""
        from lfp.ml.sae.activation_sources import HeldActivations, StreamedActivations

        config, seed = self.run.config.sae, self.run.config.seed
        if config.buffer_tokens is None:
            held = self.collect("train", config.train_tokens)
            device = self.run.config.model.device
            placed = {place: self.prepare(values).to(device) for place, values in held.items()}
            return HeldActivations(placed, config.batch_tokens, seed)
        return StreamedActivations(
            self._read_whole,
            self.texts("train"),
            batch_tokens=config.batch_tokens,
            buffer_tokens=config.buffer_tokens,
            seed=seed,
            rows_per_token=self.rows_per_token,
        )

    @cached_property
    def held_out(self) -> dict[Place, Tensor]:
        """What the dictionaries read of held-out texts, [n, d_in] by place."""
        return self.collect("held_out", HELD_OUT_TOKENS)

    def collect(self, split: str, n_tokens: int) -> dict[Place, Tensor]:
        """Collect what the dictionaries read of so many tokens of a split, fewer where it has fewer tokens."""
        import torch

        parts: dict[Place, list[Tensor]] = {place: [] for place in self.places}
        n, wanted = 0, n_tokens * self.rows_per_token
        for read in self.read(self.texts(split)):
            for place, part in parts.items():
                part.append(read[place])
            n += len(read[self.places[0]])
            if n >= wanted:
                break
        return {place: torch.cat(part)[:wanted] for place, part in parts.items()}

    def _read_whole(self, texts: Sequence[TokenizedText]) -> dict[Place, Tensor]:
        import torch

        parts = list(self.read(texts))
        return {place: self.prepare(torch.cat([part[place] for part in parts])) for place in self.places}

    @cached_property
    def recovered_loss(self) -> RecoveredLoss:
        """Measure of the cross-entropy that dictionaries recover on held-out texts."""
        return self.recover_loss()

    def recover_loss(self, other: LanguageModel | None = None) -> RecoveredLoss:
        """Measure the cross-entropy of the model; `other` is the pair's other one, for dictionaries that read both."""
        from lfp.ml.sae.quality import RecoveredLoss

        return RecoveredLoss(
            self.model,
            self.texts("held_out")[:_CROSS_ENTROPY_TEXTS],
            batch_texts=self.run.config.stats.batch_texts,
            prepend_bos=self.run.config.model.prepend_bos,
            other=other,
        )


@dataclass(frozen=True)
class PairSubject(Subject):
    """Both models of the pair, read together; the role `base` is the pair with its models exchanged."""

    trained_on: TrainedOn = "tuned"
    given: tuple[LanguageModel, LanguageModel] | None = None
    """Models in the place of the run's tuned and base model."""

    @cached_property
    def models(self) -> tuple[LanguageModel, LanguageModel]:
        """Tuned and base model."""
        if self.given is not None:
            return self.given
        base, tuned = load_pair(self.run)
        return tuned, base

    @cached_property
    def model(self) -> LanguageModel:
        """Model whose features the dictionaries have."""
        return self.models[self.role == "base"]

    @property
    def reads(self) -> str:
        """What its dictionaries are trained on, as `SaeInfo.trained_on` records it."""
        return self.trained_on

    def unloaded(self, run: Run) -> Self:
        """Return it without what is loaded, for a run in another process."""
        return replace(self, run=run, given=None)

    def narrow(self, places: Sequence[Place]) -> Self:
        """Return it with some of its places, by the same models."""
        return replace(self, only=tuple(places), given=self.models)

    def side(self, role: Role) -> Subject:
        """Return one of the models by itself."""
        return Subject(self.run, role, self.models[role == "base"], stands_in=self.stands_in)

    def exchange(self) -> PairSubject:
        """Return the pair with its models exchanged."""
        return replace(self, role="base" if self.role == "tuned" else "tuned")

    @property
    def rows_per_token(self) -> int:
        """Rows that a token has in what is read: two where both models' activations are rows of their own."""
        return 2 if self.trained_on == "shared" else 1

    def pairs(self, texts: Sequence[TokenizedText]) -> Iterator[TokenPair]:
        """Yield both models' activations of texts, one batch of texts at a time."""
        from lfp.ml.implicit_reward.changes import watch_changes
        from lfp.ml.sae.views import stream_both

        config = self.run.config
        tuned, base = self.models
        yield from stream_both(
            tuned,
            base,
            texts,
            places=self.places,
            changes=watch_changes(tuned, base, self.places if self.trained_on == "change" else ()),
            batch_texts=config.stats.batch_texts,
            prepend_bos=config.model.prepend_bos,
        )

    def read(self, texts: Sequence[TokenizedText]) -> Iterator[Mapping[Place, Tensor]]:
        """Yield what the dictionaries read of texts [n, d_in], by place, one batch of texts at a time."""
        import torch

        for pair in self.pairs(texts):
            tokens = pair if self.role == "tuned" else pair.exchange()
            tuned, base = tokens.tuned.outputs, tokens.base.outputs
            if self.trained_on == "change":
                yield {place: tokens.tuned.changes.get(place, tuned[place] - base[place]) for place in self.places}
            else:
                dim = 0 if self.trained_on == "shared" else 1
                yield {place: torch.cat([tuned[place], base[place]], dim=dim) for place in self.places}

    def prepare(self, read: Tensor) -> Tensor:
        """Return what is trained on of what the dictionaries read [n, d_in]: of changes, without very long rows."""
        from lfp.ml.sae.activation_sources import shorten_rows

        return shorten_rows(read) if self.trained_on == "change" else read

    def recovered_loss_of(self, role: Role) -> RecoveredLoss:
        """Measure the cross-entropy of one of the models; what dictionaries need of the other one is read there too."""
        if role not in self._recovered_losses:
            self._recovered_losses[role] = self.side(role).recover_loss(self.models[role == "tuned"])
        return self._recovered_losses[role]

    @cached_property
    def _recovered_losses(self) -> dict[Role, RecoveredLoss]:
        return {}

    @cached_property
    def held_out_pairs(self) -> TokenPair:
        """Both models' activations on held-out texts, by which every kind of dictionary is judged."""
        from lfp.ml.sae.views import TokenPair

        parts, n = [], 0
        for pair in self.pairs(self.texts("held_out")):
            parts.append(pair)
            n += len(pair.tuned.ids)
            if n >= HELD_OUT_TOKENS:
                break
        return TokenPair.concatenate(parts).take(slice(HELD_OUT_TOKENS))
