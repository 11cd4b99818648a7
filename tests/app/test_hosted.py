"""The explorer under a base path behind a reverse proxy: links, reload, two tabs at once, and the report as a file."""

import re

import pytest

from lfp.audit import AuditStore, key_of
from lfp.bundle.manifest import read_manifest
from tests.app.proxy import proxy
from tests.app.serving import CHROMIUM, browser, explorer, settle

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: apt install chromium"),
]


@pytest.fixture(scope="module")
def audits(tmp_path_factory):
    """Where the server of this module keeps audits."""
    return f"sqlite:///{tmp_path_factory.mktemp('audits') / 'audits.sqlite'}"


@pytest.fixture(scope="module")
def address(bundle, audits):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LFP_AUDIT_URL", audits)
        with explorer(bundle, base_path="lfp") as served, proxy(served.removesuffix("/lfp")) as before:
            yield f"{before}/lfp"


@pytest.fixture(scope="module")
def context():
    with browser() as chromium:
        yield chromium.new_context(viewport={"width": 1400, "height": 900}, accept_downloads=True)


def arrive(page, pattern):
    page.wait_for_url(re.compile(pattern), timeout=20_000)
    settle(page)


def test_links_and_a_reload_keep_the_place(context, address):
    page = context.new_page()
    page.goto(address)
    settle(page)
    page.get_by_test_id("stSidebarNav").get_by_text("Features").click()
    arrive(page, r"/lfp/features$")
    box = page.get_by_test_id("stDataFrame").first.bounding_box()
    page.mouse.click(box["x"] + 150, box["y"] + 60)
    arrive(page, r"/lfp/feature\?feature=\d+&walk=sort%3Dcontribution$")
    page.reload()
    settle(page)
    page.get_by_text("1 of 60 in the list").wait_for()
    page.go_back()
    arrive(page, r"/lfp/features$")
    page.close()


def test_two_tabs_judge_under_their_own_names(context, address, audits, bundle):
    tabs = {name: context.new_page() for name in ("ann", "bob")}
    for number, (name, tab) in enumerate(tabs.items(), start=3):
        tab.goto(f"{address}/feature?feature={number}")
        settle(tab)
        tab.get_by_label("Your name").fill(name)
        tab.get_by_label("Your name").press("Enter")
        tab.get_by_role("button", name="Partly").wait_for()
    for name, answer in (("ann", "Wrong"), ("bob", "Partly")):
        tabs[name].get_by_role("button", name=answer).click()
    for name, answer in (("ann", "wrong"), ("bob", "partly right")):
        tabs[name].get_by_text(f"label {answer}").first.wait_for()
        tabs[name].reload()
        settle(tabs[name])
        assert tabs[name].get_by_label("Your name").input_value() == name
        tabs[name].get_by_text(f"label {answer}").first.wait_for()
    history = AuditStore(audits).history(key_of(read_manifest(bundle)))
    given = {(verdict.feature_id, verdict.reviewer, verdict.verdict) for verdict in history}
    assert given == {(3, "ann", "wrong"), (4, "bob", "partly")}
    for tab in tabs.values():
        tab.close()


def test_the_report_is_one_page_that_opens_without_a_network(context, address, tmp_path):
    page = context.new_page()
    page.goto(f"{address}/about")
    settle(page)
    with page.expect_download() as saved:
        page.get_by_role("button", name="Download the report as one page").click()
    path = tmp_path / saved.value.suggested_filename
    saved.value.save_as(path)
    page.close()
    assert path.name.startswith("lfp-report-") and path.suffix == ".html"
    opened = context.new_page()
    asked, errors = [], []
    opened.on("request", lambda request: asked.append(request.url))
    opened.on("pageerror", lambda error: errors.append(str(error)))
    opened.goto(path.as_uri(), wait_until="networkidle")
    assert (
        opened.locator("h1").count() == 1 and opened.locator("svg").count() > 3 and opened.locator("table").count() > 3
    )
    assert [url for url in asked if not url.startswith(("data:", path.as_uri()))] == [] == errors
    opened.close()
