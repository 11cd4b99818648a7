"""The points of triples: MLP outputs of both models at each target word's last token."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp

from lfp.errors import DataError
from lfp.texts.lexicon import Word, word_tokens
from lfp.texts.triples import Triple
from lfp.util.types import Floats32, Ints
from precompute import pair
from precompute.run import Run

if TYPE_CHECKING:
    from lfp.ml.models.loading import LanguageModel
    from lfp.ml.models.tokenization import TokenizedText

Encode = Callable[[Floats32, Ints], sp.csr_array]

ROLES = ("positive", "negative", "neutral")


@dataclass(frozen=True)
class TriplePoints:
    """The target words of `n` triples, all positive ones, then all negative, then all neutral: everything is [3 n].

    `positions` and `token_ids` are of a target's last token, `outputs` by model its MLP outputs [3 n, sum of d_in].
    """

    words: list[str]
    positions: Ints
    token_ids: Ints
    outputs: Mapping[str, Floats32]

    @property
    def n_triples(self) -> int:
        """Triples."""
        return len(self.words) // len(ROLES)

    def encoded(self, model: str, encode: Encode) -> tuple[sp.csr_array, sp.csr_array]:
        """Inputs [2 n, columns] of the positive, then the negative points, and of each one's neutral partner."""
        n, encoded = self.n_triples, encode(self.outputs[model], self.token_ids)
        neutral = encoded[2 * n :]
        return encoded[: 2 * n], sp.csr_array(sp.vstack([neutral, neutral], format="csr"))


def collect_points(run: Run, triples: Sequence[Triple], layers: Sequence[int]) -> TriplePoints:
    """Runs both models over the sentences of the triples. Raises DataError where there is no triple."""
    from lfp.ml.models.tokenization import tokenize

    if not triples:
        raise DataError("no triple could be made of the corpus; pass more texts, or a lexicon with words of both signs")
    models = dict(zip(("base", "tuned"), pair.load_pair(run), strict=True))
    placed = [(getattr(one, role), one.start, getattr(one, f"{role}_word")) for role in ROLES for one in triples]
    texts = tokenize(models["tuned"].tokenizer, [text for text, _, _ in placed], context=run.config.model.context)
    positions = np.array([_target(text, start, word) for text, (_, start, word) in zip(texts, placed, strict=True)])
    ids = np.array([text.token_ids[at] for text, at in zip(texts, positions.tolist(), strict=True)])
    outputs = {name: _outputs_at(run, model, texts, positions, layers) for name, model in models.items()}
    return TriplePoints([word for _, _, word in placed], positions, ids, outputs)


def _outputs_at(
    run: Run, model: LanguageModel, texts: list[TokenizedText], positions: Ints, layers: Sequence[int]
) -> Floats32:
    """MLP outputs [texts, sum of d_in] at one position of each text."""
    import torch

    from lfp.ml.models.activations import stream

    parts = []
    for tokens in stream(model, texts, layers=layers, batch_texts=128, prepend_bos=run.config.model.prepend_bos):
        at = torch.from_numpy(np.flatnonzero(positions[tokens.rows.numpy()] == tokens.positions.numpy()))
        parts.append(torch.cat([tokens.outputs[layer][at].float() for layer in layers], dim=1).numpy())
    return np.concatenate(parts)


def _target(text: TokenizedText, start: int, word: str) -> int:
    """Position of the last token of the target word; the last token kept, where the context cut the word off."""
    tokens = word_tokens([Word(word, start, start + len(word))], text.token_starts, len(text.text))[0]
    return tokens[-1] if tokens else len(text.token_ids) - 1
