"""The Feature page: what surrounds a feature, what it says of it, and that it says it safely."""

from __future__ import annotations

import dataclasses
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.components.feature import credit as credits
from app.components.feature import naming, profile, titles, trust
from app.components.text import tokens
from lfp.bundle import queries
from lfp.bundle.manifest import read_manifest
from lfp.bundle.queries.excerpts import CreditExample
from lfp.bundle.queries.feature import (
    FeatureCredit,
    FeatureDrift,
    Intervention,
    Neighbour,
    TextPart,
    TextParts,
)
from lfp.bundle.store.connection import Store
from lfp.evaluation.results import STATUSES
from tests.app.reader import is_tame, whole
from tests.conftest import HOSTILE, rewrite, with_column

TEXTS = st.text(max_size=40) | st.sampled_from(HOSTILE)
ROW = {
    "group": "feature:3", "kind": "feature", "features": [3], "scale": 0.0, "n_completions": 200, "effect": -0.2,
    "ci_low": -0.5, "ci_high": 0.1, "contrast": -0.2, "contrast_low": -0.3, "contrast_high": -0.1,
    "contrast_reach": 0.05, "contrast_p": 0.001, "contrast_q": 0.01, "predicted_effect": -0.01,
}  # fmt: skip


def where(number):
    return f"inputs?text={number}"


def parts(text="so good", contribution=0.5, feedback=-1.0, **changes):
    one = TextPart(7, text, contribution, 0.4, feedback)
    facts = {"n_texts": 9, "n_active": 4, "mean": contribution, "n_against": 1, "n_judged": 4}
    return TextParts(**{**facts, "largest": (one,), "against": (one,), **changes})


def credit(**changes):
    facts = {"credit": -0.012, "ci_low": -0.015, "ci_high": -0.009, "abs_credit": 0.02, "rank": 2,
             "unexplained_credit": 0.01, "unexplained_rank": 3, "twin_difference": None, "twin_error": None,
             "twin_q": None, "beyond_twins": None, "promotes": [], "demotes": []}  # fmt: skip
    return FeatureCredit(**facts | changes)


def test_a_credit_is_said_with_its_interval_and_rank():
    html = credits.facts(credit(), n_features=60)
    assert "-0.012 [-0.015, -0.009]".replace("-", "−") in html and "2 of 60" in html and "rank 3" in html
    assert "did not split" in credits.facts(None, n_features=60)
    tiny = credit(credit=1.7e-6, ci_low=1.2e-6, ci_high=2.3e-6)
    assert "+1.70 [1.20, 2.30] · 10⁻⁶" in credits.facts(tiny, n_features=60)
    assert titles.credit(tiny, n_features=60).endswith("rank 2 of 60")
    assert titles.credit(credit(ci_high=0.001), n_features=60).endswith("not beyond zero")


REMOVED = Intervention(0.012, 0.02, 0.01, 0.03, 0.4, 0.1, 0.7, None, None, None, 0.002)


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({}, ("good", "Removing it raises the implicit reward, as its credit predicts.")),
        (
            {"by_credit": -0.012},
            ("weak", "Removing it raises the implicit reward, opposite to what its credit predicts."),
        ),
        ({"control": 0.02}, ("weak", "The interval excludes 0, but matched controls change it as much on average.")),
        ({"ci_low": -0.01}, ("none", "No effect detected: the interval includes 0.")),
    ],
)
def test_an_intervention_has_a_receipt(changes, verdict):
    found = dataclasses.replace(REMOVED, **changes)
    assert credits.verdict(found) == verdict
    says = credits.intervention(found)
    assert verdict[1] in says and f'class="verdict {verdict[0]}"' in says and "nats per token" in says
    assert "+0.40 [0.10, 0.70]" in says and "beyond matched controls" not in says
    contrast = dataclasses.replace(found, reward_contrast=0.3, reward_contrast_low=0.2, reward_contrast_high=0.4)
    assert "+0.30 [0.20, 0.40]" in credits.intervention(contrast)
    assert "Not taken out" in credits.intervention(None)


def example(text, token, bucket=0):
    start = text.index(token)
    starts = sorted({0, start, start + len(token)} - {len(text)})
    return {"bucket": bucket, "text": text, "token_starts": starts, "position": starts.index(start)}


EXAMPLES = [
    example("The birthday began", " birthday"),
    example("An omelette, please", "lette"),
    example("Good, is it", "Good", bucket=4),
    example("Wait!", "!"),
    example("The birthday ended", " birthday"),
]


def test_words_around_the_strongest_tokens_are_read_once():
    assert naming.strongest_words(EXAMPLES) == ["birthday", "omelette", "!"]
    assert naming.strongest_words([]) == []


@pytest.mark.parametrize(
    ("name", "agrees"),
    [
        ("“birthday”, “party”", True),
        ("many tokens at the start of a text, such as “the”; promotes “omelette”", False),
        ("“it” after “birthday”", False),
        ("words ending in “-lette”", True),
        ("“ome-”", True),
        ("“zebra”, “a”", False),
        ("celebrations and food", True),
        ("unlabelled: fires on “omelettes”; promotes “of”", True),
    ],
)
def test_a_name_that_quotes_none_of_its_strongest_examples_is_no_title(bundle, name, agrees):
    words = naming.strongest_words(EXAMPLES)
    assert naming.names_words(name, words) == agrees
    with Store.open(bundle) as store:
        feature = dataclasses.replace(queries.feature.feature(store, 7), description=name)
    title, says = naming.page_title(feature, words)
    assert title == (name if agrees else "strongest on “birthday”, “omelette”, “!”")
    assert ("“birthday”, “omelette”" in says) if agrees else (name in says)
    unlabelled = dataclasses.replace(feature, description="unlabelled: fires on “zebra”")
    assert naming.page_title(unlabelled, words)[1] == "Its rule quotes none of these: “zebra”."
    assert naming.page_title(dataclasses.replace(feature, description=None), []) == ("no label", "")
    assert naming.page_title(feature, []) == (name, "")


def test_the_page_does_not_take_a_name_that_its_examples_contradict(explorer, copied_bundle):
    wrong = "many tokens, such as “zebra”; promotes “of”"
    scores = {
        "score_detection": 0.95,
        "score_ci_low": 0.9,
        "score_ci_high": 0.99,
        "score_q": 0.001,
        "score_swapped": 0.5,
    }
    for name, value in {"description": wrong, **scores}.items():
        rewrite(copied_bundle, "labels", lambda rows: with_column(rows, name, [value] * rows.num_rows))  # noqa: B023
    html = whole(explorer("feature", copied_bundle, feature="7"))
    assert '<h1 class="lfp-title">strongest on “' in html and f"Its label quotes none of these: {wrong}." in html


def test_several_labels_stand_side_by_side_with_their_scores(bundle):
    with Store.open(bundle) as store:
        (label, *_) = queries.feature.labels(store, 7)
    other = dataclasses.replace(label, labeller="another", description=None, score_detection=None, score_ci_low=None,
                                score_ci_high=None, score_swapped=None, score_fuzzing=None, agreement=None)  # fmt: skip
    html = trust.comparison([label, other])
    assert html.count("<tr") == 3
    assert html.index(f">{label.labeller}: ") < html.index(">another: no label<") and "–" in html
    assert "<th" in html and "detection" in html and "detection" not in trust.comparison([other, other])


def test_latent_scaling_is_said_of_both_models(bundle):
    with Store.open(bundle) as store:
        feature = queries.feature.feature(store, 7)
    scaled = dataclasses.replace(feature, scale_tuned=1.1, scale_base=0.2, scale_tuned_error=0.9, scale_base_error=0.1,
                                 is_tuned_only=True)  # fmt: skip
    assert (
        titles.latent_scaling(scaled) == "Its direction explains the tuned model’s activations and not the base model’s"
    )
    assert ">1.10<" in profile.latent_scaling(scaled) and ">0.20<" in profile.latent_scaling(scaled)
    assert profile.latent_scaling(dataclasses.replace(feature, scale_tuned=None)) == ""


@pytest.mark.parametrize(
    ("is_beyond", "says"), [(True, "Beyond its twins: its credit is +0.00"), (False, "Not beyond its twins")]
)
def test_a_credit_is_compared_with_twins_where_there_are_any(is_beyond, says):
    compared = {"twin_difference": 0.004, "twin_error": 0.001, "twin_q": 0.03, "beyond_twins": is_beyond}
    assert says in credits.facts(credit(**compared), n_features=60)
    assert "Not compared with twins" in credits.facts(credit(), n_features=60)


@given(text=TEXTS, value=st.floats(-9, 9))
def test_any_words_make_tame_surroundings(text, value):
    near = [Neighbour(kind, 0, 5, value, 1, "mlp_out", text, text, value) for kind in profile.KINDS]
    row = ROW | {"kind": text, "features": [1, 2]}
    row |= {"contrast": value, "contrast_low": value - 1, "contrast_high": value + 1}
    for html in (
        profile.texts(parts(text, value), where=where),
        profile.neighbours(near, where=where),
        profile.ablations([row], reward=text, target=text),
        credits.examples([CreditExample(7, 2, value, text, text, text)], where=where),
        *credits.tokens(credit(promotes=[{"token": text, "value": abs(value)}])),
        profile.drift(FeatureDrift(text, True, value, None, value, value, value, 3, 0.1), n_features=9),
    ):
        is_tame(html)


@pytest.mark.parametrize(
    ("changes", "kind", "says"),
    [
        ({}, "good", "lowers the reward more than controls do, as the estimate predicts"),
        ({"contrast": 0.2, "predicted_effect": 0.1}, "good", "raises the reward more than controls do, as"),
        ({"predicted_effect": 0.01}, "weak", "opposite to what the estimate predicts"),
        ({"predicted_effect": None}, "good", "more than controls do"),
        ({"contrast_q": 0.3, "contrast_low": -0.1, "contrast_high": 0.02}, "none", "No effect detected"),
        ({"contrast_q": 0.3, "contrast_high": -0.01}, "weak", "other controls differ as much"),
        ({"contrast_p": None}, "none", "too few controls"),
    ],
)
def test_an_ablation_is_judged_by_its_controls(changes, kind, says):
    found = profile.verdict(ROW | changes)
    assert found[0] == kind and says in found[1]
    assert says in profile.ablations([ROW | changes], reward="reward", target="target")


def test_a_receipt_sets_predicted_beside_measured():
    html = profile.ablations([ROW], reward="reward of completions", target="implicit reward")
    for part in ("By itself", "−0.20 [−0.30 to −0.10]", "± 0.05", "−0.0100", "implicit reward per token"):
        assert part in html
    group = ROW | {"kind": "weighted", "features": [1, 2, 3], "scale": 2.0}
    html = profile.ablations([group], reward="r", target="t")
    assert "Among 3 features that raise the estimate most, scaled by 2.00" in html


def test_nothing_around_is_said_in_a_sentence():
    assert "Not ablated in this run" in profile.ablations([], reward="r", target="t")
    assert "holds no neighbours" in profile.neighbours([], where=where)
    assert "did not measure drift" in profile.drift(None, n_features=3)
    assert "none of the 9 sampled texts" in profile.texts(parts(n_active=0, mean=None, largest=()), where=where)
    assert "no texts with activations" in profile.texts(parts(n_texts=0, n_active=0), where=where)
    assert "Against" not in profile.texts(parts(n_judged=0, n_against=0, against=()), where=where)


@pytest.mark.parametrize("status", STATUSES)
def test_every_status_has_its_sentence(status):
    html = profile.drift(FeatureDrift(status, False, 1.0, 1.0, 1.0, 1.0, 1.0, 1, 0.1), n_features=3)
    assert "the base model" in html.split("</p>")[0] or "the tuned model" in html.split("</p>")[0]


def test_what_a_token_adds_is_on_hover():
    html = tokens.shaded([" good"], [2.0], limit=2.0, weight=-0.5)
    assert 'title="␣good · 2.000 · contributes −1.0000"' in html
    assert "contributes" not in tokens.shaded([" good"], [0.0], limit=2.0, weight=-0.5)


def test_examples_bear_what_they_add(explorer, bundle):
    with Store.open(bundle) as store:
        feature = queries.feature.feature(store, 7)
        top = [row for row in queries.excerpts.feature_excerpts(store, 7) if row["bucket"] == 0]
    html = whole(explorer("feature", bundle, feature="7"))
    shown = re.findall(r'lfp-caption"><b>[^<]*</b><i class="(up|down)">([^<]*)</i>', html)
    assert len(shown) == len(top) and {kind for kind, _ in shown} == {"up" if feature.weight > 0 else "down"}
    assert [float(number.replace("−", "-")) for _, number in shown] == pytest.approx(
        [feature.weight * row["activation"] for row in top], abs=1e-4
    )
    assert "no contribution" in whole(explorer("feature", bundle, feature="7", examples="silent"))


def test_the_page_has_all_its_panels(explorer, bundle):
    with Store.open(bundle) as store:
        out = next(i for i in range(60) if queries.feature.feature_ablations(store, i))
        near, feature = queries.feature.neighbours(store, out)[0].neighbour_id, queries.feature.feature(store, out)
    at = explorer("feature", bundle, feature=str(out))
    html = whole(at)
    for name in ("Examples", "Where it moves the estimate", "Neighbours", "Labels", "In the estimate", "Drift",
                 "Ablations", "Activity, tuned and base", "Tokens it raises and lowers", "Fires on"):  # fmt: skip
        assert name in [element.value for element in at.subheader] or f'<div class="lfp-kicker">{name}</div>' in html
    assert titles.examples(feature) in [element.value for element in at.subheader]
    assert f'href="feature?bundle=reviews&amp;feature={near}"' in html
    assert f"&amp;watch={out}" in html and "95 % of controls" in html


def test_the_page_says_which_tables_are_missing(explorer, copied_bundle):
    for table in ("drift", "neighbours", "ablations"):
        rewrite(copied_bundle, table, lambda rows: rows.slice(0, 0))
    html = whole(explorer("feature", copied_bundle, feature="7"))
    assert "did not measure drift" in html and "holds no neighbours" in html and "Not ablated" in html


def test_a_feature_of_large_credit_shows_when_it_was_learned(explorer, bundle):
    with Store(bundle, read_manifest(bundle)) as store:
        followed = {row["feature_id"] for row in store.rows("SELECT feature_id FROM feature_trajectory")}
        points = queries.feature.credit_trajectory(store, min(followed)).to_pydict()
        n = store.manifest.tables["features"].rows
        other = next(feature for feature in range(n) if feature not in followed)
        assert not queries.feature.credit_trajectory(store, other).num_rows
    assert points["step"] == [15, 30, 45, 60] and points["ci_low"][-1] <= points["nats"][-1] <= points["ci_high"][-1]
    shown = [
        len(explorer("feature", bundle, feature=str(number)).get("plotly_chart")) for number in (other, min(followed))
    ]
    assert shown[1] == shown[0] + 1
