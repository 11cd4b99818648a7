"""Tables of credits: the implicit reward of texts and words split over modules, in shares that a seed draws."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from lfp.evaluation.feature_trajectory import FeatureTrajectory
from lfp.evaluation.module_credits import FULL, SAME_POSITION, Credits, Key
from lfp.evaluation.results import ELSEWHERE
from lfp.evaluation.statistics.resampling import Draws
from lfp.evaluation.trajectory import Trajectory, trajectory_columns
from lfp.testing.synthetic.corpus import N_SPLIT, Made
from lfp.util.types import Floats


def module_keys(made: Made) -> list[Key]:
    """The modules of a model with as many layers as the bundle reads, as data flows."""
    layers: list[Key] = [
        (layer, kind)
        for layer in sorted({place.layer for place in made.places})
        for kind in ("attention", "mlp", "norm")
    ]
    return [(None, "embedding"), *layers, (None, "final_norm"), (None, "unembedding")]


def draw_shares(n: int, n_modules: int, seed: int) -> Floats:
    """Shares [n, modules] of something split over modules; rows sum to 1, and some shares are negative."""
    drawn = np.random.default_rng(seed).normal(1.0, 0.6, (n, n_modules))
    return np.asarray(drawn / drawn.sum(1, keepdims=True))


def text_credits(made: Made, reward: Floats) -> Credits:
    """Credits of all texts on the full path; they sum to the implicit reward."""
    modules, n = module_keys(made), len(reward)
    values = draw_shares(n, len(modules), 1) * reward[:, None]
    n_tokens = np.bincount(made.corpus.text, minlength=n)[:n]
    return Credits(tuple(modules), values, reward, n_tokens, -1 - np.arange(n))


def build_trajectory(made: Made) -> Trajectory:
    """Credits of the first texts at four checkpoints: attention learns early, the rest late."""
    n = min(len(made.corpus.texts), 20)
    reward = np.bincount(made.corpus.text, np.nan_to_num(made.implicit), n)[:n].astype(float)
    found, steps = text_credits(made, reward), np.array([15, 30, 45, 60])
    early = np.array([kind == "attention" for _, kind in found.modules])
    grown = np.where(early, np.array([[0.6], [0.9], [0.95], [1.0]]), np.array([[0.1], [0.2], [0.7], [1.0]]))
    return Trajectory(steps, found.modules, grown[:, None, :] * found.values, found.n_tokens, found.groups)


def trajectory_table_rows(made: Made) -> list[dict[str, Any]]:
    """Rows of the table `trajectory`; none in a bundle without texts."""
    return trajectory_columns(build_trajectory(made), Draws(20, 20, 0)) if len(made.corpus.texts) > 1 else []


def build_feature_trajectory(made: Made, credit: Floats) -> FeatureTrajectory:
    """The features of the largest `credit` [features] at the same checkpoints, half of them early."""
    n_tokens = build_trajectory(made).n_tokens
    features = np.argsort(-np.abs(credit), kind="stable")[:10]
    early, late = np.array([0.6, 0.9, 0.95, 1.0]), np.array([0.1, 0.2, 0.7, 1.0])
    grown = np.stack([early if place % 2 else late for place in range(len(features))], axis=1)
    values = grown[:, None, :] * credit[features] * n_tokens[:, None]
    return FeatureTrajectory(np.array([15, 30, 45, 60]), features, values, n_tokens, np.arange(len(n_tokens)))


def feature_trajectory_rows(made: Made, credit: Floats) -> list[dict[str, Any]]:
    """Rows of the table `feature_trajectory`; none in a bundle without texts or features."""
    few = len(made.corpus.texts) < 2 or not len(credit)
    return [] if few else build_feature_trajectory(made, credit).columns(Draws(20, 20, 0))


def module_credit_columns(made: Made, texts: dict[str, Any]) -> dict[str, Any]:
    """Credits of every text, on both kinds of path."""
    reward = np.asarray(texts["implicit_reward"], float)[:N_SPLIT]
    modules, full = module_keys(made), text_credits(made, reward).values
    n = len(reward)
    paths: list[tuple[str, list[Key], Floats]] = [
        (FULL, modules, full),
        (SAME_POSITION, [*modules, (None, ELSEWHERE)], np.hstack([0.7 * full, 0.3 * full.sum(1, keepdims=True)])),
    ]
    columns = [_columns("text_id", list(range(n)), path, keys, values) for path, keys, values in paths]
    return {name: _concat([part[name] for part in columns]) for name in columns[0]} | {
        "credit": np.concatenate([values.ravel() for _, _, values in paths])
    }


def word_credit_columns(made: Made) -> dict[str, Any]:
    """Means of words of letters, on the same position and on the full path."""
    corpus, n_words = made.corpus, len(made.corpus.words)
    n = np.bincount(corpus.word[corpus.is_last], minlength=n_words)
    kept = [at for at in np.flatnonzero(n).tolist() if corpus.words[at].isalpha()]
    modules, reward = module_keys(made), np.bincount(corpus.word, np.nan_to_num(made.implicit), n_words)
    means = draw_shares(len(kept), len(modules), 2) * (reward[kept] / np.maximum(n[kept], 1))[:, None]
    columns = []
    for path, keys, values in (
        (FULL, modules, 1.2 * means),
        (SAME_POSITION, [*modules, (None, ELSEWHERE)], np.hstack([0.7 * means, 0.3 * means.sum(1, keepdims=True)])),
    ):
        columns.append(
            _columns("word", [corpus.words[at] for at in kept], path, keys, values)
            | {"mean": values.ravel(), "n": np.repeat(n[kept], len(keys))}
        )
    found = {name: _concat([part[name] for part in columns]) for name in columns[0]}
    return found | {"ci_low": found["mean"] - 0.02, "ci_high": found["mean"] + 0.02}


def _columns(key: str, names: list[Any], path: str, modules: list[Key], values: Floats) -> dict[str, Any]:
    return {
        key: [name for name in names for _ in modules],
        "path": [path] * values.size,
        "layer": [layer for layer, _ in modules] * len(names),
        "module": [kind for _, kind in modules] * len(names),
    }


def _concat(parts: list[Any]) -> Any:
    """Join lists or arrays; layers keep their nulls."""
    if isinstance(parts[0], np.ndarray):
        return np.concatenate(parts)
    values = [value for part in parts for value in part]
    return pa.array(values, pa.int32()) if any(value is None for value in values) else values
