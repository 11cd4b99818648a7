"""Run a bundle's own models on any text: score its tokens, split the scores over features, and write completions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lfp.bundle.manifest import ARTIFACTS, Manifest, has_models
from lfp.config import ModelConfig, drop_retired, parse_config
from lfp.errors import BundleError, DataError
from lfp.ml.features.active import encode_active
from lfp.ml.implicit_reward.changes import watch_changes
from lfp.ml.interventions.ablation import scaling
from lfp.ml.models.activations import stream_pair
from lfp.ml.models.generation import Completion, sample_completions
from lfp.ml.models.loading import LanguageModel
from lfp.ml.models.pairs import Pair, load_pair
from lfp.ml.models.sources import LoadOptions, find_model
from lfp.ml.models.tokenization import TokenizedText, tokenize
from lfp.ml.sae.autoencoders import Dictionary
from lfp.ml.sae.formats import load_sae
from lfp.ml.sae.views import find_change_places, view_places
from lfp.probes.attribution import ActiveText
from lfp.util.types import Floats, Role


def load_bundle_pair(path: Path, manifest: Manifest, config: ModelConfig, *, device: str = "cpu") -> Pair:
    """Load base and tuned model of the bundle at `path`: from their files in it, or by name where it keeps only that.

    Raises BundleError where it has no models, or where a name leads to other weights than the run had, ModelError where
    a name leads to none, and DependencyError where it is of a package that is not installed.
    """
    if not has_models(manifest):
        raise BundleError("this bundle holds no models to read or write with")
    sources = {}
    for role in ("base", "tuned"):
        kept, name = path / ARTIFACTS / role, getattr(config, role)
        by_name = manifest.models[role].by_name
        revision = manifest.models[role].revision
        sources[role] = find_model(name if by_name else str(kept), revision=revision, key=f"model.{role}")
    options: LoadOptions = {
        "device": device, "dtype": config.dtype, "attn_implementation": config.attn_implementation
    }  # fmt: skip
    pair = load_pair(sources["base"], sources["tuned"], trust_base=True, **options)
    for role, model in zip(("base", "tuned"), pair, strict=True):
        info = manifest.models[role]
        if info.by_name and model.sha256 != info.sha256:
            raise BundleError(
                f"{path}: {model.name} has other weights here than the run's {role} model had; install or name the"
                " version that the run had"
            )
    return pair


@dataclass(frozen=True, eq=False)
class Reading:
    """A text as a pair of models reads it, truncated to the run's context.

    `implicit_reward` and `implicit_advantage` [n] are in nats, NaN where undefined; `active` holds the features of the
    chosen model by the tuned model's dictionary, and `dense` [n, features] the same features, for a check.
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
        """Load the models of the bundle at `path` on the CPU. Raises BundleError where it has none, and ModelError."""
        config = parse_config(drop_retired(manifest.config), where="the bundle’s config").model
        base, tuned = load_bundle_pair(path, manifest, config)
        artifacts = path / ARTIFACTS
        saes = [load_sae(folder) for folder in sorted((artifacts / "saes").iterdir())]
        return Live(base, tuned, Dictionary(saes), config.context, config.prepend_bos)

    def read(self, text: str, role: Role) -> Reading:
        """Run the text through both models. Raises DataError where it has no token."""
        (cut,) = tokenize(self.tuned.tokenizer, [text], context=self.context)
        if not cut.token_ids:
            raise DataError("there is no token in this text; type a few words")
        (tokens,) = stream_pair(
            self.tuned,
            self.base,
            [cut],
            places=self.dictionary.places,
            batch_texts=1,
            prepend_bos=self.prepend_bos,
            changes=watch_changes(self.tuned, self.base, find_change_places(self.dictionary)),
        )
        outputs = view_places(self.dictionary, tokens, role)
        found, n = encode_active(self.dictionary, outputs), len(cut.token_ids)
        positions = np.repeat(np.arange(n), np.diff(found.offsets))
        return Reading(
            text=cut,
            implicit_reward=tokens.implicit_reward.double().numpy(),
            implicit_advantage=tokens.implicit_advantage.double().numpy(),
            active=ActiveText(positions, found.features.astype(np.int64), found.values.astype(np.float64), n),
            dense=self.dictionary.encode(outputs).numpy(),
        )

    def kept_tokens(self, n_tokens: int) -> int:
        """Return how many tokens of a text may precede a completion of `n_tokens`, or follow one; the last are kept."""
        return self.tuned.n_ctx - len(self.tuned.bos_ids(self.prepend_bos)) - n_tokens

    def is_cut(self, text: str, n_tokens: int) -> bool:
        """Return whether a completion of `n_tokens` leaves too little room for the whole text."""
        (whole,) = tokenize(self.tuned.tokenizer, [text], context=10**9)
        return len(whole.token_ids) > self.kept_tokens(n_tokens)

    def write(
        self, text: str, role: Role, *, scales: Mapping[int, float], n_tokens: int, temperature: float, seed: int
    ) -> tuple[Completion, Completion]:
        """Complete a text with the model unchanged and with features scaled (`ablation.py`), from one seed.

        Only the last tokens are read of a text that leaves too little room. Raises ModelError for an unknown feature,
        DataError where there is no token to start from.
        """
        model, other = (self.tuned, self.base) if role == "tuned" else (self.base, self.tuned)
        (whole,) = tokenize(model.tokenizer, [text], context=10**9)
        prefix = (*model.bos_ids(self.prepend_bos), *whole.token_ids[-self.kept_tokens(n_tokens) :])
        if not prefix:
            raise DataError("there is no token in this text; type a few words")
        options = {"n_tokens": n_tokens, "temperature": temperature, "seed": seed}
        (untouched,) = sample_completions(model, [prefix], **options)  # type: ignore[arg-type]
        with scaling(model, self.dictionary, scales, prepend_bos=self.prepend_bos, other=other, role=role):
            (scaled,) = sample_completions(model, [prefix], **options)  # type: ignore[arg-type]
        return untouched, scaled
