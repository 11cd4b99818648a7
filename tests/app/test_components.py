import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.components.feature import profile, trust, verdicts
from app.components.html import panels
from app.components.text import tokens
from lfp.bundle.queries.feature import Label
from lfp.report.figures import frame, intervals, lines
from lfp.util.sanitize import escaped, escaped_lines, shortened, token_text, visible
from tests.app.reader import Reader, is_tame
from tests.conftest import HOSTILE


def starts_of(text, step=5):
    return list(range(0, len(text), step))


TEXTS = st.text(max_size=60) | st.sampled_from(HOSTILE)


@given(text=TEXTS)
def test_escaped_text_is_only_text(text):
    reader = Reader(f'<p title="{escaped(text)}">{escaped(text)}</p>')
    assert reader.tags == ["p"] and len(reader.attributes) == 1
    assert "".join(reader.words) == visible(text)


@given(text=TEXTS)
def test_nothing_hidden_stays_hidden(text):
    shown = visible(text)
    assert not any(ord(c) < 32 and c not in "\n\t" for c in shown)
    assert not set(shown) & set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200b\u200e\u200f\ufeff")


@given(text=TEXTS)
def test_a_token_always_has_a_name(text):
    name = token_text(text)
    assert name and name == name.strip(" ") and "\n" not in name


@pytest.mark.parametrize(
    ("piece", "name"),
    [
        (" good", "␣good"),
        ("good", "good"),
        (" ", "␣"),
        ("  ", "␣␣"),
        ("\n", "↵"),
        ("", "‥"),
        ("\t", "⇥"),
        ("\x00", "⟨U+0000⟩"),
    ],
)
def test_white_space_is_named(piece, name):
    assert token_text(piece) == name


@given(text=st.text(), length=st.integers(2, 80))
def test_shortened_text_is_short(text, length):
    assert len(shortened(text, length)) <= length


@given(st.lists(st.text()), st.integers(2, 80))
def test_many_texts_are_escaped_as_each_alone_is(texts, length):
    assert escaped_lines(texts, length) == [escaped(shortened(text, length)) for text in texts]


@given(text=TEXTS, step=st.integers(1, 9))
def test_pieces_make_up_the_text(text, step):
    assert "".join(tokens.pieces(text, starts_of(text, step))) == text


def test_pieces_of_one_character():
    assert tokens.pieces("a🙂b", [0, 1, 1, 2]) == ["a", "", "🙂", "b"]


@given(text=TEXTS, values=st.lists(st.none() | st.floats(-5, 5), max_size=20), numbers_too=st.booleans())
def test_any_text_makes_tame_html(text, values, numbers_too):
    parts = tokens.pieces(text, starts_of(text))
    row = {"text": text, "token_starts": starts_of(text), "window_values": [v or 0.0 for v in values]}
    row |= {"window_start": 0, "position": 0}
    item = tokens.example(row, limit=3.0, caption="<b>1</b>")
    is_tame(tokens.examples([item], numbers=numbers_too))
    rows = [tokens.Row(text, values, 2.0, text), tokens.Row("none", [], 0.0, "")]
    sheet = tokens.sheet(parts, rows, activations=[v or 0.0 for v in values], limit=3.0, numbers=numbers_too)
    is_tame(sheet + tokens.sheet_legend(rows) + tokens.strength_legend(3.0, text))


@given(text=TEXTS, value=st.floats(-9, 9))
def test_any_words_make_tame_panels(text, value):
    headline = panels.Headline(text, value, text, unit=text, low=value - 1, high=value + 1, chance=0.1, ceiling=0.9)
    html = [
        panels.heading(text, text, text), panels.note(text), panels.facts({text: text}), panels.badge(text),
        panels.cards([headline]), panels.table([text], [[text]], strong=[0]),
        panels.token_bars([{"token": text, "value": value}], sign=1), panels.notice(text, text), panels.text(text),
        panels.anchor(f"inputs?text={text}", text),
    ]  # fmt: skip
    for part in html:
        is_tame(part)


def test_shading_grows_with_activation_and_keeps_to_its_bounds():
    levels = [tokens.strength(value, 4.0) for value in (0.0, 0.5, 1.0, 2.0, 4.0, 9.0)]
    assert levels == sorted(levels) and levels[0] == 0 and levels[-2:] == [100, 100]
    assert tokens.strength(None, 4.0) == tokens.strength(1.0, 0.0) == tokens.strength(math.nan, 1.0) == 0


def test_an_examples_token_is_marked_and_its_number_is_on_hover():
    html = tokens.shaded(["a", " good", " film"], [0.0, 2.5], limit=2.5, peak=1)
    assert 'class="lfp-t lfp-peak" style="--a:100" title="␣good · 2.500" data-v="2.5"' in html
    assert html.count("lfp-far") == 1  # the third token is outside the window


def test_a_window_is_cut_out_of_its_text():
    text = "".join(f" w{i:02}" for i in range(60))
    row = {"text": text, "token_starts": starts_of(text, 4), "window_values": [1.0] * 5}
    html = tokens.example(row | {"window_start": 30, "position": 32}, limit=1.0, caption="")
    cut, whole = html.split("<details>")
    assert "w32<" in cut and "w10<" not in cut and "w10<" in whole


def test_tokens_of_one_word_stand_together():
    html = tokens.sheet([" nic", "e", " film", "."], [tokens.Row("true", [], 1.0, "")])
    assert html.count("lfp-joined") == 1 and 'lfp-joined" title="e' in html


@pytest.mark.parametrize(
    ("parts", "breaks"),
    [
        (["a", "\n", "\n", "b"], 1),
        (["a\n\n", "b"], 1),
        (["a\n", "\n\n", "b", "\n"], 2),
        (["a", "\n", " ", "\n"], 2),
        (["ab"], 0),
    ],
)
def test_several_line_breaks_in_a_row_break_a_line_once(parts, breaks):
    running, standing = tokens.shaded(parts, [], limit=1.0), tokens.sheet(parts, [])
    assert running.count("<br>") == standing.count("lfp-break") == breaks
    marks = "".join(parts).count("\n")
    assert running.replace('title="', "").count("↵</span>") == marks


def test_null_is_not_zero_on_a_sheet():
    html = tokens.sheet(["a", "b"], [tokens.Row("true", [None, 0.0], 1.0, "")])
    assert html.count('<i class="lfp-none"></i>') == 1
    assert '<i class="lfp-up" style="--a:0"><s>0</s></i>' in html
    assert "true: – (no score)" in html


def test_a_sum_that_is_off_says_so():
    good = panels.sum_check(shown=0.5, n_shown=3, rest=-0.1, n_rest=1, intercept=0.2, predicted=0.6)
    assert "adds up exactly" in good and "− <b>0.1000</b> from 1 other " in good
    bad = panels.sum_check(shown=0.5, n_shown=3, rest=0.0, n_rest=0, intercept=0.2, predicted=0.9)
    assert "does not add up" in bad and "other" not in bad


def test_a_failed_label_says_why_and_names_nothing():
    blank = dict.fromkeys(Label.__dataclass_fields__)
    failed = Label(**{**blank, "labeller": "m", "status": "failed", "failure": "no answer"})
    assert profile.best_label([failed]) is None
    assert trust.verdict(failed) == ("none", "No label: no answer.")


def example(text_id, bucket, value, text="one two"):
    return {"text_id": text_id, "bucket": bucket, "position": 0, "window_start": 0, "window_values": [value, 0.0],
            "text": text, "token_starts": [0, min(3, len(text))]}  # fmt: skip


def test_a_reviewer_sees_examples_from_strong_to_weak_and_then_silence():
    rows = [example(i, bucket, value) for i, (bucket, value) in enumerate(
        [(-1, 0.0), (0, 9.0), *((0, 8.0) for _ in range(8)), (1, 2.0), (2, 3.0), (-2, 0.0)])]  # fmt: skip
    html = verdicts.examples(rows, 9.0, lambda number: f"inputs?text={number}")
    found = [name for name in Reader(html).words if name in ("strongest", "weaker", "silent", "near miss")]  # fmt: skip
    assert found == ["strongest"] * 6 + ["weaker"] * 2 + ["silent", "near miss"]
    assert html.index("text=11") < html.index("text=10") < html.index("text=0")


@given(st.lists(st.sampled_from(HOSTILE), min_size=1, max_size=4))
def test_a_reviewers_examples_are_tame(texts):
    rows = [example(i, 0, 1.0, text) for i, text in enumerate(texts)]
    is_tame(verdicts.examples(rows, 1.0, lambda number: f"inputs?text={number}"))


KNOWN = st.none() | st.floats(-3, 3)


def test_a_quotation_mark_is_escaped_by_its_number_which_plotly_knows():
    assert escaped("\"to\" 'it'") == "&#34;to&#34; &#x27;it&#x27;"


def test_a_name_that_is_cut_is_whole_on_hover():
    assert panels.cut("short", 5) == "short"
    assert panels.cut("a <b> and more", 6) == '<span title="a &lt;b&gt; and more">a &lt;b&gt;…</span>'
    chart = frame.contributions([1, 2], ["word " * 20, None], [0.2, 0.1], ink=None)
    long, short = (annotation.hovertext for annotation in chart.layout.annotations)
    assert long == "word " * 20 and short is None


def test_names_of_inputs_are_never_cut_in_charts():
    longest = max((f"tuned minus base, {name}" for name in lines.INPUTS.values()), key=len)
    assert len(longest) <= intervals.LONGEST


def test_labels_beside_each_other_fit_their_column():
    facts = dict.fromkeys(Label.__dataclass_fields__) | {"labeller": "rule", "description": "word " * 40}
    html = trust.comparison([Label(**facts), Label(**facts | {"agreement": 0.9})])
    assert "rule: word" in html and "…" in html
    assert "<th>agreement</th>" in html and "90 %" in html and html.count("<th>") == 2  # nothing else was measured


def test_labels_after_the_first_are_folded():
    facts = dict.fromkeys(Label.__dataclass_fields__) | {"description": "praise", "examples_used": []}
    made = [
        Label(**facts | {"labeller": name, "status": "ok", "prompt_version": "1"}) for name in ("one", "two", "three")
    ]
    html = trust.cards(made, [], max_activation=1.0, where=str)
    first, folded = html.split('<details class="lfp-more">')
    assert "one" in first and "two" not in first and "three" in folded and "2 other labels in full" in folded
    assert "lfp-more" not in trust.cards(made[:1], [], max_activation=1.0, where=str)
