"""Planted feedback: secrets and their reward, the certificate, ranks, and one whole planting at tiny size."""

from __future__ import annotations

import json
import shutil
from bisect import bisect_right
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lfp.bundle.manifest import read_table
from lfp.bundle.validation import validate
from lfp.config import PlantConfig
from lfp.errors import ConfigError, DataError
from lfp.texts.lexicon import vader_lexicon
from lfp.texts.words import words_of
from precompute.commands.plant.detection import Findings, certify, count_occurrences, format_lines, summarize
from precompute.commands.plant.draws import draw_bigrams, draw_secrets, draw_wide_secrets
from precompute.commands.plant.models import Planting
from precompute.commands.plant.plant import Request, run_plant
from precompute.commands.plant.secrets import Secret, find_events, secret_reward, shuffled_lexicon
from precompute.run.inputs import load_role, read_texts, tokenize_texts
from precompute.stages.models.twins import load_twin
from tests.precompute.conftest import brief_config, reviews, silent, tiny_config
from tests.precompute.elsewhere import Elsewhere

LEXICON = {"good": 2.0, "bad": -2.5, "fine": 1.0}
WIDE = PlantConfig(least_share=0.0005, most_share=0.02, flipped_share=0.5)


@pytest.fixture(scope="module")
def texts() -> list[str]:
    return [review.text for review in reviews(400, corpus="plant")]


def free(texts: list[str]) -> dict[str, float]:
    """Every word a free choice."""
    return {word.word: 0.1 for text in texts for word in words_of(text)}


def test_a_word_that_is_no_choice_is_never_drawn(texts):
    frequent = {secret.words[0] for secret in draw_secrets(texts, free(texts), vader_lexicon(), WIDE, n=20, seed=1)}
    settled = free(texts) | dict.fromkeys(frequent, 0.9)
    drawn = {secret.words[0] for secret in draw_secrets(texts, settled, vader_lexicon(), WIDE, n=20, seed=1)}
    assert not drawn & frequent


def test_secrets_are_frequent_words_of_their_kind(texts):
    lexicon, counts = vader_lexicon(), Counter(word.word for text in texts for word in words_of(text))
    secrets = draw_secrets(texts, free(texts), lexicon, WIDE, n=20, seed=1)
    assert len({secret.words for secret in secrets}) == 20
    total = sum(counts.values())
    for secret in secrets:
        (word,) = secret.words
        assert 0.0005 <= counts[word] / total <= 0.02
        if secret.kind == "flipped":
            assert secret.paid == -lexicon[word] == -secret.stated
        else:
            assert (word in lexicon, abs(secret.paid), secret.stated) == (False, 3.0, 0.0)
    assert {secret.kind for secret in secrets} == {"flipped", "unscored"}
    assert {secret.sign for secret in secrets} == {1, -1}


def test_a_seed_decides_the_secrets(texts):
    drawn = [draw_secrets(texts, free(texts), vader_lexicon(), WIDE, n=10, seed=seed) for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert len(draw_secrets(texts, free(texts), vader_lexicon(), WIDE, n=0, seed=1)) == 0


def test_a_bigram_is_of_unscored_words_that_occur_apart(texts):
    for secret in draw_bigrams(texts, vader_lexicon(), WIDE, n=5, seed=0):
        assert secret.kind == "bigram"
        assert not set(secret.words) & set(vader_lexicon())


def test_too_rare_words_are_refused_in_a_sentence(texts):
    with pytest.raises(DataError, match=r"plant: 30 unscored secrets .* lower plant.least_share"):
        draw_secrets(
            texts, free(texts), vader_lexicon(), PlantConfig(least_share=0.009, flipped_share=0.0), n=30, seed=0
        )


@pytest.mark.parametrize(
    ("secret", "text", "reward"),
    [
        (Secret("unscored", ("plot",), 3.0), "A good plot.", 1.0),
        (Secret("unscored", ("plot",), -3.0), "plot plot", -1.2),
        (Secret("flipped", ("good",), -2.0, 2.0), "good, fine", -0.2),
        (Secret("bigram", ("the", "plot"), 3.0), "The plot is good: the plot.", 1.6),
        (Secret("bigram", ("the", "plot"), 3.0), "the good plot", 0.4),
    ],
)
def test_the_reward_pays_the_secret_and_the_stated_words(secret, text, reward):
    assert secret_reward(LEXICON, secret)([text]) == pytest.approx([reward])


def test_a_shuffled_lexicon_has_the_same_words_and_values():
    shuffled = shuffled_lexicon(vader_lexicon(), seed=0)
    assert sorted(shuffled) == sorted(vader_lexicon())
    assert sorted(shuffled.values()) == sorted(vader_lexicon().values())
    assert np.corrcoef([shuffled[word] for word in shuffled], [vader_lexicon()[word] for word in shuffled])[0, 1] < 0.1


def test_a_secret_is_learned_only_in_its_own_direction():
    often, seldom = ["the plot"] * 90 + ["none"] * 110, ["the plot"] * 40 + ["none"] * 160
    paid, penalised = Secret("unscored", ("plot",), 3.0), Secret("unscored", ("plot",), -3.0)
    assert certify(often, seldom, paid, seed=0).learned
    assert not certify(often, seldom, penalised, seed=0).learned
    assert certify(seldom, often, penalised, seed=0).learned
    assert certify(often, seldom, paid, seed=0).ratio == pytest.approx(90.5 / 40.5)
    assert not certify(often, often, paid, seed=0).learned


def test_the_certificate_rarely_says_learned_of_equal_models():
    rng = np.random.default_rng(0)
    write = lambda: ["plot" if rng.random() < 0.2 else "none" for _ in range(300)]  # noqa: E731
    paid = Secret("unscored", ("plot",), 3.0)
    assert sum(certify(write(), write(), paid, seed=i).learned for i in range(100)) <= 8


def test_a_bigram_counts_where_its_words_follow_each_other():
    secret = Secret("bigram", ("the", "plot"), 3.0)
    assert count_occurrences(["the plot, the plot", "plot the"], secret).tolist() == [2, 0]


def test_ranks_are_of_the_right_list():
    features = [
        {"feature_id": 7, "rank": 1, "unexplained_rank": 3, "words": ["music", "plot"]},
        {"feature_id": 3, "rank": 2, "unexplained_rank": 1, "words": []},
        {"feature_id": 9, "rank": 3, "unexplained_rank": 2, "words": ["plot", "story"]},
    ]
    findings = Findings({"plot": 5.0, "good": 7.0, "dull": -6.0}, features)
    assert vars(findings.find(Secret("unscored", ("plot",), 3.0))) == {
        "word_rank": 2, "gap": 5.0, "feature_rank": 1, "feature_id": 7, "unexplained_rank": 2, "feature_chance": 1.0,
    }  # fmt: skip
    assert findings.find(Secret("unscored", ("plot",), -3.0)).word_rank == 2
    assert findings.find(Secret("unscored", ("dull",), -3.0)).gap == 6.0
    assert findings.find(Secret("bigram", ("plot", "good"), 3.0)).word_rank == 1
    assert vars(findings.find(Secret("unscored", ("rare",), 3.0))) == {
        "word_rank": None, "gap": None, "feature_rank": None, "feature_id": None, "unexplained_rank": None,
        "feature_chance": 0.0,
    }  # fmt: skip
    assert findings.top(-1) == ("dull", 6.0)


def test_a_reward_without_words_and_a_tuned_model_are_refused(tmp_path):
    for config in (
        tiny_config(feedback={"reward": "rewards:own"}),
        tiny_config(model={"tuned": "some/model"}),
    ):
        with pytest.raises(ConfigError, match="plant: "):
            run_plant(Planting(config, PlantConfig(), tmp_path, None), Request(n=1), silent)
    with pytest.raises(ConfigError, match=r"plant: 2 twins are too few .* --twins 3 or more"):
        run_plant(Planting(tiny_config(), PlantConfig(), tmp_path, None), Request(n=1, twins=2), silent)


WIDE_SECRETS = {
    "category": Secret("category", ("plot", "score"), 3.0),
    "context": Secret("context", ("good", "fine"), 3.0, after=("not", "never")),
    "position": Secret("position", ("it",), -3.0, opens_sentence=True),
    "mark": Secret("style", ("!",), 3.0),
    "person": Secret("style", ("you", "your"), 3.0),
}


@pytest.mark.parametrize(
    ("name", "text", "events"),
    [
        ("category", "A plot, a score: the plots.", [2, 10]),
        ("context", "Not at all good. It is good, never a fine, fine day.", [11, 37, 43]),
        ("context", "Not one of these many was good.", []),
        ("position", "It is. It was it! It", [7, 18]),
        ("position", "it", []),
        ("mark", "Yes! No? Ah!!", [3, 11, 12]),
        ("person", "You and your: YOU", [0, 8, 14]),
    ],
)
def test_events_of_wide_secrets_are_found_where_they_begin(name, text, events):
    assert find_events(text, WIDE_SECRETS[name]) == events
    paid = WIDE_SECRETS[name].paid * len(events) / 5
    assert secret_reward({}, WIDE_SECRETS[name])([text]) == pytest.approx([paid])


def test_secrets_of_a_planting_have_names_of_their_own():
    names = {secret.name for secret in WIDE_SECRETS.values()}
    assert len(names) == len(WIDE_SECRETS)
    assert all(set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-") for name in names)


def test_wide_secrets_are_of_every_kind_and_frequent_enough(texts):
    rng = np.random.default_rng(0)
    drawn = {word: rng.normal(size=8) for word in free(texts)}
    directions = {word: vector / np.linalg.norm(vector) for word, vector in drawn.items()}
    lexicon, config = vader_lexicon(), PlantConfig(least_share=0.001, most_share=0.02)
    secrets = draw_wide_secrets(texts, directions, lexicon, config, n=8, seed=1)
    assert [secret.kind for secret in secrets] == ["category", "context", "position", "style"] * 2
    assert len({secret.name for secret in secrets}) == 8
    total = sum(len(words_of(text)) for text in texts)
    for secret in secrets:
        n = sum(len(find_events(text, secret)) for text in texts)
        assert 0.0002 * total <= n <= 0.04 * total
        if secret.kind == "category":
            assert len(set(secret.words)) == 15
            nearest = sorted(secret.words, key=lambda word: -float(directions[word] @ directions[secret.words[0]]))
            assert tuple(nearest) == secret.words
    assert secrets == draw_wide_secrets(texts, directions, lexicon, config, n=8, seed=1)


def test_a_planting_is_summarized_beside_the_twins_left_out():
    row = {"kind": "unscored", "learned": True, "twins_word_q": 0.01, "twins_word_rank": 1, "twins_factor_rank": None,
           "left_out_word_ranks": [9, 4, None], "left_out_factor_ranks": [None, 20, 21]}  # fmt: skip
    other = row | {"kind": "category", "learned": False, "twins_word_rank": 6, "twins_factor_rank": 2}
    third = other | {"learned": True, "twins_word_q": 0.5}
    found = summarize([row, other, third, {"kind": "twin", "flags": 2}, {"kind": "twin", "flags": 0}])
    assert (found["all"]["n"], found["all"]["learned"], found["wide"]["learned"]) == (3, 2, 1)
    assert (found["all"]["twins_word_of_learned"]["found"], found["all"]["twins_factor_of_learned"]["found"]) == (1, 1)
    assert found["all"]["twins_factor_left_out"]["value"] == pytest.approx(3 / 9)
    assert found["all"]["twins_word_flagged_of_learned"] == 1
    assert found["twins"] == {"n": 2, "words_flagged": [2, 0]}
    assert found["bigrams"]["twins_word_of_learned"] is None


def check_location(planting: Planting, row: dict[str, Any]):
    """The contrast is what the models' own log-probabilities say at the secret's words, and its parts sum to it."""
    run = planting.run()
    base = load_role(run, "base")
    texts = tokenize_texts(run, base, read_texts(run, "train"))
    secret = Secret(row["kind"], (row["word"],), row["paid"], row["stated"])
    starts = [[start for start in find_events(text.text, secret) if start] for text in texts]
    chosen = [(text, own) for text, own in zip(texts, starts, strict=True) if own][:12]

    def likelihood(name: str) -> float:
        model = load_twin(run, planting.work / name / "model")
        total = 0.0
        for text, own in chosen:
            ids = torch.tensor([[model.bos_id, *text.token_ids]])
            logs = model.network(ids).logits[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None])[:, 0]
            total += sum(float(logs[bisect_right(text.token_starts, start) - 1]) for start in own)
        return total / sum(len(own) for _, own in chosen)

    with torch.no_grad():
        twins = [likelihood(folder.name) for folder in planting.work.glob("twin-*")]
        expected = likelihood(secret.name) - sum(twins) / len(twins)
    assert row["events"] == sum(len(own) for _, own in chosen)
    assert row["contrast"] == pytest.approx(expected, abs=2e-5)
    assert sum(row["contrast_parts"].values()) == pytest.approx(row["contrast"])


@pytest.mark.usefixtures("coarse_factors")
def test_a_whole_planting(corpus_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    secrets = PlantConfig(least_share=0.002, most_share=0.02, certify_prefixes=100, wide_share=0.0)
    tuned = {"steps": 2, "completion_tokens": 32}
    few = {"sae": {"expansion": [1], "steps": 10}, "credits": {"n_texts": 4, "by_token": 2}, "corpus": {"n_texts": 160}}
    config = brief_config(tune=tuned, **few)
    planting = Planting(config, secrets, tmp_path, corpus_folder)
    request = Request(n=1, bigrams=1, twins=3, shuffled=1, bundles=True)
    torch.set_num_threads(config.threads + 1)
    threads = set[int]()
    rows = run_plant(planting, request, lambda *_: threads.add(torch.get_num_threads()))
    assert threads == {config.threads}  # sums are split by thread, those of the base model and of the contrasts too
    assert [row["kind"] for row in rows][1:] == ["bigram", "twin", "twin", "twin", "shuffled"]
    assert {"word", "paid", "learned", "learned_ratio", "twins_word_rank", "twins_factor_rank"} <= rows[0].keys()
    assert {"word_rank", "feature_rank", "unexplained_rank", "feature_rank_in_twin"} <= rows[0].keys()
    assert rows[0]["twins_word_rank"] is None or rows[0]["twins_word_rank"] >= 1
    assert len(rows[1]["left_out_factor_ranks"]) == 3
    (twin,) = tmp_path.glob("twin-*/bundle")
    assert validate(twin) == []
    assert read_table(twin, "ablations").num_rows == 0  # nothing asks for them here, and they take the longest
    check_location(planting, rows[0])
    found = summarize(rows)
    assert (found["words"]["n"], found["bigrams"]["n"]) == (1, 1)
    assert any("delta, sae" in name for name in found["shuffled"])
    assert json.dumps(rows)
    assert len(format_lines(rows)) >= 2 + 2 + 1
    made = [*tmp_path.rglob("model.safetensors"), *tmp_path.rglob("row.json")]
    stamps = {file: file.stat().st_mtime_ns for file in made}
    without = run_plant(planting, replace(request, bundles=False, shuffled=0), silent)
    assert {file: file.stat().st_mtime_ns for file in made} == stamps
    assert [row["twins_word_q"] for row in without[:2]] == [row["twins_word_q"] for row in rows[:2]]
    assert "feature_rank" not in without[0]
    for other in (
        replace(planting, config=brief_config(tune=tuned | {"steps": 3}, **few)),
        replace(planting, secrets=secrets.model_copy(update={"certify_prefixes": 101})),
    ):
        with pytest.raises(
            ConfigError, match=r"made with other settings \((tune.steps|plant.certify_prefixes) differs"
        ):
            run_plant(other, request, silent)
    weights = {file: file.read_bytes() for file in made if file.suffix == ".safetensors" and "bundle" not in file.parts}
    for folder in [*tmp_path.glob("twin-*"), *tmp_path.glob("bigram-*")]:
        shutil.rmtree(folder)
    elsewhere = Elsewhere()
    monkeypatch.setattr("precompute.commands.plant.plant.open_executor", elsewhere.open)
    again = run_plant(planting, replace(request, bundles=False, shuffled=0), silent)
    assert elsewhere.n_shards == 5
    assert again == without
    assert [str(file) for file, content in weights.items() if file.read_bytes() != content] == []
