"""The ten journeys arrive, and no script of a page fails on the way."""

from __future__ import annotations

import pytest

from tests.app.journeys import JOURNEYS, Journey, journey_bundles
from tests.app.serving import CHROMIUM, browser, explorer

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: apt install chromium"),
]


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory):  # type: ignore[no-untyped-def]
    audits = tmp_path_factory.mktemp("audits") / "audits.sqlite"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LFP_AUDIT_URL", f"sqlite:///{audits}")
        with explorer(*journey_bundles(tmp_path_factory.mktemp("journeys"))) as served:
            yield served


@pytest.fixture(scope="module")
def chromium():  # type: ignore[no-untyped-def]
    with browser() as opened:
        yield opened


@pytest.mark.parametrize("journey", JOURNEYS, ids=lambda journey: journey.__name__)
def test_the_journey_arrives(chromium, address: str, journey: Journey) -> None:  # type: ignore[no-untyped-def]
    context = chromium.new_context(viewport={"width": 1400, "height": 1200})
    page, errors = context.new_page(), []
    page.on("pageerror", lambda error: errors.append(str(error)))
    journey(page, address)
    context.close()
    assert errors == []
