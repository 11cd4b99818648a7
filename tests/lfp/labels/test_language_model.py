"""The labeller that asks a language model, against a real server: what is right scores high, what is not does not."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import pytest

from lfp.config import LabelsConfig
from lfp.labels import prompts
from lfp.labels.evidence import sample_excerpts
from lfp.labels.language_model import LanguageModelLabeller
from lfp.labels.types import Evidence, Label
from lfp.testing.fake_openai.answers import KnowsFeatures, ReadsPrompts, Responder
from lfp.testing.fake_openai.server import FakeConfig, FakeServer
from tests.lfp.labels.asking import client
from tests.lfp.labels.excerpts import WORDS, excerpts_of, known_features

EVIDENCE = known_features(n_scored=12)
RELATED = {i: word in ("good", "awful") for i, word in enumerate(WORDS)}
CONFIG = LabelsConfig(swapped=4, repeats=2)


def serve(*responders: Responder, **changes: Any) -> FakeServer:
    return FakeServer(FakeConfig(**changes), responders or [KnowsFeatures(EVIDENCE, RELATED)])


def labels_of(
    server: FakeServer, cache: Path | None = None, *, evidence: Sequence[Evidence] = EVIDENCE, **changes: Any
) -> list[Label]:
    labeller = LanguageModelLabeller(client(server, cache, **changes), CONFIG, task="It was paid for joy.")
    assert labeller.name == "openai:fake"
    return labeller.label(evidence)


def detection(labels: Sequence[Label]) -> float:
    return mean(label.score.detection for label in labels if label.score.detection is not None)


def test_a_server_that_knows_the_truth_scores_full_and_relates_what_is_related() -> None:
    with serve() as server:
        labels = labels_of(server)
    assert [label.feature_id for label in labels] == list(range(len(WORDS)))
    assert all(label.score.detection == label.score.fuzzing == 1.0 and label.is_ok for label in labels)
    assert [label.related for label in labels] == list(RELATED.values())
    assert all(label.agreement == 1.0 and label.confidence == 1.0 and label.failure is None for label in labels)
    assert [label.score.swapped for label in labels] == [0.5] * 4 + [None] * 4
    # a feature: 2 descriptions, 2 relations, detection and fuzzing; 4 are judged by another's description too
    assert server.counts.as_json()["requests"] == server.counts.answers == 8 * (2 + 2 + 2) + 4
    assert server.counts.as_json()["prompts"] <= server.counts.answers


def test_one_that_describes_another_feature_scores_low_and_a_random_one_at_chance() -> None:
    with serve(behave="wrong") as server:
        wrong = labels_of(server)
    assert detection(wrong) < 0.6 and [label.related for label in wrong] != list(RELATED.values())
    many = known_features([f"{word}{letter}" for word in WORDS for letter in "abcdefghijkl"], n_scored=12)
    with serve(behave="random") as server:
        assert 0.45 < detection(labels_of(server, evidence=many)) < 0.55


def test_one_that_only_reads_prompts_finds_the_word_but_not_the_exception() -> None:
    with serve(ReadsPrompts({"good": 2.0, "awful": -2.0})) as server:
        labels = labels_of(server)
    assert all(word in (label.description or "") for label, word in zip(labels, WORDS, strict=True))
    assert 0.6 < detection(labels) < 0.9
    assert [label.related for label in labels] == list(RELATED.values())


def test_the_label_says_from_what_it_was_made() -> None:
    with serve() as server:
        labels = labels_of(server, price_in=1.0, price_out=1.0)
    for label, evidence in zip(labels, EVIDENCE, strict=True):
        sample = sample_excerpts(evidence, n_top=5, per_interval=1, n_silent=3, repeat=0)
        assert label.examples_used == tuple(excerpt.key for excerpt in sample)
        rebuilt = prompts.rebuild(label, sample, max_activation=4.0)
        assert label.prompt_sha256 == rebuilt.sha256
        assert (label.model, label.task) == ("fake", "It was paid for joy.")
        assert (
            label.cost_usd
            and label.answered_at
            and not set(label.examples_used) & {excerpt.key for excerpt in evidence.held_out}
        )


def test_a_second_labelling_asks_nothing_and_says_the_same(tmp_path: Path) -> None:
    with serve() as server:
        first = labels_of(server, tmp_path)
        asked = server.counts.as_json()["requests"]
        assert labels_of(server, tmp_path) == first
        assert server.counts.as_json()["requests"] == asked


def test_faults_are_asked_again_until_all_is_there() -> None:
    with serve(behave="flaky", faults=("rate_limit", "server_error"), retry_after="0", seed=3) as server:
        labels = labels_of(server)
    assert all(label.is_ok and label.score.detection == 1.0 for label in labels)
    assert server.counts.as_json()["repeated"] > 0


def test_an_answer_that_breaks_the_schema_three_times_fails_that_part_and_the_rest_goes_on() -> None:
    class Half:
        """Knows how to answer, but what it says of relation breaks the schema for some features."""

        def __init__(self) -> None:
            self._known = KnowsFeatures(EVIDENCE, RELATED)

        def answer(self, request: Any, *, right: bool) -> Any:
            if request.schema_name == "Relation" and "feature 3 " in request.messages[-1][1]:
                return {"related": "perhaps"}
            if request.schema_name == "Fuzzing" and "feature 5 " in request.messages[-1][1]:
                return {"firing": "all"}
            return self._known.answer(request, right=right)

    with serve(Half()) as server:
        labels = labels_of(server)
    assert [label.is_ok for label in labels] == [i != 3 for i in range(8)]
    failed, half = labels[3], labels[5]
    assert (failed.failure or "").startswith("relation: ") and "(3 times)" in (failed.failure or "")
    assert failed.description and failed.score.detection == 1.0, "what did arrive is kept"
    assert (half.failure or "").startswith("fuzzing: ") and half.score.fuzzing is None and half.score.detection == 1.0


def test_a_budget_that_runs_out_leaves_whole_labels_and_named_failures() -> None:
    with serve() as server:
        estimate = LanguageModelLabeller(client(server, price_in=1.0, price_out=1.0), CONFIG, task="joy").estimate(
            EVIDENCE
        )
        spent = client(server, price_in=1.0, price_out=1.0, budget_usd=estimate.worst_usd / 8)
        labels = LanguageModelLabeller(spent, CONFIG, task="joy").label(EVIDENCE)
        assert spent.budget.spent_usd <= estimate.worst_usd / 8
    assert any("no room" in (label.failure or "") for label in labels)


def test_an_estimate_counts_what_is_asked_and_nothing_that_is_kept(tmp_path: Path) -> None:
    with serve() as server:
        asked = client(server, tmp_path, price_in=2.0, price_out=8.0)
        labeller = LanguageModelLabeller(asked, CONFIG, task="It was paid for joy.")
        before = labeller.estimate(EVIDENCE)
        assert server.counts.as_json()["requests"] == 0 and before.cached == 0
        labeller.label(EVIDENCE)
        assert before.calls == server.counts.as_json()["requests"]
        assert asked.budget.spent_usd < before.cost_usd < before.worst_usd
        after = labeller.estimate(EVIDENCE)
        assert (after.calls, after.cached, after.worst_usd) == (0, before.calls, 0.0)
        assert "0 calls to make" in after.sentence


def test_progress_is_one_count_over_all_rounds() -> None:
    seen: list[tuple[str, int, int]] = []

    def progress(what: str, done: int, total: int, value: float) -> None:
        seen.append((what, done, total))

    with serve() as server:
        LanguageModelLabeller(client(server), CONFIG, task="joy", progress=progress).label(EVIDENCE)
    assert {what for what, _, _ in seen} == {"labels: answers"}
    assert [done for _, done, _ in seen] == sorted(done for _, done, _ in seen)
    assert seen[-1][1:] == (52, 52)


@pytest.mark.parametrize("n", [0, 1])
def test_features_without_examples_are_not_asked_about(n: int) -> None:
    silent = Evidence(9, 0.0, (), (), ())
    with serve() as server:
        labels = labels_of(server, evidence=[*EVIDENCE[:n], silent])
    assert (labels[-1].description, labels[-1].related, labels[-1].is_ok) == ("never active", False, True)
    assert server.counts.as_json()["requests"] == 6 * n, "nor is a lone feature judged by another's description"


def test_a_feature_with_too_few_examples_to_keep_any_back_has_a_label_without_a_score() -> None:
    from lfp.labels.evidence import split_evidence

    lone = split_evidence(0, excerpts_of("good", n=1), max_activation=4.0, n_scored=10)
    assert not lone.held_out
    with serve(KnowsFeatures([lone], {0: True})) as server:
        (label,) = labels_of(server, evidence=[lone])
    assert label.is_ok and label.score.detection is None and label.score.n == 0 and label.failure is None
