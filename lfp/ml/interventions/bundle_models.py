"""A bundle's own models on a text of one's own: its tokens scored and split over features, and texts written anew."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lfp.bundle.manifest import ARTIFACTS, Manifest, has_models
from lfp.config import drop_retired, parse_config
from lfp.errors import BundleError, DataError
from lfp.ml.features.active import encode_active
from lfp.ml.interventions.ablation import scaling
from lfp.ml.models.activations import stream_pair
from lfp.ml.models.generation import Completion, sample_completions
from lfp.ml.models.loading import LanguageModel, check_same_shape, load_model
from lfp.ml.models.tokenization import TokenizedText, tokenize
from lfp.ml.sae.autoencoders import Dictionary
from lfp.ml.sae.formats import load_sae
from lfp.probes.attribution import ActiveText
from lfp.util.types import Floats

Role = Literal["base", "tuned"]


@dataclass(frozen=True, eq=False)
class Reading:
    """A text as a pair of models reads it, cut to the run's context; all lists are a value a token.

    `implicit_reward` and `implicit_advantage` [n] are in nats, NaN where undefined; `active` has the features of the
    model that was chosen, through the tuned model's dictionary, and `dense` [n, features] the same ones, for a check.
    """

    text: TokenizedText
    implicit_reward: Floats
    implicit_advantage: Floats
    active: ActiveText
    dense: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Live:
    """A bundle's pair of models and its dictionary, loaded once; `read` and `write` may be called from any thread."""

    base: LanguageModel
    tuned: LanguageModel
    dictionary: Dictionary
    context: int
    prepend_bos: bool

    @staticmethod
    def load(path: Path, manifest: Manifest) -> Live:
        """The models of the bundle at `path`, on the CPU. Raises BundleError where it has none, ModelError."""
        config = parse_config(drop_retired(manifest.config), where="the bundle’s config").model
        if not has_models(manifest):
            raise BundleError("this bundle holds no models to read or write with")
        artifacts = path / ARTIFACTS
        base, tuned = (load_model(str(artifacts / role)) for role in ("base", "tuned"))
        check_same_shape(base, tuned)
        saes = [load_sae(folder) for folder in sorted((artifacts / "saes").iterdir())]
        return Live(base, tuned, Dictionary(saes), config.context, config.prepend_bos)

    def read(self, text: str, role: Role) -> Reading:
        """The text through both models. Raises DataError where it has no token."""
        (cut,) = tokenize(self.tuned.tokenizer, [text], context=self.context)
        if not cut.token_ids:
            raise DataError("there is no token in this text; type a few words")
        layers = {"layers": self.dictionary.layers, "batch_texts": 1, "prepend_bos": self.prepend_bos}
        (tokens,) = stream_pair(self.tuned, self.base, [cut], **layers)  # type: ignore[arg-type]
        outputs = (tokens.tuned if role == "tuned" else tokens.base).outputs
        found, n = encode_active(self.dictionary, outputs), len(cut.token_ids)
        positions = np.repeat(np.arange(n), np.diff(found.offsets))
        return Reading(
            text=cut,
            implicit_reward=tokens.implicit_reward.double().numpy(),
            implicit_advantage=tokens.implicit_advantage.double().numpy(),
            active=ActiveText(positions, found.features.astype(np.int64), found.values.astype(np.float64), n),
            dense=self.dictionary.encode(outputs).numpy(),
        )

    def most_tokens(self) -> int:
        """How many tokens a completion may have, with one of a text before it."""
        return self.tuned.n_ctx - self._n_bos() - 1

    def kept_tokens(self, n_tokens: int) -> int:
        """How many tokens of a text a completion of `n_tokens` may follow; the last ones are kept."""
        return self.tuned.n_ctx - self._n_bos() - n_tokens

    def is_cut(self, text: str, n_tokens: int) -> bool:
        """Whether a completion of `n_tokens` leaves no room for all of a text."""
        (whole,) = tokenize(self.tuned.tokenizer, [text], context=10**9)
        return len(whole.token_ids) > self.kept_tokens(n_tokens)

    def write(
        self, text: str, role: Role, *, scales: Mapping[int, float], n_tokens: int, temperature: float, seed: int
    ) -> tuple[Completion, Completion]:
        """What a model writes after a text, untouched and with features scaled (`ablation.py`), from one seed.

        Of a text that leaves no room for it only the last tokens are read. Raises ModelError for a feature that there
        is not, DataError where there is no token to begin with.
        """
        model = self.tuned if role == "tuned" else self.base
        (whole,) = tokenize(model.tokenizer, [text], context=10**9)
        lead = () if model.bos_id is None or not self.prepend_bos else (model.bos_id,)
        prefix = (*lead, *whole.token_ids[-self.kept_tokens(n_tokens) :])
        if not prefix:
            raise DataError("there is no token in this text; type a few words")
        drawn = {"n_tokens": n_tokens, "temperature": temperature, "seed": seed}
        (untouched,) = sample_completions(model, [prefix], **drawn)  # type: ignore[arg-type]
        with scaling(model, self.dictionary, scales, prepend_bos=self.prepend_bos):
            (scaled,) = sample_completions(model, [prefix], **drawn)  # type: ignore[arg-type]
        return untouched, scaled

    def _n_bos(self) -> int:
        return int(self.prepend_bos and self.tuned.bos_id is not None)
