"""What stages read of a run: its pair of models, its texts, its dictionaries, and its true feedback."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from lfp.config import CLASSIFIER, RunConfig
from lfp.errors import DataError
from lfp.texts.corpus import CorpusText
from lfp.texts.lexicon import Reward, check_lexicon, lexicon_of
from lfp.texts.rewards import checked, reward_of
from precompute.run.work_folder import Run

if TYPE_CHECKING:
    from lfp.ml.models.loading import LanguageModel
    from lfp.ml.models.tokenization import TokenizedText
    from lfp.ml.sae.autoencoders import Dictionary


def load(run: Run, role: str) -> LanguageModel:
    """The base or the tuned model of a run, as its stage left or named it."""
    from lfp.ml.models.loading import load_model

    model = run.config.model
    made = run.folder(role) / "model"
    if made.is_dir():
        return load_model(str(made), device=model.device)
    name, revision = (model.base, model.base_revision) if role == "base" else (model.tuned, model.tuned_revision)
    return load_model(located(name, run.beside), revision=revision, device=model.device, key=f"model.{role}")


def load_pair(run: Run) -> tuple[LanguageModel, LanguageModel]:
    """Base and tuned model, checked to be of one shape and to read the context the config asks for."""
    from lfp.ml.models.loading import check_context, check_same_shape

    base, tuned = load(run, "base"), load(run, "tuned")
    check_same_shape(base, tuned)
    check_context(base, run.config.model.context, prepend_bos=run.config.model.prepend_bos)
    return base, tuned


def corpus_texts(run: Run, split: str | None = None) -> list[CorpusText]:
    """The texts of the corpus, of one split where one is named."""
    rows = run.table("corpus", "corpus").to_pylist()
    return [CorpusText(**row) for row in rows if split in (None, row["split"])]


def tokenized(run: Run, model: LanguageModel, texts: list[CorpusText]) -> list[TokenizedText]:
    """The texts as the models read them, cut to the context. Raises DataError for a text without a token."""
    from lfp.ml.models.tokenization import tokenize

    tokens = tokenize(model.tokenizer, [text.text for text in texts], context=run.config.model.context)
    for text, row in zip(texts, tokens, strict=True):
        if not row.token_ids:
            raise DataError(f"text {text.text_id} of {text.source} has no token; remove it from the corpus")
    return tokens


def statistics_texts(run: Run) -> list[CorpusText]:
    """The texts that the statistics cover: the first `stats.n_texts` of each split, in proportion."""
    texts, limit = corpus_texts(run), run.config.stats.n_texts
    if limit is None or limit >= len(texts):
        return texts
    step = len(texts) / limit
    return [texts[int(i * step)] for i in range(limit)]


def dictionary(run: Run, model: str) -> Dictionary:
    """The autoencoders whose features are kept, of the tuned or the base model."""
    from lfp.ml.sae.autoencoders import Dictionary
    from lfp.ml.sae.formats import load_sae

    folder = run.folder("saes")
    saes = [load_sae(folder / sae_folder(model, layer)) for layer in run.json("layers", "selected")]
    return Dictionary(saes).to(run.config.model.device)


def sae_folder(model: str, layer: int, number: int = 0) -> str:
    """Where an autoencoder of a model's layer lies; number 0 is the one whose features are kept."""
    return f"{model}-layer{layer}" + (f"-other{number}" if number else "")


def located(name: str, beside: Path | None) -> str:
    """A relative folder named in a config file is looked for beside that file too."""
    if beside is not None and (beside / name).is_dir():
        return str(beside / name)
    return name


def reward(run: Run) -> Reward:
    """The reward of texts; every answer of a callable is checked. A classifier is loaded anew at each call of this."""
    return named_reward(run.config, run.beside)


def named_reward(config: RunConfig, beside: Path | None) -> Reward:
    """The same of a config alone; files and folders are looked for in `beside` too."""
    feedback = config.feedback
    if feedback.reward != CLASSIFIER:
        return reward_of(feedback, beside=beside)
    from lfp.ml.models.reward_model import load_reward_model

    name = str(feedback.classifier)
    model = load_reward_model(located(name, beside), feedback, device=config.model.device)
    return checked(model, name=name)


def lexicon(run: Run) -> Mapping[str, float]:
    """The stated values of words. Raises DataError where they say nothing of the corpus."""
    values = lexicon_of(run.config.feedback, beside=run.beside)
    texts = (row["text"] for row in run.table("corpus", "corpus").select(["text"]).to_pylist())
    check_lexicon(values, texts, name=run.config.feedback.lexicon)
    return values
