"""Preference pairs: what both models make of every text, pooled, in every kind of inputs, and its implicit reward."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from lfp.config import ProbesConfig
from lfp.errors import DataError
from lfp.evaluation.pairs import JudgedPairs, length_row, pair_difference_row, pair_rows
from lfp.evaluation.results import ResultRow
from lfp.probes.folds import row_folds
from lfp.probes.logistic import Logistic, fit_logistic
from lfp.probes.pooling import first_response_token, pool
from lfp.probes.ridge import layer_scales
from lfp.probes.weight_intervals import clustered_intervals
from lfp.texts.corpus import CorpusText
from lfp.util.types import Floats, Ints
from precompute.run.inputs import load_pair, read_texts, tokenize_texts
from precompute.run.work_folder import Run
from precompute.stages.probes.fitting import Probe, Weights
from precompute.stages.probes.inputs import COMPARED, MODELS, OF_THE_BUNDLE, Inputs, scaled_columns

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
    return any(text.role == "chosen" for text in read_texts(run))


def collect_pairs(run: Run, inputs: Sequence[Inputs]) -> Pairs:
    """Runs both models over the texts of all pairs. Raises DataError where a split has too few."""
    base, tuned = load_pair(run)
    # "chosen" sorts before "rejected"
    texts = sorted(read_texts(run), key=lambda text: (text.role, text.pair_id))  # chosen sorts before rejected
    tokenized = tokenize_texts(run, tuned, texts)
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


TARGET = "preference"


@dataclass(frozen=True)
class PairProbe:
    """A probe judged on held-out pairs: predicted chosen minus rejected [pairs], and the same by refitted nulls."""

    probe: Probe
    margins: Floats
    null_margins: Floats
    """[permutations, pairs], by probes of training preferences drawn at random."""


def fit_pairs(inputs: Inputs, pairs: Pairs, config: ProbesConfig, *, seed: int) -> PairProbe:
    """The probe of the training pairs, with as many nulls as `probes.weight_permutations`.

    Each training pair is turned round at random, so that neither side is always the first; the nulls' outcomes are
    drawn like this turning, apart from it.
    """
    differences = pairs.differences(inputs.name)
    train, held_out = np.flatnonzero(~pairs.is_held_out), np.flatnonzero(pairs.is_held_out)
    scales = layer_scales(differences[train], inputs.layer_of)
    turned = np.random.default_rng(seed).choice([-1.0, 1.0], size=(len(train), 1 + config.weight_permutations))
    features = scaled_columns(sp.csr_array(sp.diags_array(turned[:, 0]) @ differences[train]), scales)
    rows = _Rows(features, (turned > 0).astype(np.float64), row_folds(len(train), n_folds=config.folds, seed=seed))
    fit = rows.fit(rows.outcomes, config)
    margins = scaled_columns(differences[held_out], scales) @ fit.coef
    probe = Probe(
        target=TARGET,
        inputs=inputs.name,
        kind="logistic",
        pooling=config.pooling,
        alpha=float(fit.alpha[0]),
        intercept=0.0,
        weights=_weights(inputs, rows, fit, scales, config),
        n_train=len(train),
    )
    return PairProbe(probe, margins[:, 0], margins[:, 1:].T)


def preference_rows(
    probes: Mapping[str, PairProbe],
    ids: Mapping[tuple[str, str], int],
    pairs: Pairs,
    config: ProbesConfig,
    *,
    seed: int,
) -> list[ResultRow]:
    """Row `preference_accuracy`: every probe, tuned minus base, length alone, and the implicit reward with no probe."""
    judged = JudgedPairs.of(pairs.length[pairs.is_held_out], config, seed=seed)
    rows: list[ResultRow] = []
    for inputs, one in probes.items():
        keys = _keys(TARGET, inputs) | {"probe_id": ids[TARGET, inputs]}
        rows += pair_rows(judged, one.margins, one.null_margins, log_odds=True, **keys)
    for tuned, base in COMPARED.items():
        ours, theirs = probes[tuned], probes[base]
        keys = _keys(TARGET, tuned) | {"model": "difference"}
        nulls = ours.null_margins, theirs.null_margins
        rows.append(pair_difference_row(judged, ours.margins, theirs.margins, nulls=nulls, **keys))
    measured = pairs.implicit_reward[pairs.is_held_out]
    rows += pair_rows(judged, measured, None, log_odds=False, model="difference", target="implicit_reward")
    rows.append(length_row(judged, target=TARGET))
    return [
        *rows,
        ResultRow.from_estimate(
            "preference_accuracy", "pairs_cut_off", pairs.n_cut_off, target=TARGET, n=len(pairs.length)
        ),
    ]


@dataclass(frozen=True)
class _Rows:
    """Training pairs: scaled differences [pairs, columns], outcomes [pairs, 1 + nulls] of 0 and 1, folds [pairs]."""

    features: sp.csr_array
    outcomes: Floats
    folds: Ints

    def fit(self, outcomes: Floats, config: ProbesConfig) -> Logistic:
        """Fits outcomes [pairs, targets]."""
        n_folds, alphas = config.folds, config.alphas
        return fit_logistic(self.features, outcomes, self.folds, n_folds=n_folds, alphas=alphas, intercept=False)


def _weights(inputs: Inputs, rows: _Rows, fit: Logistic, scales: Floats, config: ProbesConfig) -> Weights:
    """The weights in units of the pooled inputs; with their noise where they are the bundle's.

    Intervals are over pairs; the null has the probe's own alpha, as of the other probes.
    """
    value = fit.coef[:, 0] * scales
    if inputs.name not in OF_THE_BUNDLE:
        return Weights(value)
    pair_of = np.arange(len(rows.folds))
    low, high = clustered_intervals(rows.features, rows.outcomes[:, 0], pair_of, fit, intercept=False)
    nulls = rows.fit(rows.outcomes[:, 1:], config.model_copy(update={"alphas": (float(fit.alpha[0]),)}))
    null_high = np.quantile(np.abs(nulls.coef), 0.95, axis=1)
    return Weights(value, low * scales, high * scales, null_high * scales)


def _keys(target: str, inputs: str) -> dict[str, Any]:
    return {"model": MODELS[inputs], "target": target, "inputs": inputs, "split": "held_out_pairs"}
