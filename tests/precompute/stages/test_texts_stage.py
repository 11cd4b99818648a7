"""The texts stage on tiny models and made-up probes: estimates, both ledgers and rows, under every pooling."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scipy.sparse as sp
import torch

from lfp.bundle.schema import as_table
from lfp.bundle.tables.columns import TOKEN_VALUES
from lfp.config import parse_config
from lfp.ml.models.activations import stream_pair
from lfp.ml.models.loading import load_model
from lfp.ml.models.tokenization import tokenize
from lfp.ml.sae.autoencoders import Dictionary, Normalize
from lfp.ml.sae.formats import write_sae
from lfp.ml.sae.quality import split_raw
from lfp.probes.attribution import ActiveText, LinearProbe, raw_ledger, text_ledger
from lfp.probes.linear_algebra import principal_components
from lfp.probes.pooling import POOLINGS, pool_dense
from lfp.texts.corpus import CorpusText
from lfp.texts.lexicon import vader_lexicon, vader_reward
from lfp.util.types import Place
from precompute.run.inputs import order_texts
from precompute.run.work_folder import Output, Run
from precompute.stages.features import texts
from tests.lfp.builders import tiny_sae
from tests.lfp.ml.conftest import SENTENCES, build_model
from tests.precompute.conftest import silent

CORPUS = [*SENTENCES, "So good", "bad", "The plot was great, the ending terrible and the music happy: a waste of time."]
LAYERS, D_IN, WIDTH = (0, 2), 32, 48
COEF = np.random.default_rng(4).normal(size=len(LAYERS) * D_IN)
WEIGHTS = np.random.default_rng(5).normal(size=len(LAYERS) * WIDTH).astype(np.float32)
INTERCEPT, RAW_INTERCEPT = 0.3, -0.2
TOP_TOKENS = [" good", " was"]
"""Of even features and of odd ones; the neighbour of each is the one before it."""
STARTS = [0, 12, 0, 5, 400, 0, 0, 20]
"""Characters at which the responses begin; that of text 4 lies past its end."""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folders that earlier stages leave of models and texts."""
    work = tmp_path_factory.mktemp("work")
    for seed, role in enumerate(("base", "tuned")):
        build_model(work / role / "model", seed=seed)
    rows = [
        {
            "text_id": 10 + i,
            "source": "made up",
            "split": "held_out" if i % 3 == 0 else "train",
            "role": "text",
            "pair_id": None,
            "text": text,
            "response_start": STARTS[i],
            "rating": None,
        }
        for i, text in enumerate(CORPUS)
    ]
    kept(work / "corpus", corpus=pa.Table.from_pylist(rows))
    shown = {"feature_id": 0, "bucket": 0, "activation": 1.0, "position": 0, "window_start": 0, "window_values": [1.0]}
    examples = [{**shown, "rank": rank, "text_id": text_id} for rank, text_id in enumerate((11, 12, 13, 17))]
    features = range(len(LAYERS) * WIDTH)
    neighbours = {
        "feature_id": features,
        "kind": ["coactivation"] * len(features),
        "rank": [0] * len(features),
        "neighbour_id": np.roll(features, 1),
    }
    top_tokens = pa.array([[{"token": TOP_TOKENS[i % 2], "value": 0.5}] for i in features], TOKEN_VALUES)
    kept(
        work / "features",
        examples=as_table("examples", examples),
        features=pa.table({"feature_id": features, "top_tokens": top_tokens}),
        neighbours=pa.table(neighbours),
    )
    (work / "layers").mkdir()
    (work / "credits").mkdir()
    (work / "credits" / "texts.json").write_text(json.dumps({"0": {"credit_reward": 1.5}}), encoding="utf-8")
    (work / "layers" / "places.json").write_text(json.dumps([Place(layer) for layer in LAYERS]), encoding="utf-8")
    return work


def kept(folder: Path, **tables: pa.Table) -> None:
    folder.mkdir(exist_ok=True)
    for name, table in tables.items():
        pq.write_table(table, folder / f"{name}.parquet")


def saes(normalize: Normalize) -> list[Any]:
    made = [tiny_sae(width=WIDTH, d_in=D_IN, layer=layer, seed=layer, scale=0.6 + layer) for layer in LAYERS]
    made[0].info = replace(made[0].info, normalize=normalize)
    return made


def scored(
    work: Path, out: Path, pooling: str, *, normalize: Normalize = "none", has_raw: bool = True, near_misses: int = 0
) -> dict:
    """Runs the stage with probes of that pooling; its tables' rows by text."""
    for sae in saes(normalize):
        write_sae(sae, work / "saes" / f"tuned-layer{sae.info.layer}")
    probe = {
        "probe_id": 0, "target": "preference", "inputs": "sae", "model": "tuned", "layers": list(LAYERS),
        "kind": "logistic", "pooling": pooling, "alpha": 1.0, "intercept": INTERCEPT, "display_slope": 1.0,
        "display_offset": 0.0, "n_train": 1, "n_test": 1, "is_headline": True,
    }  # fmt: skip
    weights = pa.table({"probe_id": [0] * len(WEIGHTS), "feature_id": range(len(WEIGHTS)), "weight": WEIGHTS})
    kept(work / "probes", probes=as_table("probes", [probe]), weights=weights)
    raw = work / "probes" / "raw.npz"
    raw.unlink(missing_ok=True)
    if has_raw:
        np.savez(raw, coef=COEF, intercept=RAW_INTERCEPT)
    stats = {"batch_texts": 3, "store_texts": 5, "near_misses": near_misses, "window": 1}
    config = parse_config({"model": {"context": 14}, "stats": stats})
    texts.run(Run(config, work, None, silent), Output(out, out))
    return {
        name: {row["text_id"]: row for row in pq.read_table(out / f"{name}.parquet").to_pylist()}
        for name in ("texts", "token_scores", "activations")
    }


def measured(work: Path, normalize: Normalize) -> dict[int, dict[str, Any]]:
    """Each text alone through the models: features, outputs and what the autoencoders make of them, side by side."""
    base, tuned = (load_model(str(work / role / "model")) for role in ("base", "tuned"))
    dictionary = Dictionary(saes(normalize))
    found = {}
    for i, text in enumerate(tokenize(tuned.tokenizer, CORPUS, context=14)):
        (tokens,) = stream_pair(
            tuned, base, [text], places=[Place(layer) for layer in LAYERS], batch_texts=1, prepend_bos=True
        )
        outputs = tokens.tuned.outputs
        rebuilt = [sae.reconstruct(outputs[sae.info.place]) for sae in dictionary.saes]
        found[10 + i] = {
            "tokens": text,
            "features": dictionary.encode(outputs).double().numpy(),
            "x": torch.cat([outputs[Place(layer)] for layer in LAYERS], 1).double().numpy(),
            "x_hat": torch.cat(rebuilt, 1).double().numpy(),
            "reward": tokens.implicit_reward,
        }
    return found


def of_response(text: Any, start: int) -> np.ndarray:
    return np.array([begin >= start for begin in text.token_starts], bool)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_estimates_are_those_of_the_pooled_text(models: Path, tmp_path: Path, pooling: str) -> None:
    found, truth = scored(models, tmp_path, pooling), measured(models, "none")
    assert found["texts"].keys() == found["token_scores"].keys()
    for text_id, row in found["texts"].items():
        one, scores = truth[text_id], found["token_scores"][text_id]
        response, zeros = of_response(one["tokens"], STARTS[text_id - 10]), np.zeros(len(one["x"]), np.int64)
        assert row["response_start"] == (~response).sum()

        def pooled(values: np.ndarray, response: np.ndarray = response, zeros: np.ndarray = zeros) -> np.ndarray:
            return pool_dense(values, zeros, how=pooling, response=response)[0]

        assert row["predicted"] == pytest.approx(pooled(one["features"]) @ WEIGHTS + INTERCEPT, abs=1e-4)
        assert row["predicted_raw"] == pytest.approx(pooled(one["x"]) @ COEF + RAW_INTERCEPT, abs=1e-4)
        np.testing.assert_allclose(scores["predicted"], one["features"] @ WEIGHTS + INTERCEPT, atol=1e-4)
        np.testing.assert_allclose(scores["sae_miss"], (one["x"] - one["x_hat"]) @ COEF, atol=1e-4)
        if pooling != "max":
            assert row["sae_miss"] == pytest.approx(pooled(one["x"] - one["x_hat"]) @ COEF, abs=1e-4)
        counted = one["reward"].numpy()[response] if response.any() else one["reward"].numpy()
        assert row["implicit_reward"] == pytest.approx(float(np.nansum(counted)), abs=1e-4)
        assert scores["in_response"] == (response.tolist() if STARTS[text_id - 10] else None)
        assert row["feedback"] == pytest.approx(vader_reward([row["text"]])[0])
        stated = [value for value in scores["feedback"] if value is not None]
        assert all(value in vader_lexicon().values() for value in np.round(stated, 6))


@pytest.mark.parametrize("pooling", POOLINGS)
def test_both_ledgers_add_up_from_what_is_stored(models: Path, tmp_path: Path, pooling: str) -> None:
    found, split = scored(models, tmp_path, pooling), split_raw(Dictionary(saes("none")), COEF)
    for text_id, row in found["activations"].items():
        text = found["texts"][text_id]
        values = np.asarray(row["values"], np.float64)
        positions, features = np.asarray(row["positions"]), np.asarray(row["feature_ids"])
        active = ActiveText(positions, features, values, len(text["token_ids"]), text["response_start"])
        ledger = text_ledger(active, LinearProbe(WEIGHTS.astype(float), INTERCEPT, pooling))
        assert ledger.predicted == pytest.approx(text["predicted"], rel=1e-6, abs=1e-6)
        second = raw_ledger(
            active,
            LinearProbe(split.weights.astype(np.float32).astype(float), RAW_INTERCEPT, pooling),
            bias=split.bias,
            miss=text["sae_miss"],
        )
        size = np.abs(second.contributions).sum() + abs(second.intercept) + 1
        assert abs(second.predicted - text["predicted_raw"]) < 1e-6 * size


@pytest.mark.parametrize("pooling", ["mean", "max"])
def test_inputs_that_are_normalised_are_missed_by_what_is_not_rebuilt(
    models: Path, tmp_path: Path, pooling: str
) -> None:
    found, truth = scored(models, tmp_path, pooling, normalize="layer_norm"), measured(models, "layer_norm")
    for text_id, row in found["texts"].items():
        misses = (truth[text_id]["x"] - truth[text_id]["x_hat"]) @ COEF
        np.testing.assert_allclose(found["token_scores"][text_id]["sae_miss"], misses, atol=2e-4)
        if pooling == "max":
            assert row["sae_miss"] is None and row["predicted_raw"] is not None
        else:
            assert row["sae_miss"] == pytest.approx(misses.mean(), abs=1e-4)


def test_without_a_raw_probe_there_is_no_second_ledger(models: Path, tmp_path: Path) -> None:
    found = scored(models, tmp_path, "mean", has_raw=False)
    assert all(row["predicted_raw"] is None and row["sae_miss"] is None for row in found["texts"].values())
    assert all(row["sae_miss"] is None for row in found["token_scores"].values())


def test_held_out_texts_come_first_and_texts_of_examples_are_kept_beside_them(models: Path, tmp_path: Path) -> None:
    found, truth = scored(models, tmp_path, "mean"), measured(models, "none")
    assert len(found["activations"]) == 5 and {10, 13, 16} <= found["activations"].keys()
    assert found["texts"].keys() == found["activations"].keys() | {11, 12, 13, 17}
    ids = list(found["texts"])
    means = np.stack([truth[text_id]["features"].mean(axis=0) for text_id in ids])
    places = [[found["texts"][text_id][axis] for axis in ("pca_x", "pca_y")] for text_id in ids]
    np.testing.assert_allclose(places, principal_components(sp.csr_array(means)), atol=1e-4)


def test_near_misses_are_found_among_all_kept_texts(models: Path, tmp_path: Path) -> None:
    texts_kept, truth = scored(models, tmp_path, "mean", near_misses=1000)["texts"], measured(models, "none")
    rows = pq.read_table(tmp_path / "examples.parquet").to_pylist()
    expected = set()
    for text_id in texts_kept:
        one = truth[text_id]
        ends = [*one["tokens"].token_starts[1:], len(one["tokens"].text)]
        for at, (start, end) in enumerate(zip(one["tokens"].token_starts, ends, strict=True)):
            around = one["features"][max(0, at - 1) : at + 2].max(axis=0)
            for feature in np.flatnonzero(around == 0).tolist():
                is_top = one["tokens"].text[start:end] == TOP_TOKENS[feature % 2]
                if is_top or one["features"][at, (feature - 1) % len(around)] > 0:
                    expected.add((feature, one["tokens"].token_ids[max(0, at - 7) : at + 1]))
    near = [row for row in rows if row["bucket"] == -2]
    contexts = [truth[row["text_id"]]["tokens"].token_ids[: row["position"] + 1][-8:] for row in near]
    assert {(row["feature_id"], context) for row, context in zip(near, contexts, strict=True)} == expected
    assert len(near) == len(expected) > 100 and len(rows) == len(near) + 4
    assert rows == sorted(rows, key=lambda row: (row["feature_id"], row["bucket"], row["rank"]))


def test_no_near_misses_are_looked_for_where_none_are_wanted(models: Path, tmp_path: Path) -> None:
    scored(models, tmp_path, "mean", near_misses=0)
    found = pq.read_table(tmp_path / "examples.parquet")
    assert found.equals(pq.read_table(models / "features" / "examples.parquet"))


@pytest.mark.parametrize("seed", range(3))
def test_both_sides_of_a_pair_are_kept_together(seed: int) -> None:
    corpus = [
        CorpusText(i, "A text", "made up", "held_out" if i >= 20 else "train", None, role, i // 2)
        for i, role in enumerate(["chosen", "rejected"] * 20)
    ]
    kept = {text.text_id for text in order_texts(corpus, seed=seed)[:24]}
    assert len(kept) == 24 and {i ^ 1 for i in kept} == kept and set(range(20, 40)) <= kept
