"""A real server, a real browser: from the overview to a text, clicking."""

import re

import pytest

from tests.app.serving import CHROMIUM, browser, explorer, settle

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: apt install chromium"),
]


@pytest.fixture(scope="module")
def address(bundle, empty_bundle):
    with explorer(empty_bundle, bundle) as served:
        yield served


@pytest.fixture(scope="module")
def page(address):
    with browser() as chromium:
        opened = chromium.new_page(viewport={"width": 1400, "height": 1400})
        opened.errors, opened.outside = [], []
        opened.on("pageerror", lambda error: opened.errors.append(str(error)))
        opened.on("request", lambda request: opened.outside.append(request.url))
        yield opened


def url(page, pattern):
    page.wait_for_url(re.compile(pattern), timeout=15_000)
    settle(page)


def test_from_the_overview_to_a_text(page, address):
    page.goto(f"{address}/?bundle=reviews")
    page.get_by_text("Did the reward move?").wait_for()
    settle(page)

    page.get_by_test_id("stSidebarNav").get_by_text("Features").click()
    url(page, r"/features\?bundle=reviews$")
    box = page.get_by_test_id("stDataFrame").first.bounding_box()
    page.mouse.click(box["x"] + 250, box["y"] + 60)
    url(page, r"/feature\?bundle=reviews&feature=\d+&walk=sort%3Dcontribution$")
    page.get_by_text("In the estimate", exact=True).wait_for()

    page.locator(".lfp-caption a").first.click()
    url(page, r"/inputs\?bundle=reviews&text=\d+$")
    page.get_by_text("adds up exactly").wait_for()
    assert page.locator(".lfp-cell").count() > 5

    page.locator(".js-plotly-plot .bars path").first.click(force=True)  # plotly listens on a layer above
    url(page, r"watch=\d+")
    page.get_by_role("link", name="Open the feature").click()
    url(page, r"/feature\?bundle=reviews&feature=\d+$")
    page.go_back()
    url(page, r"/inputs\?bundle=reviews&text=\d+&watch=\d+$")
    assert page.errors == []


def test_drawing_on_the_map_filters_the_list(page, address):
    page.goto(f"{address}/features?bundle=reviews")
    settle(page)
    plot = page.locator(".js-plotly-plot .nsewdrag").first
    plot.wait_for()
    box = plot.bounding_box()
    left, top, width, height = (box[key] for key in ("x", "y", "width", "height"))
    page.mouse.move(left + 4, top + 4)
    page.mouse.down()
    for across, down in ((0.5, 0.02), (0.55, 0.5), (0.5, 0.98), (0.02, 0.98), (0.02, 0.02)):
        page.mouse.move(left + across * width, top + down * height, steps=4)
    page.mouse.up()
    url(page, r"area=")
    page.get_by_text("within the area drawn on the map").wait_for()
    page.reload()
    settle(page)
    page.get_by_text("within the area drawn on the map").wait_for()
    page.get_by_role("button", name="Clear the area").click()
    url(page, r"/features\?bundle=reviews$")


def test_tables_have_no_download_of_streamlits_own(page, address):
    page.goto(f"{address}/features?bundle=reviews")
    settle(page)
    page.get_by_test_id("stDataFrame").first.hover()
    page.get_by_role("button", name="Fullscreen").first.wait_for()
    assert page.get_by_role("button", name="Download as CSV").count() == 0


def test_keys_walk_the_list(page, address):
    page.goto(f"{address}/features?bundle=reviews&sort=weight")
    settle(page)
    box = page.get_by_test_id("stDataFrame").first.bounding_box()
    page.mouse.click(box["x"] + 150, box["y"] + 60)
    url(page, r"/feature\?bundle=reviews&feature=\d+&walk=sort%3DWeight$")
    page.get_by_text("1 of 60 in the list").wait_for()
    first = page.url
    page.keyboard.press("j")
    page.get_by_text("2 of 60 in the list").wait_for()
    page.keyboard.press("k")
    page.get_by_text("1 of 60 in the list").wait_for()
    url(page, re.escape(first))
    page.get_by_role("link", name="Back to the list").click()
    url(page, r"/features\?bundle=reviews&sort=Weight$")


def test_labels_come_before_examples_on_a_phone(page, address):
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto(f"{address}/feature?bundle=reviews&feature=3")
    settle(page)
    shown = page.get_by_role("heading", name="Labels").first, page.get_by_text("Examples", exact=True).first
    labels, examples = (each.bounding_box()["y"] for each in shown)
    page.set_viewport_size({"width": 1400, "height": 1400})
    assert labels < examples


def test_nothing_is_fetched_from_elsewhere(page, address):
    home = (address, address.replace("http", "ws"), "data:", "blob:")
    assert [asked for asked in page.outside if not asked.startswith(home)] == []


PATHS = [
    "",
    "accuracy?word=enjoyed",
    "validation",
    "features",
    "feature",
    "inputs",
    "pairs",
    "disagreements",
    "drift",
    "runs",
    "try_it",
    "about",
]


@pytest.mark.parametrize("path", PATHS)
def test_a_narrow_screen_is_not_overflown(page, address, path):
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto(f"{address}/{path}{'&' if '?' in path else '?'}bundle=reviews")
    settle(page)
    width = page.evaluate("document.querySelector('[data-testid=\"stMain\"]').scrollWidth")
    assert width <= 390


def test_a_click_on_a_point_looks_a_word_up_or_opens_a_feature(page, address):
    page.set_viewport_size({"width": 1400, "height": 1400})
    page.goto(f"{address}/accuracy?bundle=reviews")
    settle(page)
    page.locator(".js-plotly-plot .scatterlayer path.point").first.click(force=True)
    url(page, r"/accuracy\?bundle=reviews&word=\w+$")
    page.get_by_text("written by the tuned model").wait_for()

    page.goto(f"{address}/validation?bundle=reviews")
    settle(page)
    page.locator(".js-plotly-plot .scatterlayer path.point").first.click(force=True)
    url(page, r"/feature\?bundle=reviews&feature=\d+$")
    page.go_back()
    url(page, r"/validation\?bundle=reviews$")
    page.get_by_text("Weighted heavily, no effect detected").wait_for()
