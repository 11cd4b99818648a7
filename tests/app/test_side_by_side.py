"""The page of two runs, and what it says of them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.components.html import panels
from app.components.results import comparison as side_by_side
from lfp.bundle import comparison
from lfp.bundle.comparison import FigurePair
from lfp.bundle.manifest import check_bundle
from lfp.bundle.store.connection import Store
from lfp.evaluation.results import ResultRow
from lfp.testing.synthetic import make_bundle
from tests.app.reader import is_tame, tame, whole
from tests.conftest import HOSTILE


@pytest.fixture(scope="module")
def again(tmp_path_factory):
    return make_bundle(tmp_path_factory.mktemp("again") / "again", n_features=50, n_texts=40, seed=1, title="Once more")


def pair(value, other, **keys):
    names = {"report_row": "kendall_tau", "metric": "tau_within_sign", **keys}
    rows = [ResultRow(**names, value=v, ci_low=v - 0.1, ci_high=v + 0.1) for v in (value, other)]
    return FigurePair(*rows)


def test_figures_are_named_by_their_keys_and_marked_where_they_differ():
    table = side_by_side.figures([pair(0.2, 0.5, layer=2, words="all"), pair(0.2, 0.25)]).to_pylist()
    assert table[0]["figure"] == "tau within sign · layer 2 · all" and table[0]["differs"] == "✓"
    assert table[1]["differs"] == "" and table[1]["difference_interval"] == "−0.09 to 0.19"
    said = side_by_side.few_differ([pair(0.2, 0.5)] * 3 + [pair(0.2, 0.2)] * 57)
    assert said == "60 metrics in both. 3 of the 60 with intervals differ; about 3 would by chance."


@given(text=st.text(max_size=30) | st.sampled_from(HOSTILE))
def test_settings_of_any_words_are_tame(text):
    is_tame(panels.table(*side_by_side.settings([(text, text, [text]), ("a", None, {"b": text})])))


@pytest.mark.parametrize("by", side_by_side.MATCH_SORTS)
def test_pairs_are_sorted_by_size(bundle, again, by):
    with Store.open(bundle) as one, Store.open(again) as two:
        found = comparison.match_features(one, two)
    column = {"difference": "difference", "weight": "weight_one"}.get(by, by)
    sizes = [abs(value) for value in found.pairs[column].to_pylist()]
    down = side_by_side.sorted_pairs(found.pairs, by=by, descending=True)
    assert [abs(value) for value in down[column].to_pylist()] == sorted(sizes, reverse=True)
    up = side_by_side.sorted_pairs(found.pairs, by=by, descending=False)
    assert [abs(value) for value in up[column].to_pylist()] == sorted(sizes)


def test_one_bundle_says_how_to_offer_two(explorer, bundle, monkeypatch):
    assert "set LFP_BUNDLES to both folders" in whole(explorer("runs", bundle))
    monkeypatch.setenv("LFP_PUBLIC", "1")
    html = whole(explorer("runs", bundle))
    assert "offers only one bundle" in html and "LFP_BUNDLES" not in html


def test_two_runs_side_by_side(explorer, bundle, again):
    at = explorer("runs", bundle, again, report="sign accuracy")
    html = whole(at)
    assert "Synthetic reviews, praised" in html and "Once more" in html
    assert "features are matched by the tokens they fire on" in html
    assert at.selectbox(key="report").value == "sign accuracy"
    figures = at.dataframe[0].value
    assert len(figures) == 4 and figures["difference"].abs().max() == 0
    assert at.dataframe[1].value["similarity"].is_monotonic_decreasing


def test_a_matched_feature_is_opened_in_its_own_run(explorer, bundle, again):
    at = explorer("runs", bundle, again)
    box = at.selectbox(key="open_match")
    here, there = (next(name for name in box.options if f" {where} · " in name) for where in ("here", "there"))
    for name, shown in ((here, "reviews"), (there, "again")):
        at.selectbox(key="open_match").select(name)
        html = whole(at.run())
        assert f'href="feature?bundle={shown}&amp;feature={name.split()[0][1:]}"' in html


def test_the_other_run_is_never_this_one(explorer, bundle, again):
    at = explorer("runs", bundle, again, other="again")
    at.sidebar.selectbox(key="bundle").select("again")
    html = whole(at.run())
    assert at.selectbox(key="other").value == "reviews" and "Once more" in html


@pytest.mark.parametrize("other", ["gone", "<b>", ""])
def test_an_unknown_other_run_gives_a_known_one(explorer, bundle, again, other):
    at = explorer("runs", bundle, again, other=other)
    whole(at)
    assert at.selectbox(key="other").value == "again"


def test_a_broken_other_run_leaves_the_page_alive(explorer, bundle, broken_bundle):
    html = whole(explorer("runs", bundle, broken_bundle))
    assert "The other run cannot be shown" in html and "was changed after it was written" in html
    assert "Compare" in html


def test_an_empty_other_run_has_nothing_in_common(explorer, bundle, empty_bundle):
    html = whole(explorer("runs", bundle, empty_bundle))
    assert "no metric in common" in html and "0 pairs" in html
    assert check_bundle(empty_bundle).bundle_id in html


def test_hostile_runs_are_tame(explorer, hostile_bundle, bundle):
    tame(explorer("runs", hostile_bundle, bundle))


@pytest.mark.parametrize(("other", "says"), [("<b>gone</b>", "not offered here"), ("reviews", "the run that is open")])
def test_a_link_to_a_run_that_is_not_the_other_is_told_of(explorer, bundle, again, other, says):
    html = whole(explorer("runs", bundle, again, other=other))
    assert "No such run" in html and says in html and "<b>gone" not in html
    assert "Bold rows differ." in html and "No such run" not in whole(explorer("runs", bundle, again))


def test_a_long_title_is_shown_whole(bundle):
    one = check_bundle(bundle)
    long = one.model_copy(update={"title": "a run with a title of many words, as people write them"})
    _, rows, differing = side_by_side.facts(one, long)
    assert rows[0][2] == long.title and differing == [0]
