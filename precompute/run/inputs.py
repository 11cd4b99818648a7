"""What stages read: the run's models, texts and dictionaries, the reward, and the files outside the run."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lfp.config import CLASSIFIER, LEXICON, PRETRAIN, TUNE, VADER, RunConfig
from lfp.errors import ConfigError, CorpusError, DataError, ModelError, TextError
from lfp.ml.models.sources import GGUF, PACKAGE, LoadOptions, Source, find_model, find_package_file, list_model_files
from lfp.probes.pooling import response_tokens
from lfp.texts.corpus import CorpusText
from lfp.texts.lexicon import Reward
from lfp.texts.messages import ChatFormat, LoadChat, find_template_file
from lfp.texts.reading.hub import is_hub_name
from lfp.texts.reading.sources import find_files, find_source
from lfp.texts.rewards import checked, reward_of
from lfp.util.object_stores import fetch_copy, is_address
from lfp.util.types import Flags, Place
from precompute.run.work_folder import Run

if TYPE_CHECKING:
    from lfp.ml.models.loading import LanguageModel
    from lfp.ml.models.tokenization import TokenizedText
    from lfp.ml.sae.autoencoders import Dictionary

RANDOM_DECODER = "random_decoder"
"""Role of the dictionaries whose decoder stayed random while the rest was trained, and their source."""
_OF_CHATS = {"tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja"}
"""Files of a model's folder that say how it writes dialogues."""
_DICTIONARY_SUFFIXES = {".json", ".safetensors", ".npz", ".pt"}
"""Files of a dictionary's folder that are read."""


def find_role(run: Run, role: str) -> Source:
    """Find the base or the tuned model of a run: made or unpacked by its stage, or where the config says."""
    config = run.config.model
    if role == "base":
        name, revision, is_made_here = config.base, config.base_revision, config.base == PRETRAIN
    else:
        name, revision, is_made_here = config.tuned, config.tuned_revision, config.tuned == TUNE
    is_unpacked = name.lower().endswith(GGUF) and (run.readable is None or role in run.readable)  # not in its own stage
    made = run.folder(role) / "model" if is_made_here or is_unpacked else None
    if made is None or not made.is_dir():
        return find_model(resolve_name(name, run.config_dir), revision=revision, key=f"model.{role}")
    found = find_model(str(made), key=f"model.{role}")
    return found if is_made_here else replace(found, name=name)


def load_options(run: Run, *, exact: bool = False) -> LoadOptions:
    """Return how the run's models are loaded; `exact` in float32 whatever their dtype is.

    Credits and interventions need it: bfloat16 rounds away what tuning changed.
    """
    config = run.config.model
    dtype = "float32" if exact else config.dtype
    return {
        "device": config.device,
        "device_map": config.device_map,
        "dtype": dtype,
        "attn_implementation": config.attn_implementation,
    }


def load_alone(run: Run, role: str, *, exact: bool = False) -> LanguageModel:
    """Load one model of a run before there is a pair; `exact` as in `load_options`."""
    from lfp.ml.models.loading import load_source

    return load_source(find_role(run, role), key=f"model.{role}", **load_options(run, exact=exact))


def load_role(run: Run, role: str, *, exact: bool = False) -> LanguageModel:
    """Load the base or the tuned model, restricted to the tokens that both have; `exact` as in `load_options`."""
    from lfp.ml.models.pairs import read_vocabulary, share_vocabulary

    sources = {name: find_role(run, name) for name in ("base", "tuned")}
    if role == "tuned" and sources["tuned"].is_adapter:
        return load_pair(run, exact=exact)[1]
    model = load_alone(run, role, exact=exact)
    if run.config.model.tuned == TUNE or sources["tuned"].is_adapter:
        return model
    vocabularies = [read_vocabulary(source, key=f"model.{name}") for name, source in sources.items()]
    shared = share_vocabulary(vocabularies[0], vocabularies[1], name=sources["tuned"].name)
    return model if shared is None else shared.restrict(model)


def load_pair(run: Run, *, trust_base: bool = True, exact: bool = False) -> tuple[LanguageModel, LanguageModel]:
    """Load base and tuned model, check that they are a pair, and that they can read `model.context` tokens.

    `trust_base` as in `lfp.ml.models.pairs.load_pair`: the stage `tuned` has compared an adapter's own base. `exact` as
    in `load_options`.
    """
    from lfp.ml.models import pairs
    from lfp.ml.models.loading import check_context

    sources = find_role(run, "base"), find_role(run, "tuned")
    base, tuned = pairs.load_pair(*sources, trust_base=trust_base, **load_options(run, exact=exact))
    check_context(base, run.config.model.context, prepend_bos=run.config.model.prepend_bos)
    return base, tuned


def load_dictionary(run: Run, role: str) -> Dictionary:
    """Load the dictionaries of the tuned model, whose features are kept, or of the base model.

    Where both models share a dictionary it is the tuned model's. The role `RANDOM_DECODER` is the tuned model's
    control.
    """
    from lfp.ml.sae.autoencoders import Dictionary
    from lfp.ml.sae.formats import load_sae

    folder, places = run.folder("saes"), read_places(run)
    if not (folder / sae_folder(role, places[0])).is_dir():
        role = "tuned"
    saes = [load_sae(folder / sae_folder(role, place)) for place in places]
    return Dictionary(saes).to(run.config.model.device)


def load_dictionaries(run: Run) -> tuple[Dictionary, Dictionary]:
    """Load the dictionaries of the tuned and of the base model; they are the same object where both share one."""
    of_tuned, of_base = load_dictionary(run, "tuned"), load_dictionary(run, "base")
    return of_tuned, of_tuned if of_base.saes[0].info.model == "tuned" else of_base


def read_places(run: Run) -> list[Place]:
    """Return the places that the run reads, in the order of the forward pass: every site of the selected layers."""
    return sorted(Place(layer, site) for layer, site in run.json("layers", "places"))


def sae_folder(role: str, place: Place, number: int = 0) -> str:
    """Name the folder of a dictionary of a model's place; number 0 is the dictionary whose features are kept."""
    site = f"-{place.site}" if place.site != "mlp_out" else ""
    return f"{role}-layer{place.layer}{site}" + (f"-other{number}" if number else "")


def read_texts(run: Run, split: str | None = None) -> list[CorpusText]:
    """Read the texts of the corpus, or of one of its splits."""
    rows = run.table("corpus", "corpus").to_pylist()
    return [
        CorpusText(**row | {"spans": tuple((start, end) for start, end in row.get("spans") or ())})
        for row in rows
        if split in (None, row["split"])
    ]


def read_statistics_texts(run: Run) -> list[CorpusText]:
    """Read the texts that the statistics cover: `stats.n_texts` of the corpus, evenly spaced over its splits.

    Both sides of a pair are among them, or neither: as many pairs as make no more texts than that, and one at least.
    """
    texts, limit = read_texts(run), run.config.stats.n_texts
    if limit is None or limit >= len(texts):
        return texts
    wholes: dict[int, list[CorpusText]] = {}
    for at, text in enumerate(texts):
        wholes.setdefault(-1 - at if text.pair_id is None else text.pair_id, []).append(text)
    n = max(1, limit * len(wholes) // len(texts))
    every, step = list(wholes.values()), len(wholes) / n
    return [text for i in range(n) for text in every[int(i * step)]]


def order_texts(texts: list[CorpusText], *, seed: int) -> list[CorpusText]:
    """Order texts by the seed, held-out ones first; stages that need some of them take the first, so they share them.

    The two sides of a pair stand together, so that their difference can be split.
    """
    order = np.random.default_rng(seed).permutation(len(texts))
    drawn = sorted((texts[i] for i in order), key=lambda text: text.split != "held_out")
    first: dict[int | None, int] = {}  # where the first side of each pair was drawn
    for at, text in enumerate(drawn):
        if text.pair_id is not None:
            first.setdefault(text.pair_id, at)
    return [text for _, text in sorted(enumerate(drawn), key=lambda item: first.get(item[1].pair_id, item[0]))]


@contextmanager
def name_texts(text_ids: Sequence[int]) -> Iterator[None]:
    """Say the `text_id` of a text that cannot be used, in place of its row among those that a function was given.

    Raises DataError for a TextError.
    """
    try:
        yield
    except TextError as error:
        raise DataError(f"text_id {text_ids[error.row]}: {error.problem}") from error


def tokenize_texts(run: Run, model: LanguageModel, texts: list[CorpusText]) -> list[TokenizedText]:
    """Tokenize texts as the models read them, cut to the context. Raises DataError for a text without a token."""
    from lfp.ml.models.tokenization import tokenize

    tokens = tokenize(model.tokenizer, [text.text for text in texts], context=run.config.model.context)
    for text, row in zip(texts, tokens, strict=True):
        if not row.token_ids:
            raise DataError(f"text {text.text_id} of {text.source} has no token; remove it from the corpus")
    return tokens


def mark_responses(texts: Sequence[CorpusText], tokenized: Sequence[TokenizedText]) -> list[Flags]:
    """Mark the tokens of each text's responses; all of a text without a prompt."""
    return [
        response_tokens(tokens.token_starts, len(tokens.text), text.responses)
        for text, tokens in zip(texts, tokenized, strict=True)
    ]


def count_prompt_tokens(texts: Sequence[CorpusText], tokenized: Sequence[TokenizedText]) -> list[int | None]:
    """Count the tokens before the last response of each dialogue that begins within the context.

    It is the number of all tokens where none does, and None for other texts, which have no prompt.
    """
    counts: list[int | None] = []
    for text, tokens in zip(texts, tokenized, strict=True):
        before = [sum(start < end for start in tokens.token_starts) for end in text.prompt_ends]
        fitting = [n for n in before if n < len(tokens.token_ids)]
        counts.append(fitting[-1] if fitting else len(tokens.token_ids) if before else None)
    return counts


def load_reward(config: RunConfig, config_dir: Path | None) -> Reward:
    """Load the reward of texts that a config names, with every answer checked; a classifier is loaded at each call."""
    feedback = config.feedback
    if feedback.reward != CLASSIFIER:
        return reward_of(feedback, beside=config_dir)
    from lfp.ml.models.reward_model import load_reward_model

    name = str(feedback.classifier)
    model = load_reward_model(resolve_name(name, config_dir), feedback, device=config.model.device)
    return checked(model, name=name)


def resolve_name(name: str, config_dir: Path | None) -> str:
    """Return a folder or file named in a config file, relative to that file where it is there; other names as given.

    A model, dictionary or GGUF file at an address is copied to this machine. Raises ModelError where it cannot be read.
    """
    if is_address(name):
        return str(fetch_copy(name, kind=ModelError))
    if config_dir is not None and (config_dir / name).exists():
        return str(config_dir / name)
    return name


def load_chat_by(run: Run) -> LoadChat:
    """Return a function that loads the chat format of the base model, or of the template that the config names."""

    def load() -> ChatFormat | None:
        from lfp.ml.models.chat import load_chat_format

        model = run.config.model
        return load_chat_format(model, name=resolve_name(model.base, run.config_dir), config_dir=run.config_dir)

    return load


def find_corpus_files(config: RunConfig, config_dir: Path | None) -> tuple[Path, ...]:
    """Find the local files that the texts and chat templates are read from; none at an address or of the hub.

    Raises CorpusError.
    """
    if config.tune.method == "dpo":
        named = {"tune.pairs": config.tune.pairs}
    else:
        named = {"corpus.source": config.corpus.source, "corpus.held_out_source": config.corpus.held_out_source}
    template = find_template_file(config.model.chat_template, config_dir)
    files = [] if template is None else [template]
    if config.model.base != PRETRAIN:
        files += [file for file in find_model_files(config.model.base, config_dir) if file.name in _OF_CHATS]
    for key, name in named.items():
        if name is None or is_address(name):
            continue
        try:
            files += [Path(file.path) for file in find_files(name, key=key, beside=config_dir)]
        except CorpusError:  # where it may be a data set of the hub, the stage can say which
            if not is_hub_name(name):
                raise
    return tuple(files)


def find_lexicon_files(config: RunConfig, config_dir: Path | None) -> tuple[Path, ...]:
    """Find the file of the lexicon; none for VADER's. Raises CorpusError where it is not there."""
    name = config.feedback.lexicon
    return () if name == VADER else (find_source(name, key="feedback.lexicon", beside=config_dir),)


def find_reward_files(config: RunConfig, config_dir: Path | None) -> tuple[Path, ...]:
    """Find the files that make the reward: the lexicon, the classifier's folder, or the module of a function.

    Of a package all of its modules count; of a single module those that it imports do not.
    """
    feedback = config.feedback
    if feedback.reward == VADER:
        return ()
    if feedback.reward == LEXICON:
        return find_lexicon_files(config, config_dir)
    if feedback.reward == CLASSIFIER:
        return find_model_files(str(feedback.classifier), config_dir)
    module = feedback.reward.partition(":")[0]
    for folder in (Path.cwd(), *([config_dir.resolve()] if config_dir else [])):
        path = folder.joinpath(*module.split("."))
        if path.with_suffix(".py").is_file():
            return (path.with_suffix(".py"),)
        if (path / "__init__.py").is_file():
            return tuple(sorted(path.rglob("*.py")))
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):  # the stage that imports it says what is wrong
        spec = None
    return (Path(spec.origin),) if spec and spec.origin and Path(spec.origin).is_file() else ()


def find_dictionary_files(config: RunConfig, config_dir: Path | None) -> tuple[Path, ...]:
    """Find the files of the local folders that `sae.pretrained` names. Raises ConfigError for a missing one."""
    found: set[Path] = set()
    for entry in config.sae.pretrained:
        if entry.folder is None:
            continue
        folder = Path(resolve_name(entry.folder, config_dir)).expanduser()
        if folder.is_dir():
            files = (*folder.iterdir(), folder / "checkpoints" / "final.safetensors")
            found |= {file for file in files if file.suffix in _DICTIONARY_SUFFIXES and file.is_file()}
        elif folder.is_absolute() or entry.folder.startswith("."):
            raise ConfigError(f"sae.pretrained names {entry.folder}, but there is no such folder; correct the name")
    return tuple(sorted(found))


def find_model_files(name: str, config_dir: Path | None) -> tuple[Path, ...]:
    """Find the local files of weights, config and tokenizer of a model or dictionary; none where `name` is of the hub.

    Raises DependencyError where a package that holds them is not installed.
    """
    path = find_package_file(name) if name.startswith(PACKAGE) else Path(resolve_name(name, config_dir)).expanduser()
    if path.is_file():
        return (path,)
    return list_model_files(path) if path.is_dir() else ()
