"""Stages in shards: what other processes make of them in another order is what one process makes, to the bit."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from precompute.pipeline import run_stages
from precompute.run.work_folder import Run
from tests.precompute.conftest import silent, tiny_config
from tests.precompute.elsewhere import Elsewhere, read_folder


@pytest.fixture(scope="module")
def run(tiny_bundle: Path, corpus_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run over two layers of given models, whose stages are kept from test to test."""
    config = tiny_config(
        model={role: str(tiny_bundle / "artifacts" / role) for role in ("base", "tuned")},
        layers={"chosen": [0, 1]},
        sae={"steps": 5},
        stats={"batch_texts": 8, "store_texts": 16},
        probes={"triples": 20, "controls": []},
        credits={"n_texts": 12, "by_token": 6, "batch_texts": 2},
        feature_credits={"texts": 8, "batch_texts": 2, "interventions": 2, "controls": 1, "intervention_texts": 4},
        ablation={"completions": 4, "prefix_tokens": 6, "group_size": 2, "controls": 1, "features": 1},
        cluster={"shard_texts": 4},
        corpus={"n_texts": 120},
    )
    return Run(config, tmp_path_factory.mktemp("run"), corpus_folder, silent)


@pytest.mark.parametrize(
    ("stage", "n_shards"),
    [
        ("credits", 3),
        ("saes", 4),
        ("features", 12),
        ("texts", 12),
        ("feature_credits", 2),
        ("interventions", 3),
        ("ablations", 4),
    ],
)
def test_workers_elsewhere_write_the_files_of_one_process(run: Run, stage: str, n_shards: int) -> None:
    elsewhere, found = Elsewhere(), []
    run_stages(run, [stage])
    found.append(read_folder(run.work / stage))
    shutil.rmtree(run.work / stage)
    run_stages(replace(run, executor=elsewhere), [stage])
    found.append(read_folder(run.work / stage))
    assert elsewhere.n_shards >= n_shards
    assert found[0].keys() == found[1].keys()
    assert [name for name, content in found[0].items() if content != found[1][name]] == []
