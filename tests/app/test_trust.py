"""The label trust card: what it says, that it says it safely, and that it is on the page of a feature."""

import dataclasses

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.components.feature import trust
from app.components.feature import trust as asked
from lfp.bundle import queries
from lfp.bundle.queries.feature import Label
from lfp.bundle.schema import as_table
from lfp.bundle.store.connection import Store
from lfp.labels.evidence import read_evidence
from lfp.labels.prompts import PROMPT_VERSION
from lfp.labels.token_rule import OFFLINE, OfflineTokens
from lfp.testing.synthetic import MODEL_LABELLER, make_bundle
from lfp.util.sanitize import visible
from tests.app.reader import is_tame, whole
from tests.conftest import HOSTILE, rewrite

BLANK = dict.fromkeys(Label.__dataclass_fields__) | {
    "labeller": "openai:m", "model": "m", "description": "praise", "related": True, "status": "ok",
    "prompt_version": PROMPT_VERSION, "prompt_sha256": "0" * 64, "task": "praise", "examples_used": ["7:1"],
}  # fmt: skip
SCORED = {"score_detection": 0.93, "score_ci_low": 0.8, "score_ci_high": 0.98, "score_n": 20, "score_swapped": 0.52}
TEXTS = st.text(max_size=40) | st.sampled_from([*HOSTILE, "\u05d0\u202e\u200f'\"<pre>", "مرحبا"])


def label(**changes):
    return Label(**{**BLANK, **changes})


def rows_of(text):
    half = len(text) // 2
    found = {"text": text, "token_starts": [0, half, half], "window_start": 0, "window_values": [0.0, 1.5, 0.2]}
    return [{"text_id": 7, "position": 1, "bucket": 0, **found}]


def card(*labels, rows=(), near=False):
    rows = [*(rows or rows_of("so good"))]
    rows += [{**rows[0], "bucket": -2, "text_id": 8}] if near else []
    return trust.cards(labels, rows, max_activation=2.0, where=lambda text_id: f"inputs?text={text_id}")


@given(text=TEXTS)
def test_any_words_make_a_tame_card(text):
    given_words = dict.fromkeys(("description", "reason", "task", "labeller", "model", "failure", "created_at"), text)
    reader = is_tame(card(label(**given_words, **SCORED), rows=rows_of(text)))
    assert "pre" in reader.tags and visible(text) in "".join(reader.words)


@pytest.mark.parametrize(
    ("changes", "kind", "says"),
    [
        ({}, "good", "Predicts held-out texts well: 0.93 [0.80, 0.98], n = 20 (another feature’s label: 0.52)."),
        ({"score_ci_low": 0.55}, "good", "better than chance: 0.93 [0.55"),
        ({"score_fuzzing": 0.5}, "good", "does not predict which token"),
        ({"score_fuzzing": 0.7}, "good", "(another feature’s label: 0.52)."),
        ({"score_swapped": None}, "good", "another feature’s label was not tested"),
        ({"score_swapped": 0.85}, "weak", "Not clearly better than another feature’s label: 0.93"),
        ({"score_swapped": 0.95}, "weak", "No better than another feature’s label: 0.93"),
        ({"score_ci_low": 0.5}, "weak", "May be chance"),
        ({"score_detection": 0.2, "score_ci_low": 0.1, "score_ci_high": 0.4}, "weak", "worse than chance"),
        ({"score_ci_low": None}, "weak", "without an interval"),
        ({"score_detection": None, "failure": "detection: no room"}, "none", "Not scored: detection: no room."),
        ({"score_detection": None, "score_n": 0}, "none", "too few examples"),
        ({"score_detection": None, "score_n": 3}, "none", "all active, or all silent"),
        ({"score_detection": None, "labeller": "human:Ada", "prompt_sha256": None}, "none", "nobody judged"),
        ({"score_q": 0.2}, "weak", "as so many labels are tested"),
        ({"description": None, "failure": "description: no answer."}, "none", "No label: no answer."),
    ],
)  # fmt: skip
def test_a_verdict_is_read_off_the_numbers(changes, kind, says):
    found = trust.verdict(label(**{**SCORED, **changes}))
    assert found.kind == kind and says in found.says


bounds = st.tuples(*[st.floats(0, 1)] * 3).map(sorted)


@given(bounds=bounds, swapped=st.none() | st.floats(0, 1), n=st.integers(2, 40))
def test_only_what_beats_both_nulls_is_good(bounds, swapped, n):
    low, value, high = bounds
    scores = {"score_detection": value, "score_ci_low": low, "score_ci_high": high, "score_n": n}
    found = trust.verdict(label(**scores, score_swapped=swapped))
    assert (found.kind == "good") == (low > 0.5 and (swapped is None or low > swapped))
    is_tame(card(label(**scores, score_swapped=swapped)))


def test_near_misses_are_named_where_there_are_any():
    assert "near misses among them" in card(label(**SCORED), near=True)
    assert "near misses" not in card(label(**SCORED))


def test_a_gauge_marks_chance_and_the_swapped_description():
    html = card(label(**SCORED))
    for mark in (
        'class="span" style="left:80.0%;width:18.0%"',
        '"guess" style="left:50.0%"',
        '"other" style="left:52.0%',
    ):
        assert mark in html
    assert 'class="other"' not in card(label(**SCORED | {"score_swapped": None}))
    assert "lfp-gauge" not in card(label())


def test_what_a_label_lacks_is_said_beside_what_it_has():
    assert card(label(description=None, failure="description: no answer")).count("no answer") == 1
    html = card(label(related=None, failure="relation: no answer", status="failed", **SCORED))
    assert "praise" in html and "Missing: relation: no answer." in html and "not known whether it is related" in html


def test_a_person_is_marked_and_was_asked_nothing():
    html = card(label(labeller="human:Ada", model=None, prompt_version="human-1", prompt_sha256=None, examples_used=[]))
    assert "lfp-trust person" in html and "a person<" in html and "<details" not in html


def test_a_model_that_was_not_asked_sent_no_prompt():
    html = card(label(model=None, prompt_sha256=None, examples_used=[], description="never active"))
    assert "a language model<" in html and "No prompt was sent, and nothing was shown." in html


def test_a_prompt_that_is_not_the_one_sent_is_said_so():
    html = card(label())
    assert "✗ This is not the prompt that was sent" in html and "✓" not in html


def test_hidden_characters_are_owned_up_to():
    assert "Invisible characters" in card(label(description="a\u202eb")) and "Invisible characters" not in card(label())


def test_the_offline_labellers_rule_is_told(bundle):
    with Store.open(bundle) as store:
        (evidence,) = read_evidence(lambda name: store.query(f"SELECT * FROM {name}"), [3], n_scored=4)
        rows = queries.excerpts.feature_excerpts(store, 3)
    (made,) = OfflineTokens({}, related_threshold=0.5).label([evidence])
    shared = {field.name for field in dataclasses.fields(made)} & set(BLANK)
    kept = label(**{name: getattr(made, name) for name in shared} | {"labeller": OFFLINE, "status": "ok"})
    html = card(kept, rows=rows)
    assert asked.RULES[made.prompt_version] in html and "No prompt was sent" in html
    for key in made.examples_used:
        assert f'href="inputs?text={key.split(":")[0]}"' in html


def with_labels(bundle, *rows):
    """Puts rows into the table of labels, over those of the same feature and labeller."""

    def put(table):
        taken = {(row["feature_id"], row["labeller"]) for row in rows}
        kept = [row for row in table.to_pylist() if (row["feature_id"], row["labeller"]) not in taken]
        return pa.Table.from_pylist(
            sorted([*kept, *as_table("labels", list(rows)).to_pylist()], key=lambda row: row["feature_id"]),
            schema=table.schema,
        )

    rewrite(bundle, "labels", put)


def test_a_scored_label_shows_the_very_prompt(explorer, bundle):
    at = explorer("feature", bundle, feature="3")
    html = whole(at)
    (shown,) = [element.proto.body for element in at.get("html") if "lfp-trusts" in element.proto.body[:40]]
    is_tame(shown)
    assert html.count('class="lfp-trust ') == 2 and "lfp-gauge" in html
    assert "✓ This is the prompt that was sent" in html and "You study what one feature" in html


def test_a_failed_label_says_what_is_missing(explorer, bundle):
    html = whole(explorer("feature", bundle, feature="9"))
    assert "No label: the answer was not JSON, three times." in html
    assert "✓ This is the prompt that was made for it" in html and "not sent, as" in html


def test_a_persons_label_stands_beside_the_machines(explorer, copied_bundle):
    person = {"feature_id": 3, "labeller": "human:Ada", "description": "what <b>Ada</b> sees", "related": False,
              "status": "ok", "prompt_version": "human-1", "examples_used": []}  # fmt: skip
    before = whole(explorer("feature", copied_bundle, feature="3"))
    with_labels(copied_bundle, person)
    html = whole(explorer("feature", copied_bundle, feature="3"))
    title = before.split('class="lfp-title">')[1].split("<")[0]
    assert f'class="lfp-title">{title}<' in html and "what &lt;b&gt;Ada&lt;/b&gt; sees" in html
    assert html.count('class="lfp-trust ') == 3 and html.count('class="lfp-trust person"') == 1


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"prompt_version": "labels-99"}, "Prompt labels-99: this program does not know its words"),
        ({"examples_used": ["999:1"]}, "Example 999:1: the bundle no longer holds what was shown"),
        ({"task": "something else"}, "✗ This is not the prompt that was sent"),
    ],
)
def test_what_cannot_be_rebuilt_leaves_the_page_alive(explorer, copied_bundle, changes, says):
    with Store.open(copied_bundle) as store:
        (row,) = store.rows("SELECT * FROM labels WHERE feature_id = 3 AND labeller = $who", {"who": MODEL_LABELLER})
    with_labels(copied_bundle, row | changes)
    at = explorer("feature", copied_bundle, feature="3")
    html = whole(at)
    assert says in html and "✓ This is" not in html
    assert "Tokens it raises and lowers" in whole(at)


def test_a_feature_beyond_those_hashed_is_honest(explorer, tmp_path):
    large = make_bundle(tmp_path / "large", n_features=240, n_texts=10)
    html = whole(explorer("feature", large, feature="201"))
    assert "Prompt describe-1: this program does not know its words" in html
