"""What models predict in the same contexts, by columns of tokens, and how far tuning prefers each column there."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from lfp.ml.models.activations import model_batches
from lfp.ml.models.loading import LanguageModel
from lfp.ml.models.predictions import read_states
from lfp.ml.models.runtime import FastLinear
from lfp.ml.models.tokenization import TokenizedText
from lfp.util.types import Floats, Ints

LogProbs = NDArray[np.float32]
"""Log-probability of every column in every context [contexts, columns]."""
_LEAST = 1e-30


@torch.no_grad()
def predict_columns(
    model: LanguageModel,
    texts: Sequence[TokenizedText],
    contexts: NDArray[np.bool_],
    *,
    columns: Ints,
    n_columns: int,
    batch_texts: int,
    prepend_bos: bool,
) -> LogProbs:
    """Predict the next column after each context [contexts, columns]: the sum of its tokens' probabilities.

    `contexts` [tokens of all texts, text after text] marks the tokens whose contexts are read, all that precedes them;
    `columns` [d_vocab] gives the column of each token.
    """
    found = [np.zeros((0, n_columns), np.float32)]
    of_token, n_seen = torch.from_numpy(np.ascontiguousarray(columns, np.int64)), 0
    for batch in model_batches(model, texts, batch_texts=batch_texts, prepend_bos=prepend_bos):
        mask = batch.text_tokens()
        n_tokens = int(mask.sum())
        chosen = torch.zeros_like(mask)
        chosen[mask] = torch.from_numpy(contexts[n_seen : n_seen + n_tokens])
        n_seen += n_tokens
        with FastLinear():
            states = read_states(model, batch.input_ids, batch.attention_mask)
        states = states.take(F.pad(chosen[:, 1:], (0, 1)))
        for rows in states.chunks():
            probs = states.logits(rows).softmax(-1).cpu()
            of_columns = torch.zeros(len(probs), n_columns).index_add_(1, of_token, probs)
            found.append(of_columns.clamp_(min=_LEAST).log_().numpy())
    return np.concatenate(found)


def column_preferences(base: LogProbs, model: LogProbs) -> tuple[Floats, Floats]:
    """Return how far a model prefers each column to the base model, in nats, and its information, both [columns].

    In a context, c is the log ratio of the two models' probabilities, less its mean over what the base model would
    write there. With p the base model's probability of the column, the preference is sum p c / sum p (1 - p) over
    contexts: how far the column's logit moved, to first order. Where a column is certain, c is near 0 whatever was
    learned; such contexts have no information, p (1 - p), and do not count.
    """
    probs = np.exp(base)
    ratios = model - base
    ratios -= np.einsum("cv,cv->c", probs, ratios)[:, None]
    information = np.einsum("cv,cv->v", probs, 1.0 - probs, dtype=np.float64)
    score = np.einsum("cv,cv->v", probs, ratios, dtype=np.float64)
    return score / np.maximum(information, _LEAST), information
