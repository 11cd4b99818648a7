"""Accuracy and Validation: what they say of a run, held against its tables."""

import dataclasses

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.components.html import exports, glossary, panels
from app.components.results import report
from app.components.results import titles as summary_titles
from app.session import permalinks
from lfp.bundle import queries
from lfp.bundle.queries.run import AblatedFeature
from lfp.bundle.schema import TABLES
from lfp.bundle.store.connection import Store
from lfp.errors import NotInBundleError
from lfp.evaluation.results import ResultRow
from lfp.testing.synthetic import LABELLER, MODEL_LABELLER
from lfp.util.sanitize import escaped
from tests.app.reader import Reader, is_tame, tame, whole, words_of
from tests.conftest import HOSTILE, rewrite

RESULTS = next(table for table in TABLES if table.name == "results")
TEXTS = st.text(max_size=60) | st.sampled_from(HOSTILE)


@pytest.fixture(scope="module")
def store(bundle):
    with Store.open(bundle) as opened:
        yield opened


def figure(metric="tau", value=0.5, **keys):
    return ResultRow(report_row="r", metric=metric, value=value, **keys)


def three(target="delta", low=-0.1, high=0.2, **keys):
    words = {"words": "all", "split": "held_out_words", "target": target, **keys}
    return [
        figure(model="tuned", inputs="sae", null_high=0.6, null_mean=0.0, **words),
        figure(model="base", inputs="base_sae", value=0.4, null_high=0.1, **words),
        figure(model="difference", inputs="sae", value=0.1, ci_low=low, ci_high=high, null_high=0.2, **words),
    ]


def on_pairs(path):
    """Makes the bundle one of preference pairs: every two texts a pair, the report's rows of pairs, no words."""

    def paired(rows):
        n = rows.num_rows
        new = {
            "role": pa.array([("chosen", "rejected")[i % 2] for i in range(n)]),
            "pair_id": pa.array([i // 2 for i in range(n)], pa.int64()),
            "split": pa.array(["held_out"] * n),
        }
        for name, values in new.items():
            rows = rows.set_column(rows.schema.get_field_index(name), rows.schema.field(name), values)
        return rows

    def preferring(rows):
        at = rows.schema.get_field_index("target")
        targets = ["preference", *rows["target"].to_pylist()[1:]]
        return rows.set_column(at, rows.schema.field("target"), pa.array(targets))

    rewrite(path, "texts", paired)
    rewrite(path, "probes", preferring)
    rewrite(path, "vocabulary", lambda rows: rows.slice(0, 0))
    rewrite(path, "results", lambda _: pa.Table.from_pylist(pair_rows(), RESULTS.schema))
    return path


def pair_rows():
    rows = []
    for model, inputs, value in (("tuned", "sae", 0.68), ("base", "base_sae", 0.63), ("difference", "sae", 0.05)):
        keys = {"model": model, "inputs": inputs, "target": "preference"}
        rows.append(figure("accuracy", value, ci_low=value - 0.04, ci_high=value + 0.04, null_high=0.58, **keys))
    keys = {"model": "tuned", "inputs": "sae", "target": "preference"}
    rows += [
        figure("accuracy_length_controlled", 0.64, **keys),
        figure("calibration_error", 0.06, null_high=0.09, **keys),
        figure("calibration_slope", 0.8, ci_low=0.6, ci_high=1.0, **keys),
        figure("accuracy_of_length", 0.55, target="preference"),
    ]
    return [dataclasses.asdict(row) | {"report_row": "preference_accuracy"} for row in rows]


# The headline


def test_the_headline_is_three_figures_of_the_probes_target_or_of_another_that_has_all():
    rows = [*three("delta"), *three("implicit_reward")[:2]]
    found = report.headlines({"kendall_tau": rows}, "implicit_reward")
    assert [row.value for row in found] == [0.5, 0.4, 0.1] and "activation differences" in found[0].sentence
    assert report.headlines({"kendall_tau": rows[3:]}, "implicit_reward") == []
    assert report.headlines({}, None) == []


def test_the_headline_keeps_to_held_out_words():
    leaky = [dataclasses.replace(row, split="random_rows") for row in three()]
    assert report.headlines({"kendall_tau": leaky}, None) == []


@pytest.mark.parametrize(
    ("low", "high", "says"),
    [(-0.1, 0.2, "No clear difference"), (0.1, 0.2, "scores higher"), (-0.2, -0.1, "covers words only")],
)
def test_the_difference_says_where_zero_is(low, high, says):
    found = report.headlines({"kendall_tau": three(low=low, high=high)}, None)
    assert says in found[2].sentence and found[2].is_change


def test_each_figure_says_whether_it_is_above_its_null_and_has_its_ceiling():
    ceiling = figure("sign_ceiling", 0.9, model="base", inputs="base_sae", target="delta", split="held_out_words")
    tuned, base, change = report.headlines({"kendall_tau": [*three(), ceiling]}, None)
    assert "Not above chance" in tuned.sentence and "Above chance" in base.sentence
    assert (tuned.ceiling, base.ceiling, change.ceiling) == (None, 0.9, None)


# Numbers


@pytest.mark.parametrize("labeller", [LABELLER, MODEL_LABELLER])
def test_counts_and_beliefs_are_those_of_the_tables(store, bundle, labeller):
    labels = [row for row in pq.read_table(bundle / "labels.parquet").to_pylist() if row["labeller"] == labeller]
    weights = {
        row["feature_id"]: row for row in pq.read_table(bundle / "weights.parquet").to_pylist() if not row["probe_id"]
    }
    live = {row["feature_id"] for row in pq.read_table(bundle / "features.parquet").to_pylist() if row["n_active"]}
    judged = {row["feature_id"]: row for row in labels if row["related"] is not None}
    rows = queries.run.beliefs(store, labeller).to_pylist()
    assert [row["feature_id"] for row in rows] == sorted(set(judged) & live)
    assert queries.run.count_beliefs(store, labeller) == len(rows)
    for row in rows:
        label = judged[row["feature_id"]]
        assert row["belief"] == pytest.approx(label["confidence"] * (1 if label["related"] else -1))
        assert row["size"] == pytest.approx(abs(weights[row["feature_id"]]["weight"]))


def test_a_sample_of_beliefs_is_the_same_each_time(store):
    few, all_ = (
        queries.run.beliefs(store, LABELLER, limit=7).to_pylist(),
        queries.run.beliefs(store, LABELLER).to_pylist(),
    )
    assert len(few) == 7 and few == queries.run.beliefs(store, LABELLER, limit=7).to_pylist()
    assert all(row in all_ for row in few)


def test_a_word_is_found_in_any_case_and_an_unknown_one_says_what_is_there(store, bundle):
    vocabulary = pq.read_table(bundle / "vocabulary.parquet").to_pylist()
    known = next(row for row in vocabulary if row["feedback"] is not None)
    found = queries.words.word(store, f" {known['word'].upper()} ")
    assert found.word == known["word"] and found.shown == pytest.approx(3.0 * known["predicted"] + 0.1, abs=1e-5)
    with pytest.raises(NotInBundleError) as caught:
        queries.words.word(store, "'; DROP TABLE x")
    assert f"it holds {len(vocabulary)} words" in str(caught.value)


def test_features_of_a_word_are_those_of_the_table_by_lift(store, bundle):
    table = pq.read_table(bundle / "word_features.parquet").to_pylist()
    name = table[0]["word"]
    lifts = [row["lift"] for row in table if row["word"] == name]
    assert [row.lift for row in queries.words.word_features(store, name)] == sorted(lifts, reverse=True)[:8]


def test_margins_are_of_held_out_pairs_under_a_preference_probe_alone(store, copied_bundle):
    assert queries.words.pair_margins(store).num_rows == 0
    with Store.open(on_pairs(copied_bundle)) as pairs:
        rows, predicted = queries.words.pair_margins(pairs).to_pylist(), {}
        for text in pq.read_table(copied_bundle / "texts.parquet", columns=["text_id", "predicted"]).to_pylist():
            predicted[text["text_id"]] = text["predicted"]
    assert len(rows) == 20
    assert all(
        row["margin"] == pytest.approx(predicted[row["chosen_id"]] - predicted[row["rejected_id"]]) for row in rows
    )


# Lines and figures


def test_counts_as_a_table():
    values = {"related_and_weighty": 15, "related_only": 180, "weighty_only": 77, "neither": 1264}
    html = report.heat({name: figure(name, value) for name, value in values.items()})
    words = " ".join(Reader(html).words)
    assert "15 7.7 % of the row" in words and "1,264 94 % of the row" in words and "1,536" in words
    is_tame(html)


def test_no_rows_still_have_their_columns():
    table = exports.as_table(AblatedFeature, [])
    assert table.num_rows == 0 and exports.csv(table).startswith(b'"feature_id"')


# Pages


def test_the_overview_shows_what_both_models_write(explorer, copied_bundle):
    rows = [
        {"group": model, "index": i, "prompt_id": i, "prompt": f"Film <b>{i}</b>", "completion": f" was {word}, {word}",
         "reward": reward + (i == 7) * (reward > 0), "perplexity": 2.0, "model": model}
        for model, word, reward in (("base", "dull", -0.5), ("tuned", "Joyful", 1.5)) for i in range(12)
    ]  # fmt: skip
    rewrite(copied_bundle, "completions", lambda table: pa.Table.from_pylist(rows, table.schema))
    at = explorer("overview", copied_bundle)
    assert "word=joyful" in tame(at)
    assert "base to tuned model: more: joyful (0 to 12); less: dull (12 to 0)" in whole(at)
    shown = tame(at)
    assert 'was <b class="up">Joyful</b>, <b class="up">Joyful</b>' in shown
    assert "Film &lt;b&gt;0&lt;/b&gt; …" in shown
    at.segmented_control(key="written_by").set_value("changed").run()
    assert whole(at).index("Film &lt;b&gt;7") < whole(at).index("Film &lt;b&gt;0")


def test_the_summary_answers_before_it_shows_figures(explorer, bundle):
    html = tame(explorer("overview", bundle))
    assert html.count('<section class="yes"><h4><b>✓</b>') == 3 and "Is it new? <span>In part</span>" in html
    order = (
        "Did the reward move?", "Is it in the model?", "Is it new?", "Do labels and interventions hold?",
        "Both continue the same held-out prefix", 'class="lfp-leading"', "the sum of", 'class="lfp-card"',
    )  # fmt: skip
    places = [html.index(text) for text in order]
    assert places == sorted(places)
    assert 'href="#what-both-models-write"' in html and 'href="validation?bundle=reviews"' in html
    assert "nats per token" in html and "promotes “" in html and 'href="inputs?bundle=reviews&amp;text=' in html


def test_the_panels_of_the_summary_are_titled_with_their_findings(explorer, bundle):
    at = explorer("overview", bundle)
    titles = " | ".join(heading.value for heading in at.subheader)
    with Store.open(bundle) as store:
        words, rows = queries.run.written_words(store), queries.run.report_ablations(store)
        made = queries.run.dictionaries(store).to_pylist()
        expected = (
            summary_titles.writing(words, queries.run.count_samples(store)), summary_titles.ablations(rows),
            summary_titles.dictionaries(made),
        )  # fmt: skip
    assert all(title in titles for title in expected) and "of the variance unexplained" in titles
    assert "A probe of" in titles and "groups of features change" in titles


def test_titles_without_rows_say_what_is_missing_from_them():
    assert "beyond chance" in summary_titles.writing([], 20)
    assert summary_titles.probe({}, None) == "How well a probe reads the reward, tuned and base"
    assert summary_titles.ablations([]).startswith("Ablation") and summary_titles.dictionaries([]).startswith(
        "How well"
    )
    used = [{"is_used": True, "fvu": share} for share in (0.35, 0.33)] + [{"is_used": False, "fvu": 0.9}]
    assert summary_titles.dictionaries(used) == "The dictionaries in use leave 33 to 35 % of the variance unexplained"
    assert "leave 35 % of" in summary_titles.dictionaries(used[:1])


def test_every_page_opens_the_glossary(explorer, bundle):
    for page in ("overview", "inputs", "about"):
        at = explorer(page, bundle)
        assert "lfp-glossary" not in whole(at)
        html = tame(at.button(key="glossary").click().run())
        assert "lfp-glossary" in html and all(escaped(term) in html for term in glossary.TERMS)


def test_an_older_bundle_has_a_summary_too(explorer, copied_bundle):
    for table in ("credits", "module_credits", "twins", "interventions", "completions"):
        rewrite(copied_bundle, table, lambda rows: rows.slice(0, 0))
    kept = ("module_credits", "twins", "feature_credits", "interventions")
    rewrite(copied_bundle, "results", lambda rows: rows.filter(pc.invert(pc.is_in(rows["report_row"], pa.array(kept)))))
    at = explorer("overview", copied_bundle)
    html = tame(at)
    titles = " ".join(heading.value for heading in at.subheader)
    assert "make" in titles and "of a probe’s estimate" in titles and "Where it lives in the model" in titles
    assert "did not split the implicit reward over features" in html and "did not split it over modules" in html
    assert "twins.n=8" in html and "raises “" in html


def test_the_overview_shows_three_large_figures(explorer, bundle):
    html = whole(explorer("overview", bundle))
    assert html.count('class="lfp-card"') == 3 and "mean reward, before → after" in html and "0.05 → 0.41" in html


def test_a_word_has_its_row_and_its_features(explorer, bundle, store):
    name = pq.read_table(bundle / "word_features.parquet")["word"][0].as_py()
    (first, *_) = queries.words.word_features(store, name)
    html = whole(explorer("accuracy", bundle, word=name))
    assert "in matched contexts" in html and f'href="feature?bundle=reviews&amp;feature={first.feature_id}"' in html


def test_an_unknown_word_is_said_to_be_unknown_and_the_page_lives(explorer, bundle):
    html = whole(explorer("accuracy", bundle, word="<b>zzz</b>"))
    assert "There is no word “&lt;b&gt;zzz&lt;/b&gt;” in this bundle" in html
    assert "Sampled texts by their mean feature activations" in html


def test_a_permalink_to_accuracy_restores_it(explorer, bundle):
    view = permalinks.AccuracyView("estimate against true", "good", "activation differences", "positive",
                              "words: estimate against true", "implicit reward")  # fmt: skip
    at = explorer("accuracy", bundle, **permalinks.to_params(view))
    whole(at)
    assert at.button_group(key="word_axes").value == view.word_axes and at.text_input(key="word").value == "good"
    assert at.button_group(key="tau_words").value == "positive" and at.selectbox(key="gap_list").value == view.gap_list
    assert at.button_group(key="text_colour").value == "implicit reward"


def test_gaps_lead_to_words_and_texts(explorer, bundle):
    html = whole(explorer("accuracy", bundle, gap_list="texts: estimate against true"))
    assert 'href="inputs?bundle=reviews&amp;text=0"' in html
    html = whole(explorer("accuracy", bundle, gap_list="words: estimate against true"))
    assert 'href="accuracy?bundle=reviews&amp;' in html and "word=" in html


def test_a_run_on_words_has_no_pairs_and_the_other_way_round(explorer, bundle, copied_bundle):
    assert "has no pairs" in whole(explorer("accuracy", bundle))
    at = explorer("accuracy", on_pairs(copied_bundle))
    html = whole(at)
    assert "has no rewards of words" in html and "has no pairs" not in html
    assert "20 held-out pairs in" in html and "The longer response was chosen in 55 % of pairs." in html
    assert "0.80 [0.60, 1.00]" in html and "0.06 · chance 0.09" in html
    assert whole(explorer("overview", copied_bundle)).count('class="lfp-card"') == 3


def test_a_permalink_to_validation_restores_it(explorer, bundle):
    view = permalinks.ValidationView(MODEL_LABELLER, "the top tenth of weights", "fuzzing", "texts")
    at = explorer("validation", bundle, **permalinks.to_params(view))
    whole(at)
    assert at.selectbox(key="labelled_by").value == MODEL_LABELLER
    chosen = [at.button_group(key=key).value for key in ("weighty_by", "label_score", "share_of")]
    assert chosen == ["the top tenth of weights", "fuzzing", "texts"]


def test_contrasts_without_an_end_are_made_of_the_effects(explorer, copied_bundle):
    rewrite(copied_bundle, "ablations", lambda rows: rows.drop_columns(["contrast_high"]))
    with Store.open(copied_bundle) as store:
        found = [row for row in queries.run.report_ablations(store) if row["contrast"] is not None]
    assert found and all(row["contrast_low"] <= row["contrast"] <= row["contrast_high"] for row in found)
    assert "This cannot be shown" not in whole(explorer("validation", copied_bundle))


def test_what_is_inert_is_listed_with_links(explorer, bundle, store):
    singles = queries.run.ablated_features(store)
    html = words_of(explorer("validation", bundle))
    assert "5 of the 6 features" in html and "With 200 completions, effects smaller than about 0.06 are" in html
    leads = [f'href="feature?bundle=reviews&amp;feature={row.feature_id}"' in html for row in singles]
    assert leads == [abs(row.effect) < 0.1 for row in singles]


@settings(max_examples=12)
@given(name=TEXTS)
def test_names_in_linked_tables_are_tame(name):
    is_tame(panels.linked_table([name], [panels.LinkedRow(f"inputs?text={escaped('1')}", name or "x", name, (name,))]))
