"""The explorer without a browser."""

import pytest
from streamlit.testing.v1 import AppTest

from tests.conftest import ROOT


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
