"""The labeller without a network: what it says of features whose meaning is known, and how that scores."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pyarrow as pa
import pytest

from lfp.bundle.manifest import read_table
from lfp.bundle.schema import as_table
from lfp.labels.evidence import read_evidence, split_evidence
from lfp.labels.rules import Rule, find_rule
from lfp.labels.token_rule import Effects, OfflineTokens, read_densities, read_effects
from lfp.labels.traits import Place, Trait, TraitReader
from lfp.labels.types import Evidence, Excerpt, Label
from lfp.testing.synthetic import make_bundle
from lfp.util.types import UNLABELLED
from tests.lfp.labels.excerpts import WORDS, excerpt, excerpts_of, known_features

LEXICON = {"good": 1.9, "awful": -2.0}
DEMO = Path("data/demo")


def example(
    word: str, activation: float = 1.0, *, before: tuple[str, ...] = (), text_id: int = 0, bucket: int = 1
) -> Excerpt:
    tokens = (*before, word)
    spaced = tuple(token if i == 0 else f" {token}" for i, token in enumerate(tokens))
    return Excerpt(text_id, 3, bucket, spaced, (*(0.0 for _ in before), activation), len(before))


def label(*firing: Excerpt, threshold: float = 0.5) -> Label:
    (found,) = OfflineTokens(LEXICON, related_threshold=threshold).label([Evidence(7, 4.0, firing, (), ())])
    return found


def rule_of(*texts: str, silent: tuple[str, ...] = ()) -> Rule:
    """The rule of a feature that fires on the tokens in brackets of these texts."""
    reader = TraitReader(LEXICON)

    def read(text: str) -> tuple[Place, ...]:
        tokens = text.split("|")
        values = [1.0 if "[" in token else 0.0 for token in tokens]
        plain = [token.replace("[", "").replace("]", "") for token in tokens]
        return reader.read(excerpt(*plain, values=values, position=40))

    firing = [read(text) for text in texts]
    return find_rule(firing, firing, [read(text) for text in silent])


def test_a_feature_of_scored_words_is_related_and_described_by_them() -> None:
    found = label(example("good", 3.0), example("awful", 1.0))
    assert (found.feature_id, found.related, found.confidence, found.failure) == (7, True, 1.0, None)
    assert found.description == f"{UNLABELLED}“good”, “awful”", "nothing was held out to test it on"
    assert "100%" in (found.reason or "")


def test_a_feature_of_other_words_is_not_related() -> None:
    found = label(example("film"), example("plot"))
    assert (found.related, found.confidence) == (False, 1.0)


@pytest.mark.parametrize(
    ("scored", "related", "confidence"), [(0.5, True, 0.0), (0.75, True, 0.5), (0.25, False, 0.5), (0.49, False, 0.02)]
)
def test_the_share_of_activation_decides_and_tells_how_surely(scored: float, related: bool, confidence: float) -> None:
    found = label(example("good", scored), example("the", 1 - scored))
    assert found.related is related
    assert found.confidence == pytest.approx(confidence)


def test_the_threshold_can_be_set() -> None:
    shown = example("good", 0.3), example("the", 0.7)
    assert not label(*shown).related
    assert label(*shown, threshold=0.3).related


FILLER = "it| was| the| film| of| a| year"


@pytest.mark.parametrize(
    ("texts", "silent", "says"),
    [
        ([f"{FILLER}| [good]", f"{FILLER}| [good]", f"{FILLER}| [great]", f"{FILLER}| [great]"], (), "“good”, “great”"),
        (["a| [mag]|nificent| plot"] * 3, (), "“magnificent”"),
        ([f"{FILLER}| very| [good]"] * 4, (f"{FILLER}| good| a", f"{FILLER}| very| bad") * 3, "“good” after “very”"),
        ([f"{FILLER}| not| [{word}]" for word in "abcdef"], (), "any token after “not”, such as “a”, “b”, “c”"),
        ([f"{FILLER}| [{word}ing]" for word in ("play", "sail", "cook", "roam")], (),
         "words ending in “-ing”, such as “cooking”, “playing”, “roaming”"),
        ([f"{FILLER}|.| [{word}]| is" for word in ("Ann", "Bob", "Cid", "Dot")], (),
         "any token at the start of a sentence, such as “ann”, “bob”, “cid”"),
        ([f"{FILLER}| [{{}}]"] * 4, (), "“{}”"),
        ([f"{FILLER}| [{n}]" for n in (1990, 1991, 1992, 1993)], (), "numbers, such as “1990”, “1991”, “1992”"),
    ],
    ids=["words", "a word of several tokens", "after a word", "whatever follows", "ending", "start", "braces", "class"],
)  # fmt: skip
def test_the_simplest_rule_that_separates_is_found(texts: list[str], silent: tuple[str, ...], says: str) -> None:
    found = rule_of(*texts, silent=silent)
    assert found.found and found.describe() == says


def test_a_rule_that_is_worth_nothing_gives_way_to_a_list_of_tokens() -> None:
    texts = [f"the| [{word}]| the| {other}" for word, other in zip("abcdefgh", "hgfedcba", strict=True)]
    found = rule_of(*texts, silent=tuple(f"the| {word}" for word in "abcdefgh"))
    assert not found.found and found.named == ("a", "b", "c", "d")


def test_a_rule_is_held_to_what_it_says() -> None:
    rule = Rule((Trait("word", "good"),), Trait("after", "very"))
    read = TraitReader({}).read
    assert rule.fires_in(read(excerpt("a", " very", " good", " film", values=[0, 0, 1, 0])))
    assert not rule.fires_in(read(excerpt("very", " a", " good", values=[0, 0, 1])))


def test_a_feature_that_never_fires_says_so() -> None:
    found = label()
    assert (found.description, found.related, found.examples_used) == ("never active", False, ())


def test_labels_come_in_the_order_of_the_evidence() -> None:
    labeller = OfflineTokens(LEXICON, related_threshold=0.5)
    words = ((3, "good"), (1, "film"), (2, "awful"))
    evidence = [Evidence(i, 1.0, (example(word),), (), ()) for i, word in words]
    found = [(label.feature_id, label.related) for label in labeller.label(evidence)]
    assert found == [(3, True), (1, False), (2, True)]
    assert labeller.label([]) == []


def test_a_true_word_tells_texts_but_not_near_misses_and_another_features_word_tells_nothing() -> None:
    """Features that fire on a word except after “not”: a rule has no “except”."""
    labels = OfflineTokens(LEXICON, related_threshold=0.5, repeats=3).label(known_features(n_scored=12))
    assert len(labels) == len(WORDS)
    for found, word in zip(labels, WORDS, strict=True):
        assert found.description == f"“{word}”" or (found.description or "").startswith(UNLABELLED)
        assert found.score.n == 12 and found.score.swapped == pytest.approx(0.5, abs=0.1)
        assert found.score.detection == pytest.approx(0.75) == found.score.fuzzing
        assert found.agreement == 1.0 and found.score.ci_low is not None
    assert not all((found.description or "").startswith(UNLABELLED) for found in labels)


def test_a_rule_of_features_without_meaning_is_called_unlabelled() -> None:
    """Words at random places, firing at random: nothing predicts them."""
    evidence = known_features(tuple(f"{word}{i}" for word in WORDS for i in range(4)), n_scored=12)
    turned = [*evidence[5:], *evidence[:5]]
    mixed = [
        Evidence(own.feature_id, own.max_activation, own.firing, own.look_alikes, other.held_out, own.silent)
        for own, other in zip(evidence, turned, strict=True)
    ]
    labels = OfflineTokens({}, related_threshold=0.5).label(mixed)
    assert all((found.description or "").startswith(UNLABELLED) for found in labels)


def test_agreement_falls_where_halves_of_the_examples_disagree() -> None:
    torn = [
        split_evidence(
            i, [*excerpts_of("good", seed=i), *excerpts_of("plot", seed=i + 50)], max_activation=4.0, n_scored=4
        )
        for i in range(20)
    ]
    labels = OfflineTokens(LEXICON, related_threshold=0.5, repeats=9).label(torn)
    agreements = [label.agreement for label in labels if label.agreement is not None]
    assert len(agreements) == 20 and 0.4 < sum(agreements) / 20 < 0.98
    assert OfflineTokens(LEXICON, related_threshold=0.5).label(torn)[0].agreement is None


def test_of_a_feature_that_fires_nearly_everywhere_that_is_said_unless_its_rule_predicts() -> None:
    densities = read_densities(lambda name: pa.table({"feature_id": [1, 2], "density": [0.97, 0.4]}))
    labeller = OfflineTokens(LEXICON, related_threshold=0.5, densities=densities)
    shown = (example("good"), example("film"))
    found = labeller.label([Evidence(feature_id, 1.0, shown, (), ()) for feature_id in densities])
    assert [each.description for each in found] == [
        f"{UNLABELLED}nearly every token", f"{UNLABELLED}“film”, “good”"
    ]  # fmt: skip
    everywhere = OfflineTokens(LEXICON, related_threshold=0.5, densities=dict.fromkeys(range(len(WORDS)), 0.97))
    names = [each.description for each in everywhere.label(known_features(n_scored=12))]
    assert set(names) <= {*(f"“{word}”" for word in WORDS), f"{UNLABELLED}nearly every token"}
    assert any(f"“{word}”" in names for word in WORDS)


def test_effects_come_from_credits_else_from_words_whose_forms_the_decoder_raises() -> None:
    def tokens(*texts: str) -> list[dict[str, object]]:
        return [{"token": text, "value": 1.0} for text in texts]

    logits = pa.table({
        "feature_id": [0, 1], "pos_logits": [tokens(" film", "xx", " films", " odd", "Film"), tokens(" film", " odd")],
        "neg_logits": [tokens(), tokens()],
    })  # fmt: skip
    credited = pa.table({"feature_id": [1], "promotes": [tokens(",", " joy")], "demotes": [tokens(" bad")]})
    effects = read_effects({"features": logits, "credits": credited}.__getitem__)
    assert effects == {0: Effects(("film",)), 1: Effects(("joy",), ("bad",))}
    labeller = OfflineTokens({}, related_threshold=0.5, effects=effects)
    (found,) = labeller.label([Evidence(1, 1.0, (example("good"),), (), ())])
    assert found.description == f"{UNLABELLED}“good”; promotes “joy”, demotes “bad”"
    none = read_effects({"features": logits, "credits": as_table("credits", [])}.__getitem__)
    assert none[1] == Effects()


@pytest.mark.parametrize("where", ["demo", "synthetic"])
def test_a_name_is_never_contradicted_by_the_examples(where: str, tmp_path: Path) -> None:
    """Each token that a rule names fires in a strongest example, and a rule fires in most of these."""
    bundle = DEMO if where == "demo" else make_bundle(tmp_path / "bundle", n_features=60, seed=3)
    tables = partial(read_table, bundle)
    scored = tables("vocabulary").select(["word", "feedback"]).to_pylist()
    reader = TraitReader({row["word"]: row["feedback"] for row in scored if row["feedback"] is not None})
    ids = range(0, tables("features").num_rows, 24 if where == "demo" else 1)
    n_rules = 0
    for feature in read_evidence(tables, ids, n_scored=20):
        if not feature.firing:
            continue
        firing = [reader.read(each) for each in feature.firing]
        tops = [read for read, each in zip(firing, feature.firing, strict=True) if each.bucket == 0] or firing
        rule = find_rule(firing, tops, [reader.read(each) for each in (*feature.look_alikes, *feature.silent)])
        active = [[place for place in reading if place.activation > 0] for reading in tops]
        fired_on = {trait.value for places in active for place in places for trait in place.own}
        assert rule.named and set(rule.named) <= fired_on
        held = sum(any(map(rule.fires_on, places)) for places in active)
        assert not rule.found or held >= len(tops) / 2
        n_rules += rule.found
    assert n_rules
