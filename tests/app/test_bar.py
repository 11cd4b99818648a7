"""The bar of verdicts on features, texts, pairs, words and findings, and blind mode."""

import pytest

from lfp.audit import AuditStore, Remark, key_of
from lfp.bundle.store.connection import Store
from tests.app.reader import whole


@pytest.fixture
def key(bundle):
    with Store.open(bundle) as store:
        return key_of(store.manifest)


def reviewing(at, *, blind=False):
    """Enter a name, and blind mode where it is wanted."""
    at.text_input(key="reviewer").set_value("Ada").run()
    return at.toggle(key="bar_blind").set_value(True).run() if blind else at


def test_a_feature_is_judged_by_one_button_and_a_comment_is_kept_with_it(explorer, bundle, key, audit_url):
    at = reviewing(explorer("feature", bundle, feature="3"))
    (note,) = [area for area in at.text_area if area.label == "Note"]
    note.set_value("fires on praise").run()
    at.button(key="bar_wrong").click().run()
    (given,) = AuditStore(audit_url).history(key)
    assert (given.feature_id, given.reviewer, given.verdict, given.note) == (3, "Ada", "wrong", "fires on praise")
    assert given.label and not given.is_blind
    assert "label wrong" in whole(at)


def test_blind_mode_hides_label_weight_and_credit_of_a_feature_until_it_is_judged(explorer, bundle, key, audit_url):
    shown = whole(explorer("feature", bundle, feature="3"))
    at = reviewing(explorer("feature", bundle, feature="3"), blind=True)
    hidden = whole(at)
    for part in ("lfp-judged", "weight ", "In the estimate", "Neighbours"):
        assert part not in hidden
    assert "Label hidden" in hidden and "lfp-example" in hidden and "weight " in shown
    at.button(key="bar_yes").click().run()
    (given,) = AuditStore(audit_url).history(key)
    assert given.is_blind and given.related == "yes" and given.verdict is None
    assert "Label hidden" not in whole(at) and "weight " in whole(at)


def test_a_pair_is_judged_blind_by_its_responses_alone(explorer, paired, audit_url):
    at = reviewing(explorer("pairs", paired, pair="4"), blind=True)
    assert "lfp-sheet" not in whole(at) and "Scores are hidden" in whole(at)
    assert [element.value for element in at.subheader][:2] == ["Chosen", "Rejected"]
    at.button(key="remark_wrong").click().run()
    assert whole(at).count('class="lfp-sheet"') == 2
    with Store.open(paired) as store:
        (given,) = AuditStore(audit_url).remarks(key_of(store.manifest))
    assert (given.kind, given.subject, given.verdict, given.is_blind) == ("pair", "4", "wrong", True)


def test_texts_and_words_are_judged_where_they_are_read(explorer, bundle, key, audit_url):
    at = reviewing(explorer("inputs", bundle, text="3"), blind=True)
    assert "lfp-sheet" not in whole(at) and "Scores are hidden" in whole(at)
    at.button(key="remark_partly").click().run()
    assert "lfp-sheet" in whole(at) and "partly" in whole(at)
    (area,) = at.text_area
    area.set_value("<b>too high</b>").run()
    at.button(key="remark_save").click().run()
    assert "&lt;b&gt;too high" in whole(at)
    at = reviewing(explorer("accuracy", bundle, word="enjoyed"))
    at.button(key="remark_right").click().run()
    given = AuditStore(audit_url).remarks(key)
    assert [(remark.kind, remark.subject, remark.verdict, remark.note, remark.is_blind) for remark in given] == [
        ("text", "3", "partly", "", True), ("text", "3", "partly", "<b>too high</b>", True),
        ("word", "enjoyed", "right", "", False),
    ]  # fmt: skip


def test_findings_are_judged_one_after_the_other(explorer, bundle, key, audit_url):
    at = reviewing(explorer("disagreements", bundle))
    (choice,) = [box for box in at.selectbox if box.label == "Verdict on"]
    first = choice.value
    at.button(key="remark_wrong").click().run()
    at.button(key="next_finding").click().run()
    (choice,) = [box for box in at.selectbox if box.label == "Verdict on"]
    assert choice.value != first
    (given,) = AuditStore(audit_url).remarks(key)
    assert (given.kind, given.subject) == ("finding", f"estimate against true, text {first}")


def test_blind_mode_hides_scores_names_and_others_verdicts_of_findings(explorer, bundle, key, audit_url):
    at = reviewing(explorer("disagreements", bundle))
    (choice,) = [box for box in at.selectbox if box.label == "Verdict on"]
    subject = f"estimate against true, text {choice.value}"
    AuditStore(audit_url).add_remark(key, Remark("finding", subject, "Grace", "wrong", "Grace doubts it"))
    shown, names = whole(at.run()), {button.label for button in at.button if (button.key or "").startswith("group_")}
    assert "Grace doubts it" in shown and shown.count('class="lfp-ranks"') == 10
    at = at.toggle(key="bar_blind").set_value(True).run()
    hidden = whole(at)
    assert "Grace doubts it" not in hidden and 'class="lfp-ranks"' not in hidden and "lfp-why" not in hidden
    assert hidden.count('class="lfp-gap">?') == 10 and "Scores are hidden" in hidden
    numbers = {button.label for button in at.button if (button.key or "").startswith("group_")}
    assert numbers and all(any(name.startswith(f"{number} ") for name in names) for number in numbers)
    at.button(key="remark_right").click().run()
    judged = whole(at)
    assert "Grace doubts it" in judged and judged.count('class="lfp-ranks"') == 1
    assert [remark.is_blind for remark in AuditStore(audit_url).remarks(key)] == [False, True]


def test_public_explorers_offer_no_bar(explorer, bundle, monkeypatch):
    monkeypatch.setenv("LFP_PUBLIC", "1")
    for page in ("feature", "inputs", "disagreements"):
        at = explorer(page, bundle)
        whole(at)
        assert not [button for button in at.button if (button.key or "").startswith(("bar_", "remark_"))]
