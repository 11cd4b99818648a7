"""Means of words against naive loops over their occurrences, and tokens drawn for probes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lfp.ml.words import TokenSample, WordMeans

N_WORDS, N_FEATURES = 4, 5
Occurrence = tuple[int, list[int]]


def stream(seed: int = 0, n_texts: int = 12) -> list[dict[str, torch.Tensor]]:
    """Texts of words of one to three tokens and tokens of no word; word 3 never occurs."""
    rng = np.random.default_rng(seed)
    texts = []
    for _ in range(n_texts):
        words, last = [], []
        for word in rng.integers(-1, N_WORDS - 1, size=6).tolist():
            length = 1 if word < 0 else int(rng.integers(1, 4))
            words += [word] * length
            last += [False] * (length - 1) + [word >= 0]
        n = len(words)
        texts.append({
            "words": torch.tensor(words),
            "is_last": torch.tensor(last),
            "features": torch.tensor(rng.exponential(size=(n, N_FEATURES)), dtype=torch.float32),
            "reward": torch.tensor(rng.normal(size=n), dtype=torch.float32),
            "advantage": torch.tensor(rng.normal(size=n), dtype=torch.float32),
        })  # fmt: skip
    return texts


def naive(texts: list[dict[str, torch.Tensor]], word: int) -> dict[str, list[object]]:
    """Each occurrence's figures: features at its last token and summed over its tokens, tokens, reward, advantage."""
    found: dict[str, list[object]] = {name: [] for name in ("at_last", "over_tokens", "tokens", "reward", "advantage")}
    for one in texts:
        current: list[int] = []
        for t, (of, last) in enumerate(zip(one["words"].tolist(), one["is_last"].tolist(), strict=True)):
            current.append(t)
            if last or of < 0:
                if of == word:
                    found["at_last"].append(one["features"][t].double().numpy())
                    found["over_tokens"].append(one["features"][current].double().sum(0).numpy())
                    found["tokens"].append(len(current))
                    found["reward"].append(one["reward"][current].double().sum().item())
                    found["advantage"].append(one["advantage"][current].double().sum().item())
                current = []
    return found


def filled(texts: list[dict[str, torch.Tensor]], batch: int = 5) -> WordMeans:
    means = WordMeans(N_WORDS, N_FEATURES)
    for start in range(0, len(texts), batch):
        part = texts[start : start + batch]
        means.update(**{name: torch.cat([one[name] for one in part]) for name in part[0]})
    return means


@pytest.mark.parametrize("word", [0, 1, 2])
def test_means_are_over_occurrences_of_values_summed_over_a_words_tokens(word: int) -> None:
    texts = stream()
    found, expected = filled(texts).means(), naive(texts, word)
    assert found["n"][word] == len(expected["tokens"]) > 5
    assert max(expected["tokens"]) == 3
    for name, values in expected.items():
        np.testing.assert_allclose(found[name][word], np.mean(values, axis=0), rtol=1e-12)


def test_a_word_that_never_occurs_has_zeros() -> None:
    found = filled(stream()).means()
    assert all(not np.any(values[3]) for values in found.values())


def test_batches_do_not_change_the_means() -> None:
    one, many = filled(stream(), batch=1).means(), filled(stream(), batch=12).means()
    for name, values in one.items():
        np.testing.assert_allclose(values, many[name], rtol=1e-12)


def test_tokens_without_a_reward_do_not_spoil_their_word() -> None:
    texts = stream()
    texts[0]["reward"][0] = float("nan")
    texts[0]["advantage"][0] = float("nan")
    found = filled(texts).means()
    assert all(np.isfinite(values).all() for values in found.values())


def tokens(n: int = 400, *, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, np.ndarray]:
    rng = np.random.default_rng(seed)
    tuned, base = torch.tensor(rng.exponential(size=(2, n, 3)) * (rng.random((2, n, 3)) < 0.5), dtype=torch.float32)
    reward = torch.tensor(rng.normal(size=n), dtype=torch.float32)
    reward[::10] = float("nan")
    return tuned, base, reward, np.arange(n) % 7


def test_a_whole_sample_is_every_token_with_a_reward() -> None:
    tuned, base, reward, folds = tokens()
    sample = TokenSample(1.0, 0)
    for part in np.array_split(np.arange(400), 3):
        sample.update(tuned[part], base[part], reward[part], folds[part])
    found, kept = sample.tokens(), ~reward.isnan()
    np.testing.assert_array_equal(found.tuned.toarray(), tuned[kept])
    np.testing.assert_array_equal(found.base.toarray(), base[kept])
    np.testing.assert_array_equal(found.reward, reward[kept].double())
    np.testing.assert_array_equal(found.folds, folds[kept])


def test_a_share_is_drawn_by_the_seed() -> None:
    def drawn(seed: int) -> list[float]:
        sample = TokenSample(0.25, seed)
        sample.update(*tokens())
        return sample.tokens().reward.tolist()

    assert 60 < len(drawn(0)) < 120
    assert drawn(0) == drawn(0) != drawn(1)
