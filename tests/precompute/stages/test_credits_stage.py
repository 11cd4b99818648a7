"""Stage `credits`: tables that sum to the implicit reward of the bundle, words, layers by credit, and equal models."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from lfp.bundle.exactness import module_credit_faults
from lfp.bundle.manifest import read_manifest, read_table
from lfp.bundle.store.connection import Store
from lfp.errors import ConfigError, DataError
from lfp.ml.sae.autoencoders import Dictionary
from precompute.pipeline import run_stages
from precompute.run.inputs import load_pair
from precompute.run.work_folder import Run
from precompute.stages.findings import feature_credits, feature_trajectory, twin_words
from precompute.stages.models.credit_shards import read_split_texts, split_alone
from tests.lfp.builders import tiny_sae
from tests.precompute.conftest import silent, tiny_config


def rows(bundle: Path, table: str) -> list[dict]:
    return read_table(bundle, table).to_pylist()


def test_credits_of_stored_texts_sum_to_their_implicit_reward(tiny_bundle: Path) -> None:
    texts = {row["text_id"]: row for row in rows(tiny_bundle, "texts") if row["credit_reward"] is not None}
    assert len(texts) == 12
    found = rows(tiny_bundle, "module_credits")
    for path, n in (("full", 12), ("same_position", 6)):
        of_path = [row for row in found if row["path"] == path]
        assert {row["text_id"] for row in of_path} <= texts.keys() and len({row["text_id"] for row in of_path}) == n
        for text_id in {row["text_id"] for row in of_path}:
            parts = np.array([row["credit"] for row in of_path if row["text_id"] == text_id])
            text, size = texts[text_id], np.abs(parts).sum()
            assert text["credit_error"] <= 1e-3
            assert abs(parts.sum() - text["credit_reward"]) <= (text["credit_error"] + 1e-6) * size
            assert text["credit_reward"] == pytest.approx(text["implicit_reward"], abs=1e-4)
    assert {row["module"] for row in found if row["path"] == "same_position"} >= {"elsewhere", "mlp", "unembedding"}


def test_what_came_through_keys_and_values_is_shared_token_by_token_too(tiny_bundle: Path) -> None:
    found = [row for row in rows(tiny_bundle, "results") if row["report_row"] == "module_credits"]
    by_token = {row["group"]: row["value"] for row in found if row["metric"] == "share_by_token" and not row["layer"]}
    of_texts = {row["group"]: row["value"] for row in found if row["metric"] == "share_same_position"}
    assert {"elsewhere", "mlp", "unembedding"} <= by_token.keys()
    assert 0.0 < by_token["elsewhere"] < 1.0 and by_token["elsewhere"] != of_texts["elsewhere"]


def test_validation_finds_credits_that_do_not_sum(tiny_bundle: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(tiny_bundle, tmp_path / "copy")
    file = copy / "module_credits.parquet"
    table = pq.read_table(file)
    credit = table["credit"].to_numpy().copy()
    credit[3] += 1.0
    table = table.set_column(table.schema.get_field_index("credit"), table.schema.field("credit"), [credit])
    with Store(tiny_bundle, read_manifest(tiny_bundle)) as store:
        assert list(module_credit_faults(store)) == []
    pq.write_table(table, file)
    with Store(copy, read_manifest(copy)) as store:
        assert "do not sum to texts.credit_reward" in "".join(module_credit_faults(store))


def test_words_split_their_own_reward_on_the_same_position(tiny_bundle: Path) -> None:
    vocabulary = {row["word"]: row for row in rows(tiny_bundle, "vocabulary")}
    found = rows(tiny_bundle, "word_credits")
    assert {row["word"] for row in found} <= vocabulary.keys() and len({row["word"] for row in found}) > 20
    scores = {row["text_id"]: row["implicit_reward"] for row in rows(tiny_bundle, "token_scores")}
    split = {row["text_id"] for row in rows(tiny_bundle, "module_credits") if row["path"] == "same_position"}
    total = sum(float(np.sum(scores[text_id])) for text_id in split)
    means = [row["mean"] * row["n"] for row in found if row["path"] == "same_position"]
    assert abs(sum(means)) <= abs(total) * 1.5  # words of the vocabulary are most tokens of the texts
    for row in found:
        assert row["n"] >= 1 and (row["ci_low"] is None or row["n"] > 1)
    several = [row for row in found if row["n"] > 1]
    assert any(row["ci_low"] is None for row in several), "where one text has all contexts"
    assert any(row["ci_low"] is not None for row in several)


def test_the_report_has_shares_and_layers_are_chosen_by_credit(tiny_bundle: Path) -> None:
    found = [row for row in rows(tiny_bundle, "results") if row["report_row"] == "module_credits"]
    totals = [row["value"] for row in found if row["metric"] == "share" and row["layer"] is None]
    kinds = [row["group"] for row in found if row["metric"] == "share" and row["layer"] is None]
    assert "dictionaries" in kinds and sum(totals) == pytest.approx(1.0 + totals[kinds.index("dictionaries")])
    layers = rows(tiny_bundle, "layers")
    best = max(layers, key=lambda row: row["credit"])
    assert [row["layer"] for row in layers if row["selected"]] == [best["layer"]]


def test_layers_can_be_chosen_by_number(tiny_bundle: Path, corpus_folder: Path, tmp_path: Path) -> None:
    models = {role: str(tiny_bundle / "artifacts" / role) for role in ("base", "tuned")}
    run = Run(tiny_config(model=models, layers={"chosen": [1, 0]}), tmp_path / "work", corpus_folder, silent)
    run_stages(run, ["layers"])
    assert [row["layer"] for row in run.json("layers", "layers") if row["selected"]] == [0, 1]
    assert not run.folder("credits").exists()
    beyond = Run(tiny_config(model=models, layers={"chosen": [99]}), tmp_path / "beyond", corpus_folder, silent)
    with pytest.raises(ConfigError, match=r"layers\.chosen names layer 99, and .*base has layers 0 to 1; name one"):
        run_stages(beyond, ["layers"])
    assert set(beyond.finished()) <= {"corpus", "feedback", "base"}, "it ends before anything is tuned"


@pytest.mark.parametrize("layers", [{"chosen": [-1]}, {"chosen": [2, 2]}, {"sites": ["mlp_out", "mlp_out"]}])
def test_layers_and_sites_are_named_once_and_counted_from_nought(layers: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"layers"):
        tiny_config(layers=layers)


def test_equal_models_are_said_to_have_nothing_to_split(tiny_bundle: Path, corpus_folder: Path, tmp_path: Path) -> None:
    models = {role: str(tiny_bundle / "artifacts" / "base") for role in ("base", "tuned")}
    run = Run(tiny_config(model=models), tmp_path / "work", corpus_folder, silent)
    run_stages(run, ["layers"])
    (note,) = run.json("credits", "notes")
    assert "equal" in note and "all credits are 0" in note
    credit = run.table("credits", "module_credits")
    assert set(credit["module"].to_pylist()) == {"elsewhere"} and not np.any(credit["credit"].to_numpy())
    assert run.json("layers", "places") == [[0, "mlp_out"]]


def test_twins_are_split_too(tiny_bundle: Path, corpus_folder: Path, tmp_path: Path) -> None:
    models = {role: str(tiny_bundle / "artifacts" / role) for role in ("base", "tuned")}
    config = tiny_config(model=models, twins={"n": 3}, tune={"steps": 2, "completion_tokens": 32})
    run = Run(config, tmp_path / "work", corpus_folder, silent)
    run_stages(run, ["credits"])
    assert run.json("credits", "facts")["twins"] == 3
    with np.load(run.folder("credits") / "twin-1.npz") as twin, np.load(run.folder("credits") / "full.npz") as full:
        assert twin["values"].shape == full["values"].shape and np.abs(twin["values"] - full["values"]).max() > 1e-4


def test_checkpoints_that_tuning_kept_have_a_trajectory(corpus_folder: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    config = tiny_config(
        model={"base": str(tiny_bundle / "artifacts" / "base")},
        tune={"keep_every": 1, "completion_tokens": 32},
        credits={"checkpoint_texts": 5},
    )
    run = Run(config, tmp_path / "work", corpus_folder, silent)
    run_stages(run, ["trajectory", "credits", "feature_trajectory"])
    found = run.table("trajectory", "trajectory").to_pylist()
    assert {row["step"] for row in found} == {1, 2, 3, 4} and {row["n"] for row in found} == {5}
    texts = list(run.json("credits", "texts").values())[:5]
    whole = sum(row["nats"] for row in found if row["step"] == 4)
    with np.load(run.folder("credits") / "full.npz") as credits:
        n_tokens = credits["n_tokens"][:5].sum()
    assert whole * n_tokens == pytest.approx(sum(text["credit_reward"] for text in texts), rel=5e-3)
    assert {row.metric for row in run.results(["trajectory"])} == {"half"}  # a change needs six
    features = run.table("feature_trajectory", "feature_trajectory").to_pylist()
    credits = {row["feature_id"]: row for row in run.table("feature_credits", "credits").to_pylist()}
    assert {row["step"] for row in features} == {1, 2, 3, 4} and {row["n"] for row in features} == {5}
    assert all(credits[row["feature_id"]]["rank"] <= 50 for row in features)
    assert {row.metric for row in run.results(["feature_trajectory"])} == {"feature_half"}


def test_a_tuning_without_checkpoints_has_no_trajectory(tiny_bundle: Path) -> None:
    assert rows(tiny_bundle, "trajectory") == [] and rows(tiny_bundle, "feature_trajectory") == []


def test_credits_of_features_are_the_ledgers_and_at_most_sixteen_forward_passes(tiny_bundle: Path) -> None:
    found = [row for row in rows(tiny_bundle, "results") if row["report_row"] == "feature_credits"]
    figures = {row["metric"]: row["value"] for row in found}
    assert figures["check"] < 1e-9 and figures["module_error"] <= 1e-3
    assert figures["nodes"] >= 1.0 and 2.0 < figures["forward_passes"] <= 16.0


def test_a_gradient_that_is_not_finite_names_the_text_by_its_id(
    tiny_bundle: Path, corpus_folder: Path, tmp_path: Path
) -> None:
    models = {role: str(tiny_bundle / "artifacts" / role) for role in ("base", "tuned")}
    run = Run(tiny_config(model=models), tmp_path / "work", corpus_folder, silent)
    run_stages(run, ["corpus", "tuned"])
    base, tuned = load_pair(run, exact=True)
    split = read_split_texts(run, tuned, 3)
    tuned.parameters["gpt_neox.layers.1.mlp.dense_h_to_4h.weight"][0, 0] = float("nan")
    ids = [text.text_id for text in split.texts]
    assert ids[0] != 0
    with pytest.raises(DataError, match=rf"^text_id {ids[0]}: the gradient in .* is not finite"):
        split_alone(run, (base, tuned), split, base_likelihood=None)
    excerpts = twin_words.Excerpts(split.tokenized, ids, split.counted, np.arange(3), np.ones(3, int))
    with pytest.raises(DataError, match=rf"^text_id {ids[0]}: the gradient in "):
        twin_words.credit_parts(run, base, tuned, excerpts)
    rows = [
        {"text_id": text.text_id, "text": text.text, "token_ids": tokens.token_ids, "token_starts": tokens.token_starts}
        | {"counted": flags}
        for text, tokens, flags in zip(*split, strict=True)
    ]
    dictionary = Dictionary([tiny_sae(d_in=base.d_model, width=16, layer=1)])
    with pytest.raises(DataError, match=rf"^text_id {ids[0]}: "):
        feature_credits.FeatureSplitter(run, (base, tuned), dictionary, {})(
            feature_credits.FeatureShard(rows, None), lambda n: None
        )
    with pytest.raises(DataError, match=rf"^text_id {ids[0]}: "):
        feature_trajectory._split(run, base, tuned, dictionary, rows)
