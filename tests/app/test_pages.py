"""Every page on every kind of bundle, permalinks, and what leads from one page to the next."""

import time

import pyarrow.csv
import pytest

from app.components.feature import profile
from app.components.html import exports
from app.session import permalinks
from lfp.bundle import queries
from lfp.bundle.store.connection import Store
from lfp.testing.synthetic import make_bundle
from tests.app.reader import tame, whole, words_of
from tests.conftest import change_byte, rewrite


def test_every_page_on_a_bundle(walk, bundle):
    for page, at in walk(bundle):
        html = tame(at)
        assert "Synthetic reviews, praised" in html or "Feature " in html, page
        assert 'class="lfp-notice"' not in html, page


def test_every_page_on_an_empty_bundle(walk, empty_bundle):
    for page, at in walk(empty_bundle):
        assert "This bundle " in whole(at) or page in ("overview", "runs", "about"), page


def test_every_page_on_a_broken_bundle(walk, broken_bundle):
    for page, at in walk(broken_bundle):
        html = whole(at)
        assert "This cannot be shown" in html and "table features was changed after it was written" in html, page


def test_every_page_on_no_bundle(walk, tmp_path):
    for page, at in walk(tmp_path / "gone"):
        html = whole(at)
        assert "No bundle here" in html and "LFP_BUNDLES" in html and "gone" in html, page


def test_every_page_on_hostile_words(walk, hostile_bundle):
    for _, at in walk(hostile_bundle):
        tame(at)


@pytest.mark.parametrize(("page", "name", "n"), [("feature", "feature", 3), ("inputs", "text", 5)])
def test_hostile_words_of_a_feature_and_of_a_text(explorer, hostile_bundle, page, name, n):
    at = explorer(page, hostile_bundle)
    for number in range(n):
        at.number_input(key=name).set_value(number).run()
        tame(at)


@pytest.mark.parametrize(
    "table",
    [
        "results", "labels", "histograms", "examples", "probes", "weights", "vocabulary", "token_scores",
        "activations", "saes", "ablations", "word_features", "layers", "drift", "neighbours",
    ],
)  # fmt: skip
def test_every_page_without_one_table(walk, copied_bundle, table):
    rewrite(copied_bundle, table, lambda rows: rows.slice(0, 0))
    for _, at in walk(copied_bundle):
        whole(at)


def test_a_folder_that_is_no_bundle_is_said_so(explorer, tmp_path):
    assert "no bundle here" in whole(explorer("overview", tmp_path)).lower()


def test_a_listed_folder_that_is_gone_is_named_beside_the_others(explorer, bundle, tmp_path, monkeypatch):
    gone = str(tmp_path / "gone")
    assert f"also lists {gone}: not there" in whole(explorer("about", bundle, gone))
    monkeypatch.setenv("LFP_PUBLIC", "1")
    assert gone not in whole(explorer("about", bundle, gone))


def test_a_broken_bundle_leads_to_the_others(explorer, broken_bundle, bundle):
    at = explorer("overview", broken_bundle, bundle)
    (button,) = [button for button in at.button if button.label == "Open reviews"]
    button.click()
    assert "Synthetic reviews, praised" in whole(at.run())


def test_a_bundle_mended_meanwhile_is_opened(explorer, copied_bundle):
    change_byte(copied_bundle / "features.parquet")
    at = explorer("overview", copied_bundle)
    assert "This cannot be shown" in whole(at)
    change_byte(copied_bundle / "features.parquet")
    assert "Synthetic reviews, praised" in whole(at.run())


def test_a_replaced_bundle_is_opened_anew(explorer, tmp_path):
    path = make_bundle(tmp_path / "b", n_features=3, n_texts=3, title="First title")
    at = explorer("overview", path)
    assert "First title" in whole(at)
    time.sleep(0.01)
    make_bundle(path, n_features=3, n_texts=3, title="Second title")
    assert "Second title" in whole(at.run())


def test_a_link_to_a_bundle_that_is_not_here(explorer, bundle):
    html = whole(explorer("feature", bundle, bundle="<b>gone</b>"))
    assert "No such bundle" in html and "&lt;b&gt;gone&lt;/b&gt;" in html


@pytest.mark.parametrize("name", ["reviews", "empty"])
def test_the_bundle_is_chosen_by_the_link(explorer, bundle, empty_bundle, name):
    at = explorer("features", bundle, empty_bundle, bundle=name)
    assert at.sidebar.selectbox(key="bundle").value == name
    assert ("This bundle holds no features" in whole(at)) == (name == "empty")


@pytest.mark.parametrize(("page", "name"), [("feature", "feature"), ("inputs", "text")])
def test_an_unknown_number_is_a_designed_page(explorer, bundle, page, name):
    html = whole(explorer(page, bundle, **{name: "99999"}))
    assert f"No such {name}" in html and "it holds numbers 0 to" in html


@pytest.mark.parametrize(
    ("page", "params"),
    [
        ("features", {"layer": ["x"], "sign": "up", "page": "-3", "density": ["1"], "sort": "; DROP", "order": "?"}),
        ("features", {"page": "999", "find": "zzzz"}),
        ("feature", {"feature": "abc", "examples": "nine", "activation_values": "perhaps"}),
        ("feature", {"feature": "-4"}),
        ("inputs", {"text": "1e9", "watch": "abc", "by": "x", "sheet": "0"}),
        ("inputs", {"text": "0", "watch": "99999"}),
        ("inputs", {"rated_from": "nan", "rated_to": "-9", "account": "?", "every_part": "1", "by": "rating gap"}),
        ("pairs", {"pair": "77", "rank_by": "x", "leaf": "-1", "verdict": "?"}),
        ("disagreements", {"queue": "x", "things": "?", "side": "up", "responsible": "-5", "stretch": "99"}),
        ("overview", {"estimate": "nothing"}),
        (
            "accuracy",
            {"word": "no such word", "word_axes": "x", "tau_target": "?", "gap_list": "", "text_colour": "red"},
        ),
        ("validation", {"labelled_by": "nobody", "weighty_by": "x", "label_score": "y", "share_of": "z"}),
        ("drift", {"plane": "?", "became": "x", "drift_layer": ["9"], "drift_by": "; DROP", "drift_page": "77"}),
    ],
)
def test_any_link_gives_some_page(explorer, bundle, page, params):
    whole(explorer(page, bundle, **params))


LOST = [
    ("feature", {"feature": "<b>abc"}, "feature=&lt;b&gt;abc"),
    ("feature", {"feature": "99999999999999999999"}, "=9999"),
    ("features", {"layer": ["x"], "find": "film"}, "layer=x"), ("inputs", {"text": "Infinity"}, "text=Infinity"),
    ("inputs", {"rated_from": "1e999", "text": "3"}, "rated_from=1e999"),
    ("about", {"utm_source": "x"}, ""),
    ("features", {"page": "1", "layer": ["1", "2"]}, ""),
]  # fmt: skip


@pytest.mark.parametrize(("page", "params", "lost"), LOST)
def test_what_is_no_number_in_an_address_is_said_once(explorer, bundle, page, params, lost):
    at = explorer(page, bundle, **params)
    assert ("A part of this address was left out" in whole(at)) == bool(lost) and lost in words_of(at)
    assert "A part of this address was left out" not in whole(at.run())


def test_a_bundle_that_vanishes_while_it_is_open_is_a_sentence(explorer, copied_bundle):
    at = explorer("feature", copied_bundle, feature="3")
    assert "Feature 3<" in whole(at)
    for path in copied_bundle.glob("*"):
        path.unlink()
    for page in ("feature", "overview", "inputs", "features", "about", "disagreements"):
        at = at.switch_page(f"views/{page}.py").run()
        assert "This cannot be shown" in whole(at) or "No bundle here" in whole(at)


def test_a_permalink_to_features_restores_them(explorer, bundle):
    view = permalinks.FeaturesView(
        layer=(0, 2),
        sign="positive",
        related="yes",
        density=("0.1 %", "100 %"),
        find="praise",
        sort="weight",
        order="ascending",
    )
    at = explorer("features", bundle, **permalinks.to_params(view))
    whole(at)
    assert at.text_input(key="find").value == "praise"
    assert at.button_group(key="layer").value == [0, 2]
    assert (at.selectbox(key="sign").value, at.selectbox(key="sort").value) == ("positive", "weight")
    with Store.open(bundle) as store:
        wanted = queries.features.FeatureFilter((0, 2), "positive", "yes", 0.001, 1.0, "praise")
        expected = queries.features.features(
            store, wanted, order=queries.common.Order("weight", descending=False), limit=25
        )
    assert at.dataframe[0].value["feature_id"].tolist() == expected["feature_id"].to_pylist()


def test_pages_of_features_follow_each_other(explorer, bundle):
    shown = []
    for page in ("1", "2", "3"):
        at = explorer("features", bundle, sort="id", order="ascending", page=page)
        shown += at.dataframe[0].value["feature_id"].tolist()
    assert shown == list(range(60))


def test_a_feature_is_opened_by_name(explorer, bundle):
    at = explorer("features", bundle)
    first = at.dataframe[0].value["feature_id"].tolist()[0]
    box = at.selectbox(key="open_feature")
    box.select(box.options[0])
    at.run()
    whole(at)
    assert f'href="feature?bundle=reviews&amp;feature={first}&amp;walk=sort%3Dcontribution"' in words_of(at)


def test_the_download_holds_all_that_pass(bundle):
    with Store.open(bundle) as store:
        rows = queries.features.features(
            store, queries.features.FeatureFilter(sign="negative"), order=queries.common.Order("weight")
        )
    read = pyarrow.csv.read_csv(pyarrow.BufferReader(exports.csv(rows)))
    assert read.num_rows == rows.num_rows > 0 and max(read["weight"].to_pylist()) < 0


def test_previous_and_next(explorer, bundle):
    at = explorer("feature", bundle, feature="5")
    buttons = {button.label: button for button in at.button}
    buttons["Next"].click()
    at.run()
    assert at.number_input(key="feature").value == 6 and "Feature 6<" in whole(at)
    {button.label: button for button in at.button}["Previous"].click()
    assert "Feature 5<" in whole(at.run())


@pytest.mark.parametrize(("number", "disabled"), [(0, "Previous"), (59, "Next")])
def test_the_ends_have_nowhere_to_go(explorer, bundle, number, disabled):
    at = explorer("feature", bundle, feature=str(number))
    assert [button.label for button in at.button if button.disabled] == [disabled]


def test_the_strongest_feature_is_first_shown(explorer, bundle):
    with Store.open(bundle) as store:
        strongest = queries.feature.strongest_feature(store)
    assert f"Feature {strongest}<" in whole(explorer("feature", bundle))


def test_examples_lead_to_their_texts(explorer, bundle):
    at = explorer("feature", bundle, feature="5", examples="silent", activation_values="true")
    html = whole(at)
    assert at.button_group(key="examples").value == "silent" and "lfp-numbers" in html
    assert 'href="inputs?bundle=reviews&amp;text=' in html


def test_near_misses_stand_last_and_say_what_they_are(explorer, bundle):
    with Store.open(bundle) as store:
        feature = store.rows("SELECT min(feature_id) AS first FROM examples WHERE bucket = -2")[0]["first"]
    at = explorer("feature", bundle, feature=str(feature), examples="near miss")
    assert at.button_group(key="examples").value == "near miss"
    assert at.button_group(key="examples").options[-1] == "near miss"
    assert profile.bucket_sentence(-2, 4) in whole(at)


def test_a_text_adds_up_on_screen(explorer, bundle):
    html = whole(explorer("inputs", bundle, text="3"))
    assert "adds up exactly" in html and "does not add up" not in html


def test_a_watched_feature_is_shaded_and_linked(explorer, bundle):
    with Store.open(bundle) as store:
        part = queries.ledgers.ledger(store, 3).shown[0]
    at = explorer("inputs", bundle, text="3", watch=str(part.feature_id))
    assert f"activation of feature {part.feature_id}" in whole(at)
    assert at.button_group(key="watch").value == part.feature_id
    assert f'href="feature?bundle=reviews&amp;feature={part.feature_id}"' in words_of(at)


def test_a_watched_feature_need_not_be_large(explorer, bundle):
    with Store.open(bundle) as store:
        shown = {part.feature_id for part in queries.ledgers.ledger(store, 3).shown}
    silent = next(i for i in range(60) if i not in shown)
    at = explorer("inputs", bundle, text="3", watch=str(silent))
    assert f"activation of feature {silent}" in whole(at)


def test_a_text_without_activations_says_so_kindly(explorer, bundle):
    html = whole(explorer("inputs", bundle, text="39"))
    assert "no stored activations" in html and "lfp-sheet" in html


def test_texts_named_by_examples_alone_are_shown_when_asked_for(explorer, bundle):
    rows = {texts: explorer("inputs", bundle, texts=texts, by="id").dataframe[0].value for texts in ("sampled", "all")}
    assert rows["sampled"]["text_id"].max() == 33 and rows["all"]["text_id"].max() == 39


def test_searching_texts(explorer, bundle):
    shown = explorer("inputs", bundle, words="film", by="predicted", direction="ascending").dataframe[0].value
    with Store.open(bundle) as store:
        assert all("film" in queries.texts.text(store, number).text.lower() for number in shown["text_id"].tolist())
    assert shown["predicted"].is_monotonic_increasing
    assert "No matches. Use fewer words or a wider rating." in whole(explorer("inputs", bundle, words="zzzz"))


def test_an_unknown_feature_leads_to_a_known_one(explorer, bundle):
    at = explorer("feature", bundle, feature="99999")
    (button,) = [button for button in at.button if button.label == "Open the strongest feature"]
    button.click()
    assert "No such feature" not in whole(at.run()) and at.number_input(key="feature").value < 60


def test_a_broken_bundle_leads_to_the_others_in_their_order(explorer, broken_bundle, bundle, empty_bundle):
    at = explorer("overview", broken_bundle, empty_bundle, bundle)
    labels = [button.label for button in at.button]
    assert [label for label in labels if label.startswith("Open ")] == ["Open empty", "Open reviews"]
