"""Links within the session: no reload, one step back, nothing lost; copied links; Esc. In a real browser."""

import re
from xml.etree import ElementTree

import pytest

from lfp.bundle.manifest import read_manifest
from tests.app.serving import CHROMIUM, browser, explorer, settle

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: apt install chromium"),
]


@pytest.fixture(scope="module")
def address(bundle, empty_bundle):
    with explorer(bundle, empty_bundle) as served:
        yield served


@pytest.fixture(scope="module")
def context():
    with browser() as chromium:
        opened = chromium.new_context(viewport={"width": 1400, "height": 900})
        opened.grant_permissions(["clipboard-read", "clipboard-write"])
        yield opened


@pytest.fixture
def page(context):
    opened = context.new_page()
    opened.errors = []
    opened.on("pageerror", lambda error: opened.errors.append(str(error)))
    yield opened
    assert opened.errors == []
    opened.close()


def start(page, address):
    """Open an address and mark the document: a reload would lose the mark."""
    page.goto(address)
    settle(page)
    page.evaluate("window.isSameDocument = true")


def arrive(page, pattern):
    page.wait_for_url(re.compile(pattern), timeout=20_000)
    settle(page)
    assert page.evaluate("window.isSameDocument"), "the document was loaded again"


def scroll_top(page):
    return page.evaluate("document.querySelector('[data-testid=\"stMain\"]').scrollTop")


def note_is(page, text):
    page.wait_for_function("text => document.querySelector('textarea[aria-label=Note]')?.value === text", arg=text)


def show_note(page):
    """Open the form unless it is still open."""
    page.wait_for_timeout(1000)
    if not page.get_by_label("Note").is_visible():
        page.get_by_role("button", name="Comment").click()


def test_tab_into_a_table_opens_nothing_and_enter_opens_the_cell(page, address):
    start(page, f"{address}/features?sort=Weight")
    page.get_by_text("Review these").focus()
    for _ in range(6):
        page.keyboard.press("Tab")
        page.wait_for_timeout(300)
    page.locator(".lfp-following a").wait_for()
    page.keyboard.press("ArrowDown")
    page.wait_for_timeout(1000)
    assert "/features" in page.url
    page.keyboard.press("Enter")
    arrive(page, r"/feature\?feature=\d+&walk=sort%3DWeight$")


def test_a_link_is_one_step_that_keeps_the_session(page, address):
    start(page, f"{address}/features?sort=Weight")
    box = page.get_by_test_id("stDataFrame").first.bounding_box()
    page.mouse.click(box["x"] + 150, box["y"] + 60)
    arrive(page, r"/feature\?feature=\d+&walk=sort%3DWeight$")
    page.get_by_text("1 of 60 in the list").wait_for()
    first = page.url

    page.get_by_text("Neighbours", exact=True).scroll_into_view_if_needed()
    page.locator(".lfp-nears a").first.scroll_into_view_if_needed()
    page.wait_for_timeout(300)
    left_at = scroll_top(page)
    assert left_at > 200
    page.locator(".lfp-nears a").first.click()
    page.get_by_text("1 of 60 in the list").wait_for(state="hidden")
    arrive(page, r"/feature\?feature=\d+$")
    assert page.url != first and scroll_top(page) == 0

    page.go_back()
    arrive(page, re.escape(first) + "$")
    page.get_by_text("1 of 60 in the list").wait_for()
    page.wait_for_function(
        "top => Math.abs(document.querySelector('[data-testid=\"stMain\"]').scrollTop - top) < 5", arg=left_at
    )
    page.go_back()
    arrive(page, r"/features\?sort=Weight$")
    page.wait_for_timeout(1000)
    assert page.url.endswith("/features?sort=Weight"), "the row that was clicked is followed again"


def test_an_address_typed_by_hand_opens_a_page(page, address):
    for typed, title in (("overview", "Summary"), ("zzzz", "Summary"), ("Feature?feature=3", "Feature 3")):
        start(page, f"{address}/{typed}")
        assert page.title().startswith(title) and page.get_by_role("dialog").count() == 0
        assert page.get_by_text("There is no page called zzzz").count() == (typed == "zzzz")
    page.get_by_test_id("stSidebarNav").get_by_text("About").click()
    arrive(page, "/about$")
    page.go_back()
    arrive(page, r"/Feature\?feature=3$")
    assert page.title().startswith("Feature 3") and page.get_by_role("dialog").count() == 0


def test_the_menu_is_one_step_too(page, address):
    start(page, f"{address}/features?sort=Weight")
    page.get_by_test_id("stSidebarNav").get_by_text("Review").click()
    arrive(page, r"/queue$")
    page.go_back()
    arrive(page, r"/features\?sort=Weight$")


def test_what_a_reviewer_typed_stays(page, address):
    start(page, f"{address}/feature?feature=3")
    page.get_by_label("Your name").fill("ann")
    page.get_by_label("Your name").press("Enter")
    page.get_by_role("button", name="Comment").click()
    page.get_by_label("Note").fill("fires on praise")
    page.locator(".lfp-nears a").first.click()
    arrive(page, r"/feature\?feature=\d+$")
    show_note(page)
    note_is(page, "")
    page.get_by_label("Note").fill("half a thought")
    page.go_back()  # while the field still has the focus
    arrive(page, r"/feature\?feature=3$")
    show_note(page)
    note_is(page, "fires on praise")
    page.go_forward()
    arrive(page, r"/feature\?feature=(?!3$)\d+$")
    show_note(page)
    note_is(page, "half a thought")
    page.reload()
    settle(page)
    assert page.get_by_label("Your name").input_value() == "ann"


def test_keys_judge_and_go_on(page, address):
    start(page, f"{address}/feature?feature=5&walk=sort%3DWeight")
    page.get_by_label("Your name").fill("ann")
    page.get_by_label("Your name").press("Enter")
    page.get_by_role("button", name="Partly").wait_for()
    settle(page)
    page.get_by_label("Your name").press("Escape")
    page.keyboard.press("2")
    page.get_by_text("label partly right").wait_for()
    before = page.url
    page.keyboard.press("n")
    page.wait_for_url(lambda url: url != before, timeout=20_000)
    page.get_by_text("Nobody has reviewed it yet.").wait_for()


def test_a_verdict_without_a_name_leads_to_the_name(page, address):
    page.context.clear_cookies()
    start(page, f"{address}/feature?feature=7")
    page.keyboard.press("2")
    assert page.evaluate("document.activeElement.ariaLabel") == "Your name"
    page.keyboard.type("ivy")
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Partly").wait_for()
    settle(page)
    page.keyboard.press("Escape")
    page.keyboard.press("2")
    page.get_by_text("label partly right").wait_for()


def tab_to(page, name):
    """Press Tab until what has the focus is called so."""
    for _ in range(90):
        page.keyboard.press("Tab")
        if page.evaluate("(at => at.ariaLabel || at.innerText || '')(document.activeElement)").strip().startswith(name):
            return
    pytest.fail(f"Tab never reaches {name}")


def test_the_keyboard_alone_opens_judges_goes_on_and_back(page, address):
    start(page, f"{address}/features?sort=Weight")
    page.keyboard.press("o")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    arrive(page, r"/feature\?feature=\d+&walk=sort%3DWeight$")
    tab_to(page, "Your name")
    page.keyboard.press("Control+A")
    page.keyboard.type("eve")
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Partly").wait_for()
    settle(page)
    page.keyboard.press("Escape")
    page.keyboard.press("3")
    page.get_by_text("label wrong").first.wait_for()
    before = page.url
    page.keyboard.press("n")
    page.wait_for_url(lambda url: url != before, timeout=20_000)
    page.get_by_text("2 of 60 in the list").wait_for()
    settle(page)
    tab_to(page, "Back to the list")
    page.keyboard.press("Enter")
    arrive(page, r"/features\?sort=Weight$")


def test_a_copied_link_names_its_bundle(page, address, bundle):
    start(page, f"{address}/inputs?text=3")
    page.get_by_role("button", name="Copy link").click()
    page.get_by_text("Link copied").wait_for()
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied == f"{address}/inputs?text=3&bundle=reviews&bundle_id={read_manifest(bundle).bundle_id}"
    page.goto(copied)
    settle(page)
    assert page.get_by_text("This link is to another bundle").count() == 0


def test_esc_clears_a_search_and_its_filter(page, address):
    start(page, f"{address}/inputs")
    find = page.get_by_label("Find")
    find.fill("film")
    find.press("Enter")
    arrive(page, r"/inputs\?words=film$")
    find.press("Escape")
    arrive(page, r"/inputs$")
    assert find.input_value() == ""


def test_a_figure_is_saved_as_png_and_svg(page, address):
    start(page, f"{address}/inputs?text=3")
    plot = page.locator(".js-plotly-plot").first
    plot.scroll_into_view_if_needed()
    plot.hover()
    with page.expect_download() as saved:
        plot.locator(".modebar-btn").first.click()
    assert saved.value.suggested_filename.endswith(".png")
    with page.expect_download() as saved:
        plot.get_by_label("Download plot as SVG").click()
    drawn = ElementTree.parse(saved.value.path()).getroot()
    names = [element.tag.rpartition("}")[2] for element in drawn.iter()]
    assert saved.value.suggested_filename == "figure.svg" and names.count("path") > 3 and "text" in names


def test_an_embedded_feature_stands_alone(page, address):
    start(page, f"{address}/feature?feature=3&embed=true")
    assert not page.get_by_test_id("stSidebar").is_visible()
    assert not page.locator(".st-key-verdict_bar").is_visible()
    page.locator(".lfp-nears a").first.click()
    arrive(page, r"/feature\?(feature=\d+&embed=true|embed=true&feature=\d+)$")
    assert not page.get_by_test_id("stSidebar").is_visible()
