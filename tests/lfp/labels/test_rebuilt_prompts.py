"""Kept labels: their prompts, built again from a bundle's rows, are the ones that were sent."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lfp.bundle import queries
from lfp.bundle.store.connection import Store
from lfp.config import LabelsConfig
from lfp.errors import LabelError
from lfp.labels.evidence import find_excerpts, read_evidence, read_excerpt
from lfp.labels.language_model import LanguageModelLabeller
from lfp.labels.prompts import rebuild
from lfp.labels.result_rows import label_rows, merge_labels
from lfp.testing.fake_openai.answers import ReadsPrompts
from lfp.testing.fake_openai.server import FakeConfig, FakeServer
from lfp.testing.synthetic import LEXICON
from tests.conftest import rewrite, with_column
from tests.lfp.labels.asking import client

ROW = {"text": "a b c d e f g", "token_starts": [0, 1, 3, 5, 7, 9, 11], "window_start": 0, "bucket": 0}
FIRING = [ROW | {"text_id": i, "position": i, "window_values": [1.0] * 7} for i in range(5)]
SILENT = ROW | {"text_id": 9, "position": 5, "bucket": -2, "window_values": [2.0] + [0.0] * 6}


@pytest.fixture(scope="module")
def opened(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """A bundle with near misses, twelve of its features labelled by a language model."""

    def missed(rows: pa.Table) -> pa.Table:
        return with_column(rows, "bucket", [-2 if bucket == -1 else bucket for bucket in rows["bucket"].to_pylist()])

    copied = Path(shutil.copytree(bundle, tmp_path_factory.mktemp("kept") / "labelled"))
    rewrite(copied, "examples", missed)
    evidence = list(read_evidence(lambda name: pq.read_table(copied / f"{name}.parquet"), range(12), n_scored=8))
    with FakeServer(FakeConfig(), [ReadsPrompts(LEXICON)]) as server:
        labeller = LanguageModelLabeller(client(server), LabelsConfig(repeats=2), task="It was paid for {praise}.")
        rows = label_rows(labeller.label(evidence), labeller.name)
    rewrite(copied, "labels", lambda kept: merge_labels(kept, rows).sort_by([("feature_id", "ascending")]))
    with Store.open(copied) as store:
        yield store


def asked(store: Store) -> list[tuple[queries.feature.Label, list[dict[str, Any]], float]]:
    """The labels of features 0 to 11 that came of prompts, each with its feature's examples."""
    return [
        (label, queries.excerpts.feature_excerpts(store, i), queries.feature.feature(store, i).max_activation)
        for i in range(12)
        for label in queries.feature.labels(store, i)
        if label.prompt_sha256
    ]


def test_the_prompts_of_a_kept_label_are_those_that_were_sent(opened: Store) -> None:
    found = asked(opened)
    for label, rows, highest in found:
        excerpts = find_excerpts(rows, label.examples_used)
        assert rebuild(label, excerpts, max_activation=highest).sha256 == label.prompt_sha256
    sent = [label for label, _, _ in found if label.labeller.startswith("openai:")]
    assert len(sent) == 12 and len(found) > 12  # those of the synthetic bundle too, one of them failed
    assert any(label.status == "failed" for label, _, _ in found)


def test_look_alikes_are_shown_again_as_they_were(opened: Store) -> None:
    named = [(rows, label) for label, rows, _ in asked(opened) if label.labeller.startswith("openai:")]
    silent = [
        excerpt for rows, label in named for excerpt in find_excerpts(rows, label.examples_used) if not excerpt.fires
    ]
    assert silent and not any(any(excerpt.activations) for excerpt in silent)


def test_other_words_are_not_taken_for_the_prompts_sent(opened: Store) -> None:
    label, rows, highest = asked(opened)[0]
    excerpts = find_excerpts(rows, label.examples_used)
    changes: list[tuple[Any, Any]] = [
        (label, excerpts[::-1]),
        (label, [dataclasses.replace(excerpt, tokens=("x", *excerpt.tokens[1:])) for excerpt in excerpts]),
        (dataclasses.replace(label, task="something else"), excerpts),
        (dataclasses.replace(label, description="something else"), excerpts),
    ]
    for changed, shown in changes:
        assert rebuild(changed, shown, max_activation=highest).sha256 != label.prompt_sha256


def test_an_unknown_version_is_said_so(opened: Store) -> None:
    label, _, highest = asked(opened)[0]
    with pytest.raises(LabelError, match="prompt labels-99: this program does not know its words"):
        rebuild(dataclasses.replace(label, prompt_version="labels-99"), [], max_activation=highest)


@given(named=st.permutations(range(6)), stored=st.permutations(range(6)))
def test_excerpts_come_in_the_order_named(named: list[int], stored: list[int]) -> None:
    rows = [*FIRING, SILENT]
    keys = [read_excerpt(rows[i]).key for i in named]
    assert [excerpt.key for excerpt in find_excerpts([rows[i] for i in stored], keys)] == keys


def test_only_silent_excerpts_are_cut() -> None:
    firing, silent = find_excerpts([SILENT, *FIRING], ["0:0", "9:5"])
    assert firing.text == ROW["text"] and silent.text == " b c d e f g"


@pytest.mark.parametrize("key", ["0:1", "77:0"])
def test_an_example_that_is_gone_is_named(key: str) -> None:
    with pytest.raises(LabelError, match=f"example {key}: the bundle no longer holds"):
        find_excerpts(FIRING, ["0:0", key])
