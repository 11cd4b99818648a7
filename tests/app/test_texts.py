"""Inputs, pairs and disagreements: the pages that split texts over features, and their components."""

import dataclasses
import itertools
import re
import shutil

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.components.html import panels
from app.components.results import queues
from app.components.results.queues import Judges, Named
from app.components.text import ledgers, reading, tokens
from app.session import names
from app.widgets import paging
from lfp.bundle import queries
from lfp.bundle.queries.common import Order
from lfp.bundle.queries.ledgers import Difference, Ledger, RawLedger
from lfp.bundle.queries.texts import Pair, PairFilter, TextFilter, TokenLedger, TokenPart
from lfp.bundle.queries.words import QueuedText, Responsible
from lfp.bundle.store.connection import Store
from lfp.evaluation.results import ResultRow
from lfp.report.formatting import signed
from lfp.testing.synthetic import make_bundle
from lfp.testing.synthetic.corpus import STANDING
from lfp.util.sanitize import as_label, escaped
from tests.app.reader import is_tame, tame, whole
from tests.conftest import HOSTILE, rewrite, with_column

TEXTS = st.text(max_size=40) | st.sampled_from(HOSTILE)


def texts_of(bundle, **keys):
    with Store.open(bundle) as store:
        return queries.texts.texts(store, TextFilter(is_sampled=True, **keys), order=Order("gap"))[
            "text_id"
        ].to_pylist()


def press(at, label):
    next(button for button in at.button if button.label == label).click()
    return at.run()


def test_texts_of_a_rating_are_listed_with_their_gap(explorer, bundle):
    at = explorer("inputs", bundle, rated_from="4.0", by="rating gap")
    shown = at.dataframe[0].value
    whole(at)
    assert len(shown) and shown["rating"].min() >= 4 and shown["gap"].is_monotonic_decreasing
    with Store.open(bundle) as store:
        gaps = {text.text_id: abs(text.gap) for text in queries.words.queued_texts(store, "rating gap", limit=None)}
    for row in shown.to_dict("records"):
        assert row["gap"] == pytest.approx(gaps.get(row["text_id"], 0.0), abs=1e-9)


def test_next_goes_on_over_the_end_of_the_page(explorer, bundle):
    ids = texts_of(bundle)
    at = explorer("inputs", bundle, text=str(ids[11]))
    press(at, "Next")
    assert (at.number_input(key="text").value, at.session_state.sheet) == (ids[12], 2)
    press(at, "Previous")
    assert (at.number_input(key="text").value, at.session_state.sheet) == (ids[11], 1)
    whole(at)


@pytest.mark.parametrize("size", [1, 3])
def test_steps_of_all_pages_make_up_the_list(size):
    rows = list(range(100, 107))
    for page in range(1, -(-len(rows) // size) + 1):
        asked = paging.window(page, size)
        found = paging.Page.from_window(rows[asked["offset"] :][: asked["limit"]], page=page, size=size)
        first = (page - 1) * size
        assert found.ids == rows[first : first + size]
        assert found.before == (rows[first - 1] if first else None)
        assert found.after == (rows[first + size] if first + size < len(rows) else None)


@pytest.mark.parametrize(
    ("account", "says"),
    [
        ("estimate", "intercept"),
        ("against the average text", "compared with the average sampled text"),
        ("raw estimate, with what is missed", "dictionary error"),
    ],
)
def test_every_ledger_of_a_text_adds_up_on_screen(explorer, bundle, account, says):
    at = explorer("inputs", bundle, text="3", account=account, every_part="true")
    html = whole(at)
    assert "adds up exactly" in html and "does not add up" not in html and says in html
    listed = at.dataframe[1].value
    with Store.open(bundle) as store:
        n = (
            queries.ledgers.average_ledger(store, 3).n_features
            if "average" in account
            else queries.ledgers.ledger(store, 3).n_features
        )
    assert len(listed) == n > 12
    parts = listed["difference" if "average" in account else "contribution"]
    assert listed["running_total"].tolist() == pytest.approx(list(itertools.accumulate(parts)))


@pytest.mark.parametrize("path", ["full", "same_position"])
def test_the_implicit_reward_of_a_text_adds_up_over_modules_and_over_features(explorer, bundle, path):
    account = "implicit reward" if path == "full" else "implicit reward, same position"
    at = explorer("inputs", bundle, text="3", account=account, every_part="true")
    html, titles = whole(at), [heading.value for heading in at.subheader]
    with Store.open(bundle) as store:
        modules = queries.implicit_ledgers.module_ledger(store, 3, path=path)
        features = queries.implicit_ledgers.feature_ledger(store, 3, path=path)
        tokens = names.name_parts(store, queries.implicit_ledgers.token_credits(store, 3, path=path))
        rewards = queries.texts.text(store, 3).token_implicit_reward
    assert html.count("adds up") == 2 and "does not add up" not in html
    first = modules.modules[0]
    assert titles[0].startswith(f"Implicit reward {signed(modules.predicted)} nats: ")
    assert f"carries most, {signed(first.credit)}, of {len(modules.modules)} modules" in titles[0]
    assert f"{features.n_features} features carry" in titles[1] and "nats of MLP" in titles[1]
    assert len(at.dataframe[1].value) == features.n_features and "credit" in at.dataframe[1].value
    tips = [ledgers.credit_tip(token, path=path, reward=reward) for token, reward in zip(tokens, rewards, strict=True)]
    assert all(tip in html for tip in tips) and html.count('tabindex="0"') == len(tips)


def test_a_token_on_the_same_position_is_its_features_and_the_rest():
    token = TokenLedger((TokenPart(3, "warm", 0.25), TokenPart(4, None, -0.05)), 3, 0.3)
    html = ledgers.credit_tip(token, path="same_position", reward=1.0)
    assert re.findall(r"[+−][0-9.]+(?=<)", html) == ["+0.25000", "−0.05000", "+0.10000", "+0.70000"]
    assert "+0.3000 nats of its implicit reward" in html
    for unknown in (None, float("nan")):
        assert "other modules" not in ledgers.credit_tip(token, path="same_position", reward=unknown)
    assert "other modules" not in ledgers.credit_tip(token, path="full", reward=1.0)


def test_a_text_that_was_not_split_leads_to_texts_that_were(explorer, copied_bundle):
    for table in ("module_credits", "feature_credits", "credit_sums"):
        rewrite(copied_bundle, table, lambda rows: rows.filter(pc.less(rows["text_id"], 2)))
    html = whole(explorer("inputs", copied_bundle, text="3", account="implicit reward"))
    assert "did not split the implicit reward of this text" in html and "lfp-sheet" in html
    assert "text=0&amp;account=implicit+reward" in html and "text=1&amp;account=implicit+reward" in html
    at = explorer("inputs", copied_bundle, texts="with a ledger")
    assert sorted(at.dataframe[0].value["text_id"]) == [0, 1]


def test_an_older_bundle_offers_no_ledger_of_the_implicit_reward(explorer, copied_bundle):
    for table in ("module_credits", "feature_credits", "credit_sums"):
        rewrite(copied_bundle, table, lambda rows: rows.slice(0, 0))
    at = explorer("inputs", copied_bundle, text="3")
    assert at.segmented_control(key="account").options == ["probe estimate", "vs average text", "raw-activation probe"]
    assert "adds up exactly" in whole(at)


@pytest.mark.parametrize(
    ("error", "tolerance", "says"),
    [(0.0, 0.0, "adds up exactly"), (0.01, 0.01, "adds up within the integral’s error, 0.20 %"),
     (0.01, 0.001, "does not add up"), (0.01, 0.0, "does not add up")],
)  # fmt: skip
def test_a_sum_is_checked_within_what_the_bundle_states(error, tolerance, says):
    html = panels.sum_check(shown=2.0, n_shown=2, rest=-3.0, n_rest=1, predicted=-1.0 + error, size=5.0,
                            tolerance=tolerance)  # fmt: skip
    assert says in html and ("✓" in html) == ("adds up" in says)


def test_tokens_tell_what_they_add_to_a_pointer_and_to_the_keyboard(explorer, bundle):
    with Store.open(bundle) as store:
        made = names.name_parts(store, queries.texts.token_ledgers(store, 3))
    html = whole(explorer("inputs", bundle, text="3"))
    assert html.count('tabindex="0"') == html.count('role="tooltip"') == len(made)
    assert all(ledgers.token_tip(ledger) in html for ledger in made)
    assert 'tabindex="0"' not in whole(explorer("inputs", bundle, text="39"))


def test_a_pair_stands_side_by_side_and_its_difference_adds_up(explorer, paired):
    with Store.open(paired) as store:
        pair = queries.texts.pair(store, 4)
        ledger = queries.ledgers.pair_ledger(store, 4)
    at = explorer("pairs", paired, pair="4", every_difference="true")
    html = whole(at)
    assert "adds up exactly" in html and "does not add up" not in html
    of_pair = [element.value for element in at.subheader][:4]
    assert of_pair == ["Chosen", "Rejected", "What makes the difference", "Length"]
    assert f"Open text {pair.chosen_id} in" in html and f"Open text {pair.rejected_id} in" in html
    assert reading.length_note(pair) in html and "0.62  [0.54 to 0.70]" in html and ">0.56<" in html
    assert len(at.dataframe[1].value) == ledger.n_features
    assert "<pre" not in html  # made-up pairs have no prompt in common


def test_a_prompt_that_both_answer_is_shown_once(explorer, tmp_path):
    both = ["One two three four five good", "One two three four five bad"]
    path = make_bundle(tmp_path / "b", n_features=20, n_texts=6, pooling="response", n_pairs=1, extra_texts=both)
    html = whole(explorer("pairs", path))
    assert html.count('<pre class="lfp-prompt">One two</pre>') == 1 and html.count(">three<") >= 2 > html.count(">One<")


def test_pairs_are_filtered_sorted_and_walked_through(explorer, paired):
    with Store.open(paired) as store:
        wanted = PairFilter(verdict="wrong", is_sampled=True)
        ids = queries.texts.pairs(store, wanted, order=Order("length"))["pair_id"].to_pylist()
    assert len(ids) > 1
    at = explorer("pairs", paired, verdict="wrong", rank_by="length")
    assert at.dataframe[0].value["pair_id"].tolist() == ids[:12] and "estimate: wrong" in whole(at)
    press(at, "Next")
    assert at.number_input(key="pair").value == ids[1]
    assert "No matches" in whole(explorer("pairs", paired, said="zzzz"))


def test_pairs_that_the_tuned_model_has_wrong_are_those_of_its_implicit_reward(explorer, paired):
    with Store.open(paired) as store:
        rows = queries.texts.pairs(store, PairFilter(is_sampled=True), order=Order("margin")).to_pylist()
    wrong = {row["pair_id"] for row in rows if row["implicit_margin"] <= 0}
    assert 0 < len(wrong) < len(rows)
    at = explorer("pairs", paired, tuned_verdict="wrong")
    assert set(at.dataframe[0].value["pair_id"]) == wrong and "implicit reward: wrong" in whole(at)


def test_tokens_of_largest_implicit_reward_are_named():
    says = reading.largest_tokens([" a", "\n", " great", " film", "."], [0.1, 5.0, -0.8, None, 0.3], most=2)
    assert says == "Largest implicit reward of a token, nats: “great” −0.80, “.” +0.30."
    assert reading.largest_tokens(["a"], [None]) == ""


def test_a_pair_without_activations_is_shown_unsplit(explorer, paired):
    html = whole(explorer("pairs", paired, pair="19", kept="all"))
    assert "cannot be split" in html and html.count('class="lfp-sheet"') == 2
    assert "No such pair" in whole(explorer("pairs", paired, pair="99"))


def test_what_the_pairs_forecast_is_listed_with_what_was_learned(paired, explorer):
    html = whole(explorer("pairs", paired))
    assert (
        "forecasts which of 40 features the implicit reward of held-out responses prefers: R² on features left out 0.40"
        in html
    )
    assert "2 in the data and not learned" in html and html.count("<th>credit, nats</th>") == 2
    with Store.open(paired) as store:
        found = queries.run.forecast(store)
    named = {feature.feature_id: feature.status for feature in found if f"<td>#{feature.feature_id}</td>" in html}
    assert set(named.values()) == {"in the data, not learned", "learned, not in the data"} and len(named) == 4


def test_without_pairs_the_page_leads_to_single_texts(explorer, bundle):
    html = whole(explorer("pairs", bundle))
    assert "holds no preference pairs" in html and 'href="inputs?bundle=reviews"' in html


@pytest.mark.parametrize("table", ["activations", "token_scores", "probes", "weights", "results"])
def test_pairs_without_one_table(explorer, paired, tmp_path, table):
    path = shutil.copytree(paired, tmp_path / "copied")
    rewrite(path, table, lambda rows: rows.slice(0, 0))
    whole(explorer("pairs", path))


@pytest.mark.parametrize("page", ["pairs", "disagreements"])
def test_hostile_pairs_are_only_text(explorer, hostile_pairs, page):
    tame(explorer(page, hostile_pairs, kept="all") if page == "pairs" else explorer(page, hostile_pairs))


@pytest.mark.parametrize(
    ("queue", "gap"),
    [
        ("estimate against true", "gap"),
        ("implicit against true", "implicit gap"),
        ("true against rating", "rating gap"),
    ],
)
def test_a_queue_is_shown_with_who_is_responsible(explorer, bundle, queue, gap):
    with Store.open(bundle) as store:
        found = queries.words.queued_texts(store, gap)
        why = queues.by_text(queries.words.responsible_features(store, gap))
    html = whole(explorer("disagreements", bundle, queue=queue))
    assert html.count('class="lfp-gap') == 10
    for text in found[:10]:
        assert f"text={text.text_id}&amp;watch={why[text.text_id][0].feature_id}" in html


def test_a_queue_of_texts_leaves_out_what_all_begin_with(explorer, copied_bundle):
    system = "system You are a helpful assistant of films. "

    def prefixed(table):
        at = table.schema.get_field_index("text")
        return table.set_column(at, "text", pc.binary_join_element_wise(system, table["text"], ""))

    rewrite(copied_bundle, "texts", prefixed)
    with Store.open(copied_bundle) as store:
        first = queries.words.queued_texts(store, "gap")[0].text
    html = whole(explorer("disagreements", copied_bundle))
    assert system not in html and escaped(first.removeprefix(system)[:40]) in html


def test_a_group_narrows_the_queue_and_a_second_click_widens_it(explorer, bundle):
    with Store.open(bundle) as store:
        why = queues.by_text(queries.words.responsible_features(store, "gap", side="over"))
    number, (heading, _) = next(iter(queues.groups(list(why.values())).items()))
    members = {text_id for text_id, named in why.items() if number in {row.feature_id for row in named}}
    assert heading.startswith(f"{len(members)} ·")
    at = explorer("disagreements", bundle, side="over")
    press(at, heading)
    html = whole(at)
    assert at.number_input(key="responsible").value == number
    assert html.count('class="lfp-gap up"') == min(len(members), 10) and 'class="lfp-gap down"' not in html
    assert all(f"text={text_id}&amp;" in html for text_id in members) or len(members) > 10
    press(at, heading)
    assert at.number_input(key="responsible").value is None
    assert "responsible for none of these" in whole(explorer("disagreements", bundle, responsible="59999"))


def test_words_are_queued_with_chance_and_with_words_paid_otherwise(explorer, copied_bundle):
    with Store.open(copied_bundle) as store:
        first = queries.words.queued_words(store, "implicit gap")[0]
        paid = queries.words.paid_words(store, over=True)[0]
        standing = queries.words.standing_words(store)
    assert len(standing) == STANDING
    blank = dict.fromkeys(ResultRow.__dataclass_fields__) | {"report_row": "disagreements", "value": first.gap, "n": 40}
    made = [
        {**blank, "metric": "words_flagged", "value": 3.0},
        {**blank, "metric": "gap_implicit_true", "group": f"word:{first.word}", "null_high": 0.93},
        {**blank, "metric": "gap_over_paid", "group": f"word:{paid.word}", "null_high": 4.25, "value": paid.gap},
    ]

    def with_rows(table):
        others = table.filter(pc.invert(pc.is_in(table["report_row"], pa.array(["disagreements", "twins"]))))
        return pa.concat_tables([others, pa.Table.from_pylist(made, schema=table.schema)])

    rewrite(copied_bundle, "results", with_rows)
    html = whole(explorer("disagreements", copied_bundle, queue="implicit against true", things="words"))
    assert f"words={first.word}" in html and "The largest gap of 40 words is" in html and "exceed 0.93" in html
    assert "<td>4.2</td>" in html and "3 of 40 words stand out from the others" in html
    assert f">{standing[0]}</a>, " in html and f">{standing[-1]}</a> and 1 more." in html
    made.pop(0)  # a bundle whose nulls could not reject
    rewrite(copied_bundle, "results", with_rows)
    html = whole(explorer("disagreements", copied_bundle, queue="implicit against true", things="words"))
    assert "exceed 0.93" in html and "<td>4.2</td>" not in html and "stand out" not in html
    assert "People rate texts" in whole(
        explorer("disagreements", copied_bundle, queue="true against rating", things="words")
    )


def test_words_are_compared_with_the_twins_where_a_run_has_some(explorer, bundle):
    with Store.open(bundle) as store:
        over, under = (queries.words.twin_words(store, over=flag) for flag in (True, False))
        twins = store.rows("SELECT word, t, q FROM twins ORDER BY t DESC, word")
    assert [word.word for word in over] == [row["word"] for row in twins if row["t"] > 0][:10]
    assert [word.t for word in under] == sorted(row["t"] for row in twins if row["t"] < 0)[:10]
    html = whole(explorer("disagreements", bundle, queue="implicit against true", things="words"))
    assert "Compared with 8 models tuned on the same stated feedback by other seeds, 2 of 38 words are" in html
    assert all(f">{word}</a></td>" in html for word in (over[0].word, under[0].word))
    assert "false discovery rate</th>" in html and "in standard errors" not in html


def test_without_ratings_the_third_queue_says_so(explorer, copied_bundle):
    rewrite(copied_bundle, "texts", lambda rows: with_column(rows, "rating", [None] * rows.num_rows))
    assert "no human ratings" in whole(explorer("disagreements", copied_bundle, queue="true against rating"))
    at = explorer("inputs", copied_bundle)
    whole(at)
    assert "rated_from" not in [element.key for element in at.number_input]


@given(text=TEXTS, value=st.floats(-2, 2))
def test_tips_and_queues_are_only_our_own_html(text, value):
    made = ledgers.token_tip(TokenLedger((TokenPart(3, text, value), TokenPart(4, None, 0.0)), 5, value))
    rows = [tokens.Row("estimate", [value, None], 1.0, "")]
    is_tame(tokens.sheet([text, "b"], rows, tips=[made, made]))
    thing = QueuedText(1, text, value, value, 0.2, 0.9, -0.7)
    item = queues.Item("<a>x</a>", thing, (Named(3, text, value), Named(4, None)))
    judges = Judges(text, "true", "nats")
    is_tame(queues.legend(judges) + queues.listed([item], judges, feature_href={3: "feature?feature=3", 4: "x"}))
    pair = Pair(0, "held_out", 1, 2, 5, 9, -4, value, None, True)
    is_tame(reading.margins(pair) + reading.length_note(pair))


@given(text=TEXTS)
def test_a_label_marks_nothing_up(text):
    shown = as_label(text)
    assert not any(
        mark in "*_`[]$#<>~" and (at == 0 or shown[at - 1] != "\\") for at, mark in enumerate(shown)
    ) and all(after == "\u2060" for before, after in itertools.pairwise(shown + " ") if before == ":")


def test_a_length_judge_is_right_wrong_or_silent():
    of = lambda chosen, rejected: Pair(0, "train", 1, 2, chosen, rejected, chosen - rejected, 1.0, 1.0, True)  # noqa: E731
    assert "is right here" in reading.length_note(of(9, 4)) and "is wrong here" in reading.length_note(of(4, 9))
    assert "has no preference" in reading.length_note(of(4, 4))
    assert reading.margins(of(4, 4)).count("no preference") == 1


def test_without_raw_weights_all_that_is_kept_is_one_bar():
    raw = RawLedger((), 0, 0.4, 0.1, 0.3, 0.3, bias=0.0, miss=-0.2)
    account = ledgers.from_raw(raw)
    assert [bar.value for bar in account.others] == [0.4, 0.0, 0.1, -0.2] and account.others[-1].is_missed
    assert "adds up exactly" in account.check
    assert "does not add up" in ledgers.from_raw(dataclasses.replace(raw, predicted=0.5)).check
    assert "does not add up" in ledgers.from_estimate(Ledger((), 0, 0.0, 0.1, 0.1, 0.2)).check


def test_a_ledger_is_listed_with_its_running_total():
    parts = [
        Difference(7, 0, "mlp_out", None, 0.5, 0.3, 0.1, 0.2),
        Difference(8, 1, "resid_post", "a", 0.5, 0.1, 0.2, -0.1),
    ]
    table = ledgers.all_parts(parts)
    assert table["feature_id"].to_pylist() == [7, 8] and table["description"].to_pylist() == [None, "a"]
    assert table["running_total"].to_pylist() == pytest.approx([0.2, 0.1])
    assert ledgers.all_parts([]).num_rows == 0


def test_groups_count_things_by_feature():
    found = [Responsible(1, 5, "a", 0.2), Responsible(1, 6, None, 0.1), Responsible(2, 5, "a", -0.3)]
    made = queues.groups(list(queues.by_text(found).values()))
    assert list(made) == [5, 6] and made[5].heading.startswith("2 ·") and "no label" in made[6].heading
    assert made[5].name is None
    (long,) = queues.groups([(queues.Named(7, "words of praise after a noun, at length"),)]).values()
    assert long.heading.endswith("…") and long.name == "words of praise after a noun, at length"
