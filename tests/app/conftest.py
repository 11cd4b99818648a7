"""The explorer without a browser."""

import functools

import pytest
from streamlit import config
from streamlit.components.v2 import manifest_scanner
from streamlit.runtime.context import ContextProxy
from streamlit.testing.v1 import AppTest

from lfp.testing.synthetic import make_bundle
from tests.app.reader import PAGES
from tests.conftest import HOSTILE, ROOT


@pytest.fixture(scope="session")
def paired(tmp_path_factory):
    """A small bundle of preference pairs, the last ones without activations. Do not change it: copy it."""
    path = tmp_path_factory.mktemp("bundles") / "paired"
    return make_bundle(path, n_features=60, n_texts=40, pooling="response", n_pairs=20)


@pytest.fixture(scope="session")
def hostile_pairs(tmp_path_factory):
    """Pairs of texts that must not be taken for anything but text."""
    path = tmp_path_factory.mktemp("bundles") / "hostile_pairs"
    return make_bundle(path, n_features=80, n_texts=0, n_pairs=10, extra_texts=HOSTILE * 4)


@pytest.fixture(scope="session", autouse=True)
def settings_beside_the_entry():
    """Read app/.streamlit/config.toml, as `streamlit run app/main.py` does."""
    config._main_script_path = str(ROOT / "app" / "main.py")
    config.get_config_options(force_reparse=True)


@pytest.fixture(scope="session", autouse=True)
def one_scan_of_packages():
    """A server looks through the installed packages for components once, as it starts; AppTest would at every run."""
    scan = manifest_scanner.scan_component_manifests
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(manifest_scanner, "scan_component_manifests", functools.cache(scan))
        yield


@pytest.fixture(autouse=True)
def audit_url(monkeypatch, tmp_path):
    """Audits of each test in a place of their own."""
    url = f"sqlite:///{tmp_path / 'audits' / 'audits.sqlite'}"
    monkeypatch.setenv("LFP_AUDIT_URL", url)
    return url


@pytest.fixture(autouse=True)
def cookies(monkeypatch):
    """The browser's cookies, none at first: AppTest has no browser that could hold any."""
    held = {}
    monkeypatch.setattr(ContextProxy, "cookies", held)
    return held


@pytest.fixture
def explorer(monkeypatch):
    """Opens a page of the explorer on some bundles."""

    def open_page(name, *bundles, **params):
        monkeypatch.setenv("LFP_BUNDLES", ",".join(map(str, bundles)))
        at = AppTest.from_file(str(ROOT / "app" / "main.py"), default_timeout=30)
        for key, value in params.items():
            at.query_params[key] = value
        if name != "overview":
            at.switch_page(f"views/{name}.py")
        return at.run()

    return open_page


@pytest.fixture
def walk(explorer):
    """Goes through all pages of the explorer on some bundles in one session: yields each page's name and the page."""

    def go_through(*bundles):
        at = explorer(PAGES[0], *bundles)
        for page in PAGES:
            yield page, at.switch_page(f"views/{page}.py").run()

    return go_through
