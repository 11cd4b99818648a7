"""Run a bundle's own models on any text: score its tokens, split the scores over features, and write completions."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lfp.bundle.manifest import ARTIFACTS, Manifest, check_models, has_models, quoted_name
from lfp.config import ModelConfig, drop_retired, parse_config
from lfp.errors import BundleError, DataError, first_line
from lfp.ml.features.active import encode_active
from lfp.ml.implicit_reward.changes import watch_changes
from lfp.ml.interventions.ablation import scaling
from lfp.ml.models.activations import stream_pair
from lfp.ml.models.chat import DATE
from lfp.ml.models.generation import Completion, log_likelihoods, stream_completions
from lfp.ml.models.loading import LanguageModel
from lfp.ml.models.pairs import Pair, load_pair
from lfp.ml.models.sources import GGUF, PACKAGE, LoadOptions, find_model
from lfp.ml.models.tokenization import TokenizedText, tokenize
from lfp.ml.sae.autoencoders import Dictionary
from lfp.ml.sae.formats import load_sae
from lfp.ml.sae.views import find_change_places, view_places
from lfp.probes.attribution import ActiveText
from lfp.util.object_stores import is_address
from lfp.util.types import Floats, Role


def load_bundle_pair(path: Path, manifest: Manifest, config: ModelConfig, *, device: str = "cpu") -> Pair:
    """Load base and tuned model of the bundle at `path`: from their files in it, or by name where it keeps only that.

    Raises BundleError where it has no models, where its files were changed, or where a name leads to other weights than
    the run had; ModelError where a name leads to none, and DependencyError where it is of a package that is not
    installed. A file that only the manifest names is looked for in the folder that LFP_DATA names, and nowhere else.
    """
    if not has_models(manifest):
        raise BundleError("this bundle holds no models to read or write with")
    check_models(path, manifest)
    sources = {}
    for role in ("base", "tuned"):
        kept, info = str(path / ARTIFACTS / role), manifest.models[role]
        name = _find_named(path, manifest, role, getattr(config, role)) if info.by_name else kept
        sources[role] = find_model(name, revision=info.revision, key=f"model.{role}")
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


def _find_named(path: Path, manifest: Manifest, role: str, name: str) -> str:
    """Return the name of a model that the bundle does not hold. Raises BundleError for a file that nobody asked for."""
    is_typed = name != manifest.config.get("model", {}).get(role)
    is_elsewhere = is_address(name) or Path(name).suffix.lower() == GGUF or Path(name).expanduser().exists()
    if is_typed or name.startswith(PACKAGE) or not is_elsewhere:
        return name
    file = Path(os.environ.get("LFP_DATA", "")) / PurePosixPath(name.replace("\\", "/")).name
    if "LFP_DATA" in os.environ and file.is_file():
        return str(file)
    raise BundleError(
        f"{path}: its {role} model is {quoted_name(name)}, which lies outside the bundle and is not read unasked; put"
        f" the file into the folder that LFP_DATA names"
    )


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


Column = Literal["base", "tuned", "steered"]
"""What writes: a model of the pair, or the tuned one with features scaled."""


@dataclass(frozen=True)
class Steering:
    """How strongly features act in the steered column, by number; `others` and `rest` are those of `scaling`."""

    scales: Mapping[int, float]
    others: float = 1.0
    rest: float = 1.0


@dataclass(frozen=True)
class Sampling:
    """How many samples of how many tokens are drawn, and with which random numbers."""

    n: int
    n_tokens: int
    temperature: float
    seed: int


@dataclass(frozen=True)
class Prompt:
    """What models continue: its tokens with a beginning-of-sequence token, those as a text, and how it was made."""

    text: str
    token_ids: tuple[int, ...]
    is_chat: bool
    is_cut: bool


@dataclass(frozen=True, eq=False)
class Live:
    """A bundle's pair of models and its dictionary, loaded once; its methods may be called from any thread."""

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

    @property
    def reads_changes(self) -> bool:
        """Whether all of its dictionary's features are of what tuning changed."""
        return all(sae.info.reads == "change" for sae in self.dictionary.saes)

    def kept_tokens(self, n_tokens: int) -> int:
        """Return how many tokens of a text may precede a completion of `n_tokens`, or follow one; the last are kept."""
        return self.tuned.n_ctx - len(self.tuned.bos_ids(self.prepend_bos)) - n_tokens

    def prompt(self, text: str, *, as_message: bool, n_tokens: int) -> Prompt:
        """Write a text as what the models continue: as it is, or as a message in their chat template where one is.

        Only the last tokens are kept of a text that leaves too little room for `n_tokens`. Raises DataError where there
        is no token, or the template refuses the message.
        """
        tokenizer = self.tuned.tokenizer
        is_chat = as_message and bool(tokenizer.chat_template)
        written = self._write_message(text) if is_chat else text
        (whole,) = tokenize(tokenizer, [written], context=10**9)
        kept = whole.token_ids[-self.kept_tokens(n_tokens) :]
        if not text.strip() or not kept:
            raise DataError("there is no token in this text; type a few words")
        ids = (*self.tuned.bos_ids(self.prepend_bos), *kept)
        return Prompt(str(tokenizer.decode(ids)), ids, is_chat, is_cut=len(kept) < len(whole.token_ids))

    def _write_message(self, text: str) -> str:
        tokenizer = self.tuned.tokenizer
        try:
            written = tokenizer.apply_chat_template(
                [{"role": "user", "content": text}], tokenize=False, add_generation_prompt=True, date_string=DATE
            )
        except Exception as error:  # whatever a template raises or trips over
            raise DataError(f"the chat template refuses this message ({first_line(error)}); pick plain text") from error
        bos = "".join(tokenizer.convert_ids_to_tokens(list(self.tuned.bos_ids(self.prepend_bos))))
        return str(written).removeprefix(bos)  # which precedes every prompt anyway

    def stream(
        self, prompt: Prompt, column: Column, steering: Steering, sampling: Sampling
    ) -> Iterator[list[Completion]]:
        """Yield a column's samples as far as they are written, after each token.

        Sample i of one column has the random numbers of sample i of every other. Raises ModelError for an unknown
        feature.
        """
        model = self.base if column == "base" else self.tuned
        with ExitStack() as stack:
            if column == "steered":
                stack.enter_context(self._steer(steering))
            yield from stream_completions(
                model, prompt.token_ids, **asdict(sampling), reads_once=column != "steered" or not self._has_caches
            )

    @property
    def _has_caches(self) -> bool:
        """Whether scaling features keeps keys and values of the other model (`scaling`)."""
        infos = [sae.info for sae in self.dictionary.saes]
        return any(info.reads == "pair" or (info.reads == "change" and info.place.site != "mlp_out") for info in infos)

    def _steer(self, steering: Steering) -> AbstractContextManager[None]:
        scales = {feature: scale for feature, scale in steering.scales.items() if scale != steering.others}
        return scaling(
            self.tuned, self.dictionary, scales, prepend_bos=self.prepend_bos, other=self.base, others=steering.others,
            rest=steering.rest,
        )  # fmt: skip

    def implicit_rewards(self, completions: Sequence[Completion]) -> Floats:
        """Return the implicit reward of each completion after its prompt, in nats, summed over its tokens."""
        tuned, base = (log_likelihoods(model, completions).numpy() for model in (self.tuned, self.base))
        return np.asarray(tuned - base, np.float64)
