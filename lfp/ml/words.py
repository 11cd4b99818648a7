"""Mean features, implicit reward and advantage of words over their occurrences, and tokens sampled for probes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray
from torch import Tensor

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


class WordMeans:
    """Running sums over the occurrences of words: features at the last token and over all tokens, r_t and c_t.

    A word of several tokens is one word: its tokens' values are summed (PAPER.md).
    """

    def __init__(self, n_words: int, n_features: int) -> None:
        self.n = torch.zeros(n_words, dtype=torch.float64)
        self.n_tokens = torch.zeros(n_words, dtype=torch.float64)
        self.at_last = torch.zeros(n_words, n_features, dtype=torch.float64)
        self.over_tokens = torch.zeros(n_words, n_features, dtype=torch.float64)
        self.reward = torch.zeros(n_words, dtype=torch.float64)
        self.advantage = torch.zeros(n_words, dtype=torch.float64)

    def update(self, words: Tensor, is_last: Tensor, features: Tensor, reward: Tensor, advantage: Tensor) -> None:
        """Adds tokens: their word [n] (-1 for none), whether last in it, features [n, features], r_t and c_t [n]."""
        inside = words >= 0
        of, last = words[inside], words[inside & is_last]
        self.n_tokens.index_add_(0, of, torch.ones(len(of), dtype=torch.float64))
        self.n.index_add_(0, last, torch.ones(len(last), dtype=torch.float64))
        self.at_last.index_add_(0, last, features[inside & is_last].double())
        self.over_tokens.index_add_(0, of, features[inside].double())
        self.reward.index_add_(0, of, reward[inside].nan_to_num().double())
        self.advantage.index_add_(0, of, advantage[inside].nan_to_num().double())

    def means(self) -> dict[str, Floats]:
        """Means an occurrence, by name: at_last, over_tokens [words, features]; tokens, reward, advantage [words]."""
        n = self.n.clamp(min=1.0)
        return {
            "at_last": (self.at_last / n[:, None]).numpy(),
            "over_tokens": (self.over_tokens / n[:, None]).numpy(),
            "tokens": (self.n_tokens / n).numpy(),
            "reward": (self.reward / n).numpy(),
            "advantage": (self.advantage / n).numpy(),
            "n": self.n.numpy(),
        }


@dataclass(frozen=True)
class SampledTokens:
    """Tokens drawn for a probe: features of both models [rows, features], implicit reward and fold [rows]."""

    tuned: sp.csr_array
    base: sp.csr_array
    reward: Floats
    folds: Ints


class TokenSample:
    """Collects a share of all tokens with a defined implicit reward, drawn by the seed."""

    def __init__(self, share: float, seed: int) -> None:
        self._share, self._rng = share, np.random.default_rng(seed)
        self._parts: list[SampledTokens] = []

    def update(self, tuned: Tensor, base: Tensor, reward: Tensor, folds: Ints) -> None:
        """Offers tokens: features [n, features] of the tuned and the base model, r_t [n], folds [n]."""
        drawn = (self._rng.random(len(folds)) < self._share) & torch.isfinite(reward).numpy()
        rows = torch.from_numpy(np.flatnonzero(drawn))
        self._parts.append(
            SampledTokens(
                sp.csr_array(tuned[rows].numpy()),
                sp.csr_array(base[rows].numpy()),
                reward[rows].double().numpy(),
                folds[drawn],
            )
        )

    def tokens(self) -> SampledTokens:
        """All that were drawn."""
        return SampledTokens(
            sp.csr_array(sp.vstack([part.tuned for part in self._parts])),
            sp.csr_array(sp.vstack([part.base for part in self._parts])),
            np.concatenate([part.reward for part in self._parts]),
            np.concatenate([part.folds for part in self._parts]),
        )
