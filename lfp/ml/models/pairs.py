"""Load a base and a tuned model as a pair: one network where the tuned one is an adapter, and one vocabulary."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from lfp.errors import ModelError
from lfp.ml.models.adapters import (
    AdaptedWeights,
    AdapterSwitch,
    attach_adapter,
    describe_mismatch,
    hash_adapter,
    leaves_base_unchanged,
    read_adapter_config,
)
from lfp.ml.models.loading import LanguageModel, load_source, merge_adapter, special_ids
from lfp.ml.models.sources import PACKAGE, LoadOptions, Source, find_model, has_tokenizer, load_config, load_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Pair = tuple[LanguageModel, LanguageModel]
"""Base and tuned."""
_NAMED = 5
"""Tokens that a message names before it counts the rest."""


def load_pair(base: Source, tuned: Source, *, trust_base: bool = False, **options: Unpack[LoadOptions]) -> Pair:
    """Load both models, of one shape and one vocabulary. Of an adapter and its base the weights are in memory once.

    `trust_base` skips the comparison of an adapter's own base with `base` where their names differ. Raises ModelError
    where the two are no pair.
    """
    if not tuned.is_adapter:
        pair = load_source(base, key="model.base", **options), load_source(tuned, key="model.tuned", **options)
    else:
        expected = None if trust_base else _hash_named_base(tuned, base, **options)
        of_base = load_source(base, key="model.base", **options)
        if expected is not None and expected != of_base.sha256:
            raise ModelError(describe_mismatch(tuned, base.name, "their weights differ"))
        pair = _adapt(of_base, base, tuned, **options)
    check_same_shape(*pair)
    shared = share_vocabulary(*(Vocabulary(model.tokenizer, model.d_vocab) for model in pair), name=pair[1].name)
    return pair if shared is None else (shared.restrict(pair[0]), shared.restrict(pair[1]))


def _adapt(of_base: LanguageModel, base: Source, tuned: Source, **options: Unpack[LoadOptions]) -> Pair:
    """Return the base and the base with an adapter: one network, or two where the adapter cannot be switched off."""
    if not leaves_base_unchanged(tuned, of_base.parameters):
        return of_base, replace(merge_adapter(tuned, base, key="model.tuned", **options), name=tuned.name)
    network = of_base.network
    attach_adapter(network, tuned, base_name=base.name)
    if len(of_base.devices) == 1:
        network.to(of_base.device)
    network.eval().requires_grad_(False)
    switch = AdapterSwitch(network)
    tokenizer = load_tokenizer(tuned, key="model.tuned") if has_tokenizer(tuned) else of_base.tokenizer
    bos_id, pad_id = special_ids(tokenizer, of_base.d_vocab)
    of_tuned = replace(
        of_base,
        tokenizer=tokenizer,
        name=tuned.name,
        revision=tuned.revision,
        folder=tuned.folder,
        sha256=hash_adapter(tuned, of_base.sha256),
        bos_id=bos_id,
        pad_id=pad_id,
        parameters=AdaptedWeights(network, of_base.parameters),
        adapter=switch,
        adapter_kind=read_adapter_config(tuned)["peft_type"],
    )
    return replace(of_base, adapter=switch), of_tuned


def _hash_named_base(adapter: Source, base: Source, **options: Unpack[LoadOptions]) -> str | None:
    """Return the hash of the base that an adapter names, where that is here under another name than `base` has.

    None where the names agree or, with a warning, where the named base is not here, so that only shapes can tell.
    Raises ModelError where both are names on the hub that differ in more than their owner.
    """
    named = str(read_adapter_config(adapter).get("base_model_name_or_path") or base.name)
    path = Path(named).expanduser()
    if named == base.name or _is_same_folder(path, base):
        return None
    if (path / "config.json").is_file() or path.is_file() or named.startswith(PACKAGE):
        return load_source(find_model(named, key="model.base"), key="model.base", **options).sha256
    if base.folder is None and not path.is_absolute() and path.name.lower() != Path(base.name).name.lower():
        raise ModelError(describe_mismatch(adapter, base.name, "their names differ"))
    warnings.warn(
        f"{adapter.name}: names {named} as its base, which is not here, so only its shapes were compared with"
        f" {base.name}",
        stacklevel=3,
    )
    return None


def _is_same_folder(path: Path, base: Source) -> bool:
    found = base.folder if base.gguf_file is None or base.folder is None else base.folder / base.gguf_file
    return found is not None and path.resolve() == found.resolve()


def check_same_shape(base: LanguageModel, tuned: LanguageModel) -> None:
    """Raise ModelError, naming the first difference, unless the tuned model can have come from the base model.

    Embeddings may have rows for other numbers of tokens.
    """
    sizes = {"layers": (base.n_layers, tuned.n_layers), "residual width": (base.d_model, tuned.d_model)}
    differences = [f"{what} {after} against {before}" for what, (before, after) in sizes.items() if before != after]
    if not differences and base.network is not tuned.network:
        shapes = {key: _shape_without_tokens(value.shape, base.d_vocab) for key, value in base.parameters.items()}
        differences = [
            f"{key} is of another shape"
            for key, value in tuned.parameters.items()
            if shapes.get(key) != _shape_without_tokens(value.shape, tuned.d_vocab)
        ]
    if differences:
        raise ModelError(
            f"{tuned.name} is not tuned from {base.name} ({differences[0]}); pass the base it was tuned from"
        )


def _shape_without_tokens(shape: tuple[int, ...], d_vocab: int) -> tuple[int, ...]:
    """Return a shape with the number of tokens, where it is the first size, left open."""
    return (-1, *shape[1:]) if shape and shape[0] == d_vocab else tuple(shape)


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """A model's tokenizer and the number of tokens that it embeds."""

    tokenizer: PreTrainedTokenizerBase
    d_vocab: int

    def tokens(self) -> dict[int, str]:
        """Return the tokenizer's tokens by id."""
        return {token_id: token for token, token_id in self.tokenizer.get_vocab().items()}


def read_vocabulary(source: Source, *, key: str) -> Vocabulary:
    """Read a model's tokenizer and the size of its embedding without its weights. Raises ModelError."""
    return Vocabulary(load_tokenizer(source, key=key), load_config(source, key=key).get_text_config().vocab_size)


@dataclass(frozen=True, eq=False)
class SharedVocabulary:
    """The tokens that both models of a pair have: the first `d_vocab`, with a tokenizer that knows no others."""

    tokenizer: PreTrainedTokenizerBase
    d_vocab: int
    note: str

    def restrict(self, model: LanguageModel) -> LanguageModel:
        """Return the model restricted to these tokens."""
        bos_id, pad_id = special_ids(self.tokenizer, self.d_vocab)
        return replace(
            model,
            tokenizer=self.tokenizer,
            d_vocab=self.d_vocab,
            bos_id=bos_id,
            pad_id=pad_id,
            note=" ".join(filter(None, [model.note, self.note])),
        )


def share_vocabulary(base: Vocabulary, tuned: Vocabulary, *, name: str = "tuned") -> SharedVocabulary | None:
    """Find the tokens that both models have; None where these are all that either embeds, as usual.

    Tokens added to one tokenizer, and rows of an embedding without a token, as padding leaves them, are left out.
    Raises ModelError where the tokenizers differ in more than that.
    """
    before, after = base.tokens(), tuned.tokens()
    added = {*base.tokenizer.added_tokens_decoder, *tuned.tokenizer.added_tokens_decoder}
    one_sided = sorted(before.keys() ^ after.keys())
    if not added.issuperset(one_sided):
        sizes = f"{len(tuned.tokenizer)} against {len(base.tokenizer)}"
        raise ModelError(f"{name}: its tokenizer has other tokens than the base's ({sizes}); pass the base it has")
    if any(token != after.get(token_id, token) and token_id not in added for token_id, token in before.items()):
        raise ModelError(f"{name}: other tokens in its tokenizer than in the base's; pass the base it was tuned from")
    d_vocab = min([base.d_vocab, tuned.d_vocab, *one_sided])
    if base.d_vocab == tuned.d_vocab == d_vocab:
        return None
    chosen = base.tokenizer if any(token_id in after for token_id in one_sided) else tuned.tokenizer
    if chosen.chat_template is None:
        chosen.chat_template = tuned.tokenizer.chat_template
    named = [f"{(before | after)[token_id]} (of the {_side(token_id in after)})" for token_id in one_sided]
    more = f" and {len(named) - _NAMED} more" if len(named) > _NAMED else ""
    tokens = (
        f" Tokens that only one has, which texts cannot contain: {', '.join(named[:_NAMED])}{more}." if named else ""
    )
    return SharedVocabulary(
        chosen,
        d_vocab,
        f"The models are compared on the {d_vocab:,} tokens that both have, of {base.d_vocab:,} rows of the base's"
        f" embedding and {tuned.d_vocab:,} of the tuned model's.{tokens}",
    )


def _side(is_tuned: bool) -> str:
    return "tuned model" if is_tuned else "base"
