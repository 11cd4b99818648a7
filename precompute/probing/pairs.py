"""Preference pairs: what both models make of every text, pooled, in every kind of inputs, and its implicit reward."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from lfp.errors import DataError
from lfp.probes.pooling import first_response_token, pool
from lfp.texts.corpus import CorpusText
from lfp.util.types import Floats
from precompute import pair
from precompute.probing.inputs import Inputs
from precompute.run import Run

if TYPE_CHECKING:
    from lfp.ml.models.activations import PairTokens
    from lfp.ml.models.loading import LanguageModel
    from lfp.ml.models.tokenization import TokenizedText


@dataclass(frozen=True)
class Pairs:
    """Pairs whose two texts differ within the context, [pairs].

    `features` by kind of inputs are [2 pairs, columns], pooled over a text's tokens: chosen texts, then rejected ones
    in the same order. `implicit_reward` is a pair's summed r_t over the response's tokens (over all where there is no
    prompt), chosen minus rejected, and `length` the number of those tokens, the same way round. `n_cut_off` pairs were
    left out, since the context ends before their texts differ.
    """

    is_held_out: NDArray[np.bool_]
    features: Mapping[str, sp.csr_array]
    implicit_reward: Floats
    length: Floats
    n_cut_off: int

    def differences(self, inputs: str) -> sp.csr_array:
        """Pooled inputs [pairs, columns] of the chosen text minus those of the rejected one."""
        n, features = len(self.length), self.features[inputs]
        return sp.csr_array(features[:n] - features[n:])


def has_pairs(run: Run) -> bool:
    """Whether the run's texts are the two sides of preference pairs."""
    return any(text.role == "chosen" for text in pair.corpus_texts(run))


def collect_pairs(run: Run, inputs: Sequence[Inputs]) -> Pairs:
    """Runs both models over the texts of all pairs. Raises DataError where a split has too few."""
    base, tuned = pair.load_pair(run)
    texts = sorted(pair.corpus_texts(run), key=lambda text: (text.role, text.pair_id))  # chosen sorts before rejected
    tokenized = pair.tokenized(run, tuned, texts)
    half = len(texts) // 2
    differs = [tokenized[i].token_ids != tokenized[half + i].token_ids for i in range(half)]
    kept = [i for side in (0, half) for i, is_other in enumerate(differs, start=side) if is_other]
    texts, tokenized = [texts[i] for i in kept], [tokenized[i] for i in kept]
    held_out = np.array([text.split == "held_out" for text in texts[: len(texts) // 2]], bool)
    _check_splits(held_out, run.config.probes.folds)
    passed = _Passed.of(run, (tuned, base), (texts, tokenized), inputs)
    n = len(held_out)
    return Pairs(
        held_out,
        passed.features,
        passed.reward[:n] - passed.reward[n:],
        passed.length[:n] - passed.length[n:],
        half - n,
    )


def _check_splits(is_held_out: NDArray[np.bool_], n_folds: int) -> None:
    n_train, n_held_out = int((~is_held_out).sum()), int(is_held_out.sum())
    if n_train < n_folds or n_held_out < 2:
        raise DataError(
            f"{n_train} pairs to fit a preference probe on and {n_held_out} held out differ within the context;"
            f" at least {n_folds} and 2 are needed, so pass more pairs, raise model.context or change"
            " corpus.held_out_share"
        )


@dataclass(frozen=True)
class _Passed:
    """What the pass over some texts gives: pooled inputs by kind, summed implicit reward and its tokens [texts]."""

    features: Mapping[str, sp.csr_array]
    reward: Floats
    length: Floats

    @staticmethod
    def of(
        run: Run,
        models: tuple[LanguageModel, LanguageModel],
        texts: tuple[Sequence[CorpusText], list[TokenizedText]],
        inputs: Sequence[Inputs],
    ) -> _Passed:
        starts = np.array([_response_start(*one) for one in zip(*texts, strict=True)])
        parts: dict[str, list[sp.csr_array]] = {one.name: [] for one in inputs}
        rewards, lengths = [], []
        for tokens in _stream(run, models, texts[1]):
            rows, is_response = tokens.tuned.rows.numpy(), tokens.tuned.positions.numpy() >= starts[tokens.tuned.rows]
            of = rows - rows[0]
            for one in inputs:
                outputs = _side_by_side(tokens, one.model)
                features = one.encode(outputs, tokens.tuned.ids.numpy())
                parts[one.name].append(pool(features, of, how=run.config.probes.pooling, response=is_response))
            reward = tokens.implicit_reward.nan_to_num().double().numpy()
            rewards.append(np.bincount(of, reward * is_response))
            lengths.append(np.bincount(of, is_response))
        features = {name: sp.csr_array(sp.vstack(some, format="csr")) for name, some in parts.items()}
        return _Passed(features, np.concatenate(rewards), np.concatenate(lengths))


def _stream(run: Run, models: tuple[LanguageModel, LanguageModel], texts: list[TokenizedText]) -> Iterator[PairTokens]:
    """Both models over the texts, telling of progress."""
    from lfp.ml.models.activations import stream_pair

    done = 0
    for tokens in stream_pair(
        *models,
        texts,
        layers=run.json("layers", "selected"),
        batch_texts=run.config.stats.batch_texts,
        prepend_bos=run.config.model.prepend_bos,
    ):
        yield tokens
        done = int(tokens.tuned.rows[-1]) + 1
        run.progress("probes: texts of pairs", done, len(texts), float(done))


def _side_by_side(tokens: PairTokens, model: str) -> NDArray[np.float32]:
    """MLP outputs [tokens, sum of d_in] of one model, layers in order."""
    import torch

    outputs = (tokens.tuned if model == "tuned" else tokens.base).outputs
    return torch.cat([outputs[layer].float() for layer in sorted(outputs)], dim=1).numpy()


def _response_start(text: CorpusText, tokens: TokenizedText) -> int:
    """The first token of the response; 0 where there is no prompt, or none of the response within the context."""
    first = first_response_token(tokens.token_starts, text.response_start)
    return first if first < len(tokens.token_ids) else 0
