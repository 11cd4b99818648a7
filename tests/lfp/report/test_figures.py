"""Figures of results: what they hold, that names are escaped, and rows of the report as lines."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lfp.bundle import queries
from lfp.bundle.manifest import read_manifest
from lfp.bundle.queries.run import AblatedFeature
from lfp.bundle.store.connection import Store
from lfp.evaluation.results import ResultRow
from lfp.evaluation.statistics.calibration import calibration_error
from lfp.report.figures import bars, lines, points
from lfp.report.figures.frame import contributions
from lfp.report.figures.intervals import LONGEST, LOW, Legend, Line, draw_lines
from lfp.report.sentences.ablations import effects_sentence
from lfp.report.sentences.features import agreement_sentence
from lfp.report.sentences.sections import sentence
from lfp.report.summary import credit_shares, what_was_tuned
from lfp.util.sanitize import escaped, shortened
from tests.conftest import HOSTILE

TEXTS = st.text(max_size=60) | st.sampled_from(HOSTILE)


@pytest.fixture(scope="module")
def store(bundle):
    with Store.open(bundle) as opened:
        yield opened


def figure(metric="tau", value=0.5, **keys):
    return ResultRow(report_row="r", metric=metric, value=value, **keys)


LINES = [Line("one", 0.5, 0.4, 0.6), Line("other", -0.1, -0.2, 0.1)]


@pytest.mark.parametrize("zero", [True, False])
def test_zero_is_a_stroke_a_line_that_leaves_the_names_free(zero):
    figure = draw_lines(LINES, Legend("axis"), ink="#000", zero=zero)
    strokes = [shape for shape in figure.layout.shapes if shape.type == "line"]
    assert len(strokes) == (2 if zero else 0) and not figure.layout.xaxis.zeroline
    for row, (stroke, name) in enumerate(zip(strokes, figure.layout.annotations, strict=zero)):
        assert stroke.x0 == stroke.x1 == 0 and name.y < stroke.y0 < row + LOW < stroke.y1 < row + 0.5


def test_the_axis_holds_zero_where_it_stands():
    for zero in (True, False):
        low, high = draw_lines(LINES[:1], Legend("axis"), ink="#000", zero=zero).layout.xaxis.range
        assert (low <= 0 <= high) == zero and low < 0.4 and high > 0.6


@given(margins=st.lists(st.floats(-6, 6).map(lambda value: round(value, 2)), min_size=1, max_size=80))
def test_reliability_bins_are_those_of_the_calibration_error(margins):
    bins = points.reliability_bins(margins)
    assert sum(group.n for group in bins) == len(margins)
    off = sum(group.n * abs(group.chosen - group.predicted) for group in bins) / len(margins)
    values = np.array(margins)
    assert off == pytest.approx(calibration_error(0.5 + 0.5 * np.sign(values), np.abs(values)))
    assert all(0 <= group.low <= group.chosen <= group.high <= 1 for group in bins)


def test_wilson_interval_of_a_known_share():
    (group,) = points.reliability_bins([1.0] * 8 + [-1.0] * 2, bins=1)
    assert (group.low, group.high) == pytest.approx((0.4902, 0.9433), abs=2e-4)


def test_the_axis_holds_all_that_is_drawn():
    one = Line("a", 0.5, 0.4, 0.6, -0.9, 0.9, dots=(1.4,), mark=-2.0)
    low, high = draw_lines([one], Legend("x"), ink="#000").layout.xaxis.range
    assert low < -2.0 and high > 1.4
    low, high = draw_lines([Line("a", 0.5)], Legend("x"), ink="#000", zero=False).layout.xaxis.range
    assert 0.4 < low < 0.5 < high


@pytest.mark.parametrize("n", [0, 1, 30])
def test_scatters_of_any_size(n):
    words = {"word": ["w"] * n, "feedback": [0.5] * n, "implicit_reward": [None] * n, "n": [0] * n}
    assert n_drawn(points.words(words, points.REWARD, points.IMPLICIT)) == n
    texts = {"text_id": range(n), "pca_x": [0.0] * n, "pca_y": [0.0] * n, "rating": [None] * n, "begins": ["t"] * n}
    assert n_drawn(points.texts(texts, "rating")) == n
    beliefs = {"feature_id": range(n), "belief": [0.5] * n, "size": [0.0] * n, "description": [None] * n}
    assert n_drawn(points.beliefs(beliefs)) == n
    one = AblatedFeature(1, 0, "mlp_out", 0.1, 0.0, 0.2, *[None] * 5, 0.3, 9, None, None)
    assert n_drawn(points.effects([one] * n)) == n
    assert n_drawn(draw_lines([Line("a", 0.5)] * n, Legend("x"), ink="#000")) == n


def n_drawn(figure):
    """How many points its largest trace has."""
    return max((len(trace.x) for trace in figure.data if trace.x is not None), default=0)


@pytest.mark.parametrize("labeller", ["offline-tokens", "openai:m,x=1", "human:a, b"])
def test_a_labellers_name_is_read_back_from_a_group(labeller):
    assert lines.keys_of(figure(group=f"labeller={labeller},features=all")) == {
        "labeller": labeller,
        "features": "all",
    }
    assert lines.keys_of(figure(group=f"labeller={labeller},related_high"))["group"] == "related_high"
    assert lines.keys_of(figure(group="related_high")) == {} == lines.keys_of(figure())


def test_an_odds_ratio_within_its_null_is_not_praised():
    within = {"odds_ratio": figure("odds_ratio", 1.4, ci_low=0.75, ci_high=2.3, null_high=1.6)}
    beyond = {"odds_ratio": figure("odds_ratio", 2.4, ci_low=1.75, ci_high=3.3, null_high=1.6)}
    assert "No association" in agreement_sentence(within)
    assert "more often than the others" in agreement_sentence(beyond)


def test_groups_are_told_from_their_controls(store):
    rows = queries.run.report_ablations(store)
    (line,) = lines.effects(rows)
    assert sorted(line.dots) == [pytest.approx(x) for x in (-0.02, 0.0, 0.02)] and line.value == pytest.approx(-0.19)
    said = effects_sentence(rows)
    assert "beyond the mean of their matched controls" in said and "−0.19 [−0.25, −0.13]" in said
    assert "Mean reward before: 0.43, over 4 runs." in said
    assert "No group changes" in effects_sentence([row | {"contrast_q": 0.06} for row in rows])
    assert "No group can be judged" in effects_sentence([row | {"contrast_p": None} for row in rows])


def test_a_group_says_how_many_features_it_has_and_whether_they_were_scaled():
    row = {"kind": "chosen", "group": "picked", "features": [3], "scale": 0.0}
    assert lines.group_name(row) == "picked (1 feature)"
    twice = {"kind": "both", "features": [1, 2], "scale": 2.0}
    assert lines.group_name(row | twice) == "both (2 features, ×2.0)"


def test_errors_are_read_from_all_to_the_commonest():
    rows = [figure(group=group, n=3) for group in ("5-9", "0", "10-12", "all", "1")]
    assert [line.name for line in lines.errors(rows)] == [
        "all words (3)",
        "words never written (3)",
        "written once (3)",
        "written 5-9 times (3)",
        "written 10-12 times (3)",
    ]


def test_a_probes_lines_are_of_its_target_and_of_held_out_words(store):
    rows = queries.run.figures(store, "kendall_tau")
    found = lines.probes(rows, "tau", "delta")
    assert [line.name for line in found] == [
        "tuned · features", "base · features, own dictionary", "tuned minus base, features",
    ]  # fmt: skip
    assert [line.mark for line in found] == [0.52, 0.52, None]
    assert lines.probes(rows, "tau", "preference") == []


@pytest.mark.parametrize("n", [0, 1, 30])
def test_figures_of_any_size(n):
    layers = {"layer": range(n), "divergence": [1.0] * n, "selected": [i % 2 == 0 for i in range(n)]}
    of_layers = bars.divergence(layers)
    assert sum(len(trace.x) for trace in of_layers.data) == n
    assert n_drawn(bars.activation_histogram([0.1 * i for i in range(1, n + 2)], [1] * n, [2] * n)) == n + 1
    assert n_drawn(contributions(list(range(n)), [None] * n, [0.0] * n, ink="#000")) == n


@given(name=TEXTS)
def test_names_above_bars_are_escaped(name):
    figure = contributions([3], [name], [0.5], ink="#000")
    shown = f"<b>#3</b>  {escaped(shortened(name or 'no label', 52))}"
    assert figure.layout.annotations[0].text == shown and figure.data[0].hovertext[0] == f"{shown}<br>+0.50000"


@pytest.mark.parametrize("source", ["pairs.jsonl.gz", "/home/me/secret/pairs.jsonl.gz", "org/pairs"])
@pytest.mark.parametrize("method", ["dpo", "grpo"])
def test_the_entry_names_the_texts_that_a_model_was_tuned_on(bundle, method, source):
    manifest = read_manifest(bundle)
    config = {"tune": {"method": method, "pairs": source}, "corpus": {"source": "demo" if method == "dpo" else source}}
    said = what_was_tuned(manifest.model_copy(update={"config": config}))
    kind = "the pairs" if method == "dpo" else "the corpus"
    assert f"over {kind} “{source.removeprefix('/home/me/secret/')}”" in said


def test_the_entry_writes_a_models_name_as_it_is(bundle):
    manifest = read_manifest(bundle)
    models = {
        role: info.model_copy(update={"name": {"base": "package:m/f.gguf", "tuned": "tune"}[role]})
        for role, info in manifest.models.items()
    }
    assert what_was_tuned(manifest.model_copy(update={"models": models})).startswith("package:m/f.gguf, tuned on")


@settings(max_examples=12)
@given(name=TEXTS, value=st.floats(-9, 9))
def test_names_in_figures_are_escaped(name, value):
    chart = draw_lines([Line(name, value, value - 1, value + 1)], Legend("x"), ink=None)
    assert chart.layout.annotations[0].text.endswith(f"</b>  {escaped(shortened(name, LONGEST))}")
    words = {"word": [name], "feedback": [value], "implicit_reward": [value], "n": [3]}
    (trace,) = points.words(words, points.REWARD, points.IMPLICIT).data
    assert trace.hovertext[0].startswith(f"<b>{escaped(name)}</b><br>") and trace.customdata[0] == name
    texts = {"text_id": [1], "pca_x": [value], "pca_y": [value], "feedback": [value], "begins": [name]}
    hover = points.texts(texts, "feedback").data[0].hovertext[0]
    assert hover.startswith(f"<b>text 1</b><br>{escaped(shortened(name, 70))}<br>")


def test_credits_of_modules_that_tuning_left_as_they_were_are_said_to_be_0():
    says = sentence("feature_credits", [figure("check", 0.0, n=12)])
    assert "changed nothing" in says and "credits of all features are 0" in says
    assert "changed nothing" not in sentence("feature_credits", [])


def test_the_largest_credit_is_named_whatever_the_order_of_rows():
    share = figure("features_share", 0.9, group="same_position", layer=0)
    credits = [figure("credit", value, group=f"feature:{i}") for i, value in ((12, -0.1), (230, -0.3), (400, 0.2))]
    assert "Largest: feature 230, −0.3" in sentence("feature_credits", [share, *credits])


def test_what_features_carry_is_beside_what_a_control_with_a_random_decoder_carries():
    keys = {"group": "same_position", "site": "mlp_out"}
    rows = [
        *(figure("features_share", share, layer=layer, **keys) for layer, share in ((0, 0.9), (1, 0.8))),
        *(figure("control_share", share, layer=layer, **keys) for layer, share in ((0, 0.4), (1, 0.25))),
        figure("control_share", 0.99, layer=0, group="full", site="mlp_out"),
    ]
    says = sentence("feature_credits", rows)
    assert "Features carry 80 % to 90 %" in says and "frozen random decoder carry 25 % to 40 %." in says
    assert "random decoder" not in sentence("feature_credits", rows[:2])
    shares = credit_shares(rows)
    assert shares == {(0, "mlp_out", False): 0.9, (1, "mlp_out", False): 0.8, (0, "mlp_out", True): 0.4,
                      (1, "mlp_out", True): 0.25}  # fmt: skip
