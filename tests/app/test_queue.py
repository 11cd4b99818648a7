import pytest
from sqlalchemy import event
from sqlalchemy.engine import Engine

from app.session import permalinks
from lfp import audit
from lfp.audit import AuditList, AuditStore, Verdict
from lfp.bundle import queries
from lfp.bundle.store.connection import Store
from tests.app.reader import tame, whole

OWN = "Your label"
ABOUT, RIGHT = "Is it about the feedback?", "Is the label right?"


@pytest.fixture
def key(bundle):
    with Store.open(bundle) as store:
        return audit.key_of(store.manifest)


@pytest.fixture
def audits(audit_url):
    return AuditStore(audit_url)


@pytest.fixture
def listed(audits, key):
    return audits.add_list(key, AuditList("three", (5, 2, 7), "largest contributions", "Ada"))


def named(at, name="Ada"):
    at.text_input(key="reviewer").set_value(name)
    return at.run()


def field(elements, label):
    (found,) = [element for element in elements if element.label == label]
    return found


def press(at, label):
    field(at.button, label).click()
    at.run()
    assert not at.exception
    return at


def answer(at, **answers):
    for label, value in answers.items():
        field(at.button_group, {"about": ABOUT, "right": RIGHT}[label]).set_value(value)
    return at


def label_of(bundle, feature_id):
    with Store.open(bundle) as store:
        return queries.feature.labels(store, feature_id)[0].description


def test_a_list_is_made_and_walked_blind(explorer, bundle, audits, key):
    at = named(explorer("queue", bundle))
    assert "No review list yet" in whole(at)
    at.number_input(key="audit_most").set_value(3)
    at.run()
    press(at, "Make the list")
    with Store.open(bundle) as store:
        ids = queries.features.pick_features(store, "largest contributions", limit=3)
    (kept,) = audits.lists(key)
    assert (
        kept.feature_ids == tuple(ids)
        and kept.created_by == "Ada"
        and at.selectbox(key="audit_list").value == kept.name
    )

    label = label_of(bundle, ids[0])
    assert "The label is hidden" in whole(at) and label not in whole(at)
    assert [element.label for element in at.button_group] == ["Part", ABOUT]
    field(at.text_area, OWN).set_value("praise of films")
    press(answer(at, about="no"), "Save, then see the label")
    assert label in whole(at) and "Nobody has reviewed" not in whole(at)
    press(answer(at, right="partly"), "Save and next")
    first, second = audits.history(key)
    assert (first.related, first.verdict, first.is_blind, first.description) == ("no", None, True, "praise of films")
    assert (second.related, second.verdict, second.is_blind, second.label) == ("no", "partly", True, label)
    assert second.supersedes == first.uid
    assert at.number_input(key="item").value == 2 and "1 of 3" in whole(at)


def test_an_answer_changed_after_the_label_was_seen_is_blind_no_more(explorer, bundle, audits, key, listed):
    at = named(explorer("queue", bundle))
    press(answer(at, about="yes"), "Save, then see the label")
    press(answer(at, about="no"), "Save verdict")
    assert [(verdict.related, verdict.is_blind) for verdict in audits.history(key)] == [("yes", True), ("no", False)]


def test_without_blindness_label_and_form_are_there_at_once(explorer, bundle, audits, key, listed):
    at = named(explorer("queue", bundle, blind="false", item="3"))
    assert label_of(bundle, 7) in whole(at) and at.number_input(key="item").value == 3
    press(answer(at, right="right"), "Save verdict")
    (kept,) = audits.history(key)
    assert (kept.feature_id, kept.verdict, kept.related, kept.is_blind) == (7, "right", None, False)


def test_two_reviewers_see_each_other_after_a_rerun(explorer, bundle, listed):
    one = named(explorer("queue", bundle, blind="false"))
    other = named(explorer("queue", bundle, blind="false"), "Grace")
    press(answer(one, right="wrong"), "Save verdict")
    assert "label wrong" not in whole(other) and "<b>Ada</b>" in whole(other.run())
    assert "label wrong" in whole(other)


def test_blind_what_others_said_is_hidden(explorer, bundle, audits, key, listed):
    audits.add(key, Verdict(5, "Grace", "wrong", "no", note="a telling note"))
    at = named(explorer("queue", bundle))
    assert "a telling note" not in whole(at)
    press(answer(at, about="yes"), "Save, then see the label")
    assert "a telling note" in whole(at)


def test_previous_next_and_the_next_open_one(explorer, bundle, audits, key, listed):
    audits.add(key, Verdict(2, "Ada", related="yes"))
    at = named(explorer("queue", bundle))
    assert at.number_input(key="item").value == 1
    assert press(at, "Next unreviewed").number_input(key="item").value == 3
    assert press(at, "Previous").number_input(key="item").value == 2
    assert press(at, "Next").number_input(key="item").value == 3
    assert field(at.button, "Next").disabled and press(at, "Next unreviewed").number_input(key="item").value == 1


@pytest.fixture
def disk():
    """A disk that is full while `is_full` is set: the file of the audits cannot grow then."""
    state = {"is_full": False}

    def limit(connection, _record):
        if state["is_full"]:
            connection.execute(f"PRAGMA max_page_count = {connection.execute('PRAGMA page_count').fetchone()[0]}")

    event.listen(Engine, "connect", limit)
    yield state
    event.remove(Engine, "connect", limit)


def test_on_a_full_disk_nothing_typed_is_lost(explorer, bundle, audits, key, listed, disk):
    at = named(explorer("queue", bundle, blind="false"))
    disk["is_full"] = True
    field(at.text_area, "Note").set_value("x" * 9000)
    press(answer(at, right="right"), "Save verdict")
    assert "1 verdict is not saved" in whole(at) and "the disk is full; make room" in whole(at)
    assert audits.history(key) == [] and field(at.text_area, "Note").value == "x" * 9000
    press(at, "Next")
    assert "1 verdict is not saved" in whole(at)
    at.switch_page("views/overview.py").run()
    at.switch_page("views/queue.py").run()
    disk["is_full"] = False
    press(at, "Save again")
    (kept,) = audits.history(key)
    assert (kept.note, kept.verdict) == ("x" * 9000, "right") and "not saved" not in whole(at)


def test_a_database_lost_on_the_way_leaves_the_list_and_what_is_typed(explorer, bundle, listed, monkeypatch):
    at = named(explorer("queue", bundle, blind="false"))
    monkeypatch.setenv("LFP_AUDIT_URL", "sqlite:////proc/none/audits.sqlite")
    press(answer(at, right="right"), "Save verdict")
    assert "1 verdict is not saved" in whole(at) and "Audits cannot be read" in whole(at)
    assert at.selectbox(key="audit_list").value == "three"


@pytest.mark.parametrize("url", ["sqlite:////proc/none/audits.sqlite", "nothing://host/db", "no address"])
def test_audits_out_of_reach_leave_the_rest_alive(explorer, bundle, monkeypatch, url):
    monkeypatch.setenv("LFP_AUDIT_URL", url)
    html = whole(explorer("queue", bundle))
    assert "Audits cannot be opened" in html and ("LFP_AUDIT_URL" in html or "write sqlite" in html)
    html = whole(explorer("feature", bundle, feature="5"))
    assert "Audits cannot be read" in html and "Tokens it raises" in html and "Feature 5<" in html


def test_the_public_reads_and_cannot_write(explorer, bundle, audits, key, listed, monkeypatch):
    audits.add(key, Verdict(5, "Ada", "right", "yes", note="a note to all"))
    monkeypatch.setenv("LFP_PUBLIC", "1")
    for part in ("Review", "Results", "Lists and files"):
        at = explorer("queue", bundle, part=part)
        whole(at)
        assert not [element for element in at.text_input if element.key == "reviewer"]
        assert not {"Save verdict", "Make the list", "Remove it", "Import"} & {element.label for element in at.button}
    at = explorer("queue", bundle)
    assert "Audits are read-only here" in whole(at) and "a note to all" in whole(at)
    assert "a note to all" in whole(explorer("feature", bundle, feature="5"))


def test_a_list_is_made_from_a_link_to_the_features_page(explorer, bundle, audits, key):
    link = permalinks.href(
        "features", permalinks.FeaturesView(sign="negative", sort="weight", order="ascending"), bundle="reviews"
    )
    at = explorer("queue", bundle, made_from=f"http://localhost:8501/{link}")
    assert at.selectbox(key="audit_pick").value == "a list of the Features page"
    press(at, "Make the list")
    wanted, order = queries.features.FeatureFilter(sign="negative"), queries.common.Order("weight", descending=False)
    with Store.open(bundle) as store:
        expected = queries.features.features(store, wanted, order=order, limit=50)["feature_id"].to_pylist()
    assert audits.lists(key)[0].feature_ids == tuple(expected)


def test_a_link_to_another_bundle_makes_no_list(explorer, bundle):
    at = explorer("queue", bundle, made_from="features?bundle=other")
    assert "is of the bundle other" in whole(at) and "Make the list" not in {element.label for element in at.button}


def test_agreement_is_shown_with_where_they_differ(explorer, bundle, audits, key, listed):
    for name, answers in (("Ada", "yes no no"), ("Grace", "yes no yes")):
        for feature_id, related in zip((5, 2, 7), answers.split(), strict=True):
            audits.add(key, Verdict(feature_id, name, "right", related, note=f"{name} on {feature_id}"))
    audits.add(key, Verdict(40, "Ada", related="yes"))
    html = whole(explorer("queue", bundle, part="Results"))
    found = audit.agreement(["no", "yes", "no"], ["no", "yes", "yes"], answers=audit.ANSWERS)
    assert (f"{found.kappa:.2f}" in html and "They differ on 1" in html) or "Ada on 7" in html
    assert "Grace on 7" in html and "Ada on 5" not in html
    assert "They differ on" not in whole(explorer("queue", bundle, part="Results", question="label right"))


def test_coverage_is_of_all_contributions(explorer, bundle, audits, key, listed):
    for feature_id in (5, 40):
        audits.add(key, Verdict(feature_id, "Ada", related="yes"))
    audits.add(key, Verdict(2, "Grace", related="yes"))
    with Store.open(bundle) as store:
        by_me, by_anyone = (queries.features.contribution_share(store, ids) for ids in ([5, 40], [2, 5, 40]))
    html = whole(named(explorer("queue", bundle)))
    assert f"{100 * by_me:.2g} %" in html and f"{100 * by_anyone:.2g} %" in html
    assert "1 of 3" in html and "2 of 3" in html


def test_a_list_is_removed_and_its_verdicts_stay(explorer, bundle, audits, key, listed):
    audits.add(key, Verdict(5, "Ada", related="yes"))
    at = press(explorer("queue", bundle, part="Lists and files"), "Remove it")
    assert "No review list yet" in whole(at) and len(audits.history(key)) == 1


def test_the_feature_page_takes_a_verdict(explorer, bundle, audits, key):
    at = named(explorer("feature", bundle, feature="5"))
    press(answer(at, right="wrong", about="yes"), "Save verdict")
    (kept,) = audits.history(key, 5)
    assert (kept.reviewer, kept.verdict, kept.related, kept.is_blind) == ("Ada", "wrong", "yes", False)
    assert kept.label == label_of(bundle, 5) and "label wrong" in whole(at)


def test_what_reviewers_wrote_stays_words(explorer, hostile_bundle, audits):
    with Store.open(hostile_bundle) as store:
        key = audit.key_of(store.manifest)
    evil = "<script>alert(1)</script><img src=x onerror=alert(2)> $x$ **b**"
    audits.add_list(key, AuditList(evil, (0, 1, 2), evil))
    audits.add(key, Verdict(0, evil, "right", "yes", tags=("<b>",), note=evil, description=evil, label=evil))
    audits.add(key, Verdict(0, "Grace", "wrong", "no", note=evil))
    for part in ("Review", "Results", "Lists and files"):
        tame(explorer("queue", hostile_bundle, part=part, blind="false"))


@pytest.mark.parametrize(
    "params", [{"audit_list": "gone", "item": "99"}, {"item": "-3", "part": "x"}, {"blind": "perhaps", "question": "?"}]
)
def test_any_link_gives_some_page(explorer, bundle, listed, params):
    at = explorer("queue", bundle, **params)
    assert "Feature 5" in [element.value for element in at.subheader] or at.number_input(key="item").value == 3
    whole(at)
