"""Triples of a run: by its lexicon, by a language model, within the context, and every drop in the report."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lfp.config import LanguageModelConfig
from lfp.errors import DataError
from lfp.testing.fake_openai.answers import SwapWords
from lfp.testing.fake_openai.server import FakeConfig, FakeServer
from lfp.texts.lexicon import vader_lexicon
from lfp.texts.triples import find_fault
from precompute.run.inputs import load_role
from precompute.run.work_folder import Run
from precompute.stages.models import corpus
from precompute.stages.probes.triples import draw_triples, triples_results
from tests.lfp.ml.conftest import build_model
from tests.precompute.conftest import silent, tiny_config


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(build_model(tmp_path_factory.mktemp("model")))


def ready(corpus_folder: Path, work: Path, model: str, *, context: int = 48, **sections: dict[str, Any]) -> Run:
    """A run after its corpus stage, with a tuned model whose tokenizer has few words."""
    sections["model"] = {"base": model, "tuned": model, "context": context}
    run = Run(tiny_config(**sections), work, corpus_folder, silent)
    with run.writing("corpus", "key") as output:
        corpus.run(run, output)
    return run


def test_triples_by_the_lexicon_and_their_drops(corpus_folder: Path, tmp_path: Path, model: str) -> None:
    drawn = draw_triples(ready(corpus_folder, tmp_path, model))
    assert drawn.triples and all(find_fault(triple, vader_lexicon()) is None for triple in drawn.triples)
    kept, *dropped = triples_results(drawn)
    assert (kept.metric, kept.value, kept.report_row) == ("kept", len(drawn.triples), "triples")
    assert {row.group: row.value for row in dropped} == drawn.dropped
    assert {row.n for row in (kept, *dropped)} == {len(drawn.triples) + sum(drawn.dropped.values())}


def test_another_lexicon_gives_other_triples(corpus_folder: Path, tmp_path: Path, model: str) -> None:
    flipped = {word: -value for word, value in vader_lexicon().items()}
    rows = "\n".join(f"{word},{value}" for word, value in flipped.items())
    (tmp_path / "flipped.csv").write_text(f"word,value\n{rows}\n", encoding="utf-8")
    run = ready(corpus_folder, tmp_path / "work", model, feedback={"lexicon": str(tmp_path / "flipped.csv")})
    assert all(find_fault(triple, flipped) is None for triple in draw_triples(run).triples)


def test_a_target_that_the_context_cuts_off_is_dropped(corpus_folder: Path, tmp_path: Path, model: str) -> None:
    run = ready(corpus_folder, tmp_path, model, context=16)
    drawn, tokenizer = draw_triples(run), load_role(run, "tuned").tokenizer
    assert drawn.dropped["cut by the context"] > 0
    for triple in drawn.triples:
        end = triple.start + len(triple.negative_word)
        assert len(tokenizer.encode(triple.negative[:end], add_special_tokens=False)) <= 16
    with pytest.raises(DataError, match=r"model\.context 4: it cuts the target word of every triple"):
        draw_triples(ready(corpus_folder, tmp_path, model, context=4))


@pytest.mark.parametrize("behave", ["right", "wrong"])
def test_triples_by_a_language_model(
    corpus_folder: Path, tmp_path: Path, model: str, behave: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with FakeServer(FakeConfig(behave=behave), [SwapWords(vader_lexicon())]) as server:
        probes = {"triples_by": "language_model", "triples_model": "fake", "triples": 12}
        run = ready(corpus_folder, tmp_path, model, probes=probes)
        run = replace(run, language_model=LanguageModelConfig(base_url=server.base_url))
        if behave == "wrong":
            with pytest.raises(DataError, match=r"no contrastive triple .*negative word not negative \d"):
                draw_triples(run)
            return
        drawn, asked = draw_triples(run), server.counts.answers
        assert draw_triples(run) == drawn and server.counts.answers == asked
    assert 0 < len(drawn.triples) <= 12 and asked >= len(drawn.triples)
    assert all(find_fault(triple, vader_lexicon()) is None for triple in drawn.triples)
    assert not any("127.0.0.1" in file.read_text("utf-8", "ignore") for file in tmp_path.rglob("*") if file.is_file())
