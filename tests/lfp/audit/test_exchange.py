import datetime
import json

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.components.html import exports
from lfp import audit
from lfp.audit import ANSWERS, VERDICTS, AuditList, AuditStore, BundleKey, Remark, Verdict
from lfp.errors import AuditError
from lfp.labels.result_rows import read_labels

KEY = BundleKey("a" * 16, "b" * 16)
MAKE = {"csv": exports.csv, "parquet": exports.parquet, "json": exports.as_json}
PLAIN = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=20)
WORDS = (PLAIN | st.from_regex(r"\A'{0,3}[=+\-@a][a-z]{0,3}\Z")).map(str.strip)


@pytest.fixture
def stores(tmp_path):
    return [AuditStore(f"sqlite:///{tmp_path / name}") for name in ("one.sqlite", "two.sqlite")]


def bring(store, content, name="verdicts.csv", n_features=60):
    return audit.read_file(store, KEY, name=name, content=content, n_features=n_features, n_texts=40)


@pytest.mark.parametrize("kind", MAKE)
def test_verdicts_go_out_and_in(stores, kind):
    one, other = stores
    one.add(KEY, Verdict(3, "Ada", "right", "yes", 0.5, ("b", "a"), "=1+1", "@words", "openai:x", "a, “b”\nc", True))
    one.add(KEY, Verdict(3, "Ada", "wrong", note="two\nlines"))
    one.add(KEY, Verdict(4, "Grace", None, "unsure"))
    content = MAKE[kind](audit.verdict_table(KEY, one.history(KEY)))
    assert bring(other, content, f"verdicts.{kind}") == audit.Imported(3, 0, 0, 0)
    assert other.history(KEY) == one.history(KEY)
    assert bring(other, content, f"verdicts.{kind}") == audit.Imported(0, 3, 0, 0)
    assert other.history(KEY) == one.history(KEY)


@settings(max_examples=15)
@given(
    note=WORDS,
    tags=st.lists(WORDS, max_size=3),
    verdict=st.sampled_from([None, *VERDICTS]),
    related=st.sampled_from(ANSWERS),
    confidence=st.none() | st.floats(0, 1),
    kind=st.sampled_from(sorted(MAKE)),
)
def test_any_verdict_survives_a_file(tmp_path_factory, kind, **fields):
    folder = tmp_path_factory.mktemp("audits")
    one, other = (AuditStore(f"sqlite:///{folder / name}") for name in ("one.sqlite", "two.sqlite"))
    kept = one.add(KEY, Verdict(3, "Ada", **{**fields, "tags": tuple(fields["tags"])}))
    bring(other, MAKE[kind](audit.verdict_table(KEY, [kept])), f"v.{kind}")
    assert other.history(KEY) == [kept]


@pytest.mark.parametrize("kind", MAKE)
def test_remarks_go_out_and_in(stores, kind):
    one, other = stores
    one.add_remark(KEY, Remark("text", "3", "Ada", "right", "=1+1, “b”\nc", is_blind=True))
    one.add_remark(KEY, Remark("text", "3", "Ada", "wrong"))
    one.add_remark(KEY, Remark("word", "=love", "Grace", None, "@see"))
    one.add_remark(KEY, Remark("finding", "estimate against true, word a,b", "Grace", "unsure"))
    content = MAKE[kind](audit.remark_table(KEY, one.remarks(KEY)))
    assert bring(other, content, f"remarks.{kind}") == audit.Imported(0, 0, 0, 0, n_remarks=4)
    assert other.remarks(KEY) == one.remarks(KEY)
    assert bring(other, content, f"remarks.{kind}") == audit.Imported(0, 4, 0, 0)
    assert other.remarks(KEY) == one.remarks(KEY) and other.history(KEY) == []


def test_two_machines_remarks_on_one_subject_are_all_kept_and_the_latest_counts(stores):
    one, other = stores
    other.add_remark(KEY, Remark("word", "joy", "Ada", "wrong"))
    ahead = (datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=1)).isoformat()
    rows = f"kind,subject,reviewer,verdict,created_at\nword,joy,Ada,partly,2020-01-01\nword,joy,Ada,right,{ahead}\n"
    assert bring(other, rows.encode(), "remarks.csv").n_remarks == 2
    assert [remark.verdict for remark in other.remarks(KEY)] == ["partly", "wrong", "right"]
    other.add_remark(KEY, Remark("word", "joy", "Ada", "unsure"))
    newest = audit.newest_remarks(other.remarks(KEY))["word", "joy", "Ada"]
    assert newest.verdict == "unsure", "a clock that is ahead elsewhere must not hide what is said now"
    first, second = (Remark("word", "joy", who, "right", uid="u1") for who in ("Ada", "Eve"))
    one.bring_remarks(KEY, [first])
    assert one.bring_remarks(KEY, [second]) == 0 and one.remarks(KEY)[0].reviewer == "Ada", "a known uid stays"


@pytest.mark.parametrize("kind", MAKE)
def test_lists_go_out_and_in(stores, kind):
    one, other = stores
    one.add_list(KEY, AuditList("first", (9, 2, 5), "largest", "Ada"))
    one.add_list(KEY, AuditList("second", (2,)))
    content = MAKE[kind](audit.list_table(KEY, one.lists(KEY)))
    assert bring(other, content, f"lists.{kind}") == audit.Imported(0, 0, 0, 2)
    assert [(x.name, x.feature_ids, x.origin) for x in other.lists(KEY)] == [
        ("first", (9, 2, 5), "largest"),
        ("second", (2,), ""),
    ]
    assert bring(other, content, f"lists.{kind}").n_lists == 0
    other.remove_list(KEY, "first")
    other.add_list(KEY, AuditList("first", (1,)))
    with pytest.raises(AuditError, match="another list called first"):
        bring(other, content, f"lists.{kind}")


def test_rows_of_another_bundle_are_left_out_and_hand_made_ones_are_of_this(stores):
    rows = b"feature_id,reviewer,verdict,bundle_id\n1,Ada,right,zzz\n2,Ada,wrong,\n"
    assert bring(stores[0], rows) == audit.Imported(1, 0, 1, 0)
    assert [verdict.feature_id for verdict in stores[0].history(KEY)] == [2]


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("v.csv", b"feature_id,reviewer,verdict\n1,Ada,right\n2,Ada,splendid\n", "v.csv, row 1: verdict is 'splendid'"),
        ("v.csv", b"feature_id,reviewer,related\n60,Ada,yes\n", "row 0: there is no feature 60"),
        ("v.csv", b"feature_id,reviewer,related\nx,Ada,yes\n", "row 0: cannot be read"),
        ("v.csv", b"feature_id,reviewer,related,confidence\n1,Ada,yes,high\n", "row 0: cannot be read"),
        ("v.csv", b"feature_id,reviewer,related,created_at\n1,Ada,yes,soon\n", "row 0: cannot be read"),
        ("v.csv", b"feature_id,reviewer,related\n1,,yes\n", "row 0: the reviewer"),
        ("v.csv", b"feature_id,reviewer,related,created_at\n1,Ada,yes,9999-12-31T23:59:59.999999Z\n", "in the future"),
        ("v.csv", b"feature_id,reviewer,related,created_at\n1,Ada,yes,0001-01-01\n", "row 0: .* 2000|row 0: cannot"),
        ("v.json", b'[{"feature_id": Infinity, "reviewer": "Ada", "related": "yes"}]', "row 0: cannot be read"),
        ("v.json", b'[{"feature_id": 1, "reviewer": "Ada", "note": "\\ud800", "related": "yes"}]', "row 0: cannot be"),
        ("v.json", b'[{"list": "a", "feature_id": 1}, {"feature_id": 1}]', "row 1: the list’s name has 0"),
        (
            "r.csv",
            b"kind,subject,reviewer,verdict\ntext,3,Ada,right\ntext,40,Ada,right\n",
            "row 1: there is no text 40",
        ),
        ("r.csv", b"kind,subject,reviewer,verdict\ntext,x,Ada,right\n", "row 0: cannot be read"),
        ("r.csv", b"kind,subject,reviewer,verdict\nmood,x,Ada,right\n", "row 0: kind is 'mood'"),
        ("r.csv", b"kind,subject,reviewer,verdict\nword,joy,Ada,splendid\n", "row 0: verdict is 'splendid'"),
        ("r.csv", b"kind,subject,reviewer\nword,joy,Ada\n", "row 0: the remark is empty"),
        ("r.csv", b"kind,subject,reviewer,verdict\nword,,Ada,right\n", "row 0: the subject has 0"),
        ("r.json", b'[{"kind": "word", "subject": "\\u0000", "reviewer": "Ada", "verdict": "right"}]', "NUL"),
        ("r.json", b'[{"kind": "word", "subject": "\\udfff", "reviewer": "Ada", "note": "x"}]', "cannot be read"),
        ("r.csv", b"subject,reviewer,verdict\njoy,Ada,right\n", "no column"),
        ("v.csv", b"number\n1\n", "no column feature_id"),
        ("v.csv", b"\xff\xfe\x00", "cannot be read as csv"),
        ("v.json", b"{}", "not a list"),
        ("v.json", b"[[", "cannot be read as json"),
        ("v.json", b"[" * 100_000, "cannot be read as json"),
        ("v.parquet", b"PAR1", "cannot be read as parquet"),
        ("v.txt", b"", "neither"),
        ("v.csv", b"", "no column"),
    ],
)
def test_a_wrong_file_names_the_row_and_brings_nothing(stores, name, content, says):
    with pytest.raises(AuditError, match=says):
        bring(stores[0], content, name)
    assert stores[0].history(KEY) == [] and stores[0].remarks(KEY) == [] and stores[0].lists(KEY) == []


def test_own_words_become_a_persons_labels(tmp_path):
    verdicts = [
        Verdict(5, "Ada", related="no", description="- commas", note="see texts"),
        Verdict(2, "Ada", related="yes", description="praise, “loud”"),
        Verdict(3, "Ada", related="unsure", description="who knows"),
        Verdict(4, "Ada", related="yes"),
        Verdict(6, "Grace", related="yes", description="hers"),
    ]
    path = tmp_path / "human-labels.csv"
    path.write_bytes(exports.csv(audit.human_table(verdicts, "Ada")))
    labels = read_labels(path)
    assert [(label.feature_id, label.related) for label in labels] == [(2, True), (5, False)]
    assert labels[0].description == "praise, “loud”" and labels[1].reason == "see texts"
    assert labels[1].description == "- commas"


def test_an_export_holds_what_a_reader_needs():
    rows = audit.verdict_table(KEY, [Verdict(3, "Ada", "right", tags=("a",))])
    assert rows.schema.field("tags").type == pa.list_(pa.string())
    assert json.loads(exports.as_json(rows))[0]["bundle_id"] == KEY.bundle_id
