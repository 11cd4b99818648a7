"""What a labeller may see and what is kept back: never both, half firing, half silent, the same at every run."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lfp.bundle.manifest import read_table
from lfp.labels.evidence import cut_silent_stretch, read_evidence, read_excerpt, sample_excerpts, split_evidence
from lfp.labels.types import Evidence, Excerpt
from tests.lfp.labels.excerpts import excerpt, excerpts_of, known_features


@st.composite
def some_excerpts(draw: st.DrawFn) -> list[Excerpt]:
    """Short texts over few words, so that some read alike, in any bucket."""
    found = []
    for i in range(draw(st.integers(0, 40))):
        values = draw(st.lists(st.sampled_from([0.0, 0.0, 1.0, 2.5]), min_size=1, max_size=6))
        at = draw(st.integers(0, len(values) - 1))
        bucket = draw(st.sampled_from([0, 1, 2])) if values[at] > 0 else draw(st.sampled_from([-1, -2]))
        tokens = draw(st.lists(st.sampled_from(["a", " b", "c"]), min_size=len(values), max_size=len(values)))
        found.append(Excerpt(i, at, bucket, tuple(tokens), tuple(values), at))
    return found


@given(some_excerpts(), st.integers(4, 20), st.integers(0, 5))
def test_nothing_shown_is_kept_back_and_no_two_read_alike(found: list[Excerpt], n: int, feature: int) -> None:
    evidence = split_evidence(feature, found, max_activation=3.0, n_scored=n)
    seen = [*evidence.firing, *evidence.look_alikes, *evidence.held_out]
    assert len({each.text for each in seen}) == len(seen)
    assert all(each.fires for each in evidence.firing)
    for each in (*evidence.look_alikes, *(other for other in evidence.held_out if not other.fires)):
        assert not any(each.activations), "a silent excerpt is silent in all its tokens"
    fires = Counter(each.fires for each in evidence.held_out)
    assert fires[True] <= n // 2 and fires[False] <= n // 2 and fires[True] <= len(evidence.firing) + 1


@given(some_excerpts(), st.randoms())
def test_the_draw_does_not_hang_on_the_order_of_rows(found: list[Excerpt], rng: object) -> None:
    turned = list(found)
    rng.shuffle(turned)  # type: ignore[attr-defined]
    first, other = (split_evidence(3, each, max_activation=1.0, n_scored=8) for each in (found, turned))
    # of excerpts that read alike, either may stand for both, in whichever order they lie
    assert [x.text for x in first.held_out] == [x.text for x in other.held_out]
    assert first == other


def test_half_of_what_is_kept_back_is_silent_and_half_of_that_near() -> None:
    for evidence in known_features(n_scored=12):
        buckets = Counter(each.bucket for each in evidence.held_out)
        assert sum(buckets[b] for b in (0, 1, 2)) == 6 and buckets[-2] == 3 and buckets[-1] == 3
        assert min(buckets[b] for b in (0, 1, 2)) == 2, "all buckets alike"
        assert evidence.look_alikes, "some near misses are left to be shown"


def test_near_misses_stand_in_for_missing_random_silence_and_the_other_way() -> None:
    without = [[each for each in excerpts_of("good") if each.bucket != bucket] for bucket in (-1, -2)]
    for found in without:
        evidence = split_evidence(0, found, max_activation=4.0, n_scored=8)
        assert Counter(each.fires for each in evidence.held_out) == {True: 4, False: 4}


def test_a_draw_shows_what_is_asked_strongest_first_and_another_draw_shows_others() -> None:
    (evidence, *_) = known_features()
    first, second = (sample_excerpts(evidence, n_top=2, per_interval=1, n_silent=2, repeat=r) for r in (0, 1))
    assert Counter(each.bucket for each in first) == {0: 2, 1: 1, 2: 1, -2: 2}
    strengths = [each.activations[each.at] for each in first]
    assert strengths == sorted(strengths, reverse=True) and strengths[-1] == 0
    assert first != second
    assert first == sample_excerpts(evidence, n_top=2, per_interval=1, n_silent=2, repeat=0)


@pytest.mark.parametrize(
    ("values", "at", "expected"),
    [
        ([0, 0, 0, 0, 0], 2, (0, 5)),
        ([1, 0, 0, 0, 0, 2], 2, (1, 5)),
        ([1, 0, 0, 0, 2], 2, None),
        ([0, 0], 1, (0, 2)),
        ([0, 3], 0, None),
    ],
)
def test_a_silent_stretch_ends_where_the_feature_fires(
    values: list[float], at: int, expected: tuple[int, int] | None
) -> None:
    whole = excerpt(*"abcdef"[: len(values)], values=values, at=at, bucket=-1)
    cut = cut_silent_stretch(whole)
    if expected is None:
        assert cut is None
        return
    assert cut is not None and cut.tokens == whole.tokens[slice(*expected)]
    assert cut.tokens[cut.at] == whole.tokens[at] and cut.key == whole.key


def test_what_fires_has_no_silent_stretch() -> None:
    assert cut_silent_stretch(excerpt("a", "b", values=[0, 1])) is None


def test_an_excerpt_is_the_window_of_its_row() -> None:
    row = {"text_id": 7, "position": 2, "bucket": 0, "window_start": 1, "window_values": [0.0, 2.0, 0.0],
           "text": "The film is fine", "token_starts": [0, 3, 8, 11]}  # fmt: skip
    found = read_excerpt(row)
    assert found.tokens == (" film", " is", " fine") and found.at == 1 and found.fires and found.key == "7:2"
    assert found.text == " film is fine"


def test_a_bundle_gives_evidence_of_every_feature_or_of_some(bundle: Path) -> None:
    def tables(name: str):  # type: ignore[no-untyped-def]
        return read_table(bundle, name)

    everything: list[Evidence] = list(read_evidence(tables, n_scored=8))
    assert [each.feature_id for each in everything] == list(range(tables("features").num_rows))
    assert any(each.held_out for each in everything)
    some = list(read_evidence(tables, [5, 2], n_scored=8))
    assert some == [everything[2], everything[5]]
