import pytest

from app.components.feature import verdicts
from lfp.audit import ANSWERS, Verdict, agreement
from lfp.bundle.queries.features import AuditedFeature
from tests.app.reader import is_tame
from tests.conftest import HOSTILE


def said(text="", **fields):
    given = {"feature_id": 3, "reviewer": text or "Ada", "uid": "1", "created_at": "2026-11-28T20:15:00.000000Z"}
    return Verdict(**{**given, "related": "yes", "note": text, "description": text, "label": text, **fields})


@pytest.mark.parametrize("text", HOSTILE)
def test_words_stay_words(text):
    one, other = said(text, tags=(text,), verdict="right"), said(text, reviewer="B", related="no", uid="2")
    named = {3: AuditedFeature(3, 0, "mlp_out", text, True, 0.1, 0.1, True)}
    found = agreement(["yes", "no"], ["yes", "no"], answers=ANSWERS)
    for html in (
        verdicts.history([one, other]),
        verdicts.differences([(one, other)], named, answer=lambda one: one.related, where=lambda id_: f"feature?{id_}"),
        verdicts.progress(n=3, by_me=1, by_anyone=2, share_by_me=0.1, share_by_anyone=None, name=text),
        verdicts.kappa(found, text, text),
        verdicts.kappa(None, text, text),
    ):
        is_tame(html)


def test_what_was_said_later_counts_and_what_was_before_stays():
    html = verdicts.history([said(note="first", uid="1"), said(note="second", uid="2", is_blind=True)])
    words = is_tame(html).words
    assert words.index("second") < words.index("first")
    assert html.count('class="old"') == 1 and html.count("changed later") == 1
    assert any("blind" in word and "2026-11-28 20:15 UTC" in word for word in words)


def test_a_label_that_several_judged_counts_once():
    html = verdicts.tally(
        [said(verdict="right"), said(reviewer="B", verdict="wrong"), said(feature_id=4, verdict="right")]
    )
    cells = is_tame(html).words
    assert cells[cells.index("label right") + 1] == "75 %" and cells[cells.index("label wrong") + 1] == "25 %"
    assert any(word.startswith("2 labels judged.") for word in cells)
    assert "No label has been judged" in verdicts.tally([said(verdict=None)])


def test_kappa_is_told_with_interval_and_null():
    found = agreement(["yes", "no", "no"] * 20, ["yes", "no", "yes"] * 20, answers=ANSWERS)
    html = verdicts.kappa(found, "Ada", "Grace")
    assert f"{found.kappa:.2f}" in html and f"[{found.low:.2f} to {found.high:.2f}]" in html
    assert f"shuffled answers are below {found.null_high:.2f}" in html and "67 % of 60 features" in html
    alone = agreement(["yes", "yes"], ["yes", "yes"], answers=ANSWERS)
    assert "Kappa is undefined" in verdicts.kappa(alone, "Ada", "Grace")
